//! An existing bundle in a tar, some of whose files are written again in place because they are damaged or signed again.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{Extent, Linking, Placement, Resuming, Slot};
use crate::base::error::{Error, Result};
use crate::base::fsops::{Entry, Open};
use crate::bundle::fileset::FileList;
use crate::bundle::fileset::{FileSet, KnownFile};
use crate::bundle::format::{CHUNKS, DIGITS, FileEntry, SUMS, is_signature, signatures_of, signed_file};
use crate::bundle::output::tar_survey::{SIGNATURE_ROOM, TarSurvey};
use crate::bundle::planned_tar::PlannedTar;
use crate::bundle::tar_plan::{BLOCK, END, PlannedFile};
use crate::content::Slice;
use crate::content::chunks::Chunks;
use crate::files::Layout;
use crate::oci::Digest;
use crate::signing::{is_well_formed, signature_in};

/// See the module documentation.
pub struct ExistingTar {
    path: Arc<Path>,
    file: Arc<File>,
    /// The position of the bytes of each file.
    at: HashMap<String, u64>,
    /// The layout of all entries, if headers must be written.
    survey: Option<TarSurvey>,
    /// Time of each entry, in seconds since 1970.
    mtime: u64,
    /// The existing and the new signatures, by path.
    signatures: HashMap<String, PlannedFile>,
    /// For these blobs, only these stretches are written, given by first byte and length.
    stretches: HashMap<Digest, Vec<(u64, u64)>>,
}

/// What to write into the tar.
pub struct WantedOfTar<'a> {
    pub files: &'a [FileEntry],
    pub chunks: bool,
    pub stretches: HashMap<Digest, Vec<(u64, u64)>>,
}

impl ExistingTar {
    /// Opens the tar `out`, which is read as `bundle`, and finds the place of every wanted file. A file with wrong bytes keeps
    /// its place, whichever program wrote the tar. Nothing is written yet. Returns `None` if a file has no place in it.
    ///
    /// # Errors
    /// The disk fails.
    pub fn open(
        out: &Entry,
        bundle: &Layout,
        list: &FileList<'_>,
        wanted: WantedOfTar<'_>,
    ) -> Result<Option<ExistingTar>> {
        let file = out.open(Open::Change)?;
        let WantedOfTar { files, chunks, stretches } = wanted;
        let of_chunks = chunks.then(|| (CHUNKS.to_owned(), list.chunks_length()));
        let sizes = files.iter().map(|entry| (entry.path.clone(), entry.size)).chain(of_chunks);
        let places = sizes.map(|(path, size)| {
            let slice = bundle.slice(&path).ok()?.filter(|slice| slice.size() == size)?;
            Some((path, slice.offset()))
        });
        let places = places.collect::<Option<HashMap<String, u64>>>().filter(|_| bundle.problems().is_empty());
        let (at, survey) = match places {
            Some(at) => (at, None),
            None => {
                let Some(survey) = TarSurvey::of(bundle, list, chunks)? else { return Ok(None) };
                (survey.files.iter().map(|file| (file.path.clone(), file.data)).collect(), Some(survey))
            }
        };
        let planned = |path: &str| planned_signature(path, &bundle.slice(path).ok().flatten()?);
        let signatures = [SUMS, CHUNKS].into_iter().flat_map(|signed| signatures_of(bundle, signed));
        let signatures = signatures.filter_map(|path| Some((path.to_owned(), planned(path)?))).collect();
        let (path, mtime) = (out.path().into(), list.json.mtime());
        let mut tar = ExistingTar { path, file: Arc::new(file), at, survey, mtime, signatures, stretches };
        tar.find_signatures();
        Ok(Some(tar))
    }

    /// Does the same for `files` of an intact tar. Returns `None` if one of them has no place, or one of another size.
    ///
    /// # Errors
    /// The disk fails.
    pub fn with_room(out: &Entry, bundle: &Layout, mtime: u64, files: &[KnownFile]) -> Result<Option<ExistingTar>> {
        let (mut at, mut signatures) = (HashMap::new(), HashMap::new());
        for file in files {
            let Some(slice) = bundle.slice(&file.path)? else { return Ok(None) };
            if is_signature(&file.path) {
                let Some(planned) = planned_signature(&file.path, &slice) else { return Ok(None) };
                signatures.insert(file.path.clone(), planned);
            } else if slice.size() == file.size() {
                at.insert(file.path.clone(), slice.offset());
            } else {
                return Ok(None);
            }
        }
        let (path, file) = (out.path().into(), Arc::new(out.open(Open::Change)?));
        Ok(Some(ExistingTar { path, file, at, survey: None, mtime, signatures, stretches: HashMap::new() }))
    }

    /// Whether the tar gets a `chunks.b3` in another place, or one that it had lost.
    pub fn moves_chunks(&self, bundle: &Layout) -> bool {
        let found = bundle.slice(CHUNKS).ok().flatten().map(|slice| slice.offset());
        self.survey.is_some() && self.at.get(CHUNKS).is_some_and(|at| found != Some(*at))
    }

    /// Finds signatures that have lost only their headers, without which nothing after them can be read. Their names are lost,
    /// but a name is only a hint.
    fn find_signatures(&mut self) {
        for signed in [SUMS, CHUNKS] {
            for header in self.free_places(signed) {
                let (mut block, data) = ([0; BLOCK as usize], header + BLOCK);
                let is_read = self.file.read_exact_at(&mut block, data).is_ok();
                let Some(signature) = signature_at(&block).filter(|_| is_read) else { continue };
                let plain = format!("{signed}.sig");
                let path = match self.signatures.contains_key(&plain) {
                    true => format!("{signed}.{}.sig", &Digest::sha256(signature).hex()[..DIGITS]),
                    false => plain,
                };
                let size = signature.len() as u64;
                self.signatures.insert(path.clone(), PlannedFile { path, size, header, data });
            }
        }
    }

    /// The positions of lost headers of signatures of this file.
    fn free_places(&self, signed: &str) -> Vec<u64> {
        let Some(survey) = &self.survey else { return Vec::new() };
        let places = if signed == CHUNKS { &survey.chunks_signatures } else { &survey.signatures };
        let is_free = |header: &u64| self.signatures.values().all(|taken| taken.header != *header);
        places.iter().copied().filter(is_free).collect()
    }

    /// Writes the headers, the padding and the end of a tar that has lost some of them. The tar ends before lost signatures of
    /// `chunks.b3`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn straighten(&self) -> Result<()> {
        let Some(TarSurvey { files, chunks_signatures, length, .. }) = &self.survey else { return Ok(()) };
        let free = self.free_places(CHUNKS);
        let lost = chunks_signatures.iter().rev().take_while(|header| free.contains(header)).count() as u64;
        let length = length.saturating_sub(lost * SIGNATURE_ROOM);
        self.file.set_len(length).map_err(|e| Error::disk("writing", &self.path, e))?;
        files.iter().chain(self.signatures.values()).try_for_each(|file| self.tar().write_frame(file))?;
        self.tar().write(&[0; END as usize], length.saturating_sub(END))
    }

    fn tar(&self) -> PlannedTar<'_> {
        PlannedTar { file: &self.file, path: &self.path, mtime: self.mtime }
    }

    fn place(&self, path: &str) -> Result<u64> {
        let lost = || Error::damaged(format!("repairing {}: there is no place for {path}", self.path.display()));
        self.at.get(path).copied().ok_or_else(lost)
    }

    /// Finds a place for a signature: that of one with the same name, or of one that has lost its header. Returns `false` if
    /// there is neither.
    pub fn place_signature(&mut self, signature: &KnownFile) -> bool {
        let free = || self.free_places(signed_file(&signature.path)?).into_iter().next();
        let header = self.signatures.get(&signature.path).map(|there| there.header).or_else(free);
        let Some(header) = header else { return false };
        let (path, size) = (signature.path.clone(), signature.size());
        self.signatures.insert(path.clone(), PlannedFile { path, size, header, data: header + BLOCK });
        true
    }

    /// Writes a signature that has a place.
    fn write_signature(&self, signature: &KnownFile) -> Result<()> {
        let Some(there) = self.signatures.get(&signature.path) else { return Ok(()) };
        let planned = PlannedFile { size: signature.size(), ..there.clone() };
        self.tar().write_small(&planned, &signature.read()?)
    }
}

/// The signature at the start of a block, if zeros follow it.
fn signature_at(block: &[u8]) -> Option<&[u8]> {
    // The last bytes of a signature may be zeros.
    const MOST_ZEROS: usize = 8;
    let end = block.iter().rposition(|byte| *byte != 0)? + 1;
    let candidates = (end..=(end + MOST_ZEROS).min(block.len())).filter_map(|end| block.get(..end));
    candidates.into_iter().find(|bytes| is_well_formed(&signature_in(bytes)))
}

/// The place of an existing signature; `None` if its size is not that of a signature.
fn planned_signature(path: &str, slice: &Slice) -> Option<PlannedFile> {
    let (size, data) = (slice.size(), slice.offset());
    let header = data.checked_sub(BLOCK)?;
    let room = size.checked_next_multiple_of(BLOCK)?.checked_add(BLOCK)?;
    (room == SIGNATURE_ROOM).then(|| PlannedFile { path: path.to_owned(), size, header, data })
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

    /// What is written again was proven before. If it reads differently the second time, the repair fails, and the next one
    /// writes the blob again.
    fn restarted(&self, _: &Digest, _: &Slot) -> Result<()> {
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
        known().filter(|file| is_signature(&file.path)).try_for_each(|file| self.write_signature(file))?;
        for file in known().filter(|file| !is_signature(&file.path)) {
            self.tar().write_kept(&file.bytes, self.place(&file.path)?)?;
        }
        for tool in &files.tools {
            self.tar().write_tool(tool, self.place(&tool.path())?)?;
        }
        self.file.sync_all().map_err(|e| Error::disk("syncing", &self.path, e))
    }
}
