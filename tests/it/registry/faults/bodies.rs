//! Blobs whose bytes arrive late, wrong, twice or not at all.

use std::time::Duration;

use futures_util::StreamExt;
use gapferry::base::error::Kind;
use gapferry::content::{Readable, Sink, Source};
use gapferry::transport::registry::Config;

use super::repo;
use crate::registry::memory_source::{MemorySource, noise, read};
use crate::registry::{client, config};
use crate::support::faulty::{Answer, Fault, Seen, Server, Stage, ranged};

#[tokio::test]
async fn a_body_that_breaks_off_repeatedly_is_read_as_one_stream() {
    let content = noise(500_000);
    let served = content.clone();
    let server = Server::registry(move |request, before| match before {
        0 => ranged(request, &served).but(Fault::Truncate(100_000)),
        1 => Answer::new(503),
        2 => ranged(request, &served).but(Fault::Truncate(1)),
        3 => ranged(request, &served).but(Fault::Stall(Stage::Body(150_000))),
        _ => ranged(request, &served),
    });
    let server = server.await;
    let blob = MemorySource::default().add(content.clone());
    let patience = Config { stall_timeout: Duration::from_secs(5), ..config() };
    assert!(read(&client(patience), &repo(&server), &blob).await.unwrap() == content);
    let ranges: Vec<_> = server.seen().iter().map(Seen::range).collect();
    assert_eq!(ranges, [None, Some(100_000), Some(100_000), Some(100_001), Some(250_001)]);
}

#[tokio::test]
async fn bytes_repeated_by_a_server_that_ignores_range_are_skipped() {
    let content = noise(300_000);
    let served = content.clone();
    let server = Server::registry(move |_, before| match before {
        0 => Answer::new(200).body(served.clone()).but(Fault::Truncate(123_456)),
        _ => Answer::new(200).body(served.clone()),
    });
    let server = server.await;
    let blob = MemorySource::default().add(content.clone());
    assert!(read(&client(config()), &repo(&server), &blob).await.unwrap() == content);
    // Asked for a later offset, the server starts at 0 and says so.
    let body = client(config()).blob(&repo(&server), &blob, 1000).await.unwrap();
    assert_eq!(body.offset, 0);
    let pieces: Vec<_> = body.stream.map(|piece| piece.unwrap()).collect().await;
    assert!(pieces.concat() == content);
}

#[tokio::test]
async fn a_wrong_range_is_detected_and_never_spliced_in() {
    let content = noise(10_000);
    for wrong in ["bytes 0-9999/10000", "bytes 5001-9999/10000", "nonsense", ""] {
        let served = content.clone();
        let server = Server::registry(move |request, _| match request.range() {
            Some(start) => Answer::new(206).with("Content-Range", wrong).body(&served[start..]),
            None => Answer::new(200).body(served.clone()),
        });
        let server = server.await;
        let blob = MemorySource::default().add(content.clone());
        let body = client(config()).blob(&repo(&server), &blob, 5000).await.unwrap();
        assert_eq!(body.offset, 0, "{wrong}");
        let pieces: Vec<_> = body.stream.map(|piece| piece.unwrap()).collect().await;
        assert!(pieces.concat() == content, "{wrong}");
    }
    // A different total size means a different blob.
    let served = content.clone();
    let server = Server::registry(move |_, _| {
        Answer::new(206).with("Content-Range", "bytes 5000-9999/20000").body(&served[5000..])
    });
    let server = server.await;
    let blob = MemorySource::default().add(content);
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
    let blob = MemorySource::default().add("hello");
    assert_eq!(client(config()).blob(&repo(&server), &blob, 3).await.unwrap().offset, 0);
}

#[tokio::test]
async fn a_length_that_contradicts_the_descriptor_is_refused_before_the_first_byte() {
    for served in ["hell", "hello!"] {
        let server =
            Server::registry(move |_, _| Answer::new(200).with("Content-Type", "text/plain").body(served)).await;
        let blob = MemorySource::default().add("hello");
        let error = client(config()).blob(&repo(&server), &blob, 0).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Damaged);
        assert!(error.to_string().contains(&blob.digest.to_string()), "{error}");
        assert!(error.to_string().contains("text/plain"), "{error}");
    }
}

/// A user behind a proxy's login page must not read that the registry's storage is damaged.
#[tokio::test]
async fn a_web_page_or_content_coding_instead_of_a_blob_is_not_called_damage() {
    let page = Answer::new(200).with("Content-Type", "text/html; charset=utf-8").body("<h1>Please log in</h1>");
    let coded = Answer::new(200).with("Content-Encoding", "gzip").body("hell");
    for (answer, is_page) in [(page, true), (coded, false)] {
        let server = Server::registry(move |_, _| answer.clone()).await;
        let (registries, blob) = (client(config()), MemorySource::default().add("hello"));
        let error = registries.blob(&repo(&server), &blob, 0).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Network, "{error:?}");
        if is_page {
            let found = registries.can_read(&repo(&server), &blob).await.unwrap();
            assert!(matches!(found, Readable::Unknown(_)), "{found:?}");
        }
    }
}

/// The same if only the end of the body shows that it is not the blob.
#[tokio::test]
async fn a_web_page_or_content_coding_of_unknown_length_is_not_called_damage() {
    let answer = |body: &str| {
        let body = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        Answer::new(200).with("Transfer-Encoding", "chunked").body(body)
    };
    for (name, value) in [("Content-Type", "text/html"), ("Content-Encoding", "gzip")] {
        for (body, is_right) in [("hell", false), ("hello!", false), ("hello", true)] {
            let answer = answer(body).with(name, value);
            let server = Server::registry(move |_, _| answer.clone()).await;
            let read = read(&client(config()), &repo(&server), &MemorySource::default().add("hello")).await;
            match read {
                Ok(read) => assert!(is_right && read == "hello"),
                Err(error) => assert!(!is_right && error.kind() == Kind::Network, "{value} {body}: {error:?}"),
            }
            let asked = server.seen().len();
            assert_eq!(asked, 1, "a retry would end the same way");
        }
    }
}

#[tokio::test]
async fn a_trickling_registry_is_given_up_and_a_slow_one_is_not() {
    let content = noise(300_000);
    for (pieces, arrives) in [(usize::MAX, false), (30, true)] {
        let served = content.clone();
        let server = Server::registry(move |request, _| ranged(request, &served).but(Fault::Drip(pieces))).await;
        let blob = MemorySource::default().add(content.clone());
        let stall_timeout = Duration::from_millis(500);
        let quick = Config { stall_timeout, retries: 1, ..config() };
        match read(&client(quick), &repo(&server), &blob).await {
            Ok(read) => assert!(arrives && read == content),
            Err(error) => {
                assert!(!arrives && error.kind() == Kind::Network, "{error:?}");
                assert!(error.chain().contains("sent only"), "{error:?}");
            }
        }
    }
}
