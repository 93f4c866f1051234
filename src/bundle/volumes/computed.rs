//! Volumes that are computed, recovery volumes or lost ones: each is `*.partial` until all are finished and the caller has proven
//! them, and is removed unless it gets its name.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::format::RecoveryJson;
use super::parity::{Computed, ShardId, ShardTarget, Shards};
use super::partial::{PartialVolume, publish};
use super::recovery_layout::head;
use crate::base::error::{Error, Result};
use crate::base::fsops::{Entry, Occupant, Open};
use crate::base::progress::{Event, Events, Phase};
use crate::oci::Digest;

/// See the module documentation.
#[derive(Debug)]
pub struct ComputedVolumes {
    /// A name in the directory that they are written to.
    output: Entry,
    /// Where each is written.
    targets: Vec<ShardTarget>,
    volumes: Vec<PartialVolume>,
    /// What each will be called.
    names: Vec<PathBuf>,
}

/// A volume that is to be computed.
pub struct NewVolume {
    /// What it will be called.
    pub name: PathBuf,
    /// What had that name when this was looked at: nothing else is replaced.
    pub former: Occupant,
    pub which: ShardId,
    /// Where in the file the shard begins.
    pub offset: u64,
    /// Of the file, in bytes.
    pub length: u64,
}

impl ComputedVolumes {
    /// None yet, in the directory of `output`.
    pub fn new(output: &Entry) -> ComputedVolumes {
        ComputedVolumes { output: output.clone(), targets: Vec::new(), volumes: Vec::new(), names: Vec::new() }
    }

    /// Begins a volume, with room for all of it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn begin(&mut self, volume: NewVolume) -> Result<()> {
        let NewVolume { name, former, which, offset, length } = volume;
        let volume = PartialVolume::open(self.output.sibling(&name), former, Open::Empty)?;
        let (path, file) = (volume.entry.path().to_owned(), volume.file.clone());
        self.targets.push(ShardTarget { which, path, file, offset });
        // It is among them before it has room: what is left of it goes, too.
        self.volumes.push(volume);
        self.names.push(name);
        self.volumes.last().map_or(Ok(()), |volume| volume.reserve(length))
    }

    /// [`Shards::compute`], with a bar.
    ///
    /// # Errors
    /// More volumes are lost than recovery volumes make up for, and nothing was written; the disk's.
    pub fn compute(&self, shards: &Shards, identity: Digest, events: &Events) -> Result<Computed> {
        let bytes = shards.length();
        events.report(Event::Phase { phase: Phase::Transfer, items: self.targets.len() as u64, bytes });
        shards.compute(&self.targets, &|bytes| events.report(Event::BlobAdvanced { digest: identity, bytes }))
    }

    /// The volumes that are being made: the numbers of those that are no recovery volumes, and where their bytes are.
    pub fn volumes(&self) -> impl Iterator<Item = (u32, &Path)> {
        self.targets.iter().filter_map(|target| match target.which {
            ShardId::Original(at) => Some((u32::try_from(at + 1).ok()?, target.path.as_path())),
            ShardId::Parity(_) => None,
        })
    }

    /// Writes what stands before the parity of recovery volumes. `known` are the BLAKE3 of the volumes.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write_headers(&self, json: &RecoveryJson, known: &[u8], computed: &Computed) -> Result<()> {
        for ShardTarget { which, path, file, .. } in &self.targets {
            let ShardId::Parity(at) = which else { continue };
            let Some(digests) = computed.parities.get(*at).and_then(Option::as_ref) else { continue };
            let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
            let json = RecoveryJson { number, ..json.clone() };
            let chunks: Vec<u8> = known.iter().chain(digests.mebibytes.iter().flatten()).copied().collect();
            let head = head(&json, &chunks, &digests.sha256)?;
            file.write_all_at(&head, 0).map_err(|e| Error::disk("writing", path, e))?;
        }
        Ok(())
    }

    /// Brings all to the medium, and only then gives them their names.
    ///
    /// # Errors
    /// What the disk says; something else has taken a name.
    pub fn finish(mut self, events: &Events) -> Result<Vec<PathBuf>> {
        events.report(Event::Phase { phase: Phase::Sync, items: self.targets.len() as u64, bytes: 0 });
        let sync = |volume: &PartialVolume| volume.sync().inspect(|_| events.report(Event::ItemDone));
        publish(self.volumes.iter().map(sync).collect::<Result<Vec<_>>>()?)?;
        self.volumes.clear();
        Ok(std::mem::take(&mut self.names))
    }
}

impl Drop for ComputedVolumes {
    fn drop(&mut self) {
        for volume in &self.volumes {
            let _ = volume.entry.remove();
        }
    }
}
