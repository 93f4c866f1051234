//! The volumes of a bundle: their files, and all their content except blobs.

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

/// The maximum size of volumes, and the number of recovery volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Maximum size of a volume in bytes.
    pub limit: u64,
    /// Number of recovery volumes.
    pub recovery: u32,
}

/// Which volumes of a set to write.
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

    /// The number, if it is a single volume.
    pub fn only_one(&self) -> Option<u32> {
        match self {
            VolumeSelection::Only(numbers) if numbers.len() == 1 => numbers.first().copied(),
            VolumeSelection::All | VolumeSelection::Only(_) => None,
        }
    }
}

/// How to write a bundle as volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeOptions {
    pub shape: Shape,
    /// Which of them to write.
    pub selection: VolumeSelection,
}

/// A set to write.
#[derive(Debug)]
pub struct Set {
    pub name: SetName,
    pub plan: SetPlan,
    pub identity: Digest,
    /// Metadata and manifests, which every volume repeats.
    common: Vec<KnownFile>,
    /// In seconds since 1970.
    mtime: u64,
    signatures: Accepted,
    /// The digests of the tools by path.
    tools: HashMap<String, Digest>,
}

/// Which signatures an existing volume may have. ECDSA signatures differ each time a key signs.
#[derive(Debug)]
enum Accepted {
    /// Those of the set, or others by this key.
    Own(Option<PublicKey>),
    /// Any, but this key must be among the signers.
    Any(Option<PublicKey>),
}

impl Set {
    /// Lays out the volumes of a bundle.
    ///
    /// # Errors
    /// They would be too small or too many.
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

    /// The set, accepting existing volumes with any signatures if this key, if any, has signed them.
    pub(in crate::bundle) fn signed_by_any(self, key: Option<PublicKey>) -> Set {
        Set { signatures: Accepted::Any(key), ..self }
    }

    /// The declared digest of a blob or tool.
    pub(super) fn declared(&self, path: &str) -> Option<Digest> {
        Digest::of_blob_path(path).or_else(|| self.tools.get(path).copied())
    }

    /// Whether an existing volume belongs to this set, or to another one with which it cannot be confused.
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

    /// Rejects numbers that no volume has.
    ///
    /// # Errors
    /// The selection contains such a number.
    pub fn check(&self, selection: &VolumeSelection) -> Result<()> {
        let VolumeSelection::Only(numbers) = selection else { return Ok(()) };
        match numbers.iter().find(|number| self.volume(**number).is_none()) {
            None => Ok(()),
            Some(number) => {
                let all = self.plan.volumes.len();
                Err(Error::input(format!("there is no volume {number}: the set has {all} volumes")))
            }
        }
    }

    /// The path of a volume.
    pub fn path_of(&self, volume: &VolumePlan) -> PathBuf {
        self.name.part(Part::Volume(volume.number), volume.of)
    }

    /// Bytes that writing its recovery volumes takes. If the volumes are `unchanged`, these may exist.
    ///
    /// # Errors
    /// The code does not support this number of volumes.
    pub fn recovery_room(&self, unchanged: bool) -> Result<u64> {
        let SetPlan { recovery, limit, .. } = self.plan;
        let is_there = |number| self.name.part(Part::Recovery(number), recovery).exists();
        if unchanged && (1..=recovery).all(is_there) || recovery == 0 {
            return Ok(0);
        }
        let sizes: Vec<u64> = self.plan.volumes.iter().map(|volume| volume.length).collect();
        Ok(recovery_length(&sizes, recovery, limit)?.saturating_mul(recovery.into()))
    }

    /// Whether a volume has the same metadata and manifests, and acceptable signatures.
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

    /// A volume's own files, where `known` describes its content in the order of its files.
    pub(super) fn own_files(&self, volume: &VolumePlan, known: &[HeldDigests]) -> Result<Vec<Small>> {
        volume_metadata::own_files(&self.plan, volume, self.identity, &self.common, known)
    }

    /// Writes everything of a volume except blobs, which are in `file` and described by `known` in their order.
    ///
    /// # Errors
    /// One of them is not known, or the disk fails.
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

/// Whether a file of the bundle, unless it is a manifest, is in one volume; all others are in every volume.
pub(super) fn is_held(path: &str) -> bool {
    is_tool(path) || path.starts_with("blobs/")
}
