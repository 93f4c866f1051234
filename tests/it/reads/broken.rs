//! Registries that serve images but answer one kind of companion lookup badly or never. The images travel, the run
//! neither waits nor ends, and one warning says what may be missing.

use serde_json::{Value, json};

use crate::limits::shop::Shop;
use crate::reads::{all_output, assert_code, gapferry, json, path};
use crate::support::faulty::{Answer, Fault, Seen, Server, Stage};
use crate::support::{sha256, tempdir};

const UNTOLD: &str = "could not be looked up";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The cost of a broken lookup: one second of silence, and two tries for an immediate answer.
const SOON: [&str; 4] = ["--stall-timeout", "1s", "--retries", "1"];

/// An answer and its name.
type Named = (&'static str, fn() -> Answer);
/// Whether a request is the affected one.
type Asked = fn(&str) -> bool;

/// Answers that must not end a run, although they ask for patience or never come.
fn broken() -> [Named; 5] {
    [
        ("429 for an hour", || Answer::new(429).with("Retry-After", "3600")),
        ("503 for an hour", || Answer::new(503).with("Retry-After", "3600")),
        ("429 without a word", || Answer::new(429)),
        ("502", || Answer::new(502)),
        ("silence", || Answer::new(200).but(Fault::Stall(Stage::Request))),
    ]
}

fn empty() -> Value {
    json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2 })
}

/// A signature of `subject`.
fn signature(subject: &str, number: usize) -> Vec<u8> {
    let subject = json!({ "mediaType": OCI_MANIFEST, "digest": subject, "size": 7 });
    let annotations = json!({ "number": number.to_string() });
    json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "x/sig", "config": empty(), "layers": [],
            "subject": subject, "annotations": annotations })
    .to_string()
    .into_bytes()
}

fn index(manifests: &[&[u8]]) -> Vec<u8> {
    let entry = |bytes: &&[u8]| json!({ "mediaType": OCI_MANIFEST, "digest": sha256(bytes), "size": bytes.len() });
    let manifests: Vec<Value> = manifests.iter().map(entry).collect();
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests }).to_string().into_bytes()
}

/// `team/app:1` with signatures under the fallback tag, of which the registry has the first `kept`.
#[derive(Clone)]
struct Signed {
    shop: Shop,
    signatures: Vec<Vec<u8>>,
    kept: usize,
}

impl Signed {
    fn new(signatures: usize, kept: usize) -> Signed {
        let shop = Shop::with(&[("team/app:1", "one"), ("team/other:1", "two")]);
        let subject = shop.digest("team/app:1");
        Signed { shop, signatures: (0..signatures).map(|number| signature(&subject, number)).collect(), kept }
    }

    fn answer(&self, request: &Seen) -> Answer {
        let with = |media_type: &str, body: &[u8]| Answer::new(200).with("Content-Type", media_type).body(body);
        let last = request.target.rsplit('/').next().unwrap();
        let kept = self.signatures.iter().take(self.kept).find(|signature| sha256(signature) == last);
        match kept {
            Some(signature) => with(OCI_MANIFEST, signature),
            None if last == self.shop.digest("team/app:1").replace(':', "-") => {
                let all: Vec<&[u8]> = self.signatures.iter().map(Vec::as_slice).collect();
                with(OCI_INDEX, &index(&all))
            }
            None if last == sha256(b"{}") => Answer::new(200).body("{}"),
            // The registry does not list the fallback tag.
            None if last.starts_with("list?") => Answer::new(403),
            None => self.shop.answer(request),
        }
    }
}

async fn run(command: &[&str]) -> std::process::Output {
    gapferry(&[command, &SOON].concat()).await
}

#[tokio::test]
async fn a_fallback_list_counts_as_incomplete_where_the_referrers_api_fails() {
    let answers: [Named; 7] = [
        ("401", || Answer::new(401)),
        ("403", || Answer::new(403)),
        ("406", || Answer::new(406)),
        ("500", || Answer::new(500)),
        ("429", || Answer::new(429).with("Retry-After", "3600")),
        ("a login page", || Answer::new(200).body("<!doctype html><title>Sign in</title>")),
        ("elsewhere", || Answer::new(307).with("Location", "http://localhost:1/signin")),
    ];
    for (case, answer) in answers {
        let signed = Signed::new(1, 1);
        let server = Server::registry(move |request, _| match request.target.contains("/referrers/") {
            true => answer(),
            false => signed.answer(request),
        });
        let server = server.await;
        let directory = tempdir();
        let (bundle, image) = (directory.path().join("b"), format!("{}/team/app:1", server.address));
        let export = ["export", &image, "-o", path(&bundle)];
        let output = run(&export).await;
        assert_code(&output, 0);
        assert_eq!(all_output(&output).matches(UNTOLD).count(), 1, "{case}: {}", all_output(&output));
        let locked = json(&bundle.join("bundle.json"))["lock"]["images"][0].clone();
        let attached = locked["attached"].as_array().map(Vec::len);
        assert_eq!((&locked["attachedUnknown"], attached), (&json!(true), Some(1)), "{case}: {locked}");
        assert_code(&gapferry(&["verify", "--full", path(&bundle)]).await, 0);
        let output = run(&[&export[..], &["--require-referrers"]].concat()).await;
        assert!(matches!(output.status.code(), Some(3..=5)), "{case}: {}", all_output(&output));
    }
}

#[tokio::test]
async fn a_listed_but_unreadable_referrer_is_reported() {
    let signed = Signed::new(3, 1);
    let gone = sha256(&signed.signatures[1]);
    let server = Server::registry(move |request, _| match request.target.contains("/referrers/") {
        true => Answer::new(404),
        false => signed.answer(request),
    });
    let server = server.await;
    let directory = tempdir();
    let (lock, image) = (directory.path().join("lock"), format!("{}/team/app:1", server.address));
    let command = ["lock", &image, "-o", path(&lock)];
    let output = run(&command).await;
    assert_code(&output, 0);
    let text = all_output(&output);
    assert_eq!((text.matches("cannot be read").count(), text.contains(&gone)), (1, true), "{text}");
    let locked = json(&lock)["images"][0].clone();
    let attached = locked["attached"].as_array().map(Vec::len);
    assert_eq!((&locked["attachedUnknown"], attached), (&json!(true), Some(1)), "{locked}");
    let output = run(&[&command[..], &["--require-referrers"]].concat()).await;
    assert_code(&output, 4);
    assert!(all_output(&output).contains(&gone), "{}", all_output(&output));
}

#[tokio::test]
async fn a_failing_companion_lookup_neither_ends_nor_delays_a_run() {
    let questions: [(&str, Asked); 2] = [
        ("the referrers API", |target| target.contains("/referrers/")),
        ("companions' tags", |target| target.contains("/manifests/sha256-")),
    ];
    for (question, is_asked) in questions {
        for (case, answer) in broken() {
            let names: Vec<String> = (0..8).map(|n| format!("team/app{n}:1")).collect();
            let images: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
            let shop = Shop::with(&images);
            let server = Server::registry(move |request, _| match () {
                () if is_asked(&request.target) => answer(),
                () if request.target.contains("/tags/list") => Answer::new(403),
                () => shop.answer(request),
            });
            let server = server.await;
            let directory = tempdir();
            let bundle = directory.path().join("b");
            let images: Vec<String> = names.iter().map(|name| format!("{}/{name}", server.address)).collect();
            let images: Vec<&str> = images.iter().map(String::as_str).collect();
            let output = run(&[&["export", "-o", path(&bundle)], &images[..]].concat()).await;
            assert_code(&output, 0);
            let text = all_output(&output);
            assert_eq!(text.matches(UNTOLD).count(), 1, "{question}, {case}: {text}");
            let locked = json(&bundle.join("bundle.json"))["lock"]["images"].clone();
            let unknown = locked.as_array().unwrap().iter().filter(|image| image["attachedUnknown"] == true).count();
            assert_eq!(unknown, images.len(), "{question}, {case}: {locked}");
            // The requests in flight when the first one fails, each with two tries.
            let asked = server.seen().iter().filter(|seen| is_asked(&seen.target)).count();
            assert!(asked <= 2 * images.len() + 4, "{question}, {case}: asked {asked} times");
        }
    }
}

#[tokio::test]
async fn an_image_named_by_tag_gets_its_signature_even_if_the_tag_list_fails() {
    let others: [Named; 3] = [
        ("401", || Answer::new(401)),
        ("403", || Answer::new(403)),
        ("a page", || Answer::new(200).body("<!doctype html><title>Sign in</title>")),
    ];
    for (case, answer) in broken().into_iter().chain(others) {
        let mut shop = Shop::with(&[("team/app:1", "one")]);
        let signature = shop.digest("team/app:1").replace(':', "-") + ".sig";
        shop.add(&format!("team/app:{signature}"), "signature");
        let server = Server::registry(move |request, _| match request.target.contains("/tags/list") {
            true => answer(),
            false => shop.answer(request),
        });
        let server = server.await;
        let directory = tempdir();
        let (bundle, image) = (directory.path().join("b"), format!("{}/team/app:1", server.address));
        let output = run(&["export", &image, "-o", path(&bundle), "--require-referrers"]).await;
        assert_code(&output, 0);
        let locked = json(&bundle.join("bundle.json"))["lock"]["images"][0].clone();
        assert_eq!(locked["attached"][0]["tag"], signature.as_str(), "{case}: {locked}");
        assert!(!all_output(&output).contains(UNTOLD), "{case}: {}", all_output(&output));
    }
}

#[tokio::test]
async fn a_rate_limited_registry_is_waited_for_and_its_signatures_carried() {
    let signed = Signed::new(1, 1);
    let limited = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::registry(move |request, _| {
        let is_about = request.target.contains("/referrers/") || request.method == "HEAD";
        let count = &limited;
        match is_about && count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 {
            true => Answer::new(429).with("Retry-After", "1"),
            false if request.target.contains("/referrers/") => Answer::new(404),
            false => signed.answer(request),
        }
    });
    let server = server.await;
    let directory = tempdir();
    let (lock, image) = (directory.path().join("lock"), format!("{}/team/app:1", server.address));
    let output = run(&["lock", &image, "-o", path(&lock)]).await;
    assert_code(&output, 0);
    let locked = json(&lock)["images"][0].clone();
    assert_eq!(locked["attached"].as_array().map(Vec::len), Some(1), "{}", all_output(&output));
    assert_eq!(locked.get("attachedUnknown"), None, "{}", all_output(&output));
}
