//! The graph of an export, import or migration: the images, and all content below them.
//!
//! An [`Image`] is a lock entry with its manifests and blobs; a [`Graph`] is all of them. It is a pure value: the walk
//! creates it, the plan reads it, and it can be printed and tested without either.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Serialize;

use crate::base::position::ReferencePositions;
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use crate::pipeline::companion::Kind;
use crate::pipeline::lock::{Attached, LockedImage};

/// One complete image.
#[derive(Clone, Debug)]
pub struct Image {
    pub locked: LockedImage,
    /// Every carried manifest, children before their parents. The image's own manifest comes before the attached ones,
    /// and each of those after its subject. In an increment, manifests that the target has and withholds because of a
    /// policy are missing, with everything below them.
    pub manifests: Vec<Manifest>,
    /// Every carried blob once, in order of first use. Configs come before the layers of the same manifest.
    pub blobs: Vec<Descriptor>,
}

/// A manifest whose subject is not part of its image. Wherever it is pushed, it becomes a referrer of that subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignSubject {
    pub manifest: Digest,
    pub subject: Digest,
}

impl Image {
    /// Returns the manifest that gets the tag. `None` if the target has it and withholds it.
    pub fn root(&self) -> Option<&Manifest> {
        self.manifests.iter().find(|manifest| manifest.digest() == self.locked.digest)
    }

    /// Returns the manifests whose subject is not part of the image.
    pub fn foreign_subjects(&self) -> Vec<ForeignSubject> {
        let named = |one: &Manifest| Some(ForeignSubject { manifest: one.digest(), subject: one.subject()?.digest });
        let mut named: Vec<ForeignSubject> = self.manifests.iter().filter_map(named).collect();
        if !named.is_empty() {
            let absent = self.locked.absent.iter().map(|absent| absent.digest);
            // A part of the image may be left to a target that has and withholds it.
            let children = self.manifests.iter().flat_map(Manifest::children).map(|child| child.descriptor.digest);
            let own = self.manifests.iter().map(Manifest::digest).chain(absent).chain(children);
            let own: HashSet<Digest> = own.chain([self.locked.digest]).collect();
            named.retain(|one| !own.contains(&one.subject));
        }
        named
    }

    /// Size of all distinct content in bytes.
    pub fn total_size(&self) -> u64 {
        sum_distinct(self.content())
    }

    /// Whether the target has more of it than was read: manifests that it withholds.
    pub fn is_partial(&self) -> bool {
        self.total_size() != self.locked.total_size
    }

    /// Returns the carried manifests of `root` and everything below it.
    pub fn below(&self, root: Digest) -> Vec<&Manifest> {
        let (mut open, mut seen, mut below) = (vec![root], HashSet::new(), Vec::new());
        while let Some(digest) = open.pop().filter(|_| seen.len() <= self.manifests.len()) {
            let found = self.manifests.iter().find(|manifest| manifest.digest() == digest);
            if let Some(manifest) = found.filter(|_| seen.insert(digest)) {
                open.extend(manifest.children().into_iter().map(|child| child.descriptor.digest));
                below.push(manifest);
            }
        }
        below
    }

    /// Removes the companions in `gone`, those whose subject is one of them, and everything that nothing else needs.
    /// The lock entry then says that more companions may exist than it names.
    pub fn leave_out_companions(&mut self, gone: &HashSet<Digest>) {
        let Some(attached) = self.locked.attached.take() else { return };
        let digests = |manifests: Vec<&Manifest>| manifests.into_iter().map(Manifest::digest).collect::<Vec<_>>();
        let mut carried: HashSet<Digest> = digests(self.below(self.locked.digest)).into_iter().collect();
        let mut kept: HashSet<Digest> = HashSet::new();
        // The subject of a companion may be another companion.
        loop {
            let is_next = |one: &&Attached| carried.contains(&one.subject) && !gone.contains(&one.digest);
            let next: Vec<Digest> = attached.iter().filter(is_next).map(|one| one.digest).collect();
            let next: Vec<Digest> = next.into_iter().filter(|digest| kept.insert(*digest)).collect();
            if next.is_empty() {
                break;
            }
            next.into_iter().for_each(|digest| carried.extend(digests(self.below(digest))));
        }
        self.manifests.retain(|manifest| carried.contains(&manifest.digest()));
        let named = self.manifests.iter().flat_map(Manifest::children).map(|child| child.descriptor.digest);
        let named: HashSet<Digest> = named.collect();
        self.blobs.retain(|blob| named.contains(&blob.digest));
        let is_left = |one: &Attached| kept.contains(&one.digest) && carried.contains(&one.subject);
        self.locked.attached = Some(attached.into_iter().filter(is_left).collect());
        self.locked.attached_unknown = true;
        self.locked.total_size = self.total_size();
    }

    fn content(&self) -> impl Iterator<Item = (Digest, u64)> {
        let manifests = self.manifests.iter().map(|manifest| (manifest.digest(), manifest.size()));
        manifests.chain(self.blobs.iter().map(|blob| (blob.digest, blob.size)))
    }
}

/// All images of one job, in the order of the lock.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub images: Vec<Image>,
    /// Referrers of indexes of which only some platforms are carried, in the order of the images.
    pub left_behind: Vec<LeftBehind>,
    pub written: ReferencePositions,
}

/// Artifacts that refer to a whole index which is not carried unchanged, and that are therefore left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftBehind {
    pub reference: Reference,
    /// Signatures, attestations and others of the index, by kind.
    pub attached: BTreeMap<Kind, usize>,
    /// Attestations of the carried platform that are children of the index, as BuildKit writes them.
    pub inside_index: usize,
}

/// Single manifests and blobs of a graph.
#[derive(Clone, Debug, Default)]
pub struct Located {
    pub manifests: Vec<Manifest>,
    pub blobs: Vec<PlacedBlob>,
}

/// A blob, and a repository that has it.
#[derive(Clone, Debug)]
pub struct PlacedBlob {
    pub blob: Descriptor,
    pub repository: Repository,
}

impl LeftBehind {
    /// An empty entry.
    pub fn of(reference: Reference) -> LeftBehind {
        LeftBehind { reference, attached: BTreeMap::new(), inside_index: 0 }
    }

    pub fn add(&mut self, kind: Kind, number: usize) {
        if number > 0 {
            *self.attached.entry(kind).or_default() += number;
        }
    }
}

/// `REF: 1 signature and 2 attestations`.
impl fmt::Display for LeftBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted: Vec<String> = self.attached.iter().map(|(kind, number)| kind.counted(*number)).collect();
        let all = match counted.as_slice() {
            [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
            all => all.concat(),
        };
        write!(f, "{}: {all}", self.reference)
    }
}

impl Graph {
    /// As in [`ReferencePositions::shown`].
    pub fn shown(&self, reference: &Reference) -> String {
        self.written.shown(reference)
    }

    /// Every manifest once, in order of first use.
    pub fn manifests(&self) -> Vec<Manifest> {
        let mut seen = HashSet::new();
        let all = self.images.iter().flat_map(|image| &image.manifests);
        all.filter(|manifest| seen.insert(manifest.digest())).cloned().collect()
    }

    /// Every blob once, in order of first use.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let mut seen = HashSet::new();
        let all = self.images.iter().flat_map(|image| &image.blobs);
        all.filter(|blob| seen.insert(blob.digest)).cloned().collect()
    }

    /// Size of all distinct content in bytes.
    pub fn total_size(&self) -> u64 {
        sum_distinct(self.images.iter().flat_map(Image::content))
    }

    /// Size in bytes if every image had its own copy.
    pub fn unshared_size(&self) -> u64 {
        self.images.iter().map(Image::total_size).fold(0, u64::saturating_add)
    }
}

fn sum_distinct(content: impl Iterator<Item = (Digest, u64)>) -> u64 {
    let mut seen = HashSet::new();
    content.filter(|(digest, _)| seen.insert(*digest)).map(|(_, size)| size).fold(0, u64::saturating_add)
}
