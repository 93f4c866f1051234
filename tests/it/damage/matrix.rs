//! The damage matrix: for every kind of damage to every file, in both forms, `verify` finds it and names the file and
//! the affected images, and `import` never pushes a wrong byte or an unpullable tag.

use std::collections::BTreeSet;
use std::path::Path;

use super::bundle::{Fixture, Form, Parts, verify};
use crate::support::registry::Registry;
use crate::support::{gapferry, sha256, tempdir};

/// The damage done to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Flip,
    Truncate,
    Zero,
    Delete,
    Extra,
    Swap,
}

/// Damages the file at `path`; returns the paths that are now wrong.
fn inflict(damage: Damage, path: &str, other: &str, parts: &mut Parts) -> Vec<String> {
    let mut hurt = vec![path.to_owned()];
    match damage {
        Damage::Flip => {
            let bytes = parts.bytes(path);
            // In bundle.json, hits the last bracket: the effect of a flip in the middle depends on its exact position.
            let at = if path == "bundle.json" { bytes.len() - 2 } else { bytes.len() / 2 };
            bytes[at] ^= 1;
        }
        Damage::Truncate => {
            let bytes = parts.bytes(path);
            bytes.truncate(bytes.len() / 2);
        }
        Damage::Zero => parts.bytes(path).fill(0),
        Damage::Delete => parts.remove(path),
        Damage::Extra => {
            hurt = vec![format!("{path}.bak")];
            parts.add(&hurt[0], b"nobody declared this");
        }
        Damage::Swap => {
            parts.swap(path, other);
            hurt.push(other.to_owned());
        }
    }
    hurt
}

/// Applies one damage to every location, in both forms.
fn matrix(damage: Damage) {
    let fixture = Fixture::new();
    let target = Registry::start();
    let mut failures = Vec::new();
    for form in [Form::Directory, Form::Tar] {
        for (at, location) in fixture.locations().into_iter().enumerate() {
            let mut parts = fixture.parts.clone();
            let hurt = inflict(damage, &location.path, &fixture.swap_partner(&location.path), &mut parts);
            let affected: BTreeSet<String> = match damage {
                // An undeclared file affects no image, but it is still refused.
                Damage::Extra => BTreeSet::new(),
                Damage::Swap => &location.images | &fixture.images_of(&hurt[1]),
                _ => location.images.clone(),
            };
            let directory = tempdir();
            let damaged = parts.write(directory.path(), form);
            let case = format!("{damage:?} {} ({form:?})", location.what);
            let report = verify(&damaged);
            if report.code != 3 || !hurt.iter().all(|path| report.paths().contains(path)) {
                failures.push(format!("{case}: not found: {report:#?}"));
            } else if !report.paths().iter().all(|path| hurt.contains(path)) {
                failures.push(format!("{case}: files are accused that are whole: {report:#?}"));
            } else if report.images() != affected {
                failures.push(format!("{case}: it affects {affected:?}: {report:#?}"));
            }
            failures.extend(import_is_harmless(&fixture, &damaged, &target, &format!("p{form:?}{at}").to_lowercase()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Imports a damaged bundle: the import must fail, and everything at the target afterwards must be correct and
/// complete.
fn import_is_harmless(fixture: &Fixture, damaged: &Path, target: &Registry, project: &str) -> Vec<String> {
    let to = format!("{}/{project}", target.host());
    let output = gapferry().arg("import").arg(damaged).args(["--to", &to]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut failures = Vec::new();
    if !matches!(output.status.code(), Some(1 | 3)) {
        failures.push(format!("{}: import ends with {:?}: {stderr}", damaged.display(), output.status.code()));
    }
    for image in &fixture.images {
        let (repository, tag) = (format!("{project}/{}", image.repository), image.tag.as_deref().unwrap());
        let Some(found) = target.digest(&repository, tag) else { continue };
        if found != image.digest() {
            failures.push(format!("{}: {repository}:{tag} is {found}", damaged.display()));
        }
        for digest in image.blob_digests() {
            let blob = target.request("GET", &format!("/v2/{repository}/blobs/{digest}")).send();
            if blob.status != 200 || sha256(&blob.body) != digest {
                failures.push(format!("{}: {repository}:{tag} cannot be pulled: {digest}", damaged.display()));
            }
        }
    }
    failures
}

#[test]
fn a_flipped_bit_is_found_in_any_file() {
    matrix(Damage::Flip);
}

#[test]
fn truncation_is_found_in_any_file() {
    matrix(Damage::Truncate);
}

#[test]
fn zeroed_content_is_found_in_any_file() {
    matrix(Damage::Zero);
}

#[test]
fn deletion_is_found_for_any_file() {
    matrix(Damage::Delete);
}

#[test]
fn an_undeclared_file_is_found_anywhere() {
    matrix(Damage::Extra);
}

#[test]
fn two_swapped_files_are_both_found() {
    matrix(Damage::Swap);
}

#[test]
fn several_damaged_files_are_all_listed_at_once() {
    let fixture = Fixture::new();
    for form in [Form::Directory, Form::Tar] {
        let mut parts = fixture.parts.clone();
        let locations = fixture.locations();
        let [layer, shared, config, manifest, _, child, index, ..] = &locations[..] else { panic!("locations") };
        let mut hurt = BTreeSet::new();
        for (damage, location) in [
            (Damage::Flip, layer),
            (Damage::Truncate, shared),
            (Damage::Delete, config),
            (Damage::Zero, manifest),
            (Damage::Extra, child),
            (Damage::Flip, index),
        ] {
            hurt.extend(inflict(damage, &location.path, "", &mut parts));
        }
        let directory = tempdir();
        let report = verify(&parts.write(directory.path(), form));
        assert_eq!(report.code, 3, "{}", report.stderr);
        assert_eq!(report.paths(), hurt, "{report:#?}");
    }
}

#[test]
fn a_bundle_whose_name_ends_in_partial_is_called_unfinished() {
    let fixture = Fixture::new();
    let directory = tempdir();
    let mut parts = fixture.parts.clone();
    parts.remove("bundle.json");
    parts.remove("SHA256SUMS");
    let root = parts.write(directory.path(), Form::Directory);
    let unfinished = directory.path().join("bundle.partial");
    std::fs::rename(root, &unfinished).unwrap();
    let tar = directory.path().join("bundle.tar.partial");
    std::fs::write(&tar, vec![0; 1 << 20]).unwrap();
    for path in [unfinished, tar] {
        for command in ["verify", "list"] {
            let output = gapferry().arg(command).arg(&path).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert!(stderr.contains("unfinished"), "{command} {}: {stderr}", path.display());
        }
    }
}
