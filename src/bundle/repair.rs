//! Repairing a bundle with the files of a repair, or of another copy of the same bundle.
//!
//! # Threats
//! The repair may be forged, and the bundle damaged as well. No file enters that is not what `bundle.json` says, and that one
//! only with the identity the bundle had; all are proven before the first is written, and again while they are. In a
//! directory a blob may have other names elsewhere, and a link may have taken a place: so nothing there is written into, but
//! made anew and renamed. Killed at any moment, it leaves a bundle that the same command repairs.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::{
    BUNDLE_JSON, BundleJson, CHUNKS, FileEntry, MAX_BUNDLE_JSON, MAX_SIGNATURE, MOST_SIGNATURES, Metadata, OCI_LAYOUT,
    SUMS, SUMS512, signatures_of,
};
use super::format::{is_tool, mode_of};
use super::missing::Missing;
use super::open::refuse_compressed;
use super::patch::{From, Piece};
use super::proof::chunks_of;
use super::ranges::{Patches, RANGES};
use super::signature::Proven;
use super::tar_plan::{BLOCK, END, PlannedFile, TarPlan, header_length};
use super::{chunks, repair_file};
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Dir, Entry, Open, WriteLock, publish};
use crate::base::progress::Events;
use crate::files::Layout;
use crate::oci::Digest;
use crate::signing::signature_in;

/// Bytes of a signature in a tar, header included.
const SLOT: u64 = 2 * BLOCK;
/// How many headers are tried to find out how many signatures precede them: one that is intact is enough.
const HEADERS_TRIED: usize = 100;

/// What became of the files that were bad or absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    pub repaired: Vec<String>,
    /// The repair does not have them.
    pub lacking: Vec<String>,
}

/// What a bundle is repaired with.
pub struct RepairWith<'a> {
    /// A repair, or another copy of the bundle.
    pub from: &'a Path,
    /// What the bundle lacks.
    pub missing: &'a Missing,
    /// What an accepted key has signed: signatures of the copy that fit it are taken too.
    pub proven: Option<&'a Proven>,
    pub events: &'a Events,
}

/// Repairs the bundle at `path`. What is not missing is not touched.
///
/// # Errors
/// What it is repaired with is for another bundle or forged, or it is a tar that is laid out otherwise than ours: nothing has changed.
/// The disk's.
pub fn repair(path: &Path, with: &RepairWith<'_>) -> Result<Repaired> {
    let RepairWith { from, missing, proven, events } = *with;
    let path = &fsops::canonicalize(path)?;
    let lock = WriteLock::take(path)?;
    let (bundle, repair) = (Layout::open(path)?, Layout::open(from)?);
    refuse_compressed(&bundle)?;
    let is_repair = belongs(&repair, missing.identity)?;
    let bytes = list_of_files(&bundle, &repair, missing)?;
    let json = BundleJson::parse(&bytes, &path.join(BUNDLE_JSON).display().to_string())?;
    let wanted = wanted(&json, &bytes, missing);
    let patches = repair_file::patches(&repair)?;
    let (mut pieces, mut done) = (Vec::new(), Repaired::default());
    for entry in &wanted {
        let found = match patched(entry, missing, (&bundle, &repair), &patches)? {
            None => piece(entry, &json, &bytes, missing.identity, &repair),
            patched => Ok(patched),
        };
        match found {
            Ok(Some(piece)) => pieces.push(piece),
            // No image has to wait for a tool.
            Err(error) if is_repair && !is_tool(&entry.path) => return Err(error),
            _ => done.lacking.push(entry.path.clone()),
        }
    }
    let signatures = proven.map_or(Ok(Vec::new()), |proven| fitting(&bundle, &repair, &json, proven))?;
    let wants_chunks = missing.metadata.iter().any(|file| file == CHUNKS);
    let document = Document { json: &json, bytes: &bytes };
    let place = Target::open(lock.output(), &bundle, &document, &wanted, wants_chunks)?;
    place.straighten()?;
    place.write_signatures(&bundle, &signatures)?;
    for piece in pieces {
        place.write(&piece)?;
        done.repaired.push(piece.path);
    }
    if wants_chunks || place.restores_chunks(&bundle) {
        match chunks_of(&Layout::open(path)?, &json, missing.identity, events) {
            Some(made) => {
                let (digest, size) = (Digest::sha256(&made), made.len() as u64);
                place.write(&Piece { path: CHUNKS.to_owned(), size, digest, bytes: From::Made(made) })?;
                done.repaired.push(CHUNKS.to_owned());
            }
            None => done.lacking.push(CHUNKS.to_owned()),
        }
    }
    place.sync()?;
    Ok(done)
}

/// The signatures of `SHA256SUMS` that the copy has and the bundle has not, made by an accepted key.
fn fitting(bundle: &Layout, copy: &Layout, json: &BundleJson, proven: &Proven) -> Result<Vec<Metadata>> {
    let sums = json.sha256sums(proven.identity);
    let mut found = Vec::new();
    for path in signatures_of(copy, SUMS) {
        let is_there = bundle
            .read(path, MAX_SIGNATURE)
            .ok()
            .flatten()
            .is_some_and(|file| proven.is_by_accepted_key(sums.as_bytes(), &signature_in(&file)));
        let Some(file) = copy.read(path, MAX_SIGNATURE)?.filter(|_| !is_there) else { continue };
        if proven.is_by_accepted_key(sums.as_bytes(), &signature_in(&file)) {
            found.push(Metadata::new(path, file.to_vec()));
        }
    }
    Ok(found)
}

/// Whether it is a repair; else it is the same bundle.
pub(super) fn belongs(repair: &Layout, identity: Digest) -> Result<bool> {
    let shown = repair.path().display();
    let (found, is_repair) = match repair_file::is_for(repair)? {
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

/// The bytes of `bundle.json`, from the bundle or from what it is repaired with.
fn list_of_files(bundle: &Layout, repair: &Layout, missing: &Missing) -> Result<bytes::Bytes> {
    for layout in [bundle, repair] {
        let bytes = layout.read(BUNDLE_JSON, MAX_BUNDLE_JSON).ok().flatten();
        if let Some(bytes) = bytes.filter(|bytes| Digest::sha256(bytes) == missing.identity) {
            return Ok(bytes);
        }
    }
    let text =
        "its bundle.json is damaged: repair it with a copy of the bundle, or with a repair that carries bundle.json";
    Err(Error::damaged(format!("repairing {}: {text}", bundle.path().display())))
}

/// `bundle.json` and its bytes.
#[derive(Clone, Copy)]
struct Document<'a> {
    json: &'a BundleJson,
    bytes: &'a [u8],
}

/// All files of the bundle that follow from `bundle.json`, itself included, in the order of the tar.
fn all_files(Document { json, bytes }: Document<'_>) -> Vec<FileEntry> {
    let own = |path: &str, bytes: &[u8]| FileEntry {
        path: path.to_owned(),
        size: bytes.len() as u64,
        digest: Digest::sha256(bytes),
    };
    let sums = json.sha256sums(Digest::sha256(bytes));
    let is_metadata = |file: &&FileEntry| !is_tool(&file.path) && !file.path.starts_with("blobs/");
    let mut files = Vec::with_capacity(json.files.len() + 2);
    for file in json.files.iter().take_while(is_metadata) {
        files.push(file.clone());
        if file.path == OCI_LAYOUT {
            files.push(own(BUNDLE_JSON, bytes));
        }
    }
    files.push(own(SUMS, sums.as_bytes()));
    files.extend(json.files.iter().skip_while(is_metadata).cloned());
    files
}

fn wanted(json: &BundleJson, bytes: &[u8], missing: &Missing) -> Vec<FileEntry> {
    let blobs = missing.blobs.iter().map(|blob| blob.digest.blob_path());
    let tools = missing.tools.iter().map(|tool| tool.path.clone());
    let asked: BTreeSet<String> = blobs.chain(missing.metadata.iter().cloned()).chain(tools).collect();
    all_files(Document { json, bytes }).into_iter().filter(|file| asked.contains(&file.path)).collect()
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
    let digest = entry.digest;
    let bytes = match (&*entry.path, repair.size_of(&entry.path)) {
        (BUNDLE_JSON, _) => From::Made(bytes.to_vec()),
        (SUMS, _) => From::Made(json.sha256sums(identity).into_bytes()),
        (SUMS512, _) => From::Made(json.sha512sums().unwrap_or_default().into_bytes()),
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

/// Where the files of a bundle are written that is repaired in its place.
enum Target<'a> {
    Directory(Dir),
    /// Where the data of files begin, and the layout of all where headers have to be written.
    Tar {
        path: &'a Path,
        file: File,
        at: HashMap<String, u64>,
        laid: Option<Laid>,
        mtime: u64,
    },
}

impl<'a> Target<'a> {
    fn open(
        out: &'a Entry,
        bundle: &Layout,
        document: &Document<'_>,
        wanted: &[FileEntry],
        wants_chunks: bool,
    ) -> Result<Target<'a>> {
        if !bundle.is_tar() {
            let own = ["blobs", "blobs/sha256", "blobs/sha512", "tools"];
            own.iter().try_for_each(|name| fsops::refuse_other_than_directory(&out.path().join(name)))?;
            return Ok(Target::Directory(out.open_dir()?));
        }
        let path = out.path();
        let mtime = document.json.mtime();
        let file = out.open(Open::Change)?;
        let chunks = wants_chunks.then(|| (CHUNKS.to_owned(), chunks_length(document.json)));
        let sizes = wanted.iter().map(|entry| (entry.path.clone(), entry.size)).chain(chunks);
        let places = sizes.map(|(path, size)| {
            let slice = bundle.slice(&path).ok()?.filter(|slice| slice.size() == size)?;
            Some((path, slice.offset()))
        });
        // What only has other bytes keeps its place, whatever program has made the tar.
        let is_whole = bundle.faults().is_empty();
        if let Some(at) = places.collect::<Option<HashMap<String, u64>>>().filter(|_| is_whole) {
            return Ok(Target::Tar { path, file, at, laid: None, mtime });
        }
        let laid = laid_out(document, bundle, &file, wants_chunks)?.ok_or_else(|| {
            let text =
                "what is missing has no place in this tar, which is not laid out as ours are; unpack it, and repair the directory";
            Error::damaged(format!("repairing {}: {text}", path.display()))
        })?;
        let at = laid.files.iter().map(|file| (file.path.clone(), file.data)).collect();
        Ok(Target::Tar { path, file, at, laid: Some(laid), mtime })
    }

    /// Whether `chunks.b3` stood in the end of a tar that is written again.
    fn restores_chunks(&self, bundle: &Layout) -> bool {
        let Target::Tar { at, laid: Some(_), .. } = self else { return false };
        let found = bundle.slice(CHUNKS).ok().flatten().map(|slice| slice.offset());
        at.get(CHUNKS).is_some_and(|at| found != Some(*at))
    }

    /// Headers, padding and the end of a tar that has lost some of them.
    fn straighten(&self) -> Result<()> {
        let Target::Tar { path, file, laid: Some(Laid { files, length, .. }), mtime, .. } = self else { return Ok(()) };
        let fail = |e| Error::disk("writing", path, e);
        file.set_len(*length).map_err(fail)?;
        for entry in files {
            file.write_all_at(&entry.header_blocks(*mtime), entry.header).map_err(fail)?;
            let end = entry.data + entry.size;
            let padding = end.next_multiple_of(BLOCK) - end;
            file.write_all_at(&vec![0; usize::try_from(padding).unwrap_or_default()], end).map_err(fail)?;
        }
        file.write_all_at(&[0; END as usize], length.saturating_sub(END)).map_err(fail)
    }

    /// In a tar, into the places of signatures that are damaged; what has none stays out.
    fn write_signatures(&self, bundle: &Layout, signatures: &[Metadata]) -> Result<()> {
        match self {
            Target::Directory(_) => signatures.iter().try_for_each(|signature| {
                let (path, size) = (signature.path.clone(), signature.bytes.len() as u64);
                let (digest, bytes) = (Digest::sha256(&signature.bytes), From::Made(signature.bytes.clone()));
                self.write(&Piece { path, size, digest, bytes })
            }),
            Target::Tar { path, file, laid, mtime, .. } => {
                let header = |path: &str| bundle.slice(path).ok().flatten()?.offset().checked_sub(BLOCK);
                let intact: Vec<u64> = signatures_of(bundle, SUMS).into_iter().filter_map(header).collect();
                let free = laid.iter().flat_map(|laid| &laid.slots).copied().filter(|slot| !intact.contains(slot));
                let mut free = free.collect::<Vec<u64>>().into_iter();
                for signature in signatures {
                    let Some(at) = header(&signature.path).or_else(|| free.next()) else { continue };
                    let size = signature.bytes.len() as u64;
                    let entry = PlannedFile { path: signature.path.clone(), size, header: at, data: at + BLOCK };
                    let mut blocks = entry.header_blocks(*mtime);
                    blocks.extend_from_slice(&signature.bytes);
                    blocks.resize(SLOT as usize, 0);
                    file.write_all_at(&blocks, at).map_err(|e| Error::disk("writing", path, e))?;
                }
                Ok(())
            }
        }
    }

    fn write(&self, piece: &Piece<'_>) -> Result<()> {
        match self {
            Target::Directory(root) => {
                let named = root.make_parents(&piece.path, 0o777)?;
                let new = named.beside(".partial");
                new.remove()?;
                let file = new.create_new(mode_of(&piece.path))?;
                copy(piece, (&file, new.path()), 0, |_| true)?;
                publish(&file, &new, &named)
            }
            Target::Tar { path, file, at, .. } => {
                let lost = || Error::damaged(format!("repairing {}: {} has no place", path.display(), piece.path));
                copy(piece, (file, path), *at.get(&piece.path).ok_or_else(lost)?, |is_new| is_new)
            }
        }
    }

    fn sync(&self) -> Result<()> {
        match self {
            Target::Directory(root) => root.sync(),
            Target::Tar { path, file, .. } => file.sync_all().map_err(|e| Error::disk("syncing", path, e)),
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

/// How a tar was written: where everything stands that follows from `bundle.json`, and the places of signatures.
struct Laid {
    /// Without signatures: what they were is in no list.
    files: Vec<PlannedFile>,
    /// Where the headers of the signatures of `SHA256SUMS` begin.
    slots: Vec<u64>,
    /// Of the file, in bytes.
    length: u64,
}

fn chunks_length(json: &BundleJson) -> u64 {
    chunks::length(json.blobs().map(|(_, size)| size))
}

/// The layout that this tar was written with. A file behind the sums that is still found tells by its offset how
/// many signatures precede it, and so does a header that is intact behind one that is not; without any, the length has to. `None`:
/// another program has made the tar.
fn laid_out(document: &Document<'_>, bundle: &Layout, tar: &File, wants_chunks: bool) -> Result<Option<Laid>> {
    let length = tar.metadata().map_err(|e| Error::disk("reading", bundle.path(), e))?.len();
    let files = all_files(*document);
    let behind = files.iter().position(|file| file.path == SUMS).map_or(files.len(), |at| at + 1);
    let TarPlan { files: mut planned, length: least } =
        TarPlan::new(files.into_iter().map(|file| (file.path, file.size)))?;
    let chunks = chunks_length(document.json);
    let of_chunks = header_length(CHUNKS) + chunks.next_multiple_of(BLOCK);
    let found = |path: &str| bundle.slice(path).ok().flatten().map(|slice| (slice.offset(), slice.size()));
    let (mut known, mut seen) = (None, 0);
    for (at, file) in planned.iter().enumerate() {
        let Some((offset, size)) = found(&file.path) else { continue };
        let shift = offset.checked_sub(file.data).filter(|_| size == file.size);
        match shift {
            Some(0) if at < behind => {}
            Some(shift) if at >= behind && known.is_none_or(|known| known == shift) => known = Some(shift),
            _ => return Ok(None),
        }
        seen += 1;
    }
    let others = [SUMS, CHUNKS].map(|signed| signatures_of(bundle, signed).len());
    let is_there = bundle.size_of(CHUNKS).is_some();
    let at_end = |shift: u64| least - END + shift + header_length(CHUNKS);
    if bundle.entries().count() != seen + others[0] + others[1] + usize::from(is_there) {
        return Ok(None);
    }
    // What stands behind the blobs, if the signatures before them take `shift` bytes.
    let behind_blobs = |shift: u64| {
        let rest = length.checked_sub(least.checked_add(shift)?)?;
        match rest.checked_sub(of_chunks) {
            _ if rest == 0 => Some(0),
            Some(slots) if is_slots(slots) => Some(rest),
            _ => None,
        }
    };
    let shifts = || (0..=MOST_SIGNATURES as u64).map(|number| number * SLOT);
    let by_headers = || shifts().find(|shift| has_headers(tar, &planned[behind..], *shift, document.json.mtime()));
    let by_length = || shifts().find(|shift| behind_blobs(*shift).is_some());
    let shift = known.or_else(by_headers).or_else(by_length).filter(|shift| is_slots(*shift));
    let Some(shift) = shift else { return Ok(None) };
    if found(CHUNKS).is_some_and(|(offset, _)| offset != at_end(shift)) {
        return Ok(None);
    }
    let found_chunks = of_chunks + others[1] as u64 * SLOT;
    // Of a tar that has lost its end the whole end is written.
    let trailer = behind_blobs(shift).filter(|rest| *rest > 0 || !wants_chunks).unwrap_or(found_chunks);
    let first = planned.get(behind).map_or(least - END, |file| file.header);
    planned.iter_mut().skip(behind).for_each(|file| {
        file.header += shift;
        file.data += shift;
    });
    if trailer > 0 {
        let data = at_end(shift);
        planned.push(PlannedFile { path: CHUNKS.to_owned(), size: chunks, header: data - header_length(CHUNKS), data });
    }
    let slots = (0..shift / SLOT).map(|number| first + number * SLOT).collect();
    Ok(Some(Laid { files: planned, slots, length: least + shift + trailer }))
}

/// Whether a header of these files is where it has to be if signatures take `shift` bytes before them.
fn has_headers(tar: &File, planned: &[PlannedFile], shift: u64, mtime: u64) -> bool {
    planned.iter().take(HEADERS_TRIED).any(|file| {
        let expected = file.header_blocks(mtime);
        let mut found = vec![0; expected.len()];
        tar.read_exact_at(&mut found, file.header.saturating_add(shift)).is_ok() && found == expected
    })
}

/// Whether so many bytes are those of signatures.
fn is_slots(bytes: u64) -> bool {
    bytes.is_multiple_of(SLOT) && bytes / SLOT <= MOST_SIGNATURES as u64
}
