//! Every fault at every place on the way to a real registry: the result is correct, or the error is clear.

use std::time::Duration;

use gapferry::base::error::{Error, Kind};
use gapferry::content::{Need, Sink, Source};
use gapferry::oci::{Descriptor, Manifest, Repository};
use gapferry::transport::registry::{Config, Registries};

use crate::registry::memory_source::{self, MemorySource, image, noise, read, repository, tag};
use crate::registry::{client, config};
use crate::support::faulty::{After, Fault, Form, Proxy, Stage};
use crate::support::registry::Registry;

const BLOB: usize = 300_000;

/// An image at a real registry, behind a proxy that injects faults.
struct TestSite {
    registry: Registry,
    proxy: Proxy,
    memory: MemorySource,
    blobs: Vec<Descriptor>,
    image: Manifest,
}

impl TestSite {
    async fn new() -> TestSite {
        let registry = Registry::start();
        let proxy = Proxy::with_tokens(registry.host());
        let memory = MemorySource::default();
        let blobs = vec![memory.add("{}"), memory.add(noise(BLOB))];
        let image = image(&blobs[0], &blobs[1..], None);
        let site = TestSite { registry, proxy, memory, blobs, image };
        let direct = repository(site.registry.host(), "a");
        site.push(&client(config()), &direct).await.unwrap();
        site
    }

    async fn push(&self, to: &Registries, repository: &Repository) -> Result<(), Error> {
        let blobs: Vec<&Descriptor> = self.blobs.iter().collect();
        memory_source::push(to, repository, &self.memory, &blobs).await?;
        to.put_manifest(&tag(repository, "v1"), &self.image).await.map(drop)
    }

    /// Pulls and verifies everything.
    async fn pull(&self, from: &Registries, repository: &Repository) -> Result<(), Error> {
        let found = from.manifest(&tag(repository, "v1"), Need::Required).await?.expect("the image");
        assert_eq!(found.digest(), self.image.digest());
        for blob in &self.blobs {
            assert_eq!(read(from, repository, blob).await?.len() as u64, blob.size);
        }
        Ok(())
    }
}

/// Stalls are detected soon. On a busy machine other delays count as stalls too, which costs only tries.
fn patience() -> Config {
    let soon = Duration::from_secs(1);
    Config { stall_timeout: soon, commit_timeout: soon, retries: 9, ..config() }
}

/// `None` means success; otherwise the kind of the error.
type Row = (Fault, Option<Kind>);

fn anywhere() -> Vec<Row> {
    let mut rows: Vec<Row> = [Stage::Request, Stage::BeforeAnswer, Stage::Headers]
        .into_iter()
        .flat_map(|stage| [(Fault::Reset(stage), None), (Fault::Stall(stage), None)])
        .collect();
    rows.extend([408, 429, 499, 500, 502, 503, 504, 522].map(|status| (Fault::Status(status), None)));
    rows.push((Fault::TooMany(After::Seconds(1)), None));
    rows.push((Fault::Unauthorized, None));
    rows.push((Fault::ExpireTokens, None));
    rows.push((Fault::Status(403), Some(Kind::Refused)));
    rows
}

fn reading() -> Vec<Row> {
    let mut rows = anywhere();
    rows.extend([0, 1, 100_000, BLOB - 1].map(|at| (Fault::Truncate(at), None)));
    rows.extend([0, 100_000].map(|at| (Fault::Reset(Stage::Body(at)), None)));
    rows.extend([0, 100_000].map(|at| (Fault::Stall(Stage::Body(at)), None)));
    rows.extend([
        (Fault::Drip(50), None),
        (Fault::ExtraBytes(3), None),
        (Fault::WrongLength(-1), None),
        (Fault::WrongDigest, None),
        (Fault::Page, None),
        (Fault::RedirectLoop, Some(Kind::Network)),
        (Fault::Status(404), Some(Kind::NotFound)),
        (Fault::Status(451), Some(Kind::Refused)),
    ]);
    rows
}

/// Faults while the bytes of a blob are sent.
fn sending() -> Vec<Row> {
    let mut rows = anywhere();
    for at in [0, 1, 100_000, BLOB - 1] {
        rows.push((Fault::Reset(Stage::RequestBody(at)), None));
        rows.push((Fault::Stall(Stage::RequestBody(at)), None));
    }
    // The upload is sent again.
    rows.push((Fault::WrongDigest, None));
    rows
}

/// Refusals of an upload in its present form.
fn refusing() -> [Row; 5] {
    [
        (Fault::Cancelled, None),
        (Fault::Status(416), None),
        (Fault::Hasty(503), None),
        (Fault::Hasty(413), Some(Kind::Refused)),
        (Fault::Status(412), Some(Kind::Refused)),
    ]
}

#[tokio::test]
async fn under_any_fault_a_pulled_blob_is_correct_or_an_error_says_why() {
    let site = TestSite::new().await;
    let mut rows = reading();
    rows.push((Fault::WrongLength(1), None));
    rows.push((Fault::WrongType("text/plain"), None));
    rows.push((Fault::Redirect(site.proxy.elsewhere().address.clone()), None));
    let path = format!("/blobs/{}", site.blobs[1].digest);
    for (fault, expected) in rows {
        site.proxy.when("GET", &path).fault(fault.clone());
        let repository = repository(&site.proxy.address, "a");
        let outcome = site.pull(&client(patience()), &repository).await;
        check_outcome(&fault, expected, &outcome, &site.blobs[1].digest.to_string());
    }
    assert!(site.proxy.elsewhere().seen().iter().all(|request| request.header("authorization").is_empty()));
    assert_eq!(site.proxy.elsewhere().seen().len(), 1);
}

#[tokio::test]
async fn a_download_whose_range_is_ignored_after_a_break_is_correct() {
    let site = TestSite::new().await;
    let path = format!("/blobs/{}", site.blobs[1].digest);
    site.proxy.when("GET", &path).fault(Fault::Truncate(100_000));
    site.proxy.when("GET", &path).nth(2).fault(Fault::IgnoreRange);
    site.pull(&client(patience()), &repository(&site.proxy.address, "a")).await.unwrap();
    assert_eq!(site.proxy.done().len(), 2);
}

#[tokio::test]
async fn under_any_fault_a_pulled_manifest_is_correct_or_an_error_says_why() {
    let site = TestSite::new().await;
    for (fault, expected) in reading() {
        // "Not there" is an answer; the caller that needs the image reports it.
        if fault == Fault::Status(404) {
            continue;
        }
        site.proxy.when("GET", "/manifests/v1").fault(fault.clone());
        let repository = repository(&site.proxy.address, "a");
        let outcome = site.pull(&client(patience()), &repository).await;
        check_outcome(&fault, expected, &outcome, "a:v1");
    }
}

#[tokio::test]
async fn under_any_fault_an_upload_stores_the_blob_or_an_error_says_why() {
    let site = TestSite::new().await;
    let mut rows = sending();
    rows.extend(refusing());
    let digest = site.blobs[1].digest.to_string();
    let part = digest.replace(':', "%3A");
    for (n, (fault, expected)) in rows.into_iter().enumerate() {
        site.proxy.when("PUT", &part).fault(fault.clone());
        pushed(&site, n, &fault, expected, &digest).await;
    }
}

#[tokio::test]
async fn under_any_fault_a_large_upload_stores_the_blob_or_an_error_says_why() {
    let site = TestSite::new().await;
    let mut sending = sending();
    sending.extend([Form::Relative, Form::Absolute, Form::Changing].map(|form| (Fault::Location(form), None)));
    sending.extend(refusing());
    let mut closing = anywhere();
    closing.extend(refusing());
    let large = Config { large_blob: BLOB as u64, ..patience() };
    let digest = site.blobs[1].digest.to_string();
    let closed = digest.replace(':', "%3A");
    // A refusal of PATCH does not apply to the single PUT after it, unless it is about the size.
    let passes = |fault: &Fault| matches!(fault, Fault::Status(403 | 412));
    let expected = |(fault, kind): Row| if passes(&fault) { (fault, None) } else { (fault, kind) };
    let sending = sending.into_iter().map(|row| ("PATCH", "/blobs/uploads/", expected(row)));
    let rows = sending.chain(closing.into_iter().map(|row| ("PUT", &closed[..], row)));
    for (n, (method, part, (fault, expected))) in rows.enumerate() {
        site.proxy.when(method, part).fault(fault.clone());
        pushed_with(large.clone(), &site, n, &fault, expected, &digest).await;
    }
}

#[tokio::test]
async fn under_any_fault_of_its_first_request_an_upload_succeeds_or_an_error_says_why() {
    let site = TestSite::new().await;
    let mut rows = anywhere();
    rows.extend([Form::Relative, Form::Absolute, Form::Changing].map(|form| (Fault::Location(form), None)));
    rows.push((Fault::Status(413), Some(Kind::Refused)));
    for (n, (fault, expected)) in rows.into_iter().enumerate() {
        site.proxy.when("POST", "/blobs/uploads/").fault(fault.clone());
        pushed(&site, n, &fault, expected, &site.blobs[0].digest.to_string()).await;
    }
}

#[tokio::test]
async fn under_any_fault_a_pushed_manifest_is_stored_or_an_error_says_why() {
    let site = TestSite::new().await;
    let mut rows = anywhere();
    rows.extend([
        (Fault::Status(412), Some(Kind::Refused)),
        (Fault::Status(413), Some(Kind::Refused)),
        (Fault::WrongDigest, Some(Kind::Refused)),
        (Fault::ExtraBytes(1), None),
        (Fault::Page, None),
    ]);
    for (n, (fault, expected)) in rows.into_iter().enumerate() {
        site.proxy.when("PUT", "/manifests/v1").fault(fault.clone());
        pushed(&site, n, &fault, expected, &format!("to-{n}:v1")).await;
    }
}

/// Pushes into a fresh repository and compares the client's result with the registry's own answer.
async fn pushed(site: &TestSite, n: usize, fault: &Fault, expected: Option<Kind>, says: &str) {
    pushed_with(patience(), site, n, fault, expected, says).await;
}

async fn pushed_with(config: Config, site: &TestSite, n: usize, fault: &Fault, expected: Option<Kind>, says: &str) {
    let path = format!("to-{n}");
    let before = site.proxy.done().len();
    let outcome = site.push(&client(config), &repository(&site.proxy.address, &path)).await;
    assert_eq!(site.proxy.done().len(), before + 1, "{fault:?} was injected");
    check_outcome(fault, expected, &outcome, says);
    let (direct, straight) = (repository(site.registry.host(), &path), client(crate::registry::config()));
    let visible = Source::resolve(&straight, &tag(&direct, "v1"), Need::Required).await.unwrap().is_some();
    assert_eq!(visible, outcome.is_ok(), "{fault:?}: the tag exists with a complete image only");
    if visible {
        site.pull(&straight, &direct).await.unwrap_or_else(|e| panic!("{fault:?}: {}", e.chain()));
    }
}

fn check_outcome(fault: &Fault, expected: Option<Kind>, outcome: &Result<(), Error>, says: &str) {
    match (expected, outcome) {
        (None, Ok(())) => {}
        (Some(kind), Err(error)) => {
            assert_eq!(error.kind(), kind, "{fault:?}: {}", error.chain());
            assert!(error.chain().contains(says), "{fault:?} is reported without {says}: {}", error.chain());
        }
        (_, Ok(())) => panic!("{fault:?} passed for a success"),
        (_, Err(error)) => panic!("{fault:?}: {}", error.chain()),
    }
}
