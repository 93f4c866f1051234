//! `export --repair`: missing content of a damaged bundle can be fetched as long as the source has exactly that
//! content.

use serde_json::Value;

use super::*;
use crate::support::tempdir;

/// A bundle of three images, and its lock.
struct TestSite {
    source: Source,
    directory: tempfile::TempDir,
    /// The digests of the first image's layer and of a child of the index, which the bundle lost.
    lost: [String; 2],
}

impl TestSite {
    async fn new() -> TestSite {
        let source = Source::start().await;
        source.put_image("a", "1", "amd64");
        source.put_image("c", "1", "amd64");
        let platform = |architecture: &str| json!({"platform": {"os": "linux", "architecture": architecture}});
        let children = ["amd64", "arm64"].map(|one| with(source.put_image("b", "", one), platform(one)));
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children});
        source.put_manifest("b", "1", OCI_INDEX, &index);
        let child = children[1]["digest"].as_str().unwrap().to_owned();
        let lost = [sha256(b"layer of a:1 for amd64"), child];
        let site = TestSite { source, directory: tempdir(), lost };
        let (bundle, lock) = (site.path("b"), site.path("lock"));
        let names = ["a:1", "b:1", "c:1"].map(|name| site.source.name(name));
        ends_with(
            0,
            &[&["export", "-o", &bundle, "--lock", &lock][..], &names.each_ref().map(|name| &**name)].concat(),
        );
        for digest in &site.lost {
            std::fs::remove_file(format!("{bundle}/blobs/{}", digest.replace(':', "/"))).unwrap();
        }
        ends_with(3, &["verify", &bundle, "--missing", &site.path("missing.json")]);
        site
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Runs the repair export and checks its exit code.
    #[track_caller]
    fn export(&self, code: i32) -> Output {
        let (missing, lock, out) = (self.path("missing.json"), self.path("lock"), self.path("repair.tar"));
        ends_with(code, &["export", "--repair", &missing, "--locked", &lock, "-o", &out])
    }

    #[track_caller]
    fn is_repaired(&self) {
        ends_with(0, &["repair", &self.path("b"), &self.path("repair.tar")]);
        ends_with(0, &["verify", "--full", &self.path("b")]);
    }
}

#[tokio::test]
async fn a_repair_requests_only_missing_content() {
    for refuse in [false, true] {
        let site = TestSite::new().await;
        site.source.keep_only(&site.lost, refuse);
        let before = site.source.server.seen().len();
        site.export(0);
        let asked = site.source.server.seen().split_off(before);
        let mut paths = asked.iter().map(|request| &request.target).filter(|path| path.len() > "/v2/".len());
        let other = paths.find(|path| !site.lost.iter().any(|digest| path.ends_with(digest)));
        assert_eq!(other, None);
        site.is_repaired();
    }
}

#[tokio::test]
async fn content_also_lost_at_the_source_is_named() {
    let site = TestSite::new().await;
    site.source.keep_only(&site.lost[..1], false);
    // Available content is delivered despite the rest.
    let output = site.export(1);
    assert!(stderr(&output).contains(&site.lost[1]) && !stderr(&output).contains(&site.lost[0]), "{}", stderr(&output));
    let repaired = ends_with(3, &["repair", &site.path("b"), &site.path("repair.tar")]);
    assert!(stdout(&repaired).contains("1 file repaired, 1 file not in"), "{}", stdout(&repaired));
    std::fs::remove_file(site.path("repair.tar")).unwrap();
    site.source.keep_only(&[], false);
    let output = site.export(4);
    assert!(site.lost.iter().all(|digest| stderr(&output).contains(digest)), "{}", stderr(&output));
    assert!(!std::path::Path::new(&site.path("repair.tar")).exists());
}

/// One unavailable blob must not cost a run for each of the others, on a link that is up for an hour a day.
#[tokio::test]
async fn every_blob_that_cannot_be_fetched_is_named_at_once_and_the_others_are_kept() {
    let site = TestSite::new().await;
    let layers = ["a:1 for amd64", "b: for amd64", "b: for arm64", "c:1 for amd64"];
    let layers = layers.map(|name| format!("layer of {name}"));
    for layer in &layers {
        let _ =
            std::fs::remove_file(format!("{}/blobs/{}", site.path("b"), sha256(layer.as_bytes()).replace(':', "/")));
    }
    ends_with(3, &["verify", &site.path("b"), "--missing", &site.path("missing.json")]);
    let (bad, good) = layers.split_at(2);
    let serve = |change: fn(&str) -> String| {
        for (path, (_, bytes)) in site.source.content.lock().unwrap().iter_mut() {
            if let Some(layer) = bad.iter().find(|layer| path.ends_with(&sha256(layer.as_bytes()))) {
                *bytes = change(layer).into_bytes();
            }
        }
    };
    serve(|layer| layer.replace("layer", "LAYER"));
    let [missing, lock, out] = ["missing.json", "lock", "repair.tar"].map(|name| site.path(name));
    let arguments = ["export", "--repair", &missing, "--locked", &lock, "-o", &out, "--jobs", "1", "--retries", "0"];
    let message = stderr(&ends_with(3, &arguments));
    assert!(bad.iter().all(|layer| message.contains(&sha256(layer.as_bytes()))), "{message}");
    serve(str::to_owned);
    let before = site.source.server.seen().len();
    site.export(0);
    let asked = site.source.server.seen().split_off(before);
    let is_fetched = |layer: &String| {
        let digest = sha256(layer.as_bytes());
        asked.iter().any(|seen| seen.is("GET", "/v2/") && seen.range().is_none() && seen.target.ends_with(&digest))
    };
    assert!(bad.iter().all(is_fetched) && !good.iter().any(is_fetched), "{asked:#?}");
    site.is_repaired();
}

/// Signing again replaces a signature. That invalidates neither the lock nor its image.
#[tokio::test]
async fn a_signature_replaced_since_fails_neither_the_repair_nor_its_image() {
    let (source, directory) = (Source::start().await, tempdir());
    let image = source.put_image("a", "1", "amd64")["digest"].as_str().unwrap().to_owned();
    let tag = format!("{}.sig", image.replace(':', "-"));
    let signature = source.put_image("a", &tag, "amd64")["digest"].as_str().unwrap().to_owned();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let [bundle, lock, missing, out] = ["b", "lock", "missing.json", "repair.tar"].map(path);
    ends_with(0, &["export", "-o", &bundle, "--lock", &lock, &source.name("a:1")]);
    for digest in [&sha256(b"layer of a:1 for amd64"), &signature] {
        std::fs::remove_file(format!("{bundle}/blobs/{}", digest.replace(':', "/"))).unwrap();
    }
    ends_with(3, &["verify", &bundle, "--missing", &missing]);
    source.remove(&signature);
    source.put_image("a", &tag, "arm64");
    let message = stderr(&ends_with(1, &["export", "--repair", &missing, "--locked", &lock, "-o", &out]));
    assert!(message.contains(&format!("{signature}: its signature (tag {tag}) was replaced: ")), "{message}");
    ends_with(3, &["repair", &bundle, &out]);
    assert!(
        std::fs::exists(format!("{bundle}/blobs/{}", sha256(b"layer of a:1 for amd64").replace(':', "/"))).unwrap()
    );

    let [whole, lacking, new_lock] = ["whole", "lacking", "new.lock"].map(path);
    ends_with(4, &["export", "--locked", &lock, "-o", &whole]);
    let arguments = ["export", "--locked", &lock, "-o", &lacking, "--keep-going", "--lock", &new_lock];
    let message = stderr(&ends_with(1, &arguments));
    assert!(message.contains("was replaced: ") && message.contains("left out"), "{message}");
    let written: Value = serde_json::from_slice(&std::fs::read(&new_lock).unwrap()).unwrap();
    let locked = &written["images"][0];
    assert_eq!(
        (locked["digest"].as_str(), locked["attachedUnknown"].as_bool()),
        (Some(&*image), Some(true)),
        "{written}"
    );
    assert_eq!(locked["attached"].as_array().map(Vec::len), Some(0), "{written}");
    ends_with(0, &["verify", "--full", &lacking]);
    // The new lock covers what was available.
    ends_with(0, &["export", "--locked", &new_lock, "-o", &lacking]);
}

#[tokio::test]
async fn a_repair_that_must_read_images_survives_one_that_is_gone() {
    let site = TestSite::new().await;
    // A blob without a size cannot be requested directly.
    let path = site.path("missing.json");
    let mut missing: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for blob in missing["blobs"].as_array_mut().unwrap() {
        blob.as_object_mut().unwrap().remove("size");
    }
    std::fs::write(&path, missing.to_string()).unwrap();
    let lock: Value = serde_json::from_slice(&std::fs::read(site.path("lock")).unwrap()).unwrap();
    site.source.remove(lock["images"][2]["digest"].as_str().unwrap());
    site.export(0);
    site.is_repaired();
}

/// `index.json` is built from all manifests. The message must say that the signature was denied, because that is what
/// the operator can fix.
#[tokio::test]
async fn a_companion_that_the_source_denies_is_reported_as_denied() {
    for refuse in [true, false] {
        let (source, directory) = (Source::start().await, tempdir());
        let image = source.put_image("a", "1", "amd64")["digest"].as_str().unwrap().to_owned();
        let tag = format!("{}.sig", image.replace(':', "-"));
        let signature = source.put_image("a", &tag, "amd64")["digest"].as_str().unwrap().to_owned();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let [bundle, lock, missing, out] = ["b", "lock", "missing.json", "repair.tar"].map(path);
        ends_with(0, &["export", "-o", &bundle, "--lock", &lock, &source.name("a:1")]);
        std::fs::remove_file(format!("{bundle}/index.json")).unwrap();
        ends_with(3, &["verify", &bundle, "--missing", &missing]);
        source.remove(&signature);
        source.remove(&tag);
        source.keep_only(&[String::new()], refuse);
        let message = stderr(&ends_with(0, &["export", "--repair", &missing, "--locked", &lock, "-o", &out]));
        assert_eq!(message.contains("1 companion of the lock: access denied"), refuse, "{message}");
        assert_eq!(message.contains(&signature), refuse, "{message}");
    }
}
