//! Reading and writing content: the only interface between stages and transports.
//!
//! A [`Source`] provides references, manifests and blobs; a [`Sink`] receives them. Stages hold a `&dyn Source` and a `&dyn
//! Sink` and do not depend on registries, files or tars; transports do not depend on each other. A blob is available only
//! through a [`BlobReader`], which hashes it while it is read and fails on short, long or wrong data *before* it returns the
//! last piece. A consumer can therefore never complete a wrong blob.

mod api;
mod blob;
mod cached;
mod checkpoint;
pub mod chunks;
mod files;
mod hashed;
mod lookup;
mod manifests;
mod parallel;
pub mod proof;
mod slice;

use async_trait::async_trait;

pub use api::{Account, Api, ApiAnswer, ApiRequest, Probed};
pub use blob::{BlobReader, Body, Prover};
pub use cached::Cached;
pub use checkpoint::Checkpoint;
pub use files::{Files, LinkMode, Reasons, why_not_linked};
pub use lookup::Lookup;
pub use manifests::Manifests;
pub use parallel::{in_parallel, in_parallel_buffered, on_threads};
pub use slice::{Slice, Take, Unreadable};

use crate::base::error::{Error, Fact, Kind, Result};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository, Tag};

/// The tags of a repository, and why the list may be incomplete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagList {
    pub tags: Vec<Tag>,
    /// One line per reason to think that tags are missing; empty if the list is complete.
    pub doubts: Vec<String>,
}

impl From<Vec<Tag>> for TagList {
    /// A complete list.
    fn from(tags: Vec<Tag>) -> TagList {
        TagList { tags, doubts: Vec::new() }
    }
}

/// The manifests that refer to a digest, and why the list may be incomplete.
#[derive(Clone, Debug, Default)]
pub struct ReferrerList {
    pub found: Vec<Descriptor>,
    /// Why there may be more; `None` if the list is complete.
    pub doubt: Option<Error>,
}

impl From<Vec<Descriptor>> for ReferrerList {
    /// A complete list.
    fn from(found: Vec<Descriptor>) -> ReferrerList {
        ReferrerList { found, doubt: None }
    }
}

/// How important a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// An image cannot be carried without it.
    Required,
    /// An image can be carried without it. A source that answers other requests may give up on this one early; its failure
    /// neither delays nor ends the rest of the run.
    Optional,
}

/// Where content comes from: one or more registries, a layout, a storage directory.
///
/// `None` or an empty list means absent. Anything that could not be determined is an error, never absence.
#[async_trait]
pub trait Source: Send + Sync {
    /// The tags of a repository, in the order of the source.
    async fn tags(&self, repository: &Repository, need: Need) -> Result<TagList>;

    /// What a tag or digest refers to now (digest, media type, size), with the cheapest request.
    async fn resolve(&self, reference: &Reference, need: Need) -> Result<Option<Descriptor>>;

    /// The manifest of a tag or digest, verified if a digest was requested.
    async fn manifest(&self, reference: &Reference, need: Need) -> Result<Option<Manifest>>;

    /// The manifests in `repository` whose subject is `subject`. This is always [`Need::Optional`].
    ///
    /// # Errors
    /// Nothing was found, and it is unknown whether anything exists.
    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<ReferrerList>;

    /// The bytes of a blob from `offset`, not verified: use [`Origin::open`]. A source that cannot start there starts at 0 and
    /// says so in [`Body::offset`].
    async fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body>;

    /// Reports that what [`Source::blob`] returned from the start is wrong, as `error` says. `Ok` means that the caller can
    /// request the blob again. The source then tries another place or, without one, the same place a few times with pauses.
    ///
    /// # Errors
    /// Another request would not help: returns `error`, with the place the bytes came from if known.
    async fn gave_wrong(&self, repository: &Repository, blob: &Descriptor, error: Error) -> Result<()>;

    /// Whether pulls are counted there, so that resolving a tag first is better than [`Source::manifest`].
    fn counts_pulls(&self, repository: &Repository) -> bool;

    /// Its blobs as local files, if they are files.
    fn files(&self) -> Option<&dyn Files>;
}

/// The result of reading the last byte of a blob that is said to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readable {
    Yes,
    /// The blob is missing, has another length, or the byte is not delivered. Contains a sentence about the blob.
    No(String),
    /// Its storage, which is another server than the target itself, refuses to deliver it. Object stores also refuse what does
    /// not exist. Contains the refusal.
    PerhapsLost(String),
    /// The target refuses or fails to deliver it every time. For a blob that existed before, this means it is lost; for one
    /// that the target has just accepted, it proves nothing.
    Failed(String),
    /// This account may not read it.
    Denied,
    /// No clear answer, with the reason.
    Unknown(String),
}

/// Where content goes: a registry, a bundle, a directory.
///
/// Every call can be repeated: writing what already exists succeeds and moves nothing.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Whether the complete blob exists in this repository.
    async fn has_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool>;

    /// Whether a blob that is said to exist can be read, with a request that no cache answers. Costs as much as
    /// [`Sink::has_blob`].
    async fn can_read(&self, repository: &Repository, blob: &Descriptor) -> Result<Readable>;

    /// What a tag or digest refers to at the target now.
    async fn resolve(&self, reference: &Reference) -> Result<Lookup>;

    /// The manifest of a tag or digest at the target, verified if a digest was requested.
    async fn read_manifest(&self, reference: &Reference) -> Result<Option<Manifest>>;

    /// Whether `repository` is known to have no tags; it may contain what an interrupted push left. `false` if that cannot be
    /// determined quickly.
    async fn has_no_tags(&self, repository: &Repository) -> Result<bool>;

    /// Makes a blob from `from` available in `repository` without transferring it. Returns `false` if that is not possible and
    /// the blob must be uploaded.
    async fn mount(&self, repository: &Repository, blob: &Descriptor, from: &Repository) -> Result<bool>;

    /// Stores a blob, verified, and reads it from `origin` as often as retries need.
    ///
    /// # Errors
    /// Reading or writing failed; or the target reported success but has a damaged copy
    /// ([`Reason::DamagedTarget`](crate::base::error::Reason::DamagedTarget)).
    async fn put_blob(&self, repository: &Repository, blob: &Descriptor, origin: &Origin<'_>) -> Result<()>;

    /// Whether `manifest`, which is in `repository`, is also listed as a referrer of its subject, if it has one. An
    /// interrupted push may have stored it without adding it to the list.
    async fn is_listed(&self, repository: &Repository, manifest: &Manifest) -> Result<bool>;

    /// Stores a manifest under the tag or digest of `reference`. Its children exist already.
    async fn put_manifest(&self, reference: &Reference, manifest: &Manifest) -> Result<Stored>;

    /// Removes a tag and keeps what it refers to.
    async fn delete_tag(&self, tag: &Reference) -> Result<TagDeletion>;

    /// Deletes a manifest with all its tags.
    async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<TagDeletion>;

    /// Ends the transfer and cancels uploads that turned out not to be needed.
    async fn finish(&self);
}

/// How a manifest was stored.
#[derive(Clone, Debug)]
pub enum Stored {
    /// It is listed as a referrer of its subject, if it has one.
    Listed,
    /// Likewise, through an entry just written to the list under the subject's fallback tag. Another program that writes the
    /// same list at the same moment may undo that.
    Entered,
    /// It is stored, but not listed as a referrer: `list`, which exists or may exist, cannot be read or changed and was left
    /// alone.
    Unlisted { list: Reference, why: Error },
}

/// The result of deleting a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagDeletion {
    /// The tag is gone.
    Deleted,
    /// It still exists: the target cannot delete a tag without its manifest.
    Unsupported,
    /// It still exists: deletion is turned off at the target.
    SwitchedOff,
}

/// The blob that an error is about, if its text names one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("blob {digest} in {repository}")]
pub struct NamedBlob {
    pub digest: Digest,
    /// The repository that has it or should have it.
    pub repository: Repository,
}

impl Fact for NamedBlob {}

impl NamedBlob {
    /// Whether `error` is about this blob in this repository.
    pub fn is_named_by(&self, error: &Error) -> bool {
        error.find() == Some(self)
    }
}

/// Where a blob can be read: a source and the repository in it.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    pub source: &'a dyn Source,
    pub repository: &'a Repository,
}

impl Origin<'_> {
    /// The bytes of a blob from [`Source::blob`]. Requests them again if, for example, the length of the response is wrong,
    /// which shows before the first byte.
    pub async fn body(&self, blob: &Descriptor, offset: u64) -> Result<Body> {
        loop {
            match self.source.blob(self.repository, blob, offset).await {
                Err(error) if error.kind() == Kind::Damaged => {
                    self.source.gave_wrong(self.repository, blob, error).await?;
                }
                other => return other,
            }
        }
    }

    /// The whole blob, to be verified while it is read.
    pub async fn open(&self, blob: &Descriptor) -> Result<BlobReader> {
        let body = self.source.blob(self.repository, blob, 0).await?;
        BlobReader::new(blob, body)
    }
}
