//! A manifest: the exact bytes received, and the views derived from them.

mod outline;
mod reading;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use reading::{check_bytes, check_content, check_texts, children, decide_type, memory, view_of};

use super::view::{self, View};
use super::weight::OfManifest;
use super::{Descriptor, Digest, media_type};
use crate::spool::Kept;
pub use outline::{ManifestOutline, digests_in};

/// Maximum size of a manifest in bytes: the limit of registries (distribution `maxManifestBodySize`).
pub const MAX_MANIFEST_SIZE: u64 = 4 * 1024 * 1024;

/// More layers or children than any manifest has; lists of some ten thousand signatures have the most.
const MOST_CHILDREN: usize = 20_000;

/// A manifest that was read and understood. Its digest never changes, because its bytes are never serialized again.
///
/// It is cheap to clone and to keep by the thousand: only its own data and the descriptors of its children stay in memory, and
/// these are bounded. The bytes are in the [`spool`](crate::spool).
#[derive(Clone)]
pub struct Manifest(Arc<Inner>);

struct Inner {
    bytes: Kept,
    outline: ManifestOutline,
    children: Vec<Child>,
    _weight: OfManifest,
}

/// The kind of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An image or artifact: a config and layers.
    Image,
    /// An image index or a Docker manifest list.
    Index,
    /// The withdrawn OCI artifact manifest: blobs without a config.
    Artifact,
}

/// Why bytes are not a manifest that can be carried. The caller adds the registry, repository or path.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest has {0} bytes, more than the {MAX_MANIFEST_SIZE} allowed")]
    TooLarge(u64),
    #[error("wrong digest: expected {expected}, the bytes have {found}")]
    Digest { expected: Digest, found: Digest },
    #[error("it is not a manifest: {reason}; it starts with {start:?}")]
    Malformed { reason: String, start: String },
    #[error("it is a Docker schema 1 manifest, which stores no layer digests that could be carried unchanged")]
    Schema1,
    #[error("unsupported media type {0:?}")]
    MediaType(String),
    #[error("served as {header:?}, but the manifest itself says {body:?}")]
    MediaTypeConflict { header: String, body: String },
    #[error("it is {0} at once, and programs disagree on which it is, so it is not carried")]
    Ambiguous(&'static str),
    #[error("it names {0} layers or manifests; the limit is {MOST_CHILDREN}: leave the image out")]
    TooManyChildren(usize),
    #[error("the {what} that starts with {start:?} has {length} bytes; the limit is {most}: leave the image out")]
    TooLong { what: &'static str, length: usize, most: usize, start: String },
    #[error(
        "the manifests of this run name too many layers; the limit is 250,000, or 15 per manifest if that is more: leave the \
         image out, or carry fewer images at once"
    )]
    TooManyInAll,
}

/// Something that a manifest points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    pub role: Role,
    pub descriptor: Descriptor,
}

/// The role of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A manifest of an index.
    Manifest,
    /// The config of an image manifest.
    Config,
    /// A layer, or a blob of an artifact.
    Layer,
    /// A layer that registries are not expected to have; its `urls` say where it is.
    ForeignLayer,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// `served_as` is the Content-Type, or the media type of the descriptor that led here, if any. The manifest's own
    /// `mediaType` takes precedence: a registry receives it when the manifest is pushed. One may be OCI and the other Docker,
    /// but not one image and the other index. `expected` is the requested digest; without one, the digest is sha256.
    ///
    /// # Errors
    /// The bytes are too large, not JSON, schema 1, not a manifest type, have another digest than `expected`, are image and
    /// index at once, have a key twice or in another case, or have more or longer descriptors than a run may hold.
    pub fn parse(bytes: Bytes, served_as: Option<&str>, expected: Option<&Digest>) -> Result<Manifest, ManifestError> {
        let digest = check_bytes(&bytes, expected)?;
        let view: View = view_of(&bytes)?;
        let media_type = decide_type(&view, served_as, &bytes)?;
        check_content(&view, &bytes)?;
        check_texts(&view)?;
        let (outline, view) = ManifestOutline::of(view, media_type, digest, bytes.len());
        let mut children = children(view, outline.kind());
        if children.len() > MOST_CHILDREN {
            return Err(ManifestError::TooManyChildren(children.len()));
        }
        children.shrink_to_fit();
        let weight = OfManifest::take(memory(&children));
        if !Descriptor::all_fit() {
            return Err(ManifestError::TooManyInAll);
        }
        Ok(Manifest(Arc::new(Inner { bytes: Kept::new(&bytes), outline, children, _weight: weight })))
    }

    /// The same manifest with the media type of a descriptor that led to it, for manifests in files, which may lack a
    /// `mediaType`. The manifest's own type takes precedence, and an impossible type is ignored: Docker images do not have OCI
    /// configs, and registries reject them.
    ///
    /// # Errors
    /// As for [`bytes`](Manifest::bytes).
    pub fn described_as(self, media_type: &str) -> Result<Manifest, NotKept> {
        let is_docker = media_type == media_type::DOCKER_MANIFEST;
        let has_oci_config = self.config().is_some_and(|config| config.media_type == media_type::OCI_CONFIG);
        let is_possible = media_type::is_manifest(media_type) && !(is_docker && has_oci_config);
        if self.media_type() == media_type || !is_possible {
            return Ok(self);
        }
        let described = Manifest::parse(self.bytes()?, Some(media_type), Some(&self.digest()));
        Ok(described.ok().filter(|described| described.kind() == self.kind()).unwrap_or(self))
    }

    /// The exact bytes.
    ///
    /// # Errors
    /// There were too many manifests to keep in memory, and no space for this one in a temporary file.
    pub fn bytes(&self) -> Result<Bytes, NotKept> {
        self.0.bytes.bytes().map_err(|source| NotKept { digest: self.digest(), source })
    }

    /// The exact bytes, as they are stored.
    pub fn kept(&self) -> &Kept {
        &self.0.bytes
    }

    /// Its media type; never empty.
    pub fn media_type(&self) -> &str {
        self.0.outline.media_type()
    }

    pub fn digest(&self) -> Digest {
        self.0.outline.digest
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.0.outline.size
    }

    pub fn kind(&self) -> Kind {
        self.0.outline.kind()
    }

    pub fn descriptor(&self) -> Descriptor {
        self.0.outline.descriptor()
    }

    /// The manifest it refers to, if it is a signature, SBOM or the like.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.0.outline.subject()
    }

    pub fn config(&self) -> Option<&Descriptor> {
        self.0.outline.config()
    }

    /// As [`ManifestOutline::artifact_type`].
    pub fn artifact_type(&self) -> Option<String> {
        self.0.outline.artifact_type()
    }

    /// Its own annotations, parsed on each call. Empty if they take more than 64 KiB of JSON.
    ///
    /// # Errors
    /// As for [`bytes`](Manifest::bytes).
    pub fn annotations(&self) -> Result<std::collections::BTreeMap<String, String>, NotKept> {
        Ok(view::annotations(&self.bytes()?))
    }

    /// Everything this manifest points to, in its own order: the manifests of an index, or the config and then the layers of
    /// an image. The subject is not a child: the manifest is complete without it.
    pub fn children(&self) -> Vec<Child> {
        self.0.children.clone()
    }
}

/// The bytes of a manifest could not be stored.
#[derive(Debug, thiserror::Error)]
#[error("keeping the manifest {digest}")]
pub struct NotKept {
    pub digest: Digest,
    pub source: std::io::Error,
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manifest({} {})", self.media_type(), self.digest())
    }
}

#[cfg(test)]
mod tests;
