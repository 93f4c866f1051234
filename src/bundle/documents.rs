//! Tests every versioned document against a file of each version in `fixtures/documents/`. What an earlier version wrote must
//! be read, or rejected with advice.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use walkdir::WalkDir;

use super::missing::Missing;
use super::repair::file::RepairJson;
use super::volumes::{RecoveryJson, StateJson, VolumeJson};
use crate::base::document::Document;
use crate::base::error::Result;
use crate::pipeline::lock::Lock;
use crate::pipeline::receipt::Receipt;

/// A type of document.
struct Type {
    /// As in the names of its fixtures: `NAME-VERSION.json`.
    name: &'static str,
    version: u32,
    /// Reads a document and writes it again.
    read: fn(&[u8]) -> Result<String>,
    too_old: &'static str,
}

fn typed<D: Document>(name: &'static str, read: fn(&[u8]) -> Result<String>) -> Type {
    Type { name, version: D::VERSION, read, too_old: D::TOO_OLD }
}

fn types() -> Vec<Type> {
    vec![
        typed::<Lock>("lock", |bytes| Ok(Lock::parse(bytes, "lock")?.to_json())),
        typed::<Receipt>("receipt", |bytes| Ok(Receipt::parse(bytes, "receipt")?.to_json())),
        typed::<Missing>("missing", |bytes| Ok(Missing::parse(bytes, "missing")?.to_json())),
        typed::<RepairJson>("repair", |bytes| Ok(RepairJson::read(bytes, "repair")?.to_json())),
        typed::<VolumeJson>("volume", |bytes| Ok(VolumeJson::parse(bytes, "volume", 2)?.to_json())),
        typed::<RecoveryJson>("recovery", |bytes| Ok(RecoveryJson::parse(bytes, "recovery")?.to_json())),
        typed::<StateJson>("state", |bytes| Ok(StateJson::read(bytes, "state")?.to_json())),
    ]
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str, version: u32) -> String {
    format!("{name}-{version}.json")
}

#[test]
fn a_document_of_each_version_is_read_or_refused_with_advice() {
    for Type { name, version, read, too_old } in types() {
        for old in 1..=version {
            let bytes = fs::read(root().join("fixtures/documents").join(fixture(name, old))).unwrap();
            match read(&bytes) {
                Ok(text) => assert_eq!(text.as_bytes(), bytes, "{name} {old} is written as it was read"),
                Err(error) => {
                    let text = error.chain();
                    assert!(old < version && !too_old.is_empty() && text.contains(too_old), "{name} {old}: {text}");
                }
            }
        }
        let newer = fs::read_to_string(root().join("fixtures/documents").join(fixture(name, version))).unwrap();
        let newer = newer.replacen(&format!(": {version},"), &format!(": {},", version + 1), 1);
        let text = read(newer.as_bytes()).unwrap_err().chain();
        assert!(text.contains(&format!("version {}; this program reads version {version}", version + 1)), "{text}");
    }
}

#[test]
fn every_version_of_every_document_has_a_fixture() {
    let all = types();
    let wanted = all.iter().flat_map(|one| (1..=one.version).map(|version| fixture(one.name, version)));
    let there = fs::read_dir(root().join("fixtures/documents")).unwrap();
    let there = there.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(there.collect::<BTreeSet<String>>(), wanted.collect::<BTreeSet<String>>());
    let sources = WalkDir::new(root().join("src")).into_iter().map(|entry| entry.unwrap().into_path());
    let sources = sources.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let documents = sources.map(|path| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().filter(|line| line.starts_with("impl Document for ")).count()
    });
    assert_eq!(documents.sum::<usize>(), all.len(), "every `impl Document for` is in the list above");
}
