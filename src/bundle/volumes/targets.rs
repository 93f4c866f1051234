//! The files that volumes are written to until all of them are finished: `*.partial`, removed unless they get their names.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::format::RecoveryJson;
use super::parity::{Shards, Target, Which, Woven};
use super::recovery::head;
use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::medium;
use crate::oci::Digest;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Targets {
    files: Vec<Target>,
    /// What each will be called.
    names: Vec<PathBuf>,
}

impl Targets {
    /// The volume that will be at `name`, with room for its `length` bytes; the shard begins at `offset`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn begin(&mut self, name: PathBuf, which: Which, offset: u64, length: u64) -> Result<()> {
        let path = medium::beside(&name, ".partial");
        let file = medium::open_own(&path, OpenOptions::new().create(true).truncate(true).write(true))?;
        let reserved = medium::reserve(&file, &path, length);
        self.files.push(Target { which, path, file, offset });
        self.names.push(name);
        reserved
    }

    /// [`Shards::weave`], with a bar.
    ///
    /// # Errors
    /// As there.
    pub fn weave(&self, shards: &Shards, identity: Digest, events: &Events) -> Result<Woven> {
        let bytes = shards.length();
        events.report(Event::Phase { phase: Phase::Transfer, items: self.files.len() as u64, bytes });
        shards.weave(&self.files, &|bytes| events.report(Event::BlobAdvanced { digest: identity, bytes }))
    }

    /// Writes what stands before the parity of recovery volumes. `known` are the BLAKE3 of the volumes.
    ///
    /// # Errors
    /// What the disk says.
    pub fn dress(&self, json: &RecoveryJson, known: &[u8], woven: &Woven) -> Result<()> {
        for target in &self.files {
            let Which::Parity(at) = target.which else { continue };
            let Some(prints) = woven.parities.get(at).and_then(Option::as_ref) else { continue };
            let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
            let json = RecoveryJson { number, ..json.clone() };
            let chunks: Vec<u8> = known.iter().chain(prints.mebibytes.iter().flatten()).copied().collect();
            let head = head(&json, &chunks, &prints.sha256)?;
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
        for target in &self.files {
            target.file.sync_all().map_err(|e| Error::disk("syncing", &target.path, e))?;
            events.report(Event::ItemDone);
        }
        for (target, name) in self.files.iter().zip(&self.names) {
            fs::rename(&target.path, name).map_err(|e| Error::disk("naming", name, e))?;
        }
        self.files.clear();
        let mut directories: Vec<_> = self.names.iter().map(|name| medium::parent(name)).collect();
        directories.dedup();
        directories.into_iter().try_for_each(medium::sync_directory)?;
        Ok(std::mem::take(&mut self.names))
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        for target in &self.files {
            let _ = fs::remove_file(&target.path);
        }
    }
}
