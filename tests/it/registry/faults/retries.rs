//! Failures that pass with patience, and the errors for those that do not.

use std::time::Duration;

use gapferry::base::error::Kind;
use gapferry::base::progress::Event;
use gapferry::content::{Need, Source};
use gapferry::transport::registry::Config;

use super::{INDEX, manifest, repo};
use crate::registry::memory_source::tag;
use crate::registry::{client, config, watched};
use crate::support::faulty::{After, Answer, Fault, Seen, Server, Stage};

#[tokio::test]
async fn a_burst_of_5xx_is_retried() {
    let server = Server::registry(|_, before| match before {
        0 => Answer::new(503),
        1 => Answer::new(500),
        2 => Answer::new(200).body(INDEX).but(Fault::Truncate(10)),
        3 => Answer::new(504),
        _ => manifest(),
    });
    let server = server.await;
    let (registries, events) = watched(config());
    assert!(registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
    assert_eq!(server.seen().len(), 5, "four failures and the answer");
    assert!(events.events().is_empty(), "waits of milliseconds are not worth a line: {:?}", events.events());
}

#[tokio::test]
async fn a_lasting_outage_is_a_network_failure() {
    let server = Server::registry(|_, _| Answer::new(502).body("<html><h1>502 Bad Gateway</h1></html>")).await;
    let error = client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
    let message = error.chain();
    for part in ["5 tries", "502 Bad Gateway", &format!("{}/a/b:v1", server.address)] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn retry_after_is_waited_out_up_to_the_users_limit() {
    let server = Server::registry(|_, before| match before {
        0 => Answer::new(429).with("Retry-After", "1"),
        _ => manifest(),
    });
    let server = server.await;
    let (registries, events) = watched(Config { retries: 0, ..config() });
    assert!(registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
    let waited = events.events().into_iter().any(|e| match e {
        Event::Waiting { delay, why, .. } => delay >= Duration::from_secs(1) && why.contains("429"),
        _ => false,
    });
    assert!(waited);

    let later = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(7200));
    let server = Server::registry(move |_, _| Answer::new(429).with("Retry-After", later.clone())).await;
    let error = client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err();
    assert_eq!(error.kind(), Kind::RateLimited);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_silent_registry_does_not_hold_the_run_forever() {
    let server = Server::registry(|request, _| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/u"),
        _ => Answer::new(200).with("Content-Length", "10").but(Fault::Stall(Stage::Body(0))),
    });
    let server = server.await;
    let quick = Config { stall_timeout: Duration::from_millis(50), retries: 1, ..config() };
    let error = client(quick).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
    assert!(error.chain().contains("silent"), "{error:?}");
}

#[tokio::test]
async fn a_registry_can_be_reached_by_its_ipv6_address() {
    let answer = |request: &Seen, _| if request.target == "/v2/" { Answer::new(200) } else { manifest() };
    // Skips a machine without IPv6.
    let Ok(server) = Server::at("[::1]:0", answer).await else { return };
    assert!(server.address.starts_with("[::1]:"));
    assert!(client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
    assert_eq!(server.seen()[0].header("host"), server.address);
}

#[tokio::test]
async fn retry_after_as_a_date_is_waited_out() {
    let server = Server::registry(|_, _| manifest()).await;
    // Dates have whole seconds, so between one and two seconds remain.
    server.when("GET", "/manifests/").fault(Fault::TooMany(After::Date(Duration::from_secs(2))));
    let (registries, events) = watched(Config { retries: 0, ..config() });
    assert!(registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
    let waited = events.events().into_iter().any(|e| match e {
        Event::Waiting { delay, .. } => delay > Duration::from_millis(900),
        _ => false,
    });
    assert!(waited);
}
