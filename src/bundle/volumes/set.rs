//! The volumes of a bundle: where each goes, and all in it that is no blob.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::names::{Part, SetName};
use super::plan::{SetPlan, VolumePlan, Wanted};
use super::sealing::{self, Known, Small};
use crate::bundle::offsets::TarFile;
use crate::bundle::{
    BUNDLE_JSON, Bundle, CHUNKS, DOCKER_JSON, INDEX_JSON, MAX_BUNDLE_JSON, OCI_LAYOUT, SIGNATURE, SUMS,
};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::transport::layout::Layout;

/// The files that every volume repeats, in the order of the tar.
const METADATA: [&str; 6] = [OCI_LAYOUT, BUNDLE_JSON, INDEX_JSON, DOCKER_JSON, SUMS, SIGNATURE];

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
    common: Vec<Small>,
    /// In seconds since 1970.
    mtime: u64,
}

impl Set {
    /// Of a bundle that is there, with these `manifests`. What is the same in every volume is read.
    ///
    /// # Errors
    /// The volumes would be too small; not readable.
    pub fn of_bundle(bundle: &Bundle, manifests: &HashSet<Digest>, name: SetName, shape: Shape) -> Result<Set> {
        let layout = bundle.layout();
        let read = |path: &str| -> Result<Small> {
            let bytes = layout.read(path, MAX_BUNDLE_JSON)?;
            let gone = || Error::damaged(format!("reading {}: {path} is missing", layout.path().display()));
            Ok((path.to_owned(), bytes.ok_or_else(gone)?.to_vec()))
        };
        let is_there = |path: &&str| *path != SIGNATURE || layout.size_of(SIGNATURE).is_some();
        let metadata = METADATA.into_iter().filter(is_there).map(read).collect::<Result<Vec<Small>>>()?;
        let paths: HashSet<String> = manifests.iter().map(Digest::blob_path).collect();
        let (own, others): (Vec<_>, Vec<_>) = bundle.files().iter().partition(|file| paths.contains(&file.path));
        let own = own.into_iter().map(|file| read(&file.path)).collect::<Result<Vec<Small>>>()?;
        let is_held = |path: &str| path == CHUNKS || path.starts_with("blobs/");
        let held = others.into_iter().filter(|file| is_held(&file.path)).map(|file| (file.path.clone(), file.size));
        let mtime = u64::try_from(bundle.json().created.as_second()).unwrap_or_default();
        Set::new(name, (metadata, own), held.collect(), shape, (bundle.identity(), mtime))
    }

    fn new(
        name: SetName,
        (metadata, manifests): (Vec<Small>, Vec<Small>),
        files: Vec<(String, u64)>,
        Shape { limit, recovery }: Shape,
        (identity, mtime): (Digest, u64),
    ) -> Result<Set> {
        let sizes =
            |files: &[Small]| files.iter().map(|(path, bytes)| (path.clone(), bytes.len() as u64)).collect::<Vec<_>>();
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

    /// Whether a volume has the same metadata and manifests; what was signed counts, not by whom.
    pub(super) fn has_common(&self, layout: &Layout) -> bool {
        let is_there = |(path, bytes): &Small| matches!(layout.read(path, MAX_BUNDLE_JSON), Ok(Some(there)) if there == bytes[..] || path == SIGNATURE);
        self.common.iter().all(is_there)
    }

    /// What a volume says of itself, where `known` is what it holds, by the entries in the tar.
    pub(super) fn own_files(&self, volume: &VolumePlan, known: &HashMap<String, Known>) -> Result<Vec<Small>> {
        sealing::own_files(&self.plan, volume, self.identity, &self.common, known)
    }

    /// Writes everything of a volume but the blobs, which are in `file` and `known` by their entries in the tar.
    ///
    /// # Errors
    /// One of them is not known, or the disk's.
    pub(super) fn seal(
        &self,
        volume: &VolumePlan,
        (file, path): (&File, &Path),
        known: &HashMap<String, Known>,
    ) -> Result<()> {
        let own = self.own_files(volume, known)?;
        let small: HashMap<&str, &[u8]> =
            own.iter().chain(&self.common).map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
        let write = |bytes: &[u8], at| file.write_all_at(bytes, at).map_err(|e| Error::disk("writing", path, e));
        for planned in &volume.tar.files {
            let bytes = small.get(planned.path.as_str()).copied();
            // A signature's length is known only when it is made.
            let size = bytes.map_or(planned.size, |bytes| bytes.len() as u64);
            write(&TarFile { size, ..planned.clone() }.header_blocks(self.mtime), planned.header)?;
            if let Some(bytes) = bytes {
                write(bytes, planned.data)?;
            }
        }
        Ok(())
    }
}
