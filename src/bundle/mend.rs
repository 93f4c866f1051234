//! Mending a bundle with the files of a repair, or of another copy of the same bundle.
//!
//! # Threats
//! The repair may be forged, and the bundle damaged as well. No file enters that is not what `bundle.json` says, and that one
//! only with the identity the bundle had; all are proven before the first is written, and again while they are. In a
//! directory a blob may have other names elsewhere, and a link may have taken a place: so nothing there is written into, but
//! made anew and renamed. Killed at any moment, it leaves a bundle that the same repair mends.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::{self, BUNDLE_JSON, BundleJson, CHUNKS, DOCKER_JSON, FileEntry, OCI_LAYOUT, SIGNATURE, SUMS};
use super::missing::Missing;
use super::offsets::TarPlan;
use super::open::MAX_BUNDLE_JSON;
use super::pieces::{From, Piece};
use super::ranges::{Patches, RANGES};
use super::repair;
use super::tools::{is_tool, mode_of};
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Dir, Entry, Open, WriteLock, publish};
use crate::content::chunks::ChunkHasher;
use crate::files::Layout;
use crate::oci::{Digest, Hex64};

/// What became of the files that were bad or absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    pub mended: Vec<String>,
    /// The repair does not have them.
    pub lacking: Vec<String>,
}

/// # Errors
/// It is compressed: nothing in it can be changed in its place.
pub(super) fn refuse_compressed(bundle: &Layout) -> Result<()> {
    if !bundle.is_compressed() {
        return Ok(());
    }
    let path = bundle.path().display();
    Err(Error::input(format!("{path} is compressed, and cannot be changed: decompress it first (zstd -d {path})")))
}

/// Mends the bundle at `path`, which lacks `missing`, with what `from` has of it. What is not missing is not touched.
///
/// # Errors
/// `from` is for another bundle or forged, or a tar that is laid out otherwise than ours: nothing has changed. The disk's.
pub fn mend(path: &Path, from: &Path, missing: &Missing) -> Result<Mended> {
    let path = &fsops::canonicalize(path)?;
    let lock = WriteLock::take(path)?;
    let (bundle, repair) = (Layout::open(path)?, Layout::open(from)?);
    refuse_compressed(&bundle)?;
    let is_repair = belongs(&repair, missing.identity)?;
    let bytes = list_of_files(&bundle, &repair, missing)?;
    let json = BundleJson::parse(&bytes, &path.join(BUNDLE_JSON).display().to_string())?;
    let wanted = wanted(&json, &bytes, missing);
    let patches = repair::patches(&repair)?;
    let (mut pieces, mut done) = (Vec::new(), Mended::default());
    for entry in &wanted {
        let found = match patched(entry, missing, (&bundle, &repair), &patches)? {
            None => piece(entry, &json, &bytes, missing.identity, &repair),
            patched => Ok(patched),
        };
        match found {
            Ok(Some(piece)) => pieces.push(piece),
            // It is made at the end.
            Ok(None) if entry.path == CHUNKS => {}
            // Nobody's images have to wait for a tool.
            Err(error) if is_repair && !is_tool(&entry.path) => return Err(error),
            _ => done.lacking.push(entry.path.clone()),
        }
    }
    let place = Place::open(lock.output(), &bundle, &json, &bytes, &wanted)?;
    place.straighten()?;
    for piece in pieces {
        place.write(&piece)?;
        done.mended.push(piece.path);
    }
    let chunks = wanted.iter().find(|file| file.path == CHUNKS && !done.mended.contains(&file.path));
    if let Some(entry) = chunks {
        let made = chunks_of(&Layout::open(path)?, &json)?
            .filter(|bytes| Some(Digest::sha256(bytes)) == entry.sha256.sha256());
        match made {
            Some(made) => {
                let digest = Digest::sha256(&made);
                let (path, size) = (entry.path.clone(), entry.size);
                place.write(&Piece { path, size, digest, bytes: From::Made(made) })?;
                done.mended.push(entry.path.clone());
            }
            None => done.lacking.push(entry.path.clone()),
        }
    }
    place.sync()?;
    Ok(done)
}

/// Whether it is a repair; else it is the same bundle.
pub(super) fn belongs(repair: &Layout, identity: Digest) -> Result<bool> {
    let shown = repair.path().display();
    let (found, is_repair) = match repair::is_for(repair)? {
        Some(found) => (found, true),
        None => match repair.read(BUNDLE_JSON, MAX_BUNDLE_JSON)? {
            Some(bytes) => (Digest::sha256(&bytes), false),
            None => return Err(Error::input(format!("{shown} is neither a repair nor a bundle"))),
        },
    };
    if found != identity {
        return Err(Error::input(format!("{shown} is for another bundle: {found}, not {identity}")));
    }
    Ok(is_repair)
}

/// The bytes of `bundle.json`, from wherever it has the right digest.
fn list_of_files(bundle: &Layout, repair: &Layout, missing: &Missing) -> Result<bytes::Bytes> {
    for layout in [bundle, repair] {
        let bytes = layout.read(BUNDLE_JSON, MAX_BUNDLE_JSON).ok().flatten();
        if let Some(bytes) = bytes.filter(|bytes| Digest::sha256(bytes) == missing.identity) {
            return Ok(bytes);
        }
    }
    let text = "its bundle.json is damaged, and only a whole copy of the bundle has it: repair with that";
    Err(Error::damaged(format!("mending {}: {text}", bundle.path().display())))
}

/// All files of the bundle but the signature, in the order of the tar.
fn all_files(json: &BundleJson, bytes: &[u8]) -> Vec<FileEntry> {
    let sha256 = |bytes: &[u8]| Hex64::from(&Digest::sha256(bytes));
    let own = |path: &str, bytes: &[u8]| FileEntry {
        path: path.to_owned(),
        size: bytes.len() as u64,
        sha256: sha256(bytes),
        blake3: None,
    };
    let sums = format::sums(json.files.iter().cloned(), &Digest::sha256(bytes));
    let mut files = Vec::with_capacity(json.files.len() + 2);
    for file in &json.files {
        files.push(file.clone());
        match &*file.path {
            OCI_LAYOUT => files.push(own(BUNDLE_JSON, bytes)),
            DOCKER_JSON => files.push(own(SUMS, sums.as_bytes())),
            _ => {}
        }
    }
    files
}

fn wanted(json: &BundleJson, bytes: &[u8], missing: &Missing) -> Vec<FileEntry> {
    let blobs = missing.blobs.iter().map(|blob| blob.digest.blob_path());
    let tools = missing.tools.iter().map(|tool| tool.path.clone());
    let asked: BTreeSet<String> = blobs.chain(missing.metadata.iter().cloned()).chain(tools).collect();
    all_files(json, bytes).into_iter().filter(|file| asked.contains(&file.path)).collect()
}

/// The file, proven, if the repair has it.
fn piece<'a>(
    entry: &FileEntry,
    json: &BundleJson,
    bytes: &[u8],
    identity: Digest,
    repair: &'a Layout,
) -> Result<Option<Piece<'a>>> {
    let fail = |why: String| Error::damaged(format!("{}: {} {why}", repair.path().display(), entry.path));
    let digest: Digest = match Digest::of_blob_path(&entry.path) {
        Some(digest) => digest,
        None if entry.path.starts_with("blobs/") => return Err(fail("is no name of a blob".to_owned())),
        None => entry.sha256.sha256().ok_or_else(|| fail("has no digest in bundle.json".to_owned()))?,
    };
    let bytes = match (&*entry.path, repair.size_of(&entry.path)) {
        (BUNDLE_JSON, _) => From::Made(bytes.to_vec()),
        (SUMS, _) => From::Made(format::sums(json.files.iter().cloned(), &identity).into_bytes()),
        (_, Some(size)) if size != entry.size => {
            return Err(fail(format!("has {size} bytes instead of {}", entry.size)));
        }
        (_, Some(_)) => From::Of(repair),
        (_, None) => return Ok(None),
    };
    let piece = Piece { path: entry.path.clone(), size: entry.size, digest, bytes };
    match piece.read(&mut |_, _| ())? {
        found if found == digest => Ok(Some(piece)),
        found => Err(fail(format!("is not what the bundle lacks: its bytes have {found}"))),
    }
}

/// The blob as it is in the bundle, with ranges of the repair; `None`: the repair has none that would make it what it was.
fn patched<'a>(
    entry: &FileEntry,
    missing: &Missing,
    (bundle, repair): (&'a Layout, &Layout),
    patches: &HashMap<Digest, Patches>,
) -> Result<Option<Piece<'a>>> {
    let patches = Digest::of_blob_path(&entry.path).and_then(|digest| Some((digest, patches.get(&digest)?)));
    let Some((digest, patches)) = patches.filter(|_| bundle.size_of(&entry.path) == Some(entry.size)) else {
        return Ok(None);
    };
    let end = |(first, bytes): &(u64, bytes::Bytes)| first.saturating_add(bytes.len() as u64);
    let piece =
        Piece { path: entry.path.clone(), size: entry.size, digest, bytes: From::Patched(bundle, patches.clone()) };
    if patches.iter().all(|patch| end(patch) <= entry.size) && piece.read(&mut |_, _| ())? == digest {
        return Ok(Some(piece));
    }
    // More may be bad by now than was asked for.
    let bad = missing.blobs.iter().find(|blob| blob.digest == digest).map_or(&[][..], |blob| &blob.ranges);
    let is_brought = |first, last| patches.iter().any(|patch| patch.0 <= first && last < end(patch));
    match !bad.is_empty() && bad.iter().all(|range| is_brought(range.first, range.last)) {
        true => {
            let (repair, path) = (repair.path().display(), &entry.path);
            Err(Error::damaged(format!("{repair}: {RANGES} of {path} is not what the bundle lacks")))
        }
        false => Ok(None),
    }
}

/// `chunks.b3`, from the blobs; `None` where one is absent.
pub(super) fn chunks_of(layout: &Layout, json: &BundleJson) -> Result<Option<Vec<u8>>> {
    let mut all = Vec::new();
    for file in json.files.iter().filter(|file| file.blake3.is_some()) {
        let Some(slice) = layout.slice(&file.path)?.filter(|slice| slice.size() == file.size) else { return Ok(None) };
        let mut hasher = ChunkHasher::new();
        let read = slice.read_prefix(file.size, &mut |piece| hasher.update(piece));
        read.map_err(|e| Error::disk("reading", slice.path(), e))?;
        all.extend(hasher.finish().values().iter().flatten());
    }
    Ok(Some(all))
}

/// Where the files of a bundle are written.
enum Place<'a> {
    Directory(Dir),
    /// Where the data of files begin, and the layout of all where headers have to be written.
    Tar {
        path: &'a Path,
        file: File,
        at: HashMap<String, u64>,
        plan: Option<TarPlan>,
        mtime: u64,
    },
}

impl<'a> Place<'a> {
    fn open(
        out: &'a Entry,
        bundle: &Layout,
        json: &BundleJson,
        bytes: &[u8],
        wanted: &[FileEntry],
    ) -> Result<Place<'a>> {
        if !bundle.is_tar() {
            let own = ["blobs", "blobs/sha256", "blobs/sha512", "tools"];
            own.iter().try_for_each(|name| fsops::refuse_other_than_directory(&out.path().join(name)))?;
            return Ok(Place::Directory(out.open_dir()?));
        }
        let path = out.path();
        let mtime = u64::try_from(json.created.as_second()).unwrap_or_default();
        let file = out.open(Open::Change)?;
        let places = wanted.iter().map(|entry| {
            let slice = bundle.slice(&entry.path).ok()?.filter(|slice| slice.size() == entry.size)?;
            Some((entry.path.clone(), slice.offset()))
        });
        // What only has other bytes keeps its place, whatever program has made the tar.
        let is_whole = bundle.faults().is_empty();
        if let Some(at) = places.collect::<Option<HashMap<String, u64>>>().filter(|_| is_whole) {
            return Ok(Place::Tar { path, file, at, plan: None, mtime });
        }
        let length = path.metadata().map_err(|e| Error::disk("reading", path, e))?.len();
        let plan = laid_out(&all_files(json, bytes), bundle, length)?.ok_or_else(|| {
            let text =
                "what is missing has no place in this tar, which is not laid out as ours are; unpack it, and mend that";
            Error::damaged(format!("mending {}: {text}", path.display()))
        })?;
        let at = plan.files.iter().map(|file| (file.path.clone(), file.data)).collect();
        Ok(Place::Tar { path, file, at, plan: Some(plan), mtime })
    }

    /// Headers, padding and the end of a tar that has lost some of them.
    fn straighten(&self) -> Result<()> {
        let Place::Tar { path, file, plan: Some(TarPlan { files, length }), mtime, .. } = self else { return Ok(()) };
        let fail = |e| Error::disk("writing", path, e);
        file.set_len(*length).map_err(fail)?;
        for (at, entry) in files.iter().enumerate() {
            // What it was is in no list.
            if entry.path == SIGNATURE {
                continue;
            }
            file.write_all_at(&entry.header_blocks(*mtime), entry.header).map_err(fail)?;
            let end = files.get(at + 1).map_or(*length, |next| next.header);
            let padding = end.saturating_sub(entry.data + entry.size);
            let zeros = vec![0; usize::try_from(padding).unwrap_or_default()];
            file.write_all_at(&zeros, entry.data + entry.size).map_err(fail)?;
        }
        Ok(())
    }

    fn write(&self, piece: &Piece<'_>) -> Result<()> {
        match self {
            Place::Directory(root) => {
                let named = root.make_parents(&piece.path, 0o777)?;
                let new = named.beside(".partial");
                new.remove()?;
                let file = new.create_new(mode_of(&piece.path))?;
                copy(piece, (&file, new.path()), 0, |_| true)?;
                publish(&file, &new, &named)
            }
            Place::Tar { path, file, at, .. } => {
                let lost = || Error::damaged(format!("mending {}: {} has no place", path.display(), piece.path));
                copy(piece, (file, path), *at.get(&piece.path).ok_or_else(lost)?, |is_new| is_new)
            }
        }
    }

    fn sync(&self) -> Result<()> {
        match self {
            Place::Directory(root) => root.sync(),
            Place::Tar { path, file, .. } => file.sync_all().map_err(|e| Error::disk("syncing", path, e)),
        }
    }
}

/// Proven once more: the repair may be on a medium that answers differently each time.
fn copy(piece: &Piece<'_>, (file, path): (&File, &Path), base: u64, is_written: fn(bool) -> bool) -> Result<()> {
    let mut written = Ok(());
    let mut at = base;
    let found = piece.read(&mut |bytes, is_new| {
        if written.is_ok() && is_written(is_new) {
            written = file.write_all_at(bytes, at);
        }
        at += bytes.len() as u64;
    })?;
    written.map_err(|e| Error::disk("writing", path, e))?;
    match found {
        found if found == piece.digest => Ok(()),
        found => Err(Error::damaged(format!("writing {}: {} has become {found}", path.display(), piece.path))),
    }
}

/// The layout that this tar of `length` bytes was written with: the one that fits everything that is still found in it. A
/// signature, which is in no list, takes two blocks of its own. `None`: another program has made the tar.
fn laid_out(files: &[FileEntry], bundle: &Layout, length: u64) -> Result<Option<TarPlan>> {
    let sizes = |signature: Option<u64>| {
        files.iter().flat_map(move |file| {
            let own = (file.path.clone(), file.size);
            let signature = signature.filter(|_| file.path == SUMS).map(|size| (SIGNATURE.to_owned(), size));
            std::iter::once(own).chain(signature)
        })
    };
    let signature = bundle.size_of(SIGNATURE);
    let plans = match signature {
        Some(size) => vec![TarPlan::new(sizes(Some(size)))?],
        // Its header may be what is damaged; its length is not asked for then.
        None => vec![TarPlan::new(sizes(None))?, TarPlan::new(sizes(Some(1)))?],
    };
    let fits = |plan: &TarPlan| {
        let planned: HashMap<&str, (u64, u64)> =
            plan.files.iter().map(|file| (file.path.as_str(), (file.data, file.size))).collect();
        let found = |path| bundle.slice(path).ok().flatten().map(|slice| (slice.offset(), slice.size()));
        bundle.entries().all(|(path, _)| planned.get(path).copied().is_some_and(|place| Some(place) == found(path)))
    };
    let fitting: Vec<TarPlan> = plans.into_iter().filter(fits).collect();
    // With something behind the sums every doubt is gone; else the length has to tell.
    let is_sure = fitting.len() == 1 || signature.is_some();
    Ok(fitting.into_iter().find(|plan| is_sure || plan.length == length))
}
