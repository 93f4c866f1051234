//! Wrong answers to requests for manifests, tags and referrers.

use std::time::Duration;

use gapferry::base::error::Kind;
use gapferry::content::{Need, Sink, Source};
use gapferry::oci::{Digest, media_type};
use gapferry::transport::registry::Config;

use super::{INDEX, manifest, repo};
use crate::registry::memory_source::{self, MemorySource, image, tag};
use crate::registry::{client, config};
use crate::support::faulty::{Answer, Seen, Server, last_byte};

#[tokio::test]
async fn a_web_page_instead_of_a_manifest_is_reported_as_such() {
    let server =
        Server::registry(|_, _| Answer::new(200).with("Content-Type", "text/html").body("<h1>Please log in</h1>"));
    let server = server.await;
    let reference = repo(&server).with_digest(Digest::sha256(b"x"));
    for error in [
        client(config()).manifest(&reference, Need::Required).await.unwrap_err(),
        client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Network);
        assert!(error.chain().contains("Please log in"), "{error}");
        assert!(error.chain().contains(&repo(&server).to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_is_limited_in_size_and_must_match_its_digest() {
    let huge = |_: &Seen, _| Answer::new(200).body(vec![b' '; 4 * 1024 * 1024 + 1]);
    let endless =
        |_: &Seen, _| Answer::new(200).with("Content-Length", "99999999999").body(vec![b' '; 5 * 1024 * 1024]);
    let lying = |_: &Seen, _| manifest().with("Docker-Content-Digest", Digest::sha256(b"other").to_string());
    for server in [Server::registry(huge).await, Server::registry(endless).await, Server::registry(lying).await] {
        let error = client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{error:?}");
    }
    let server = Server::registry(|_, _| manifest()).await;
    let asked = repo(&server).with_digest(Digest::sha256(b"asked for"));
    let error = client(config()).manifest(&asked, Need::Required).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.chain().contains(&Digest::sha256(INDEX.as_bytes()).to_string()), "{error:?}");
}

/// A gateway that compresses its origin's answers would change every digest.
#[tokio::test]
async fn content_is_requested_uncompressed_and_a_compressed_answer_is_reported() {
    let server = Server::registry(|request, _| {
        assert_eq!(request.header("accept-encoding"), "identity");
        match request.target.ends_with("/text") {
            // Labelled as gzip without being compressed.
            true => manifest().with("Content-Encoding", "gzip"),
            false => manifest().with("Content-Encoding", "gzip").body([0x1f, 0x8b, 8, 0, 0xff]),
        }
    });
    let server = server.await;
    assert!(client(config()).manifest(&tag(&repo(&server), "text"), Need::Required).await.unwrap().is_some());
    let error = client(config()).manifest(&tag(&repo(&server), "v1"), Need::Required).await.unwrap_err();
    assert!(error.kind() == Kind::Network && error.chain().contains("Content-Encoding: \"gzip\""), "{error:?}");
}

/// A cache that remembers “not there” makes a just pushed manifest look lost.
#[tokio::test]
async fn requests_to_a_target_bypass_caches_and_requests_to_a_source_do_not() {
    let server = Server::registry(|request, _| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/u"),
        "PUT" => Answer::new(201),
        _ if request.target.contains("/tags/list") => Answer::new(200).body(r#"{"name":"a/b","tags":[]}"#),
        _ => last_byte(request).unwrap_or_else(manifest),
    });
    let server = server.await;
    let (registries, memory) = (client(config()), MemorySource::default());
    let (blob, reference) = (memory.add("content"), tag(&repo(&server), "v1"));
    memory_source::push(&registries, &repo(&server), &memory, &[&blob]).await.unwrap();
    registries.put_manifest(&reference, &image(&blob, &[], None)).await.unwrap();
    Sink::resolve(&registries, &reference).await.unwrap();
    registries.read_manifest(&reference).await.unwrap();
    registries.has_blob(&repo(&server), &blob).await.unwrap();
    registries.has_no_tags(&repo(&server)).await.unwrap();
    let reads: Vec<Seen> = server.seen().into_iter().filter(|seen| ["GET", "HEAD"].contains(&&*seen.method)).collect();
    assert!(reads.len() >= 5 && reads.iter().all(|seen| seen.header("cache-control") == "no-cache"), "{reads:?}");
    let before = server.seen().len();
    registries.manifest(&reference, Need::Required).await.unwrap();
    assert!(server.seen()[before..].iter().all(|seen| seen.header("cache-control").is_empty()));
}

#[tokio::test]
async fn an_incomplete_head_answer_is_followed_by_get() {
    let server = Server::registry(|request, _| match request.method.as_str() {
        "HEAD" => Answer::new(200).with("Content-Type", media_type::OCI_INDEX).body(INDEX),
        _ => manifest(),
    });
    let server = server.await;
    let found = Source::resolve(&client(config()), &tag(&repo(&server), "v1"), Need::Required).await.unwrap().unwrap();
    assert_eq!((found.digest, found.size), (Digest::sha256(INDEX.as_bytes()), INDEX.len() as u64));
}

#[tokio::test]
async fn a_registry_without_head_is_asked_by_get_even_with_one_request_at_a_time() {
    for status in [405, 501] {
        let server = Server::registry(move |request, _| match request.method.as_str() {
            "HEAD" => Answer::new(status),
            _ => manifest(),
        });
        let server = server.await;
        let registries = client(Config { per_host: 1, ..config() });
        let reference = tag(&repo(&server), "v1");
        let asked = Source::resolve(&registries, &reference, Need::Required);
        // If the first request still occupied its slot, the second would wait forever.
        let found = tokio::time::timeout(Duration::from_secs(60), asked).await.expect("an answer").unwrap().unwrap();
        assert_eq!(found.digest, Digest::sha256(INDEX.as_bytes()));
    }
}

#[tokio::test]
async fn unreadable_referrers_are_an_error_and_a_missing_api_is_tried_once() {
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
        assert_eq!(registries.referrers(&repo(&server), &subject).await.unwrap().found, []);
    }
    assert_eq!(server.count("GET", "/v2/a/b/referrers/"), 1);
    assert_eq!(server.count("GET", "/v2/a/b/manifests/sha256-"), 3);
}

#[tokio::test]
async fn a_registry_that_lists_referrers_itself_gets_no_fallback_tag() {
    let server = Server::registry(|_, _| Answer::new(201).with("OCI-Subject", "sha256:x")).await;
    let memory = MemorySource::default();
    let config_blob = memory.add("{}");
    let signature = image(&config_blob, &[], Some(&image(&config_blob, &[], None)));
    let registries = client(config());
    registries.put_manifest(&repo(&server).with_digest(signature.digest()), &signature).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("content-type"), media_type::OCI_MANIFEST);
}

#[tokio::test]
async fn a_web_page_in_answer_to_a_push_does_not_count_as_stored() {
    let page = |r: &Seen| Answer::new(200).with("Content-Type", "text/html").body(format!("<h1>Hi {}</h1>", r.method));
    let memory = MemorySource::default();
    let pushed = image(&memory.add("{}"), &[], None);
    // A lookup of the pushed manifest gets the page too, or 404.
    for status in [200, 404] {
        let server = Server::registry(move |request, _| match request.method.as_str() {
            "PUT" => page(request),
            _ if status == 200 => page(request),
            _ => Answer::new(status),
        });
        let server = server.await;
        let error = client(config()).put_manifest(&tag(&repo(&server), "v1"), &pushed).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Network | Kind::Damaged), "{error:?}");
        assert!(error.chain().contains(&format!("{}:v1", repo(&server))), "{error:?}");
    }
    // A registry that answers 200 and has the manifest is trusted.
    let (bytes, digest) = (pushed.bytes().unwrap(), pushed.digest().to_string());
    let server = Server::registry(move |request, _| match request.method.as_str() {
        "PUT" => Answer::new(200),
        _ => {
            let answer = Answer::new(200).with("Content-Type", media_type::OCI_MANIFEST).body(&bytes[..]);
            answer.with("Docker-Content-Digest", digest.clone())
        }
    });
    let server = server.await;
    client(config()).put_manifest(&tag(&repo(&server), "v1"), &pushed).await.unwrap();
    assert_eq!(server.count("PUT", "/v2/"), 1);
}

#[tokio::test]
async fn a_manifest_altered_in_transit_is_pushed_once_more() {
    let other = Digest::sha256(b"other").to_string();
    let memory = MemorySource::default();
    let pushed = image(&memory.add("{}"), &[], None);
    let wrong = other.clone();
    let server = Server::registry(move |request, before| {
        let stored = if before == 0 { wrong.clone() } else { Digest::sha256(&request.body).to_string() };
        Answer::new(201).with("Docker-Content-Digest", stored)
    });
    let server = server.await;
    client(config()).put_manifest(&tag(&repo(&server), "v1"), &pushed).await.unwrap();
    assert_eq!(server.count("PUT", "/v2/"), 2);

    let wrong = other.clone();
    let server = Server::registry(move |_, _| Answer::new(201).with("Docker-Content-Digest", wrong.clone())).await;
    let error = client(config()).put_manifest(&tag(&repo(&server), "v1"), &pushed).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.chain().contains(&other), "{error:?}");
}
