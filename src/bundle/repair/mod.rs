//! Repairs a bundle in place with a repair file or another copy of the same bundle.
//!
//! # Threats
//! The repair file may be forged, and the bundle is damaged. A file is accepted only if it is what `bundle.json` states, and
//! `bundle.json` itself only with the original identity. All files are proven before the first is written, and again while
//! they are written. A kill at any moment leaves a bundle that the same command repairs.

pub mod file;
mod ranges;
pub mod volumes;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Linkable, WriteLock};
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::chunks::MAX_CHUNKS;
use crate::bundle::fileset::FileList;
use crate::bundle::fileset::{FileSet, KnownFile, Trailer};
use crate::bundle::format::{
    BUNDLE_JSON, BundleJson, CHUNKS, FileEntry, MAX_BUNDLE_JSON, MAX_SIGNATURE, Metadata, SUMS, SUMS512, identity_of,
    is_tool, name_of_key, signatures_of,
};
use crate::bundle::missing::Missing;
use crate::bundle::open::{json_of, open_damaged, refuse_compressed};
use crate::bundle::output::existing_directory::ExistingDirectory;
use crate::bundle::output::existing_tar::{ExistingTar, WantedOfTar};
use crate::bundle::output::tar_survey::by_survey;
use crate::bundle::output::{Placement, WantedBlob};
use crate::bundle::prove_files::chunks_with;
use crate::bundle::signature::Proven;
use crate::bundle::tools::Tool;
use crate::bundle::writer::{Blobs, Links, Supply, Writer};
use crate::content::proof::{Unproven, prove};
use crate::content::{Slice, in_parallel};
use crate::files::Layout;
use crate::oci::{Descriptor, Digest};
use crate::signing::{is_well_formed, signature_in};
use ranges::{Patch, RANGES, patched};

/// The outcome for the bad and missing files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    pub repaired: Vec<String>,
    /// Files that the repair file or copy lacks.
    pub lacking: Vec<String>,
    /// Signatures of the copy that have no place in the bundle.
    pub unplaced: Vec<String>,
}

/// What to repair a bundle with.
pub struct RepairWith<'a> {
    /// A repair file, or another copy of the bundle in any form.
    pub from: &'a Layout,
    /// What the bundle lacks.
    pub missing: &'a Missing,
    /// What an accepted key has signed; matching signatures of the copy are taken too.
    pub proven: Option<&'a Proven>,
    pub events: &'a Events,
}

/// Locks the bundle at `path`. What it lacks must be found under this lock, because another run may change it meanwhile.
/// Returns `None` if nothing can be written there.
///
/// # Errors
/// Another run is writing it.
pub fn lock_bundle(path: &Path) -> Result<Option<WriteLock>> {
    WriteLock::take_if_writable(&fsops::canonicalize(path)?)
}

/// Repairs the bundle at `path`, on which `lock` is held. Files that are not missing are not touched.
///
/// # Errors
/// What it is repaired with is for another bundle or forged, or the tar was not laid out by gapferry: nothing has changed. The
/// disk fails.
pub fn repair(path: &Path, lock: Option<WriteLock>, with: &RepairWith<'_>) -> Result<Repaired> {
    let RepairWith { from, missing, proven, events } = *with;
    let path = &fsops::canonicalize(path)?;
    // If it cannot be written, the error says so later.
    let lock = lock.map_or_else(|| WriteLock::take(path), Ok)?;
    let bundle = open_damaged(path)?;
    refuse_compressed(&bundle)?;
    let Some(bytes) = [&bundle, from].into_iter().find_map(|layout| json_of(layout, missing.identity)) else {
        belongs(from, missing.identity)?;
        return Err(listless(path));
    };
    let json = BundleJson::parse(&bytes, &path.join(BUNDLE_JSON).display().to_string())?;
    let list = FileList { json: &json, identity: missing.identity, size: bytes.len() as u64 };
    let surveyed = by_survey(from, &list)?;
    let repair = surveyed.as_ref().unwrap_or(from);
    let is_repair = belongs(repair, missing.identity)?;
    let patches = if is_repair { file::patches(repair)? } else { ranges::of_copy(repair, missing) };
    let sources = Sources { bundle: &bundle, repair, bundle_json: &bytes, missing, patches, is_repair };
    let wanted = wanted(&list, missing);
    let bring = |proven| signatures_for(&bundle, repair, &list, missing, proven);
    let mut signatures = proven.map(bring).transpose()?.unwrap_or_default();
    let mut brought = Brought::default();
    let mut done = Repaired::default();
    for (entry, found) in wanted.iter().zip(sources.find_all(&wanted, &list, events)) {
        match found {
            Ok(Some(one)) => {
                brought.add(one);
                done.repaired.push(entry.path.clone());
            }
            // A bad tool must not keep images from being repaired.
            Err(error) if is_repair && !is_tool(&entry.path) => return Err(error),
            _ => done.lacking.push(entry.path.clone()),
        }
    }
    let mut wants_chunks = missing.metadata.iter().any(|file| file == CHUNKS);
    let place: Arc<dyn Placement> = if bundle.is_tar() {
        let stretches = brought.patched.iter().map(|digest| (*digest, sources.stretches(digest))).collect();
        let wanted = WantedOfTar { files: &wanted, chunks: wants_chunks, stretches };
        let Some(mut tar) = ExistingTar::open(lock.output(), &bundle, &list, wanted)? else {
            let is_whole_copy = !is_repair && from.problems().is_empty() && done.lacking.is_empty();
            return Err(no_place(path, is_whole_copy.then_some(from)));
        };
        wants_chunks |= tar.moves_chunks(&bundle);
        signatures.retain(|signature| {
            let is_placed = tar.place_signature(signature);
            done.unplaced.extend((!is_placed).then(|| signature.path.clone()));
            is_placed
        });
        tar.straighten()?;
        Arc::new(tar)
    } else {
        let directory = ExistingDirectory::open(lock.output())?;
        let of_chunks = wants_chunks.then_some(CHUNKS);
        let signatures = signatures.iter().map(|signature| signature.path.as_str());
        directory.make_room(done.repaired.iter().map(String::as_str).chain(signatures).chain(of_chunks))?;
        Arc::new(directory)
    };
    done.repaired.extend(signatures.iter().map(|signature| signature.path.clone()));
    brought.head.extend(signatures);
    let supply = Supplied { sources: &sources, patched: std::mem::take(&mut brought.patched) };
    let (files, links) = (brought.into_files(&list), Links::copying());
    let supply = Supply { blobs: &supply, links: &links, phase: Phase::Transfer };
    let writer = Writer::into_place(lock, place, files, &[supply], events.clone())?;
    if let Some(blob) = writer.missing().next() {
        // The source may be on a medium that reads differently each time.
        let text = format!("repairing {}: {} could not be read again", path.display(), blob.digest.blob_path());
        return Err(Error::damaged(text));
    }
    let mut trailer = Vec::new();
    if wants_chunks {
        match chunks_with(&writer.known(), &Layout::open(path)?, &json, missing.identity, events) {
            Some(made) => {
                trailer = Trailer::Copied(Vec::new()).files(made)?;
                done.repaired.push(CHUNKS.to_owned());
            }
            None => done.lacking.push(CHUNKS.to_owned()),
        }
    }
    writer.finish_with(&trailer)?;
    Ok(done)
}

/// Signatures by accepted keys that the copy has and the bundle lacks.
fn signatures_for(
    bundle: &Layout,
    copy: &Layout,
    list: &FileList<'_>,
    missing: &Missing,
    proven: &Proven,
) -> Result<Vec<KnownFile>> {
    let mut found = fitting(bundle, copy, SUMS, list.json.sha256sums(list.identity).as_bytes(), proven)?;
    let lacks_chunks = missing.metadata.iter().any(|file| file == CHUNKS);
    // No image needs it, so nothing waits for it.
    let chunks = || if lacks_chunks { copy } else { bundle }.read(CHUNKS, MAX_CHUNKS).ok().flatten();
    if !signatures_of(copy, CHUNKS).is_empty()
        && let Some(chunks) = chunks()
    {
        found.extend(fitting(bundle, copy, CHUNKS, &chunks, proven).unwrap_or_default());
    }
    Ok(found)
}

/// Signatures of the file `signed` with these bytes, by accepted keys, that the copy has and the bundle lacks, under names
/// that are free there. An existing signature may be by another key and stays.
fn fitting(
    bundle: &Layout,
    copy: &Layout,
    signed: &'static str,
    bytes: &[u8],
    proven: &Proven,
) -> Result<Vec<KnownFile>> {
    let read = |path: &str| Some(signature_in(&bundle.read(path, MAX_SIGNATURE).ok().flatten()?));
    let own: HashMap<&str, Vec<u8>> =
        signatures_of(bundle, signed).into_iter().map(|path| (path, read(path).unwrap_or_default())).collect();
    let mut found: Vec<KnownFile> = Vec::new();
    let plain = format!("{signed}.sig");
    for path in signatures_of(copy, signed) {
        let Some(file) = copy.read(path, MAX_SIGNATURE)? else { continue };
        let signature = signature_in(&file);
        let Some(key) = proven.accepted_key(bytes, &signature) else { continue };
        let is_replaceable = |there: &Vec<u8>| !is_well_formed(there) || is_damaged(there, &signature);
        let is_free =
            |name: &&str| own.get(*name).is_none_or(is_replaceable) && found.iter().all(|other| other.path != **name);
        let named = name_of_key(signed, key);
        let has_signed = own.values().any(|there| key.verifies(bytes, there));
        if let Some(name) = [path, &plain, &named].into_iter().find(is_free).filter(|_| !has_signed) {
            found.push(Metadata::new(name, file.to_vec()).into());
        }
    }
    Ok(found)
}

/// Whether a signature is a remnant of `whole`; one by another key shares hardly any bytes with it.
fn is_damaged(there: &[u8], whole: &[u8]) -> bool {
    let alike = there.iter().zip(whole).filter(|(one, other)| one == other).count();
    there.len() == whole.len() && alike > whole.len() / 2
}

/// Whether it is a repair file; otherwise it is the same bundle.
pub(super) fn belongs(repair: &Layout, identity: Digest) -> Result<bool> {
    let shown = repair.path().display();
    let (found, is_repair) = match file::is_for(repair)? {
        Some(found) => (found, true),
        None => match repair.read(BUNDLE_JSON, MAX_BUNDLE_JSON)? {
            Some(bytes) => (identity_of(&bytes), false),
            None => return Err(Error::input(format!("{shown} is neither a repair file nor a bundle"))),
        },
    };
    if found != identity {
        return Err(Error::input(format!("{shown} is for another bundle: {found}, not {identity}")));
    }
    Ok(is_repair)
}

fn listless(bundle: &Path) -> Error {
    let text = "its bundle.json is damaged: repair it with a copy of the bundle, or with a repair file that contains \
         bundle.json";
    Error::damaged(format!("repairing {}: {text}", bundle.display()))
}

/// The error for a tar without a place for something it lacks. With a complete copy, it can be written again as a whole.
fn no_place(bundle: &Path, whole_copy: Option<&Layout>) -> Error {
    let convert = whole_copy.map_or(String::new(), |copy| {
        format!("write it again from the copy (`gapferry convert {} -o NEW.tar`), or ", copy.path().display())
    });
    let text = "this tar has no known place for the missing files: gapferry did not write it, or too little of it is \
                left to tell where its files were";
    let text = format!("repairing {}: {text}; {convert}unpack it and repair the directory", bundle.display());
    Error::damaged(text)
}

/// What `missing` lists and `bundle.json` declares.
fn wanted(list: &FileList<'_>, missing: &Missing) -> Vec<FileEntry> {
    let blobs = missing.blobs.iter().map(|blob| blob.digest.blob_path());
    let tools = missing.tools.iter().map(|tool| tool.path.clone());
    let asked: BTreeSet<String> = blobs.chain(missing.metadata.iter().cloned()).chain(tools).collect();
    list.files().into_iter().filter(|file| asked.contains(&file.path)).collect()
}

/// Files that were found and proven.
#[derive(Default)]
struct Brought {
    head: Vec<KnownFile>,
    tools: Vec<Tool>,
    blobs: Vec<Descriptor>,
    /// Blobs of which only the bad parts come from the repair file or copy.
    patched: BTreeSet<Digest>,
}

/// A file that was found.
enum Found {
    Known(KnownFile),
    Tool(Tool),
    Blob(WantedBlob),
    Patched(WantedBlob),
}

impl Brought {
    fn add(&mut self, found: Found) {
        match found {
            Found::Known(file) => self.head.push(file),
            Found::Tool(tool) => self.tools.push(tool),
            Found::Blob(blob) => self.blobs.push(descriptor(blob)),
            Found::Patched(blob) => {
                self.patched.insert(blob.digest);
                self.blobs.push(descriptor(blob));
            }
        }
    }

    fn into_files(self, list: &FileList<'_>) -> FileSet {
        let Brought { head, tools, blobs, .. } = self;
        FileSet { tools, blobs, ..FileSet::of_known(list.identity, list.json.mtime(), head) }
    }
}

/// Only its bytes matter here.
fn descriptor(WantedBlob { digest, size }: WantedBlob) -> Descriptor {
    Descriptor::new("application/octet-stream", digest, size)
}

/// Where files come from: the repair file or copy, and the intact parts of the bundle itself.
struct Sources<'a> {
    bundle: &'a Layout,
    repair: &'a Layout,
    /// The proven bytes of `bundle.json`.
    bundle_json: &'a [u8],
    missing: &'a Missing,
    patches: HashMap<Digest, Vec<Patch>>,
    /// Otherwise it is a copy of the bundle.
    is_repair: bool,
}

impl Sources<'_> {
    /// Finds and proves each of the `wanted` files; `None` for those that the repair file or copy lacks.
    fn find_all(&self, wanted: &[FileEntry], list: &FileList<'_>, events: &Events) -> Vec<Result<Option<Found>>> {
        let bytes = wanted.iter().map(|file| file.size).fold(0, u64::saturating_add);
        events.report(Event::Phase { phase: Phase::Recheck, items: wanted.len() as u64, bytes });
        in_parallel(wanted, |file| {
            let FileEntry { digest, size, .. } = *file;
            events.report(Event::BlobStarted { digest, size, present: 0 });
            let found = self.find(file, list, &|bytes| events.report(Event::BlobAdvanced { digest, bytes }));
            events.report(Event::BlobFinished { digest });
            events.report(Event::ItemDone);
            found
        })
    }

    fn find(&self, file: &FileEntry, list: &FileList<'_>, progress: &dyn Fn(u64)) -> Result<Option<Found>> {
        let known = |bytes: Vec<u8>| Ok(Some(Found::Known(Metadata::new(&file.path, bytes).into())));
        match &*file.path {
            BUNDLE_JSON => return known(self.bundle_json.to_vec()),
            SUMS => return known(list.json.sha256sums(list.identity).into_bytes()),
            SUMS512 => return known(list.json.sha512sums().unwrap_or_default().into_bytes()),
            _ => {}
        }
        let blob = Digest::of_blob_path(&file.path).map(|digest| WantedBlob { digest, size: file.size });
        if let Some(blob) = blob.filter(|blob| self.patches.contains_key(&blob.digest))
            && self.is_right_when_patched(file, blob, progress)?
        {
            return Ok(Some(Found::Patched(blob)));
        }
        let fail = |why: String| Error::damaged(format!("{}: {} {why}", self.repair.path().display(), file.path));
        let Some(slice) = self.repair.slice(&file.path)? else { return Ok(None) };
        if slice.size() != file.size {
            return Err(fail(format!("has {} bytes instead of {}", slice.size(), file.size)));
        }
        match prove(&slice, &file.digest, progress) {
            Ok(()) => {}
            Err(Unproven::Unreadable(error)) => return Err(Error::disk("reading", slice.path(), error)),
            Err(unproven) => return Err(fail(format!("does not match what the bundle lacks: {unproven}"))),
        }
        match blob {
            Some(blob) => Ok(Some(Found::Blob(blob))),
            None if is_tool(&file.path) => {
                Tool::of_bundle(self.repair, &file.path, file.size, file.digest).map(|tool| Some(Found::Tool(tool)))
            }
            None => KnownFile::of(self.repair, &file.path, Some(file.digest)).map(|file| Some(Found::Known(file))),
        }
    }

    /// Whether the existing blob is right with the ranges of the repair file.
    fn is_right_when_patched(&self, file: &FileEntry, blob: WantedBlob, progress: &dyn Fn(u64)) -> Result<bool> {
        let slice = self.patched(&blob.digest)?.filter(|slice| slice.size() == blob.size);
        if slice.is_some_and(|slice| prove(&slice, &blob.digest, progress).is_ok()) {
            return Ok(true);
        }
        if !self.is_repair {
            return Ok(false);
        }
        // More may be bad now than was requested.
        let bad = self.missing.blobs.iter().find(|bad| bad.digest == blob.digest).map_or(&[][..], |bad| &bad.ranges);
        let patches = self.patches.get(&blob.digest).map_or(&[][..], Vec::as_slice);
        match bad.iter().any(|range| ranges::is_other(range, patches, blob.size)) {
            true => {
                let (repair, path) = (self.repair.path().display(), &file.path);
                Err(Error::damaged(format!("{repair}: {RANGES} of {path} does not match what the bundle lacks")))
            }
            false => Ok(false),
        }
    }

    /// The blob in the bundle, with the ranges of the repair file.
    fn patched(&self, digest: &Digest) -> Result<Option<Slice>> {
        let Some(patches) = self.patches.get(digest) else { return Ok(None) };
        Ok(self.bundle.slice(&digest.blob_path())?.and_then(|slice| patched(&slice, patches)))
    }

    /// The ranges of a blob in the repair file, by first byte and length.
    fn stretches(&self, digest: &Digest) -> Vec<(u64, u64)> {
        let patches = self.patches.get(digest).into_iter().flatten();
        patches.map(|patch| (patch.first, patch.bytes.size())).collect()
    }
}

/// The blobs that were found.
struct Supplied<'a> {
    sources: &'a Sources<'a>,
    patched: BTreeSet<Digest>,
}

impl Blobs for Supplied<'_> {
    /// Only blobs that were found are requested.
    fn has(&self, _: &WantedBlob) -> bool {
        true
    }

    fn open(&self, digest: &Digest) -> Result<Option<Slice>> {
        match self.patched.contains(digest) {
            true => self.sources.patched(digest),
            false => self.sources.repair.slice(&digest.blob_path()),
        }
    }

    fn linkable(&self, _: &Digest) -> Result<Option<Linkable>> {
        Ok(None)
    }
}
