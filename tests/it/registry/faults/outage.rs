//! A registry that stops answering in the middle of a run: all requests wait for it together and give up together.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use gapferry::base::error::Kind;
use gapferry::base::progress::{Event, Recorder};
use gapferry::content::{Need, Sink, Source};
use gapferry::oci::{Descriptor, Digest};
use gapferry::transport::registry::Config;

use super::{is_given_up, manifest, repo};
use crate::registry::memory_source::{self, MemorySource, read, repository, tag};
use crate::registry::{config, watched};
use crate::support::faulty::{Answer, Fault, Host, Seen, Server, Sessions, Stage, last_byte};

pub(super) fn lines(events: &Recorder, wanted: &str) -> usize {
    let message = events.events().into_iter().filter(|event| match event {
        Event::Warning(text) | Event::Notice(text) => text.contains(wanted),
        _ => false,
    });
    message.count()
}

/// A budget that is short, but long enough for two rounds of waiting on a busy machine.
const ENDS_SOON: Duration = Duration::from_secs(1);

/// Checks that each of these requests failed because the server at `place` was given up.
fn all_stopped<T: std::fmt::Debug>(answers: &[gapferry::base::error::Result<T>], place: &str, why: &str) {
    for answer in answers {
        let error = answer.as_ref().unwrap_err();
        assert_eq!(error.kind(), Kind::Network, "{error:?}");
        let stopped = error.stopped().unwrap_or_else(|| panic!("one cause for all: {error:?}"));
        assert_eq!(stopped.place, place);
        assert!(stopped.why.contains(why), "{stopped}");
    }
}

#[tokio::test]
async fn a_registry_that_stays_down_is_given_up_once_for_all_requests() {
    // It answers a ping and one more request; then a gateway answers for it, or it has lost its storage.
    for status in [502, 500] {
        let server = Server::start(move |_, before| if before < 2 { manifest() } else { Answer::new(status) }).await;
        let retry_budget = Some(ENDS_SOON);
        let (registries, events) = watched(Config { retry_budget, ..config() });
        let ask = |name: String| {
            let (registries, reference) = (registries.clone(), tag(&repo(&server), &name));
            async move { registries.manifest(&reference, Need::Required).await }
        };
        assert!(ask("first".into()).await.is_ok());
        let answers = join_all((0..40).map(|nth| ask(format!("v{nth}")))).await;
        all_stopped(&answers, &server.address, &status.to_string());
        assert_eq!(lines(&events, "does not answer"), 1);
        assert!(ask("later".into()).await.unwrap_err().stopped().is_some());
        // Earlier requests may still be in flight.
        assert!(!server.seen().iter().any(|seen| seen.target.contains("later")), "no more requests are sent");
    }
}

#[tokio::test]
async fn a_registry_that_is_down_from_the_start_is_one_outage_too() {
    for status in [502, 503, 504] {
        let server = Server::start(move |_, _| Answer::new(status)).await;
        let retry_budget = Some(ENDS_SOON);
        let (registries, events) = watched(Config { retry_budget, ..config() });
        let ask = |nth: usize| {
            let (registries, repository) = (registries.clone(), repository(&server.address, &format!("team/app{nth}")));
            async move { registries.manifest(&tag(&repository, "v1"), Need::Required).await }
        };
        let answers = join_all((0..40).map(ask)).await;
        all_stopped(&answers, &server.address, &status.to_string());
        assert_eq!(lines(&events, "does not answer"), 1);
        assert_eq!(events.events().len(), 1, "{:?}", events.events());
    }
}

#[tokio::test]
async fn a_starting_registry_is_waited_for_longer_than_one_requests_tries() {
    let server = Server::start(|_, before| if before < 8 { Answer::new(503) } else { manifest() }).await;
    let quick = Config { retries: 3, retry_budget: Some(Duration::from_secs(60)), ..config() };
    let (registries, events) = watched(quick);
    let references: Vec<_> = (0..8).map(|nth| tag(&repo(&server), &format!("v{nth}"))).collect();
    let answers = join_all(references.iter().map(|reference| registries.manifest(reference, Need::Required))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(Option::is_some)), "{answers:?}");
    assert_eq!((lines(&events, "does not answer"), lines(&events, "answers again")), (1, 1));
}

/// A registry that requires tokens from the server at `tokens`.
async fn with_tokens_from(tokens: &Server) -> Server {
    let realm = format!(r#"Bearer realm="http://{}/token",service="r""#, tokens.address);
    Server::start(move |request, _| match request.header("authorization") {
        "" => Answer::new(401).with("WWW-Authenticate", realm.clone()),
        _ => manifest(),
    })
    .await
}

#[tokio::test]
async fn a_token_server_that_is_down_is_given_up_once_for_all_requests() {
    for (fault, retry_budget) in [
        (Fault::Status(502), ENDS_SOON),
        (Fault::Stall(Stage::Request), 4 * ENDS_SOON),
        (Fault::Reset(Stage::Request), ENDS_SOON),
    ] {
        let tokens = Server::start(|_, _| Answer::new(200).body(r#"{"token":"t"}"#)).await;
        let registry = with_tokens_from(&tokens).await;
        let (retry_budget, stall_timeout) = (Some(retry_budget), ENDS_SOON / 2);
        let (registries, events) = watched(Config { retry_budget, stall_timeout, ..config() });
        let ask = |nth: usize| {
            let (registries, repository) =
                (registries.clone(), repository(&registry.address, &format!("team/app{nth}")));
            async move { registries.manifest(&tag(&repository, "v1"), Need::Required).await }
        };
        assert!(ask(0).await.is_ok());
        tokens.when("*", "/token").always().fault(fault.clone());
        let answers = join_all((1..40).map(ask)).await;
        let place = format!("{} (token server of {})", tokens.address, registry.address);
        all_stopped(&answers, &place, "");
        assert_eq!(lines(&events, &format!("{place} does not answer")), 1, "{fault:?}");
        assert!(ask(40).await.unwrap_err().stopped().is_some());
        assert!(tokens.seen().iter().all(|seen| !seen.target.contains("app40")), "no more requests are sent");
        assert!(ask(0).await.unwrap().is_some(), "the registry itself answers requests with a token");
    }
}

/// This many layers, and the answers of a storage server that has them.
fn layers(count: usize) -> (Vec<Descriptor>, impl Fn(&Seen) -> Answer + Send + Sync + 'static) {
    let content = |nth: usize| format!("layer {nth}");
    let memory = MemorySource::default();
    let layers: Vec<Descriptor> = (0..count).map(|nth| memory.add(content(nth))).collect();
    let known = layers.clone();
    let answer = move |request: &Seen| {
        let is_asked_for = |layer: &Descriptor| request.target.ends_with(&layer.digest.to_string());
        match known.iter().position(is_asked_for) {
            Some(nth) => Answer::new(200).body(content(nth)),
            None => Answer::new(404),
        }
    };
    (layers, answer)
}

/// A registry that redirects blobs to `storage`.
async fn with_blobs_at(storage: &Server) -> Server {
    let to = storage.address.clone();
    Server::registry(move |request, _| match request.target.contains("/blobs/") {
        true => Answer::new(307).with("Location", format!("http://{to}{}", request.target)),
        false => manifest(),
    })
    .await
}

#[tokio::test]
async fn a_storage_server_outage_is_reported_once_and_the_registry_stays_usable() {
    let (layers, answer) = layers(20);
    let storage = Server::start(move |request, _| answer(request)).await;
    let registry = with_blobs_at(&storage).await;
    let (registries, events) = watched(Config { retry_budget: Some(ENDS_SOON), ..config() });
    let fetch = |nth: usize| {
        let (registries, blob) = (registries.clone(), layers[nth].clone());
        let repository = repository(&registry.address, &format!("team/app{nth}"));
        async move { read(&registries, &repository, &blob).await }
    };
    assert!(fetch(0).await.is_ok());
    storage.when("*", "/blobs/").always().fault(Fault::Status(503));
    let answers = join_all((1..20).map(fetch)).await;
    let place = format!("{} (blob storage of {})", storage.address, registry.address);
    all_stopped(&answers, &place, "503");
    assert_eq!(lines(&events, &format!("{place} does not answer")), 1);
    assert!(registries.manifest(&tag(&repo(&registry), "v1"), Need::Required).await.unwrap().is_some());
}

#[tokio::test]
async fn a_storage_server_that_recovers_uses_up_no_blobs_tries() {
    let (layers, answer) = layers(13);
    let storage = Server::start(move |request, before| match before {
        1..60 => Answer::new(503),
        _ => answer(request),
    });
    let storage = storage.await;
    let registry = with_blobs_at(&storage).await;
    let quick = Config { retries: 3, retry_budget: Some(Duration::from_secs(60)), ..config() };
    let (registries, events) = watched(quick);
    let repository = repository(&registry.address, "team/app");
    assert!(read(&registries, &repository, &layers[0]).await.is_ok());
    let answers = join_all(layers[1..].iter().map(|layer| read(&registries, &repository, layer))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!((lines(&events, "does not answer"), lines(&events, "answers again")), (1, 1));
}

#[tokio::test]
async fn a_host_needed_only_for_referrers_is_not_waited_for() {
    let elsewhere = Server::start(|_, _| Answer::new(502)).await;
    let to = elsewhere.address.clone();
    let registry = Server::registry(move |request, _| match &request.target {
        target if target.contains("/referrers/") => Answer::new(307).with("Location", format!("http://{to}/login")),
        target if target.contains("/manifests/sha256-") => Answer::new(404),
        _ => manifest(),
    });
    let registry = registry.await;
    let (registries, events) = watched(Config { retry_budget: Some(Duration::from_secs(60)), ..config() });
    let subject = Digest::sha256(b"an image");
    let repositories: Vec<_> = (0..12).map(|nth| repository(&registry.address, &format!("team/app{nth}"))).collect();
    for answer in join_all(repositories.iter().map(|repository| registries.referrers(repository, &subject))).await {
        assert!(answer.unwrap_err().stopped().is_none());
    }
    assert_eq!(lines(&events, "does not answer"), 0);
}

#[tokio::test]
async fn a_registry_that_recovers_within_the_budget_uses_up_no_requests_tries() {
    // More failures than one request has tries.
    let server = Server::start(|_, before| match before {
        2..60 => Answer::new(502),
        _ => manifest(),
    });
    let server = server.await;
    let quick = Config { retries: 3, retry_budget: Some(Duration::from_secs(60)), ..config() };
    let (registries, events) = watched(quick);
    let ask = |name: String| {
        let (registries, reference) = (registries.clone(), tag(&repo(&server), &name));
        async move { registries.manifest(&reference, Need::Required).await }
    };
    assert!(ask("first".into()).await.is_ok());
    let answers = join_all((0..12).map(|nth| ask(format!("v{nth}")))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(Option::is_some)), "{answers:?}");
    assert_eq!((lines(&events, "does not answer"), lines(&events, "answers again")), (1, 1));
}

#[tokio::test]
async fn a_dead_registry_behind_a_gateway_that_answers_pings_is_given_up() {
    let server = Server::registry(|_, before| if before == 0 { manifest() } else { Answer::new(502) }).await;
    let (registries, _) = watched(Config { retry_budget: Some(Duration::from_millis(50)), ..config() });
    assert!(registries.manifest(&tag(&repo(&server), "first"), Need::Required).await.is_ok());
    assert!(is_given_up(&registries, &server).await, "every image used up all its tries");
}

#[tokio::test]
async fn a_retry_after_beyond_the_budget_is_one_outage() {
    let server = Server::start(|_, before| match before {
        0 | 1 => manifest(),
        _ => Answer::new(503).with("Retry-After", "3600"),
    });
    let server = server.await;
    let (registries, events) = watched(Config { retry_budget: Some(ENDS_SOON), ..config() });
    let ask = |name: String| {
        let (registries, reference) = (registries.clone(), tag(&repo(&server), &name));
        async move { registries.manifest(&reference, Need::Required).await }
    };
    assert!(ask("first".into()).await.is_ok());
    let answers = join_all((0..40).map(|nth| ask(format!("v{nth}")))).await;
    all_stopped(&answers, &server.address, "asks to wait 1 h 0 min");
    assert!(events.events().is_empty(), "the error reports it, without an event: {:?}", events.events());
    assert!(server.seen().len() < 20, "requests in flight");
}

/// Pushes this many blobs at once.
async fn push_blobs(
    to: &Host,
    count: usize,
    config: Config,
) -> (Vec<gapferry::base::error::Result<()>>, std::sync::Arc<Recorder>) {
    let (registries, events) = watched(config);
    let push = |nth: usize| {
        let (registries, repository) = (registries.clone(), repository(&to.address, &format!("team/app{nth}")));
        async move {
            let memory = MemorySource::default();
            let blob = memory.add(format!("content {nth}"));
            memory_source::push(&registries, &repository, &memory, &[&blob]).await
        }
    };
    (join_all((0..count).map(push)).await, events)
}

/// Storing an upload may take a quarter of an hour, which is too long to wait for a frozen registry.
#[tokio::test]
async fn a_registry_that_freezes_while_it_completes_uploads_is_given_up_within_the_budget() {
    let server = Sessions::start();
    server.when("PUT", "").always().fault(Fault::Stall(Stage::Request));
    server.when("GET", "/v2/").nth(2).always().fault(Fault::Stall(Stage::Request));
    let (stall_timeout, commit_timeout) = (ENDS_SOON / 2, Duration::from_secs(3600));
    let retry_budget = Some(ENDS_SOON);
    let config = Config { stall_timeout, commit_timeout, retry_budget, ..config() };
    let (answers, events) = push_blobs(&server, 3, config).await;
    all_stopped(&answers, &server.address, "has not answered");
    assert_eq!(lines(&events, "does not answer"), 1);
    assert_eq!(events.events().len(), 1, "{:?}", events.events());
}

#[tokio::test]
async fn a_registry_that_is_slow_to_complete_an_upload_but_alive_is_waited_for() {
    let pings = Arc::new((Mutex::new(0), Condvar::new()));
    let (counted, changed) = (pings.clone(), pings);
    let server = Server::start(move |request, _| match request.method.as_str() {
        "HEAD" => Answer::new(404),
        "GET" if request.byte().is_some() => last_byte(request).unwrap(),
        "POST" => Answer::new(202).with("Location", "/v2/team/app0/blobs/uploads/1"),
        "PUT" => {
            let (count, change) = &*changed;
            // The client pings the registry: the wait is longer than the stall limit.
            drop(change.wait_while(count.lock().unwrap(), |count| *count < 5).unwrap());
            Answer::new(201)
        }
        _ => {
            let (count, change) = &*counted;
            *count.lock().unwrap() += 1;
            change.notify_all();
            Answer::new(200)
        }
    })
    .await;
    let (stall_timeout, retry_budget) = (Duration::from_millis(100), Some(Duration::from_secs(60)));
    let config = Config { stall_timeout, commit_timeout: Duration::from_secs(3600), retry_budget, ..config() };
    let (answers, events) = push_blobs(&server, 1, config).await;
    assert!(answers[0].is_ok() && events.events().is_empty(), "{answers:?} {:?}", events.events());
}

/// A budget of seconds must not grow to the minute in which a single request gives up.
#[tokio::test]
async fn a_registry_that_is_frozen_from_the_start_is_given_up_within_the_budget() {
    let server = Server::start(|_, _| manifest()).await;
    server.when("*", "").always().fault(Fault::Stall(Stage::Request));
    let stall_timeout = Duration::from_secs(3600);
    let (registries, _) = watched(Config { retry_budget: Some(ENDS_SOON / 10), stall_timeout, ..config() });
    let answer = registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await;
    all_stopped(&[answer], &server.address, "has not answered");
}

/// A slow manifest may mean a slow registry, or one that is gone.
#[tokio::test]
async fn a_registry_is_pinged_while_any_request_waits() {
    let pings = Arc::new((Mutex::new(0), Condvar::new()));
    let (counted, changed) = (pings.clone(), pings);
    let server = Server::start(move |request, _| match &*request.target {
        "/v2/" => {
            let (count, change) = &*counted;
            *count.lock().unwrap() += 1;
            change.notify_all();
            Answer::new(200)
        }
        _ => {
            let (count, change) = &*changed;
            drop(change.wait_while(count.lock().unwrap(), |count| *count < 2).unwrap());
            manifest()
        }
    })
    .await;
    let stall_timeout = Duration::from_millis(400);
    let (registries, _) = watched(Config { retry_budget: Some(Duration::from_secs(60)), stall_timeout, ..config() });
    assert!(registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
}

/// Otherwise each lookup would wait a minute for the stall limit before GET answers it.
#[tokio::test]
async fn a_registry_that_never_answers_head_is_tried_once() {
    let (layers, answer) = layers(5);
    let server = Server::registry(move |request, _| match request.target.contains("/blobs/") {
        true => answer(request),
        false => manifest(),
    });
    let server = server.await;
    server.when("HEAD", "").always().fault(Fault::Stall(Stage::Request));
    let retry_budget = Some(Duration::from_secs(60));
    let (registries, _) = watched(Config { retry_budget, stall_timeout: ENDS_SOON / 2, ..config() });
    for (nth, layer) in layers.iter().enumerate() {
        let found = Source::resolve(&registries, &tag(&repo(&server), &format!("v{nth}")), Need::Required).await;
        assert!(found.unwrap().is_some());
        assert!(registries.has_blob(&repo(&server), layer).await.unwrap());
    }
    let heads = |part: &str| {
        let is_one = |seen: &&Seen| seen.method == "HEAD" && seen.target.contains(part);
        server.seen().iter().filter(is_one).count()
    };
    assert_eq!((heads("/manifests/"), heads("/blobs/")), (1, 0));
}

/// Harbor with a read-only database: otherwise each blob would use up all its tries, for hours.
#[tokio::test]
async fn a_registry_that_opens_uploads_and_completes_none_is_given_up() {
    let server = Sessions::start();
    server.when("PUT", "").always().fault(Fault::Status(500));
    let config = Config { retry_budget: Some(Duration::from_millis(50)), ..config() };
    let (registries, events) = watched(config);
    let mut ended = false;
    for nth in 0..200 {
        let memory = MemorySource::default();
        let blob = memory.add(format!("content {nth}"));
        let error =
            memory_source::push(&registries, &repository(&server.address, "a/b"), &memory, &[&blob]).await.unwrap_err();
        ended = error.stopped().is_some_and(|stopped| stopped.why.contains("has stored nothing"));
        if ended {
            break;
        }
    }
    assert!(ended, "every blob used up all its tries");
    assert!(events.events().len() <= 1, "{:?}", events.events());
}
