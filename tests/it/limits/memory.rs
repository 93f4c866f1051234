//! Memory use does not grow with the contents of other people's manifests.

use serde_json::json;

use crate::support::faulty::{Answer, Seen, Server};
use crate::support::{self, sha256};

/// Manifests of 512 KiB each, 192 MiB in all: more than may be kept in memory.
const IMAGES: usize = 384;
const ANNOTATIONS: usize = 512 * 1024;
/// The memory a run may use, in KiB; an unoptimised build uses about 40 MiB without any image.
const MOST: u64 = 160 * 1024;

/// A storage whose images have little content and long annotations.
fn storage(root: &std::path::Path) {
    let base = root.join("docker/registry/v2");
    let write = |path: String, bytes: &[u8]| {
        let path = base.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let blob = |repository: &str, bytes: &[u8]| {
        let digest = sha256(bytes);
        let hex = digest.strip_prefix("sha256:").unwrap();
        write(format!("blobs/sha256/{}/{hex}/data", &hex[..2]), bytes);
        write(format!("repositories/{repository}/_layers/sha256/{hex}/link"), digest.as_bytes());
        json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": bytes.len() })
    };
    for number in 0..IMAGES {
        let repository = format!("team/app{number}");
        let config = blob(&repository, br#"{"architecture":"amd64","os":"linux"}"#);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [],
            "annotations": { "number": number.to_string(), "long": "x".repeat(ANNOTATIONS) },
        });
        let manifest = manifest.to_string();
        let digest = sha256(manifest.as_bytes());
        let hex = digest.strip_prefix("sha256:").unwrap();
        let of = format!("repositories/{repository}/_manifests");
        write(format!("blobs/sha256/{}/{hex}/data", &hex[..2]), manifest.as_bytes());
        write(format!("{of}/revisions/sha256/{hex}/link"), digest.as_bytes());
        write(format!("{of}/tags/1/index/sha256/{hex}/link"), digest.as_bytes());
        write(format!("{of}/tags/1/current/link"), digest.as_bytes());
    }
}

/// The peak memory of a run, in KiB; the run must succeed.
#[expect(
    clippy::disallowed_methods,
    reason = "the process is looked at while it runs, and nothing depends on how often"
)]
fn peak(arguments: &[&str]) -> u64 {
    let mut run = support::gapferry_process().args(arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", run.id());
    let mut peak = 0;
    let ended = loop {
        // The file disappears when the process ends; until then the value only rises.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(peak);
        if let Some(ended) = run.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    assert!(ended.success(), "{arguments:?}");
    peak
}

/// Layers per image that no other image has.
const LAYERS: usize = 100;
/// Bytes each layer may take in a run that plans them all, including its share of the manifest. It used to take 1,600.
const FOR_EACH_LAYER: usize = 1200;

/// A registry of images with many layers, whose blobs are never requested.
async fn many_layers() -> Server {
    let answer = |request: &Seen| {
        let name = request.target.strip_prefix("/v2/team/app")?.split('/').next()?;
        let digest = |of: &str| sha256(format!("{name} {of}").as_bytes());
        let layer = |number: usize| {
            let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
            json!({ "mediaType": media_type, "digest": digest(&number.to_string()), "size": 1000 })
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.example.config", "digest": digest("config"), "size": 2 },
            "layers": (0..LAYERS).map(layer).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        let own = request.target.ends_with("/manifests/1") || request.target.ends_with(&sha256(&manifest));
        let answer = Answer::new(200).with("Content-Type", "application/vnd.oci.image.manifest.v1+json");
        own.then(|| answer.with("Docker-Content-Digest", sha256(&manifest)).body(manifest))
    };
    Server::registry(move |request, _| answer(request).unwrap_or(Answer::new(404))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_layer_of_a_planned_image_takes_little_memory() {
    let (server, directory) = (many_layers().await, support::tempdir());
    let list = |images: usize| {
        let file = directory.path().join(format!("{images}.txt"));
        let lines: String = (0..images).map(|number| format!("{}/team/app{number}:1\n", server.address)).collect();
        std::fs::write(&file, lines).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let of = |images: usize| {
        let list = list(images);
        move || peak(&["export", "-f", &list, "--dry-run", "--no-referrers", "-o", "unused"])
    };
    let few = tokio::task::spawn_blocking(of(100)).await.unwrap();
    let many = tokio::task::spawn_blocking(of(500)).await.unwrap();
    let for_each = many.saturating_sub(few) * 1024 / (400 * LAYERS as u64);
    assert!(for_each < FOR_EACH_LAYER as u64, "{few} KiB, then {many}: {for_each} bytes for each layer");
}

#[test]
fn long_annotations_of_many_images_are_not_kept_in_memory() {
    let directory = support::tempdir();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (from, bundle) = (path("storage"), path("bundle"));
    storage(directory.path().join("storage").as_path());
    for arguments in [&["migrate", &from, "--list"][..], &["migrate", &from, "--to-bundle", &bundle], &["check", &from]]
    {
        let peak = peak(arguments);
        assert!(peak > 0 && peak < MOST, "{arguments:?} took {peak} KiB");
    }
    // The temporary file held the manifests unchanged.
    support::gapferry().args(["verify", &bundle, "--full"]).assert().success();
}
