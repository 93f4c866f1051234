//! The progress of an import that receives its volumes one by one: a small file, and next to it segments of blobs that are not
//! complete yet.
//!
//! The target is asked what it has every time. The file records which volumes were available, so that gapferry can say which
//! ones are still needed, and describes the segments. It can be interrupted anywhere: a segment gets its name when it is
//! complete and synced, and the file is replaced atomically.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{KeptPiece, SetId, Volume, VolumeFile};
use crate::base::bounded::read_all;
use crate::base::document::{Document, Unbounded};
use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::{self, Dir, Entry, LockedDir, Replacement};
use crate::content::Slice;
use crate::content::proof::{self, Unproven, Wrong, prove};
use crate::files::Layout;
use crate::oci::Digest;

/// The version of the file, the only one that is read and written.
const STATE_VERSION: u32 = 2;
/// Maximum size of the file in bytes, and maximum number of values in it.
const MAX_STATE: u64 = 384 * 1024 * 1024;
const MOST_VALUES: usize = 10_000_000;

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::bundle) struct StateJson {
    gapferry_import: u32,
    /// The identity of the bundle.
    identity: Digest,
    /// The number of volumes and recovery volumes, and the maximum size of a volume: another split has other segments.
    of: u32,
    recovery: u32,
    limit: u64,
    /// The target, as given.
    target: String,
    /// Volumes that were completely imported.
    volumes: Vec<Taken>,
    /// Segments that are kept.
    segments: Vec<VolumeFile>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    number: u32,
    /// Entries of its tar: if the target loses something, the volume is needed again.
    holds: Vec<String>,
}

impl Document for StateJson {
    const NAME: &'static str = "the state of the import";
    const VERSION_KEY: &'static str = "gapferryImport";
    const VERSION: u32 = STATE_VERSION;
    const MAX_BYTES: u64 = MAX_STATE;
    const MAX_VALUES: usize = MOST_VALUES;
    const KIND: Kind = Kind::Input;
    const TOO_OLD: &'static str =
        "it was written by a version before 0.2: remove it, and import all volumes of a new export";
    type Outline = Unbounded;
}

/// See the module documentation.
pub struct ImportState {
    path: PathBuf,
    /// Where the segments are.
    directory: PathBuf,
    target: String,
    json: Option<StateJson>,
    writes: bool,
    /// Held so that no second run changes the segments.
    kept: Option<Segments>,
}

/// The open directory of the segments.
struct Segments {
    entry: Entry,
    locked: LockedDir,
}

impl ImportState {
    /// Reads the state of an import into `target`. If none exists, nothing is created before the set is known
    /// ([`ImportState::bind`]). Without `writes`, nothing is created at all.
    ///
    /// # Errors
    /// It is the state of an import into another target, or not a state; another run holds it; or the disk fails.
    pub fn open(path: &Path, target: &str, writes: bool) -> Result<ImportState> {
        let directory = fsops::beside(path, ".segments");
        fsops::refuse_other_than_directory(&directory)?;
        fsops::refuse_other_than_file(path)?;
        let (path, target) = (path.to_owned(), target.to_owned());
        let mut state = ImportState { path, directory, target, json: None, writes, kept: None };
        state.json = state.read()?;
        if state.json.is_some() || state.directory.exists() {
            state.lock_dir()?;
        }
        Ok(state)
    }

    fn read(&self) -> Result<Option<StateJson>> {
        let json = read(&self.path)?;
        match json.as_ref().map(|json| &json.target).filter(|other| **other != self.target) {
            None => Ok(json),
            Some(other) => {
                let text = format!("belongs to an import into {other}, not {}", self.target);
                Err(Error::input(format!("{} {text}: name another file, or remove it", self.path.display())))
            }
        }
    }

    /// Locks the state and the segments, if this run writes. Another run may have written until then, so the state is read
    /// again.
    fn lock_dir(&mut self) -> Result<()> {
        if !self.writes || self.kept.is_some() {
            return Ok(());
        }
        Dir::create(fsops::parent(&self.directory))?;
        let entry = Entry::of(&self.directory)?;
        loop {
            let dir = entry.dir().make(entry.name(), 0o777)?.dir;
            let locked = LockedDir::take(dir, &self.path)?;
            // A run that is just ending may have removed it.
            if entry.is_still(locked.dir())? {
                Replacement::remove_left(locked.dir())?;
                self.kept = Some(Segments { entry, locked });
                self.json = self.read()?;
                return Ok(());
            }
        }
    }

    /// The directory of the segments, which exists once [`ImportState::lock_dir`] was called.
    fn dir(&self) -> Result<Dir> {
        self.kept.as_ref().map_or_else(|| Dir::open(&self.directory), |kept| Ok(kept.locked.dir().clone()))
    }

    /// The complete segments, and the layout that contains them.
    ///
    /// # Errors
    /// The disk fails.
    pub fn pieces(&self) -> Result<Option<(Layout, Vec<KeptPiece>)>> {
        if self.segments().next().is_none() || !self.directory.is_dir() {
            return Ok(None);
        }
        let layout = Layout::open(&self.directory)?;
        let pieces = self.segments().filter_map(|file| {
            let (segment, stored) = (file.segment.as_deref()?.clone(), name(file)?);
            let is_whole = layout.size_of(&stored) == Some(segment.size);
            is_whole.then(|| KeptPiece { path: file.path.clone(), segment, stored })
        });
        let pieces = pieces.collect();
        Ok(Some((layout, pieces)))
    }

    fn segments(&self) -> impl Iterator<Item = &VolumeFile> {
        self.json.iter().flat_map(|json| &json.segments)
    }

    /// Binds the state to this set.
    ///
    /// # Errors
    /// It belongs to another set, another run holds it, or the disk fails.
    pub fn bind(&mut self, set: SetId) -> Result<()> {
        self.lock_dir()?;
        let refuse = |what: String| {
            let text = format!("belongs to an import of {what}: name another file, or remove it");
            Err(Error::input(format!("{} {text}", self.path.display())))
        };
        match &self.json {
            Some(json) if json.identity != set.identity => {
                refuse(format!("the bundle {}, and these volumes are of {}", json.identity, set.identity))
            }
            Some(json) if (json.of, json.recovery, json.limit) != (set.of, set.recovery, set.limit) => {
                refuse("another set of this bundle, which was split in another way".to_owned())
            }
            Some(_) => Ok(()),
            None => {
                self.json = Some(StateJson {
                    gapferry_import: STATE_VERSION,
                    identity: set.identity,
                    of: set.of,
                    recovery: set.recovery,
                    limit: set.limit,
                    target: self.target.clone(),
                    volumes: Vec::new(),
                    segments: Vec::new(),
                });
                Ok(())
            }
        }
    }

    /// Stores the segments that `volumes`, the parts of `layout`, have of blobs that are `wanted` later, and proves each.
    ///
    /// # Errors
    /// A segment is not what its volume states (`Damaged`), or the disk fails.
    pub fn store(&mut self, layout: &Layout, volumes: &[Volume], wanted: impl Fn(&Digest) -> bool) -> Result<()> {
        let there: BTreeSet<String> = self.pieces()?.into_iter().flat_map(|(_, kept)| kept).map(|k| k.stored).collect();
        let mut kept: Vec<VolumeFile> = Vec::new();
        for (volume, part) in volumes.iter().zip(layout.parts()) {
            for file in volume
                .json
                .files
                .iter()
                .filter(|file| Digest::of_blob_path(&file.path).is_some_and(|blob| wanted(&blob)))
            {
                let Some(stored) = name(file).filter(|stored| !there.contains(stored)) else { continue };
                self.store_piece(part, file, &stored)?;
                kept.push(file.clone());
            }
        }
        if !kept.is_empty() {
            self.dir()?.sync()?;
        }
        if let Some(json) = &mut self.json {
            let is_new = |file: &VolumeFile| kept.iter().any(|new| name(new) == name(file));
            json.segments.retain(|file| !is_new(file));
            json.segments.extend(kept);
        }
        self.write()
    }

    fn store_piece(&self, part: &Layout, file: &VolumeFile, stored: &str) -> Result<()> {
        let (entry, path) = (file.stored_path(), self.directory.join(stored));
        let gone = || Error::damaged(format!("{} has no {entry}", part.path().display()));
        let (segment, slice) = file.segment.as_deref().zip(part.slice(&entry)?).ok_or_else(gone)?;
        let fail = |e| Error::disk("keeping", &path, e);
        let mut new = Replacement::of_entry(Entry::in_dir(&self.dir()?, stored))?;
        proof::copy(&slice, &segment.sha256, &mut |piece, _| new.file().write_all(piece).map_err(fail))
            .map_err(|uncopied| uncopied.of(&slice))?;
        new.commit()
    }

    /// Proves those of these blobs that have kept segments, before they are pushed. `bundle` is what exists of the bundle with
    /// these segments, from `volumes` and in their order.
    ///
    /// A kept segment that has changed is removed, and its volume is needed again. If none has changed and the blob is still
    /// wrong, the description of some volume is wrong. Which one cannot be known, so all kept segments of the blob are
    /// removed.
    ///
    /// # Errors
    /// A blob is wrong, whether because of a kept segment or one in `volumes` (`Damaged`), or the disk fails.
    pub fn prove_kept(&mut self, bundle: &Layout, volumes: &[Volume], blobs: impl Fn(&Digest) -> bool) -> Result<()> {
        let Some((layout, pieces)) = self.pieces()? else { return Ok(()) };
        let mut of_blob: BTreeMap<Digest, Vec<KeptPiece>> = BTreeMap::new();
        for piece in pieces {
            if let Some(blob) = Digest::of_blob_path(&piece.path).filter(&blobs) {
                of_blob.entry(blob).or_default().push(piece);
            }
        }
        let (mut removed, mut why) = (Vec::new(), None);
        for (blob, pieces) in of_blob {
            let Some(slice) = bundle.slice(&blob.blob_path())? else { continue };
            let Some(wrong) = wrong(&slice, &blob)? else { continue };
            let mut changed = Vec::new();
            for piece in &pieces {
                match layout.slice(&piece.stored)? {
                    Some(slice) if self::wrong(&slice, &piece.segment.sha256)?.is_none() => {}
                    _ => changed.push(piece.clone()),
                }
            }
            if changed.is_empty() {
                prove_given(bundle, volumes, &blob)?;
                changed = pieces;
            }
            changed.iter().try_for_each(|piece| self.remove(&piece.stored))?;
            removed.extend(changed);
            why = Some(wrong);
        }
        let Some(why) = why else { return Ok(()) };
        self.write()?;
        Err(why.while_doing(self.bring_again(&removed)))
    }

    /// What to do now that these segments are gone.
    fn bring_again(&self, pieces: &[KeptPiece]) -> String {
        let is_of = |taken: &&Taken| pieces.iter().any(|piece| taken.holds.contains(&piece.stored_path()));
        let numbers = self.json.iter().flat_map(|json| &json.volumes).filter(is_of);
        let numbers: Vec<String> = numbers.map(|taken| taken.number.to_string()).collect();
        match &numbers[..] {
            [] => "pieces kept from earlier volumes have changed and were removed; bring these volumes again".into(),
            [one] => format!("what was kept from volume {one} has changed and was removed; bring that volume again"),
            _ => {
                let numbers = numbers.join(", ");
                format!("what was kept from the volumes {numbers} is wrong and was removed; bring these volumes again")
            }
        }
    }

    fn remove(&mut self, stored: &str) -> Result<()> {
        self.dir()?.remove(stored)?;
        if let Some(json) = &mut self.json {
            json.segments.retain(|file| name(file).as_deref() != Some(stored));
        }
        Ok(())
    }

    /// After a push: removes segments of blobs that no longer wait and, if all went well, records the volumes as imported.
    ///
    /// # Errors
    /// The disk fails.
    pub fn commit(&mut self, volumes: &[Volume], went_well: bool, waits: impl Fn(&Digest) -> bool) -> Result<()> {
        let is_done =
            |file: &&VolumeFile| went_well && Digest::of_blob_path(&file.path).is_none_or(|blob| !waits(&blob));
        let done: Vec<String> = self.segments().filter(is_done).filter_map(name).collect();
        done.iter().try_for_each(|stored| self.remove(stored))?;
        if let Some(json) = self.json.as_mut().filter(|_| went_well) {
            for volume in volumes {
                let number = volume.json.number;
                let holds = volume.json.files.iter().map(VolumeFile::stored_path).collect();
                json.volumes.retain(|taken| taken.number != number);
                json.volumes.push(Taken { number, holds });
            }
            json.volumes.sort_by_key(|taken| taken.number);
        }
        self.write()
    }

    /// The numbers of the volumes that are still needed for the waiting blobs: those that never came, and those with content
    /// that is neither at the target nor kept.
    ///
    /// # Errors
    /// The disk fails.
    pub fn wanted(&self, waiting: &BTreeSet<Digest>) -> Result<Vec<u32>> {
        let Some(json) = &self.json else { return Ok(Vec::new()) };
        let taken: BTreeMap<u32, &Taken> = json.volumes.iter().map(|taken| (taken.number, taken)).collect();
        let kept = self.pieces()?.into_iter().flat_map(|(_, pieces)| pieces);
        let kept: BTreeSet<String> = kept.map(|piece| piece.stored_path()).collect();
        let whole: BTreeSet<String> = waiting.iter().map(Digest::blob_path).collect();
        let is_wanted = |entry: &String| match entry.strip_prefix("segments/").and_then(|name| name.rsplit_once('.')) {
            Some((name, _)) => whole.contains(&format!("blobs/{name}")) && !kept.contains(entry),
            None => whole.contains(entry),
        };
        let never = |number: &u32| !taken.contains_key(number);
        let again = |number: &u32| taken.get(number).is_some_and(|taken| taken.holds.iter().any(is_wanted));
        Ok((1..=json.of).filter(|number| never(number) || again(number)).collect())
    }

    fn write(&self) -> Result<()> {
        let fail = |e| Error::disk("writing", &self.path, e);
        let Some(json) = &self.json else { return Ok(()) };
        let mut new = Replacement::of(&self.path)?;
        io::Write::write_all(new.file(), json.to_file()?.as_bytes()).map_err(fail)?;
        new.make_readable()?;
        new.commit()
    }
}

impl Drop for ImportState {
    fn drop(&mut self) {
        if let Some(kept) = &self.kept {
            // Succeeds only if it is empty.
            let _ = kept.entry.dir().remove_dir(kept.entry.name());
        }
    }
}

fn read(path: &Path) -> Result<Option<StateJson>> {
    let shown = path.display().to_string();
    let bytes = match fsops::open_plain(path).and_then(|file| read_all(file, MAX_STATE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| Error::disk("reading", path, e))?,
    };
    let bytes = bytes.ok_or_else(|| Error::input(format!("reading {shown}: more than {MAX_STATE} bytes")))?;
    let json = StateJson::read(&bytes, &shown)?;
    if json.of > super::MOST_VOLUMES || json.segments.iter().any(|file| name(file).is_none()) {
        return Err(Error::input(format!("reading {} {shown}: it lists files that no volume has", StateJson::NAME)));
    }
    Ok(Some(json))
}

/// Whether the bytes are wrong.
///
/// # Errors
/// They cannot be read.
fn wrong(slice: &Slice, digest: &Digest) -> Result<Option<Error>> {
    match prove(slice, digest, &|_| ()) {
        Ok(()) => Ok(None),
        Err(Unproven::Wrong(Wrong { found, .. })) => Ok(Some(slice.wrong(found))),
        Err(Unproven::Unreadable(error)) => Err(Error::disk("reading", slice.path(), error)),
    }
}

/// Proves the segments of the blob in `volumes`.
///
/// # Errors
/// One is not what its volume states, or cannot be read.
fn prove_given(bundle: &Layout, volumes: &[Volume], blob: &Digest) -> Result<()> {
    let path = blob.blob_path();
    for (volume, part) in volumes.iter().zip(bundle.parts()) {
        for file in volume.json.files.iter().filter(|file| file.path == path) {
            let (Some(segment), Some(slice)) = (&file.segment, part.slice(&file.stored_path())?) else { continue };
            wrong(&slice, &segment.sha256)?.map_or(Ok(()), Err)?;
        }
    }
    Ok(())
}

/// The name of a kept segment: `sha256-ab….3`.
fn name(file: &VolumeFile) -> Option<String> {
    let (blob, segment) = (Digest::of_blob_path(&file.path)?, file.segment.as_deref()?);
    Some(format!("{}.{}", blob.to_string().replacen(':', "-", 1), segment.number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::volumes::{VOLUME_VERSION, VolumeJson};

    fn volume(number: u32, set: SetId) -> Volume {
        let SetId { identity, of, recovery, limit } = set;
        let json =
            VolumeJson { gapferry_volume: VOLUME_VERSION, identity, number, of, recovery, limit, files: Vec::new() };
        Volume { path: PathBuf::new(), json, label: String::new() }
    }

    /// Two operators, each with a disc: what the first has imported is not requested again.
    #[test]
    fn a_run_that_waited_for_another_continues_from_what_that_has_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let set = SetId { identity: Digest::sha256(b"bundle"), of: 3, recovery: 0, limit: 1_000 };
        let open = || ImportState::open(&path, "registry.test", true).unwrap();
        let mut waiting = open();
        let mut first = open();
        first.bind(set).unwrap();
        assert!(waiting.bind(set).is_err(), "another run has it");
        first.commit(&[volume(1, set)], true, |_| false).unwrap();
        drop(first);
        waiting.bind(set).unwrap();
        waiting.commit(&[volume(2, set)], true, |_| false).unwrap();
        assert_eq!(waiting.wanted(&BTreeSet::new()).unwrap(), [3]);
        drop(waiting);
        let mut another = open();
        let other = SetId { identity: Digest::sha256(b"other"), ..set };
        assert!(another.bind(other).is_err());
    }
}
