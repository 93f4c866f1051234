//! Choosing the manifest of a platform, and the message when no manifest matches.

use serde_json::{Value, json};

use super::*;
use crate::support::registry::Registry;
use crate::support::tempdir;

fn platform(text: &str) -> Value {
    let parts: Vec<&str> = text.split('/').collect();
    let mut platform = json!({"os": parts[0], "architecture": parts[1]});
    if let Some(variant) = parts.get(2) {
        platform["variant"] = json!(variant);
    }
    platform
}

fn index_of(children: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children})
}

fn for_platform(child: &Value, text: &str) -> Value {
    with(child.clone(), json!({"platform": platform(text)}))
}

struct TestSite {
    source: Source,
    directory: tempfile::TempDir,
}

impl TestSite {
    async fn new() -> TestSite {
        TestSite { source: Source::start().await, directory: tempdir() }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn one_manifest_listed_for_two_variants_counts_as_one_platform_manifest() {
    let site = TestSite::new().await;
    let (arm, amd) = (site.source.put_image("a", "", "arm64"), site.source.put_image("a", "", "amd64"));
    let children =
        [for_platform(&arm, "linux/arm64"), for_platform(&arm, "linux/arm64/v8"), for_platform(&amd, "linux/amd64")];
    site.source.put_manifest("a", "1", OCI_INDEX, &index_of(&children));
    ends_with(0, &["export", &site.source.name("a:1"), "--platform", "linux/arm64", "-o", &site.path("b")]);
    assert_eq!(lock_of(&site.path("b"))["images"][0]["digest"], arm["digest"]);
}

#[tokio::test]
async fn an_index_without_platforms_is_carried_unchanged() {
    let site = TestSite::new().await;
    let signature = site.source.put_image("a", "", "amd64");
    let list = site.source.put_manifest("a", "list", OCI_INDEX, &index_of(std::slice::from_ref(&signature)));
    ends_with(0, &["export", &site.source.name("a:list"), "--platform", "linux/amd64", "-o", &site.path("b")]);
    assert_eq!(lock_of(&site.path("b"))["images"][0]["digest"], list["digest"]);
}

#[tokio::test]
async fn a_platform_missing_at_the_registry_is_named_with_a_remedy() {
    let site = TestSite::new().await;
    let (lost, kept) = (site.source.put_image("a", "", "amd64"), site.source.put_image("a", "", "arm64"));
    let children = [for_platform(&lost, "linux/amd64"), for_platform(&kept, "linux/arm64")];
    site.source.put_manifest("a", "1", OCI_INDEX, &index_of(&children));
    site.source.remove(lost["digest"].as_str().unwrap());
    for mode in ["single", "trim"] {
        let name = site.source.name("a:1");
        let export = ["export", &name, "--platform", "linux/amd64", "--index", mode, "-o", &site.path("b")];
        let message = stderr(&ends_with(4, &export));
        let child = format!("{} (linux/amd64)", lost["digest"].as_str().unwrap());
        assert!(message.contains(&child) && message.contains("--index sparse"), "{mode}: {message}");
    }
}

#[tokio::test]
async fn a_config_with_an_ambiguous_platform_is_refused_by_export_and_verify() {
    let site = TestSite::new().await;
    let put = |config: &str| {
        let config = typed(site.source.put_blob("a", config.as_bytes()), OCI_CONFIG);
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []});
        site.source.put_manifest("a", "1", OCI_MANIFEST, &manifest);
    };
    put(r#"{"architecture":"arm64","os":"linux","OS":"windows"}"#);
    let message = stderr(&ends_with(3, &["export", &site.source.name("a:1"), "-o", &site.path("b")]));
    assert!(message.contains("\"OS\""), "{message}");
    // Invalid platforms match nothing.
    put(r#"["architecture"]"#);
    ends_with(0, &["export", &site.source.name("a:1"), "-o", &site.path("b")]);
    ends_with(0, &["verify", "--full", &site.path("b")]);
}

#[tokio::test]
async fn an_allowlist_with_platforms_rejects_children_of_ambiguous_platform() {
    let (site, target) = (TestSite::new().await, Registry::start());
    let (amd, other) = (site.source.put_image("a", "", "amd64"), site.source.put_image("a", "", "arm64"));
    let attests = |digest: &Value| {
        json!({"annotations": {
            "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest
        }})
    };
    let amd_child = for_platform(&amd, "linux/amd64");
    let attestation = |platform: Value, of: &Value| with(with(other.clone(), platform), attests(of));
    let unknown = json!({"platform": platform("unknown/unknown")});
    let cases = [
        (attestation(unknown.clone(), &amd["digest"]), 0),
        // Without a platform, containerd reads the config.
        (attestation(json!({}), &amd["digest"]), 3),
        (attestation(unknown, &json!(sha256(b"nothing here"))), 3),
    ];
    for (nth, (child, code)) in cases.into_iter().enumerate() {
        site.source.put_manifest("a", "1", OCI_INDEX, &index_of(&[amd_child.clone(), child]));
        let (entry, bundle) = (site.source.name("a:1"), site.path(&nth.to_string()));
        ends_with(0, &["export", &entry, "-o", &bundle]);
        let list = site.path("list.txt");
        std::fs::write(&list, format!("{entry} platform=linux/amd64\n")).unwrap();
        ends_with(code, &["import", &bundle, "--to", target.host(), "--allow", &list]);
    }
}

/// One list serves both sides: an image it exports can be imported with the same list, even if only an index gives a
/// manifest's platform.
#[tokio::test]
async fn a_manifest_without_its_own_platform_keeps_its_index_so_the_list_admits_it() {
    let site = TestSite::new().await;
    let other = for_platform(&site.source.put_image("a", "x", "s390x"), "linux/s390x");
    let windows = json!({"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"});
    for (nth, (config, offered, asked)) in [
        (json!({"os": "linux", "architecture": "arm"}), platform("linux/arm/v6"), "linux/arm/v6"),
        (json!({"os": "linux", "architecture": "amd64"}), platform("linux/arm64"), "linux/arm64"),
        (json!({"os": "windows", "architecture": "amd64"}), windows, "windows(10.0.20348)/amd64"),
    ]
    .into_iter()
    .enumerate()
    {
        let config = typed(site.source.put_blob("a", config.to_string().as_bytes()), OCI_CONFIG);
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []});
        let child = site.source.put_manifest("a", "child", OCI_MANIFEST, &manifest);
        let children = [with(child.clone(), json!({"platform": offered.clone()})), other.clone()];
        site.source.put_manifest("a", "1", OCI_INDEX, &index_of(&children));
        let (entry, list, target) = (site.source.name("a:1"), site.path("list.txt"), Registry::start());
        std::fs::write(&list, format!("{entry} platform={asked}\n")).unwrap();
        let (usual, single) = (site.path(&format!("usual{nth}")), site.path(&format!("single{nth}")));
        // The second run does not complain about keeping the first one's choice.
        for _ in 0..2 {
            let message = stderr(&ends_with(0, &["export", "-f", &list, "-o", &usual]));
            assert!(!message.contains("warning"), "{message}");
            let image = &lock_of(&usual)["images"][0];
            assert_eq!((&image["selection"]["index"], &image["platforms"]), (&json!("trim"), &json!([offered])));
        }
        ends_with(0, &["verify", "--full", &usual]);
        ends_with(0, &["import", &usual, "--to", target.host(), "--allow", &list]);
        // Only the index gives the platform, so the export warns that an import may refuse the image.
        let locked = site.path(&format!("locked{nth}"));
        let lock = site.path("lock.json");
        for export in [
            vec!["export", "-f", &list, "--index", "single", "-o", &single, "--lock", &lock],
            vec!["export", "-f", &list, "-o", &single],
            vec!["export", "--locked", &lock, "-o", &locked],
        ] {
            let message = stderr(&ends_with(1, &export));
            assert!(message.contains("--index trim"), "{message}");
            let out = export.iter().position(|argument| *argument == "-o").unwrap() + 1;
            assert_eq!(lock_of(export[out])["images"][0]["digest"], child["digest"]);
        }
        ends_with(0, &["verify", "--full", &single]);
        ends_with(3, &["import", &single, "--to", target.host(), "--allow", &list]);
    }
}

#[tokio::test]
async fn docker_load_and_inspect_choose_the_best_variant() {
    let site = TestSite::new().await;
    let (five, seven) = (site.source.put_image("a", "", "arm"), site.source.put_image("a", "x", "arm"));
    let children = [for_platform(&five, "linux/arm/v5"), for_platform(&seven, "linux/arm/v7")];
    site.source.put_manifest("a", "1", OCI_INDEX, &index_of(&children));
    let (name, bundle) = (site.source.name("a:1"), site.path("b"));
    ends_with(0, &["export", &name, "--load-platform", "linux/arm/v7", "-o", &bundle]);
    let config = |descriptor: &Value| {
        let path = format!("{bundle}/blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
        let manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        manifest["config"]["digest"].as_str().unwrap().replace(':', "/")
    };
    let loaded: Value = serde_json::from_slice(&std::fs::read(format!("{bundle}/manifest.json")).unwrap()).unwrap();
    assert_eq!(loaded[0]["Config"], format!("blobs/{}", config(&seven)));
    let shown = stdout(&ends_with(0, &["inspect", &name, "--platform", "linux/arm/v7", "--json"]));
    assert!(shown.contains(seven["digest"].as_str().unwrap()), "{shown}");
    ends_with(0, &["verify", &bundle]);
}

#[tokio::test]
async fn a_platform_left_out_of_one_image_may_bring_foreign_layers_in_another() {
    let site = TestSite::new().await;
    let config = typed(site.source.put_blob("a", br#"{"os":"windows","architecture":"amd64"}"#), OCI_CONFIG);
    let layer = json!({
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": sha256(b"base of windows"), "size": 15, "urls": ["http://127.0.0.1:9/base"],
    });
    let windows = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]});
    let windows = site.source.put_manifest("a", "", OCI_MANIFEST, &windows);
    let linux = site.source.put_image("a", "", "amd64");
    let children = [for_platform(&linux, "linux/amd64"), for_platform(&windows, "windows/amd64")];
    for tag in ["1", "2"] {
        site.source.put_manifest("a", tag, OCI_INDEX, &index_of(&children));
    }
    let list = site.path("list.txt");
    let entry = |tag: &str, platform: &str| format!("{} platform={platform}\n", site.source.name(&format!("a:{tag}")));
    std::fs::write(&list, entry("1", "linux/amd64") + &entry("2", "windows/amd64")).unwrap();
    ends_with(0, &["export", "-f", &list, "--index", "sparse", "-o", &site.path("b")]);
    ends_with(0, &["verify", "--full", &site.path("b")]);
}

#[tokio::test]
async fn a_lock_with_more_variants_than_selected_today_can_be_exported() {
    let site = TestSite::new().await;
    let children = ["linux/amd64", "linux/amd64/v3", "linux/arm64"];
    let children =
        children.map(|one| for_platform(&site.source.put_image("a", one.split('/').next_back().unwrap(), one), one));
    site.source.put_manifest("a", "1", OCI_INDEX, &index_of(&children));
    let lock = site.path("lock");
    let both = ["--platform", "linux/amd64", "--platform", "linux/amd64/v3"];
    ends_with(0, &[&["lock", &site.source.name("a:1"), "-o", &lock], &both[..]].concat());
    let mut older: Value = serde_json::from_slice(&std::fs::read(&lock).unwrap()).unwrap();
    older["images"][0]["selection"]["platforms"] = json!([platform("linux/amd64")]);
    std::fs::write(&lock, older.to_string()).unwrap();
    ends_with(0, &["export", "--locked", &lock, "-o", &site.path("b")]);
    assert_eq!(lock_of(&site.path("b"))["images"][0]["digest"], older["images"][0]["digest"]);
}
