//! Volumes that are computed: recovery volumes or lost volumes. Each is `*.partial` until all are finished and the caller has
//! proven them, and is removed unless it gets its name.

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
    /// Their final names.
    names: Vec<PathBuf>,
}

/// A volume to compute.
pub struct NewVolume {
    /// Its final name.
    pub name: PathBuf,
    /// What had that name when this was checked; nothing else is replaced.
    pub former: Occupant,
    pub which: ShardId,
    /// Position of the shard in the file.
    pub offset: u64,
    /// Size of the file in bytes.
    pub length: u64,
}

impl ComputedVolumes {
    /// Starts without volumes, in the directory of `output`.
    pub fn new(output: &Entry) -> ComputedVolumes {
        ComputedVolumes { output: output.clone(), targets: Vec::new(), volumes: Vec::new(), names: Vec::new() }
    }

    /// Starts a volume and reserves its space.
    ///
    /// # Errors
    /// The disk fails.
    pub fn begin(&mut self, volume: NewVolume) -> Result<()> {
        let NewVolume { name, former, which, offset, length } = volume;
        let volume = PartialVolume::open(self.output.sibling(&name), former, Open::Empty)?;
        let (path, file) = (volume.entry.path().to_owned(), volume.file.clone());
        self.targets.push(ShardTarget { which, path, file, offset });
        // Added before it has space, so that it is removed if that fails.
        self.volumes.push(volume);
        self.names.push(name);
        self.volumes.last().map_or(Ok(()), |volume| volume.reserve(length))
    }

    /// [`Shards::compute`] with a progress bar.
    ///
    /// # Errors
    /// More volumes are lost than the recovery volumes can replace, and nothing was written; or the disk fails.
    pub fn compute(&self, shards: &Shards, identity: Digest, events: &Events) -> Result<Computed> {
        let bytes = shards.length();
        events.report(Event::Phase { phase: Phase::Transfer, items: self.targets.len() as u64, bytes });
        shards.compute(&self.targets, &|bytes| events.report(Event::BlobAdvanced { digest: identity, bytes }))
    }

    /// The ordinary volumes that are being computed: their numbers and where their bytes are.
    pub fn volumes(&self) -> impl Iterator<Item = (u32, &Path)> {
        self.targets.iter().filter_map(|target| match target.which {
            ShardId::Original(at) => Some((u32::try_from(at + 1).ok()?, target.path.as_path())),
            ShardId::Parity(_) => None,
        })
    }

    /// Writes what precedes the parity in recovery volumes. `known` are the BLAKE3 of the volumes.
    ///
    /// # Errors
    /// The disk fails.
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

    /// Syncs all volumes, and only then gives them their names.
    ///
    /// # Errors
    /// The disk fails, or something else has taken a name.
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
