//! The fixture of the bundle tests: contents made of plain bytes, and a source that serves them and fails on request.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use gapferry::base::error::{Error, Kind, Result};
use gapferry::base::progress::{Events, Silent};
use gapferry::bundle::{Basis, Contents, FileSet, Finished, Form, Options, Writer};
use gapferry::content::{Body, Files, Need, Origin, ReferrerList, Sink, Source, TagList};
use gapferry::oci::{Algorithm, Descriptor, Digest, Manifest, Reference, Repository, media_type};
use gapferry::pipeline::lock::{Lock, LockedImage};
use serde_json::json;

/// Serves blobs from memory and records every request.
#[derive(Default)]
pub struct Memory {
    blobs: HashMap<Digest, Bytes>,
    /// The connection breaks after this many bytes of the blob.
    pub breaks: Mutex<HashMap<Digest, u64>>,
    /// Ignores the requested offset and always starts at 0.
    pub ignores_range: bool,
    /// Blob and offset of each request.
    pub asked: Mutex<Vec<(Digest, u64)>>,
}

impl Memory {
    pub fn take_asked(&self) -> Vec<(Digest, u64)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[async_trait]
impl Source for Memory {
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

    async fn blob(&self, _: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        self.asked.lock().unwrap().push((blob.digest, offset));
        let offset = if self.ignores_range { 0 } else { offset };
        let bytes = self.blobs[&blob.digest].slice(offset as usize..);
        let broken =
            self.breaks.lock().unwrap().get(&blob.digest).map(|at| (*at as usize).saturating_sub(offset as usize));
        let sent = bytes.slice(..broken.unwrap_or(bytes.len()).min(bytes.len()));
        let pieces: Vec<Result<Bytes>> = (0..sent.len())
            .step_by(100_000)
            .map(|at| Ok(sent.slice(at..(at + 100_000).min(sent.len()))))
            .chain(broken.map(|_| Err(Error::new(Kind::Network, "the connection broke"))))
            .collect();
        Ok(Body::new(offset, stream::iter(pieces).boxed()))
    }

    async fn gave_wrong(&self, _: &Repository, _: &Descriptor, error: Error) -> Result<()> {
        Err(error)
    }

    fn counts_pulls(&self, _: &Repository) -> bool {
        false
    }

    fn files(&self) -> Option<&dyn Files> {
        None
    }
}

/// Bytes that do not repeat, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Collects the images of a bundle.
pub struct Builder {
    pub source: Memory,
    images: Vec<LockedImage>,
    manifests: Vec<Manifest>,
    configs: Vec<Descriptor>,
    layers: Vec<Descriptor>,
}

impl Builder {
    pub fn new() -> Builder {
        Builder { source: Memory::default(), images: vec![], manifests: vec![], configs: vec![], layers: vec![] }
    }

    fn blob(&mut self, algorithm: Algorithm, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let blob = Descriptor::new(media_type, Digest::of(algorithm, &bytes), bytes.len() as u64);
        self.source.blobs.insert(blob.digest, bytes.into());
        blob
    }

    /// An image with these layers.
    pub fn image(mut self, name: &str, layers: &[Vec<u8>]) -> Builder {
        let layers: Vec<Descriptor> = layers
            .iter()
            .map(|bytes| self.blob(Algorithm::Sha256, "application/vnd.oci.image.layer.v1.tar", bytes.clone()))
            .collect();
        self.manifest(name, layers);
        self
    }

    /// An artifact whose only layer is identified by its sha512.
    pub fn sha512(mut self, name: &str, layer: Vec<u8>) -> Builder {
        let layer = self.blob(Algorithm::Sha512, "application/octet-stream", layer);
        self.manifest(name, vec![layer]);
        self
    }

    fn manifest(&mut self, name: &str, layers: Vec<Descriptor>) {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
        let config = json!({ "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let config = self.blob(Algorithm::Sha256, media_type::OCI_CONFIG, config.to_string().into_bytes());
        let json = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config,
            "layers": layers });
        let manifest = Manifest::parse(json.to_string().into(), None, None).unwrap();
        let reference: Reference = name.parse().unwrap();
        self.images.push(LockedImage {
            source: reference.repository.registry().to_owned(),
            reference,
            rename: None,
            digest: manifest.digest(),
            media_type: manifest.media_type().to_owned(),
            size: manifest.size(),
            total_size: manifest.size() + config.size + layers.iter().map(|layer| layer.size).sum::<u64>(),
            platforms: vec!["linux/amd64".parse().unwrap()],
            selection: None,
            absent: vec![],
            attached: Some(vec![]),
            attached_unknown: false,
        });
        self.manifests.push(manifest);
        self.configs.push(config);
        for layer in layers {
            if !self.layers.contains(&layer) {
                self.layers.push(layer);
            }
        }
    }

    pub fn contents(&self) -> Contents {
        let created = "2026-11-21T04:00:00Z".parse().unwrap();
        Contents {
            lock: Lock { version: 1, created, load_platform: None, images: self.images.clone(), missing: Vec::new() },
            manifests: self.manifests.clone(),
            blobs: self.configs.iter().chain(&self.layers).cloned().collect(),
            basis: Basis::default(),
            tools: Vec::new(),
        }
    }

    /// The layer at this position, in order of first use.
    pub fn layer(&self, at: usize) -> &Descriptor {
        &self.layers[at]
    }

    /// [`Builder::contents`] as files.
    pub fn files(&self) -> FileSet {
        FileSet::new(&self.contents(), None).unwrap()
    }

    pub fn create(&self, out: &Path) -> Result<Writer> {
        self.create_telling(out, Arc::new(Silent))
    }

    pub fn create_telling(&self, out: &Path, events: Events) -> Result<Writer> {
        Writer::create(out, self.files(), Options::copying(Form::named(out)), events)
    }

    /// Fetches what is missing, in order; stops at the first error.
    pub fn fill(&self, writer: &Writer) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let repository: Repository = "registry.test/any".parse().unwrap();
        let origin = Origin { source: &self.source, repository: &repository };
        runtime.block_on(async {
            for blob in self.contents().blobs {
                writer.put_blob(&repository, &blob, &origin).await?;
            }
            Ok(())
        })
    }

    pub fn write(&self, out: &Path) -> Result<Finished> {
        let writer = self.create(out)?;
        self.fill(&writer)?;
        writer.finish()
    }
}

/// Two images that share a layer; layers of some megabytes.
pub fn two_images() -> Builder {
    let shared = noise(1, 2_500_000);
    let builder = Builder::new().image("registry.test/team/one:1", &[shared.clone(), noise(2, 3_000_001)]);
    builder.image("registry.test/team/two:2.0", &[shared, noise(3, 70_000), vec![7]])
}
