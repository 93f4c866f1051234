//! skopeo, a common tool to move images: it reads what gapferry writes and writes what gapferry reads.

use std::path::Path;
use std::process::{Command, Output};

/// Runs skopeo without the machine's policy and configuration; fails the test if skopeo fails. Returns stdout.
#[track_caller]
pub fn run(arguments: &[&str]) -> String {
    let output = try_run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {}\n{stderr}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs skopeo; the result may be a failure.
pub fn try_run(arguments: &[&str]) -> Output {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty-home");
    std::fs::create_dir_all(&home).expect("the test home");
    Command::new("skopeo")
        .arg("--insecure-policy")
        .args(arguments)
        .env("HOME", &home)
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("REGISTRY_AUTH_FILE")
        .output()
        .expect("skopeo must be installed: scripts/test does it")
}

/// `skopeo copy --all SOURCE DESTINATION`, digests preserved, plain HTTP allowed.
#[track_caller]
pub fn copy(source: &str, destination: &str) {
    copy_with(source, destination, &["--all", "--preserve-digests"]);
}

/// The same with other options.
#[track_caller]
pub fn copy_with(source: &str, destination: &str, options: &[&str]) {
    let insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    run(&[&["copy"], options, &insecure[..], &[source, destination]].concat());
}

/// The manifest's exact bytes; `image` with its transport, such as `docker://127.0.0.1:5000/a:b`.
#[track_caller]
pub fn inspect_raw(image: &str) -> String {
    run(&["inspect", "--tls-verify=false", "--raw", image])
}

/// `sha256:…` of the manifest, index or not.
#[track_caller]
pub fn digest(image: &str) -> String {
    super::sha256(inspect_raw(image).as_bytes())
}

/// The tags of a repository such as `docker://127.0.0.1:5000/a`, sorted.
#[track_caller]
pub fn list_tags(repository: &str) -> Vec<String> {
    let text = run(&["list-tags", "--tls-verify=false", repository]);
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut tags: Vec<String> =
        value["Tags"].as_array().into_iter().flatten().filter_map(|tag| tag.as_str().map(str::to_owned)).collect();
    tags.sort();
    tags
}
