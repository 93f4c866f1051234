//! Reads the storage directory of distribution (`docker/registry/v2`; `registry/storage/paths.go` of distribution 2.8 and 3),
//! as a directory or in a plain tar, without the registry that wrote it.
//!
//! A [`Storage`] is a source like any other. It has no name of its own: its opener decides the names of its repositories in
//! references. It must not depend on what its images are used for.
//!
//! # Threats
//! Many programs may have written to a storage over years, and a hostile one among them: see `tree` for its names and links. A
//! link contains a digest or is bad; its path is never trusted (`_layers/sha512/…/link` contains a sha256). No manifest is
//! used before it was hashed. Anything wrong is a [`StorageProblem`], which affects only the images it concerns.

mod audit;
mod contents;
mod links;
mod nodes;
mod problem;
mod replica;
mod survey;
mod tree;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::{Identity, Linkable};
use crate::content::{Body, Files, Need, ReferrerList, Slice, Source, TagList};
use crate::oci::{
    Algorithm, Descriptor, Digest, MAX_MANIFEST_SIZE, Manifest, ManifestError, Reference, Repository, Tag,
};
pub use audit::{AttachedDescriptors, Audit, AuditDepth, AuditScope};
pub use problem::{StorageProblem, StorageProblemKind};
pub use replica::{Member, Replica};
pub use survey::{Holding, Survey, Tagged};
use tree::{FoundFile, Seen, StorageTree};

/// The referrers in one repository.
type Referrers = Arc<HashMap<Digest, Vec<Descriptor>>>;

/// An open storage, read-only.
pub struct Storage {
    tree: StorageTree,
    /// The registry in references to its content.
    registry: String,
    /// Tags from elsewhere, which take precedence.
    given: HashMap<Reference, Digest>,
    referrers: Mutex<HashMap<Repository, Referrers>>,
    /// Blobs that an audit has checked, by identity of their files.
    files: Mutex<HashMap<Digest, Identity>>,
}

impl Storage {
    /// Opens a directory at or above `docker/registry/v2`, or a plain tar of one. `registry` is its name in references.
    ///
    /// # Errors
    /// It cannot be read, is compressed, or is not a storage.
    pub fn open(path: &Path, registry: &str) -> Result<Storage> {
        Ok(Storage {
            tree: StorageTree::open(path)?,
            registry: registry.to_owned(),
            given: HashMap::new(),
            referrers: Mutex::default(),
            files: Mutex::default(),
        })
    }

    /// The storage with these tags, which override its own links.
    pub fn with_tags(mut self, tags: Vec<Tagged>) -> Storage {
        self.given.extend(tags.into_iter().map(|tagged| (tagged.reference(), tagged.digest)));
        self
    }

    /// The path of a problem in messages.
    pub fn shown(&self, path: &str) -> PathBuf {
        self.tree.shown(path)
    }

    /// The file of a blob of `repository`, not verified.
    ///
    /// # Errors
    /// It does not exist, is not a file, or cannot be opened.
    pub fn blob_file(&self, repository: &str, digest: &Digest) -> Result<Slice, StorageProblem> {
        self.data(&self.stored_as(repository, digest)?)
    }

    /// Content has one name in a storage, its sha256; other digests in a repository link to that.
    fn stored_as(&self, repository: &str, digest: &Digest) -> Result<Digest, StorageProblem> {
        match digest.algorithm() {
            Algorithm::Sha256 => Ok(*digest),
            _ => Ok(links::read(&self.tree, &links::of_layer(repository, digest))?.unwrap_or(*digest)),
        }
    }

    /// The file of a blob or manifest by its stored name, not verified.
    fn data(&self, digest: &Digest) -> Result<Slice, StorageProblem> {
        expect_file(data_path(digest), |path| self.tree.file(path))
    }

    /// The size in bytes of what [`blob_file`](Self::blob_file) would open; the file's identity is remembered for linking.
    fn look_at_blob(&self, repository: &str, digest: &Digest) -> Result<u64, StorageProblem> {
        let stored = self.stored_as(repository, digest)?;
        let Seen { size, identity } = expect_file(data_path(&stored), |path| self.tree.look(path))?;
        if let Some(identity) = identity {
            self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(stored, identity);
        }
        Ok(size)
    }

    /// The manifest stored under `digest`.
    ///
    /// # Errors
    /// It does not exist, cannot be read, is not a manifest, or has another digest.
    fn stored_manifest(&self, digest: &Digest) -> Result<Manifest, StorageProblem> {
        let slice = self.data(digest)?;
        let problem = |kind, what| StorageProblem::new(data_path(digest), kind, what);
        if slice.size() > MAX_MANIFEST_SIZE {
            let what = ManifestError::TooLarge(slice.size()).to_string();
            return Err(problem(StorageProblemKind::NotAManifest, what));
        }
        let bytes =
            slice.read_all(MAX_MANIFEST_SIZE).map_err(|e| problem(StorageProblemKind::Unreadable, e.chain()))?;
        Manifest::parse(bytes, None, Some(digest)).map_err(|error| {
            let kind = match error {
                ManifestError::Digest { .. } => StorageProblemKind::WrongDigest,
                ManifestError::Schema1 => StorageProblemKind::Schema1,
                _ => StorageProblemKind::NotAManifest,
            };
            problem(kind, error.to_string())
        })
    }

    /// The error for a problem that stops an operation.
    fn error(&self, problem: &StorageProblem) -> Error {
        let kind = if problem.kind == StorageProblemKind::Unreadable { Kind::Disk } else { Kind::Damaged };
        Error::new(kind, format!("{}: {}", self.tree.shown(&problem.path).display(), problem.what))
    }

    pub fn manifest_of(&self, repository: &Repository, digest: &Digest) -> Result<Option<Manifest>> {
        let path = links::of_revision(repository.path(), digest);
        match links::read_own(&self.tree, &path, digest) {
            Ok(true) => self.stored_manifest(digest).map(Some).map_err(|problem| self.error(&problem)),
            Ok(false) => Ok(None),
            Err(problem) => Err(self.error(&problem)),
        }
    }

    /// The manifests of a repository, tagged or not.
    fn revisions(&self, repository: &str) -> Result<Vec<Digest>> {
        let directory = format!("repositories/{repository}/_manifests/revisions/sha256");
        let names = self.tree.list(&directory)?.into_iter();
        // A deleted manifest leaves its directory behind; requesting it fails.
        Ok(names.filter_map(|(name, _)| format!("sha256:{name}").parse().ok()).collect())
    }

    fn referrers_in(&self, repository: &Repository) -> Result<Referrers> {
        let known = || self.referrers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(referrers) = known().get(repository) {
            return Ok(referrers.clone());
        }
        let mut referrers: HashMap<Digest, Vec<Descriptor>> = HashMap::new();
        for digest in self.revisions(repository.path())? {
            // An unreadable manifest refers to nothing that could be carried.
            let Ok(Some(manifest)) = self.manifest_of(repository, &digest) else { continue };
            if let Some(subject) = manifest.subject() {
                referrers.entry(subject.digest).or_default().push(manifest.descriptor());
            }
        }
        Ok(known().entry(repository.clone()).or_insert(Arc::new(referrers)).clone())
    }
}

fn expect_file<F>(path: String, find: impl FnOnce(&str) -> Result<FoundFile<F>>) -> Result<F, StorageProblem> {
    match find(&path) {
        Ok(FoundFile::File(file)) => Ok(file),
        Ok(FoundFile::Odd(what)) => Err(StorageProblem::new(path, StorageProblemKind::WrongType, what)),
        Ok(FoundFile::Nothing) => Err(StorageProblem::new(path, StorageProblemKind::Missing, "it is missing")),
        Err(error) => Err(StorageProblem::new(path, StorageProblemKind::Unreadable, error.chain())),
    }
}

/// `blobs/<algorithm>/<first two digits>/<hex>/data`.
fn data_path(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("blobs/{}/{}/{hex}/data", digest.algorithm().name(), &hex[..2])
}

impl Files for Storage {
    fn file(&self, repository: &Repository, digest: &Digest) -> Result<Slice> {
        self.blob_file(repository.path(), digest).map_err(|problem| self.error(&problem))
    }

    fn linkable(&self, repository: &Repository, digest: &Digest) -> Result<Option<Linkable>> {
        let stored = self.stored_as(repository.path(), digest).map_err(|problem| self.error(&problem))?;
        let seen = self.files.lock().unwrap_or_else(PoisonError::into_inner).get(&stored).copied();
        match seen {
            Some(identity) => Ok(self.tree.linkable_as(&data_path(&stored), identity)),
            None => self.tree.linkable(&data_path(&stored)),
        }
    }

    fn device(&self) -> Option<u64> {
        self.tree.device()
    }
}

#[async_trait]
impl Source for Storage {
    async fn tags(&self, repository: &Repository, _: Need) -> Result<TagList> {
        let directory = format!("repositories/{}/_manifests/tags", repository.path());
        let names = self.tree.list(&directory)?.into_iter();
        let mut tags: Vec<Tag> = names.filter_map(|(name, _)| name.parse().ok()).collect();
        let given = self.given.keys().filter(|given| given.repository == *repository);
        tags.extend(given.filter_map(|given| given.tag.clone()));
        tags.sort();
        tags.dedup();
        Ok(tags.into())
    }

    async fn resolve(&self, reference: &Reference, _: Need) -> Result<Option<Descriptor>> {
        Ok(self.manifest(reference, Need::Required).await?.map(|manifest| manifest.descriptor()))
    }

    async fn manifest(&self, reference: &Reference, _: Need) -> Result<Option<Manifest>> {
        let repository = &reference.repository;
        if let Some(digest) = &reference.digest {
            return self.manifest_of(repository, digest);
        }
        let Some(tag) = &reference.tag else { return Ok(None) };
        let digest = match self.given.get(reference) {
            Some(digest) => *digest,
            None => {
                let link = links::read(&self.tree, &links::of_tag(repository.path(), tag.as_str()));
                let Some(digest) = link.map_err(|problem| self.error(&problem))? else { return Ok(None) };
                digest
            }
        };
        let manifest = self.manifest_of(repository, &digest)?;
        let gone = || {
            let path = self.tree.shown(&links::of_revision(repository.path(), &digest));
            Error::damaged(format!("the tag refers to {digest}, but {} is missing", path.display()))
        };
        manifest.ok_or_else(gone).map(Some)
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<ReferrerList> {
        Ok(self.referrers_in(repository)?.get(subject).cloned().unwrap_or_default().into())
    }

    async fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        let slice = self.blob_file(repository.path(), &blob.digest).map_err(|problem| self.error(&problem))?;
        if slice.size() != blob.size {
            let text = format!("{} has {} bytes instead of {}", slice.path().display(), slice.size(), blob.size);
            return Err(Error::new(Kind::Damaged, text));
        }
        Ok(slice.stream(offset))
    }

    /// There is no other place to read it from, but the path helps to repair it.
    async fn gave_wrong(&self, repository: &Repository, blob: &Descriptor, error: Error) -> Result<()> {
        let stored = self.stored_as(repository.path(), &blob.digest).unwrap_or(blob.digest);
        Err(error.while_doing(self.tree.shown(&data_path(&stored)).display().to_string()))
    }

    fn counts_pulls(&self, _: &Repository) -> bool {
        false
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }
}
