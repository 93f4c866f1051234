//! An OCI image layout (image-spec 1.1 `image-layout.md`) in a directory or one tar, read by position and never extracted; or
//! joined from several of these.
//!
//! It accepts any layout, ours or another tool's. It must not depend on bundles: the digest manifest is just another file
//! here.
//!
//! # Threats
//! A layout on the isolated side is untrusted. Its names could leave the directory (`..`, absolute paths, links), name
//! devices, occur twice, differ only in case, or need a directory where there is a file. Its tar could lie about sizes, hide
//! data in sparse or extended headers, or have more entries than fit into memory. Therefore only regular files below the root
//! are visible; links are never followed, not even one that replaces something later; every oddity is recorded as a
//! [`LayoutProblem`]; names, extended headers and the number of entries are bounded; and a JSON file is read only up to a limit.

mod damaged;
mod directory;
mod found;
mod passing;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;

use crate::archive::seekable::{self, Seekable};
use crate::archive::tar::{self, Place};
use crate::base::error::{Error, Reason, Result};
use crate::base::fsops::{self, Dir, Identity, Linkable};
use crate::content::proof::Hashed;
use crate::content::{Body, Files, Need, ReferrerList, Slice, Source, TagList};
use crate::oci::{
    Descriptor, Digest, Exempt, MAX_MANIFEST_SIZE, Manifest, Reference, Repository, Tag, has_at_most_values,
};
pub use damaged::SecondHeader;
use found::FoundFiles;
pub use passing::{Passed, Passing, StreamedEntry};

/// The annotation that skopeo, podman and oras use.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation that containerd and docker use.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// Maximum size of index.json in bytes: enough for 100,000 images.
pub const MAX_INDEX: u64 = 64 * 1024 * 1024;
/// Maximum number of values in it, because each takes memory: twenty for each of these images.
pub const MOST_INDEX_VALUES: usize = 2_000_000;

/// Maximum memory that descriptors take for each byte of an index.
const MEMORY_OF_INDEX: usize = 8;

/// An open layout: its files and where they are.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    form: Form,
    /// In a directory every offset is 0. In a joined layout it is the number of the part that contains the whole file.
    entries: BTreeMap<String, Place>,
    faults: Vec<LayoutProblem>,
    index: OnceLock<Listed>,
}

/// `index.json`, read once: a layout with thousands of images is asked for each of them.
#[derive(Debug)]
struct Listed {
    descriptors: Vec<Descriptor>,
    /// Position in `descriptors` by either name; the first of two equal names.
    by_name: HashMap<String, usize>,
    by_digest: HashMap<Digest, usize>,
    /// Descriptors of what refers to a digest.
    referrers: OnceLock<HashMap<Digest, Vec<Descriptor>>>,
    /// The index has its own limits, and its manifests must be readable whatever names it gives them.
    _exempt: Exempt,
}

#[derive(Debug)]
enum Form {
    /// Files are opened below it on demand.
    Directory(Dir),
    Tar(Arc<File>),
    /// A tar compressed in frames.
    Compressed(Arc<Seekable>),
    Joined {
        parts: Vec<Layout>,
        /// Files that are in pieces, or have another name in their part.
        pieces: HashMap<String, Vec<Piece>>,
    },
    /// A tar that has passed, or is still passing.
    Passed {
        /// Where the kept files are.
        file: Arc<File>,
        passed: Passed,
    },
}

/// A file of a part that is a piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// The number of the part, from 0.
    pub part: usize,
    /// Its name in the part.
    pub path: String,
}

/// Something that does not belong into a layout. It is found on opening. The entry is not offered, unless its only fault is
/// that unpacking would put it in another's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutProblem {
    /// As found, with control characters escaped.
    pub path: String,
    pub what: String,
    /// Whether the only fault is that the tar ends early.
    pub is_cut: bool,
}

impl Layout {
    /// Opens a directory or a tar; the content decides which, not the name.
    ///
    /// # Errors
    /// It cannot be read, is neither, or is a compressed tar. Oddities inside are in [`Layout::problems`].
    pub fn open(path: &Path) -> Result<Layout> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::disk("opening", path, e))?;
        let mut found = FoundFiles::default();
        let form = if metadata.is_dir() {
            let directory = Dir::open(path)?;
            directory::scan(path, &mut found)?;
            Form::Directory(directory)
        } else if !metadata.is_file() {
            // Opening a pipe would wait for a writer.
            return Err(neither(path));
        } else {
            let file = fsops::open_plain(path).map_err(|e| Error::disk("opening", path, e))?;
            if let Some(form) = compressed(path, &file, &mut found)? {
                let (entries, faults) = found.finish();
                return Ok(Layout { path: path.to_owned(), form, entries, faults, index: OnceLock::new() });
            }
            if !tar::is_tar(path, &file, metadata.len())? {
                return Err(neither(path));
            }
            tar::scan(path, &file, metadata.len(), &mut found)?;
            Form::Tar(Arc::new(file))
        };
        let (entries, faults) = found.finish();
        Ok(Layout { path: path.to_owned(), form, entries, faults, index: OnceLock::new() })
    }

    /// Joins a layout from `parts`. `files` lists the pieces of each file in order. A file with a missing piece is missing.
    /// `path` is the name of the whole in errors.
    pub fn joined(path: PathBuf, parts: Vec<Layout>, files: impl IntoIterator<Item = (String, Vec<Piece>)>) -> Layout {
        let (mut entries, mut in_pieces) = (Vec::new(), HashMap::new());
        for (name, pieces) in files {
            let size_of = |piece: &Piece| parts.get(piece.part)?.size_of(&piece.path);
            let size = pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(size_of(piece)?));
            let (Some(size), Some(first)) = (size, pieces.first()) else { continue };
            entries.push((name.clone(), Place { offset: first.part as u64, size }));
            if !matches!(&pieces[..], [only] if only.path == name) {
                in_pieces.insert(name, pieces);
            }
        }
        let faults = parts.iter().flat_map(|part| part.faults.iter().cloned()).collect();
        let entries = entries.into_iter().collect();
        Layout { path, form: Form::Joined { parts, pieces: in_pieces }, entries, faults, index: OnceLock::new() }
    }

    /// The parts of a joined layout.
    pub fn parts(&self) -> &[Layout] {
        match &self.form {
            Form::Joined { parts, .. } => parts,
            Form::Directory(_) | Form::Tar(_) | Form::Compressed(_) | Form::Passed { .. } => &[],
        }
    }

    /// In a joined layout, the number of the part with the file or its first piece.
    pub fn part_of(&self, path: &str) -> Option<usize> {
        let place = self.entries.get(path).filter(|_| !self.parts().is_empty())?;
        usize::try_from(place.offset).ok()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_tar(&self) -> bool {
        matches!(self.form, Form::Tar(_))
    }

    /// Whether it is a compressed tar, which cannot be changed in place.
    pub fn is_compressed(&self) -> bool {
        matches!(self.form, Form::Compressed(_))
    }

    /// Every regular file: its path relative to the root and its size in bytes.
    pub fn entries(&self) -> impl Iterator<Item = (&str, u64)> {
        self.entries.iter().map(|(path, place)| (path.as_str(), place.size))
    }

    /// What was found that does not belong there.
    pub fn problems(&self) -> &[LayoutProblem] {
        &self.faults
    }

    /// The size of a file in bytes, if it exists.
    pub fn size_of(&self, path: &str) -> Option<u64> {
        self.entries.get(path).map(|place| place.size)
    }

    /// The bytes of a file, to be read by position.
    ///
    /// # Errors
    /// It is listed but cannot be opened.
    pub fn slice(&self, path: &str) -> Result<Option<Slice>> {
        let Some(place) = self.entries.get(path) else { return Ok(None) };
        let full = self.path.join(path);
        let file = match &self.form {
            Form::Tar(file) => file.clone(),
            Form::Compressed(file) => {
                return Ok(Some(Slice::compressed(file.clone(), full, place.offset, place.size)));
            }
            Form::Directory(directory) => Arc::new(directory::open(directory, path)?),
            Form::Joined { .. } => return self.join(path),
            Form::Passed { file, passed } => {
                let begin = passed.kept.get(path).ok_or_else(|| passing::is_gone(&full))?;
                return Ok(Some(Slice::new(file.clone(), full, *begin, place.size)));
            }
        };
        Ok(Some(Slice::new(file, full, place.offset, place.size)))
    }

    /// A file of a directory that can be hard-linked; `None` if it is part of a file.
    ///
    /// # Errors
    /// It is listed but cannot be opened.
    pub fn linkable(&self, path: &str) -> Result<Option<Linkable>> {
        match &self.form {
            Form::Directory(directory) if self.entries.contains_key(path) => {
                let file = directory::open(directory, path)?;
                let stat = rustix::fs::fstat(&file).map_err(|e| Error::disk("reading", &self.path, e.into()))?;
                let (directory, identity) = (directory.clone(), Identity::of(&stat));
                Ok(Some(Linkable { directory, path: path.to_owned(), identity }))
            }
            _ => Ok(None),
        }
    }

    /// The hash of a file that has passed and cannot be hashed again. A blob whose digest does not match its name has its
    /// chunks too, if requested ([`Passing::locating`]).
    pub fn passed(&self, path: &str) -> Option<&Hashed> {
        match &self.form {
            Form::Passed { passed, .. } => passed.hashed.get(path),
            _ => None,
        }
    }

    /// Whether it is a tar that passes: for most files, only [`Layout::passed`] is left.
    pub fn is_passing(&self) -> bool {
        matches!(self.form, Form::Passed { .. })
    }

    fn join(&self, path: &str) -> Result<Option<Slice>> {
        let Form::Joined { parts, pieces } = &self.form else { return Ok(None) };
        let slice = |part: usize, name: &str| parts.get(part).map_or(Ok(None), |part| part.slice(name));
        let Some(pieces) = pieces.get(path) else {
            return self.part_of(path).map_or(Ok(None), |part| slice(part, path));
        };
        let slices =
            pieces.iter().map(|piece| slice(piece.part, &piece.path)).collect::<Result<Option<Vec<Slice>>>>()?;
        Ok(slices.and_then(Slice::joined))
    }

    /// Reads a file of at most `limit` bytes.
    ///
    /// # Errors
    /// It is larger or cannot be read.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Bytes>> {
        self.slice(path)?.map(|slice| slice.read_all(limit)).transpose()
    }

    /// The descriptors of `index.json`, with their annotations.
    ///
    /// # Errors
    /// It does not exist or is not an index.
    pub fn index(&self) -> Result<&[Descriptor]> {
        Ok(&self.listed()?.descriptors)
    }

    fn listed(&self) -> Result<&Listed> {
        if let Some(listed) = self.index.get() {
            return Ok(listed);
        }
        let (descriptors, reading) = self.read_index()?;
        let listed = Listed::new(descriptors);
        drop(reading);
        Ok(self.index.get_or_init(|| listed))
    }

    /// The descriptors, and an exemption that covers them until they are counted.
    fn read_index(&self) -> Result<(Vec<Descriptor>, Exempt)> {
        #[derive(Deserialize)]
        struct Index {
            manifests: Vec<Descriptor>,
        }
        let shown = self.path.join("index.json");
        let Some(bytes) = self.read("index.json", MAX_INDEX)? else {
            return Err(Error::input(format!(
                "{} is not an OCI image layout: it has no index.json",
                self.path.display()
            )));
        };
        if !has_at_most_values(&bytes, MOST_INDEX_VALUES) {
            return Err(Error::damaged(format!("{} has more entries than an index can have", shown.display())));
        }
        let reading = Exempt::of(bytes.len().saturating_mul(MEMORY_OF_INDEX));
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|e| Error::damaged(format!("reading {}", shown.display())).because(e))?;
        Ok((index.manifests, reading))
    }

    /// The manifest with this digest, verified.
    ///
    /// # Errors
    /// Its bytes do not match the digest or are not a manifest.
    pub fn manifest_by_digest(&self, digest: &Digest, media_type: Option<&str>) -> Result<Option<Manifest>> {
        let path = digest.blob_path();
        let Some(bytes) = self.read(&path, MAX_MANIFEST_SIZE)? else { return Ok(None) };
        let shown = self.path.join(&path);
        let manifest = Manifest::parse(bytes, media_type, Some(digest));
        manifest.map(Some).map_err(|e| Error::damaged(format!("reading {}", shown.display())).because(e))
    }

    fn described(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        if let Some(digest) = &reference.digest {
            let listed = self.listed()?;
            let found = listed.by_digest.get(digest).map(|at| listed.descriptors[*at].clone());
            let size = self.size_of(&digest.blob_path());
            return Ok(found.or(size.map(|size| Descriptor::new("", *digest, size))));
        }
        let listed = self.listed()?;
        Ok(listed.by_name.get(&reference.to_string()).map(|at| listed.descriptors[*at].clone()))
    }

    /// Reads every listed manifest once to see what it refers to.
    fn read_referrers(&self) -> Result<HashMap<Digest, Vec<Descriptor>>> {
        let listed = self.listed()?;
        let mut referrers: HashMap<Digest, Vec<Descriptor>> = HashMap::new();
        // A manifest listed under several names refers only once.
        for (at, descriptor) in listed.descriptors.iter().enumerate() {
            if listed.by_digest.get(&descriptor.digest) != Some(&at) {
                continue;
            }
            let manifest = self.manifest_by_digest(&descriptor.digest, Some(&descriptor.media_type))?;
            let Some(manifest) = manifest else { continue };
            if let Some(subject) = manifest.subject() {
                referrers.entry(subject.digest).or_default().push(manifest.descriptor());
            }
        }
        Ok(referrers)
    }
}

impl Listed {
    fn new(descriptors: Vec<Descriptor>) -> Listed {
        let (mut by_name, mut by_digest) = (HashMap::new(), HashMap::new());
        for (at, descriptor) in descriptors.iter().enumerate() {
            by_digest.entry(descriptor.digest).or_insert(at);
            for name in [IMAGE_NAME, REF_NAME].iter().filter_map(|key| descriptor.annotations().get(*key)) {
                by_name.entry(name.clone()).or_insert(at);
            }
        }
        let _exempt = Descriptor::exempt(&descriptors);
        Listed { descriptors, by_name, by_digest, referrers: OnceLock::new(), _exempt }
    }
}

/// Opens a tar in zstd's seekable format. Returns `None` for anything else.
fn compressed(path: &Path, file: &File, found: &mut FoundFiles) -> Result<Option<Form>> {
    let mut start = [0; 4];
    if tar::ReadAt::read_exact_at(file, &mut start, 0).is_err() || start != seekable::MAGIC {
        return Ok(None);
    }
    let again = file.try_clone().map_err(|e| Error::disk("opening", path, e))?;
    let length = file.metadata().map_err(|e| Error::disk("opening", path, e))?.len();
    let Some(file) = Seekable::open(path, again, length)? else {
        let text = format!(
            "{path} is compressed with zstd and does not end with a table of its frames: if an export wrote it, it is \
             cut short; otherwise decompress it first (zstd -dc {path} > PLAIN.tar)",
            path = path.display()
        );
        return Err(Error::input(text));
    };
    if !tar::is_tar(path, &file, file.length())? {
        return Err(neither(path));
    }
    tar::scan(path, &file, file.length(), found)?;
    Ok(Some(Form::Compressed(Arc::new(file))))
}

fn neither(path: &Path) -> Error {
    Error::input(format!("{} is neither a directory nor a tar", path.display()))
}

#[async_trait]
impl Source for Layout {
    async fn tags(&self, repository: &Repository, _: Need) -> Result<TagList> {
        let prefix = format!("{repository}:");
        let tag = |d: &Descriptor| d.annotations().get(IMAGE_NAME)?.strip_prefix(&prefix)?.parse().ok();
        Ok(self.index()?.iter().filter_map(tag).collect::<Vec<Tag>>().into())
    }

    async fn resolve(&self, reference: &Reference, _: Need) -> Result<Option<Descriptor>> {
        self.described(reference)
    }

    async fn manifest(&self, reference: &Reference, _: Need) -> Result<Option<Manifest>> {
        if let Some(digest) = &reference.digest {
            let listed = self.listed().ok();
            let descriptor = listed.and_then(|listed| listed.descriptors.get(*listed.by_digest.get(digest)?));
            return self.manifest_by_digest(digest, descriptor.map(|listed| listed.media_type.as_str()));
        }
        let Some(found) = self.described(reference)? else { return Ok(None) };
        self.manifest_by_digest(&found.digest, Some(&found.media_type))
    }

    async fn referrers(&self, _: &Repository, subject: &Digest) -> Result<ReferrerList> {
        let listed = self.listed()?;
        let referrers = match listed.referrers.get() {
            Some(referrers) => referrers,
            None => {
                let read = self.read_referrers()?;
                listed.referrers.get_or_init(|| read)
            }
        };
        Ok(referrers.get(subject).cloned().unwrap_or_default().into())
    }

    async fn blob(&self, _: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        let path = blob.digest.blob_path();
        match self.slice(&path)? {
            Some(slice) if slice.size() == blob.size => Ok(slice.stream(offset)),
            Some(slice) => {
                let path = self.path.join(path);
                let text = format!("{} has {} bytes instead of {}", path.display(), slice.size(), blob.size);
                Err(Error::damaged(text).with_reason(Reason::DamagedFile))
            }
            None => {
                let text = format!("{} has no {path}", self.path.display());
                Err(Error::damaged(text).with_reason(Reason::DamagedFile))
            }
        }
    }

    async fn gave_wrong(&self, _: &Repository, _: &Descriptor, error: Error) -> Result<()> {
        Err(error)
    }

    fn counts_pulls(&self, _: &Repository) -> bool {
        false
    }

    fn files(&self) -> Option<&dyn Files> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_an_index_keep_no_manifest_from_being_read() {
        let directory = tempfile::tempdir().unwrap();
        let layer = format!(r#"{{"digest":"{}","size":0}}"#, Digest::sha256(b""));
        let manifest = format!(r#"{{"config":{layer},"layers":[{layer}]}}"#);
        let digest = Digest::sha256(manifest.as_bytes());
        let path = directory.path().join(digest.blob_path());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &manifest).unwrap();
        // As many as the limit on layers of a run, each with two long names.
        let entry = |n: u32| {
            let name = format!("registry.example.com/team/application/component:{n}");
            let of_manifest = format!(r#""digest":"{digest}","size":{}"#, manifest.len());
            format!(r#"{{{of_manifest},"annotations":{{"{REF_NAME}":"{name}","{IMAGE_NAME}":"{name}"}}}}"#)
        };
        let entries: Vec<String> = (0..100_000).map(entry).collect();
        std::fs::write(directory.path().join("index.json"), format!(r#"{{"manifests":[{}]}}"#, entries.join(",")))
            .unwrap();
        let layout = Layout::open(directory.path()).unwrap();
        assert_eq!(layout.index().unwrap().len(), 100_000);
        assert!(layout.manifest_by_digest(&digest, None).unwrap().is_some());
    }
}
