//! Putting a bundle together again from all volumes of its set.
//!
//! # Threats
//! Those of any bundle. Every file is proven while it is copied, by the `bundle.json` that the identity stands for and by the
//! digest that names it, and nothing has the name of a bundle before all of them are.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::set::METADATA;
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Entry, Open, WriteLock, publish, replace_directory};
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::before::refuse_foreign;
use crate::bundle::format::{self, FileEntry};
use crate::bundle::offsets::{TarFile, TarPlan};
use crate::bundle::tools::mode_of;
use crate::bundle::writer::Writer;
use crate::bundle::{BUNDLE_JSON, Bundle, SIGNATURE, SUMS};
use crate::content::{Slice, in_parallel};
use crate::oci::{Algorithm, Digest};

/// Of directories.
const DIR_MODE: u32 = 0o777;

/// What was put together.
#[derive(Clone, Debug)]
pub struct Joined {
    pub identity: Digest,
    /// In bytes, of the tar or of all files.
    pub size: u64,
}

/// One file on its way.
struct Copied<'b> {
    path: String,
    slice: Slice,
    /// As `bundle.json` has it; its own and the signature are not in it.
    declared: Option<&'b FileEntry>,
}

/// Writes `bundle`, of which every file has to be there, to `out`: a tar, or a directory where the name does not end in
/// `.tar`.
///
/// # Errors
/// A file is missing or not what it should be (`Damaged`); something else has the name of `out`; the disk's.
pub fn join(bundle: &Bundle, out: &Path, events: &Events) -> Result<Joined> {
    let out = fsops::canonicalize(out)?;
    refuse_foreign(&out)?;
    let lock = WriteLock::take(&out)?;
    let files = files(bundle)?;
    let bytes = files.iter().map(|file| file.slice.size()).fold(0, u64::saturating_add);
    events.report(Event::Phase { phase: Phase::Transfer, items: files.len() as u64, bytes });
    let size = match Writer::is_tar(&out) {
        true => join_tar(bundle, &files, lock.output(), events)?,
        false => join_directory(&files, lock.output(), events).map(|()| bytes)?,
    };
    Ok(Joined { identity: bundle.identity(), size })
}

/// All files in the order of the tar.
fn files(bundle: &Bundle) -> Result<Vec<Copied<'_>>> {
    let layout = bundle.layout();
    let sums = format::sums(bundle.files().iter().cloned(), &bundle.identity());
    let is_right = |bytes: &[u8]| bytes == sums.as_bytes();
    if !layout.read(SUMS, super::super::MAX_SUMS)?.is_some_and(|bytes| is_right(&bytes)) {
        return Err(wrong(layout.path(), SUMS, "it does not say what bundle.json says"));
    }
    let declared = |path: &str| bundle.files().iter().find(|file| file.path == path);
    let others = bundle.files().iter().filter(|file| !METADATA.contains(&file.path.as_str()));
    let first = METADATA.iter().map(|path| ((*path).to_owned(), declared(path)));
    let all = first.chain(others.map(|file| (file.path.clone(), Some(file))));
    let there = all.filter(|(path, _)| path != SIGNATURE || layout.size_of(SIGNATURE).is_some());
    there
        .map(|(path, declared)| match layout.slice(&path)? {
            Some(slice) if declared.is_none_or(|file| file.size == slice.size()) => {
                Ok(Copied { path, slice, declared })
            }
            Some(_) => Err(wrong(layout.path(), &path, "it has another size than bundle.json says")),
            None => Err(wrong(layout.path(), &path, "it is missing")),
        })
        .collect()
}

fn wrong(shown: &Path, path: &str, what: &str) -> Error {
    Error::damaged(format!("joining {}: {path}: {what}", shown.display()))
}

fn join_tar(bundle: &Bundle, files: &[Copied<'_>], out: &Entry, events: &Events) -> Result<u64> {
    let plan = TarPlan::new(files.iter().map(|file| (file.path.clone(), file.slice.size())))?;
    let partial = out.beside(".partial");
    let (file, shown) = (Arc::new(partial.open(Open::Empty)?), partial.path());
    fsops::reserve(&file, shown, plan.length)?;
    let mtime = u64::try_from(bundle.json().created.as_second()).unwrap_or_default();
    let pairs: Vec<(&Copied, &TarFile)> = files.iter().zip(&plan.files).collect();
    all(in_parallel(&pairs, |(from, to)| {
        let fail = |e| Error::disk("writing", shown, e);
        file.write_all_at(&to.header_blocks(mtime), to.header).map_err(fail)?;
        copy(from, &mut At { file: &file, position: to.data }, shown, events)
    }))?;
    file.set_len(plan.length).map_err(|e| Error::disk("ending", shown, e))?;
    publish(&file, &partial, out)?;
    Ok(plan.length)
}

fn join_directory(files: &[Copied<'_>], out: &Entry, events: &Events) -> Result<()> {
    let partial = out.beside(".partial");
    partial.refuse_other_than_directory()?;
    partial.remove_tree()?;
    let root = out.dir().make(partial.name(), DIR_MODE)?.dir;
    for algorithm in ["sha256", "sha512"] {
        root.make_all(&format!("blobs/{algorithm}"), DIR_MODE)?;
    }
    let write = |from: &Copied| {
        let entry = root.make_parents(&from.path, DIR_MODE)?;
        let mut file = entry.create_new(mode_of(&from.path))?;
        copy(from, &mut file, entry.path(), events)
    };
    // Only a whole one has these.
    let (last, others): (Vec<&Copied>, Vec<&Copied>) =
        files.iter().partition(|file| matches!(file.path.as_str(), BUNDLE_JSON | SUMS | SIGNATURE));
    all(in_parallel(&others, |from| write(from)))?;
    last.into_iter().try_for_each(write)?;
    root.sync_file_system()?;
    replace_directory(&partial, out)
}

fn all(results: Vec<Result<()>>) -> Result<()> {
    results.into_iter().collect()
}

/// Copies a file and proves it by what is declared of it, and by its own name.
fn copy(from: &Copied<'_>, to: &mut impl Write, shown: &Path, events: &Events) -> Result<()> {
    let name = Digest::of_blob_path(&from.path);
    let digest = name.unwrap_or_else(|| Digest::sha256(from.path.as_bytes()));
    events.report(Event::BlobStarted { digest, size: from.slice.size(), present: 0 });
    let mut to = Told { to, digest, events };
    let found = from.slice.copy_to(&mut to, Algorithm::Sha256, |e| Error::disk("writing", shown, e))?;
    if from.declared.is_some_and(|file| file.sha256.sha256() != Some(found)) {
        return Err(from.slice.wrong(found).while_doing(format!("joining {}", from.path)));
    }
    if let Some(name) = name.filter(|name| *name != found) {
        let unreadable = |e| Error::disk("reading", from.slice.path(), e);
        let found = from.slice.hash(name.algorithm(), &|_| ()).map_err(unreadable)?;
        if found != name {
            return Err(from.slice.wrong(found).while_doing(format!("joining {}", from.path)));
        }
    }
    events.report(Event::BlobFinished { digest });
    events.report(Event::ItemDone);
    Ok(())
}

/// Tells how far it has come.
struct Told<'w, W> {
    to: &'w mut W,
    digest: Digest,
    events: &'w Events,
}

impl<W: Write> Write for Told<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.events.report(Event::BlobAdvanced { digest: self.digest, bytes: written as u64 });
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Writes into a file from a place onward.
struct At<'f> {
    file: &'f File,
    position: u64,
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.position)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
