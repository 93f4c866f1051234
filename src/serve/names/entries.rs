//! The descriptors of an index in order, found by number, digest and repository without scanning the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::oci::{Digest, Repository, Tag};

/// A descriptor of the index.
pub struct IndexEntry {
    pub digest: Digest,
    /// The descriptor as JSON, with unknown fields.
    pub raw: Box<str>,
    /// Without a repository, the manifest belongs to all of them.
    pub repository: Option<Arc<Repository>>,
    pub tag: Option<Tag>,
    /// Whether it has a name. A referrer may have a repository and no name.
    pub named: bool,
}

/// Entries by number, which grows and is never reused. Every operation takes logarithmic time.
#[derive(Default)]
pub struct IndexEntries {
    by_number: BTreeMap<u64, IndexEntry>,
    places: BTreeSet<Place>,
    next: u64,
    /// Total length of all descriptors in bytes.
    bytes: u64,
    #[cfg(test)]
    pub visits: std::sync::atomic::AtomicU64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    digest: Digest,
    repository: Option<Arc<Repository>>,
    tagged: bool,
    number: u64,
}

impl IndexEntry {
    fn place(&self, number: u64) -> Place {
        Place { digest: self.digest, repository: self.repository.clone(), tagged: self.tag.is_some(), number }
    }
}

impl IndexEntries {
    /// Appends an entry and returns its number.
    pub fn add(&mut self, entry: IndexEntry) -> u64 {
        let number = self.next;
        self.next += 1;
        self.bytes += entry.raw.len() as u64;
        self.places.insert(entry.place(number));
        self.visit();
        self.by_number.insert(number, entry);
        number
    }

    pub fn remove(&mut self, number: u64) -> Option<IndexEntry> {
        self.visit();
        let entry = self.by_number.remove(&number)?;
        self.bytes -= entry.raw.len() as u64;
        self.places.remove(&entry.place(number));
        Some(entry)
    }

    pub fn get(&self, number: u64) -> Option<&IndexEntry> {
        self.visit();
        self.by_number.get(&number)
    }

    /// All entries, in the order of the index.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &IndexEntry)> {
        self.by_number.iter().map(|(number, entry)| {
            self.visit();
            (*number, entry)
        })
    }

    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Total length of all descriptors in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first entry of a digest.
    pub fn of_digest(&self, digest: &Digest) -> Option<&IndexEntry> {
        self.all_of(digest).next()
    }

    /// All entries of a digest.
    pub fn all_of(&self, digest: &Digest) -> impl Iterator<Item = &IndexEntry> {
        let places = self.from(*digest, None).take_while(|place| place.digest == *digest);
        places.filter_map(|place| self.get(place.number))
    }

    /// The numbers of a digest's entries in one repository, or of those without one; untagged ones first.
    pub fn of(&self, digest: Digest, repository: Option<&Arc<Repository>>) -> impl Iterator<Item = u64> {
        self.those(digest, repository).map(|place| place.number)
    }

    /// The same without those that have a tag.
    pub fn untagged(&self, digest: Digest, repository: Option<&Arc<Repository>>) -> impl Iterator<Item = u64> {
        self.those(digest, repository).take_while(|place| !place.tagged).map(|place| place.number)
    }

    fn those(&self, digest: Digest, repository: Option<&Arc<Repository>>) -> impl Iterator<Item = &Place> {
        let wanted = repository.cloned();
        let same = move |place: &&Place| place.digest == digest && place.repository == wanted;
        self.from(digest, repository.cloned()).take_while(same)
    }

    fn from(&self, digest: Digest, repository: Option<Arc<Repository>>) -> impl Iterator<Item = &Place> {
        let first = Place { digest, repository, tagged: false, number: 0 };
        self.places.range(first..).inspect(|_| self.visit())
    }

    #[cfg(test)]
    fn visit(&self) {
        self.visits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    fn visit(&self) {}
}
