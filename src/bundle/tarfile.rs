//! The tar form while it is written: `OUT.tar.partial`, reserved at its full length and filled in place, and a journal.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{Metadata, is_signature};
use super::journal::{Claims, Journal};
use super::offsets::{self, TarPlan};
use super::place::{Place, Sealing, Slot};
use super::{leftovers, medium};
use crate::base::error::{Error, Result};
use crate::base::progress::Events;
use crate::content::Slice;
use crate::oci::Digest;

pub struct TarFile {
    out: PathBuf,
    path: PathBuf,
    file: Arc<File>,
    plan: TarPlan,
    /// Index into `plan.files`, by path.
    position: HashMap<String, usize>,
    journal: Journal,
    /// What the journal of an earlier run says of this very layout.
    claims: Claims,
}

/// Where an unfinished tar is, and its journal.
pub fn partial(out: &Path) -> (PathBuf, PathBuf) {
    let path = medium::beside(out, ".partial");
    let journal = medium::beside(&path, ".journal");
    (path, journal)
}

/// The same of a run whose layout is not wanted any more; kept until its blobs have moved.
pub fn former(out: &Path) -> (PathBuf, PathBuf) {
    let path = medium::beside(out, ".partial.old");
    let journal = medium::beside(&path, ".journal");
    (path, journal)
}

/// Something else may have the place of an unfinished tar or its journal.
///
/// # Errors
/// It has.
pub fn refuse_foreign(out: &Path) -> Result<()> {
    let (path, journal) = partial(out);
    medium::refuse_other_than_file(&path)?;
    medium::refuse_other_than_file(&journal)
}

/// Removes what [`former`] names, once its blobs have moved; gives the bytes of those that have not. There may be none.
pub fn drop_former(out: &Path, moved: impl Fn(&Digest) -> bool) -> u64 {
    let (old, journal) = former(out);
    let lost = Claims::read(&journal).filter(|_| old.exists()).map_or(0, |claims| claims.lost(moved));
    let _ = fs::remove_file(old);
    let _ = fs::remove_file(journal);
    lost
}

/// Removes an unfinished bundle.
pub fn abandon(out: &Path) -> Result<()> {
    refuse_foreign(out)?;
    drop_former(out, |_| true);
    let (path, journal) = partial(out);
    for path in [path, journal].into_iter().filter(|path| path.exists()) {
        fs::remove_file(&path).map_err(|e| Error::disk("removing", &path, e))?;
    }
    Ok(())
}

/// Bytes that the file system has given to an unfinished tar of this layout already.
pub fn reserved(out: &Path, plan: &TarPlan) -> u64 {
    let (_, journal) = partial(out);
    let same = Claims::read(&journal).is_some_and(|claims| claims.fingerprint == plan.fingerprint().to_string());
    if same { begun(out) } else { 0 }
}

/// Bytes that an unfinished tar of any layout has of the file system.
pub fn begun(out: &Path) -> u64 {
    let (path, _) = partial(out);
    path.metadata().map_or(0, |metadata| metadata.blocks().saturating_mul(512))
}

/// Keeps an unfinished tar of another layout, of which its journal says `claims`, unless more is in one that is kept
/// already: a run that failed early must not cost what an earlier one has fetched. Gives the bytes that are not kept.
fn set_aside(out: &Path, claims: &Claims) -> Result<u64> {
    let (path, journal) = partial(out);
    let (old, old_journal) = former(out);
    let kept = Claims::read(&old_journal).filter(|_| old.exists()).unwrap_or_default();
    if claims.done.is_empty() || claims.done.len() < kept.done.len() {
        fs::remove_file(&path).map_err(|e| Error::disk("removing", &path, e))?;
        return Ok(claims.lost(|digest| kept.done.contains(digest)));
    }
    fs::rename(&path, &old).map_err(|e| Error::disk("setting aside", &path, e))?;
    fs::rename(&journal, &old_journal).map_err(|e| Error::disk("setting aside", &journal, e))?;
    Ok(kept.lost(|digest| claims.done.contains(digest)))
}

impl TarFile {
    /// Continues the unfinished tar of the same layout, or begins one; one of another layout is set aside as
    /// [`former`].
    pub fn create(out: &Path, plan: TarPlan, blobs: impl Iterator<Item = Digest>, events: &Events) -> Result<TarFile> {
        let (path, journal_path) = partial(out);
        let fingerprint = plan.fingerprint().to_string();
        let position: HashMap<String, usize> =
            plan.files.iter().enumerate().map(|(at, f)| (f.path.clone(), at)).collect();
        let claims = Claims::read(&journal_path).filter(|_| path.exists());
        let (same, other) = match claims {
            Some(claims) if claims.fingerprint == fingerprint => (Some(claims), None),
            other => (None, other),
        };
        let mut lost = 0;
        if same.is_none() && path.exists() {
            lost = set_aside(out, &other.unwrap_or_default())?;
        }
        let file = medium::open_own(&path, OpenOptions::new().create(true).truncate(false).read(true).write(true))?;
        let mut reserved = medium::reserve(&file, &path, plan.length);
        if reserved.as_ref().is_err_and(Error::is_disk_full) && former(out).0.exists() {
            lost = lost.saturating_add(drop_former(out, |_| false));
            reserved = medium::reserve(&file, &path, plan.length);
        }
        leftovers::tell_lost(out, lost, events);
        reserved?;
        let journal = match &same {
            Some(_) => Journal::resume(&journal_path)?,
            None => {
                let place = |digest: Digest| {
                    let file = &plan.files[*position.get(&digest.blob_path())?];
                    Some((digest, file.data, file.size))
                };
                Journal::begin(&journal_path, &fingerprint, blobs.filter_map(place))?
            }
        };
        Ok(TarFile {
            out: out.to_owned(),
            path,
            file: Arc::new(file),
            plan,
            position,
            journal,
            claims: same.unwrap_or_default(),
        })
    }

    fn slice(&self, digest: &Digest) -> Option<Slice> {
        let file = &self.plan.files[*self.position.get(&digest.blob_path())?];
        Some(Slice::new(self.file.clone(), &self.path, file.data, file.size))
    }

    /// A signature's length is known only when it is made.
    fn as_written(&self, planned: &offsets::TarFile, metadata: &[Metadata]) -> offsets::TarFile {
        let signature = metadata.iter().find(|file| is_signature(&file.path) && planned.path == file.path);
        let size = signature.map_or(planned.size, |file| file.bytes.len() as u64);
        offsets::TarFile { size, ..planned.clone() }
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(|e| Error::disk("writing", &self.path, e))
    }
}

impl Place for TarFile {
    fn slot(&self, digest: &Digest, size: u64) -> Result<Slot> {
        let Some(at) = self.position.get(&digest.blob_path()) else {
            return Err(Error::input(format!("writing {}: {digest} is not part of it", self.path.display())));
        };
        let part = self.claims.part.get(digest).copied().unwrap_or_default().min(size);
        // Said to be finished, and wanted all the same: it was found wrong.
        let present = if self.claims.done.contains(digest) { 0 } else { part };
        let base = self.plan.files[*at].data;
        Ok(Slot::new(self.file.clone(), &self.path, base, size, present))
    }

    fn restarted(&self, _: &Slot) -> Result<()> {
        Ok(())
    }

    fn advanced(&self, digest: &Digest, written: u64) -> Result<()> {
        self.journal.part(digest, written)
    }

    fn completed(&self, digest: &Digest) -> Result<()> {
        self.journal.done(digest)
    }

    fn claimed(&self) -> Vec<(Digest, Slice)> {
        self.claims.done.iter().filter_map(|digest| Some((*digest, self.slice(digest)?))).collect()
    }

    fn seal(&self, sealing: &Sealing<'_>) -> Result<()> {
        let Sealing { metadata, manifests, mtime, .. } = *sealing;
        for file in &self.plan.files {
            self.write(&self.as_written(file, metadata).header_blocks(mtime), file.header)?;
        }
        let whole = |path: &str, bytes: &[u8]| match self.position.get(path) {
            Some(at) => self.write(bytes, self.plan.files[*at].data),
            None => Ok(()),
        };
        for manifest in manifests {
            whole(&manifest.digest().blob_path(), &manifest.bytes()?)?;
        }
        for file in metadata {
            whole(&file.path, &file.bytes)?;
        }
        for tool in sealing.tools {
            if let Some(at) = self.position.get(&tool.path()) {
                let file = &self.plan.files[*at];
                tool.write_to(&Slot::new(self.file.clone(), &self.path, file.data, file.size, 0))?;
            }
        }
        // A file that was longer, on a file system that cannot reserve.
        self.file.set_len(self.plan.length).map_err(|e| Error::disk("ending", &self.path, e))?;
        self.file.sync_all().map_err(|e| Error::disk("syncing", &self.path, e))?;
        fs::rename(&self.path, &self.out).map_err(|e| Error::disk("naming the finished bundle", &self.out, e))?;
        // That it is left cannot harm a finished bundle.
        let _ = fs::remove_file(partial(&self.out).1);
        medium::sync_directory(medium::parent(&self.out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Silent;

    fn create(out: &Path, content: &[u8]) -> TarFile {
        let digest = Digest::sha256(content);
        let plan = TarPlan::new([(digest.blob_path(), content.len() as u64)]).unwrap();
        TarFile::create(out, plan, [digest].into_iter(), &(Arc::new(Silent) as Events)).unwrap()
    }

    #[test]
    fn a_run_that_failed_early_does_not_cost_what_an_earlier_one_has_fetched() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("b.tar");
        let fetched = Digest::sha256(b"fetched for an hour");
        create(&out, b"fetched for an hour").completed(&fetched).unwrap();
        // The allowlist has changed, and the disk is too full for the new layout: no journal was begun.
        create(&out, b"another layout");
        fs::remove_file(partial(&out).1).unwrap();
        // Then with room, but killed before anything was finished; then with yet another allowlist.
        create(&out, b"the third layout");
        create(&out, b"the fourth layout, of another length");
        let kept = Claims::read(&former(&out).1).unwrap();
        assert!(kept.done.contains(&fetched) && former(&out).0.exists());
    }

    #[test]
    fn only_room_that_was_reserved_for_this_layout_counts() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("b.tar");
        let tar = create(&out, &[1; 100_000]);
        assert!(reserved(&out, &tar.plan) >= 100_000);
        let other = TarPlan::new([("other".to_owned(), 100_000)]).unwrap();
        assert_eq!(reserved(&out, &other), 0, "it is kept until its blobs have moved");
    }
}
