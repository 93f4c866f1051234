//! What always fails at a registry that answers the rest: a blob, an image, a whole kind of request.

use std::time::Duration;

use futures_util::future::join_all;
use gapferry::content::Source;
use gapferry::error::Kind;
use gapferry::oci::{Descriptor, Digest};
use gapferry::transport::registry::Config;

use super::outage::lines;
use super::{manifest, repo};
use crate::shelf::{self, Shelf, read, repository, tag};
use crate::support::faulty::{Answer, Fault, Host, Seen, Server, Sessions};
use crate::{config, watched};

#[tokio::test]
async fn images_that_always_fail_do_not_make_the_others_wait_or_fail() {
    // Where a gateway answers for several and nothing succeeds, it is the registry behind it that is down.
    for (status, bad) in [(503, 1), (500, 3)] {
        let server = Server::registry(move |request, _| match request.target.contains("bad") {
            true => Answer::new(status),
            false => manifest(),
        });
        let server = server.await;
        let (registries, events) = watched(Config { retry_budget: Some(Duration::from_secs(60)), ..config() });
        let ask = |name: String| {
            let (registries, reference) = (registries.clone(), tag(&repo(&server), &name));
            async move { registries.manifest(&reference).await }
        };
        for answer in join_all((0..bad).map(|nth| ask(format!("bad{nth}")))).await {
            let error = answer.unwrap_err();
            assert!(error.stopped().is_none() && error.chain().contains("giving up after 5 tries"), "{error:?}");
        }
        assert!(ask("good".into()).await.unwrap().is_some());
        assert_eq!(lines(&events, "does not answer"), 0);
    }
}

/// Reads these blobs one after the other, each from a repository of its own, until one error ends it for all.
async fn read_each(server: &Host, blobs: &[Descriptor], config: Config) -> Vec<gapferry::error::Error> {
    let (registries, _) = watched(config);
    let mut errors = Vec::new();
    for (nth, blob) in blobs.iter().enumerate() {
        let repository = repository(&server.address, &format!("team/app{nth}"));
        assert!(registries.manifest(&tag(&repository, "v1")).await.unwrap().is_some(), "manifests are given");
        let error = read(&registries, &repository, blob).await.unwrap_err();
        let is_over = error.stopped().is_some();
        errors.push(error);
        if is_over {
            break;
        }
    }
    errors
}

fn without_content() -> impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static {
    |request, _| match request.target.contains("/blobs/") {
        true => Answer::new(500),
        false => manifest(),
    }
}

/// Each blob would cost all its tries, while manifests begin the retry budget anew.
#[tokio::test]
async fn a_registry_that_gives_no_blob_is_given_up_within_the_budget() {
    let server = Server::registry(without_content()).await;
    let shelf = Shelf::default();
    let blobs: Vec<_> = (0..200).map(|nth| shelf.add(format!("layer {nth}"))).collect();
    let config = Config { retry_budget: Some(Duration::from_millis(50)), ..config() };
    let last = read_each(&server, &blobs, config).await.pop().unwrap();
    assert!(last.chain().contains("has given no content of a blob"), "{last:?}");
}

/// A hundred images that share a layer would each wait for all its tries.
#[tokio::test]
async fn a_blob_that_always_fails_has_one_set_of_tries_whatever_the_repository() {
    let server = Server::registry(without_content()).await;
    let blobs = vec![Shelf::default().add("a layer that all share"); 20];
    let config = Config { retry_budget: Some(Duration::from_millis(50)), ..config() };
    let errors = read_each(&server, &blobs, config).await;
    assert_eq!(errors.len(), 20, "a damaged blob is no outage: {errors:?}");
    assert!(errors.iter().all(|error| error.kind() == Kind::Refused), "{errors:?}");
    assert_eq!(server.seen().iter().filter(|seen| seen.target.contains("/blobs/")).count(), 5 + 2);
    assert!(errors[1].chain().contains("giving up after 1 try"), "{:?}", errors[1]);
    assert!(errors[19].chain().contains("not tried, because 3 requests"), "{:?}", errors[19]);
}

#[tokio::test]
async fn an_upload_that_always_fails_has_one_set_of_tries_whatever_the_repository() {
    let (server, shelf) = (Sessions::start(), Shelf::default());
    let (bad, good) = (shelf.add("a layer that all share"), shelf.add("another"));
    let hex = bad.digest.to_string().replace("sha256:", "");
    server.when("PUT", &hex).always().fault(Fault::Status(500));
    let count = || server.seen().iter().filter(|seen| seen.method == "PUT" && seen.target.contains(&hex)).count();
    let (registries, _) = watched(Config { retry_budget: Some(Duration::from_secs(60)), ..config() });
    let push = async |nth: usize, blob: &Descriptor| {
        let repository = repository(&server.address, &format!("team/app{nth}"));
        shelf::push(&registries, &repository, &shelf, &[blob]).await
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
