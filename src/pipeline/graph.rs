//! The graph of an export, import or migration: images, and all the content below them.
//!
//! An [`Image`] is a lock entry with its manifests and blobs; a [`Graph`] is all of them. A pure value: it is made by the
//! walk and read by the plan, and it can be printed and tested without either.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Serialize;

use crate::base::position::ReferencePositions;
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use crate::pipeline::companion::Kind;
use crate::pipeline::lock::{Attached, LockedImage};

/// One image, complete.
#[derive(Clone, Debug)]
pub struct Image {
    pub locked: LockedImage,
    /// Every manifest that is carried, children before those that point to them; the image's own manifest stands before
    /// the attached ones, each of which stands after its subject. In an increment, those are missing that the target has and
    /// withholds by a policy, with what is below them.
    pub manifests: Vec<Manifest>,
    /// Every blob that is carried, once, by first use; configs stand before the layers of the same manifest.
    pub blobs: Vec<Descriptor>,
}

/// A manifest that speaks of something that is no part of its image. Wherever it is pushed, it becomes a referrer of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignSubject {
    pub manifest: Digest,
    pub subject: Digest,
}

impl Image {
    /// The manifest that takes the tag; `None`: the target has it and does not give it.
    pub fn root(&self) -> Option<&Manifest> {
        self.manifests.iter().find(|manifest| manifest.digest() == self.locked.digest)
    }

    /// Manifests that speak of something that is no part of the image.
    pub fn foreign_subjects(&self) -> Vec<ForeignSubject> {
        let named = |one: &Manifest| Some(ForeignSubject { manifest: one.digest(), subject: one.subject()?.digest });
        let mut named: Vec<ForeignSubject> = self.manifests.iter().filter_map(named).collect();
        if !named.is_empty() {
            let absent = self.locked.absent.iter().map(|absent| absent.digest);
            // A part of the image may be left to a target that has it and does not give it.
            let children = self.manifests.iter().flat_map(Manifest::children).map(|child| child.descriptor.digest);
            let own = self.manifests.iter().map(Manifest::digest).chain(absent).chain(children);
            let own: HashSet<Digest> = own.chain([self.locked.digest]).collect();
            named.retain(|one| !own.contains(&one.subject));
        }
        named
    }

    /// Bytes of all distinct content.
    pub fn total_size(&self) -> u64 {
        sum_distinct(self.content())
    }

    /// Whether the target has more of it than was read: manifests that it does not give.
    pub fn is_partial(&self) -> bool {
        self.total_size() != self.locked.total_size
    }

    /// The manifests that are carried of `root` and what it leads to.
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

    /// Takes out the companions that are `gone`, those that speak of them, and what nothing else needs. The lock entry then says
    /// that more may be attached than it names.
    pub fn leave_out_companions(&mut self, gone: &HashSet<Digest>) {
        let Some(attached) = self.locked.attached.take() else { return };
        let digests = |manifests: Vec<&Manifest>| manifests.into_iter().map(Manifest::digest).collect::<Vec<_>>();
        let mut carried: HashSet<Digest> = digests(self.below(self.locked.digest)).into_iter().collect();
        let mut kept: HashSet<Digest> = HashSet::new();
        // A companion may speak of another one.
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
    /// What speaks of indexes of which only some platforms are carried, in the order of the images.
    pub left_behind: Vec<LeftBehind>,
    pub written: ReferencePositions,
}

/// What speaks of a whole index that is not carried as it is, and therefore stays behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftBehind {
    pub reference: Reference,
    /// Signatures, attestations and others of the index, by their kind.
    pub attached: BTreeMap<Kind, usize>,
    /// Attestations of the platform that is carried, as children of the index (BuildKit's).
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
    /// Nothing yet.
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
    /// As [`ReferencePositions::shown`].
    pub fn shown(&self, reference: &Reference) -> String {
        self.written.shown(reference)
    }

    /// Every manifest once, by first use.
    pub fn manifests(&self) -> Vec<Manifest> {
        let mut seen = HashSet::new();
        let all = self.images.iter().flat_map(|image| &image.manifests);
        all.filter(|manifest| seen.insert(manifest.digest())).cloned().collect()
    }

    /// Every blob once, by first use.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let mut seen = HashSet::new();
        let all = self.images.iter().flat_map(|image| &image.blobs);
        all.filter(|blob| seen.insert(blob.digest)).cloned().collect()
    }

    /// Bytes of all distinct content.
    pub fn total_size(&self) -> u64 {
        sum_distinct(self.images.iter().flat_map(Image::content))
    }

    /// Bytes it would take if every image carried its own copy.
    pub fn unshared_size(&self) -> u64 {
        self.images.iter().map(Image::total_size).fold(0, u64::saturating_add)
    }
}

fn sum_distinct(content: impl Iterator<Item = (Digest, u64)>) -> u64 {
    let mut seen = HashSet::new();
    content.filter(|(digest, _)| seen.insert(*digest)).map(|(_, size)| size).fold(0, u64::saturating_add)
}
