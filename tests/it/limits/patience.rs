//! 429: all requests wait, visibly, as long as allowed; then the run stops, and the next one resumes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use gapferry::base::error::Kind;
use gapferry::base::progress::{Event, Events, Recorder};
use gapferry::content::{Need, Source};
use gapferry::oci::{Reference, Repository};
use gapferry::transport::registry::{Config, Registries};

use crate::limits::shop::{Shop, is_pull};
use crate::support::faulty::{Answer, Server};

fn client(config: Config) -> (Registries, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let events: Events = recorder.clone();
    let config = Config { first_delay: Duration::from_millis(1), ..config };
    (Registries::new(config, events).unwrap(), recorder)
}

fn tags(server: &Server, count: usize) -> Vec<Reference> {
    let repository = Repository::new(&server.address, "team/app").unwrap();
    (0..count).map(|n| repository.with_tag(format!("{n}").parse().unwrap())).collect()
}

fn shop(count: usize) -> Shop {
    let images: Vec<(String, String)> = (0..count).map(|n| (format!("team/app:{n}"), format!("layer {n}"))).collect();
    let images: Vec<(&str, &str)> = images.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
    Shop::with(&images)
}

fn waits(recorder: &Recorder) -> Vec<(String, Duration)> {
    let wait = |event| match event {
        Event::Waiting { why, delay, .. } => Some((why, delay)),
        _ => None,
    };
    recorder.events().into_iter().filter_map(wait).collect()
}

#[tokio::test]
async fn one_429_pauses_every_worker_of_its_registry_and_is_reported_once() {
    let (shop, first) = (shop(6), std::sync::OnceLock::new());
    // A request before the second is over is refused as well.
    let server = Server::registry(move |request, _| {
        match first.get_or_init(Instant::now).elapsed() < Duration::from_millis(950) {
            true => Answer::new(429).with("Retry-After", "1"),
            false => shop.answer(request),
        }
    });
    let server = server.await;
    let (registries, recorder) = client(Config { per_host: 1, retries: 0, ..Config::default() });
    let tags = tags(&server, 6);
    let found = join_all(tags.iter().map(|tag| registries.manifest(tag, Need::Required))).await;
    assert!(found.into_iter().all(|manifest| manifest.unwrap().is_some()));
    let waits = waits(&recorder);
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert!(waits[0].0.contains("429") && waits[0].1 >= Duration::from_secs(1), "{waits:?}");
    assert_eq!(server.seen().len(), 7, "one refusal, and the requests of all six");
}

#[tokio::test]
async fn after_a_retry_after_above_the_limit_no_worker_asks_that_registry_again() {
    let server = Server::registry(|_, _| Answer::new(429).with("Retry-After", "21600")).await;
    let (registries, recorder) = client(Config { per_host: 1, ..Config::default() });
    let tags = tags(&server, 20);
    let found = join_all(tags.iter().map(|tag| registries.manifest(tag, Need::Required))).await;
    assert!(found.iter().all(|found| found.as_ref().is_err_and(|error| error.kind() == Kind::RateLimited)));
    assert_eq!(server.seen().len(), 1);
    assert_eq!(waits(&recorder), []);
    let message = found[0].as_ref().unwrap_err().chain();
    assert!(message.contains("6 h 0 min") && message.contains("10 min 0 s"), "{message}");
}

#[tokio::test]
async fn a_retry_after_date_is_read_by_the_registrys_clock() {
    let shop = shop(1);
    // Its clock is two years behind.
    let server = Server::registry(move |request, before| match before {
        0 => Answer::new(429)
            .with("Date", "Sun, 03 Nov 2024 10:00:00 GMT")
            .with("Retry-After", "Sun, 03 Nov 2024 10:00:01 GMT"),
        _ => shop.answer(request),
    });
    let server = server.await;
    let (registries, recorder) = client(Config { retries: 0, ..Config::default() });
    assert!(registries.manifest(&tags(&server, 1)[0], Need::Required).await.unwrap().is_some());
    let waits = waits(&recorder);
    assert!(
        waits.len() == 1 && waits[0].1 >= Duration::from_secs(1) && waits[0].1 < Duration::from_secs(2),
        "{waits:?}"
    );
}

#[tokio::test]
async fn the_last_pulls_of_docker_hubs_limit_are_spread_out_and_reported() {
    let (shop, left) = (shop(10), AtomicUsize::new(9));
    let server = Server::registry(move |request, _| {
        let left = if is_pull(request) { left.fetch_sub(1, Ordering::SeqCst) - 1 } else { left.load(Ordering::SeqCst) };
        let answer = shop.answer(request).with("ratelimit-limit", "100;w=2");
        answer.with("ratelimit-remaining", format!("{left};w=2"))
    });
    let server = server.await;
    let (registries, recorder) = client(Config::default());
    for tag in tags(&server, 8) {
        assert!(registries.manifest(&tag, Need::Required).await.unwrap().is_some());
    }
    let waits = waits(&recorder);
    assert_eq!(waits.len(), 4, "from 5 left on: {waits:?}");
    assert!(waits[0].0.contains("allows 100 pulls in 2.0 s, and 5 are left"), "{waits:?}");
    assert!(waits.windows(2).all(|pair| pair[0].1 < pair[1].1), "each wait is longer than the one before: {waits:?}");
    assert!(waits.iter().all(|(_, delay)| *delay <= Duration::from_millis(20)), "{waits:?}");
}

#[tokio::test]
async fn pacing_beyond_the_allowed_wait_is_reported_once() {
    for (max_wait, lines) in [(Duration::from_secs(1), 1), (Duration::from_secs(60), 0)] {
        let (shop, left) = (shop(6), AtomicUsize::new(7));
        let server = Server::registry(move |request, _| {
            let left = left.fetch_sub(usize::from(is_pull(request)), Ordering::SeqCst);
            let answer = shop.answer(request).with("ratelimit-limit", "100;w=20");
            answer.with("ratelimit-remaining", format!("{left};w=20"))
        });
        let server = server.await;
        let (registries, recorder) = client(Config { max_wait, ..Config::default() });
        for tag in tags(&server, 6) {
            assert!(registries.manifest(&tag, Need::Required).await.unwrap().is_some());
        }
        assert_eq!(waits(&recorder).len(), 3, "7, 6, 5, 4, 3");
        let warning = |event| match event {
            Event::Warning(text) => Some(text),
            _ => None,
        };
        let warnings: Vec<String> = recorder.events().into_iter().filter_map(warning).collect();
        assert_eq!(warnings.len(), lines, "{warnings:?}");
        // 33, 67, 100, 133 and 167 ms.
        assert!(warnings.iter().all(|text| text.contains("0.5 s for those that are left")), "{warnings:?}");
    }
}

#[tokio::test]
async fn a_limit_without_retry_after_is_waited_out_by_the_registrys_limit_headers() {
    let (shop, refused) = (shop(3), AtomicUsize::new(0));
    let server = Server::registry(move |request, before| {
        let limited = before > 0 && is_pull(request) && refused.fetch_add(1, Ordering::SeqCst) < 3;
        let answer = if limited { Answer::new(429) } else { shop.answer(request) };
        answer.with("ratelimit-limit", "100;w=1").with("ratelimit-remaining", "50;w=1")
    });
    let server = server.await;
    // No retries for ordinary failures.
    let (registries, recorder) = client(Config { retries: 0, ..Config::default() });
    let tags = tags(&server, 2);
    for tag in &tags {
        assert!(registries.manifest(tag, Need::Required).await.unwrap().is_some());
    }
    let waits = waits(&recorder);
    assert_eq!(waits.len(), 3, "{waits:?}");
    assert!(waits[2].1 >= Duration::from_millis(40), "10, 20, 40 ms: {waits:?}");
}

#[tokio::test]
async fn an_unexplained_limit_is_waited_out_as_long_as_allowed() {
    let (shop, refused) = (shop(1), AtomicUsize::new(0));
    let server = Server::registry(move |request, _| match refused.fetch_add(1, Ordering::SeqCst) < 9 {
        true => Answer::new(429),
        false => shop.answer(request),
    });
    let server = server.await;
    let (registries, recorder) = client(Config { retries: 2, ..Config::default() });
    assert!(registries.manifest(&tags(&server, 1)[0], Need::Required).await.unwrap().is_some());
    let waits = waits(&recorder);
    assert_eq!(waits.len(), 9, "{waits:?}");
    assert!(waits.iter().all(|(why, _)| why.contains("429")), "{waits:?}");
    let hints = recorder
        .events()
        .into_iter()
        .filter(|event| matches!(event, Event::Warning(text) if text.contains("--per-host")));
    assert_eq!(hints.count(), 1, "{:?}", recorder.events());
}

#[tokio::test]
async fn an_unexplained_limit_ends_the_run_when_the_allowed_wait_is_used_up() {
    let server = Server::registry(|_, _| Answer::new(429)).await;
    let max_wait = Duration::from_millis(200);
    let (registries, recorder) = client(Config { retries: 2, max_wait, ..Config::default() });
    let error = registries.manifest(&tags(&server, 1)[0], Need::Required).await.unwrap_err();
    assert_eq!(error.kind(), Kind::RateLimited);
    assert!(error.chain().contains("without saying for how long"), "{}", error.chain());
    assert!(waits(&recorder).len() > 3, "{:?}", waits(&recorder));
}

#[tokio::test]
async fn a_limit_without_retry_after_is_retried_until_the_allowed_wait_is_used_up() {
    let refuse = |_: &_, _| Answer::new(429).with("ratelimit-limit", "100;w=50").with("ratelimit-remaining", "0;w=50");
    let server = Server::registry(refuse).await;
    let config = Config { retries: 0, max_wait: Duration::from_millis(1500), ..Config::default() };
    let (registries, _) = client(config);
    let error = registries.manifest(&tags(&server, 1)[0], Need::Required).await.unwrap_err();
    assert_eq!(error.kind(), Kind::RateLimited);
    assert_eq!(server.seen().len(), 3, "at once, after 0.5 s, and after the remaining second: {}", error.chain());
}
