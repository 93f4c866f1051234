//! Lasting failures at a registry that answers everything else: a blob, an image, a whole kind of request.

use std::time::Duration;

use futures_util::future::join_all;
use gapferry::base::error::{Kind, Reason};
use gapferry::content::{Need, Readable, Sink, Source};
use gapferry::oci::{Descriptor, Digest};
use gapferry::transport::registry::Config;

use super::outage::lines;
use super::{is_given_up, manifest, repo};
use crate::registry::memory_source::{self, MemorySource, noise, read, repository, tag};
use crate::registry::{config, watched};
use crate::support::faulty::{Answer, Fault, Host, Seen, Server, Sessions, Stage, ranged};

#[tokio::test]
async fn images_that_always_fail_neither_delay_nor_fail_the_others() {
    // If a gateway answers for several repositories and nothing succeeds, the registry behind it is down.
    for (status, bad) in [(503, 1), (500, 3)] {
        let server = Server::registry(move |request, _| match request.target.contains("bad") {
            true => Answer::new(status),
            false => manifest(),
        });
        let server = server.await;
        let (registries, events) = watched(Config { retry_budget: Some(Duration::from_secs(60)), ..config() });
        let ask = |name: String| {
            let (registries, reference) = (registries.clone(), tag(&repo(&server), &name));
            async move { registries.manifest(&reference, Need::Required).await }
        };
        for answer in join_all((0..bad).map(|nth| ask(format!("bad{nth}")))).await {
            let error = answer.unwrap_err();
            assert!(error.stopped().is_none() && error.chain().contains("giving up after 5 tries"), "{error:?}");
        }
        assert!(ask("good".into()).await.unwrap().is_some());
        assert_eq!(lines(&events, "does not answer"), 0);
    }
}

/// Reads these blobs in turn, each from its own repository, until one error ends the run for all.
async fn read_each(server: &Host, blobs: &[Descriptor], config: Config) -> Vec<gapferry::base::error::Error> {
    let (registries, _) = watched(config);
    let mut errors = Vec::new();
    for (nth, blob) in blobs.iter().enumerate() {
        let repository = repository(&server.address, &format!("team/app{nth}"));
        assert!(
            registries.manifest(&tag(&repository, "v1"), Need::Required).await.unwrap().is_some(),
            "manifests are served"
        );
        let error = read(&registries, &repository, blob).await.unwrap_err();
        let is_over = error.stopped().is_some();
        errors.push(error);
        if is_over {
            break;
        }
    }
    errors
}

/// Serves blobs whose every answer breaks off at this offset, after which nothing is sent.
fn broken_at(at: usize) -> impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static {
    move |request, _| match request.target.contains("/blobs/") {
        true => {
            let fault = Fault::Truncate(if request.range().is_some() { 0 } else { at });
            ranged(request, &[b'x'; 8]).but(fault)
        }
        false => manifest(),
    }
}

fn without_content() -> impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static {
    |request, _| match request.target.contains("/blobs/") {
        true => Answer::new(500),
        false => manifest(),
    }
}

/// Without a limit, each blob would use up all its tries, while successful manifests reset the retry budget.
#[tokio::test]
async fn a_registry_that_serves_no_blob_is_given_up_within_the_budget() {
    let servers = [
        Server::registry(without_content()).await,
        Server::registry(broken_at(0)).await,
        Server::registry(broken_at(5)).await,
    ];
    let memory = MemorySource::default();
    let blobs: Vec<_> = (100..300).map(|nth| memory.add(format!("layer{nth}"))).collect();
    for (nth, server) in servers.iter().enumerate() {
        let config = Config { retry_budget: Some(Duration::from_millis(50)), ..config() };
        let last = read_each(server, &blobs, config).await.pop().unwrap();
        assert!(last.chain().contains("has delivered no blob content"), "{nth}: {last:?}");
    }
}

/// If the registry ignores Range, the last byte of a blob arrives with all the others and counts as served content.
#[tokio::test]
async fn a_registry_that_ignores_ranges_but_serves_some_blobs_is_not_given_up() {
    let memory = MemorySource::default();
    let (good, bad) = (memory.add("good"), (0..6).map(|nth| memory.add(format!("bad{nth}"))));
    let name = good.digest.to_string();
    let server = Server::registry(move |request, before| match request.target.contains(&name) {
        true => Answer::new(200).body("good"),
        false => without_content()(request, before),
    });
    let (server, retry_budget) = (server.await, Some(Duration::from_millis(50)));
    let (registries, _) = watched(Config { retry_budget, ..config() });
    for blob in bad {
        assert!(matches!(registries.can_read(&repo(&server), &good).await, Ok(Readable::Yes)));
        let error = read(&registries, &repo(&server), &blob).await.unwrap_err();
        assert!(error.stopped().is_none(), "{error:?}");
    }
}

/// The same for short content: each manifest would use up all its tries.
#[tokio::test]
async fn a_registry_whose_manifests_all_break_off_is_given_up_within_the_budget() {
    let server = Server::registry(|_, _| manifest().but(Fault::Truncate(1))).await;
    let (registries, _) = watched(Config { retry_budget: Some(Duration::from_millis(50)), ..config() });
    assert!(is_given_up(&registries, &server).await, "every manifest used up all its tries");
}

/// A blob that arrives in pieces makes progress, however often it breaks off, and resets the budget.
#[tokio::test]
async fn a_blob_that_makes_progress_between_breaks_is_read_to_its_end() {
    let content = noise(100_000);
    // Of the smaller pieces, three are needed to renew the tries.
    for piece in [4000, 1500] {
        let served = content.clone();
        let server = Server::registry(move |request, _| ranged(request, &served).but(Fault::Truncate(piece))).await;
        let blob = MemorySource::default().add(content.clone());
        let (registries, _) = watched(Config { retry_budget: Some(Duration::from_millis(1)), ..config() });
        assert!(read(&registries, &repo(&server), &blob).await.unwrap() == content, "{piece}");
    }
}

/// Each try would last a quarter of an hour, while everything else is answered.
#[tokio::test]
async fn an_upload_that_is_never_answered_ends_within_the_budget() {
    let (server, memory) = (Sessions::start(), MemorySource::default());
    let (frozen, lost, good) = (memory.add("frozen"), memory.add("lost"), memory.add("good"));
    let hex = |blob: &Descriptor| blob.digest.to_string().replace("sha256:", "");
    server.when("PUT", &hex(&frozen)).always().fault(Fault::Stall(Stage::Request));
    server.when("PUT", &hex(&lost)).always().fault(Fault::Stall(Stage::BeforeAnswer));
    let (soon, repository) = (Duration::from_millis(300), repository(&server.address, "team/app"));
    let (stall_timeout, retry_budget) = (soon, Some(soon));
    let (registries, _) = watched(Config { stall_timeout, retry_budget, ..config() });
    let push = async |blob: &Descriptor| memory_source::push(&registries, &repository, &memory, &[blob]).await;
    let error = push(&frozen).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Network, None), "nothing was stored: {error:?}");
    assert!(error.stopped().is_none() && error.chain().contains("there was no answer"), "{error:?}");
    assert!(error.chain().contains("--retry-budget"), "a buffering proxy may need longer: {error:?}");
    assert!(push(&good).await.is_ok());
    let error = push(&frozen).await.unwrap_err();
    assert_eq!(error.reason(), Some(&Reason::Undelivered), "{error:?}");
    assert!(push(&lost).await.is_ok(), "the blob is stored, although no answer said so");
    let tries = server.seen().iter().filter(|seen| seen.method == "PUT" && seen.target.contains(&hex(&frozen))).count();
    assert_eq!(tries, 2, "one each");
}

/// Otherwise a hundred images that share a layer would each wait for all its tries.
#[tokio::test]
async fn a_blob_that_always_fails_uses_one_set_of_tries_across_repositories() {
    let server = Server::registry(without_content()).await;
    let blobs = vec![MemorySource::default().add("a layer that all share"); 20];
    let config = Config { retry_budget: Some(Duration::from_millis(50)), ..config() };
    let errors = read_each(&server, &blobs, config).await;
    assert_eq!(errors.len(), 20, "a damaged blob is no outage: {errors:?}");
    assert!(errors.iter().all(|error| error.kind() == Kind::Refused), "{errors:?}");
    assert_eq!(server.seen().iter().filter(|seen| seen.target.contains("/blobs/")).count(), 5 + 2);
    assert!(errors[1].chain().contains("giving up after 1 try"), "{:?}", errors[1]);
    assert!(errors[19].chain().contains("not tried, because 3 requests"), "{:?}", errors[19]);
}

#[tokio::test]
async fn an_upload_that_always_fails_uses_one_set_of_tries_across_repositories() {
    let (server, memory) = (Sessions::start(), MemorySource::default());
    let (bad, good) = (memory.add("a layer that all share"), memory.add("another"));
    let hex = bad.digest.to_string().replace("sha256:", "");
    server.when("PUT", &hex).always().fault(Fault::Status(500));
    let count = || server.seen().iter().filter(|seen| seen.method == "PUT" && seen.target.contains(&hex)).count();
    let (registries, _) = watched(Config { retry_budget: Some(Duration::from_secs(60)), ..config() });
    let push = async |nth: usize, blob: &Descriptor| {
        let repository = repository(&server.address, &format!("team/app{nth}"));
        memory_source::push(&registries, &repository, &memory, &[blob]).await
    };
    for nth in 0..2 {
        let error = push(nth, &bad).await.unwrap_err();
        assert!(error.stopped().is_none(), "{error:?}");
        assert!(push(nth, &good).await.is_ok());
    }
    assert_eq!(count(), 5 + 1);
    server.heal();
    assert!(push(2, &bad).await.is_ok(), "a try is left");
}

#[tokio::test]
async fn a_kind_of_request_that_always_fails_does_not_stop_the_others() {
    // The gateway does not support the referrers API.
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
    assert!(registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
    assert_eq!(lines(&events, "does not answer"), 0);
}
