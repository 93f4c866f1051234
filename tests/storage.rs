//! The storage directory of a real registry, read while it runs, from the directory and from a tar of it.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use gapferry::content::{Origin, Source};
use gapferry::oci::{Digest, Manifest, Repository};
use gapferry::transport::storage::Storage;
use support::images::Corpus;
use support::registry::Registry;
use support::tempdir;

/// A tar of what is in `directory`, by the tar everybody has.
fn packed(directory: &Path, name: &str, into: &Path) -> PathBuf {
    let tar = into.join("storage.tar");
    let status = Command::new("tar").arg("-C").arg(directory).arg("-cf").arg(&tar).arg(name).status().unwrap();
    assert!(status.success());
    tar
}

/// What the registry itself says of every tag.
fn tags_of(registry: &Registry, corpus: &Corpus) -> BTreeMap<String, String> {
    let tagged = corpus.images.iter().filter(|image| image.tag.is_some());
    tagged
        .map(|image| (image.name(), registry.digest(&image.repository, image.tag.as_deref().unwrap()).unwrap()))
        .collect()
}

#[tokio::test]
async fn every_tag_is_found_with_its_digest_and_every_byte_below_it() {
    let registry = Registry::start();
    let corpus = Corpus::everything();
    corpus.push(&registry);
    let said = tags_of(&registry, &corpus);
    let directory = tempdir();
    let tar = packed(&registry.storage(), ".", directory.path());
    let inner = registry.storage().join("docker/registry");
    for place in [registry.storage(), inner.join("v2"), tar] {
        let storage = Storage::open(&place, "old.example").unwrap();
        let survey = storage.survey().unwrap();
        assert_eq!(survey.faults, [], "{}", place.display());
        let found: BTreeMap<String, String> = survey
            .tags
            .iter()
            .map(|found| (format!("{}:{}", found.repository.path(), found.tag), found.digest.to_string()))
            .collect();
        assert_eq!(found, said, "{}", place.display());
        for found in &survey.tags {
            read_all(&storage, &found.repository, found.digest).await;
        }
    }
}

/// The manifest, its children and blobs, all proven; foreign layers are not there.
async fn read_all(storage: &Storage, repository: &Repository, digest: Digest) {
    let mut ahead = vec![digest];
    while let Some(digest) = ahead.pop() {
        let manifest: Manifest = storage.manifest(&repository.with_digest(digest)).await.unwrap().expect("a manifest");
        for child in manifest.children() {
            match child.role {
                gapferry::oci::Role::Manifest => ahead.push(child.descriptor.digest),
                _ if child.descriptor.media_type.contains("foreign") || !child.descriptor.urls.is_empty() => {}
                _ => {
                    let origin = Origin { source: storage, repository };
                    let mut reader = origin.open(&child.descriptor).await.unwrap();
                    while let Some(piece) = futures_util::StreamExt::next(&mut reader).await {
                        piece.unwrap();
                    }
                }
            }
        }
    }
}
