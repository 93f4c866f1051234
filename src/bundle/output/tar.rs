//! Writes the tar form: `OUT.tar.partial`, reserved at its full size and filled in place, and a journal.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::{ClaimedBlob, Linking, Placement, Resuming, Slot, WantedBlob, report_lost};
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Entry, Occupant, Open, publish_over};
use crate::base::progress::Events;
use crate::bundle::fileset::{FileSet, KnownFile};
use crate::bundle::journal::{Claims, Journal};
use crate::bundle::planned_tar::PlannedTar;
use crate::bundle::tar_plan::{PlannedFile, TarPlan};
use crate::content::Slice;
use crate::content::chunks::Chunks;
use crate::oci::Digest;

/// See the module documentation.
pub struct TarOutput {
    out: Entry,
    /// What had the name at the start; nothing else is replaced.
    former: Occupant,
    partial: Entry,
    file: Arc<File>,
    plan: TarPlan,
    /// Index into `plan.files` by path.
    position: HashMap<String, usize>,
    journal: Journal,
    /// What the journal of an earlier run says about this very layout.
    claims: Claims,
}

/// The names of an unfinished tar and its journal.
pub fn partial(out: &Entry) -> (Entry, Entry) {
    (out.beside(".partial"), out.beside(".partial.journal"))
}

/// The names for one whose layout is no longer wanted; it is kept until its blobs have been moved.
pub fn former(out: &Entry) -> (Entry, Entry) {
    (out.beside(".partial.old"), out.beside(".partial.old.journal"))
}

/// Rejects foreign files in the place of an unfinished tar or its journal.
///
/// # Errors
/// Something else has one of the places.
pub fn refuse_foreign(out: &Path) -> Result<()> {
    fsops::refuse_other_than_file(&fsops::beside(out, ".partial"))?;
    fsops::refuse_other_than_file(&fsops::beside(out, ".partial.journal"))
}

/// Removes what [`former`] names once its blobs have been moved. Returns the bytes of those that have not.
pub fn drop_former(out: &Entry, moved: impl Fn(&Digest) -> bool) -> u64 {
    let (old, journal) = former(out);
    let lost = Claims::read(&journal).filter(|_| old.exists()).map_or(0, |claims| claims.lost(moved));
    let _ = old.remove();
    let _ = journal.remove();
    lost
}

/// Removes an unfinished bundle.
pub fn abandon(out: &Entry) -> Result<()> {
    refuse_foreign(out.path())?;
    drop_former(out, |_| true);
    let (path, journal) = partial(out);
    path.remove()?;
    journal.remove()
}

/// Removes the journal of a tar that has its final name: a run that was killed at that moment has left it.
pub fn remove_orphaned_journal(out: &Path) {
    let Ok(out) = Entry::of(out) else { return };
    let (unfinished, journal) = partial(&out);
    // It may belong to a tar that was set aside ([`finish_setting_aside`]).
    if !unfinished.exists() && !former(&out).0.exists() {
        // It does no harm.
        let _ = journal.remove();
    }
}

/// Bytes that are already allocated for an unfinished tar of this layout.
pub fn reserved(out: &Entry, plan: &TarPlan) -> u64 {
    let (_, journal) = partial(out);
    let same = Claims::read(&journal).is_some_and(|claims| claims.fingerprint == Some(plan.fingerprint()));
    if same { begun(out) } else { 0 }
}

/// Bytes allocated for an unfinished tar of any layout.
pub fn begun(out: &Entry) -> u64 {
    partial(out).0.allocated()
}

/// Keeps an unfinished tar of another layout, whose journal contains `claims`, unless the tar that is already kept has more
/// bytes: a run that failed early must not discard what an earlier one has fetched. Returns the bytes that are not kept.
///
/// A journal exists without its tar only if the tar has its new name already; [`finish_setting_aside`] relies on that.
fn set_aside(out: &Entry, claims: &Claims) -> Result<u64> {
    let (path, journal) = partial(out);
    let (old, old_journal) = former(out);
    let kept = Claims::read(&old_journal).filter(|_| old.exists()).unwrap_or_default();
    let (bytes, of_kept) = (claims.lost(|_| false), kept.lost(|_| false));
    if bytes == 0 || bytes < of_kept {
        journal.remove()?;
        path.remove()?;
        return Ok(claims.lost(|digest| kept.done.contains(digest)));
    }
    path.rename(&old)?;
    journal.rename(&old_journal)?;
    Ok(kept.lost(|digest| claims.done.contains(digest)))
}

/// Renames the journal of a tar that was renamed before the run was killed.
fn finish_setting_aside(out: &Entry) -> Result<()> {
    let ((path, journal), (old, old_journal)) = (partial(out), former(out));
    let is_stopped = old.exists() && !path.exists() && Claims::read(&journal).is_some();
    if is_stopped { journal.rename(&old_journal) } else { Ok(()) }
}

impl TarOutput {
    /// Continues the unfinished tar of the same layout, or starts one. One of another layout is set aside as [`former`].
    pub fn create(
        out: &Entry,
        plan: TarPlan,
        blobs: impl Iterator<Item = Digest>,
        events: &Events,
    ) -> Result<TarOutput> {
        let occupant = out.occupant();
        finish_setting_aside(out)?;
        let (path, journal_path) = partial(out);
        let fingerprint = plan.fingerprint();
        let position: HashMap<String, usize> =
            plan.files.iter().enumerate().map(|(at, f)| (f.path.clone(), at)).collect();
        let claims = Claims::read(&journal_path).filter(|_| path.exists());
        let (same, other) = match claims {
            Some(claims) if claims.fingerprint == Some(fingerprint) => (Some(claims), None),
            other => (None, other),
        };
        let mut lost = 0;
        if same.is_none() && path.exists() {
            lost = set_aside(out, &other.unwrap_or_default())?;
        }
        let file = path.open(Open::Keep)?;
        let mut reserved = fsops::reserve(&file, path.path(), plan.length);
        if reserved.as_ref().is_err_and(Error::is_disk_full) && former(out).0.exists() {
            lost = lost.saturating_add(drop_former(out, |_| false));
            reserved = fsops::reserve(&file, path.path(), plan.length);
        }
        report_lost(out.path(), lost, events);
        reserved?;
        let journal = match &same {
            Some(_) => Journal::resume(&journal_path)?,
            None => {
                let place = |digest: Digest| {
                    let file = &plan.files[*position.get(&digest.blob_path())?];
                    Some((digest, file.data, file.size))
                };
                Journal::begin(&journal_path, fingerprint, blobs.filter_map(place))?
            }
        };
        Ok(TarOutput {
            out: out.clone(),
            former: occupant,
            partial: path,
            file: Arc::new(file),
            plan,
            position,
            journal,
            claims: same.unwrap_or_default(),
        })
    }

    fn slice(&self, digest: &Digest) -> Option<Slice> {
        let file = &self.plan.files[*self.position.get(&digest.blob_path())?];
        Some(Slice::new(self.file.clone(), self.partial.path(), file.data, file.size))
    }
}

impl Placement for TarOutput {
    fn slot(&self, digest: &Digest, size: u64) -> Result<Slot> {
        let Some(at) = self.position.get(&digest.blob_path()) else {
            return Err(Error::input(format!(
                "writing {}: {digest} does not belong to it",
                self.partial.path().display()
            )));
        };
        let part = self.claims.part.get(digest).copied().unwrap_or_default().min(size);
        // A blob that is called complete and still wanted was found to be wrong.
        let present = if self.claims.done.contains(digest) { 0 } else { part };
        let base = self.plan.files[*at].data;
        Ok(Slot::new(self.file.clone(), self.partial.path(), base, size, present))
    }

    fn restarted(&self, digest: &Digest, _: &Slot) -> Result<()> {
        self.journal.part(digest, 0)
    }

    fn completed(&self, digest: &Digest) -> Result<()> {
        self.journal.done(digest)
    }

    fn linking(&self) -> Option<&dyn Linking> {
        None
    }

    fn resuming(&self) -> Option<&dyn Resuming> {
        Some(self)
    }

    fn seal(&self, files: &FileSet, trailer: &[KnownFile], _: &HashMap<Digest, Chunks>) -> Result<()> {
        let trailer: HashMap<&str, &KnownFile> = trailer.iter().map(|file| (file.path.as_str(), file)).collect();
        let tar = PlannedTar { file: &self.file, path: self.partial.path(), mtime: files.mtime };
        for planned in &self.plan.files {
            // A signature's length may be known only when it is made.
            let size = trailer.get(planned.path.as_str()).map_or(planned.size, |file| file.size());
            tar.write_frame(&PlannedFile { size, ..planned.clone() })?;
        }
        let known = files.head.iter().chain(trailer.into_values()).map(|file| (file.path.clone(), &file.bytes));
        let manifests = files.manifests.iter().map(|manifest| (manifest.digest().blob_path(), manifest.kept()));
        for (path, bytes) in known.chain(manifests) {
            let Some(at) = self.position.get(&path) else { continue };
            tar.write_kept(bytes, self.plan.files[*at].data)?;
        }
        for tool in &files.tools {
            if let Some(at) = self.position.get(&tool.path()) {
                tar.write_tool(tool, self.plan.files[*at].data)?;
            }
        }
        tar.end(self.plan.length)?;
        publish_over(&self.file, &self.partial, &self.out, self.former)?;
        // A journal that stays does not harm a finished bundle.
        let _ = partial(&self.out).1.remove();
        self.out.dir().sync()
    }
}

impl Resuming for TarOutput {
    fn claims(&self, wanted: &HashMap<Digest, u64>) -> Result<Vec<ClaimedBlob<'_>>> {
        let claim = |digest: Digest, slice: Slice, in_place| {
            let blob = WantedBlob { digest, size: slice.size() };
            ClaimedBlob { blob, in_place, open: Box::new(move || Ok(slice.clone())) }
        };
        let done = self.claims.done.iter().filter(|digest| wanted.contains_key(digest));
        let mut claims: Vec<ClaimedBlob<'_>> =
            done.filter_map(|digest| Some(claim(*digest, self.slice(digest)?, true))).collect();
        let (old, journal) = former(&self.out);
        if let (Ok(file), Some(journal)) = (old.open(Open::Read), Claims::read(&journal)) {
            let file = Arc::new(file);
            for digest in &journal.done {
                if let Some((offset, size)) = journal.places.get(digest)
                    && wanted.get(digest) == Some(size)
                {
                    claims.push(claim(*digest, Slice::new(file.clone(), old.path(), *offset, *size), false));
                }
            }
        }
        Ok(claims)
    }

    fn journal(&self) -> Option<&Journal> {
        Some(&self.journal)
    }

    fn refute(&self, digest: &Digest) -> Result<()> {
        self.journal.part(digest, 0)
    }

    fn adopted(&self, present: &HashMap<Digest, Chunks>, events: &Events) {
        report_lost(self.out.path(), drop_former(&self.out, |digest| present.contains_key(digest)), events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    use crate::base::progress::Silent;
    use crate::bundle::SIGNATURE;
    use crate::bundle::format::Metadata;
    use crate::files::Layout;

    fn events() -> Events {
        Arc::new(Silent)
    }

    fn create(out: &Entry, content: &[u8]) -> TarOutput {
        let digest = Digest::sha256(content);
        let plan = TarPlan::new([(digest.blob_path(), content.len() as u64)]).unwrap();
        TarOutput::create(out, plan, [digest].into_iter(), &events()).unwrap()
    }

    #[test]
    fn a_run_that_failed_early_does_not_cost_what_an_earlier_one_has_fetched() {
        let directory = tempfile::tempdir().unwrap();
        let out = Entry::of(&directory.path().join("b.tar")).unwrap();
        let fetched = Digest::sha256(b"fetched for an hour");
        create(&out, b"fetched for an hour").completed(&fetched).unwrap();
        // The allowlist has changed, and the disk is too full for the new layout: no journal was started.
        create(&out, b"another layout");
        partial(&out).1.remove().unwrap();
        // Then with space, but killed before anything was finished; then with yet another allowlist.
        create(&out, b"the third layout");
        create(&out, b"the fourth layout, of another length");
        let kept = Claims::read(&former(&out).1).unwrap();
        assert!(kept.done.contains(&fetched) && former(&out).0.exists());
    }

    /// Otherwise the next run would fetch everything again.
    #[test]
    fn a_run_that_stops_while_it_sets_a_tar_aside_loses_nothing_that_was_fetched() {
        let directory = tempfile::tempdir().unwrap();
        let out = Entry::of(&directory.path().join("b.tar")).unwrap();
        let (first, fetched) = (Digest::sha256(b"first"), Digest::sha256(b"fetched for an hour"));
        create(&out, b"first").completed(&first).unwrap();
        create(&out, b"fetched for an hour").completed(&fetched).unwrap();
        // The tar gets its new name but its journal does not, as if the run had been killed in between.
        let (old, journal) = former(&out);
        journal.remove().unwrap();
        std::fs::create_dir(journal.path()).unwrap();
        let plan = TarPlan::new([(fetched.blob_path(), 19), (Digest::sha256(b"new").blob_path(), 3)]).unwrap();
        let stopped = TarOutput::create(&out, plan.clone(), [fetched].into_iter(), &events());
        assert!(stopped.is_err() && old.exists() && !partial(&out).0.exists(), "stopped between the two");
        std::fs::remove_dir(journal.path()).unwrap();
        let resumed = TarOutput::create(&out, plan, [fetched].into_iter(), &events()).unwrap();
        let claims = resumed.claims(&HashMap::from([(fetched, 19)])).unwrap();
        assert_eq!(claims.iter().map(|claim| claim.blob.digest).collect::<Vec<_>>(), [fetched]);
    }

    /// A new signature may be shorter than the one that an interrupted run has written.
    ///
    #[test]
    fn nothing_of_a_longer_signature_stays_behind_a_shorter_one() {
        let directory = tempfile::tempdir().unwrap();
        let out = Entry::of(&directory.path().join("b.tar")).unwrap();
        let files = |length: usize| {
            let signature = Metadata::new(SIGNATURE, vec![7; length]);
            FileSet::of_known(Digest::sha256(b"bundle"), 0, vec![signature.into()])
        };
        let create = |length| TarOutput::create(&out, files(length).tar().unwrap(), [].into_iter(), &events()).unwrap();
        let stopped = create(72);
        stopped.file.write_all_at(&[7; 72], stopped.plan.files[0].data).unwrap();
        create(70).seal(&files(70), &[], &HashMap::new()).unwrap();
        assert_eq!(Layout::open(out.path()).unwrap().problems(), []);
    }

    #[test]
    fn nothing_of_another_layout_stays_behind_the_last_file() {
        let directory = tempfile::tempdir().unwrap();
        let out = Entry::of(&directory.path().join("b.tar")).unwrap();
        let files = FileSet::of_known(Digest::sha256(b"bundle"), 0, vec![Metadata::new(SIGNATURE, vec![7; 72]).into()]);
        let tar = TarOutput::create(&out, files.tar().unwrap(), [].into_iter(), &events()).unwrap();
        let length = tar.plan.length;
        tar.file.write_all_at(&[9; 3_000], length - 1_024).unwrap();
        tar.seal(&files, &[], &HashMap::new()).unwrap();
        assert_eq!(Layout::open(out.path()).unwrap().problems(), []);
        assert_eq!(out.path().metadata().unwrap().len(), length);
    }

    #[test]
    fn the_unfinished_tar_that_has_more_bytes_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let out = Entry::of(&directory.path().join("b.tar")).unwrap();
        let layer = [1; 50_000];
        let began = create(&out, &layer);
        began.journal.part(&Digest::sha256(&layer), 49_000).unwrap();
        create(&out, b"small").completed(&Digest::sha256(b"small")).unwrap();
        create(&out, b"another layout");
        let kept = Claims::read(&former(&out).1).unwrap();
        assert_eq!(kept.part.get(&Digest::sha256(&layer)), Some(&49_000), "49,000 bytes are more than 5");
    }

    #[test]
    fn a_blob_that_was_found_wrong_is_continued_from_where_it_is_fetched_again() {
        let directory = tempfile::tempdir().unwrap();
        let out = Entry::of(&directory.path().join("b.tar")).unwrap();
        let (bytes, digest) = ([1; 5_000], Digest::sha256(&[1; 5_000]));
        create(&out, &bytes).completed(&digest).unwrap();
        let again = create(&out, &bytes);
        again.refute(&digest).unwrap();
        again.journal.part(&digest, 3_000).unwrap();
        let third = create(&out, &bytes);
        assert!(third.claims(&HashMap::from([(digest, 5_000)])).unwrap().is_empty());
        assert_eq!(third.slot(&digest, 5_000).unwrap().present, 3_000);
    }

    #[test]
    fn only_room_that_was_reserved_for_this_layout_counts() {
        let directory = tempfile::tempdir().unwrap();
        let out = Entry::of(&directory.path().join("b.tar")).unwrap();
        let tar = create(&out, &[1; 100_000]);
        assert!(reserved(&out, &tar.plan) >= 100_000);
        let other = TarPlan::new([("other".to_owned(), 100_000)]).unwrap();
        assert_eq!(reserved(&out, &other), 0, "it is kept until its blobs have moved");
    }
}
