//! Verifies that a registry stored what it accepted, by reading the last byte of an upload. An upload that was answered
//! with success fails only on evidence.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use gapferry::base::error::{Kind, Reason};
use gapferry::content::{Readable, Sink};
use gapferry::oci::Descriptor;
use gapferry::transport::registry::Config;

use crate::registry::memory_source::{self, MemorySource, noise, repository};
use crate::registry::{client, config, watched};
use crate::support::faulty::{Answer, Fault, Seen, Server, Sessions, Stage, ranged};

/// The single-byte reads of blobs.
fn reads(seen: &[Seen]) -> Vec<String> {
    seen.iter().filter(|request| request.byte().is_some()).map(|request| request.target.clone()).collect()
}

fn path_of(repository: &str, blob: &Descriptor) -> String {
    format!("/v2/{repository}/blobs/{}", blob.digest)
}

#[tokio::test]
async fn the_last_byte_of_each_digest_is_read_once_after_its_first_upload() {
    let server = Sessions::start();
    let (registries, memory) = (client(config()), MemorySource::default());
    let (blob, empty) = (memory.add(noise(1000)), memory.add(""));
    for path in ["a/b", "a/c", "d/e"] {
        memory_source::push(&registries, &repository(&server.address, path), &memory, &[&blob, &empty]).await.unwrap();
    }
    assert_eq!(reads(&server.seen()), [path_of("a/b", &blob)], "registries store one copy");
    let asked: Vec<String> = server.asked().into_iter().map(|(method, _)| method).collect();
    assert_eq!(asked, [&["POST", "PUT", "GET"][..], &["POST", "PUT"].repeat(5)].concat());
}

/// A registry that accepts every upload and returns other content, `answer`, when read.
async fn keeping(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Server {
    Server::registry(move |request, _| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/u"),
        "PUT" => Answer::new(201),
        _ => answer(request),
    })
    .await
}

#[tokio::test]
async fn a_registry_that_stored_another_file_is_reported_in_every_repository() {
    let servers = [
        // An empty file, a shorter one, a longer one, one of the announced length that ends early, and none.
        keeping(|_| Answer::new(416)).await,
        keeping(|_| Answer::new(200).body("cut")).await,
        keeping(|request| ranged(request, &noise(2000))).await,
        keeping(|request| ranged(request, &noise(1000)).but(Fault::Truncate(0))).await,
        keeping(|_| Answer::new(404)).await,
    ];
    for server in servers {
        let (registries, memory) = (client(config()), MemorySource::default());
        let blob = memory.add(noise(1000));
        for path in ["a/b", "c/d"] {
            let pushed = memory_source::push(&registries, &repository(&server.address, path), &memory, &[&blob]).await;
            let error = pushed.unwrap_err();
            assert_eq!((error.kind(), error.reason()), (Kind::Damaged, Some(&Reason::DamagedTarget)), "{error:?}");
        }
    }
}

/// A registry may accept pushes and not be readable from here: firewalls, policies and unreachable storage fail no
/// push.
#[tokio::test]
async fn a_refused_or_failed_check_read_proves_nothing_and_is_the_last() {
    // Nothing listens there.
    let nowhere = Fault::Redirect("127.0.0.1:1".to_owned());
    let statuses = [204, 400, 401, 403, 405, 412, 500, 503].map(Fault::Status);
    for fault in statuses.into_iter().chain([nowhere, Fault::Reset(Stage::Request), Fault::WrongRange]) {
        let server = Sessions::start();
        server.when("GET", "/blobs/sha256").always().fault(fault.clone());
        let (registries, events) = watched(config());
        let memory = MemorySource::default();
        let blobs: Vec<Descriptor> = (1..7).map(|n| memory.add(noise(n * 1000))).collect();
        let repo = repository(&server.address, "a/b");
        let (to, from, into) = (&registries, &memory, &repo);
        let pushes = blobs[..3].iter().map(|blob| async move { memory_source::push(to, into, from, &[blob]).await });
        let pushes = join_all(pushes).await;
        assert!(pushes.iter().all(Result::is_ok), "{fault:?}: {pushes:?}");
        let before = reads(&server.seen()).len();
        for blob in &blobs[3..] {
            memory_source::push(&registries, &repo, &memory, &[blob]).await.unwrap();
        }
        assert_eq!(reads(&server.seen()).len(), before, "{fault:?}");
        assert!(events.events().is_empty(), "{fault:?}: {:?}", events.events());
    }
}

#[tokio::test]
async fn a_check_read_denied_in_one_project_is_made_in_another() {
    let server = Sessions::start();
    server.when("GET", "/v2/closed/").always().fault(Fault::Status(403));
    let (registries, memory) = (client(config()), MemorySource::default());
    let blobs = [1000, 2000, 3000].map(|size| memory.add(noise(size)));
    for (blob, path) in blobs.iter().zip(["closed/a", "closed/b", "open/c"]) {
        memory_source::push(&registries, &repository(&server.address, path), &memory, &[blob]).await.unwrap();
    }
    assert_eq!(reads(&server.seen()), [path_of("closed/a", &blobs[0]), path_of("open/c", &blobs[2])]);
}

#[tokio::test]
async fn a_blob_unreadable_before_its_upload_must_be_readable_after_it() {
    let server = Sessions::start();
    server.when("GET", "/blobs/sha256").always().fault(Fault::Status(500));
    let (registries, memory, repo) = (client(config()), MemorySource::default(), repository(&server.address, "a/b"));
    let blob = memory.add("content");
    assert!(matches!(registries.can_read(&repo, &blob).await.unwrap(), Readable::Failed(_)));
    let error = memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap_err();
    assert_eq!(error.reason(), Some(&Reason::DamagedTarget), "{error:?}");
}

/// Slow storage would make one upload wait for the next, however many may run at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_check_read_delays_no_upload() {
    let server = Arc::new(Sessions::start());
    server.when("GET", "/blobs/sha256").fault(Fault::Stall(Stage::Request));
    let registries = client(Config { per_host: 1, ..config() });
    registries.limit_uploads_per_project(&server.address, 1);
    let (slow, repo) = (registries.clone(), repository(&server.address, "a/b"));
    let (busy, to) = (server.clone(), repo.clone());
    let first = tokio::spawn(async move {
        let memory = MemorySource::default();
        memory_source::push(&slow, &to, &memory, &[&memory.add(noise(1000))]).await
    });
    let stands = move || busy.wait(Duration::from_secs(30), |now| now.stalls == 1);
    assert!(tokio::task::spawn_blocking(stands).await.unwrap(), "the read is under way");
    let memory = MemorySource::default();
    let blob = memory.add("");
    memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap();
    assert!(server.blob(&blob.digest).is_some());
    server.release();
    first.await.unwrap().unwrap();
}
