//! Tokens are fetched, shared, refused and renewed.

use std::sync::atomic::{AtomicUsize, Ordering};

use gapferry::base::error::Kind;
use gapferry::content::{Need, Sink, Source};
use gapferry::credentials::{Credentials, Store};
use gapferry::oci::Digest;
use gapferry::transport::registry::Config;

use super::{manifest, repo, with_credentials};
use crate::registry::memory_source::{self, MemorySource, noise, read, tag};
use crate::registry::{client, config};
use crate::support::faulty::{Answer, Fault, Seen, Server, Tokens, ranged};

/// Whether a request is the one answered badly.
type Place = fn(&Seen) -> bool;
type MakeAnswer = fn() -> Answer;

#[tokio::test]
async fn a_token_is_fetched_once_and_renewed_when_refused() {
    let server = Server::with_tokens(Tokens::good_for(3), |_| manifest()).await;
    let registries = client(with_credentials(&server));
    for _ in 0..7 {
        assert!(registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
    }
    let tokens: Vec<Seen> = server.seen().into_iter().filter(|r| r.target.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 3);
    let expected = "/token?account=me&service=the+registry&scope=repository%3Aa%2Fb%3Apull";
    assert_eq!(tokens[0].target, expected);
    assert_eq!(tokens[0].header("authorization"), "Basic bWU6aHVudGVyMg==");
}

#[tokio::test]
async fn unusual_challenges_and_token_answers_work_and_tokens_stay_secret() {
    for (status, body) in [
        (201, r#"{"token":"the-token"}"#),
        (200, r#"{"token":"the-token\n","access_token":5}"#),
        (200, r#"{"token":null,"access_token":" the-token"}"#),
        (200, "\u{feff}{\"token\":\"the-token\"}"),
    ] {
        for challenge in [
            r#"Bearer realm="http://HERE/token",error_description="Zugriff für niemanden""#,
            "Bearer realm='http://HERE/token'",
            r#"Bearer realm="/token""#,
            r#"Bearer realm="r",realm="http://HERE/token""#,
            r#"Bearer service="r", Bearer realm="http://HERE/token""#,
        ] {
            let server = Server::start(move |request, _| match request.header("authorization") {
                "Bearer the-token" => manifest(),
                _ if request.target.starts_with("/token") => Answer::new(status).body(body),
                _ => {
                    let challenge = challenge.replace("HERE", request.header("host"));
                    Answer::new(401).with("WWW-Authenticate", challenge)
                }
            });
            let server = server.await;
            let found = client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await;
            assert!(found.unwrap_or_else(|e| panic!("{body} {challenge}: {e:?}")).is_some());
        }
    }
}

#[tokio::test]
async fn concurrent_requests_share_one_token() {
    let server = Server::with_tokens(Tokens::good_for(100), |_| manifest()).await;
    let registries = client(config());
    let reference = tag(&repo(&server), "v1");
    let at_once = (0..10).map(|_| registries.manifest(&reference, Need::Required));
    for found in futures_util::future::join_all(at_once).await {
        assert!(found.unwrap().is_some());
    }
    assert_eq!(server.count("GET", "/token"), 1);
}

#[tokio::test]
async fn an_upload_survives_a_token_refused_in_the_middle() {
    let refused = AtomicUsize::new(0);
    let server = Server::with_tokens(Tokens::good_for(100), move |request| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/upload?_state=a%2Bb"),
        _ if refused.fetch_add(1, Ordering::SeqCst) == 0 => Answer::new(401),
        _ => Answer::new(201),
    });
    let server = server.await;
    let memory = MemorySource::default();
    let blob = memory.add(noise(100_000));
    memory_source::push(&client(config()), &repo(&server), &memory, &[&blob]).await.unwrap();
    let put = server.seen().into_iter().rfind(|request| request.method == "PUT").unwrap();
    let digest = blob.digest.to_string().replace(':', "%3A");
    assert_eq!(put.target, format!("/upload?_state=a%2Bb&digest={digest}"));
    assert_eq!(Digest::sha256(&put.body), blob.digest);
}

#[tokio::test]
async fn a_registry_that_refuses_every_token_is_given_up() {
    // Each token is good for the POST, none for the PUT.
    let server = Server::with_tokens(Tokens::new(), |request| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/upload"),
        _ => Answer::new(401),
    });
    let server = server.await;
    let memory = MemorySource::default();
    let blob = memory.add("content");
    let error = memory_source::push(&client(config()), &repo(&server), &memory, &[&blob]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized, "{error:?}");
    assert!(server.seen().len() < 20);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post_or_by_get() {
    for knows_post in [true, false] {
        let server = Server::start(move |request, _| match (request.method.as_str(), &request.target[..]) {
            ("POST", "/token") if knows_post => Answer::new(200).body(r#"{"access_token":"t"}"#),
            ("POST", "/token") => Answer::new(404),
            ("GET", target) if target.starts_with("/token") => Answer::new(200).body(r#"{"token":"t"}"#),
            _ if request.header("authorization") == "Bearer t" => manifest(),
            _ => {
                let challenge = format!(r#"Bearer realm="http://{}/token",service="s""#, request.header("host"));
                Answer::new(401).with("WWW-Authenticate", challenge)
            }
        });
        let server = server.await;
        let mut credentials = Store::anonymous();
        credentials.set(&server.address, Credentials::identity("id+1"));
        let registries = client(Config { credentials, ..config() });
        assert!(registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
        let form = server.seen().into_iter().find(|request| request.method == "POST").unwrap().body;
        let form = String::from_utf8(form).unwrap();
        assert!(form.contains("grant_type=refresh_token") && form.contains("refresh_token=id%2B1"), "{form}");
    }
}

#[tokio::test]
async fn a_token_without_a_needed_scope_is_fetched_again() {
    let server = Server::start(|request, _| {
        let special = "repository%3Aa%2Fb%3Aspecial";
        let challenge = |rest: &str| format!(r#"Bearer realm="http://{}/token"{rest}"#, request.header("host"));
        let lacking = r#",error="insufficient_scope",scope="repository:a/b:pull repository:a/b:special""#;
        match request.header("authorization") {
            _ if request.target.starts_with("/token") && request.target.contains(special) => {
                Answer::new(200).body(r#"{"token":"wide"}"#)
            }
            _ if request.target.starts_with("/token") => Answer::new(200).body(r#"{"token":"narrow"}"#),
            "Bearer wide" => manifest(),
            "Bearer narrow" => Answer::new(403).with("WWW-Authenticate", challenge(lacking)),
            _ => Answer::new(401).with("WWW-Authenticate", challenge("")),
        }
    });
    let server = server.await;
    let registries = client(config());
    for _ in 0..2 {
        assert!(registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
    }
    assert_eq!(server.count("GET", "/token"), 2);
}

#[tokio::test]
async fn credentials_are_not_sent_to_a_token_server_over_plain_http() {
    let server = Server::start(|_, _| {
        Answer::new(401).with("WWW-Authenticate", r#"Bearer realm="http://token.invalid/t",service="s""#)
    });
    let server = server.await;
    let error =
        client(with_credentials(&server)).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized);
    assert!(error.to_string().contains("plain HTTP"), "{error}");
}

#[tokio::test]
async fn tokens_that_expire_between_any_two_requests_are_renewed() {
    let content = noise(50_000);
    let served = content.clone();
    let server = Server::with_tokens(Tokens::new(), move |request| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/u"),
        "PUT" => Answer::new(201),
        _ => ranged(request, &served),
    });
    let server = server.await;
    server.when("*", "/blobs/").always().fault(Fault::ExpireTokens);
    let registries = client(with_credentials(&server));
    let memory = MemorySource::default();
    let blob = memory.add(content.clone());
    // Each request is sent with a token that has just expired, and again with one that has expired since.
    let error = read(&registries, &repo(&server), &blob).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized);

    let server = Server::with_tokens(Tokens::new(), move |request| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/u"),
        "PUT" => Answer::new(201),
        _ => ranged(request, &content),
    });
    let server = server.await;
    for (method, part) in [("GET", "/blobs/"), ("POST", "/uploads/"), ("PUT", "/u")] {
        server.when(method, part).fault(Fault::ExpireTokens);
    }
    let registries = client(with_credentials(&server));
    read(&registries, &repo(&server), &blob).await.unwrap();
    memory_source::push(&registries, &repo(&server), &memory, &[&blob]).await.unwrap();
    assert_eq!(server.done().len(), 3);
}

/// A registry with public content, except that requests matching `asks` need a token of `realm`.
async fn asking(realm: &'static str, asks: fn(&Seen) -> bool) -> Server {
    Server::registry(move |request, _| {
        let challenge = || format!(r#"Bearer realm="{}",service="s""#, realm.replace("HERE", request.header("host")));
        match request.target.as_str() {
            target if target.starts_with("/token") => Answer::new(401).body(r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#),
            _ if asks(request) => Answer::new(401).with("WWW-Authenticate", challenge()),
            target if target.contains("/blobs/uploads/") => Answer::new(202).with("Location", "/v2/a/b/u"),
            target if target.contains("/v2/a/b/u") => Answer::new(201),
            target if target.contains("/referrers/") => Answer::new(404),
            target if target.contains("/blobs/sha256:") => ranged(request, b"content"),
            _ => manifest(),
        }
    })
    .await
}

#[tokio::test]
async fn an_unobtainable_token_does_not_block_public_content() {
    let places: [(&str, Place); 4] = [
        ("referrers", |r| r.target.contains("/referrers/")),
        ("the list of tags", |r| r.target.contains("/tags/list")),
        ("HEAD", |r| r.method == "HEAD"),
        ("a mount", |r| r.target.contains("mount=")),
    ];
    for (place, asks) in places {
        let server = asking("http://HERE/token", asks).await;
        let (registries, memory, repo) = (client(config()), MemorySource::default(), repo(&server));
        let (reference, blob) = (tag(&repo, "v1"), memory.add("content"));
        let _ = registries.referrers(&repo, &Digest::sha256(b"x")).await;
        let _ = registries.tags(&repo, Need::Required).await;
        assert!(!registries.mount(&repo, &blob, &memory_source::repository(&server.address, "a/c")).await.unwrap());
        for _ in 0..3 {
            let found = Source::resolve(&registries, &reference, Need::Required)
                .await
                .unwrap_or_else(|e| panic!("{place}: {e:?}"));
            assert!(found.is_some(), "{place}");
            assert!(registries.manifest(&reference, Need::Required).await.unwrap().is_some(), "{place}");
        }
        memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap_or_else(|e| panic!("{place}: {e:?}"));
        assert!(server.count("GET", "/token") <= 1, "{place}: a refused token is not requested again");
    }
    // Its token server is down.
    let server = asking("http://127.0.0.1:1/token", |r| r.method == "HEAD" || r.target.contains("/referrers/")).await;
    let registries = client(config());
    let reference = tag(&repo(&server), "v1");
    assert!(Source::resolve(&registries, &reference, Need::Required).await.unwrap().is_some());
    assert!(registries.referrers(&repo(&server), &Digest::sha256(b"x")).await.is_err());
    assert!(registries.manifest(&reference, Need::Required).await.unwrap().is_some());
}

#[tokio::test]
async fn basic_credentials_are_used_if_accepted_and_no_token_can_be_had() {
    const BASIC: &str = "Basic bWU6aHVudGVyMg==";
    let (down, here) = ("http://127.0.0.1:1/token", "http://HERE/token");
    let answers: [(&str, &str, MakeAnswer); 4] = [
        ("it is down", down, || Answer::new(404)),
        ("it fails", here, || Answer::new(500)),
        ("it refuses", here, || Answer::new(401)),
        ("its token is refused", here, || Answer::new(200).body(r#"{"token":"a-token-of-no-use"}"#)),
    ];
    for (case, realm, token) in answers {
        let server = Server::start(move |request, _| match request.header("authorization") {
            _ if request.target.starts_with("/token") => token(),
            BASIC => manifest(),
            _ => {
                let bearer = format!(r#"Bearer realm="{}",service="s""#, realm.replace("HERE", request.header("host")));
                Answer::new(401).with("WWW-Authenticate", bearer).with("WWW-Authenticate", r#"Basic realm="r""#)
            }
        });
        let server = server.await;
        let registries = client(with_credentials(&server));
        for _ in 0..3 {
            let found = registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await;
            assert!(found.unwrap_or_else(|e| panic!("{case}: {e:?}")).is_some());
        }
        assert!(server.count("GET", "/token") <= 2, "{case}: the token server is not asked for every request");
        let error = client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err();
        assert!(!error.chain().contains("hunter2"), "{error:?}");
    }
}

fn challenged(request: &Seen) -> Answer {
    let realm = format!(r#"Bearer realm="http://{}/token",service="s""#, request.header("host"));
    Answer::new(401).with("WWW-Authenticate", realm)
}

/// A brief failure of a token server must not make the password look wrong.
#[tokio::test]
async fn a_web_page_or_nothing_instead_of_a_token_is_retried_once() {
    for bad in ["<html><title>Sign in</title></html>", "", " \n"] {
        let once = AtomicUsize::new(0);
        let server = Server::start(move |request, _| match request.header("authorization") {
            "Bearer t" => manifest(),
            _ if !request.target.starts_with("/token") => challenged(request),
            _ if once.fetch_add(1, Ordering::SeqCst) == 0 => Answer::new(200).body(bad),
            _ => Answer::new(200).body(r#"{"token":"t"}"#),
        });
        let server = server.await;
        assert!(
            client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some(),
            "{bad:?}"
        );
    }
    let server = Server::start(|request, _| match request.target.starts_with("/token") {
        true => Answer::new(200).body("<html><title>Sign in</title></html>"),
        false => challenged(request),
    });
    let server = server.await;
    let error = client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err();
    assert_eq!((error.kind(), server.count("GET", "/token")), (Kind::Network, 2), "{error:?}");
    assert!(error.chain().contains("(a web page) Sign in"), "{error:?}");
}
