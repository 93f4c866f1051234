//! The files of a bundle that are not blobs: made from a lock and its manifests, the same bytes every time.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::basis::{Assumed, Basis, Parent, Removed};
use super::loaders::{docker_json, index_json, load_platform};
use super::open::MAX_BUNDLE_JSON;
use super::signed::MAX_SUMS;
use super::{Contents, Tool};
use crate::base::error::{Error, Result};
use crate::content::chunks::{CHAINED, CHUNK, Chunks, values_of};
use crate::files::{MAX_INDEX, MOST_INDEX_VALUES};
use crate::oci::{
    Algorithm, Amount, Count, Digest, Hex64, Manifest, Platform, Totals, fits_in_memory, has_at_most_values,
    memory_of_json,
};
use crate::pipeline::lock::{Absent, Attached, Lock, LockedImage, MissingImage};

/// The version of the bundle format this program writes and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The largest `manifest.json` that is read, in bytes: room for 100,000 images.
pub const MAX_DOCKER_JSON: u64 = 64 * 1024 * 1024;
/// The most values in it: 25,000 images of thirty layers. More take more memory than a stranger is given.
pub const MOST_DOCKER_VALUES: usize = 1_000_000;
/// The most values in a `bundle.json` that is read: far more than the most files take.
const MOST_VALUES: usize = 8_000_000;
/// The most chunks of a bundle: those of 32 TiB. Their list, 32 bytes for each, is held in memory.
const MOST_CHUNKS: u64 = 32 << 20;

/// The most files below `blobs/`: thirty for each of 5,000 images. What is known of each of them is in memory at once.
const MOST_FILES: usize = 150_000;
/// The same for each image, where that is more: an ordinary one brings fewer than ten that no other image has.
const FILES_OF_IMAGE: usize = 30;
/// A bundle may hold one file for every so many bytes of content, where that is more. An image for six platforms, each with an
/// attestation, brings seventy files or more, but they hold some megabytes on average.
const BYTES_OF_FILE: u64 = 64 * 1024;
/// The most files that content allows: a list can claim any size before a byte of it is there.
const MOST_FOR_BYTES: usize = 1_000_000;

pub const OCI_LAYOUT: &str = "oci-layout";
pub const BUNDLE_JSON: &str = "bundle.json";
pub const INDEX_JSON: &str = "index.json";
pub const DOCKER_JSON: &str = "manifest.json";
pub const SUMS: &str = "SHA256SUMS";
/// Where each blob's chunks are said: [`Chunks`] one after the other.
pub const CHUNKS: &str = "chunks.b3";
pub const SIGNATURE: &str = "SHA256SUMS.sig";

/// `bundle.json`: the digest manifest. See `FORMAT.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundleJson {
    pub gapferry_bundle: u32,
    /// The program that wrote it, for people.
    pub tool: String,
    pub created: Timestamp,
    /// What this bundle builds on; empty in bundles that are complete in themselves.
    pub parents: Vec<Parent>,
    /// What this bundle expects to be at the target already.
    pub assumed: Vec<Assumed>,
    /// Images that were in a parent and are not in the lock.
    pub removed: Vec<Removed>,
    pub lock: Lock,
    /// Every file but `bundle.json`, `SHA256SUMS` and `SHA256SUMS.sig`, in the order of the tar.
    pub files: Vec<FileEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Relative to the root, with `/`.
    pub path: String,
    /// In bytes.
    pub size: u64,
    pub sha256: Hex64,
    /// BLAKE3 of a blob or manifest; other files have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<Hex64>,
}

/// What is known of blobs when all of them are there.
#[derive(Debug)]
pub struct Known {
    /// Of those whose own digest is of another algorithm.
    pub sha256: HashMap<Digest, Digest>,
    /// Of all, manifests too. `None`: nothing is to be said of chunks, as the metadata stand before blobs that nobody has
    /// read; then all of it is known from the contents, but for `sha256`.
    pub chunks: Option<HashMap<Digest, Chunks>>,
}

impl Known {
    /// Nothing yet, of a bundle that will say everything.
    pub fn planned() -> Known {
        Known { sha256: HashMap::new(), chunks: Some(HashMap::new()) }
    }
}

impl BundleJson {
    /// Reads it; `shown` is what errors call the file.
    pub fn parse(bytes: &[u8], shown: &str) -> Result<BundleJson> {
        let fail = |e: serde_json::Error| Error::damaged(format!("reading {shown}")).because(e);
        BundleJson::check(bytes, shown)?;
        let mut json: BundleJson = serde_json::from_slice(bytes).map_err(fail)?;
        json.files.shrink_to_fit();
        Ok(json)
    }

    /// Counts what it holds, before anything of it is in memory.
    fn check(bytes: &[u8], shown: &str) -> Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Outline {
            gapferry_bundle: u32,
            #[serde(default)]
            parents: Count,
            #[serde(default)]
            assumed: Count,
            #[serde(default)]
            removed: Count,
            #[serde(default)]
            lock: Images,
            #[serde(default)]
            files: Totals<Sized>,
        }
        #[derive(Default, Deserialize)]
        struct Images {
            #[serde(default)]
            images: Totals<OutlinedImage>,
            #[serde(default)]
            missing: Count,
        }
        if !has_at_most_values(bytes, MOST_VALUES) {
            return Err(Error::damaged(format!("{shown} has more entries than any bundle")));
        }
        let fail = |e: serde_json::Error| Error::damaged(format!("reading {shown}")).because(e);
        let Outline { gapferry_bundle, parents, assumed, removed, lock, files } =
            serde_json::from_slice(bytes).map_err(fail)?;
        if gapferry_bundle != FORMAT_VERSION {
            let text = format!("{shown} has format {gapferry_bundle}; this program reads format {FORMAT_VERSION}");
            return Err(Error::input(text));
        }
        check_number(files.number, lock.images.number, files.amount)
            .map_err(|why| Error::damaged(format!("{shown}: {why}")))?;
        let lists = [
            parents.memory::<Parent>(),
            assumed.memory::<Assumed>(),
            removed.memory::<Removed>(),
            lock.images.memory::<LockedImage>(),
            lock.missing.memory::<MissingImage>(),
            files.number as u64 * size_of::<FileEntry>() as u64,
        ];
        match fits_in_memory(memory_of_json(bytes), &lists) {
            true => Ok(()),
            false => Err(Error::damaged(format!(
                "{shown} has more entries than any bundle: {} images, {} files, {} assumed, {} removed",
                lock.images.number, files.number, assumed.number, removed.number
            ))),
        }
    }

    /// What it builds on.
    pub fn basis(&self) -> Basis {
        let BundleJson { parents, assumed, removed, .. } = self;
        Basis { parents: parents.clone(), assumed: assumed.clone(), removed: removed.clone() }
    }

    /// Whether it needs something that is at the target.
    pub fn is_increment(&self) -> bool {
        !self.assumed.is_empty()
    }
}

/// The size of a file, of whose entry nothing else is read.
#[derive(Deserialize)]
struct Sized {
    size: u64,
}

impl Amount for Sized {
    fn amount(&self) -> u64 {
        self.size
    }
}

/// How much an image of the lock holds.
#[derive(Deserialize)]
struct OutlinedImage {
    #[serde(default)]
    platforms: Count,
    #[serde(default)]
    absent: Count,
    #[serde(default)]
    attached: Option<Count>,
    #[serde(default)]
    selection: Option<OutlinedSelection>,
}

#[derive(Deserialize)]
struct OutlinedSelection {
    #[serde(default)]
    platforms: Count,
}

impl Amount for OutlinedImage {
    fn amount(&self) -> u64 {
        let attached = self.attached.as_ref().map(Count::memory::<Attached>).unwrap_or_default();
        let selected = self.selection.as_ref().map(|selection| selection.platforms.memory::<Platform>());
        self.platforms.memory::<Platform>() + self.absent.memory::<Absent>() + attached + selected.unwrap_or_default()
    }
}

/// # Errors
/// A bundle of so many images and bytes holds fewer files; says how many, and what to do.
fn check_number(files: usize, images: usize, bytes: u64) -> std::result::Result<(), String> {
    // Beside blobs: metadata and tools.
    const OTHERS: usize = 1_000;
    let for_bytes = usize::try_from(bytes / BYTES_OF_FILE).unwrap_or(usize::MAX).min(MOST_FOR_BYTES);
    let most = MOST_FILES.max(images.saturating_mul(FILES_OF_IMAGE)).max(for_bytes);
    match files <= most + OTHERS {
        true => Ok(()),
        false => Err(format!(
            "its {images} images have {files} files, more than the {most} that a bundle of so many images and bytes holds: leave \
             out those of thousands of layers, or make several bundles"
        )),
    }
}

/// A file that is written as a whole, not fetched.
#[derive(Clone, Debug)]
pub struct Metadata {
    pub path: &'static str,
    pub bytes: Vec<u8>,
}

/// The metadata files in the order of the tar.
///
/// Where something is not known yet, zeros stand in its place, so that all lengths are final before anything is fetched.
///
/// # Errors
/// More files than a bundle holds, or more bytes.
pub fn metadata(contents: &Contents, tool: &str, known: &Known) -> Result<Vec<Metadata>> {
    let bytes = contents.all().map(|(_, size)| size).fold(0, u64::saturating_add);
    check_number(contents.manifests.len() + contents.blobs.len(), contents.lock.images.len(), bytes)
        .map_err(|why| Error::input(format!("planning the bundle: {why}")))?;
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
    let images = whole_images(contents);
    let index = to_bytes(&index_json(&images, &contents.manifests))?;
    let docker = to_bytes(&docker_json(&images, &contents.manifests, &load_platform(&contents.lock)))?;
    let chunks = known.chunks.as_ref().map(|known| chained(contents, known)).transpose()?;
    let mut whole = vec![entry(OCI_LAYOUT, &layout), entry(INDEX_JSON, &index), entry(DOCKER_JSON, &docker)];
    whole.extend(chunks.iter().map(|chunks| entry(CHUNKS, chunks)));
    let files = Files { whole: &whole, contents, known };
    let mut bundle_json = serde_json::to_vec_pretty(&Draft {
        gapferry_bundle: FORMAT_VERSION,
        tool,
        created: contents.lock.created,
        parents: &contents.basis.parents,
        assumed: &contents.basis.assumed,
        removed: &contents.basis.removed,
        lock: &contents.lock,
        files: &files,
    })
    .map_err(internal)?;
    bundle_json.push(b'\n');
    bundle_json.shrink_to_fit();
    let sums = sums(files.iter(), &Digest::sha256(&bundle_json)).into_bytes();
    let mut all = vec![
        Metadata { path: OCI_LAYOUT, bytes: layout },
        Metadata { path: BUNDLE_JSON, bytes: bundle_json },
        Metadata { path: INDEX_JSON, bytes: index },
        Metadata { path: DOCKER_JSON, bytes: docker },
        Metadata { path: SUMS, bytes: sums },
    ];
    all.extend(chunks.map(|bytes| Metadata { path: CHUNKS, bytes }));
    all.iter().try_for_each(check_readable)?;
    Ok(all)
}

/// What is written has to be read again.
///
/// # Errors
/// A file is longer, or has more values, than its reader takes.
fn check_readable(file: &Metadata) -> Result<()> {
    let (most, values) = match file.path {
        BUNDLE_JSON => (MAX_BUNDLE_JSON, MOST_VALUES),
        INDEX_JSON => (MAX_INDEX, MOST_INDEX_VALUES),
        DOCKER_JSON => (MAX_DOCKER_JSON, MOST_DOCKER_VALUES),
        SUMS => (MAX_SUMS, usize::MAX),
        _ => return Ok(()),
    };
    let Metadata { path, bytes } = file;
    // A value takes two bytes at least.
    let has_few_values = bytes.len() / 2 <= values || has_at_most_values(bytes, values);
    let text = format!("planning the bundle: {path} would be longer than can be read again; make several bundles");
    if bytes.len() as u64 > most || !has_few_values {
        return Err(Error::input(text));
    }
    match *path {
        BUNDLE_JSON => BundleJson::check(bytes, path).map_err(|e| Error::input(text).because(e)),
        _ => Ok(()),
    }
}

/// [`BundleJson`] while it is written: thousands of images are not copied for it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Draft<'a> {
    gapferry_bundle: u32,
    tool: &'a str,
    created: Timestamp,
    parents: &'a [Parent],
    assumed: &'a [Assumed],
    removed: &'a [Removed],
    lock: &'a Lock,
    files: &'a Files<'a>,
}

/// Every file that `bundle.json` declares, in the order of the tar.
struct Files<'a> {
    whole: &'a [FileEntry],
    contents: &'a Contents,
    known: &'a Known,
}

impl Files<'_> {
    fn iter(&self) -> impl Iterator<Item = FileEntry> {
        let blobs = self.contents.all().map(|(digest, size)| {
            let sha256 = match digest.algorithm() {
                Algorithm::Sha256 => Hex64::from(&digest),
                Algorithm::Sha512 => self.known.sha256.get(&digest).map_or_else(|| [0; 32].into(), Hex64::from),
            };
            let root = |known: &HashMap<Digest, Chunks>| known.get(&digest).map_or([0; CHAINED], |known| *known.root());
            let blake3 = self.known.chunks.as_ref().map(|known| root(known).into());
            FileEntry { path: digest.blob_path(), size, sha256, blake3 }
        });
        let tools = self.contents.tools.iter().map(Tool::entry);
        self.whole.iter().cloned().chain(tools).chain(blobs)
    }
}

impl Serialize for Files<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// coreutils' format, in the order of the tar.
pub(super) fn sums(files: impl Iterator<Item = FileEntry>, bundle_json: &Digest) -> String {
    let mut text = format!("{}  {BUNDLE_JSON}\n", bundle_json.hex());
    for FileEntry { path, sha256, .. } in files {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{sha256}  {path}");
    }
    text.shrink_to_fit();
    text
}

fn entry(path: &str, bytes: &[u8]) -> FileEntry {
    FileEntry {
        path: path.to_owned(),
        size: bytes.len() as u64,
        sha256: Hex64::from(&Digest::sha256(bytes)),
        blake3: None,
    }
}

/// The chunks of all blobs that have several, in the order of the tar.
///
/// # Errors
/// They would take more than [`MOST_CHUNKS`].
fn chained(contents: &Contents, known: &HashMap<Digest, Chunks>) -> Result<Vec<u8>> {
    let all = contents.all().map(|(_, size)| size).fold(0, u64::saturating_add);
    if all / CHUNK > MOST_CHUNKS {
        let most = MOST_CHUNKS * CHUNK;
        let text = format!("the images have {all} bytes by their manifests, and a bundle holds at most {most}");
        return Err(Error::input(text));
    }
    let mut bytes = Vec::new();
    for (digest, size) in contents.all() {
        match known.get(&digest) {
            Some(chunks) => bytes.extend(chunks.values().iter().flatten()),
            None => bytes.resize(bytes.len() + usize::try_from(values_of(size)).unwrap_or_default() * CHAINED, 0),
        }
    }
    Ok(bytes)
}

/// The images that need nothing from the target: all that other programs are told of.
fn whole_images(contents: &Contents) -> Vec<&LockedImage> {
    let assumed: HashSet<Digest> = contents.basis.assumed.iter().map(|assumed| assumed.digest).collect();
    let by_digest: HashMap<Digest, &Manifest> = contents.manifests.iter().map(|m| (m.digest(), m)).collect();
    let is_whole = |image: &&LockedImage| {
        let attached = image.companions().iter().map(|attached| attached.digest);
        let mut ahead: Vec<Digest> = std::iter::once(image.digest).chain(attached).collect();
        let mut seen = HashSet::new();
        while let Some(digest) = ahead.pop() {
            if assumed.contains(&digest) {
                return false;
            }
            if let Some(manifest) = by_digest.get(&digest).filter(|_| seen.insert(digest)) {
                ahead.extend(manifest.children().iter().map(|child| child.descriptor.digest));
            }
        }
        true
    };
    contents.lock.images.iter().filter(|image| assumed.is_empty() || is_whole(image)).collect()
}

fn to_bytes(value: &Value) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value).map_err(internal)?;
    bytes.shrink_to_fit();
    Ok(bytes)
}

fn internal(error: serde_json::Error) -> Error {
    Error::input("writing the bundle's metadata").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_is_refused_and_so_is_a_parent_nobody_knows_the_meaning_of() {
        let json = |version: u32, parents: &str| {
            format!(
                r#"{{"gapferryBundle":{version},"tool":"t","created":"2026-11-21T00:00:00Z","parents":[{parents}],
                "assumed":[],"removed":[],"lock":{{"version":1,"created":"2026-11-21T00:00:00Z","images":[]}},"files":[]}}"#
            )
        };
        let parse = |text: String| BundleJson::parse(text.as_bytes(), "bundle.json").map_err(|error| error.chain());
        assert!(parse(json(1, "")).is_ok());
        assert!(parse(json(1, r#"{"kind":"inventory","target":"r.io/mirror"}"#)).is_ok());
        assert!(parse(json(1, r#"{"kind":"rumour"}"#)).unwrap_err().contains("unknown variant"));
        assert!(parse(json(1, r#"{"kind":"receipt","more":1}"#)).unwrap_err().contains("unknown field"));
        assert!(parse(json(2, "")).unwrap_err().contains("format 2"));
    }

    /// It comes over the gap: a forged one must not cost the machine that reads it all its memory.
    #[test]
    fn platforms_that_an_image_was_asked_for_are_counted_too() {
        let check = |number| {
            let platforms = vec!["{}"; number].join(",");
            let json = format!(
                r#"{{"gapferryBundle":1,"lock":{{"images":[{{"selection":{{"platforms":[{platforms}]}}}}]}},"files":[]}}"#
            );
            BundleJson::check(json.as_bytes(), "bundle.json").map_err(|error| error.chain())
        };
        assert_eq!(check(5), Ok(()));
        assert!(check(1_900_000).unwrap_err().contains("more entries than any bundle"));
    }

    #[test]
    fn a_few_images_of_many_layers_are_no_bundle_and_many_ordinary_images_are() {
        assert!(check_number(150_000, 5_000, 0).is_ok() && check_number(1_500_000, 50_000, 0).is_ok());
        let why = check_number(500_000, 5_000, 1 << 30).unwrap_err();
        assert!(why.contains("500000 files, more than the 150000") && why.contains("make several bundles"), "{why}");
        // Each for six platforms, with ten layers, attestations and signatures: 110 files of 100 kB.
        assert!(check_number(5_000 * 110, 5_000, 5_000 * 110 * 100_000).is_ok());
        let file = format!(r#"{{"path":"blobs/x","size":0,"sha256":"{}"}}"#, "0".repeat(64));
        let json = format!(
            r#"{{"gapferryBundle":1,"tool":"t","created":"2026-11-21T00:00:00Z","parents":[],"assumed":[],"removed":[],
            "lock":{{"version":1,"created":"2026-11-21T00:00:00Z","images":[]}},"files":[{}]}}"#,
            vec![file; 151_001].join(",")
        );
        let error = BundleJson::parse(json.as_bytes(), "bundle.json").unwrap_err();
        assert!(error.chain().contains("more than the 150000"), "{}", error.chain());
    }
}
