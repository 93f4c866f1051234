//! `bundle.json`: the list of files and the lock. It is a pure function of the contents.
//!
//! # Threats
//! It may be forged. It is counted before anything of it is kept in memory, and only canonical bytes are accepted, so that two
//! programs cannot read it differently.
//!
//! It is not a [`Document`](crate::base::document::Document): files from before 0.2 have the same version number and other
//! keys, and are rejected with their own advice.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{BUNDLE_JSON, DOCKER_JSON, FileEntry, INDEX_JSON, OCI_LAYOUT, SUMS512, is_tool, sums};
use crate::base::canonical;
use crate::base::document::OtherVersion;
use crate::base::error::{Error, Result};
use crate::bundle::basis::{Assumed, Basis, Parent, Removed};
use crate::oci::{
    Algorithm, Amount, Count, Digest, MOST_MEMORY, Platform, Totals, fits_in_memory, has_at_most_values, memory_of_json,
};
use crate::pipeline::lock::{Absent, Attached, Lock, LockedImage, MissingImage, Selection};

/// The version of the bundle format, the only one that is read and written.
pub const FORMAT_VERSION: u32 = 1;
/// Maximum size in bytes: far more than the largest number of files takes.
pub const MAX_BUNDLE_JSON: u64 = MOST_MEMORY;
/// Maximum number of values: far more than the largest number of files takes.
const MOST_VALUES: usize = 8_000_000;
/// Maximum number of files below `blobs/`: thirty for each of 5,000 images. What is known about each is in memory at once.
const MOST_FILES: usize = 150_000;
/// Maximum per image, if that is more: an ordinary image has fewer than ten files that no other image has.
const FILES_OF_IMAGE: usize = 30;
/// A bundle may have one file per this many bytes of content, if that is more. An image for six platforms with attestations
/// has seventy files or more, but they average some megabytes.
const BYTES_OF_FILE: u64 = 64 * 1024;
/// Maximum number of files that content allows, because a list can claim any size before a byte of it exists.
const MOST_FOR_BYTES: usize = 1_000_000;

/// `bundle.json`. Its SHA-256 is the identity of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundleJson {
    pub gapferry_bundle: u32,
    /// What this bundle builds on; empty for a complete bundle.
    pub parents: Vec<Parent>,
    /// What this bundle expects at the target.
    pub assumed: Vec<Assumed>,
    /// Images of a parent that are not in the lock.
    pub removed: Vec<Removed>,
    pub lock: Lock,
    /// Every declared file, in tar order.
    pub files: Vec<FileEntry>,
}

/// The identity of a bundle: always the SHA-256 of `bundle.json`. Forged JSON can name a digest of another algorithm; no
/// bundle has that identity.
pub fn identity_of(bundle_json: &[u8]) -> Digest {
    Digest::sha256(bundle_json)
}

impl BundleJson {
    /// Parses it. `shown` is the name of the file in errors.
    ///
    /// # Errors
    /// It has another version or was written before 0.2 (`Input`, with the fact [`OtherVersion`]), or has unknown keys or
    /// bytes that are not canonical (`Damaged`).
    pub fn parse(bytes: &[u8], shown: &str) -> Result<BundleJson> {
        BundleJson::check(bytes, shown)?;
        let fail = |e: serde_json::Error| match has_blake3(bytes) {
            true => of_before(shown),
            false => Error::damaged(format!("reading {shown}")).because(e),
        };
        let mut json: BundleJson = serde_json::from_slice(bytes).map_err(fail)?;
        json.files.shrink_to_fit();
        let fault = json.fault().or_else(|| {
            let (number, line) = canonical::first_difference(bytes, &json)?;
            Some(format!("it is not in the exact form of format {FORMAT_VERSION}: line {number} differs: {line:?}"))
        });
        match fault {
            Some(fault) => Err(Error::damaged(format!("reading {shown}: {fault}"))),
            None => Ok(json),
        }
    }

    /// What format 1 forbids, although it can be parsed.
    fn fault(&self) -> Option<String> {
        let mut times = self.parents.iter().filter_map(|parent| parent.time).chain([self.lock.created]);
        let is_time = |time: &Timestamp| time.subsec_nanosecond() == 0 && TIMES.contains(&time.as_second());
        if let Some(time) = times.find(|time| !is_time(time)) {
            return Some(format!("{time} is not a whole second between 1970 and 2242"));
        }
        let mut names = HashSet::new();
        if let Some(image) = self.lock.images.iter().find(|image| !names.insert(image.name())) {
            return Some(format!("two of its images have the name {}", image.name()));
        }
        let mut originals = self.lock.images.iter().filter_map(|image| image.selection.as_ref());
        if let Some(Selection { original, .. }) = originals.find(|one| one.original != one.original.bare()) {
            return Some(format!("its entry for the original {} has more than a descriptor", original.digest));
        }
        if let Some(fault) = problem_of_paths(&self.files) {
            return Some(fault);
        }
        if let Some(file) = self.files.iter().find(|file| file.size > i64::MAX as u64) {
            return Some(format!("{:?} cannot have a size of {} bytes", file.path, file.size));
        }
        let is_wrong = |file: &&FileEntry| match file.path.starts_with("blobs/") {
            true => Digest::of_blob_path(&file.path) != Some(file.digest),
            false => file.digest.algorithm() != Algorithm::Sha256,
        };
        if let Some(file) = self.files.iter().find(is_wrong) {
            return Some(format!("{:?} cannot have the digest {}", file.path, file.digest));
        }
        let expected = self.sha512sums().map(|text| Digest::sha256(text.as_bytes()));
        let declared = self.files.iter().find(|file| file.path == SUMS512).map(|file| file.digest);
        (expected != declared).then(|| format!("its {SUMS512} does not match its files"))
    }

    /// Counts the contents before anything of them is kept in memory.
    fn check(bytes: &[u8], shown: &str) -> Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Outline {
            gapferry_bundle: u32,
            #[serde(default)]
            tool: Option<IgnoredAny>,
            #[serde(default)]
            created: Option<IgnoredAny>,
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
            return Err(Error::damaged(format!("{shown} has more entries than a bundle can have")));
        }
        let fail = |e: serde_json::Error| Error::damaged(format!("reading {shown}")).because(e);
        let Outline { gapferry_bundle, tool, created, parents, assumed, removed, lock, files } =
            serde_json::from_slice(bytes).map_err(fail)?;
        if gapferry_bundle != FORMAT_VERSION {
            let text = format!("{shown} has format {gapferry_bundle}; this program reads format {FORMAT_VERSION}");
            let found = gapferry_bundle.into();
            return Err(Error::input(text).with_fact(OtherVersion { found, known: FORMAT_VERSION }));
        }
        if tool.is_some() || created.is_some() {
            return Err(of_before(shown));
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
                "{shown} has more entries than a bundle can have: {} images, {} files, {} assumed, {} removed",
                lock.images.number, files.number, assumed.number, removed.number
            ))),
        }
    }

    /// Makes sure that it can be read again.
    ///
    /// # Errors
    /// It is too long or has too many entries for its reader.
    pub(in crate::bundle) fn check_readable(bytes: &[u8]) -> Result<()> {
        match bytes.len() as u64 > MAX_BUNDLE_JSON {
            true => Err(Error::damaged(format!("{BUNDLE_JSON} has {} bytes", bytes.len()))),
            false => BundleJson::check(bytes, BUNDLE_JSON),
        }
    }

    /// Digest and size in bytes of every file below `blobs/`, in order.
    pub fn blobs(&self) -> impl Iterator<Item = (Digest, u64)> {
        let is_blob = |file: &&FileEntry| file.path.starts_with("blobs/");
        self.files.iter().filter(is_blob).map(|file| (file.digest, file.size))
    }

    /// The bytes of `SHA256SUMS` for a bundle with this identity.
    pub fn sha256sums(&self, identity: Digest) -> String {
        sums::sha256sums(identity, &self.files)
    }

    /// The bytes of `SHA512SUMS`, if it exists.
    pub fn sha512sums(&self) -> Option<String> {
        sums::sha512sums(self.files.iter().map(|file| (file.path.as_str(), file.digest)))
    }

    /// The time of every tar entry, in seconds since 1970.
    pub fn mtime(&self) -> u64 {
        self.lock.mtime()
    }

    /// What it builds on.
    pub fn basis(&self) -> Basis {
        let BundleJson { parents, assumed, removed, .. } = self;
        Basis { parents: parents.clone(), assumed: assumed.clone(), removed: removed.clone() }
    }

    /// Whether it needs something at the target.
    pub fn is_increment(&self) -> bool {
        !self.assumed.is_empty()
    }
}

/// Only these paths are allowed, in this order, so no path can lead elsewhere.
fn problem_of_paths(files: &[FileEntry]) -> Option<String> {
    let mut before: Option<(usize, &str)> = None;
    let mut blobs = HashSet::new();
    for FileEntry { path, .. } in files {
        let metadata = [OCI_LAYOUT, INDEX_JSON, DOCKER_JSON, SUMS512].iter().position(|own| own == path);
        let group = match metadata {
            Some(group) => group,
            None if is_tool(path) => TOOL,
            None if path.starts_with("blobs/") => TOOL + 1,
            None => return Some(format!("{path:?} cannot be a file of a bundle")),
        };
        let is_behind = |(last, other): (usize, &str)| match last == group {
            true => group > TOOL || group == TOOL && other < path.as_str(),
            false => last < group,
        };
        if group > TOOL && !blobs.insert(path.as_str()) {
            return Some(format!("{path:?} is listed twice"));
        }
        if !before.is_none_or(is_behind) {
            return Some(format!("{path:?} is out of order"));
        }
        before = Some((group, path));
    }
    let required = [OCI_LAYOUT, INDEX_JSON, DOCKER_JSON];
    let is_lost = |own: &&&str| !files.iter().take(required.len()).any(|file| file.path == **own);
    required.iter().find(is_lost).map(|own| format!("it does not list {own}"))
}

/// The group of tools, which follow metadata in the order of files.
const TOOL: usize = 4;
/// The times that a tar header can contain, in seconds since 1970.
const TIMES: std::ops::RangeInclusive<i64> = 0..=LAST_TIME;
/// 11 octal digits.
pub const LAST_TIME: i64 = 0o777_7777_7777;

fn of_before(shown: &str) -> Error {
    // It has the number of the current format, but does not follow it.
    let other = OtherVersion { found: 0, known: FORMAT_VERSION };
    Error::input(format!("{shown} was written by a version before 0.2: export it again")).with_fact(other)
}

/// Whether a file has a BLAKE3, as before 0.2.
fn has_blake3(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Files {
        files: Totals<Marked>,
    }
    #[derive(Deserialize)]
    struct Marked {
        #[serde(default)]
        blake3: Option<IgnoredAny>,
    }
    impl Amount for Marked {
        fn amount(&self) -> u64 {
            u64::from(self.blake3.is_some())
        }
    }
    serde_json::from_slice::<Files>(bytes).is_ok_and(|read| read.files.amount > 0)
}

/// The size of a file; nothing else of its entry is read.
#[derive(Deserialize)]
struct Sized {
    size: u64,
}

impl Amount for Sized {
    fn amount(&self) -> u64 {
        self.size
    }
}

/// The number of items in an image of the lock.
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

/// Checks the number of files.
///
/// # Errors
/// A bundle with this many images and bytes cannot have so many files; the error says how many, and what to do.
pub(in crate::bundle) fn check_number(files: usize, images: usize, bytes: u64) -> std::result::Result<(), String> {
    // In addition to blobs: metadata and tools.
    const OTHERS: usize = 1_000;
    let for_bytes = usize::try_from(bytes / BYTES_OF_FILE).unwrap_or(usize::MAX).min(MOST_FOR_BYTES);
    let most = MOST_FILES.max(images.saturating_mul(FILES_OF_IMAGE)).max(for_bytes);
    match files <= most + OTHERS {
        true => Ok(()),
        false => Err(format!(
            "its {images} images have {files} files, more than {most}, the limit for a bundle with this number of \
             images and bytes: leave out images with thousands of layers, or make several bundles"
        )),
    }
}

#[cfg(test)]
mod tests;
