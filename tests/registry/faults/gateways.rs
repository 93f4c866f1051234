//! Gateways and front ends: several challenges, scopes by another name, and hosts that only redirect.

use gapferry::content::Source;
use gapferry::credentials::{Credentials, Store};
use gapferry::transport::registry::Config;

use super::{manifest, repo, with_credentials};
use crate::shelf::tag;
use crate::support::faulty::{Answer, Seen, Server};
use crate::{client, config};

/// 401 with these challenges; `HERE` stands for the server's address.
fn challenged(request: &Seen, challenges: &[&str]) -> Answer {
    let here = request.header("host");
    challenges
        .iter()
        .fold(Answer::new(401), |answer, challenge| answer.with("WWW-Authenticate", challenge.replace("HERE", here)))
}

const BEARER: &str = r#"Bearer realm="http://HERE/token",service="r""#;

#[tokio::test]
async fn without_credentials_the_challenge_that_needs_none_is_answered() {
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
        let found = client(config()).manifest(&tag(&repo(&server), "v1")).await;
        assert!(found.unwrap_or_else(|e| panic!("{form:?}: {e}")).is_some());
    }
}

#[tokio::test]
async fn where_the_token_server_is_of_no_use_basic_is_shown_if_it_was_asked_for_too() {
    let server = Server::start(|request, _| match request.target.starts_with("/token") {
        true => Answer::new(404),
        false if request.header("authorization").starts_with("Basic ") => manifest(),
        false => challenged(request, &[BEARER, r#"Basic realm="r""#]),
    });
    let server = server.await;
    let registries = client(with_credentials(&server));
    for _ in 0..3 {
        assert!(registries.manifest(&tag(&repo(&server), "v1")).await.unwrap().is_some());
    }
    assert_eq!(server.count("GET", "/token"), 1, "it is not asked again");
}

#[tokio::test]
async fn a_scope_that_the_registry_names_is_asked_for_though_it_is_not_ours() {
    let inside = r#"Bearer realm="http://HERE/token",service="r",scope="repository:hub/a/b:pull""#;
    let server = Server::start(move |request, _| match request.target.contains("hub%2Fa%2Fb") {
        true => Answer::new(200).body(r#"{"token":"token-for-hub"}"#),
        false if request.target.starts_with("/token") => Answer::new(200).body(r#"{"token":"token-for-less"}"#),
        false if request.header("authorization") == "Bearer token-for-hub" => manifest(),
        false if request.target == "/v2/" => challenged(request, &[BEARER]),
        false => challenged(request, &[inside]),
    });
    let server = server.await;
    assert!(client(config()).manifest(&tag(&repo(&server), "v1")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_registry_behind_a_redirecting_host_is_read_without_our_credentials() {
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
        assert!(registries.manifest(&tag(&repo(&front), "v1")).await.unwrap().is_some());
    }
    assert!(Source::resolve(&registries, &tag(&repo(&front), "v1")).await.unwrap().is_some());
    let shown: Vec<String> = real.seen().iter().map(|request| request.header("authorization").to_owned()).collect();
    assert!(shown.iter().all(|shown| matches!(shown.as_str(), "" | "Bearer anon")), "{shown:?}");
    assert_eq!(real.count("GET", "/token"), 1, "the token is kept");
    assert!(real.seen().iter().all(|request| !request.target.contains("account=")));
}
