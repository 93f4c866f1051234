//! Everything below one manifest, and everything that refers to it.

use std::collections::HashSet;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::base::error::{Error, Kind, Reason, Result};
use crate::content::{Cached, Need, Source};
use crate::oci::{Child, Described, Descriptor, Digest, Manifest, Repository, Role, media_type};
use crate::pipeline::lock::{Absent, AbsentReason};

/// Maximum nesting of indexes. Real images have two levels.
const MAX_DEPTH: usize = 8;
/// Maximum size of a blob in bytes that is believed: 4 TiB. Space and memory are planned according to a manifest.
const MOST_BYTES: u64 = 4 << 40;
/// Number of children of one image that are requested at a time. The number of connections to a host is limited
/// elsewhere.
const AT_ONCE: usize = 6;

/// The manifests of an image, level by level.
#[derive(Clone)]
pub struct Tree {
    /// The image's own manifests, root first; parents before children.
    image: Vec<Manifest>,
    /// The same for each attached manifest, in the order in which they were added.
    attached: Vec<Vec<Manifest>>,
    holds: HashSet<Digest>,
    absent: HashSet<Digest>,
    /// Children that the source does not have, if that is not an error.
    not_found: Option<Vec<Absent>>,
    /// Whether to leave out what the source has and withholds (see [`is_withheld`]).
    leaves_withheld: bool,
    /// Whether something was left out because of that.
    is_partial: bool,
}

/// Whether the source has the manifest where it is wanted, and a policy forbids reading it.
pub fn is_withheld(error: &Error) -> bool {
    error.kind() == Kind::Refused && error.reason() == Some(&Reason::PullPolicy)
}

impl Tree {
    /// Reads everything below `root`, except what `absent` names.
    pub async fn of(source: &Cached<'_>, repository: &Repository, root: Manifest, absent: &[Absent]) -> Result<Tree> {
        Tree::empty(absent).filled(source, repository, root).await
    }

    /// Does the same, and also returns the children that an index names and the source does not have.
    pub async fn of_sparse(
        source: &Cached<'_>,
        repository: &Repository,
        root: Manifest,
        absent: &[Absent],
    ) -> Result<(Tree, Vec<Absent>)> {
        let sparse = Tree { not_found: Some(Vec::new()), ..Tree::empty(absent) };
        let mut tree = sparse.filled(source, repository, root).await?;
        let not_found = tree.not_found.take().unwrap_or_default();
        Ok((tree, not_found))
    }

    fn empty(absent: &[Absent]) -> Tree {
        let absent = absent.iter().map(|absent| absent.digest).collect();
        let (image, attached, holds) = Default::default();
        Tree { image, attached, holds, absent, not_found: None, leaves_withheld: false, is_partial: false }
    }

    /// Does the same as [`Tree::of`] without manifests that the source has and withholds. Without a `root`, which is
    /// the manifest of `digest`, everything below it is left out too.
    ///
    /// # Errors
    /// As for [`Tree::of`].
    pub async fn of_readable(
        source: &Cached<'_>,
        repository: &Repository,
        digest: Digest,
        root: Option<Manifest>,
        absent: &[Absent],
    ) -> Result<Tree> {
        let mut tree = Tree { leaves_withheld: true, ..Tree::empty(absent) };
        match root {
            Some(root) => tree.filled(source, repository, root).await,
            None => {
                tree.leave_out(digest);
                Ok(tree)
            }
        }
    }

    /// Continues without a manifest that the source has and withholds.
    pub fn leave_out(&mut self, withheld: Digest) {
        self.holds.insert(withheld);
        self.is_partial = true;
    }

    /// Whether the source has more of the image than this: manifests that it withholds.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    async fn filled(mut self, source: &Cached<'_>, repository: &Repository, root: Manifest) -> Result<Tree> {
        self.image = self.descend(source, repository, root).await?;
        Ok(self)
    }

    /// Adds an attached manifest with everything below it; nothing is added twice. If that fails, the tree stays as it
    /// was.
    pub async fn add(&mut self, source: &Cached<'_>, repository: &Repository, root: Manifest) -> Result<()> {
        let read: HashSet<Digest> = self.digests().into_iter().collect();
        let withheld: Vec<Digest> = self.holds.difference(&read).copied().collect();
        match self.descend(source, repository, root).await {
            Ok(more) => self.attached.push(more),
            Err(error) => {
                // What was read of it does not belong to the tree.
                self.holds = self.digests().into_iter().chain(withheld).collect();
                return Err(error);
            }
        }
        Ok(())
    }

    pub fn holds(&self, digest: Digest) -> bool {
        self.holds.contains(&digest)
    }

    /// Digests of all manifests so far, each of which may be a subject.
    pub fn digests(&self) -> Vec<Digest> {
        self.image.iter().chain(self.attached.iter().flatten()).map(Manifest::digest).collect()
    }

    /// Children before parents, attached manifests after their subjects.
    pub fn into_manifests(self) -> Vec<Manifest> {
        let attached = self.attached.into_iter().flat_map(|manifests| manifests.into_iter().rev());
        self.image.into_iter().rev().chain(attached).collect()
    }

    /// Every blob once, in order of first use, and the foreign layers that were left out, unless they are `wanted`.
    pub fn blobs(&self, foreign_wanted: bool) -> (Vec<Descriptor>, Vec<Absent>) {
        let mut seen = HashSet::new();
        let (mut blobs, mut foreign) = (Vec::new(), Vec::new());
        let manifests = self.image.iter().chain(self.attached.iter().flatten());
        let children: Vec<Child> = manifests.flat_map(Manifest::children).collect();
        // What one manifest calls foreign, another may need.
        let needed = |child: &&Child| matches!(child.role, Role::Config | Role::Layer);
        let needed: HashSet<Digest> = children.iter().filter(needed).map(|child| child.descriptor.digest).collect();
        for child in children {
            let Described { digest, size, .. } = *child.descriptor;
            if child.role == Role::Manifest || !seen.insert(digest) {
                continue;
            }
            match child.role {
                Role::ForeignLayer if !foreign_wanted && !needed.contains(&digest) => {
                    foreign.push(Absent { digest, size, reason: AbsentReason::ForeignLayer });
                }
                _ => blobs.push(child.descriptor),
            }
        }
        blobs.shrink_to_fit();
        (blobs, foreign)
    }

    /// Reads `root` and everything below it that is not in the tree yet, parents before children.
    async fn descend(&mut self, source: &Cached<'_>, repository: &Repository, root: Manifest) -> Result<Vec<Manifest>> {
        let mut order: Vec<Manifest> = Vec::new();
        let mut level = if self.holds.contains(&root.digest()) { vec![] } else { vec![root] };
        for _ in 0..MAX_DEPTH {
            if level.is_empty() {
                return Ok(order);
            }
            let mut next: Vec<(Digest, Descriptor)> = Vec::new();
            for manifest in level {
                check_sizes(&manifest)?;
                let children = self.missing_children(&manifest).into_iter();
                next.extend(children.map(|child| (manifest.digest(), child)));
                // A manifest that occurs again further down moves down: its parents must come before it.
                order.retain(|earlier| earlier.digest() != manifest.digest());
                self.holds.insert(manifest.digest());
                order.push(manifest);
            }
            let mut seen = HashSet::new();
            next.retain(|(_, child)| seen.insert(child.digest));
            let fetched: Vec<Fetched> = stream::iter(next)
                .map(|(index, child)| fetch(source, repository, index, child))
                .buffered(AT_ONCE)
                .try_collect()
                .await?;
            level =
                fetched.into_iter().filter_map(|fetched| self.accept(fetched).transpose()).collect::<Result<_>>()?;
        }
        Err(Error::damaged(format!("its indexes nest deeper than {MAX_DEPTH} levels")))
    }

    /// Returns what was fetched, or that it is left out.
    fn accept(&mut self, fetched: Fetched) -> Result<Option<Manifest>> {
        match (fetched, &mut self.not_found) {
            (Ok(manifest), _) => Ok(Some(manifest)),
            (Err((child, error)), _) if is_withheld(&error) => match self.leaves_withheld {
                true => {
                    self.leave_out(child.digest);
                    Ok(None)
                }
                false => Err(error),
            },
            (Err((child, _)), Some(not_found)) => {
                let Described { digest, size, .. } = *child;
                not_found.push(Absent { digest, size, reason: AbsentReason::NotFound });
                self.absent.insert(digest);
                Ok(None)
            }
            (Err((_, error)), None) => Err(error),
        }
    }

    fn missing_children(&self, manifest: &Manifest) -> Vec<Descriptor> {
        let children = manifest.children().into_iter().filter(|child| child.role == Role::Manifest);
        children.map(|child| child.descriptor).filter(|child| !self.absent.contains(&child.digest)).collect()
    }
}

/// # Errors
/// A blob has an implausible size.
fn check_sizes(manifest: &Manifest) -> Result<()> {
    let blobs = manifest.children().into_iter().filter(|child| matches!(child.role, Role::Config | Role::Layer));
    match blobs.map(|child| child.descriptor).find(|blob| blob.size > MOST_BYTES) {
        Some(blob) => {
            let Described { digest, size, .. } = *blob;
            let text = format!("its manifest {} gives blob {digest} a size of {size} bytes", manifest.digest());
            Err(Error::damaged(format!("{text}; the limit is {MOST_BYTES}")))
        }
        None => Ok(()),
    }
}

/// A child of an index: the manifest, or the error that it does not exist or is denied.
type Fetched = Result<Manifest, (Descriptor, Error)>;

/// Reads a child of `index` that replaces it.
///
/// # Errors
/// The source does not have it, or its index describes it wrongly.
pub async fn need_child(
    source: &Cached<'_>,
    repository: &Repository,
    index: Digest,
    child: Descriptor,
) -> Result<Manifest> {
    fetch(source, repository, index, child).await?.map_err(|(_, error)| error)
}

async fn fetch(source: &Cached<'_>, repository: &Repository, index: Digest, child: Descriptor) -> Result<Fetched> {
    let platform = child.platform().map(|platform| format!(" ({platform})")).unwrap_or_default();
    let (found, denied) = match source.manifest(&repository.with_digest(child.digest), Need::Required).await {
        Ok(found) => (found, None),
        Err(error) if error.is_absent_or_denied() => (None, Some(error)),
        Err(error) if is_withheld(&error) => return Ok(Err((child, error))),
        Err(error) => return Err(error),
    };
    let manifest = match found {
        Some(manifest) => manifest.described_as(&child.media_type)?,
        // The index may contain it (`data` of the descriptor).
        None => match child.proven_data() {
            Some(data) => Manifest::parse(data, Some(&child.media_type), Some(&child.digest))
                .map_err(|e| Error::damaged(format!("reading {}{platform} in its index", child.digest)).because(e))?,
            None => {
                let error = not_there(repository, index, &child, denied);
                return Ok(Err((child, error)));
            }
        },
    };
    // Its digest is proven, so the size and type in the index are only claims (a list on Docker Hub has wrong sizes).
    // But a client that trusts an index which calls an image an index cannot read it.
    let (stated, is) = (&child.media_type, manifest.media_type());
    if media_type::is_manifest(stated) && media_type::is_index(stated) != media_type::is_index(is) {
        let text = format!("its index gives {}{platform} the media type {stated}, and it is {is}", child.digest);
        return Err(Error::damaged(text));
    }
    Ok(Ok(manifest))
}

/// `denied` is the refusal of the registry, if it did not say that the child does not exist.
fn not_there(repository: &Repository, index: Digest, child: &Descriptor, denied: Option<Error>) -> Error {
    let what = match (child.attestation_subject(), child.platform()) {
        (Some(subject), _) => format!("the attestation {} (of {subject})", child.digest),
        (None, Some(platform)) => format!("{} ({platform})", child.digest),
        (None, None) => child.digest.to_string(),
    };
    let others = match child.attestation_subject() {
        Some(_) => "--index single with one --platform carries that platform without it",
        None => "--platform carries the others",
    };
    // The author of such an index may have pushed the child as a blob, and an image index does not list blobs.
    let (lacks, aside) = match media_type::is_manifest(&child.media_type) {
        true if denied.is_some() => ("does not have or denies", String::new()),
        true => ("does not have", String::new()),
        false => (
            "does not have as a manifest",
            format!(" with the media type {}, which is not that of a manifest", child.media_type),
        ),
    };
    let text = format!(
        "its index {index} names {what}{aside}, which {} {lacks}; {others}, or --index sparse carries the index \
         unchanged with what exists of it (docker-registry and Harbor reject such an index)",
        repository.registry()
    );
    match denied {
        Some(denied) => Error::new(denied.kind(), text).because(denied),
        None => Error::new(Kind::NotFound, text),
    }
}
