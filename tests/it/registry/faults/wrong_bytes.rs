//! Answers with wrong content. A single one is a passing failure; repeated ones show what the registry has.

use gapferry::base::error::{Error, Kind, Result};
use gapferry::content::{Cached, Need, Source};
use gapferry::oci::{Descriptor, Manifest, media_type};
use gapferry::transport::registry::{Config, Registries};

use super::{INDEX, manifest, repo};
use crate::registry::memory_source::MemorySource;
use crate::registry::{client, config};
use crate::support::faulty::{Answer, Fault, Seen, Server};
use crate::support::sha256;

const CONTENT: &[u8] = b"what was signed";

/// One request and two retries.
const TRIES: usize = 3;

fn faults() -> [Fault; 4] {
    [Fault::WrongDigest, Fault::ExtraBytes(3), Fault::WrongLength(-1), Fault::Page]
}

async fn registry() -> Server {
    let answer = |request: &Seen, _| match request.target.contains("/manifests/") {
        true => manifest(),
        false => Answer::new(200).with("Content-Type", "application/octet-stream").body(CONTENT),
    };
    Server::registry(answer).await
}

/// The number of requests for the content itself.
fn asked(server: &Server) -> usize {
    let reads = |request: &&Seen| request.method == "GET" && request.target != "/v2/";
    server.seen().iter().filter(reads).count()
}

fn the_blob() -> Descriptor {
    MemorySource::default().add(CONTENT)
}

async fn read_blob(from: &Registries, server: &Server) -> Result<bytes::Bytes> {
    Cached::new(from, None).small_blob(&repo(server), &the_blob(), 1 << 10).await
}

async fn read_manifest(from: &Registries, server: &Server, need: Need) -> Result<Option<Manifest>> {
    let digest = sha256(INDEX.as_bytes()).parse().unwrap();
    from.manifest(&repo(server).with_digest(digest), need).await
}

/// Otherwise a signature or an image is missing for a whole night.
#[tokio::test]
async fn one_or_two_wrong_answers_are_retried() {
    for times in [1, TRIES - 1] {
        for fault in faults() {
            let (server, registries) = (registry().await, client(config()));
            server.when("GET", "/blobs/").times(times).fault(fault.clone());
            let read = read_blob(&registries, &server).await;
            assert_eq!(read.unwrap_or_else(|error| panic!("{fault:?}: {}", error.chain())), CONTENT, "{fault:?}");
            assert_eq!(asked(&server), times + 1, "{fault:?}");
        }
        for (fault, need) in
            faults().into_iter().flat_map(|fault| [Need::Required, Need::Optional].map(|need| (fault.clone(), need)))
        {
            let (server, registries) = (registry().await, client(config()));
            server.when("GET", "/manifests/").times(times).fault(fault.clone());
            let read = read_manifest(&registries, &server, need).await;
            let read = read.unwrap_or_else(|error| panic!("{fault:?}, {need:?}: {}", error.chain()));
            assert_eq!(read.unwrap().bytes().unwrap(), INDEX, "{fault:?}");
            assert_eq!(asked(&server), times + 1, "{fault:?}, {need:?}");
        }
    }
}

fn kind_of(fault: &Fault) -> Kind {
    if *fault == Fault::Page { Kind::Network } else { Kind::Damaged }
}

fn check_given_up(server: &Server, fault: &Fault, error: &Error) {
    assert_eq!(error.kind(), kind_of(fault), "{fault:?}: {}", error.chain());
    assert!(error.chain().contains("giving up after 3 tries"), "{fault:?}: {}", error.chain());
    assert_eq!(asked(server), TRIES, "{fault:?}");
}

/// A damaged blob of many gigabytes must not be read for every try that --retries allows.
#[tokio::test]
async fn wrong_content_is_requested_three_times_at_most() {
    for fault in faults() {
        let (server, registries) = (registry().await, client(Config { retries: 9, ..config() }));
        server.when("GET", "/blobs/").always().fault(fault.clone());
        check_given_up(&server, &fault, &read_blob(&registries, &server).await.unwrap_err());
        let (server, registries) = (registry().await, client(Config { retries: 9, ..config() }));
        server.when("GET", "/manifests/").always().fault(fault.clone());
        check_given_up(&server, &fault, &read_manifest(&registries, &server, Need::Required).await.unwrap_err());
    }
}

#[tokio::test]
async fn without_retries_the_first_wrong_answer_is_final() {
    let (server, registries) = (registry().await, client(Config { retries: 0, ..config() }));
    server.when("GET", "/blobs/").fault(Fault::WrongDigest);
    assert_eq!(read_blob(&registries, &server).await.unwrap_err().kind(), Kind::Damaged);
    server.when("GET", "/manifests/").fault(Fault::WrongDigest);
    assert_eq!(read_manifest(&registries, &server, Need::Required).await.unwrap_err().kind(), Kind::Damaged);
    assert_eq!(asked(&server), 2);
}

/// The digest proves that the registry has this content; another request would return the same.
#[tokio::test]
async fn a_malformed_manifest_with_the_right_digest_is_requested_once() {
    const MALFORMED: &str = "{\"schemaVersion\":2";
    let server = Server::registry(|_, _| Answer::new(200).with("Content-Type", media_type::OCI_INDEX).body(MALFORMED));
    let server = server.await;
    let reference = repo(&server).with_digest(sha256(MALFORMED.as_bytes()).parse().unwrap());
    let error = client(config()).manifest(&reference, Need::Required).await.unwrap_err();
    assert_eq!((error.kind(), asked(&server)), (Kind::Damaged, 1), "{}", error.chain());
}
