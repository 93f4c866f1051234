//! The volumes of a bundle: where each goes, and all in it that is no blob.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::finished;
use super::names::{Part, SetName};
use super::plan::{SetPlan, VolumePlan, Wanted};
use super::recovery::recovery_length;
use super::sealing::{self, Known, Repeated, Small};
use crate::base::error::{Error, Result};
use crate::base::progress::Events;
use crate::bundle::format::{Metadata, head_of};
use crate::bundle::offsets::TarFile;
use crate::bundle::place::Sealing;
use crate::bundle::{BUNDLE_JSON, Bundle, Contents, MAX_BUNDLE_JSON, SUMS, is_signature, is_tool};
use crate::files::Layout;
use crate::oci::{Digest, Manifest};
use crate::spool::Kept;

/// How large volumes may be, and how many more make up for lost ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes that no volume exceeds.
    pub limit: u64,
    /// Recovery volumes.
    pub recovery: u32,
}

/// A set that is to be written.
#[derive(Debug)]
pub struct Set {
    pub name: SetName,
    pub plan: SetPlan,
    pub identity: Digest,
    /// Metadata and manifests.
    common: Vec<Repeated>,
    /// In seconds since 1970.
    mtime: u64,
}

impl Set {
    /// Of a bundle that is there, with these `manifests`. What is the same in every volume is read, and proven.
    ///
    /// # Errors
    /// The volumes would be too small; not readable, or not what `bundle.json` says.
    pub fn of_bundle(bundle: &Bundle, manifests: &HashSet<Digest>, name: SetName, shape: Shape) -> Result<Set> {
        let (layout, json, identity) = (bundle.layout(), bundle.json(), bundle.identity());
        let declared: HashMap<&str, Digest> =
            json.files.iter().map(|file| (file.path.as_str(), file.digest)).chain([(BUNDLE_JSON, identity)]).collect();
        let read = |path: &str| -> Result<Repeated> {
            if path == SUMS {
                return Ok((path.to_owned(), Kept::new(json.sha256sums(identity).as_bytes())));
            }
            let fail = |what: &str| Error::damaged(format!("reading {}: {path} {what}", layout.path().display()));
            let bytes = layout.read(path, MAX_BUNDLE_JSON)?.ok_or_else(|| fail("is missing"))?;
            let digest = declared.get(path).copied().filter(|_| !is_signature(path));
            match digest.is_none_or(|digest| Digest::of(digest.algorithm(), &bytes) == digest) {
                true => Ok((path.to_owned(), Kept::new(&bytes))),
                false => Err(fail("has another digest than bundle.json says")),
            }
        };
        let metadata = head_of(layout, true).iter().map(|path| read(path)).collect::<Result<Vec<Repeated>>>()?;
        let paths: HashSet<String> = manifests.iter().map(Digest::blob_path).collect();
        let (own, others): (Vec<_>, Vec<_>) = bundle.files().iter().partition(|file| paths.contains(&file.path));
        let own = own.into_iter().map(|file| read(&file.path)).collect::<Result<Vec<Repeated>>>()?;
        let held = others.into_iter().filter(|file| is_held(&file.path)).map(|file| (file.path.clone(), file.size));
        Set::new(name, (metadata, own), held.collect(), shape, (identity, json.mtime()))
    }

    /// Of a bundle that is to be written, with this identity. `metadata` has the lengths it will have.
    ///
    /// # Errors
    /// The volumes would be too small.
    pub(in crate::bundle) fn of_contents(
        contents: &Contents,
        (metadata, identity): (&[Metadata], Digest),
        name: SetName,
        shape: Shape,
    ) -> Result<Set> {
        let common = common(metadata, &contents.manifests);
        let tools = contents.tools.iter().map(|tool| (tool.path(), tool.size()));
        let files = tools.chain(contents.blobs.iter().map(|blob| (blob.digest.blob_path(), blob.size))).collect();
        Set::new(name, common, files, shape, (identity, contents.lock.mtime()))
    }

    /// The same set, with everything that is known in the end.
    pub(in crate::bundle) fn sealed(&self, sealing: &Sealing<'_>) -> Set {
        let (metadata, manifests) = common(sealing.metadata, sealing.manifests);
        let (name, plan) = (self.name.clone(), self.plan.clone());
        Set {
            name,
            plan,
            identity: self.identity,
            common: metadata.into_iter().chain(manifests).collect(),
            mtime: sealing.mtime,
        }
    }

    /// The volumes, or the one with this number.
    pub fn wanted(&self, only: Option<u32>) -> impl Iterator<Item = &VolumePlan> {
        self.plan.volumes.iter().filter(move |volume| only.is_none_or(|only| only == volume.number))
    }

    /// Refuses a number that no volume has.
    ///
    /// # Errors
    /// It is one.
    pub fn check_number(&self, only: Option<u32>) -> Result<()> {
        if self.wanted(only).next().is_some() {
            return Ok(());
        }
        let (number, all) = (only.unwrap_or_default(), self.plan.volumes.len());
        Err(Error::input(format!("there is no volume {number}: the set has {all}")))
    }

    fn new(
        name: SetName,
        (metadata, manifests): (Vec<Repeated>, Vec<Repeated>),
        files: Vec<(String, u64)>,
        Shape { limit, recovery }: Shape,
        (identity, mtime): (Digest, u64),
    ) -> Result<Set> {
        let sizes = |files: &[Repeated]| {
            files.iter().map(|(path, bytes)| (path.clone(), bytes.size() as u64)).collect::<Vec<_>>()
        };
        let (metadata_sizes, manifest_sizes) = (sizes(&metadata), sizes(&manifests));
        let wanted = Wanted { metadata: metadata_sizes, manifests: manifest_sizes, files, limit, recovery };
        let plan = SetPlan::new(&wanted)?;
        let common = metadata.into_iter().chain(manifests).collect();
        Ok(Set { name, plan, identity, common, mtime })
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

    /// Of the volumes, or the one with this number, whether all are there and whole; with `proven` every byte is, else they
    /// only look so.
    ///
    /// # Errors
    /// Something that is no volume has the name of one.
    pub fn is_there(&self, only: Option<u32>, proven: bool, events: &Events) -> Result<bool> {
        for volume in self.wanted(only) {
            let whole = match proven {
                true => finished::is_whole(self, volume, events)?,
                false => finished::seems_whole(self, volume)?,
            };
            if !whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a volume has the same metadata and manifests; what was signed counts, not by whom.
    pub(super) fn has_common(&self, layout: &Layout) -> bool {
        let is_there = |(path, bytes): &Repeated| match layout.read(path, MAX_BUNDLE_JSON) {
            Ok(Some(there)) => is_signature(path) || bytes.bytes().is_ok_and(|bytes| bytes == there),
            _ => false,
        };
        self.common.iter().all(is_there)
    }

    /// What a volume says of itself, where `known` is what it holds, in the order of its files.
    pub(super) fn own_files(&self, volume: &VolumePlan, known: &[Known]) -> Result<Vec<Small>> {
        sealing::own_files(&self.plan, volume, self.identity, &self.common, known)
    }

    /// Writes everything of a volume but the blobs, which are in `file`, and `known` in their order.
    ///
    /// # Errors
    /// One of them is not known, or the disk's.
    pub(super) fn seal(&self, volume: &VolumePlan, (file, path): (&File, &Path), known: &[Known]) -> Result<()> {
        let own = self.own_files(volume, known)?;
        let own: HashMap<&str, &[u8]> = own.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
        let common: HashMap<&str, &Kept> = self.common.iter().map(|(path, bytes)| (path.as_str(), bytes)).collect();
        let write = |bytes: &[u8], at| file.write_all_at(bytes, at).map_err(|e| Error::disk("writing", path, e));
        for planned in volume.tar()?.files {
            let (own, kept) = (own.get(planned.path.as_str()).copied(), common.get(planned.path.as_str()));
            // A signature's length is known only when it is made.
            let size = own.map(<[u8]>::len).or(kept.map(|kept| kept.size())).map_or(planned.size, |size| size as u64);
            let planned = TarFile { size, ..planned };
            write(&planned.header_blocks(self.mtime), planned.header)?;
            if let Some(bytes) = own {
                write(bytes, planned.data)?;
            } else if let Some(kept) = kept {
                let mut at = planned.data;
                let copied = kept.read(&mut |piece| {
                    file.write_all_at(piece, at)?;
                    at += piece.len() as u64;
                    Ok(())
                });
                copied.map_err(|e| Error::disk("writing", path, e))?;
            }
        }
        Ok(())
    }
}

/// Whether a file of the bundle is in one volume, if it is no manifest; all others are in every one.
pub(super) fn is_held(path: &str) -> bool {
    is_tool(path) || path.starts_with("blobs/")
}

/// What is the same in every volume.
fn common(metadata: &[Metadata], manifests: &[Manifest]) -> (Vec<Repeated>, Vec<Repeated>) {
    let keep = |file: &Metadata| (file.path.clone(), Kept::new(&file.bytes));
    let manifests = manifests.iter().map(|manifest| (manifest.digest().blob_path(), manifest.kept().clone()));
    (metadata.iter().map(keep).collect(), manifests.collect())
}
