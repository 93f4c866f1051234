//! Redirects: to storage elsewhere, and round in circles.

use gapferry::content::{Sink, Source};
use gapferry::error::Kind;

use super::{repo, with_credentials};
use crate::shelf::{Shelf, noise, read, tag};
use crate::support::faulty::{Answer, Server, ranged};
use crate::{client, config};

#[tokio::test]
async fn authorization_never_reaches_another_host() {
    let content = noise(5000);
    let served = content.clone();
    let storage = Server::start(move |request, _| ranged(request, &served)).await;
    let location = format!("http://{}/bucket?X-Amz-Signature=topsecret", storage.address);
    let server = Server::start(move |request, _| match request.header("authorization") {
        "" => Answer::new(401).with("WWW-Authenticate", "Basic realm=x"),
        _ => Answer::new(307).with("Location", location.clone()),
    });
    let server = server.await;
    let registries = client(with_credentials(&server));
    let blob = Shelf::default().add(content.clone());
    assert!(read(&registries, &repo(&server), &blob).await.unwrap() == content);
    assert!(registries.has_blob(&repo(&server), &blob).await.unwrap());
    assert_eq!(registries.blob(&repo(&server), &blob, 10).await.unwrap().offset, 10);
    let asked = storage.seen();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|request| request.header("authorization").is_empty()));
    assert_eq!(asked[2].range(), Some(10));
    assert!(server.seen().iter().all(|request| request.header("authorization").starts_with("Basic")));
}

#[tokio::test]
async fn redirects_end() {
    let around = Server::registry(|request, _| match request.target.as_str() {
        "/one" => Answer::new(302).with("Location", "/two?token=topsecret"),
        _ => Answer::new(302).with("Location", "/one"),
    });
    let forever = Server::registry(|_, before| Answer::new(302).with("Location", format!("/{before}"))).await;
    for (server, says) in [(around.await, "redirect loop"), (forever, "more than 10 redirects")] {
        let error = client(config()).manifest(&tag(&repo(&server), "v1")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Network);
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.chain().contains("topsecret"), "{error:?}");
        assert!(server.seen().len() <= 11);
    }
}
