//! Writes volumes that are computed, recovery volumes or lost ones: each as `*.partial` until all are finished, and removed unless
//! they get their names.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::format::RecoveryJson;
use super::parity::{Computed, Shards, Target, Which};
use super::publish::publish;
use super::recovery_layout::head;
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Entry, Open, Synced};
use crate::base::progress::{Event, Events, Phase};
use crate::oci::Digest;

/// See the module documentation.
#[derive(Debug)]
pub struct VolumeWriter {
    /// A name in the directory that they are written to.
    output: Entry,
    files: Vec<Target>,
    /// What each will be called.
    names: Vec<PathBuf>,
}

impl VolumeWriter {
    /// None yet, in the directory of `output`.
    pub fn new(output: &Entry) -> VolumeWriter {
        VolumeWriter { output: output.clone(), files: Vec::new(), names: Vec::new() }
    }

    fn named(&self, name: &Path) -> Entry {
        self.output.sibling(name)
    }

    /// The volume that will be at `name`, with room for its `length` bytes; the shard begins at `offset`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn begin(&mut self, name: PathBuf, which: Which, offset: u64, length: u64) -> Result<()> {
        let partial = self.named(&name).beside(".partial");
        let file = partial.open(Open::Empty)?;
        let path = partial.path().to_owned();
        let reserved = fsops::reserve(&file, &path, length);
        self.files.push(Target { which, path, file, offset });
        self.names.push(name);
        reserved
    }

    /// [`Shards::compute`], with a bar.
    ///
    /// # Errors
    /// More volumes are lost than recovery volumes make up for, and nothing was written; the disk's.
    pub fn compute(&self, shards: &Shards, identity: Digest, events: &Events) -> Result<Computed> {
        let bytes = shards.length();
        events.report(Event::Phase { phase: Phase::Transfer, items: self.files.len() as u64, bytes });
        shards.compute(&self.files, &|bytes| events.report(Event::BlobAdvanced { digest: identity, bytes }))
    }

    /// The volumes that are being made: the numbers of those that are no recovery volumes, and where their bytes are.
    pub fn volumes(&self) -> impl Iterator<Item = (u32, &Path)> {
        self.files.iter().filter_map(|target| match target.which {
            Which::Original(at) => Some((u32::try_from(at + 1).ok()?, target.path.as_path())),
            Which::Parity(_) => None,
        })
    }

    /// Writes what stands before the parity of recovery volumes. `known` are the BLAKE3 of the volumes.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write_headers(&self, json: &RecoveryJson, known: &[u8], computed: &Computed) -> Result<()> {
        for target in &self.files {
            let Which::Parity(at) = target.which else { continue };
            let Some(digests) = computed.parities.get(at).and_then(Option::as_ref) else { continue };
            let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
            let json = RecoveryJson { number, ..json.clone() };
            let chunks: Vec<u8> = known.iter().chain(digests.mebibytes.iter().flatten()).copied().collect();
            let head = head(&json, &chunks, &digests.sha256)?;
            target.file.write_all_at(&head, 0).map_err(|e| Error::disk("writing", &target.path, e))?;
        }
        Ok(())
    }

    /// Brings all to the medium, and only then gives them their names.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(mut self, events: &Events) -> Result<Vec<PathBuf>> {
        events.report(Event::Phase { phase: Phase::Sync, items: self.files.len() as u64, bytes: 0 });
        let mut synced = Vec::new();
        for (target, name) in self.files.iter().zip(&self.names) {
            let named = self.named(name);
            synced.push(Synced::new(&target.file, named.beside(".partial"), named)?);
            events.report(Event::ItemDone);
        }
        publish(synced)?;
        self.files.clear();
        Ok(std::mem::take(&mut self.names))
    }
}

impl Drop for VolumeWriter {
    fn drop(&mut self) {
        for target in &self.files {
            let _ = self.output.sibling(&target.path).remove();
        }
    }
}
