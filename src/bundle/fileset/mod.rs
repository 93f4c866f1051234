//! The list of files of a bundle, in tar order, known before any blob is read. Volumes contain the same files except
//! `chunks.b3`, plus files of their own.
//!
//! [`FileList`] is the list that follows from `bundle.json`: paths, sizes and digests. [`FileSet`] adds signatures,
//! `chunks.b3` and the bytes of everything except blobs, for writing. It is built from [`Contents`] that are to be fetched
//! (`head` generates `bundle.json` and everything that follows from them) or from an existing bundle. `output` decides where
//! each file goes, and `writer` where its bytes come from.

mod head;
mod list;

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::bundle::format::is_tool;
use crate::bundle::format::{
    BUNDLE_JSON, CHUNKS, CHUNKS_SIGNATURE, FileEntry, MAX_BUNDLE_JSON, MAX_SIGNATURE, MOST_SIGNATURES, Metadata,
    SIGNATURE, SUMS, head_of, is_signature, name_of_key, signatures_of, signed_file,
};
use crate::bundle::open::Bundle;
use crate::bundle::order::problem_of_order;
use crate::bundle::tar_plan::TarPlan;
use crate::bundle::tools::Tool;
use crate::bundle::{Contents, chunks};
use crate::content::chunks::Chunks;
use crate::files::Layout;
use crate::oci::{Descriptor, Digest, Manifest};
use crate::signing::{PrivateKey, PublicKey, is_well_formed, signature_in};
use crate::spool::Kept;
pub use list::FileList;

/// The files of a bundle or of a repair file.
#[derive(Clone, Debug)]
pub struct FileSet {
    /// SHA-256 of `bundle.json`.
    pub identity: Digest,
    /// Time of each tar entry, in seconds since 1970.
    pub mtime: u64,
    /// Everything before tools and blobs: metadata and the signatures of the sums.
    pub head: Vec<KnownFile>,
    pub tools: Vec<Tool>,
    pub manifests: Vec<Manifest>,
    pub blobs: Vec<Descriptor>,
    /// Everything after the blobs; `None` if there is nothing.
    pub trailer: Option<Trailer>,
    /// The key that signs, if any.
    pub signer: Option<PublicKey>,
}

/// A file with known bytes.
#[derive(Clone, Debug)]
pub struct KnownFile {
    pub path: String,
    pub bytes: Kept,
}

impl From<Metadata> for KnownFile {
    fn from(file: Metadata) -> KnownFile {
        KnownFile { bytes: Kept::new(&file.bytes), path: file.path }
    }
}

/// `chunks.b3`, computed when all blobs are in place, and its signatures.
#[derive(Clone, Debug)]
pub enum Trailer {
    Signed(Arc<PrivateKey>),
    /// With the signatures of the bundle that is copied, if it has any.
    Copied(Vec<KnownFile>),
}

impl FileSet {
    /// The files of an export of `contents`, signed with `key`.
    ///
    /// # Errors
    /// As for [`Contents::head`], or no random numbers are available.
    pub fn new(contents: &Contents, key: Option<Arc<PrivateKey>>) -> Result<FileSet> {
        let head = contents.head()?;
        let mut files = FileSet {
            identity: head.identity,
            mtime: contents.lock.mtime(),
            head: head.files.into_iter().map(KnownFile::from).collect(),
            tools: contents.tools.clone(),
            manifests: contents.manifests.clone(),
            blobs: contents.blobs.clone(),
            trailer: Some(Trailer::Copied(Vec::new())),
            signer: key.as_deref().map(|key| key.public().clone()),
        };
        if let Some(key) = key {
            files.sign(&key)?;
            files.trailer = Some(Trailer::Signed(key));
        }
        Ok(files)
    }

    /// Only files with known bytes.
    pub(super) fn of_known(identity: Digest, mtime: u64, head: Vec<KnownFile>) -> FileSet {
        let (tools, manifests, blobs) = (Vec::new(), Vec::new(), Vec::new());
        FileSet { identity, mtime, head, tools, manifests, blobs, trailer: None, signer: None }
    }

    /// The files of a copy of `bundle`, including signatures. Everything except blobs is read and proven by `bundle.json`.
    ///
    /// # Errors
    /// A file cannot be read, or is not what `bundle.json` states (`Damaged`).
    pub fn of_bundle(bundle: &Bundle) -> Result<FileSet> {
        let (layout, json, identity) = (bundle.layout(), bundle.json(), bundle.identity());
        let size = layout.size_of(BUNDLE_JSON).unwrap_or_default();
        let metadata = FileList { json, identity, size }.metadata();
        let metadata: HashMap<&str, Digest> = metadata.iter().map(|file| (file.path.as_str(), file.digest)).collect();
        let paths = head_of(layout, false);
        let head = paths.iter().map(|path| KnownFile::of(layout, path, metadata.get(path.as_str()).copied()));
        let head = head.collect::<Result<Vec<KnownFile>>>()?;
        if let Some(lost) = metadata.keys().filter(|path| !head.iter().any(|file| file.path == **path)).min() {
            return Err(wrong(layout, lost, "it is missing"));
        }
        let of_chunks = signatures_of(layout, CHUNKS).into_iter().map(|path| KnownFile::of(layout, path, None));
        let trailer = Some(Trailer::Copied(of_chunks.collect::<Result<_>>()?));
        let found = bundle.manifests()?;
        let known: HashMap<Digest, Manifest> = found.iter().map(|found| (found.digest(), found.clone())).collect();
        let children =
            found.iter().flat_map(Manifest::children).map(|child| (child.descriptor.digest, child.descriptor));
        let descriptors: HashMap<Digest, Descriptor> = children.collect();
        let find = |wanted: &Descriptor| known.get(&wanted.digest).cloned();
        if let Some(fault) = problem_of_order(json, |digest| known.contains_key(digest), &find) {
            return Err(wrong(layout, BUNDLE_JSON, &fault));
        }
        let (mut tools, mut manifests, mut blobs) = (Vec::new(), Vec::new(), Vec::new());
        for FileEntry { path, size, digest } in json.files.iter().filter(|file| !metadata.contains_key(&*file.path)) {
            if is_tool(path) {
                tools.push(Tool::of_bundle(layout, path, *size, *digest)?);
                continue;
            }
            match known.get(digest) {
                Some(manifest) if blobs.is_empty() => manifests.push(manifest.clone()),
                Some(_) => return Err(wrong(layout, BUNDLE_JSON, "a manifest comes after other blobs")),
                None => {
                    let of_size = descriptors.get(digest).filter(|blob| blob.size == *size).cloned();
                    blobs.push(of_size.unwrap_or_else(|| Descriptor::new("application/octet-stream", *digest, *size)));
                }
            }
        }
        Ok(FileSet { identity, mtime: json.mtime(), head, tools, manifests, blobs, trailer, signer: None })
    }

    /// Adds a signature by `key`, unless it has signed already. Other signatures stay.
    ///
    /// # Errors
    /// There are as many signatures as allowed, no random numbers are available, or spooled bytes cannot be read back.
    pub fn sign(&mut self, key: &PrivateKey) -> Result<()> {
        let sums = self.known(SUMS)?;
        for file in self.head.iter().filter(|file| is_signature(&file.path)) {
            if key.public().verifies(&sums, &signature_in(&file.read()?)) {
                return Ok(());
            }
        }
        let path = match self.head.iter().any(|file| file.path == SIGNATURE) {
            true => name_of_key(SUMS, key.public()),
            false => SIGNATURE.to_owned(),
        };
        self.add_signature(Metadata { path, bytes: key.sign(&sums)? }.into())
    }

    /// Removes files that have the name of a signature but are not one, and returns their paths.
    ///
    /// # Errors
    /// Spooled bytes cannot be read back.
    pub fn remove_malformed_signatures(&mut self) -> Result<Vec<String>> {
        let of_chunks = match &self.trailer {
            Some(Trailer::Copied(files)) => &files[..],
            Some(Trailer::Signed(_)) | None => &[],
        };
        let mut malformed = Vec::new();
        for file in self.head.iter().filter(|file| is_signature(&file.path)).chain(of_chunks) {
            if !is_well_formed(&signature_in(&file.read()?)) {
                malformed.push(file.path.clone());
            }
        }
        self.head.retain(|file| !malformed.contains(&file.path));
        if let Some(Trailer::Copied(files)) = &mut self.trailer {
            files.retain(|file| !malformed.contains(&file.path));
        }
        Ok(malformed)
    }

    /// Inserts a signature in its place among the others, and replaces one of the same name.
    ///
    /// # Errors
    /// The file it signs is not written, or has as many signatures as allowed.
    pub fn add_signature(&mut self, file: KnownFile) -> Result<()> {
        let signed = signed_file(&file.path);
        let list = match (&mut self.trailer, signed) {
            (Some(Trailer::Copied(list)), Some(CHUNKS)) => list,
            (_, Some(SUMS)) => &mut self.head,
            _ => return Err(Error::input(format!("adding {}: nothing that it signs is being written", file.path))),
        };
        list.retain(|other| other.path != file.path);
        let stands_before = |other: &KnownFile| {
            !is_signature(&other.path) || (other.path.len(), &other.path) < (file.path.len(), &file.path)
        };
        let at = list.iter().rposition(stands_before).map_or(0, |at| at + 1);
        list.insert(at, file);
        let signatures = list.iter().filter(|file| is_signature(&file.path)).count();
        if signatures > MOST_SIGNATURES {
            let signed = signed.unwrap_or_default();
            return Err(Error::input(format!("{signed} would have more than {MOST_SIGNATURES} signatures")));
        }
        Ok(())
    }

    /// The bytes of a known file; empty if there is no such file.
    pub fn known(&self, path: &str) -> Result<bytes::Bytes> {
        self.head.iter().find(|file| file.path == path).map_or(Ok(bytes::Bytes::new()), KnownFile::read)
    }

    /// Digest and size of every file below `blobs/`.
    pub fn all(&self) -> impl Iterator<Item = (Digest, u64)> {
        let manifests = self.manifests.iter().map(|manifest| (manifest.digest(), manifest.size()));
        manifests.chain(self.blobs.iter().map(|blob| (blob.digest, blob.size)))
    }

    /// The blobs that must be fetched or copied, with their sizes in bytes.
    pub fn wanted(&self) -> HashMap<Digest, u64> {
        self.blobs.iter().map(|blob| (blob.digest, blob.size)).collect()
    }

    /// Bytes of tools and blobs, saturating.
    pub fn content_size(&self) -> u64 {
        let tools = self.tools.iter().map(Tool::size);
        tools.chain(self.all().map(|(_, size)| size)).fold(0, u64::saturating_add)
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        let known = self.head.iter().map(KnownFile::size).chain(self.trailer_sizes().into_iter().map(|(_, size)| size));
        known.fold(self.content_size(), u64::saturating_add)
    }

    /// The layout of the tar. The signature of `chunks.b3` may turn out shorter than planned, and takes the same space.
    ///
    /// # Errors
    /// The sizes overflow.
    pub fn tar(&self) -> Result<TarPlan> {
        let head = self.head.iter().map(|file| (file.path.clone(), file.size()));
        let tools = self.tools.iter().map(|tool| (tool.path(), tool.size()));
        let blobs = self.all().map(|(digest, size)| (digest.blob_path(), size));
        TarPlan::new(head.chain(tools).chain(blobs).chain(self.trailer_sizes()))
    }

    /// `chunks.b3` and its signatures, once the chunks of every blob are known.
    ///
    /// # Errors
    /// A blob is missing in `known`, or no random numbers are available.
    pub fn trailer(&self, known: &HashMap<Digest, Chunks>) -> Result<Vec<KnownFile>> {
        let Some(trailer) = &self.trailer else { return Ok(Vec::new()) };
        let mut writer = chunks::ChunksWriter::new(self.identity);
        for (digest, _) in self.all() {
            let missing = || Error::damaged(format!("writing {CHUNKS}: {digest} is missing"));
            writer.add(known.get(&digest).ok_or_else(missing)?);
        }
        trailer.files(writer.finish())
    }

    fn trailer_sizes(&self) -> Vec<(String, u64)> {
        let Some(trailer) = &self.trailer else { return Vec::new() };
        let chunks = (CHUNKS.to_owned(), chunks::length(self.all().map(|(_, size)| size)));
        let signatures = match trailer {
            Trailer::Signed(key) => vec![(CHUNKS_SIGNATURE.to_owned(), key.longest_signature() as u64)],
            Trailer::Copied(files) => files.iter().map(|file| (file.path.clone(), file.size())).collect(),
        };
        std::iter::once(chunks).chain(signatures).collect()
    }
}

impl Trailer {
    /// `chunks.b3` with these bytes, and its signatures.
    ///
    /// # Errors
    /// No random numbers are available.
    pub fn files(&self, chunks: Vec<u8>) -> Result<Vec<KnownFile>> {
        let signatures = match self {
            Trailer::Signed(key) => vec![Metadata::new(CHUNKS_SIGNATURE, key.sign(&chunks)?).into()],
            Trailer::Copied(files) => files.clone(),
        };
        Ok(std::iter::once(Metadata::new(CHUNKS, chunks).into()).chain(signatures).collect())
    }
}

impl KnownFile {
    /// A file of an existing bundle, proven if a digest is given.
    ///
    /// # Errors
    /// It is missing, cannot be read or has another digest.
    pub(super) fn of(layout: &Layout, path: &str, digest: Option<Digest>) -> Result<KnownFile> {
        let limit = if is_signature(path) { MAX_SIGNATURE } else { MAX_BUNDLE_JSON };
        let bytes = layout.read(path, limit)?.ok_or_else(|| wrong(layout, path, "it is missing"))?;
        match digest.is_none_or(|digest| digest.is_of(&bytes)) {
            true => Ok(KnownFile { path: path.to_owned(), bytes: Kept::new(&bytes) }),
            false if path == SUMS => Err(wrong(layout, path, "it does not match bundle.json")),
            false => Err(wrong(layout, path, "its digest is not the one in bundle.json")),
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.bytes.size() as u64
    }

    /// The bytes.
    ///
    /// # Errors
    /// Bytes that were spooled to a temporary file cannot be read back.
    pub fn read(&self) -> Result<bytes::Bytes> {
        self.bytes.bytes().map_err(|e| Error::disk("reading again", self.path.as_ref(), e))
    }
}

fn wrong(layout: &Layout, path: &str, what: &str) -> Error {
    Error::damaged(format!("reading {}: {path}: {what}", layout.path().display()))
}
