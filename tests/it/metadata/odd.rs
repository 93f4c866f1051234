//! Verify and import accept whatever export writes without complaint; export names what it cannot carry.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::*;
use crate::support::registry::Registry;
use crate::support::{gapferry_process, tempdir};

/// Meaningless descriptor fields in forms that real tools write.
fn descriptor_oddities() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        Just(json!({"annotations": null, "urls": null, "platform": null, "artifactType": null, "data": null})),
        Just(json!({"annotations": {"a": null, "b": "c", "vnd.docker.reference.type": null}})),
        Just(json!({"urls": [], "annotations": {}, "x-unknown": {"A": 1, "a": 2}})),
        Just(json!({"annotations": {"Digest": "x", "digest": "y"}})),
    ]
}

fn platform_oddities() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!({})),
        Just(json!({"os": "linux", "architecture": "amd64"})),
        Just(json!({"os": null, "architecture": "amd64", "variant": null})),
        Just(json!({"os": "linux", "architecture": "arm", "os.version": null, "os.features": null, "features": null})),
        Just(json!({"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"})),
        Just(json!({"os": "unknown", "architecture": "unknown"})),
    ]
}

#[derive(Clone, Debug)]
struct Odd {
    /// How often the single layer is listed; `None`: `"layers": null`.
    layers: Option<usize>,
    layer: Value,
    manifest: Value,
    /// Whether the manifests have a media type.
    typed: bool,
    /// For an index: the platform in its entry, by how much the entry overstates the child's size, and the child's
    /// media type.
    index: Option<(Value, u64, &'static str)>,
    nested: bool,
}

fn odd() -> impl Strategy<Value = Odd> {
    let layers = prop_oneof![Just(None), (0..3_usize).prop_map(Some)];
    let manifest = prop_oneof![
        Just(json!({})),
        Just(json!({"annotations": null, "subject": null, "artifactType": null, "manifests": null})),
        Just(json!({"annotations": {"a": null}, "x": [null], "X": 1})),
    ];
    let called = prop_oneof![Just(OCI_MANIFEST), Just(DOCKER_MANIFEST), Just("")];
    let index = proptest::option::of((platform_oddities(), 0..3_u64, called));
    let parts = (layers, descriptor_oddities(), manifest, any::<bool>(), index, any::<bool>());
    parts.prop_map(|(layers, layer, manifest, typed, index, nested)| Odd {
        layers,
        layer,
        manifest,
        typed,
        index,
        nested,
    })
}

impl Odd {
    /// Stores the image under a tag; returns the tag's digest.
    fn put(&self, source: &Source, tag: &str) -> String {
        let layer = with(typed(source.put_blob("x", b"layer"), OCI_LAYER), self.layer.clone());
        let config = typed(source.put_blob("x", br#"{"os":"linux","architecture":"amd64"}"#), OCI_CONFIG);
        let layers = self.layers.map(|number| vec![layer; number]);
        let image = self.typed(json!({"schemaVersion": 2, "config": config, "layers": layers}), OCI_MANIFEST);
        let image = with(image, self.manifest.clone());
        let Some((platform, more, called)) = &self.index else {
            return digest_of(&source.put_manifest("x", tag, OCI_MANIFEST, &image));
        };
        let child = source.put_manifest("x", "", OCI_MANIFEST, &image);
        let size = child["size"].as_u64().unwrap() + more;
        let child = with(child, json!({"size": size, "mediaType": called, "platform": platform}));
        let mut index = self.typed(json!({"schemaVersion": 2, "manifests": [child]}), OCI_INDEX);
        if self.nested {
            let inner = source.put_manifest("x", "", OCI_INDEX, &index);
            index = self.typed(json!({"schemaVersion": 2, "manifests": [inner]}), OCI_INDEX);
        }
        let served_as = if self.typed { OCI_INDEX } else { "application/json" };
        digest_of(&source.put_manifest("x", tag, served_as, &index))
    }

    fn typed(&self, manifest: Value, media_type: &str) -> Value {
        if self.typed { typed(manifest, media_type) } else { manifest }
    }
}

fn digest_of(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn verify_and_import_accept_whatever_export_writes() {
    let (source, target, site) = (Source::start().await, Registry::start(), tempdir());
    let mut runner = TestRunner::deterministic();
    let strategy = proptest::collection::vec(odd(), 40);
    let all = strategy.new_tree(&mut runner).unwrap().current();
    let digests: Vec<String> = all.iter().enumerate().map(|(n, odd)| odd.put(&source, &format!("t{n}"))).collect();
    let list = site.path().join("list.txt");
    let lines: Vec<String> = (0..all.len()).map(|n| source.name(&format!("x:t{n}\n"))).collect();
    std::fs::write(&list, lines.concat()).unwrap();
    let (list, bundle) = (list.display().to_string(), site.path().join("b").display().to_string());
    ends_with(0, &["export", "-f", &list, "-o", &bundle]);
    ends_with(0, &["verify", "--full", &bundle]);
    ends_with(0, &["import", &bundle, "--to", target.host()]);
    for (n, digest) in digests.iter().enumerate() {
        assert_eq!(target.digest("x", &format!("t{n}")).as_ref(), Some(digest), "{:?}", all[n]);
    }
    // `gapferry serve` returns what it stored.
    let served = crate::support::embedded::Embedded::writable(&site.path().join("layout"));
    ends_with(0, &["import", &bundle, "--to", served.host()]);
}

#[tokio::test]
async fn embedded_descriptor_data_is_used_where_the_registry_lacks_the_blob() {
    let (source, site) = (Source::start().await, tempdir());
    let data =
        json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2, "data": "e30="});
    let wrong = with(data.clone(), json!({"data": "W10="}));
    for (tag, config) in [("right", &data), ("wrong", &wrong)] {
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []});
        source.put_manifest("x", tag, OCI_MANIFEST, &manifest);
    }
    let (right, bundle) = (source.name("x:right"), site.path().join("b").display().to_string());
    ends_with(0, &["export", &right, "-o", &bundle]);
    ends_with(0, &["verify", "--full", &bundle]);
    let other = site.path().join("c").display().to_string();
    let output = ends_with(4, &["export", &source.name("x:wrong"), "-o", &other]);
    assert!(stderr(&output).contains(&sha256(b"{}")), "{}", stderr(&output));
}

/// Some registries answer 403 for what they do not have.
#[tokio::test]
async fn content_denied_by_a_registry_is_searched_elsewhere_like_missing_content() {
    let (source, site) = (Source::start().await, tempdir());
    source.is_refusing.store(true, Ordering::Relaxed);
    let there = with(source.put_image("x", "", "amd64"), json!({"platform": {"os": "linux", "architecture": "amd64"}}));
    let gone = json!({"mediaType": OCI_MANIFEST, "digest": sha256(b"gone"), "size": 4,
        "platform": {"os": "linux", "architecture": "arm64"}});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [there, gone]});
    let index = digest_of(&source.put_manifest("x", "1", OCI_INDEX, &index));
    let bundle = site.path().join("b").display().to_string();
    let export = |tag: &str, options: &[&str]| {
        let name = source.name(&format!("x:{tag}"));
        gapferry().args([&["export", &name, "-o", &bundle, "--no-referrers"], options].concat()).output().unwrap()
    };
    let output = export("1", &[]);
    assert_eq!(output.status.code(), Some(4));
    for message in [index.as_str(), &sha256(b"gone"), "(linux/arm64)", "--index sparse", "403 Forbidden"] {
        assert!(stderr(&output).contains(message), "{message}: {}", stderr(&output));
    }
    let output = export("1", &["--index", "sparse"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let config =
        json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2, "data": "e30="});
    let image = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []});
    source.put_manifest("x", "data", OCI_MANIFEST, &image);
    let output = export("data", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// The operator must find the entry among thousands, and a registry that denies missing content must not hide that it
/// is gone.
#[tokio::test]
async fn a_lock_entry_that_is_gone_is_named_with_its_line_and_the_tags_current_digest() {
    let (source, site) = (Source::start().await, tempdir());
    source.put_image("a", "1", "amd64");
    let old = digest_of(&source.put_image("b", "1", "amd64"));
    let path = |name: &str| site.path().join(name).display().to_string();
    let (lock, out) = (path("images.lock"), path("out"));
    ends_with(0, &["lock", &source.name("a:1"), &source.name("b:1"), "-o", &lock]);
    let text = std::fs::read_to_string(&lock).unwrap();
    let line = |name: &str| 1 + text.lines().position(|line| line.contains(&source.name(name))).unwrap();
    let new = digest_of(&source.put_image("b", "1", "arm64"));
    source.remove(&old);
    let place = format!("{} ({lock}:{})", source.name("b:1"), line("b:1"));
    for (is_refusing, fate) in [(false, "no longer has"), (true, "denies")] {
        source.is_refusing.store(is_refusing, Ordering::Relaxed);
        let output = ends_with(4, &["export", "--locked", &lock, "-o", &out]);
        let says = [&format!("{fate} {old}, which the lock names; the tag 1 now refers to {new}"), &place];
        assert!(says.iter().all(|words| stderr(&output).contains(*words)), "{says:?}: {}", stderr(&output));
    }
    source.is_refusing.store(false, Ordering::Relaxed);
    source.remove(&sha256(b"layer of a:1 for amd64"));
    let place = format!("{} ({lock}:{})", source.name("a:1"), line("a:1"));
    let output = ends_with(4, &["export", "--locked", &lock, "-o", &out, "--keep-going", "--no-referrers"]);
    assert!(stderr(&output).contains(&place), "a blob: {}", stderr(&output));
}

/// Sizes in manifests determine memory and space: one hostile number must not end the run or cost other images.
#[tokio::test]
async fn a_blob_declared_larger_than_any_disk_fails_only_its_image() {
    let (source, site) = (Source::start().await, tempdir());
    source.put_image("good", "1", "amd64");
    let config = typed(source.put_blob("huge", br#"{"os":"linux","architecture":"amd64"}"#), OCI_CONFIG);
    for (tag, size) in [("max", i64::MAX as u64), ("most", u64::MAX), ("peta", 1 << 50)] {
        let layer = with(typed(source.put_blob("huge", b"layer"), OCI_LAYER), json!({"size": size}));
        let manifest =
            json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer, layer]});
        source.put_manifest("huge", tag, OCI_MANIFEST, &manifest);
        let (good, huge) = (source.name("good:1"), source.name(&format!("huge:{tag}")));
        for form in [tag.to_owned(), format!("{tag}.tar")] {
            let bundle = site.path().join(form).display().to_string();
            let output = ends_with(3, &["export", &huge, "-o", &bundle]);
            assert!(stderr(&output).contains(&size.to_string()), "{}", stderr(&output));
            ends_with(1, &["export", &good, &huge, "-o", &bundle, "--keep-going"]);
            ends_with(0, &["verify", &bundle]);
        }
    }
}

/// Each size is possible, but no disk here has space for all of them: gapferry must say so without using memory.
#[tokio::test]
async fn sizes_that_cannot_fit_on_the_disk_are_refused_without_using_memory() {
    let (source, site) = (Source::start().await, tempdir());
    let config = typed(source.put_blob("huge", br#"{"os":"linux","architecture":"amd64"}"#), OCI_CONFIG);
    let layer = |n: u8| with(typed(source.put_blob("huge", &[n]), OCI_LAYER), json!({"size": 4_u64 << 40}));
    let layers: Vec<_> = (0..7).map(layer).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers});
    source.put_manifest("huge", "1", OCI_MANIFEST, &manifest);
    for form in ["huge", "huge.tar"] {
        let bundle = site.path().join(form).display().to_string();
        // In KiB: enough for a small image, and less than the chunk values of 28 TiB take.
        let script = format!("ulimit -v {}; exec \"$0\" export \"$1\" -o \"$2\"", 768 << 10);
        let program = gapferry_process();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]).arg(program.get_program()).args([&source.name("huge:1"), &bundle]);
        command.env_clear().envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("28.0 TiB"), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn an_ambiguous_manifest_is_refused_with_the_reason() {
    let (source, site) = (Source::start().await, tempdir());
    let config = typed(source.put_blob("x", b"{}"), OCI_CONFIG);
    let child = source.put_image("x", "", "amd64");
    let image = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []});
    source.put_manifest("x", "both", OCI_MANIFEST, &with(image.clone(), json!({"manifests": [child]})));
    source.put_manifest("x", "case", OCI_MANIFEST, &with(image, json!({"Layers": []})));
    for (tag, message) in
        [("both", "an image and an index at once"), ("case", "\"Layers\" differs from \"layers\" only in case")]
    {
        let bundle = site.path().join(tag).display().to_string();
        let output = ends_with(3, &["export", &source.name(&format!("x:{tag}")), "-o", &bundle]);
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn an_index_with_a_missing_attestation_can_be_carried_without_it() {
    let (source, site) = (Source::start().await, tempdir());
    let amd64 = with(source.put_image("x", "", "amd64"), json!({"platform": {"os": "linux", "architecture": "amd64"}}));
    let arm64 = with(source.put_image("x", "", "arm64"), json!({"platform": {"os": "linux", "architecture": "arm64"}}));
    let gone = json!({"mediaType": OCI_MANIFEST, "digest": sha256(b"gone"), "size": 4,
        "platform": {"os": "unknown", "architecture": "unknown"}, "annotations": {
            "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest_of(&amd64)}});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [amd64, arm64, gone]});
    source.put_manifest("x", "1", OCI_INDEX, &index);
    let (name, bundle) = (source.name("x:1"), site.path().join("b").display().to_string());
    let output = ends_with(4, &["export", &name, "-o", &bundle]);
    for message in ["the attestation ", &sha256(b"gone"), &digest_of(&amd64), "--index sparse"] {
        assert!(stderr(&output).contains(message), "{message}: {}", stderr(&output));
    }
    let both = ["--platform", "linux/amd64", "--platform", "linux/arm64"];
    let output = ends_with(4, &[&["export", &name, "-o", &bundle], &both[..]].concat());
    assert!(stderr(&output).contains("--index sparse"), "{}", stderr(&output));
    // A single platform's manifest needs no attestation.
    let one = site.path().join("one").display().to_string();
    ends_with(0, &["export", &name, "-o", &one, "--platform", "linux/amd64"]);
    assert_eq!(lock_of(&one)["images"][0]["digest"], index["manifests"][0]["digest"]);
    ends_with(0, &["export", &name, "-o", &bundle, "--index", "sparse"]);
    ends_with(0, &["verify", "--full", &bundle]);
    let lock = lock_of(&bundle);
    assert_eq!(lock["images"][0]["absent"], json!([{"digest": sha256(b"gone"), "size": 4, "reason": "not-found"}]));
    // The lock gives the same bundle, byte for byte.
    let (fixed, again) = (site.path().join("lock"), site.path().join("again").display().to_string());
    std::fs::write(&fixed, lock.to_string()).unwrap();
    ends_with(0, &["export", "--locked", &fixed.display().to_string(), "-o", &again]);
    assert_eq!(lock_of(&again), lock);
}

#[tokio::test]
async fn an_index_entry_with_the_wrong_media_type_is_refused_naming_both_types() {
    let (source, site) = (Source::start().await, tempdir());
    let child = with(source.put_image("x", "", "amd64"), json!({"mediaType": OCI_INDEX}));
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]});
    source.put_manifest("x", "1", OCI_INDEX, &index);
    let output = ends_with(3, &["export", &source.name("x:1"), "-o", &site.path().join("b").display().to_string()]);
    for message in [&digest_of(&child), OCI_INDEX, OCI_MANIFEST] {
        assert!(stderr(&output).contains(message), "{message}: {}", stderr(&output));
    }
}

#[tokio::test]
async fn an_incomplete_companion_is_left_behind_and_its_image_travels() {
    let (source, directory) = (Source::start().await, tempdir());
    let image = source.put_image("a", "1", "amd64");
    let child = json!({"mediaType": OCI_MANIFEST, "digest": sha256(b"gone"), "size": 4});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]});
    let tag = image["digest"].as_str().unwrap().replace(':', "-") + ".att";
    source.put_manifest("a", &tag, OCI_INDEX, &index);
    let bundle = directory.path().join("b").display().to_string();
    let output = ends_with(0, &["export", &source.name("a:1"), "-o", &bundle]);
    assert!(stderr(&output).contains("it is left out"), "{}", stderr(&output));
    let image = &lock_of(&bundle)["images"][0];
    assert_eq!(image["attachedUnknown"], true, "{image}");
    ends_with(0, &["verify", "--full", &bundle]);
    ends_with(4, &["lock", &source.name("a:1"), "--require-referrers"]);
}

#[tokio::test]
async fn a_manifest_without_a_media_type_is_pushed_with_its_descriptors_type() {
    let (source, target, directory) = (Source::start().await, Registry::start(), tempdir());
    // By its config the image would be Docker's, and docker-registry accepts none of these without the field.
    let image = |name: &str| {
        let config = json!({"os": "linux", "architecture": "amd64", "x": name}).to_string();
        let config = typed(source.put_blob("a", config.as_bytes()), "application/vnd.docker.container.image.v1+json");
        let layer = typed(source.put_blob("a", name.as_bytes()), OCI_LAYER);
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        source.put_manifest("a", name, OCI_MANIFEST, &manifest)
    };
    image("root");
    let child = with(image("child"), json!({"platform": {"os": "linux", "architecture": "amd64"}}));
    let digest = child["digest"].as_str().unwrap().to_owned();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]});
    source.put_manifest("a", "index", OCI_INDEX, &index);
    let names = ["root", "index"].map(|tag| source.name(&format!("a:{tag}")));
    let bundle = directory.path().join("b.tar").display().to_string();
    let export = ["export", &names[0], &names[1], "-o", &bundle];
    ends_with(0, &export);
    // With the bundle present, the lock says the same.
    assert!(stderr(&ends_with(0, &export)).contains("unchanged"));
    ends_with(0, &["import", &bundle, "--to", target.host()]);
    for reference in ["root", &digest] {
        assert_eq!(target.manifest("a", reference).header("content-type"), Some(OCI_MANIFEST), "{reference}");
    }
}
