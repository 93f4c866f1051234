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

use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Entry, Open, WriteLock, publish, replace_directory};
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::before::refuse_foreign;
use crate::bundle::format::{CHUNKS, FileEntry, MAX_BUNDLE_JSON, Metadata, head_of, is_signature};
use crate::bundle::hashers::Hashers;
use crate::bundle::offsets::{TarFile, TarPlan};
use crate::bundle::sums::MAX_SUMS;
use crate::bundle::tools::mode_of;
use crate::bundle::writer::Writer;
use crate::bundle::{BUNDLE_JSON, Bundle, MAX_SIGNATURE, SUMS, chunks, is_tool, signatures_of};
use crate::content::chunks::Chunks;
use crate::content::{Slice, in_parallel};
use crate::oci::Digest;

/// Of directories.
const DIR_MODE: u32 = 0o777;

/// What was put together.
#[derive(Clone, Debug)]
pub struct Joined {
    pub identity: Digest,
    /// In bytes, of the tar or of all files.
    pub size: u64,
}

/// All files of a bundle, in the order of the tar.
struct Files<'b> {
    /// What stands before tools and blobs, proven.
    head: Vec<Metadata>,
    copied: Vec<Copied<'b>>,
    /// Signatures of `chunks.b3`.
    signatures: Vec<Metadata>,
    /// Bytes of `chunks.b3`.
    chunks: u64,
}

/// A file that is copied.
struct Copied<'b> {
    slice: Slice,
    declared: &'b FileEntry,
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
    let files = Files::of(bundle)?;
    let bytes = files.copied.iter().map(|file| file.slice.size()).fold(0, u64::saturating_add);
    events.report(Event::Phase { phase: Phase::Transfer, items: files.copied.len() as u64, bytes });
    let size = match Writer::is_tar(&out) {
        true => join_tar(bundle, &files, lock.output(), events)?,
        false => join_directory(bundle, &files, lock.output(), events)?,
    };
    Ok(Joined { identity: bundle.identity(), size })
}

fn wrong(shown: &Path, path: &str, what: &str) -> Error {
    Error::damaged(format!("joining {}: {path}: {what}", shown.display()))
}

impl<'b> Files<'b> {
    fn of(bundle: &'b Bundle) -> Result<Files<'b>> {
        let (layout, json, identity) = (bundle.layout(), bundle.json(), bundle.identity());
        let sums = json.sha256sums(identity);
        if layout.read(SUMS, MAX_SUMS)?.is_none_or(|bytes| bytes != sums.as_bytes()) {
            return Err(wrong(layout.path(), SUMS, "it does not say what bundle.json says"));
        }
        let is_metadata = |file: &&FileEntry| !is_tool(&file.path) && !file.path.starts_with("blobs/");
        let declared = |path: &str| json.files.iter().filter(is_metadata).find(|file| file.path == path);
        let read = |path: String| -> Result<Metadata> {
            let limit = if is_signature(&path) { MAX_SIGNATURE } else { MAX_BUNDLE_JSON };
            let bytes = layout.read(&path, limit)?.ok_or_else(|| wrong(layout.path(), &path, "it is missing"))?;
            let digest = match &*path {
                BUNDLE_JSON => Some(identity),
                SUMS => Some(Digest::sha256(sums.as_bytes())),
                path => declared(path).map(|file| file.digest),
            };
            match digest.is_none_or(|digest| Digest::sha256(&bytes) == digest) {
                true => Ok(Metadata { path, bytes: bytes.to_vec() }),
                false => Err(wrong(layout.path(), &path, "it has another digest than bundle.json says")),
            }
        };
        let lost = json.files.iter().filter(is_metadata).find(|file| layout.size_of(&file.path).is_none());
        if let Some(file) = lost {
            return Err(wrong(layout.path(), &file.path, "it is missing"));
        }
        let head = head_of(layout, false).into_iter().map(read).collect::<Result<_>>()?;
        let signatures = signatures_of(layout, CHUNKS).into_iter().map(|path| read(path.to_owned()));
        let signatures = signatures.collect::<Result<_>>()?;
        let copied = json.files.iter().filter(|file| !is_metadata(file)).map(|declared| {
            let fail = |what: &str| wrong(layout.path(), &declared.path, what);
            let slice = layout.slice(&declared.path)?.ok_or_else(|| fail("it is missing"))?;
            match slice.size() == declared.size {
                true => Ok(Copied { slice, declared }),
                false => Err(fail("it has another size than bundle.json says")),
            }
        });
        let chunks = chunks::length(json.blobs().map(|(_, size)| size));
        Ok(Files { head, copied: copied.collect::<Result<_>>()?, signatures, chunks })
    }

    /// `chunks.b3`, of what the copied files were found to be.
    fn chunks(&self, identity: Digest, found: Vec<Result<Chunks>>) -> Result<Vec<u8>> {
        let mut writer = chunks::Writer::new(identity);
        for (file, found) in self.copied.iter().zip(found) {
            let found = found?;
            if file.declared.path.starts_with("blobs/") {
                writer.add(&found);
            }
        }
        Ok(writer.finish())
    }
}

fn join_tar(bundle: &Bundle, files: &Files<'_>, out: &Entry, events: &Events) -> Result<u64> {
    let of = |file: &Metadata| (file.path.clone(), file.bytes.len() as u64);
    let sizes = files.head.iter().map(of);
    let sizes = sizes.chain(files.copied.iter().map(|file| (file.declared.path.clone(), file.declared.size)));
    let sizes = sizes.chain([(CHUNKS.to_owned(), files.chunks)]).chain(files.signatures.iter().map(of));
    let plan = TarPlan::new(sizes)?;
    let partial = out.beside(".partial");
    let (file, shown) = (Arc::new(partial.open(Open::Empty)?), partial.path());
    fsops::reserve(&file, shown, plan.length)?;
    let mtime = bundle.json().mtime();
    let write = |bytes: &[u8], at: u64| file.write_all_at(bytes, at).map_err(|e| Error::disk("writing", shown, e));
    let whole =
        |to: &TarFile, bytes: &[u8]| write(&to.header_blocks(mtime), to.header).and_then(|()| write(bytes, to.data));
    let mut places = plan.files.iter();
    files.head.iter().zip(places.by_ref()).try_for_each(|(own, to)| whole(to, &own.bytes))?;
    let pairs: Vec<(&Copied, &TarFile)> = files.copied.iter().zip(places.by_ref()).collect();
    let found = in_parallel(&pairs, |(from, to)| {
        write(&to.header_blocks(mtime), to.header)?;
        copy(from, &mut At { file: &file, position: to.data }, shown, events)
    });
    let chunks = Metadata::new(CHUNKS, files.chunks(bundle.identity(), found)?);
    std::iter::once(&chunks).chain(&files.signatures).zip(places).try_for_each(|(own, to)| whole(to, &own.bytes))?;
    file.set_len(plan.length).map_err(|e| Error::disk("ending", shown, e))?;
    publish(&file, &partial, out)?;
    Ok(plan.length)
}

fn join_directory(bundle: &Bundle, files: &Files<'_>, out: &Entry, events: &Events) -> Result<u64> {
    let partial = out.beside(".partial");
    partial.refuse_other_than_directory()?;
    partial.remove_tree()?;
    let root = out.dir().make(partial.name(), DIR_MODE)?.dir;
    for algorithm in ["sha256", "sha512"] {
        root.make_all(&format!("blobs/{algorithm}"), DIR_MODE)?;
    }
    let found = in_parallel(&files.copied, |from| {
        let entry = root.make_parents(&from.declared.path, DIR_MODE)?;
        let mut file = entry.create_new(mode_of(&from.declared.path))?;
        copy(from, &mut file, entry.path(), events)
    });
    let chunks = Metadata::new(CHUNKS, files.chunks(bundle.identity(), found)?);
    // The sums last: without them, it is no bundle.
    let (last, others): (Vec<&Metadata>, Vec<&Metadata>) =
        files.head.iter().chain([&chunks]).chain(&files.signatures).partition(|file| file.path == SUMS);
    for own in others.iter().chain(&last) {
        let entry = Entry::in_dir(&root, &own.path);
        let mut file = entry.create_new(mode_of(&own.path))?;
        file.write_all(&own.bytes).map_err(|e| Error::disk("writing", entry.path(), e))?;
    }
    root.sync_file_system()?;
    replace_directory(&partial, out)?;
    let own = others.iter().chain(&last).map(|file| file.bytes.len() as u64);
    Ok(files.copied.iter().map(|file| file.declared.size).chain(own).fold(0, u64::saturating_add))
}

/// Copies a file, proves it by its digest, and gives what it consists of.
fn copy(from: &Copied<'_>, to: &mut impl Write, shown: &Path, events: &Events) -> Result<Chunks> {
    let Copied { slice, declared } = from;
    let digest = declared.digest;
    events.report(Event::BlobStarted { digest, size: slice.size(), present: 0 });
    let (mut hashers, mut written) = (Hashers::new(digest.algorithm()), Ok(()));
    let read = slice.read_prefix(slice.size(), &mut |piece| {
        hashers.update(piece);
        if written.is_ok() {
            written = to.write_all(piece);
        }
        events.report(Event::BlobAdvanced { digest, bytes: piece.len() as u64 });
    });
    read.map_err(|e| Error::disk("reading", slice.path(), e))?;
    written.map_err(|e| Error::disk("writing", shown, e))?;
    let chunks = hashers.finish(&digest);
    let chunks = chunks.map_err(|found| slice.wrong(found).while_doing(format!("joining {}", declared.path)))?;
    events.report(Event::BlobFinished { digest });
    events.report(Event::ItemDone);
    Ok(chunks)
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
