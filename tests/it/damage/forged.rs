//! Bundles rebuilt by a skilled attacker: arbitrary names, headers and contents, with every sum corrected.

use std::path::Path;

use gapferry::bundle::BundleJson;
use serde_json::{Value, json};
use tar::EntryType;

use super::bundle::{Fixture, Parts, Report, blob_path, header, verify};
use crate::support::registry::Registry;
use crate::support::{gapferry, sha256};

/// One entry of a tar with any header.
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: EntryType,
    pub data: Vec<u8>,
}

pub fn entry(name: &str, kind: EntryType, data: &[u8]) -> Entry {
    Entry { name: name.as_bytes().to_vec(), kind, data: data.to_vec() }
}

/// The tar of `parts` with `entries` before its end mark.
pub fn tar_with(parts: &Parts, entries: &[Entry]) -> Vec<u8> {
    let mut tar = parts.tar();
    tar.truncate(tar.len() - 1024);
    for Entry { name, kind, data } in entries {
        let mut header = header(name, data.len() as u64, *kind);
        if matches!(kind, EntryType::Link | EntryType::Symlink) {
            header.as_old_mut().linkname[..11].copy_from_slice(b"/etc/passwd");
            header.set_cksum();
        }
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(data);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// `verify` and `import` refuse the bundle, and the registry gets only read requests.
#[track_caller]
pub fn refused(bundle: &Path, target: &Registry, case: &str) -> Report {
    let report = verify(bundle);
    assert_eq!(report.code, 3, "{case}: {report:#?}");
    let output = gapferry().arg("import").arg(bundle).args(["--to", target.host()]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{case}: {stderr}");
    let pushes: Vec<_> =
        target.requests().into_iter().filter(|r| !matches!(r.method.as_str(), "GET" | "HEAD")).collect();
    assert!(pushes.is_empty(), "{case}: {pushes:#?}");
    report
}

/// The bytes of `bundle.json` in the format's canonical form; unchanged if it is no valid `bundle.json`.
pub fn canonical(json: &Value) -> Vec<u8> {
    let typed = serde_json::from_value::<BundleJson>(json.clone()).and_then(|typed| serde_json::to_vec_pretty(&typed));
    let mut bytes = typed.unwrap_or_else(|_| serde_json::to_vec_pretty(json).unwrap());
    bytes.push(b'\n');
    bytes
}

/// `bundle.json` changed by `edit`, with `SHA256SUMS` corrected, so only its content can betray it.
pub fn forge(fixture: &Fixture, edit: impl FnOnce(&mut Value)) -> Parts {
    let mut parts = fixture.parts.clone();
    let mut json: Value = serde_json::from_slice(parts.bytes("bundle.json")).unwrap();
    edit(&mut json);
    *parts.bytes("bundle.json") = canonical(&json);
    resum(&mut parts);
    parts
}

/// Makes `SHA256SUMS` match `bundle.json` again, and removes `chunks.b3`, which would belong to another bundle.
pub fn resum(parts: &mut Parts) {
    parts.remove("chunks.b3");
    let json = parts.bytes("bundle.json").clone();
    resum_file(parts, "bundle.json", &json);
}

pub fn resum_file(parts: &mut Parts, path: &str, bytes: &[u8]) {
    let sums = String::from_utf8(parts.bytes("SHA256SUMS").clone()).unwrap();
    let own = sha256(bytes).replace("sha256:", "");
    let lines = sums.lines().map(|line| match line.ends_with(&format!("  {path}")) {
        true => format!("{own}  {path}\n"),
        false => format!("{line}\n"),
    });
    *parts.bytes("SHA256SUMS") = lines.collect::<String>().into_bytes();
}

/// Replaces one file and corrects every sum and size.
pub fn replace(fixture: &Fixture, path: &str, bytes: &[u8]) -> Parts {
    let mut parts = forge(fixture, |json| {
        let files = json["files"].as_array_mut().unwrap();
        let file = files.iter_mut().find(|file| file["path"] == path).unwrap();
        file["size"] = json!(bytes.len());
        file["digest"] = json!(sha256(bytes));
    });
    *parts.bytes(path) = bytes.to_vec();
    resum_file(&mut parts, path, bytes);
    parts
}

/// Changes `index.json`, and updates every file that refers to it.
pub fn with_index(fixture: &Fixture, change: impl FnOnce(&mut Value)) -> Parts {
    let mut parts = fixture.parts.clone();
    let mut index: Value = serde_json::from_slice(parts.bytes("index.json")).unwrap();
    change(&mut index);
    let index = serde_json::to_vec(&index).unwrap();
    let mut json: Value = serde_json::from_slice(parts.bytes("bundle.json")).unwrap();
    let listed = json["files"].as_array_mut().unwrap().iter_mut().find(|file| file["path"] == "index.json").unwrap();
    (listed["size"], listed["digest"]) = (json!(index.len()), json!(sha256(&index)));
    *parts.bytes("bundle.json") = canonical(&json);
    resum_file(&mut parts, "index.json", &index);
    *parts.bytes("index.json") = index;
    resum(&mut parts);
    parts
}

/// Replaces the manifest of the first image by `bytes`, and updates every file that refers to it; returns its path.
pub fn with_manifest(fixture: &Fixture, bytes: &[u8]) -> (Parts, String) {
    let (old, new) = (fixture.images[0].digest(), sha256(bytes));
    let (old_hex, new_hex) = (old.replace("sha256:", ""), new.replace("sha256:", ""));
    let mut parts = fixture.parts.clone();
    let file = parts.0.iter_mut().find(|(path, _)| *path == blob_path(&old)).unwrap();
    *file = (blob_path(&new), bytes.to_vec());
    for name in ["index.json", "bundle.json", "SHA256SUMS"] {
        let text = String::from_utf8(parts.bytes(name).clone()).unwrap();
        *parts.bytes(name) = text.replace(&old_hex, &new_hex).into_bytes();
    }
    let sized = |list: &mut Value, key: &str, value: &str| {
        let list = list.as_array_mut().unwrap().iter_mut();
        list.filter(|item| item[key] == value).for_each(|item| item["size"] = json!(bytes.len()));
    };
    let mut index: Value = serde_json::from_slice(parts.bytes("index.json")).unwrap();
    sized(&mut index["manifests"], "digest", &new);
    let index = serde_json::to_vec(&index).unwrap();
    let mut json: Value = serde_json::from_slice(parts.bytes("bundle.json")).unwrap();
    sized(&mut json["lock"]["images"], "digest", &new);
    sized(&mut json["files"], "path", &blob_path(&new));
    let listed = json["files"].as_array_mut().unwrap().iter_mut().find(|file| file["path"] == "index.json").unwrap();
    (listed["size"], listed["digest"]) = (json!(index.len()), json!(sha256(&index)));
    *parts.bytes("bundle.json") = canonical(&json);
    resum_file(&mut parts, "index.json", &index);
    *parts.bytes("index.json") = index;
    resum(&mut parts);
    (parts, blob_path(&new))
}
