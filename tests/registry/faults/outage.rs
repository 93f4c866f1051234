//! A registry that stops answering in the middle of a run: everything waits for it together, and gives up together.

use std::time::Duration;

use futures_util::future::join_all;
use gapferry::content::Source;
use gapferry::error::Kind;
use gapferry::oci::Digest;
use gapferry::progress::{Event, Recorder};
use gapferry::transport::registry::Config;

use super::{manifest, repo};
use crate::shelf::{repository, tag};
use crate::support::faulty::{Answer, Server};
use crate::{config, watched};

fn lines(events: &Recorder, wanted: &str) -> usize {
    let told = events.events().into_iter().filter(|event| match event {
        Event::Warning(text) | Event::Notice(text) => text.contains(wanted),
        _ => false,
    });
    told.count()
}

#[tokio::test]
async fn a_registry_that_is_down_for_good_is_given_up_once_for_all() {
    // It answers a ping and once more, then a gateway answers for it.
    let server = Server::start(|_, before| if before < 2 { manifest() } else { Answer::new(502) }).await;
    let retry_budget = Some(Duration::from_millis(100));
    let (registries, events) = watched(Config { retry_budget, ..config() });
    let ask = |name: String| {
        let (registries, reference) = (registries.clone(), tag(&repo(&server), &name));
        async move { registries.manifest(&reference).await }
    };
    assert!(ask("first".into()).await.is_ok());
    let answers = join_all((0..40).map(|nth| ask(format!("v{nth}")))).await;
    for answer in &answers {
        let error = answer.as_ref().unwrap_err();
        assert_eq!(error.kind(), Kind::Network, "{error:?}");
        let stopped = error.stopped().expect("one cause for all");
        assert_eq!(stopped.place, server.address);
        assert!(stopped.why.contains("502"), "{stopped}");
    }
    assert_eq!(lines(&events, "does not answer"), 1);
    let before = server.seen().len();
    assert!(ask("later".into()).await.unwrap_err().stopped().is_some());
    assert_eq!(server.seen().len(), before, "nothing more is asked");
}

#[tokio::test]
async fn a_registry_that_comes_back_within_the_budget_costs_no_request_its_tries() {
    // More failures than each request has tries.
    let server = Server::start(|_, before| match before {
        2..60 => Answer::new(502),
        _ => manifest(),
    });
    let server = server.await;
    let quick = Config { retries: 3, retry_budget: Some(Duration::from_secs(60)), ..config() };
    let (registries, events) = watched(quick);
    let ask = |name: String| {
        let (registries, reference) = (registries.clone(), tag(&repo(&server), &name));
        async move { registries.manifest(&reference).await }
    };
    assert!(ask("first".into()).await.is_ok());
    let answers = join_all((0..12).map(|nth| ask(format!("v{nth}")))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(Option::is_some)), "{answers:?}");
    assert_eq!((lines(&events, "does not answer"), lines(&events, "answers again")), (1, 1));
}

#[tokio::test]
async fn one_image_that_always_fails_does_not_make_the_others_wait_or_fail() {
    let server = Server::registry(|request, _| match request.target.contains("bad") {
        true => Answer::new(503),
        false => manifest(),
    });
    let server = server.await;
    let (registries, events) = watched(config());
    let ask = |name: &str| {
        let (registries, reference) = (registries.clone(), tag(&repo(&server), name));
        async move { registries.manifest(&reference).await }
    };
    let error = ask("bad").await.unwrap_err();
    assert!(error.stopped().is_none() && error.chain().contains("giving up after 5 tries"), "{error:?}");
    assert!(ask("good").await.unwrap().is_some());
    assert_eq!(lines(&events, "does not answer"), 0);
}

#[tokio::test]
async fn one_kind_of_request_that_always_fails_does_not_stop_the_others() {
    // A gateway does not know the referrers API.
    let server = Server::registry(|request, _| match &request.target {
        target if target.contains("/referrers/") => Answer::new(503),
        target if target.contains("/manifests/sha256-") => Answer::new(404),
        _ => manifest(),
    });
    let server = server.await;
    let (registries, events) = watched(Config { retry_budget: Some(Duration::from_secs(60)), ..config() });
    let subject = Digest::sha256(b"an image");
    let ask = |nth: usize| {
        let (registries, repository) = (registries.clone(), repository(&server.address, &format!("team/app{nth}")));
        async move { registries.referrers(&repository, &subject).await }
    };
    for answer in join_all((0..12).map(ask)).await {
        let error = answer.unwrap_err();
        assert!(error.stopped().is_none() && error.chain().contains("503"), "{error:?}");
    }
    assert!(registries.manifest(&tag(&repo(&server), "v1")).await.unwrap().is_some());
    assert_eq!(lines(&events, "does not answer"), 0);
}

#[tokio::test]
async fn a_registry_behind_a_gateway_that_answers_pings_itself_is_given_up_all_the_same() {
    let server = Server::registry(|_, before| if before == 0 { manifest() } else { Answer::new(502) }).await;
    let (registries, _) = watched(Config { retry_budget: Some(Duration::from_millis(50)), ..config() });
    assert!(registries.manifest(&tag(&repo(&server), "first")).await.is_ok());
    let mut ended = false;
    for nth in 0..200 {
        let error = registries.manifest(&tag(&repo(&server), &format!("v{nth}"))).await.unwrap_err();
        ended = error.stopped().is_some();
        if ended {
            break;
        }
    }
    assert!(ended, "every image costs all its tries");
}
