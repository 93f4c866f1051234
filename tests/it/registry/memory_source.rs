//! Content to push: blobs in memory as a source, and manifests of them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use gapferry::Result;
use gapferry::content::{BlobReader, Body, Cached, Files, Need, Origin, ReferrerList, Sink, Source, TagList};
use gapferry::oci::{Descriptor, Digest, Manifest, Reference, Repository, media_type};
use gapferry::transport::registry::Registries;

#[derive(Default)]
pub struct MemorySource(Mutex<BTreeMap<Digest, Bytes>>);

impl MemorySource {
    pub fn add(&self, content: impl Into<Bytes>) -> Descriptor {
        let content = content.into();
        let digest = Digest::sha256(&content);
        let size = content.len() as u64;
        self.0.lock().unwrap().insert(digest, content);
        Descriptor::new("application/vnd.oci.image.layer.v1.tar", digest, size)
    }

    /// Serves `served` under the digest of `right`.
    pub fn add_wrong(&self, right: &[u8], served: &'static [u8]) -> Descriptor {
        let digest = Digest::sha256(right);
        self.0.lock().unwrap().insert(digest, Bytes::from_static(served));
        Descriptor::new("x/y", digest, right.len() as u64)
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn tags(&self, _: &Repository, _: Need) -> Result<TagList> {
        Ok(TagList::default())
    }

    async fn resolve(&self, _: &Reference, _: Need) -> Result<Option<Descriptor>> {
        Ok(None)
    }

    async fn manifest(&self, _: &Reference, _: Need) -> Result<Option<Manifest>> {
        Ok(None)
    }

    async fn referrers(&self, _: &Repository, _: &Digest) -> Result<ReferrerList> {
        Ok(ReferrerList::default())
    }

    async fn blob(&self, _: &Repository, blob: &Descriptor, _: u64) -> Result<Body> {
        let content = self.0.lock().unwrap()[&blob.digest].clone();
        // In chunks, as from a network.
        let pieces: Vec<Result<Bytes>> = content.chunks(64 * 1024).map(|piece| Ok(content.slice_ref(piece))).collect();
        Ok(Body::new(0, stream::iter(pieces).boxed()))
    }

    async fn gave_wrong(&self, _: &Repository, _: &Descriptor, error: gapferry::Error) -> Result<()> {
        Err(error)
    }

    fn counts_pulls(&self, _: &Repository) -> bool {
        false
    }

    fn files(&self) -> Option<&dyn Files> {
        None
    }
}

pub fn repository(registry: &str, path: &str) -> Repository {
    Repository::new(registry, path).unwrap()
}

pub fn tag(repository: &Repository, tag: &str) -> Reference {
    repository.with_tag(tag.parse().unwrap())
}

pub fn image(config: &Descriptor, layers: &[Descriptor], subject: Option<&Manifest>) -> Manifest {
    let view = |descriptor: &Descriptor, media_type: &str| serde_json::json!({"mediaType": media_type, "digest": descriptor.digest, "size": descriptor.size});
    let layers: Vec<_> = layers.iter().map(|layer| view(layer, &layer.media_type)).collect();
    let mut json = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": view(config, media_type::OCI_CONFIG), "layers": layers});
    if let Some(subject) = subject {
        json["subject"] = view(&subject.descriptor(), subject.media_type());
        json["artifactType"] = "application/vnd.test.signature".into();
        json["annotations"] = serde_json::json!({"of": "test"});
    }
    Manifest::parse(Bytes::from(json.to_string()), None, None).unwrap()
}

pub async fn push(
    to: &Registries,
    repository: &Repository,
    memory: &MemorySource,
    blobs: &[&Descriptor],
) -> Result<()> {
    for blob in blobs {
        to.put_blob(repository, blob, &Origin { source: memory, repository }).await?;
    }
    Ok(())
}

/// Reads the whole blob through a reader that reports wrong bytes to the source and retries if allowed.
pub async fn read(from: &Registries, repository: &Repository, blob: &Descriptor) -> Result<Bytes> {
    Cached::new(from, None).small_blob(repository, blob, u64::MAX).await
}

pub async fn drain(mut reader: BlobReader) -> Result<Bytes> {
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all.into())
}

/// Bytes that compress badly and do not repeat.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
