//! A bundle that is there as a tar, while files of it are written again in their places: because they are damaged, or signed anew.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::{Extent, Linking, Placement, Resuming, Slot};
use crate::base::error::{Error, Result};
use crate::base::fsops::{Entry, Open};
use crate::bundle::declared::Declared;
use crate::bundle::fileset::{FileSet, KnownFile};
use crate::bundle::format::{CHUNKS, FileEntry, SUMS, is_signature, signatures_of};
use crate::bundle::planned_tar::PlannedTar;
use crate::bundle::tar_plan::{BLOCK, END, PlannedFile};
use crate::bundle::tar_survey::{SIGNATURE_ROOM, TarSurvey};
use crate::content::Slice;
use crate::content::chunks::Chunks;
use crate::files::Layout;
use crate::oci::Digest;

/// See the module documentation.
pub struct ExistingTar {
    path: Arc<Path>,
    file: Arc<File>,
    /// Where the bytes of files begin.
    at: HashMap<String, u64>,
    /// The layout of all, where headers have to be written.
    survey: Option<TarSurvey>,
    /// Of every entry, in seconds since 1970.
    mtime: u64,
    /// Where the headers of signatures begin that are there, by path.
    signatures: HashMap<String, u64>,
    /// Of these blobs, only these stretches are written: they begin at the first byte, and have so many.
    stretches: HashMap<Digest, Vec<(u64, u64)>>,
}

/// What is to be written into the tar.
pub struct WantedOfTar<'a> {
    pub files: &'a [FileEntry],
    pub chunks: bool,
    pub stretches: HashMap<Digest, Vec<(u64, u64)>>,
}

impl ExistingTar {
    /// Opens the tar `out`, which is read as `bundle`, and finds the place of every file that is wanted. What only has other bytes
    /// keeps its place, whatever program has made the tar. Headers, padding and the end that are gone are written before anything
    /// else.
    ///
    /// # Errors
    /// A file has no place (`Damaged`); the disk's.
    pub fn open(out: &Entry, bundle: &Layout, declared: &Declared<'_>, wanted: WantedOfTar<'_>) -> Result<ExistingTar> {
        let file = out.open(Open::Change)?;
        let WantedOfTar { files, chunks, stretches } = wanted;
        let of_chunks = chunks.then(|| (CHUNKS.to_owned(), declared.chunks_length()));
        let sizes = files.iter().map(|entry| (entry.path.clone(), entry.size)).chain(of_chunks);
        let places = sizes.map(|(path, size)| {
            let slice = bundle.slice(&path).ok()?.filter(|slice| slice.size() == size)?;
            Some((path, slice.offset()))
        });
        let places = places.collect::<Option<HashMap<String, u64>>>().filter(|_| bundle.faults().is_empty());
        let (at, survey) = match places {
            Some(at) => (at, None),
            None => {
                let survey = TarSurvey::of(&file, bundle, declared, chunks)?.ok_or_else(|| {
                    let text = "what is missing has no place in this tar, which gapferry did not lay out; unpack it, and repair the directory";
                    Error::damaged(format!("repairing {}: {text}", out.path().display()))
                })?;
                (survey.files.iter().map(|file| (file.path.clone(), file.data)).collect(), Some(survey))
            }
        };
        // One of another size has no room for a signature.
        let header = |path: &str| header_of_signature(&bundle.slice(path).ok().flatten()?);
        let signatures = signatures_of(bundle, SUMS).into_iter();
        let signatures = signatures.filter_map(|path| Some((path.to_owned(), header(path)?))).collect();
        let (path, mtime) = (out.path().into(), declared.json.mtime());
        let tar = ExistingTar { path, file: Arc::new(file), at, survey, mtime, signatures, stretches };
        tar.straighten()?;
        Ok(tar)
    }

    /// The same for `files` of a tar that is whole; `None`: one of them has no place in it, or one of another size.
    ///
    /// # Errors
    /// The disk's.
    pub fn with_room(out: &Entry, bundle: &Layout, mtime: u64, files: &[KnownFile]) -> Result<Option<ExistingTar>> {
        let (mut at, mut signatures) = (HashMap::new(), HashMap::new());
        for file in files {
            let Some(slice) = bundle.slice(&file.path)? else { return Ok(None) };
            let place = match is_signature(&file.path) {
                true => header_of_signature(&slice).map(|header| signatures.insert(file.path.clone(), header)),
                false if slice.size() == file.size() => Some(at.insert(file.path.clone(), slice.offset())),
                false => None,
            };
            if place.is_none() {
                return Ok(None);
            }
        }
        let (path, file) = (out.path().into(), Arc::new(out.open(Open::Change)?));
        Ok(Some(ExistingTar { path, file, at, survey: None, mtime, signatures, stretches: HashMap::new() }))
    }

    /// Whether the tar is written with a `chunks.b3` in another place than it had, or with one that it has lost.
    pub fn moves_chunks(&self, bundle: &Layout) -> bool {
        let found = bundle.slice(CHUNKS).ok().flatten().map(|slice| slice.offset());
        self.survey.is_some() && self.at.get(CHUNKS).is_some_and(|at| found != Some(*at))
    }

    /// Writes the headers, the padding and the end of a tar that has lost some of them.
    fn straighten(&self) -> Result<()> {
        let Some(TarSurvey { files, length, .. }) = &self.survey else { return Ok(()) };
        self.file.set_len(*length).map_err(|e| Error::disk("writing", &self.path, e))?;
        files.iter().try_for_each(|file| self.tar().write_frame(file))?;
        self.tar().write(&[0; END as usize], length.saturating_sub(END))
    }

    fn tar(&self) -> PlannedTar<'_> {
        PlannedTar { file: &self.file, path: &self.path, mtime: self.mtime }
    }

    fn place(&self, path: &str) -> Result<u64> {
        let lost = || Error::damaged(format!("repairing {}: {path} has no place", self.path.display()));
        self.at.get(path).copied().ok_or_else(lost)
    }

    /// Writes signatures where those of the same name are, or were; what has no place stays out.
    fn write_signatures<'f>(&self, files: impl Iterator<Item = &'f KnownFile>) -> Result<()> {
        let is_free = |at: &u64| !self.signatures.values().any(|taken| taken == at);
        let mut free = self.survey.iter().flat_map(|survey| &survey.signatures).copied().filter(is_free);
        for signature in files {
            let Some(at) = self.signatures.get(&signature.path).copied().or_else(|| free.next()) else { continue };
            let (path, size) = (signature.path.clone(), signature.size());
            let file = PlannedFile { path, size, header: at, data: at + BLOCK };
            self.tar().write_kept(&signature.bytes, file.data)?;
            self.tar().write_frame(&file)?;
        }
        Ok(())
    }
}

/// Where the header of a signature begins; `None`: what is there has another size than a signature, so none fits there.
fn header_of_signature(slice: &Slice) -> Option<u64> {
    let header = slice.offset().checked_sub(BLOCK)?;
    (header_and_padded(slice.size()) == SIGNATURE_ROOM).then_some(header)
}

fn header_and_padded(size: u64) -> u64 {
    BLOCK.saturating_add(size.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX))
}

impl Placement for ExistingTar {
    fn slot(&self, digest: &Digest, size: u64) -> Result<Slot> {
        let base = self.place(&digest.blob_path())?;
        let Some(stretches) = self.stretches.get(digest) else {
            return Ok(Slot::new(self.file.clone(), &self.path, base, size, 0));
        };
        let extent = |first: u64, size: u64| {
            let (file, path) = (self.file.clone(), self.path.clone());
            Extent { file, path, base: base + first, first, size, is_whole: false }
        };
        Ok(Slot::of(stretches.iter().map(|(first, size)| extent(*first, *size)).collect(), 0))
    }

    /// What is written again was proven before. If it reads otherwise the second time, the repair fails, and the next one writes
    /// the blob again.
    fn restarted(&self, _: &Digest, _: &Slot) -> Result<()> {
        Ok(())
    }

    fn advanced(&self, _: &Digest, _: u64) -> Result<()> {
        Ok(())
    }

    fn completed(&self, _: &Digest) -> Result<()> {
        Ok(())
    }

    fn linking(&self) -> Option<&dyn Linking> {
        None
    }

    fn resuming(&self) -> Option<&dyn Resuming> {
        None
    }

    fn seal(&self, files: &FileSet, trailer: &[KnownFile], _: &HashMap<Digest, Chunks>) -> Result<()> {
        let known = || files.head.iter().chain(trailer);
        self.write_signatures(known().filter(|file| is_signature(&file.path)))?;
        for file in known().filter(|file| !is_signature(&file.path)) {
            self.tar().write_kept(&file.bytes, self.place(&file.path)?)?;
        }
        for tool in &files.tools {
            self.tar().write_tool(tool, self.place(&tool.path())?)?;
        }
        self.file.sync_all().map_err(|e| Error::disk("syncing", &self.path, e))
    }
}
