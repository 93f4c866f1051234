//! Memory that does not grow with what somebody else writes into manifests.

use serde_json::json;

use crate::support::{self, sha256};

/// Manifests of 512 KiB each, 192 MiB in all: more than may stay in memory.
const IMAGES: usize = 384;
const ANNOTATIONS: usize = 512 * 1024;
/// KiB that a run may take; a build that is not optimised takes some 40 MiB without any image.
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

/// The most memory that a run took, in KiB; it has to succeed.
#[expect(
    clippy::disallowed_methods,
    reason = "the process is looked at while it runs, and nothing depends on how often"
)]
fn peak(arguments: &[&str]) -> u64 {
    let mut run = support::gapferry_process().args(arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", run.id());
    let mut peak = 0;
    let ended = loop {
        // Gone once it has ended; until then it only rises.
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

#[test]
fn long_annotations_of_many_images_do_not_stay_in_memory() {
    let directory = support::tempdir();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (from, bundle) = (path("storage"), path("bundle"));
    storage(directory.path().join("storage").as_path());
    for arguments in [&["migrate", &from, "--list"][..], &["migrate", &from, "--to-bundle", &bundle], &["check", &from]]
    {
        let peak = peak(arguments);
        assert!(peak > 0 && peak < MOST, "{arguments:?} took {peak} KiB");
    }
    // What waited in the temporary file is what came in.
    support::gapferry().args(["verify", &bundle, "--full"]).assert().success();
}
