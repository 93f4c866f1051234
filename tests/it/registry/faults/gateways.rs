//! Gateways and front ends: several challenges, scopes by another name, and hosts that only redirect.

use std::sync::atomic::{AtomicUsize, Ordering};

use gapferry::base::error::Kind;
use gapferry::base::progress::Event;
use gapferry::content::{Need, Source};
use gapferry::credentials::{Credentials, Store};
use gapferry::transport::registry::Config;

use super::{manifest, repo, with_credentials};
use crate::registry::memory_source::{repository, tag};
use crate::registry::{client, config, watched};
use crate::support::faulty::{Answer, Seen, Server};

/// 401 with these challenges; `HERE` is replaced by the server's address.
fn challenged(request: &Seen, challenges: &[&str]) -> Answer {
    let here = request.header("host");
    challenges
        .iter()
        .fold(Answer::new(401), |answer, challenge| answer.with("WWW-Authenticate", challenge.replace("HERE", here)))
}

const BEARER: &str = r#"Bearer realm="http://HERE/token",service="r""#;

#[tokio::test]
async fn without_credentials_the_anonymous_challenge_is_answered() {
    let forms: [&[&str]; 4] = [
        &[r#"Basic realm="r", Bearer realm="http://HERE/token",service="r""#],
        &[r#"Basic realm="r""#, BEARER],
        &[BEARER, r#"Basic realm="r""#],
        &["Negotiate", "NTLM", BEARER],
    ];
    for form in forms {
        let server = Server::start(move |request, _| match request.target.starts_with("/token") {
            true => Answer::new(200).body(r#"{"token":"anon","access_token":null,"expires_in":"300"}"#),
            false if request.header("authorization") == "Bearer anon" => manifest(),
            false => challenged(request, form),
        });
        let server = server.await;
        let found = client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await;
        assert!(found.unwrap_or_else(|e| panic!("{form:?}: {e}")).is_some());
    }
}

#[tokio::test]
async fn basic_is_used_if_offered_and_the_token_server_fails() {
    let server = Server::start(|request, _| match request.target.starts_with("/token") {
        true => Answer::new(404),
        false if request.header("authorization").starts_with("Basic ") => manifest(),
        false => challenged(request, &[BEARER, r#"Basic realm="r""#]),
    });
    let server = server.await;
    let registries = client(with_credentials(&server));
    for _ in 0..3 {
        assert!(registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
    }
    assert_eq!(server.count("GET", "/token"), 1, "the token server is not asked again");
}

#[tokio::test]
async fn the_scope_in_the_challenge_is_requested_even_if_it_is_not_ours() {
    let inside = r#"Bearer realm="http://HERE/token",service="r",scope="repository:hub/a/b:pull""#;
    let server = Server::start(move |request, _| match request.target.contains("hub%2Fa%2Fb") {
        true => Answer::new(200).body(r#"{"token":"token-for-hub"}"#),
        false if request.target.starts_with("/token") => Answer::new(200).body(r#"{"token":"token-for-less"}"#),
        false if request.header("authorization") == "Bearer token-for-hub" => manifest(),
        false if request.target == "/v2/" => challenged(request, &[BEARER]),
        false => challenged(request, &[inside]),
    });
    let server = server.await;
    assert!(client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
}

#[tokio::test]
async fn a_registry_behind_a_redirecting_host_gets_no_credentials() {
    let real = Server::start(|request, _| match request.target.starts_with("/token") {
        true => Answer::new(200).body(r#"{"token":"anon"}"#),
        false if request.header("authorization") == "Bearer anon" => manifest(),
        false => challenged(request, &[BEARER]),
    });
    let real = real.await;
    let to = real.address.clone();
    let front = Server::start(move |r, _| Answer::new(307).with("Location", format!("http://{to}{}", r.target))).await;
    let mut credentials = Store::anonymous();
    for host in [&front.address, &real.address] {
        credentials.set(host, Credentials::basic("me", "hunter2"));
    }
    let registries = client(Config { credentials, ..config() });
    for _ in 0..3 {
        assert!(registries.manifest(&tag(&repo(&front), "v1"), Need::Required).await.unwrap().is_some());
    }
    assert!(Source::resolve(&registries, &tag(&repo(&front), "v1"), Need::Required).await.unwrap().is_some());
    let shown: Vec<String> = real.seen().iter().map(|request| request.header("authorization").to_owned()).collect();
    assert!(shown.iter().all(|shown| matches!(shown.as_str(), "" | "Bearer anon")), "{shown:?}");
    assert_eq!(real.count("GET", "/token"), 1, "the token is kept");
    assert!(real.seen().iter().all(|request| !request.target.contains("account=")));
}

/// A gateway with two registries behind one host: each has its own token server, which refuses scopes it does not know.
#[tokio::test]
async fn repositories_of_one_host_may_have_their_own_token_servers() {
    let server = Server::start(|request, _| {
        let of = |path: &str| if path.starts_with("/v2/b/") { "b" } else { "a" };
        let (target, of) = (request.target.as_str(), of(&request.target));
        let scope = |side: &str| target.contains(&format!("scope=repository%3A{side}%2F"));
        match target {
            _ if target.starts_with("/token/a") && scope("a") => Answer::new(200).body(r#"{"token":"for-a"}"#),
            _ if target.starts_with("/token/b") && scope("b") => Answer::new(200).body(r#"{"token":"for-b"}"#),
            _ if target.starts_with("/token/") => Answer::new(403),
            _ if request.header("authorization") == format!("Bearer for-{of}") => manifest(),
            _ => challenged(request, &[&format!(r#"Bearer realm="http://HERE/token/{of}",service="{of}""#)]),
        }
    });
    let server = server.await;
    let registries = client(config());
    let references = ["a/x", "b/x", "a/y", "b/y"].map(|name| tag(&repository(&server.address, name), "v1"));
    for _ in 0..3 {
        let at_once = references.iter().map(|reference| registries.manifest(reference, Need::Required));
        for (found, reference) in futures_util::future::join_all(at_once).await.into_iter().zip(&references) {
            assert!(found.unwrap_or_else(|e| panic!("{reference}: {e:?}")).is_some(), "{reference}");
        }
    }
    let tokens = (server.count("GET", "/token/a"), server.count("GET", "/token/b"));
    assert!(tokens.0 <= 4 && tokens.1 <= 4, "tokens and refusals are remembered: {tokens:?}");
    // A repository that no token server serves is refused in the words of the token server it names.
    let error = registries.manifest(&tag(&repository(&server.address, "c/x"), "v1"), Need::Required).await.unwrap_err();
    assert!(error.kind() == Kind::Unauthorized && error.chain().contains("403"), "{error:?}");
}

#[tokio::test]
async fn one_answering_token_server_of_several_in_a_challenge_is_enough() {
    let dead = r#"Bearer realm="http://127.0.0.1:9/token",service="r""#;
    for form in [&[dead, BEARER][..], &[&format!("{dead}, {BEARER}")]] {
        let form: Vec<String> = form.iter().map(|&one| one.to_owned()).collect();
        let server = Server::start(move |request, _| match request.target.starts_with("/token") {
            true => Answer::new(200).body(r#"{"token":"anon"}"#),
            false if request.header("authorization") == "Bearer anon" => manifest(),
            false => challenged(request, &form.iter().map(String::as_str).collect::<Vec<_>>()),
        });
        let server = server.await;
        let registries = client(config());
        for _ in 0..3 {
            assert!(registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
        }
        assert_eq!(server.count("GET", "/token"), 1);
    }
}

#[tokio::test]
async fn a_brief_token_server_failure_is_waited_out_before_basic_is_used() {
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request, _| match request.target.starts_with("/token") {
        true if asked.fetch_add(1, Ordering::SeqCst) == 0 => Answer::new(503),
        true => Answer::new(200).body(r#"{"token":"anon"}"#),
        false if request.header("authorization") == "Bearer anon" => manifest(),
        false => challenged(request, &[BEARER, r#"Basic realm="r""#]),
    });
    let server = server.await;
    assert!(
        client(with_credentials(&server)).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some()
    );
    let shown =
        |request: &Seen| request.target.starts_with("/v2/") && request.header("authorization").starts_with("Basic");
    assert!(!server.seen().iter().any(shown));
}

#[tokio::test]
async fn a_challenge_with_403_is_answered_and_a_401_without_challenge_reported() {
    let server = Server::start(|request, _| match request.target.as_str() {
        target if target.starts_with("/token") => Answer::new(200).body(r#"{"token":"anon"}"#),
        "/v2/" => Answer::new(200),
        _ if request.header("authorization") == "Bearer anon" => manifest(),
        _ => Answer { status: 403, ..challenged(request, &[BEARER]) },
    });
    let server = server.await;
    assert!(client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap().is_some());
    let server = Server::registry(|_, _| Answer::new(401)).await;
    let error = client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err();
    assert!(error.kind() == Kind::Unauthorized && error.chain().contains("without WWW-Authenticate"), "{error:?}");
}

#[tokio::test]
async fn a_gateway_that_routes_only_repository_paths_can_be_used() {
    for status in [400, 402, 403, 404, 405, 406, 410, 411, 415, 426, 451, 500, 501] {
        let server = Server::start(move |request, _| match request.target.as_str() {
            "/v2/" => Answer::new(status),
            _ => manifest(),
        });
        let server = server.await;
        let (registries, events) = watched(config());
        let found = registries.manifest(&tag(&repo(&server), "v1"), Need::Required).await;
        assert!(found.unwrap_or_else(|e| panic!("{status}: {e:?}")).is_some());
        let warned = |event: &Event| matches!(event, Event::Warning(text) if text.contains(&status.to_string()));
        assert_eq!(events.events().iter().filter(|event| warned(event)).count(), 1, "{status}");
    }
    // A server that requires TLS also answers 400; then other paths fail too.
    for message in
        ["Client sent an HTTP request to an HTTPS server.", "You're speaking plain HTTP to an SSL-enabled server"]
    {
        let server = Server::start(move |_, _| Answer::new(400).body(message)).await;
        let error = client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err();
        assert!(error.chain().contains(message), "{error:?}");
    }
}
