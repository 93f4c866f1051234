//! The lock: what each reference of an allowlist meant at one time.
//!
//! It travels inside the bundle and, with `--lock FILE`, next to it. Exporting `--locked FILE` produces the same bundle
//! again, byte for byte. It is a value with serde views; the caller reads and writes the file.

mod lines;

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::document::{Document, Unbounded};
use crate::base::error::{Error, Kind, Reason, Result};
use crate::oci::{COSIGN_SUFFIXES, Descriptor, Digest, Platform, Reference, Repository, Tag};
pub use lines::written;

/// Maximum size of a lock in bytes: space for about ten thousand images.
pub const MAX_LOCK: u64 = 64 * 1024 * 1024;

/// Every image of one export, in the order of the allowlist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    pub version: u32,
    /// When the references were resolved, in whole seconds UTC. Also the timestamp of everything in the bundle.
    pub created: Timestamp,
    /// The platform of an index that `manifest.json` names. `None` means linux/amd64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_platform: Option<Platform>,
    pub images: Vec<LockedImage>,
    /// Images that were requested and are not in `images`, in the order of the allowlist as far as it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingImage>,
}

/// An image that was requested and could not be fetched, in an export that continued without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MissingImage {
    /// As in [`LockedImage`]. A repository without tag if its tags could not be listed, or not all of them.
    pub reference: Reference,
    /// The name for it at the target, from the allowlist.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub rename: Option<Rename>,
    /// Why it could not be fetched.
    pub reason: MissingReason,
}

impl MissingImage {
    /// Whether `reference` is this image, or an image of the repository whose tags are unknown.
    pub fn covers(&self, reference: &Reference) -> bool {
        let Reference { repository, tag, digest } = &self.reference;
        let same = tag == &reference.tag && (tag.is_some() || digest == &reference.digest);
        *repository == reference.repository && (same || (tag.is_none() && digest.is_none()))
    }
}

impl std::fmt::Display for MissingImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.reference, self.reason)
    }
}

/// Why an image is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MissingReason {
    /// The registry does not have it, or something that it needs.
    NotFound,
    /// The registry denies it to this account.
    Denied,
    /// It has none of the requested platforms.
    PlatformMissing,
    /// Its bytes differ from its digest, or are not a manifest.
    Damaged,
    /// It cannot be carried because of its kind, or because of the way it was requested.
    Unsupported,
    /// The registry asked for a longer pause than was allowed.
    RateLimited,
    /// The registry could not be reached, or its answers were not those of a registry.
    Unreachable,
    /// The reference is a repository whose list of tags may be incomplete: it may have more images.
    TagsIncomplete,
}

impl MissingReason {
    /// `None` if the failure says nothing about the image, such as a full disk.
    pub fn of(error: &Error) -> Option<MissingReason> {
        match error.kind() {
            _ if error.reason() == Some(&Reason::PlatformMissing) => Some(MissingReason::PlatformMissing),
            _ if error.reason() == Some(&Reason::Undelivered) => Some(MissingReason::Unreachable),
            Kind::NotFound => Some(MissingReason::NotFound),
            Kind::Unauthorized | Kind::Refused => Some(MissingReason::Denied),
            Kind::Damaged => Some(MissingReason::Damaged),
            Kind::Input => Some(MissingReason::Unsupported),
            Kind::RateLimited => Some(MissingReason::RateLimited),
            Kind::Network => Some(MissingReason::Unreachable),
            Kind::Disk | Kind::Lacking | Kind::Interrupted => None,
        }
    }
}

impl std::fmt::Display for MissingReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            MissingReason::NotFound => "not found",
            MissingReason::Denied => "denied",
            MissingReason::PlatformMissing => "none of the platforms",
            MissingReason::Damaged => "damaged",
            MissingReason::Unsupported => "unsupported",
            MissingReason::RateLimited => "rate-limited",
            MissingReason::Unreachable => "unreachable",
            MissingReason::TagsIncomplete => "list of tags may be incomplete",
        })
    }
}

/// One image: what was requested, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedImage {
    /// The normalized reference, with a tag, a digest or both.
    pub reference: Reference,
    /// Its name at the target, below the target's prefix: `as=` in the allowlist.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub rename: Option<Rename>,
    /// Its registry. Reports say which mirror was used; the lock does not, so that equal content has equal locks.
    pub source: String,
    /// Digest of the carried manifest: the registry's own, unless `selection` says otherwise.
    pub digest: Digest,
    pub media_type: String,
    /// Size of that manifest in bytes.
    pub size: u64,
    /// Size in bytes of all distinct carried content below it, including itself and `attached`.
    pub total_size: u64,
    /// The carried platforms. Empty for artifacts that name none.
    #[serde(default)]
    pub platforms: Vec<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// Content that the image refers to and that is left out on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
    /// Signatures, attestations, SBOMs and other manifests that are carried with the image. `None` if none were looked
    /// for, or if an older version, which wrote no empty list, found none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<Vec<Attached>>,
    /// Whether more companions may exist, because the registry did not answer completely. `attached` is what was found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attached_unknown: bool,
}

impl LockedImage {
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.size)
    }

    /// Returns its companions; empty if none were looked for.
    pub fn companions(&self) -> &[Attached] {
        self.attached.as_deref().unwrap_or_default()
    }

    /// Returns why its companions cannot have their tags, if so: a tag means one manifest.
    pub fn doubled_tag(&self) -> Option<String> {
        let mut known = HashMap::new();
        let mut tagged = self.companions().iter().filter_map(|own| Some((own.tag.as_ref()?, own.digest)));
        tagged.find_map(|(tag, digest)| {
            let other = *known.entry(tag).or_insert(digest);
            (other != digest).then(|| format!("its companions {other} and {digest} both have the tag {tag}"))
        })
    }

    /// Returns the tags in `repository` that attached manifests have next to it, and what they mean.
    pub fn companion_tags(&self, repository: &Repository) -> impl Iterator<Item = (Reference, Digest)> {
        let tagged = self.companions().iter().filter_map(|attached| Some((attached.tag.clone()?, attached.digest)));
        tagged.map(|(tag, digest)| (repository.with_tag(tag), digest))
    }

    /// Returns the manifests that are lists of signatures, to which others may add: those of its companions, and its
    /// own if it has the tag of such a list.
    pub fn signature_lists(&self) -> impl Iterator<Item = Digest> {
        let is_list = |tag: Option<&Tag>| tag.is_some_and(Tag::is_list);
        let own =
            is_list(self.reference.tag.as_ref()) || is_list(self.rename.as_ref().and_then(|name| name.tag.as_ref()));
        let companions = self.companions().iter().filter(move |own| is_list(own.tag.as_ref())).map(|own| own.digest);
        companions.chain(own.then_some(self.digest))
    }

    /// Returns why `manifest`, which belongs to the image, must not have the subject `subject`, which does not; `None`
    /// if it may. It would become a referrer of an image that the operator did not choose. The image itself may be an
    /// artifact. It may also be a list of referrers, if it has the tag of such a list or is named by its digest alone.
    pub fn subject_problem(&self, manifest: Digest, subject: Digest) -> Option<String> {
        let may_be_list = self.reference.tag.as_ref().is_none_or(|tag| *tag == Tag::referrers(&subject));
        if manifest == self.digest || may_be_list {
            return None;
        }
        let text = format!("its manifest {manifest} has the subject {subject}, which is not a manifest of this image");
        Some(text)
    }

    /// Returns its name in a bundle: `repository:tag`, else `repository@digest`.
    pub fn name(&self) -> String {
        let Reference { repository, tag, .. } = &self.reference;
        match tag {
            Some(tag) => repository.with_tag(tag.clone()).to_string(),
            None => repository.with_digest(self.digest).to_string(),
        }
    }
}

/// A name below the target's prefix: `path` or `path:tag`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rename {
    pub path: String,
    pub tag: Option<Tag>,
}

impl Rename {
    /// Applies it to an image with this reference: a new name without a tag keeps the tag of the image.
    pub fn of(self, reference: &Reference) -> Rename {
        let tag = self.tag.or_else(|| reference.tag.clone());
        Rename { tag, ..self }
    }
}

impl TryFrom<String> for Rename {
    type Error = crate::oci::ReferenceError;

    /// Parsed like a reference below a host: `base/nginx:1.27`.
    fn try_from(text: String) -> Result<Rename, Self::Error> {
        let fix = |mut e: crate::oci::ReferenceError| {
            e.text.clone_from(&text);
            e
        };
        let whole: Reference = format!("target.invalid/{text}").parse().map_err(fix)?;
        if whole.digest.is_some() {
            let reason = "the new name takes a tag, not a digest".to_owned();
            return Err(crate::oci::ReferenceError { text, reason });
        }
        Ok(Rename { path: whole.repository.path().to_owned(), tag: whole.tag })
    }
}

impl From<Rename> for String {
    fn from(rename: Rename) -> String {
        rename.to_string()
    }
}

impl std::fmt::Display for Rename {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path)?;
        self.tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

/// States that only some platforms of an index are carried, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selection {
    /// As requested.
    pub platforms: Vec<Platform>,
    pub index: IndexMode,
    /// What the reference meant at the registry: the old digest; [`LockedImage::digest`] is the new one.
    pub original: Descriptor,
}

/// What is done with an index of which only some platforms are carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum IndexMode {
    /// A smaller index with only the selected children is written; it has a new digest.
    #[default]
    Trim,
    /// The index is kept byte for byte; children are missing on purpose.
    Sparse,
    /// The one remaining manifest gets the tag.
    Single,
}

impl std::fmt::Display for IndexMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            IndexMode::Trim => "trim",
            IndexMode::Sparse => "sparse",
            IndexMode::Single => "single",
        })
    }
}

/// Content that is left out on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Absent {
    pub digest: Digest,
    pub size: u64,
    pub reason: AbsentReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AbsentReason {
    /// A child of a sparse index whose platform was not selected.
    PlatformNotSelected,
    /// A layer that registries do not store; the manifest lists its URLs.
    ForeignLayer,
    /// A child of a sparse index that the registry does not have or denies.
    NotFound,
}

/// A manifest that is carried with an image because it refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attached {
    pub digest: Digest,
    pub media_type: String,
    pub size: u64,
    /// Its subject: the image, one of its children, or another attached manifest.
    pub subject: Digest,
    /// The tag under which it is found (cosign's `sha256-….sig`). Without one, it is found as a referrer of `subject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Attached {
    /// Returns why it is not a companion of its image, if so. `in_tree` says that its subject is a manifest of the
    /// image or of an earlier companion. `declared` is the subject in its own manifest, which is what registries use;
    /// without a tag, nothing else finds it.
    ///
    /// This prevents a lock from giving any tag to any manifest.
    pub fn fault(&self, in_tree: bool, declared: Option<Digest>) -> Option<String> {
        let Attached { digest, subject, tag, .. } = self;
        if let Some(fault) = self.tag_problem() {
            return Some(fault);
        }
        if !in_tree {
            return Some(format!(
                "its companion {digest} has the subject {subject}, which is not a manifest of this image"
            ));
        }
        if declared.map_or(tag.is_none(), |declared| declared != *subject) {
            let names = declared.map_or_else(|| "no subject".to_owned(), |declared| format!("the subject {declared}"));
            return Some(format!("its companion {digest} names {names}, but the lock says {subject}"));
        }
        None
    }

    /// Returns why it may not have its tag, if so. Companions have cosign's tags of their subject. Any other tag could
    /// replace an image, and a list of referrers is written by the registry, or entry by entry.
    pub fn tag_problem(&self) -> Option<String> {
        let tag = self.tag.as_ref()?;
        let mut suffixes = COSIGN_SUFFIXES.iter();
        if suffixes.any(|suffix| Tag::cosign(&self.subject, suffix) == *tag) {
            return None;
        }
        let (digest, subject) = (self.digest, self.subject);
        Some(format!("its companion {digest} has the tag {tag}, which cannot be the tag of a companion of {subject}"))
    }

    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.size).with_artifact_type(self.artifact_type.clone())
    }
}

impl Document for Lock {
    const NAME: &'static str = "the lock";
    const VERSION_KEY: &'static str = "version";
    const VERSION: u32 = 1;
    const MAX_BYTES: u64 = MAX_LOCK;
    const MAX_VALUES: usize = 2_000_000;
    const KIND: Kind = Kind::Input;
    const TOO_LARGE: &'static str = "split the allowlist";
    type Outline = Unbounded;
}

impl Lock {
    /// Parses a lock; `name` is the file in errors.
    ///
    /// # Errors
    /// As for [`Document::read`], or a companion has another image's tag (`Input`).
    pub fn parse(bytes: &[u8], name: &str) -> Result<Lock> {
        let mut lock = Lock::read(bytes, name)?;
        for selection in lock.images.iter_mut().filter_map(|image| image.selection.as_mut()) {
            selection.original = selection.original.bare();
        }
        for image in &lock.images {
            let fault = image.companions().iter().find_map(Attached::tag_problem);
            if let Some(fault) = fault.or_else(|| image.doubled_tag()) {
                let image = written(bytes, name).shown(&image.reference);
                return Err(Error::input(format!("reading the lock {name}: {image}: {fault}")));
            }
        }
        Ok(lock)
    }

    /// The timestamp of everything in a bundle of this lock, in seconds since 1970.
    pub fn mtime(&self) -> u64 {
        u64::try_from(self.created.as_second()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
