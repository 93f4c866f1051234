//! What bad days bring, each served by the scripted server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use gapferry::content::{Sink, Source};
use gapferry::credentials::{Credentials, Store};
use gapferry::error::Kind;
use gapferry::oci::{Digest, Repository, media_type};
use gapferry::progress::Event;
use gapferry::transport::registry::Config;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::scripted::{Answer, Seen, Server, ranged};
use crate::shelf::{self, Shelf, image, noise, read, repository, tag};
use crate::{client, config, watched};

fn repo(server: &Server) -> Repository {
    repository(&server.address, "a/b")
}

fn with_credentials(server: &Server) -> Config {
    let mut credentials = Store::anonymous();
    credentials.set(&server.address, Credentials::basic("me", "hunter2"));
    Config { credentials, ..config() }
}

const INDEX: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

fn manifest() -> Answer {
    Answer::new(200).with("Content-Type", media_type::OCI_INDEX).body(INDEX)
}

/// A registry with a token server at `/token` that gives `tokenN`, each good for `uses` requests.
async fn bearer(uses: usize, answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Server {
    let (given, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Server::start(move |request, _| {
        if request.target.starts_with("/token") {
            used.store(0, Ordering::SeqCst);
            let token = format!(r#"{{"token":"token{}","expires_in":300}}"#, given.fetch_add(1, Ordering::SeqCst) + 1);
            return Answer::new(200).body(token);
        }
        let expected = format!("Bearer token{}", given.load(Ordering::SeqCst));
        if request.header("authorization") == expected && used.fetch_add(1, Ordering::SeqCst) < uses {
            return answer(request);
        }
        let realm = format!("http://{}/token", request.header("host"));
        let challenge = format!(r#"Bearer realm="{realm}",service="the registry",scope="x""#);
        Answer::new(401).with("WWW-Authenticate", challenge).body(r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
    })
    .await
}

#[tokio::test]
async fn a_token_is_fetched_once_and_again_when_it_is_refused_mid_run() {
    let server = bearer(3, |_| manifest()).await;
    let registries = client(with_credentials(&server));
    for _ in 0..7 {
        assert!(registries.manifest(&tag(&repo(&server), "v1")).await.unwrap().is_some());
    }
    let tokens: Vec<Seen> = server.seen().into_iter().filter(|r| r.target.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 3);
    let expected = "/token?account=me&service=the+registry&scope=repository%3Aa%2Fb%3Apull";
    assert_eq!(tokens[0].target, expected);
    assert_eq!(tokens[0].header("authorization"), "Basic bWU6aHVudGVyMg==");
}

#[tokio::test]
async fn concurrent_requests_share_one_token() {
    let server = bearer(100, |_| manifest()).await;
    let registries = client(config());
    let reference = tag(&repo(&server), "v1");
    let at_once = (0..10).map(|_| registries.manifest(&reference));
    for found in futures_util::future::join_all(at_once).await {
        assert!(found.unwrap().is_some());
    }
    assert_eq!(server.count("GET", "/token"), 1);
}

#[tokio::test]
async fn an_upload_survives_a_token_that_is_refused_inside_it() {
    let refused = AtomicUsize::new(0);
    let server = bearer(100, move |request| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/upload?_state=a%2Bb"),
        _ if refused.fetch_add(1, Ordering::SeqCst) == 0 => Answer::new(401),
        _ => Answer::new(201),
    });
    let server = server.await;
    let shelf = Shelf::default();
    let blob = shelf.add(noise(100_000));
    shelf::push(&client(config()), &repo(&server), &shelf, &[&blob]).await.unwrap();
    let put = server.seen().into_iter().rfind(|request| request.method == "PUT").unwrap();
    let digest = blob.digest.to_string().replace(':', "%3A");
    assert_eq!(put.target, format!("/upload?_state=a%2Bb&digest={digest}"));
    assert_eq!(Digest::sha256(&put.body), blob.digest);
}

#[tokio::test]
async fn a_registry_that_refuses_every_new_token_is_not_asked_forever() {
    // Each token is good for the POST, none for the PUT.
    let server = bearer(1, |_| Answer::new(202).with("Location", "/upload")).await;
    let shelf = Shelf::default();
    let blob = shelf.add("content");
    let error = shelf::push(&client(config()), &repo(&server), &shelf, &[&blob]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized, "{error:?}");
    assert!(server.seen().len() < 20);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post_or_else_by_get() {
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
        assert!(registries.manifest(&tag(&repo(&server), "v1")).await.unwrap().is_some());
        let form = server.seen().into_iter().find(|request| request.method == "POST").unwrap().body;
        let form = String::from_utf8(form).unwrap();
        assert!(form.contains("grant_type=refresh_token") && form.contains("refresh_token=id%2B1"), "{form}");
    }
}

#[tokio::test]
async fn a_token_that_lacks_a_scope_is_fetched_again_with_it() {
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
        assert!(registries.manifest(&tag(&repo(&server), "v1")).await.unwrap().is_some());
    }
    assert_eq!(server.count("GET", "/token"), 2);
}

#[tokio::test]
async fn credentials_do_not_go_to_a_token_server_by_plain_http() {
    let server = Server::start(|_, _| {
        Answer::new(401).with("WWW-Authenticate", r#"Bearer realm="http://token.invalid/t",service="s""#)
    });
    let server = server.await;
    let error = client(with_credentials(&server)).manifest(&tag(&repo(&server), "v1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized);
    assert!(error.to_string().contains("plain HTTP"), "{error}");
}

#[tokio::test]
async fn a_burst_of_5xx_passes() {
    let server = Server::registry(|_, before| match before {
        0 => Answer::new(503),
        1 => Answer::new(500),
        2 => Answer::new(200).body(INDEX).cut(10),
        3 => Answer::new(504),
        _ => manifest(),
    });
    let server = server.await;
    let (registries, events) = watched(config());
    assert!(registries.manifest(&tag(&repo(&server), "v1")).await.unwrap().is_some());
    let waits = events.events().into_iter().filter(|e| matches!(e, Event::Waiting { .. })).count();
    assert_eq!(waits, 4);
}

#[tokio::test]
async fn an_outage_that_does_not_pass_is_a_network_failure() {
    let server = Server::registry(|_, _| Answer::new(502).body("<html><h1>502 Bad Gateway</h1></html>")).await;
    let error = client(config()).manifest(&tag(&repo(&server), "v1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
    let told = error.chain();
    for part in ["5 tries", "502 Bad Gateway", &format!("{}/a/b:v1", server.address)] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn retry_after_is_waited_out_or_refused_by_the_users_limit() {
    let server = Server::registry(|_, before| match before {
        0 => Answer::new(429).with("Retry-After", "1"),
        _ => manifest(),
    });
    let server = server.await;
    let (registries, events) = watched(Config { retries: 0, ..config() });
    assert!(registries.manifest(&tag(&repo(&server), "v1")).await.unwrap().is_some());
    let waited = events.events().into_iter().any(|e| match e {
        Event::Waiting { delay, why, .. } => delay >= Duration::from_secs(1) && why.contains("429"),
        _ => false,
    });
    assert!(waited);

    let later = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(7200));
    let server = Server::registry(move |_, _| Answer::new(429).with("Retry-After", later.clone())).await;
    let error = client(config()).manifest(&tag(&repo(&server), "v1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::RateLimited);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_again_and_again_is_one_stream_to_the_reader() {
    let content = noise(500_000);
    let served = content.clone();
    let server = Server::registry(move |request, before| match before {
        0 => ranged(request, &served).cut(100_000),
        1 => Answer::new(503),
        2 => ranged(request, &served).cut(1),
        3 => ranged(request, &served).silent(150_000),
        _ => ranged(request, &served),
    });
    let server = server.await;
    let blob = Shelf::default().add(content.clone());
    let patience = Config { stall_timeout: Duration::from_millis(300), ..config() };
    assert!(read(&client(patience), &repo(&server), &blob).await.unwrap() == content);
    let ranges: Vec<_> = server.seen().iter().map(Seen::range).collect();
    assert_eq!(ranges, [None, Some(100_000), Some(100_000), Some(100_001), Some(250_001)]);
}

#[tokio::test]
async fn a_server_that_ignores_range_sends_again_what_is_then_skipped() {
    let content = noise(300_000);
    let served = content.clone();
    let server = Server::registry(move |_, before| match before {
        0 => Answer::new(200).body(served.clone()).cut(123_456),
        _ => Answer::new(200).body(served.clone()),
    });
    let server = server.await;
    let blob = Shelf::default().add(content.clone());
    assert!(read(&client(config()), &repo(&server), &blob).await.unwrap() == content);
    // Asked for a later start, it begins at 0 and says so.
    let body = client(config()).blob(&repo(&server), &blob, 1000).await.unwrap();
    assert_eq!(body.offset, 0);
    let pieces: Vec<_> = body.stream.map(|piece| piece.unwrap()).collect().await;
    assert!(pieces.concat() == content);
}

#[tokio::test]
async fn a_wrong_range_is_noticed_and_never_spliced_in() {
    let content = noise(10_000);
    for wrong in ["bytes 0-9999/10000", "bytes 5001-9999/10000", "nonsense", ""] {
        let served = content.clone();
        let server = Server::registry(move |request, _| match request.range() {
            Some(start) => Answer::new(206).with("Content-Range", wrong).body(&served[start..]),
            None => Answer::new(200).body(served.clone()),
        });
        let server = server.await;
        let blob = Shelf::default().add(content.clone());
        let body = client(config()).blob(&repo(&server), &blob, 5000).await.unwrap();
        assert_eq!(body.offset, 0, "{wrong}");
        let pieces: Vec<_> = body.stream.map(|piece| piece.unwrap()).collect().await;
        assert!(pieces.concat() == content, "{wrong}");
    }
    // Another total is another blob.
    let served = content.clone();
    let server = Server::registry(move |_, _| {
        Answer::new(206).with("Content-Range", "bytes 5000-9999/20000").body(&served[5000..])
    });
    let server = server.await;
    let blob = Shelf::default().add(content);
    let error = client(config()).blob(&repo(&server), &blob, 5000).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Damaged);
}

#[tokio::test]
async fn a_refused_range_starts_over() {
    let server = Server::registry(|request, _| match request.range() {
        Some(_) => Answer::new(416).with("Content-Range", "bytes */5"),
        None => Answer::new(200).body("hello"),
    });
    let server = server.await;
    let blob = Shelf::default().add("hello");
    assert_eq!(client(config()).blob(&repo(&server), &blob, 3).await.unwrap().offset, 0);
}

#[tokio::test]
async fn a_length_other_than_the_descriptors_is_refused_before_the_first_byte() {
    for served in ["hell", "hello!"] {
        let server =
            Server::registry(move |_, _| Answer::new(200).with("Content-Type", "text/html").body(served)).await;
        let blob = Shelf::default().add("hello");
        let error = client(config()).blob(&repo(&server), &blob, 0).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Damaged);
        assert!(error.to_string().contains(&blob.digest.to_string()), "{error}");
        assert!(error.to_string().contains("text/html"), "{error}");
    }
}

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

#[tokio::test]
async fn a_page_instead_of_a_manifest_is_told_as_such() {
    let server =
        Server::registry(|_, _| Answer::new(200).with("Content-Type", "text/html").body("<h1>Please log in</h1>"));
    let server = server.await;
    let reference = repo(&server).with_digest(Digest::sha256(b"x"));
    for error in [
        client(config()).manifest(&reference).await.unwrap_err(),
        client(config()).manifest(&tag(&repo(&server), "v1")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Damaged);
        assert!(error.to_string().contains("Please log in"), "{error}");
        assert!(error.to_string().contains(&repo(&server).to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_is_bounded_and_must_be_what_the_registry_says_it_is() {
    let huge = |_: &Seen, _| Answer::new(200).body(vec![b' '; 4 * 1024 * 1024 + 1]);
    let endless =
        |_: &Seen, _| Answer::new(200).with("Content-Length", "99999999999").body(vec![b' '; 5 * 1024 * 1024]);
    let lying = |_: &Seen, _| manifest().with("Docker-Content-Digest", Digest::sha256(b"other").to_string());
    for server in [Server::registry(huge).await, Server::registry(endless).await, Server::registry(lying).await] {
        let error = client(config()).manifest(&tag(&repo(&server), "v1")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{error:?}");
    }
    let server = Server::registry(|_, _| manifest()).await;
    let asked = repo(&server).with_digest(Digest::sha256(b"asked for"));
    let error = client(config()).manifest(&asked).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.chain().contains(&Digest::sha256(INDEX.as_bytes()).to_string()), "{error:?}");
}

#[tokio::test]
async fn a_head_that_says_too_little_is_followed_by_get() {
    let server = Server::registry(|request, _| match request.method.as_str() {
        "HEAD" => Answer::new(200).with("Content-Type", media_type::OCI_INDEX).body(INDEX),
        _ => manifest(),
    });
    let server = server.await;
    let found = Source::resolve(&client(config()), &tag(&repo(&server), "v1")).await.unwrap().unwrap();
    assert_eq!((found.digest, found.size), (Digest::sha256(INDEX.as_bytes()), INDEX.len() as u64));
}

#[tokio::test]
async fn tags_are_followed_over_relative_and_absolute_links() {
    let server = Server::registry(|request, _| match request.target.split_once("last=").map(|(_, last)| last) {
        None => Answer::new(200).with("Link", r#"</v2/a/b/tags/list?last=1>; rel="next""#).body(r#"{"tags":["1"]}"#),
        Some("1") => {
            let link = format!("<http://{}/v2/a/b/tags/list?last=2>; rel=next", request.header("host"));
            Answer::new(200).with("Link", link).body(r#"{"tags":["2","not a tag"]}"#)
        }
        Some(_) => Answer::new(200).body(r#"{"tags":null}"#),
    });
    let server = server.await;
    let (registries, events) = watched(config());
    let tags: Vec<String> =
        registries.tags(&repo(&server)).await.unwrap().iter().map(|tag| tag.as_str().to_owned()).collect();
    assert_eq!(tags, ["1", "2"]);
    assert!(events.events().iter().any(|e| matches!(e, Event::Warning(text) if text.contains("not a tag"))));

    let server =
        Server::registry(|r, _| Answer::new(200).with("Link", format!("<{}>; rel=next", r.target)).body("{}")).await;
    assert!(client(config()).tags(&repo(&server)).await.unwrap_err().to_string().contains("does not end"));
}

#[tokio::test]
async fn unreadable_referrers_are_an_error_and_a_missing_api_is_asked_for_once() {
    let subject = Digest::sha256(b"x");
    for status in [401, 403, 500] {
        let server = Server::registry(move |_, _| Answer::new(status)).await;
        assert!(client(config()).referrers(&repo(&server), &subject).await.is_err(), "{status}");
    }
    let page = Server::registry(|_, _| Answer::new(200).body("<html>")).await;
    assert!(client(config()).referrers(&repo(&page), &subject).await.is_err());

    let server = Server::registry(|_, _| Answer::new(404)).await;
    let registries = client(config());
    for _ in 0..3 {
        assert_eq!(registries.referrers(&repo(&server), &subject).await.unwrap(), []);
    }
    assert_eq!(server.count("GET", "/v2/a/b/referrers/"), 1);
    assert_eq!(server.count("GET", "/v2/a/b/manifests/sha256-"), 3);
}

#[tokio::test]
async fn a_registry_that_lists_referrers_itself_gets_no_fallback_tag() {
    let server = Server::registry(|_, _| Answer::new(201).with("OCI-Subject", "sha256:x")).await;
    let shelf = Shelf::default();
    let config_blob = shelf.add("{}");
    let signature = image(&config_blob, &[], Some(&image(&config_blob, &[], None)));
    let registries = client(config());
    registries.put_manifest(&repo(&server).with_digest(signature.digest()), &signature).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("content-type"), media_type::OCI_MANIFEST);
}

#[tokio::test]
async fn an_upload_that_the_registry_cancels_starts_again_from_post() {
    let server = Server::registry(|request, before| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", format!("/u/{before}")),
        _ if before < 4 => Answer::new(404).body(r#"{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}"#),
        _ => Answer::new(201),
    });
    let server = server.await;
    let shelf = Shelf::default();
    let blob = shelf.add(noise(200_000));
    shelf::push(&client(config()), &repo(&server), &shelf, &[&blob]).await.unwrap();
    let order: Vec<String> = server.seen().into_iter().map(|request| request.method).collect();
    assert_eq!(order, ["POST", "PUT", "POST", "PUT", "POST", "PUT"]);
    assert_eq!(server.seen()[0].header("content-length"), "0");
}

#[tokio::test]
async fn a_refused_upload_is_told_in_the_registrys_words_and_not_repeated() {
    for (status, kind) in [(403, Kind::Refused), (413, Kind::Refused), (412, Kind::Refused), (405, Kind::Refused)] {
        let body = r#"{"errors":[{"code":"DENIED","message":"quota will exceed the configured upper limit"}]}"#;
        let server = Server::registry(move |_, _| Answer::new(status).body(body)).await;
        let shelf = Shelf::default();
        let blob = shelf.add("x");
        let error = shelf::push(&client(config()), &repo(&server), &shelf, &[&blob]).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains("configured upper limit"), "{error}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_silent_registry_does_not_hold_the_run_forever() {
    let server = Server::registry(|request, _| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/u"),
        _ => Answer::new(200).with("Content-Length", "10").silent(0),
    });
    let server = server.await;
    let quick = Config { stall_timeout: Duration::from_millis(50), retries: 1, ..config() };
    let error = client(quick).manifest(&tag(&repo(&server), "v1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
    assert!(error.chain().contains("silent"), "{error:?}");
}

#[tokio::test]
async fn a_failed_mount_is_only_a_reason_to_upload() {
    let answers = Arc::new(AtomicUsize::new(0));
    let statuses = [401, 403, 404, 405, 202];
    let turn = answers.clone();
    let server = Server::registry(move |request, _| match request.target.contains("mount=") {
        true => Answer::new(statuses[turn.fetch_add(1, Ordering::SeqCst)]).with("Location", "/expired"),
        false if request.target.starts_with("/expired") => Answer::new(404),
        false if request.method == "POST" => Answer::new(202).with("Location", "/u"),
        false => Answer::new(201),
    });
    let server = server.await;
    let registries = client(config());
    let shelf = Shelf::default();
    let blob = shelf.add("content");
    for _ in statuses {
        let other = repository(&server.address, "other");
        assert!(!registries.mount(&repo(&server), &blob, &other).await.unwrap());
    }
    shelf::push(&registries, &repo(&server), &shelf, &[&blob]).await.unwrap();
    assert_eq!(server.count("PUT", "/expired"), 1);
    assert_eq!(server.count("PUT", "/u"), 1);
}

#[tokio::test]
async fn another_size_at_the_target_means_absent() {
    let server = Server::registry(|_, _| Answer::new(200).body("12345")).await;
    let (registries, events) = watched(config());
    assert!(!registries.has_blob(&repo(&server), &Shelf::default().add("1234")).await.unwrap());
    assert!(registries.has_blob(&repo(&server), &Shelf::default().add("12345")).await.unwrap());
    assert!(events.events().iter().any(|e| matches!(e, Event::Warning(text) if text.contains("5 bytes instead of 4"))));
}

#[tokio::test]
async fn a_registry_is_reached_by_its_ipv6_address() {
    let answer = |request: &Seen, _| if request.target == "/v2/" { Answer::new(200) } else { manifest() };
    // A machine without IPv6 cannot try.
    let Ok(server) = Server::at("[::1]:0", answer).await else { return };
    assert!(server.address.starts_with("[::1]:"));
    assert!(client(config()).manifest(&tag(&repo(&server), "v1")).await.unwrap().is_some());
    assert_eq!(server.seen()[0].header("host"), server.address);
}

#[tokio::test]
async fn a_refusal_that_comes_before_the_body_was_read_is_still_told() {
    let refusal = "403 Forbidden\r\nConnection: close\r\nContent-Length: 20\r\n\r\nthe quota is used up";
    let (address, puts) = leaves_uploads_unread(Some(refusal)).await;
    let shelf = Shelf::default();
    let blob = shelf.add(noise(20_000_000));
    let error = shelf::push(&client(config()), &repository(&address, "a"), &shelf, &[&blob]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.chain().contains("the quota is used up"), "{error:?}");
    assert_eq!(puts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_registry_that_stops_taking_an_upload_is_given_up() {
    let (address, puts) = leaves_uploads_unread(None).await;
    let shelf = Shelf::default();
    let blob = shelf.add(noise(20_000_000));
    let quick = Config { stall_timeout: Duration::from_millis(300), retries: 1, ..config() };
    let error = shelf::push(&client(quick), &repository(&address, "a"), &shelf, &[&blob]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Network, "{error:?}");
    assert!(error.chain().contains(&blob.digest.to_string()), "{error:?}");
    assert_eq!(puts.load(Ordering::SeqCst), 2);
}

/// A registry that reads only the head of a PUT, then answers and closes, or does nothing more. With it, how many PUTs
/// there were.
async fn leaves_uploads_unread(answer: Option<&'static str>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let puts = Arc::new(AtomicUsize::new(0));
    let counter = puts.clone();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let counter = counter.clone();
            tokio::spawn(async move { read_heads(connection, answer, &counter).await });
        }
    });
    (address, puts)
}

async fn read_heads(connection: TcpStream, to_put: Option<&str>, puts: &AtomicUsize) -> std::io::Result<()> {
    let mut connection = BufReader::new(connection);
    let mut head = String::new();
    while connection.read_line(&mut head).await? > 0 {
        if !head.ends_with("\r\n\r\n") {
            continue;
        }
        let answer = match head.split(' ').next() {
            Some("GET") => "200 OK\r\nContent-Length: 0\r\n\r\n",
            Some("POST") => "202 Accepted\r\nLocation: /u\r\nContent-Length: 0\r\n\r\n",
            _ => {
                puts.fetch_add(1, Ordering::SeqCst);
                let Some(answer) = to_put else { return std::future::pending().await };
                return connection.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await;
            }
        };
        connection.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await?;
        head.clear();
    }
    Ok(())
}
