//! Reading and writing content: the only contract between stages and transports.
//!
//! A [`Source`] answers for references, manifests and blobs; a [`Sink`] takes them. Stages hold a `&dyn Source` and a
//! `&dyn Sink` and know nothing of registries, files or tars; transports know nothing of each other. A blob is had only
//! through a [`BlobReader`], which hashes while it is read and fails on short, long or wrong data *before* it hands out
//! the last piece, so that what consumes it can never complete a wrong blob.

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

/// The tags of a repository, and why the list may lack some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagList {
    pub tags: Vec<Tag>,
    /// One line for each reason to think that tags are missing; empty when the list is whole.
    pub doubts: Vec<String>,
}

impl From<Vec<Tag>> for TagList {
    /// A list that is whole.
    fn from(tags: Vec<Tag>) -> TagList {
        TagList { tags, doubts: Vec::new() }
    }
}

/// The manifests whose subject is one digest, and why the list may lack some.
#[derive(Clone, Debug, Default)]
pub struct ReferrerList {
    pub found: Vec<Descriptor>,
    /// Why there may be more; `None` when the list is whole.
    pub doubt: Option<Error>,
}

impl From<Vec<Descriptor>> for ReferrerList {
    /// A list that is whole.
    fn from(found: Vec<Descriptor>) -> ReferrerList {
        ReferrerList { found, doubt: None }
    }
}

/// How much depends on an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// An image cannot travel without it.
    Required,
    /// An image can travel without it. A source that answers other questions may give up soon on this one, and its failure
    /// neither delays nor ends the rest of the run.
    Optional,
}

/// Where content comes from: one or many registries, a layout, a storage directory.
///
/// “Absent” is `None` or an empty list; anything that could not be found out is an error, never taken for absent.
#[async_trait]
pub trait Source: Send + Sync {
    /// The tags of a repository, in the source's order.
    async fn tags(&self, repository: &Repository, need: Need) -> Result<TagList>;

    /// What a tag or digest means now (digest, media type, size), as cheaply as the source can tell.
    async fn resolve(&self, reference: &Reference, need: Need) -> Result<Option<Descriptor>>;

    /// The manifest of a tag or digest, its digest proven when one was asked for.
    async fn manifest(&self, reference: &Reference, need: Need) -> Result<Option<Manifest>>;

    /// The manifests in `repository` whose subject is `subject`; always a question of [`Need::Optional`].
    ///
    /// # Errors
    /// Nothing was found, and whether there is something is not known.
    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<ReferrerList>;

    /// The bytes of a blob from `offset` on, unproven: use [`Origin::open`]. A source that cannot begin there begins at 0
    /// and says so in [`Body::offset`].
    async fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body>;

    /// What [`Source::blob`] gave, from the start, proved to be wrong, as `error` says. `Ok`: the caller can ask for the blob again.
    /// Another place is then asked, or, where there is none, the same one a few times, each time after a wait.
    ///
    /// # Errors
    /// Asking again would not help: `error`, with where the bytes came from if the source knows.
    async fn gave_wrong(&self, repository: &Repository, blob: &Descriptor, error: Error) -> Result<()>;

    /// Whether [`Source::manifest`] costs there what [`Source::resolve`] does not, so that a tag is better resolved first.
    fn counts_pulls(&self, repository: &Repository) -> bool;

    /// Its blobs as files of this machine, if that is what they are.
    fn files(&self) -> Option<&dyn Files>;
}

/// What came of reading the last byte of a blob that is said to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readable {
    Yes,
    /// It is not there, has another length, or the byte does not come: which, as a sentence about the blob.
    No(String),
    /// Its storage, another server than the target itself, refuses to give it: object stores deny what is not there, too. How it
    /// refuses.
    PerhapsLost(String),
    /// The target refuses or fails to give it, as often as it is asked: how. Of a blob that was there before, that is as good as
    /// lost; of one that it has just taken, it proves nothing.
    Failed(String),
    /// This account may not read there.
    Denied,
    /// No clear answer: why.
    Unknown(String),
}

/// Where content goes: a registry, a bundle, a directory.
///
/// Every call may be repeated: putting what is already there succeeds and moves nothing.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Whether the whole blob is there under this repository.
    async fn has_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool>;

    /// Whether a blob that is said to be there can be read, by a request that no cache answers. Costs as much as [`Sink::has_blob`].
    async fn can_read(&self, repository: &Repository, blob: &Descriptor) -> Result<Readable>;

    /// What a tag or digest means at the target now.
    async fn resolve(&self, reference: &Reference) -> Result<Lookup>;

    /// The manifest of a tag or digest at the target, its digest proven when one was asked for.
    async fn read_manifest(&self, reference: &Reference) -> Result<Option<Manifest>>;

    /// Whether `repository` is known to have no tag at all; it may have what an interrupted push left. `false` where that
    /// cannot be told at once.
    async fn has_no_tags(&self, repository: &Repository) -> Result<bool>;

    /// Makes a blob that `from` holds available in `repository` without moving bytes. `false`: not possible, upload it.
    async fn mount(&self, repository: &Repository, blob: &Descriptor, from: &Repository) -> Result<bool>;

    /// Stores a blob, proven, reading it from `origin` as often as a retry needs.
    ///
    /// # Errors
    /// Besides failures to read or to write: the target has answered with success and keeps a damaged copy
    /// ([`Reason::DamagedTarget`](crate::base::error::Reason::DamagedTarget)).
    async fn put_blob(&self, repository: &Repository, blob: &Descriptor, origin: &Origin<'_>) -> Result<()>;

    /// Whether `manifest`, which is in `repository`, is also found as a referrer of its subject, if it has one. A push that
    /// was interrupted may have stored it and not yet entered it in the list.
    async fn is_listed(&self, repository: &Repository, manifest: &Manifest) -> Result<bool>;

    /// Stores a manifest under the tag or digest of `reference`. Its children are there already.
    async fn put_manifest(&self, reference: &Reference, manifest: &Manifest) -> Result<Stored>;

    /// Takes a tag away and leaves what it means.
    async fn delete_tag(&self, tag: &Reference) -> Result<TagDeletion>;

    /// Deletes a manifest, with all its tags.
    async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<TagDeletion>;

    /// Nothing more will be sent: gives up what was begun and turned out not to be needed.
    async fn finish(&self);
}

/// How a manifest was stored.
#[derive(Clone, Debug)]
pub enum Stored {
    /// It is found by its subject, if it has one.
    Listed,
    /// The same, by an entry that was just written in the list under the subject's fallback tag. Another program that writes the same
    /// list at the same moment may undo that.
    Entered,
    /// It is there, and is not found by its subject: `list`, which exists or may exist, cannot be read or changed, and was left alone.
    Unlisted { list: Reference, why: Error },
}

/// What came of deleting a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagDeletion {
    /// The tag is gone.
    Deleted,
    /// It is still there: the target cannot delete a tag without its manifest.
    Unsupported,
    /// It is still there: the target deletes nothing.
    SwitchedOff,
}

/// Which blob an error is about, where its text says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("blob {digest} in {repository}")]
pub struct NamedBlob {
    pub digest: Digest,
    /// Where it is, or should be.
    pub repository: Repository,
}

impl Fact for NamedBlob {}

impl NamedBlob {
    /// Whether `error` says that it is about this blob in this repository.
    pub fn is_named_by(&self, error: &Error) -> bool {
        error.find() == Some(self)
    }
}

/// Where one blob can be read: a source and the repository it is in there.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    pub source: &'a dyn Source,
    pub repository: &'a Repository,
}

impl Origin<'_> {
    /// The bytes of a blob, as [`Source::blob`] gives them; asks again where the answer has, say, a wrong length, which shows before
    /// its first byte.
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

    /// The whole blob, to be proven while it is read.
    pub async fn open(&self, blob: &Descriptor) -> Result<BlobReader> {
        let body = self.source.blob(self.repository, blob, 0).await?;
        BlobReader::new(blob, body)
    }
}
