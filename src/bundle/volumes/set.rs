//! The volumes of a bundle: where each goes, and all in it that is no blob.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use super::format::{VolumeFile, VolumeJson};
use super::layout::{Held, HeldDigests, VolumePlan};
use super::names::{Part, SetName};
use super::plan::{SetPlan, SetRequest};
use super::recovery_layout::recovery_length;
use super::volume_metadata::{self, Small};
use crate::base::error::{Error, Result};
use crate::bundle::fileset::{FileSet, KnownFile, Trailer};
use crate::bundle::planned_tar::PlannedTar;
use crate::bundle::{MAX_BUNDLE_JSON, MAX_SIGNATURE, check_signature, is_signature, is_tool, signed_file};
use crate::files::Layout;
use crate::oci::Digest;
use crate::signing::{PublicKey, signature_in};

/// How large volumes may be, and how many more make up for lost ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes that no volume exceeds.
    pub limit: u64,
    /// Recovery volumes.
    pub recovery: u32,
}

/// Which volumes of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSelection {
    All,
    /// Those with these numbers.
    Only(BTreeSet<u32>),
}

impl VolumeSelection {
    /// One volume, or all.
    pub fn of(only: Option<u32>) -> VolumeSelection {
        only.map_or(VolumeSelection::All, |number| VolumeSelection::Only([number].into()))
    }

    pub fn is_all(&self) -> bool {
        *self == VolumeSelection::All
    }

    pub fn has(&self, number: u32) -> bool {
        match self {
            VolumeSelection::All => true,
            VolumeSelection::Only(numbers) => numbers.contains(&number),
        }
    }

    /// The number, where it is a single volume.
    pub fn only_one(&self) -> Option<u32> {
        match self {
            VolumeSelection::Only(numbers) if numbers.len() == 1 => numbers.first().copied(),
            VolumeSelection::All | VolumeSelection::Only(_) => None,
        }
    }
}

/// How a bundle is written as volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeOptions {
    pub shape: Shape,
    /// Which of them are written.
    pub selection: VolumeSelection,
}

/// A set that is to be written.
#[derive(Debug)]
pub struct Set {
    pub name: SetName,
    pub plan: SetPlan,
    pub identity: Digest,
    /// Metadata and manifests: what every volume repeats.
    common: Vec<KnownFile>,
    /// In seconds since 1970.
    mtime: u64,
    signatures: Accepted,
    /// The digests of the tools, by their paths.
    tools: HashMap<String, Digest>,
}

/// Which signatures a volume that is there may have: those of ECDSA are other bytes each time that a key signs.
#[derive(Debug)]
enum Accepted {
    /// Those of the set, or others of this key.
    Own(Option<PublicKey>),
    /// Any, but this key has to be among those that have signed.
    Any(Option<PublicKey>),
}

impl Set {
    /// Lays out the volumes of a bundle.
    ///
    /// # Errors
    /// They would be too small, or too many.
    pub(in crate::bundle) fn new(files: &FileSet, name: SetName, Shape { limit, recovery }: Shape) -> Result<Set> {
        let of_chunks = match &files.trailer {
            Some(Trailer::Copied(signatures)) => &signatures[..],
            Some(Trailer::Signed(_)) | None => &[],
        };
        let metadata: Vec<KnownFile> = files.head.iter().chain(of_chunks).cloned().collect();
        let manifest = |digest: Digest, bytes| KnownFile { path: digest.blob_path(), bytes };
        let manifests = files.manifests.iter().map(|one| manifest(one.digest(), one.kept().clone()));
        let manifests: Vec<KnownFile> = manifests.collect();
        let sizes = |files: &[KnownFile]| files.iter().map(|file| (file.path.clone(), file.size())).collect();
        let tools = files.tools.iter().map(|tool| (tool.path(), tool.size()));
        let held = tools.chain(files.blobs.iter().map(|blob| (blob.digest.blob_path(), blob.size))).collect();
        let (metadata_sizes, manifest_sizes) = (sizes(&metadata), sizes(&manifests));
        let wanted = SetRequest { metadata: metadata_sizes, manifests: manifest_sizes, files: held, limit, recovery };
        let plan = SetPlan::new(&wanted)?;
        let common = metadata.into_iter().chain(manifests).collect();
        let signatures = Accepted::Own(files.signer.clone());
        let tools = files.tools.iter().map(|tool| (tool.path(), tool.sha256())).collect();
        Ok(Set { name, plan, identity: files.identity, common, mtime: files.mtime, signatures, tools })
    }

    /// The same where a volume counts as there whatever signatures it has, if this key, where there is one, has signed it.
    pub(in crate::bundle) fn signed_by_any(self, key: Option<PublicKey>) -> Set {
        Set { signatures: Accepted::Any(key), ..self }
    }

    /// What the bundle declares of a blob or a tool.
    pub(super) fn declared(&self, path: &str) -> Option<Digest> {
        Digest::of_blob_path(path).or_else(|| self.tools.get(path).copied())
    }

    /// Whether a volume that is there is of this set, or of another one with which it cannot be mixed up.
    pub(in crate::bundle) fn admits(&self, there: &VolumeJson) -> bool {
        let SetPlan { limit, recovery, .. } = self.plan;
        if (there.identity, there.limit, there.recovery) != (self.identity, limit, recovery) {
            return true;
        }
        let is_held = |(held, file): (&Held, &VolumeFile)| held.stored_path() == file.stored_path();
        self.volume(there.number).is_some_and(|volume| {
            let files = volume.files.iter().zip(&there.files);
            volume.of == there.of && volume.files.len() == there.files.len() && files.clone().all(is_held)
        })
    }

    /// The selected volumes.
    pub fn wanted<'s>(&'s self, selection: &'s VolumeSelection) -> impl Iterator<Item = &'s VolumePlan> {
        self.plan.volumes.iter().filter(move |volume| selection.has(volume.number))
    }

    /// The volume with this number.
    pub fn volume(&self, number: u32) -> Option<&VolumePlan> {
        self.plan.volumes.iter().find(|volume| volume.number == number)
    }

    /// Refuses numbers that no volume has.
    ///
    /// # Errors
    /// There is one.
    pub fn check(&self, selection: &VolumeSelection) -> Result<()> {
        let VolumeSelection::Only(numbers) = selection else { return Ok(()) };
        match numbers.iter().find(|number| self.volume(**number).is_none()) {
            None => Ok(()),
            Some(number) => {
                let all = self.plan.volumes.len();
                Err(Error::input(format!("there is no volume {number}: the set has {all}")))
            }
        }
    }

    /// The file of a volume.
    pub fn path_of(&self, volume: &VolumePlan) -> PathBuf {
        self.name.part(Part::Volume(volume.number), volume.of)
    }

    /// Bytes that its recovery volumes take when they are written; where the volumes are `unchanged`, these may be there.
    ///
    /// # Errors
    /// There is no code for as many volumes.
    pub fn recovery_room(&self, unchanged: bool) -> Result<u64> {
        let SetPlan { recovery, limit, .. } = self.plan;
        let is_there = |number| self.name.part(Part::Recovery(number), recovery).exists();
        if unchanged && (1..=recovery).all(is_there) || recovery == 0 {
            return Ok(0);
        }
        let sizes: Vec<u64> = self.plan.volumes.iter().map(|volume| volume.length).collect();
        Ok(recovery_length(&sizes, recovery, limit)?.saturating_mul(recovery.into()))
    }

    /// Whether a volume has the same metadata and manifests, and signatures that will do.
    pub(super) fn has_common(&self, layout: &Layout) -> bool {
        let signed = |path: &str| {
            let signed = self.common.iter().find(|file| Some(&*file.path) == signed_file(path));
            signed.and_then(|file| file.bytes.bytes().ok()).unwrap_or_default()
        };
        let is_there = |file: &KnownFile| {
            let most = if is_signature(&file.path) { MAX_SIGNATURE } else { MAX_BUNDLE_JSON };
            let (Ok(Some(there)), Ok(own)) = (layout.read(&file.path, most), file.bytes.bytes()) else { return false };
            there == own
                || match &self.signatures {
                    Accepted::Any(_) => is_signature(&file.path),
                    Accepted::Own(Some(key)) if is_signature(&file.path) => {
                        let signed = signed(&file.path);
                        [own, there].iter().all(|one| key.verifies(&signed, &signature_in(one)))
                    }
                    Accepted::Own(_) => false,
                }
        };
        let is_by_key = match &self.signatures {
            Accepted::Any(Some(key)) => check_signature(layout, std::slice::from_ref(key)).is_ok(),
            Accepted::Any(None) | Accepted::Own(_) => true,
        };
        is_by_key && self.common.iter().all(is_there)
    }

    /// What a volume says of itself, where `known` is what it holds, in the order of its files.
    pub(super) fn own_files(&self, volume: &VolumePlan, known: &[HeldDigests]) -> Result<Vec<Small>> {
        volume_metadata::own_files(&self.plan, volume, self.identity, &self.common, known)
    }

    /// Writes everything of a volume but the blobs, which are in `file`, and `known` in their order.
    ///
    /// # Errors
    /// One of them is not known, or the disk's.
    pub(super) fn seal(&self, volume: &VolumePlan, file: &File, path: &Path, known: &[HeldDigests]) -> Result<()> {
        let own = self.own_files(volume, known)?;
        let own: HashMap<&str, &[u8]> = own.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
        let common: HashMap<&str, &KnownFile> = self.common.iter().map(|file| (file.path.as_str(), file)).collect();
        let tar = PlannedTar { file, path, mtime: self.mtime };
        for planned in volume.tar()?.files {
            tar.write_frame(&planned)?;
            if let Some(bytes) = own.get(planned.path.as_str()) {
                tar.write(bytes, planned.data)?;
            } else if let Some(known) = common.get(planned.path.as_str()) {
                tar.write_kept(&known.bytes, planned.data)?;
            }
        }
        tar.end(volume.length)
    }
}

/// Whether a file of the bundle is in one volume, if it is no manifest; all others are in every one.
pub(super) fn is_held(path: &str) -> bool {
    is_tool(path) || path.starts_with("blobs/")
}
