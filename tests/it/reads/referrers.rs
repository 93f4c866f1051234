//! Registries that do not say what is attached to an image: the image travels, and silence never means “nothing”.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::limits::shop::Shop;
use crate::reads::{all_output, assert_code, gapferry, json, path};
use crate::support::faulty::{Answer, Fault, Seen, Server};
use crate::support::{sha256, tempdir};

const UNTOLD: &str = "could not be looked up";

fn two_images() -> Shop {
    Shop::with(&[("team/app:1", "one"), ("team/other:1", "two")])
}

/// A registry with two images that answers referrers requests with `answer`.
async fn answering(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Server {
    let shop = two_images();
    Server::registry(move |request, _| match request.target.contains("/referrers/") {
        true => answer(),
        false => shop.answer(request),
    })
    .await
}

fn both(server: &Server) -> [String; 2] {
    ["app", "other"].map(|name| format!("{}/team/{name}:1", server.address))
}

/// The printed JSON.
fn printed(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", all_output(output)))
}

/// The number of images in a lock that may have more companions than it lists.
fn unknown(lock: &Value) -> usize {
    lock["images"].as_array().unwrap().iter().filter(|image| image["attachedUnknown"] == true).count()
}

#[tokio::test]
async fn an_image_with_unknown_referrers_travels_with_one_warning() {
    let login = Server::start(|_, _| Answer::new(200).with("Content-Type", "text/html").body("<h1>Sign in</h1>")).await;
    let busy = Server::start(|_, _| Answer::new(429).with("Retry-After", "3600")).await;
    let to = |server: &Server| format!("http://{}/signin?continue=x", server.address);
    let (to_login, to_busy) = (to(&login), to(&busy));
    let redirect = |to: &str| Answer::new(307).with("Location", to);
    let servers = [
        ("401", answering(|| Answer::new(401)).await),
        ("403", answering(|| Answer::new(403)).await),
        ("406", answering(|| Answer::new(406)).await),
        ("500", answering(|| Answer::new(500)).await),
        ("503", answering(|| Answer::new(503)).await),
        ("a login page", answering(|| Answer::new(200).body("<!doctype html><title>Sign in</title>")).await),
        ("some JSON", answering(|| Answer::new(200).body(r#"{"errors":[{"code":"DENIED"}]}"#)).await),
        ("a login page elsewhere", answering(move || redirect(&to_login)).await),
        ("the limit of another server", answering(move || redirect(&to_busy)).await),
    ];
    for (case, server) in &servers {
        let directory = tempdir();
        let lock = directory.path().join("lock");
        let [one, two] = both(server);
        let run = ["lock", &one, &two, "-o", path(&lock), "--retries", "1"];
        let output = gapferry(&run).await;
        assert_code(&output, 0);
        let text = all_output(&output);
        assert_eq!(text.matches(UNTOLD).count(), 1, "{case}: {text}");
        assert!(text.contains("--require-referrers") && text.contains("--no-referrers"), "{case}: {text}");
        let locked = json(&lock);
        assert_eq!(unknown(&locked), 2, "{case}: {locked}");
        assert!(locked["images"][0].get("attached").is_none(), "{case}: {locked}");

        let output = gapferry(&[&run[..], &["--require-referrers"]].concat()).await;
        assert!(matches!(output.status.code(), Some(3..=5)), "{case}: {}", all_output(&output));
        let output = gapferry(&[&run[..], &["--no-referrers"]].concat()).await;
        assert_code(&output, 0);
        assert!(!all_output(&output).contains(UNTOLD), "{case}: {}", all_output(&output));
    }
}

/// An attacker who can break the answer for one image must not hide the signatures of others.
#[tokio::test]
async fn a_useless_referrers_answer_affects_only_its_image() {
    let empty = || Answer::new(200).with("Content-Type", OCI_INDEX).body(index(OCI_INDEX, &[]));
    let damaged = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"a referrer is damaged"}]}"#;
    // (the answer about the first image, once or always, and the number of images left in doubt)
    let page = || Answer::new(200).body("<!doctype html><title>Sign in</title>");
    let cases: [(&str, Answer, bool, usize); 6] = [
        ("damaged there", Answer::new(500).body(damaged), false, 1),
        ("endless", Answer::new(200).body(vec![b' '; 5 << 20]), false, 1),
        ("a page", page(), false, 1),
        ("a page for a moment", page(), true, 0),
        ("a link to nowhere", empty().with("Link", "<http://[>; rel=\"next\""), false, 1),
        ("breaks off", empty().but(Fault::Truncate(10)), true, 0),
    ];
    for (case, answer, once, open) in cases {
        let names = ["a", "b", "c", "d", "e"].map(|name| format!("team/{name}:1"));
        let shop = Shop::with(&names.each_ref().map(|name| (name.as_str(), name.as_str())));
        let asked = AtomicUsize::new(0);
        let server = Server::registry(move |request, _| match request.target.contains("/referrers/") {
            true if request.target.contains("/team/a/") && !(once && asked.fetch_add(1, Ordering::SeqCst) > 0) => {
                answer.clone()
            }
            true => empty(),
            false => shop.answer(request),
        });
        let server = server.await;
        let directory = tempdir();
        let lock = directory.path().join("lock");
        let references = names.each_ref().map(|name| format!("{}/{name}", server.address));
        let references = references.each_ref().map(String::as_str);
        let output = gapferry(&[&["lock", "-o", path(&lock), "--retries", "2"][..], &references].concat()).await;
        assert_code(&output, 0);
        assert_eq!(unknown(&json(&lock)), open, "{case}: {}", all_output(&output));
        assert_eq!(all_output(&output).contains(UNTOLD), open > 0, "{case}: {}", all_output(&output));
    }
}

#[tokio::test]
async fn an_export_with_unknown_referrers_makes_a_bundle_that_verifies() {
    let server = answering(|| Answer::new(403)).await;
    let directory = tempdir();
    let bundle = directory.path().join("b");
    let [one, two] = both(&server);
    assert_code(&gapferry(&["export", &one, &two, "-o", path(&bundle)]).await, 0);
    assert_code(&gapferry(&["verify", path(&bundle)]).await, 0);
    // `list` and `inspect` say that there may be signatures.
    let bundle = path(&bundle);
    assert!(all_output(&gapferry(&["list", bundle]).await).contains("unknown"));
    assert_eq!(unknown(&printed(&gapferry(&["list", bundle, "--json"]).await)), 2);
    let image = format!("{bundle}#{one}");
    assert!(all_output(&gapferry(&["inspect", &image]).await).contains("what else is attached is unknown"));
    for image in [&image, &one] {
        assert_eq!(printed(&gapferry(&["inspect", image, "--json"]).await)["attachedUnknown"], true, "{image}");
    }
}

#[tokio::test]
async fn a_warning_names_only_options_of_its_command() {
    let server = answering(|| Answer::new(403)).await;
    let directory = tempdir();
    let list = directory.path().join("list.txt");
    let [one, _] = both(&server);
    std::fs::write(&list, &one).unwrap();
    for command in [&["inspect", &one][..], &["inventory", &server.address, "-f", path(&list)]] {
        let output = gapferry(command).await;
        assert_code(&output, 0);
        let text = all_output(&output);
        assert!(text.contains(UNTOLD) && !text.contains("-referrers"), "{text}");
    }
}

#[tokio::test]
async fn denied_signature_tags_are_not_taken_for_absent() {
    let mut shop = two_images();
    let tag = |suffix: &str| shop.digest("team/app:1").replace(':', "-") + suffix;
    let (signature, sbom) = (tag(".sig"), tag(".sbom"));
    shop.add(&format!("team/app:{signature}"), "signature");
    let server = Server::registry(move |request, _| match () {
        () if request.target.contains("/tags/list") || request.target.ends_with(&sbom) => Answer::new(403),
        () => shop.answer(request),
    });
    let server = server.await;
    let directory = tempdir();
    let lock = directory.path().join("lock");
    let output = gapferry(&["lock", &both(&server)[0], "-o", path(&lock)]).await;
    assert_code(&output, 0);
    assert!(all_output(&output).contains(UNTOLD), "{}", all_output(&output));
    let image = json(&lock)["images"][0].clone();
    assert_eq!((&image["attachedUnknown"], &image["attached"][0]["tag"]), (&json!(true), &json!(signature)), "{image}");
}

#[tokio::test]
async fn a_replaced_signature_does_not_return_when_the_api_fails() {
    let mut shop = two_images();
    let signature = shop.digest("team/app:1").replace(':', "-") + ".sig";
    shop.add(&format!("team/app:{signature}"), "withdrawn");
    let shop = Arc::new(std::sync::Mutex::new(shop));
    let (held, well) = (shop.clone(), Arc::new(AtomicBool::new(true)));
    let is_well = well.clone();
    let server = Server::registry(move |request, _| {
        let asked = request.target.contains("/referrers/");
        if asked && !is_well.load(Ordering::Relaxed) { Answer::new(403) } else { held.lock().unwrap().answer(request) }
    });
    let server = server.await;
    let directory = tempdir();
    let out = directory.path().join("bundle");
    let run = ["export", &both(&server)[0], "-o", path(&out)];
    assert_code(&gapferry(&run).await, 0);
    well.store(false, Ordering::Relaxed);
    shop.lock().unwrap().add(&format!("team/app:{signature}"), "new");
    let output = gapferry(&run).await;
    assert_code(&output, 0);
    let listed = printed(&gapferry(&["list", path(&out), "--json"]).await);
    let attached = listed["images"][0]["attached"].as_array().unwrap();
    let digest = shop.lock().unwrap().digest(&format!("team/app:{signature}"));
    assert_eq!(
        attached.iter().map(|own| &own["digest"]).collect::<Vec<_>>(),
        [&json!(digest)],
        "{}",
        all_output(&output)
    );
}

/// The list is read only for signatures: an image named by its tag does not wait for its end.
#[tokio::test]
async fn an_endless_tag_list_does_not_delay_an_image_named_by_tag() {
    let mut shop = two_images();
    let signature = shop.digest("team/app:1").replace(':', "-") + ".sig";
    shop.add(&format!("team/app:{signature}"), "signature");
    let pages = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::registry(move |request, _| match request.target.contains("/tags/list") {
        true => {
            let page = pages.fetch_add(1, Ordering::SeqCst);
            let next = format!("</v2/team/app/tags/list?n=1000&last=v{page}>; rel=\"next\"");
            Answer::new(200).with("Link", next).body(format!(r#"{{"name":"team/app","tags":["v{page}"]}}"#))
        }
        false => shop.answer(request),
    });
    let server = server.await;
    let directory = tempdir();
    let lock = directory.path().join("lock");
    let output = gapferry(&["lock", &both(&server)[0], "-o", path(&lock)]).await;
    assert_code(&output, 0);
    assert!(server.count("GET", "/tags/list") <= 101, "{}", server.count("GET", "/tags/list"));
    let image = &json(&lock)["images"][0];
    assert_eq!(image["attached"][0]["tag"], signature, "the signature is looked up by its own tag: {image}");
}

#[tokio::test]
async fn a_lock_entry_that_may_lack_signatures_is_not_reused() {
    let shop = two_images();
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let server = Server::registry(move |request, _| {
        let asked = request.target.contains("/referrers/");
        if asked && !is_well.load(Ordering::Relaxed) { Answer::new(403) } else { shop.answer(request) }
    });
    let server = server.await;
    let directory = tempdir();
    let lock = directory.path().join("lock");
    let run = ["lock", &both(&server)[0], "-o", path(&lock), "--immutable-tags", "."];
    assert_code(&gapferry(&run).await, 0);
    assert_eq!(unknown(&json(&lock)), 1);
    well.store(true, Ordering::Relaxed);
    assert_code(&gapferry(&run).await, 0);
    assert_eq!((unknown(&json(&lock)), &json(&lock)["images"][0]["attached"]), (0, &json!([])));
}

#[tokio::test]
async fn a_signature_of_the_last_bundle_is_kept_while_referrers_are_unknown() {
    let mut shop = two_images();
    let signature = shop.digest("team/app:1").replace(':', "-") + ".sig";
    shop.add(&format!("team/app:{signature}"), "signature");
    let digest = shop.digest(&format!("team/app:{signature}"));
    let (silent, is_signature) = (Arc::new(AtomicBool::new(false)), [digest.clone(), signature.clone()]);
    let is_silent = silent.clone();
    let moved = Arc::new(AtomicBool::new(false));
    let (has_moved, mut other) = (moved.clone(), shop.clone());
    other.add("team/app:1", "another image");
    let server = Server::registry(move |request, _| {
        let attached = ["/referrers/", "/tags/list", ".att", ".sbom"].iter().any(|part| request.target.contains(part));
        let about = attached || is_signature.iter().any(|name| request.target.contains(name));
        match is_silent.load(Ordering::Relaxed) && about {
            true => Answer::new(403),
            false if has_moved.load(Ordering::Relaxed) => other.answer(request),
            false => shop.answer(request),
        }
    });
    let server = server.await;
    let directory = tempdir();
    let (bundle, lock) = (directory.path().join("b.tar"), directory.path().join("lock"));
    let [one, two] = both(&server);
    let export = ["export", &one, &two, "-o", path(&bundle)];
    let attached = |images: &Value| images[0]["attached"][0]["digest"].clone();
    assert_code(&gapferry(&[&export[..], &["--lock", path(&lock)]].concat()).await, 0);
    assert_eq!(attached(&json(&lock)["images"]), json!(digest));
    silent.store(true, Ordering::Relaxed);
    let output = gapferry(&export).await;
    assert_code(&output, 0);
    let text = all_output(&output);
    assert!(text.contains(UNTOLD) && text.contains("1 companion of 1 image are those of the earlier"), "{text}");
    let listed = printed(&gapferry(&["list", path(&bundle), "--json"]).await);
    assert_eq!((attached(&listed["images"]), unknown(&listed)), (json!(digest), 2));
    assert_code(&gapferry(&["verify", "--full", path(&bundle)]).await, 0);

    // The earlier bundle says nothing about the image that the tag means now.
    moved.store(true, Ordering::Relaxed);
    assert_code(&gapferry(&export).await, 0);
    let listed = printed(&gapferry(&["list", path(&bundle), "--json"]).await);
    assert_eq!((attached(&listed["images"]), unknown(&listed)), (Value::Null, 2));
    assert_code(&gapferry(&["verify", path(&bundle)]).await, 0);
}

#[tokio::test]
async fn a_lock_keeps_readable_companions_while_referrers_are_unknown() {
    let mut shop = two_images();
    let signature = shop.digest("team/app:1").replace(':', "-") + ".sig";
    shop.add(&format!("team/app:{signature}"), "signature");
    let digest = shop.digest(&format!("team/app:{signature}"));
    let silent = Arc::new(AtomicBool::new(false));
    let is_silent = silent.clone();
    let server = Server::registry(move |request, _| {
        let by_tag = request.target.contains("/tags/list") || request.target.contains("/manifests/sha256-");
        let about = by_tag || request.target.contains("/referrers/");
        if is_silent.load(Ordering::Relaxed) && about { Answer::new(403) } else { shop.answer(request) }
    });
    let server = server.await;
    let directory = tempdir();
    let (lock, today) = (directory.path().join("lock"), directory.path().join("today"));
    let [one, _] = both(&server);
    assert_code(&gapferry(&["lock", &one, "-o", path(&lock)]).await, 0);
    std::fs::copy(&lock, &today).unwrap();
    silent.store(true, Ordering::Relaxed);
    assert_code(&gapferry(&["lock", &one, "-o", path(&today)]).await, 0);
    let bundle = directory.path().join("b");
    let follow = ["export", "--locked", path(&lock), "--companions", "today", "-o", path(&bundle)];
    assert_code(&gapferry(&follow).await, 0);
    let followed = json(&bundle.join("bundle.json"))["lock"].clone();
    for lock in [json(&today), followed] {
        assert_eq!((&lock["images"][0]["attached"][0]["digest"], unknown(&lock)), (&json!(digest), 1), "{lock}");
    }
}

/// An index, as stored under a fallback tag.
fn index(media_type: &str, manifests: &[&[u8]]) -> Vec<u8> {
    let entry = |bytes: &&[u8]| json!({ "mediaType": OCI_MANIFEST, "digest": sha256(bytes), "size": bytes.len() });
    let manifests: Vec<Value> = manifests.iter().map(entry).collect();
    json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests }).to_string().into_bytes()
}

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

#[tokio::test]
async fn a_fallback_tag_attaches_only_manifests_that_name_the_subject() {
    let shop = two_images();
    let subject = shop.digest("team/app:1");
    let signature = |of: &str| {
        let empty = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2 });
        let subject = json!({ "mediaType": OCI_MANIFEST, "digest": of, "size": 7 });
        let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "x/sig", "config": empty,
                               "layers": [], "subject": subject });
        manifest.to_string().into_bytes()
    };
    let (ours, other) = (signature(&subject), signature(&sha256(b"another image")));
    // (the content of the tag, the number of companions)
    let cases: [(&str, Vec<u8>, usize); 4] = [
        (OCI_INDEX, index(OCI_INDEX, &[&ours]), 1),
        (OCI_INDEX, index(OCI_INDEX, &[&other]), 0),
        (OCI_INDEX, index(OCI_INDEX, &[&other, &ours]), 1),
        (DOCKER_LIST, index(DOCKER_LIST, &[&ours]), 0),
    ];
    for (media_type, list, expected) in cases {
        let (shop, ours, other) = (shop.clone(), ours.clone(), other.clone());
        let fallback = subject.replace(':', "-");
        let answer = move |request: &Seen| {
            let with = |media_type: &str, body: &[u8]| Answer::new(200).with("Content-Type", media_type).body(body);
            match request.target.rsplit('/').next().unwrap() {
                last if last == fallback => with(media_type, &list),
                last if last == sha256(&ours) => with(OCI_MANIFEST, &ours),
                last if last == sha256(&other) => with(OCI_MANIFEST, &other),
                last if last == sha256(b"{}") => Answer::new(200).body("{}"),
                // The account may not list tags.
                "list?n=1000" => Answer::new(403),
                _ => shop.answer(request),
            }
        };
        let server = Server::registry(move |request, _| answer(request)).await;
        let directory = tempdir();
        let lock = directory.path().join("lock");
        assert_code(&gapferry(&["lock", &both(&server)[0], "-o", path(&lock)]).await, 0);
        let image = json(&lock)["images"][0].clone();
        assert_eq!(image["attached"].as_array().map(Vec::len), Some(expected), "{image}");
        assert!(image.get("attachedUnknown").is_none(), "{image}");
    }
}

/// One badly written entry must not cost an image all its signatures.
#[tokio::test]
async fn readable_entries_of_a_referrers_list_are_carried_and_the_rest_marked_unknown() {
    let shop = two_images();
    let subject = json!({ "mediaType": OCI_MANIFEST, "digest": shop.digest("team/app:1"), "size": 7 });
    let signature = |number: usize| {
        let empty = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2 });
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "x/sig", "config": empty, "layers": [],
                "subject": subject, "annotations": { "number": number.to_string() } })
        .to_string()
        .into_bytes()
    };
    let signatures = [signature(1), signature(2), signature(3)];
    let entry = |bytes: &[u8]| json!({ "mediaType": OCI_MANIFEST, "digest": sha256(bytes), "size": bytes.len() });
    let mut report = entry(&signatures[2]);
    report["size"] = json!("12");
    let mut algorithm = entry(&signatures[2]);
    algorithm["digest"] = json!("md5:d41d8cd98f00b204e9800998ecf8427e");
    let none = Value::Null;
    let to = |target: &str| Some(format!("<{target}>; rel=\"next\""));
    // (an entry beside two good ones, and the next page)
    let cases = [
        ("null", Some(&none), None),
        ("a size that is text", Some(&report), None),
        ("another algorithm", Some(&algorithm), None),
        ("a loop", None, to("?n=1")),
        ("nowhere", None, to("http://[")),
        ("a page that is not there", None, to("?n=1&page=lost")),
        ("a page that is denied", None, to("?n=1&page=denied")),
        ("a page that is none", None, to("?n=1&page=html")),
    ];
    for (case, bad, link) in cases {
        let mut entries = vec![entry(&signatures[0]), entry(&signatures[1])];
        entries.splice(1..1, bad.cloned());
        let list = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }).to_string();
        let (shop, signatures) = (shop.clone(), signatures.clone());
        let answer = move |request: &Seen| {
            let with = |media_type: &str, body: &[u8]| Answer::new(200).with("Content-Type", media_type).body(body);
            let last = request.target.rsplit('/').next().unwrap();
            match signatures.iter().find(|signature| sha256(signature) == last) {
                Some(signature) => with(OCI_MANIFEST, signature),
                None if last.ends_with("page=lost") => Answer::new(404),
                None if last.ends_with("page=denied") => Answer::new(403),
                None if last.ends_with("page=html") => Answer::new(200).body("<!doctype html><title>Sign in</title>"),
                None if request.target.contains("/referrers/") => {
                    let answer = with(OCI_INDEX, list.as_bytes());
                    link.iter().fold(answer, |answer, link| answer.with("Link", link.clone()))
                }
                None if last == sha256(b"{}") => Answer::new(200).body("{}"),
                None => shop.answer(request),
            }
        };
        let server = Server::registry(move |request, _| answer(request)).await;
        let directory = tempdir();
        let lock = directory.path().join("lock");
        let run = ["lock", &both(&server)[0], "-o", path(&lock)];
        let output = gapferry(&run).await;
        assert_code(&output, 0);
        assert_eq!(all_output(&output).matches(UNTOLD).count(), 1, "{case}: {}", all_output(&output));
        let image = json(&lock)["images"][0].clone();
        let attached = image["attached"].as_array().map(Vec::len);
        assert_eq!((attached, &image["attachedUnknown"]), (Some(2), &json!(true)), "{case}: {image}");
        let output = gapferry(&[&run[..], &["--require-referrers"]].concat()).await;
        assert!(matches!(output.status.code(), Some(3..=5)), "{case}: {}", all_output(&output));
    }
}

#[tokio::test]
async fn a_registry_that_resolves_the_fallback_tag_as_a_digest_attaches_nothing() {
    let children: Vec<Vec<u8>> = ["amd64", "arm64"].iter().map(|arch| {
        let empty = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2 });
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty, "layers": [], "annotations": { "a": arch } })
            .to_string()
            .into_bytes()
    }).collect();
    let whole = index(OCI_INDEX, &[&children[0], &children[1]]);
    // GitLab: no referrers API, and the tag sha256-HEX means the digest sha256:HEX.
    let server = Server::registry(move |request, _| {
        let wanted = request.target.rsplit('/').next().unwrap().replace("sha256-", "sha256:");
        let is_api = request.target.contains("/referrers/");
        let child = children.iter().find(|child| sha256(child) == wanted && !is_api);
        match child {
            Some(child) => Answer::new(200).with("Content-Type", OCI_MANIFEST).body(&child[..]),
            None if !is_api && (wanted == "1" || wanted == sha256(&whole)) => {
                Answer::new(200).with("Content-Type", OCI_INDEX).body(&whole[..])
            }
            None if wanted == sha256(b"{}") => Answer::new(200).body("{}"),
            None if wanted.starts_with("list") => Answer::new(403),
            None => Answer::new(404),
        }
    });
    let server = server.await;
    let directory = tempdir();
    let lock = directory.path().join("lock");
    let output = gapferry(&["lock", &both(&server)[0], "-o", path(&lock)]).await;
    assert_code(&output, 0);
    assert!(!all_output(&output).contains("warning"), "{}", all_output(&output));
    assert_eq!(json(&lock)["images"][0]["attached"], json!([]));
}
