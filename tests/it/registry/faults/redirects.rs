//! Redirects, to storage elsewhere and in circles.

use gapferry::base::error::Kind;
use gapferry::content::{Account, Api, ApiRequest, Need, Sink, Source};
use gapferry::credentials::{Credentials, Store};
use gapferry::transport::registry::{Config, TlsConfig};

use super::{manifest, repo, with_credentials};
use crate::registry::memory_source::{self, MemorySource, noise, read, repository, tag};
use crate::registry::{client, config};
use crate::support::faulty::{Answer, Server, ranged};
use crate::support::registry::{Options, Registry};

#[tokio::test]
async fn authorization_is_never_sent_to_another_host() {
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
    let blob = MemorySource::default().add(content.clone());
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
async fn endless_redirects_are_given_up() {
    let around = Server::registry(|request, _| match request.target.as_str() {
        "/one" => Answer::new(302).with("Location", "/two?token=topsecret"),
        _ => Answer::new(302).with("Location", "/one"),
    });
    let forever = Server::registry(|_, before| Answer::new(302).with("Location", format!("/{before}"))).await;
    for (server, says) in [(around.await, "redirect loop"), (forever, "more than 10 redirects")] {
        let error = client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Network);
        assert!(error.chain().contains(says), "{error:?}");
        assert!(!error.chain().contains("topsecret"), "{error:?}");
        assert!(server.seen().len() <= 11);
    }
}

/// A registry with a token server of its own that answers POST with this status and Location.
async fn token_server_redirecting(status: u16, location: String) -> Server {
    Server::start(move |request, _| match (request.method.as_str(), &request.target[..]) {
        ("POST", "/token") => Answer::new(status).with("Location", location.clone()),
        ("POST", "/moved") => Answer::new(200).body(r#"{"access_token":"t"}"#),
        _ if request.header("authorization") == "Bearer t" => manifest(),
        _ => {
            let challenge = format!(r#"Bearer realm="http://{}/token",service="s""#, request.header("host"));
            Answer::new(401).with("WWW-Authenticate", challenge)
        }
    })
    .await
}

fn with_identity(server: &Server) -> Config {
    let mut credentials = Store::anonymous();
    credentials.set(&server.address, Credentials::identity("topsecret"));
    Config { credentials, ..config() }
}

#[tokio::test]
async fn an_identity_token_is_not_handed_to_the_host_a_redirect_names() {
    for status in [307, 308] {
        let thief = Server::start(|_, _| Answer::new(200).body(r#"{"access_token":"t"}"#)).await;
        let server = token_server_redirecting(status, format!("http://{}/token?state=topsecret", thief.address)).await;
        let error =
            client(with_identity(&server)).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err();
        assert_eq!(thief.seen().len(), 0, "{error:?}");
        let text = error.chain();
        assert!(text.contains(&server.address) && text.contains(&thief.address), "{text}");
        assert!(!text.contains("topsecret") && !text.contains("refresh_token"), "{text}");
        assert_eq!(server.count("POST", "/token"), 1);
    }
}

#[tokio::test]
async fn a_token_server_that_moved_on_the_same_host_still_gives_tokens() {
    for status in [307, 308] {
        let server = token_server_redirecting(status, "/moved".to_owned()).await;
        let found = client(with_identity(&server)).manifest(&tag(&repo(&server), "v1"), Need::Required).await;
        assert!(found.unwrap().is_some());
        let moved = server.seen().into_iter().find(|request| request.target == "/moved").unwrap();
        assert!(String::from_utf8_lossy(&moved.body).contains("refresh_token=topsecret"));
    }
}

#[tokio::test]
async fn an_api_request_with_json_is_not_redirected_to_another_host() {
    let other = Server::start(|_, _| Answer::new(201)).await;
    let location = format!("http://{}/elsewhere", other.address);
    let server = Server::registry(move |_, _| Answer::new(307).with("Location", location.clone())).await;
    let json = Some(serde_json::json!({ "note": "topsecret" }));
    let request = ApiRequest { method: "POST", path: "/api/v2.0/projects".into(), json, ..ApiRequest::default() };
    let account = Account { registry: &server.address, path: "" };
    let error = client(config()).call(account, request).await.unwrap_err();
    assert_eq!((error.kind(), other.seen().len()), (Kind::Network, 0), "{error:?}");
    assert!(error.chain().contains(&other.address) && !error.chain().contains("topsecret"), "{error:?}");
}

#[tokio::test]
async fn a_manifest_push_follows_a_redirect_to_tls_on_its_host_and_no_other() {
    let secure = Registry::with(Options { tls: true, ..Options::default() });
    let tls = TlsConfig { ca_files: vec![secure.ca_file()], ..TlsConfig::default() };
    let client = || client(Config { tls: tls.clone(), ..config() });
    let memory = MemorySource::default();
    let (there, blob) = (repository(secure.host(), "a/b"), memory.add("{}"));
    memory_source::push(&client(), &there, &memory, &[&blob]).await.unwrap();
    let image = memory_source::image(&blob, &[], None);
    let port = secure.host().rsplit(':').next().unwrap();
    for (host, follows) in [("localhost", false), ("127.0.0.1", true)] {
        let to = format!("https://{host}:{port}");
        let plain = Server::registry(move |request, _| match request.method.as_str() {
            "PUT" => Answer::new(308).with("Location", format!("{to}{}", request.target)),
            _ => Answer::new(404),
        });
        let plain = plain.await;
        let stored = client().put_manifest(&tag(&repo(&plain), "v1"), &image).await;
        assert_eq!(stored.is_ok(), follows, "{host}: {stored:?}");
        let found = Sink::resolve(&client(), &tag(&there, "v1")).await.unwrap();
        assert_eq!(found.means(&image.digest()), follows, "{host}: {found:?}");
    }
}

#[tokio::test]
async fn a_storage_servers_rate_limit_does_not_block_the_registry() {
    // If the limit applied to the registry, the registry would be given up: the wait is longer than the allowed hour.
    let storage = Server::start(|_, _| Answer::new(429).with("Retry-After", "86400")).await;
    let location = format!("http://{}/bucket", storage.address);
    let server = Server::registry(move |request, _| match request.target.contains("/blobs/") {
        true => Answer::new(307).with("Location", location.clone()),
        false => manifest(),
    });
    let server = server.await;
    let registries = client(config());
    let blob = MemorySource::default().add(noise(100));
    let error = read(&registries, &repo(&server), &blob).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Network, "{error:?}");
    assert!(registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
}

#[tokio::test]
async fn rate_limits_apply_to_a_registry_name_in_capitals() {
    let server = Server::registry(|_, _| Answer::new(429).with("Retry-After", "86400")).await;
    let named = repository(&server.address.replace("127.0.0.1", "LocalHost"), "a/b");
    let error = client(config()).manifest(&tag(&named, "v1"), Need::Required).await.unwrap_err();
    assert_eq!(error.kind(), Kind::RateLimited, "{error:?}");
}
