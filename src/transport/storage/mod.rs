//! The storage directory of distribution (`docker/registry/v2`; `registry/storage/paths.go` of distribution 2.8 and 3), as
//! a directory or in a plain tar, read without the registry that wrote it.
//!
//! A [`Storage`] is a source like any other. It has no name of its own: whoever opens it says what its repositories are
//! called in references. It must not know what becomes of its images.
//!
//! # Threats
//! A storage was written by many hands over years, and perhaps by a hostile one: see [`tree`] for its names and links.
//! A link's content is a digest or nothing; the path beside it is never believed (`_layers/sha512/…/link` holds a sha256).
//! No manifest is believed before it was hashed. What is wrong is a [`Fault`], which costs only the images it touches.

mod links;
mod survey;
mod tree;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::content::{Body, Slice, Source};
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, MAX_MANIFEST_SIZE, Manifest, Reference, Repository, Tag};
pub use survey::{Fault, Survey, Tagged};
use tree::{Found, Tree};

/// Who refers to what in one repository.
type Referrers = Arc<HashMap<Digest, Vec<Descriptor>>>;

/// A storage that was opened, for reading only.
pub struct Storage {
    tree: Tree,
    /// The registry that references to its content name.
    registry: String,
    referrers: Mutex<HashMap<Repository, Referrers>>,
}

impl Storage {
    /// Opens a directory at or above `docker/registry/v2`, or a plain tar of one. `registry` is what references to its
    /// content call it.
    ///
    /// # Errors
    /// Not readable, compressed, or no storage.
    pub fn open(path: &Path, registry: &str) -> Result<Storage> {
        Ok(Storage { tree: Tree::open(path)?, registry: registry.to_owned(), referrers: Mutex::default() })
    }

    /// The file of a blob or manifest, unproven.
    ///
    /// # Errors
    /// It is not there, or is no file.
    pub fn data(&self, digest: &Digest) -> Result<Slice> {
        let path = data_path(digest);
        match self.tree.file(&path)? {
            Found::File(slice) => Ok(slice),
            Found::Odd(what) => Err(Error::damaged(format!("{}: {what}", self.tree.shown(&path).display()))),
            Found::Nothing => Err(Error::damaged(format!("{} is missing", self.tree.shown(&path).display()))),
        }
    }

    /// What a tag means.
    ///
    /// # Errors
    /// Its link is empty, malformed or no file.
    fn tagged(&self, repository: &str, tag: &str) -> Result<Option<Digest>> {
        links::read(&self.tree, &links::of_tag(repository, tag))
    }

    fn manifest_of(&self, repository: &Repository, digest: &Digest) -> Result<Option<Manifest>> {
        if links::read(&self.tree, &links::of_revision(repository.path(), digest))?.is_none() {
            return Ok(None);
        }
        let slice = self.data(digest)?;
        let manifest = Manifest::parse(slice.read_all(MAX_MANIFEST_SIZE)?, None, Some(digest));
        manifest.map(Some).map_err(|e| Error::damaged(format!("reading {}", slice.path().display())).because(e))
    }

    /// The manifests of a repository, tagged or not.
    fn revisions(&self, repository: &str) -> Result<Vec<Digest>> {
        let directory = format!("repositories/{repository}/_manifests/revisions/sha256");
        let names = self.tree.list(&directory)?.into_iter();
        let digests = names.filter_map(|(name, _)| format!("sha256:{name}").parse::<Digest>().ok());
        // A manifest that was deleted leaves its directory behind.
        digests
            .filter_map(|digest| match links::read(&self.tree, &links::of_revision(repository, &digest)) {
                Ok(link) => link.map(Ok),
                Err(error) => Some(Err(error)),
            })
            .collect()
    }

    fn referrers_in(&self, repository: &Repository) -> Result<Referrers> {
        let known = || self.referrers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(referrers) = known().get(repository) {
            return Ok(referrers.clone());
        }
        let mut referrers: HashMap<Digest, Vec<Descriptor>> = HashMap::new();
        for digest in self.revisions(repository.path())? {
            // One that cannot be read refers to nothing that could be carried.
            let Ok(Some(manifest)) = self.manifest_of(repository, &digest) else { continue };
            if let Some(subject) = manifest.subject() {
                let found = Descriptor { annotations: manifest.annotations(), ..manifest.descriptor() };
                referrers.entry(subject.digest).or_default().push(found);
            }
        }
        Ok(known().entry(repository.clone()).or_insert(Arc::new(referrers)).clone())
    }
}

/// `blobs/<algorithm>/<first two digits>/<hex>/data`.
fn data_path(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("blobs/{}/{}/{hex}/data", digest.algorithm().name(), &hex[..2])
}

#[async_trait]
impl Source for Storage {
    async fn tags(&self, repository: &Repository) -> Result<Vec<Tag>> {
        let directory = format!("repositories/{}/_manifests/tags", repository.path());
        let names = self.tree.list(&directory)?.into_iter();
        Ok(names.filter_map(|(name, _)| name.parse().ok()).collect())
    }

    async fn resolve(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        Ok(self.manifest(reference).await?.map(|manifest| manifest.descriptor()))
    }

    async fn manifest(&self, reference: &Reference) -> Result<Option<Manifest>> {
        let repository = &reference.repository;
        if let Some(digest) = &reference.digest {
            return self.manifest_of(repository, digest);
        }
        let Some(tag) = &reference.tag else { return Ok(None) };
        let Some(digest) = self.tagged(repository.path(), tag.as_str())? else { return Ok(None) };
        let manifest = self.manifest_of(repository, &digest)?;
        let gone = || {
            let path = self.tree.shown(&links::of_revision(repository.path(), &digest));
            Error::damaged(format!("the tag means {digest}, but {} is missing", path.display()))
        };
        manifest.ok_or_else(gone).map(Some)
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(self.referrers_in(repository)?.get(subject).cloned().unwrap_or_default())
    }

    async fn blob(&self, _: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        let slice = self.data(&blob.digest)?;
        if slice.size() != blob.size {
            let text = format!("{} has {} bytes instead of {}", slice.path().display(), slice.size(), blob.size);
            return Err(Error::new(Kind::Damaged, text));
        }
        Ok(slice.stream(offset))
    }
}
