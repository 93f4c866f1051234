//! `index.json` as names: which tag of which repository refers to what. A value; the writer handles files.
//!
//! Names change in place. A [`Change`] takes logarithmic time: entries are found by number, digest and name, and nothing is
//! rebuilt.

mod change;
mod entries;
mod index;
mod sealed;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::base::error::Result;
use crate::oci::{Digest, MediaType, Repository, Tag};
use crate::pipeline::naming::host_component;

pub use change::Change;
use entries::{IndexEntries, IndexEntry};

/// The repository of a manifest without a name because it is not an image: a referrer that was pushed by digest.
const REPOSITORY: &str = "org.gapferry.repository";

/// Maximum size of index.json in bytes.
pub const MAX_INDEX: u64 = 64 * 1024 * 1024;
/// The annotation of the index that lists what was deleted in one repository and kept for another, as `REPOSITORY@DIGEST`
/// separated by spaces. Content requested by digest exists under any name, so `index.json` cannot express this by omission.
const DELETED: &str = "org.gapferry.deleted";
/// Maximum number of remembered deletions.
pub const MOST_DELETED: usize = 50_000;
/// Approximate maximum size of one in bytes.
const DELETED_SIZE: u64 = 400;

/// Names of Docker Hub that clients use when they ask a mirror.
const HUB_ALIASES: [&str; 2] = ["registry-1.docker.io", "index.docker.io"];

/// The content of `index.json`, and what is derived from it.
#[derive(Default)]
pub struct LayoutIndex {
    /// Everything in the index except its manifests, unchanged.
    rest: Map<String, Value>,
    entries: IndexEntries,
    /// See [`DELETED`].
    deleted: BTreeSet<(Digest, Repository)>,
    repositories: BTreeMap<Arc<Repository>, Known>,
    /// The repositories for each spelling.
    spellings: HashMap<String, BTreeSet<Arc<Repository>>>,
}

/// What is known about a repository.
#[derive(Default)]
struct Known {
    /// The entries with a tag, by number. Of several the first counts, as for other programs that read the layout.
    tags: BTreeMap<Tag, BTreeSet<u64>>,
    /// Number of its entries.
    entries: u64,
}

impl LayoutIndex {
    /// `layout` is the layout's path: its last component is the repository of entries that have only a tag.
    ///
    /// # Errors
    /// It is not an index.
    pub fn parse(index: &[u8], layout: &Path) -> Result<LayoutIndex> {
        index::parse(index, layout)
    }

    /// Assigns companions the repositories and tags in the lock of `bundle_json`.
    ///
    /// # Errors
    /// It is not a `bundle.json`.
    pub fn name_companions(&mut self, bundle_json: &[u8]) -> serde_json::Result<()> {
        sealed::name_companions(self, bundle_json)
    }

    /// The index of a layout without images.
    pub fn empty() -> LayoutIndex {
        LayoutIndex { rest: index::empty(), ..LayoutIndex::default() }
    }

    /// Writes the content of the file.
    ///
    /// # Errors
    /// `out` failed.
    pub fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        index::write(self, out)
    }

    /// Approximate size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.entries.bytes() + 6 * self.entries.len() as u64 + DELETED_SIZE * self.deleted.len() as u64
    }

    fn add(&mut self, mut entry: IndexEntry) {
        let Some(repository) = entry.repository.take() else {
            self.entries.add(entry);
            return;
        };
        let repository = self.introduce(repository);
        let tag = entry.tag.clone();
        entry.repository = Some(Arc::clone(&repository));
        let number = self.entries.add(entry);
        let known = self.repositories.entry(repository).or_default();
        known.entries += 1;
        if let Some(tag) = tag {
            known.tags.entry(tag).or_default().insert(number);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(entry) = self.entries.remove(number) else { return };
        let Some(repository) = entry.repository else { return };
        let Some(known) = self.repositories.get_mut(&repository) else { return };
        known.entries -= 1;
        if let Some(tag) = &entry.tag
            && let Some(numbers) = known.tags.get_mut(tag)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                known.tags.remove(tag);
            }
        }
        if known.entries == 0 {
            self.forget(&repository);
        }
    }

    fn remove_all(&mut self, numbers: Vec<u64>) {
        numbers.into_iter().for_each(|number| self.remove(number));
    }

    fn forget_nameless(&mut self, digest: &Digest) {
        self.remove_all(self.entries.of(*digest, None).collect());
    }

    /// Makes a repository known under all its spellings, and returns the instance shared by its entries.
    fn introduce(&mut self, repository: Arc<Repository>) -> Arc<Repository> {
        if let Some((known, _)) = self.repositories.get_key_value(&repository) {
            return Arc::clone(known);
        }
        for spelling in spellings(&repository) {
            self.spellings.entry(spelling).or_default().insert(Arc::clone(&repository));
        }
        self.repositories.insert(Arc::clone(&repository), Known::default());
        repository
    }

    fn forget(&mut self, repository: &Repository) {
        self.repositories.remove(repository);
        for spelling in spellings(repository) {
            if let Some(all) = self.spellings.get_mut(&spelling) {
                all.remove(repository);
                if all.is_empty() {
                    self.spellings.remove(&spelling);
                }
            }
        }
    }

    fn known(&self, repository: &Repository) -> Option<Arc<Repository>> {
        self.repositories.get_key_value(repository).map(|(known, _)| Arc::clone(known))
    }

    fn numbers(&self, repository: &Repository, tag: &Tag) -> impl Iterator<Item = u64> {
        let numbers = self.repositories.get(repository).and_then(|known| known.tags.get(tag));
        numbers.into_iter().flatten().copied()
    }

    /// The repositories that a spelling means; more than one if hosts are left out.
    fn meant(&self, name: &str) -> Vec<&Arc<Repository>> {
        if let Some((known, _)) = name.parse().ok().and_then(|r: Repository| self.repositories.get_key_value(&r)) {
            return vec![known];
        }
        self.spellings.get(name).into_iter().flatten().collect()
    }

    /// The repository that `name` means if the client names the registry, as containerd does for a mirror (`?ns=`). `name` may
    /// start with that registry.
    fn of_registry(&self, name: &str, registry: &str) -> Option<&Arc<Repository>> {
        let registry = canonical(registry);
        let host = host_component(registry);
        // Compared by registry, not parsed as a name: `org` and `app` must not become docker.io's `org/app`.
        let known = |path: &str, same: &dyn Fn(&str) -> bool| {
            let mut all = self.spellings.get(path).into_iter().flatten();
            all.find(|known| known.path() == path && same(known.registry()))
        };
        let exact = |path: &str| known(path, &|own| own == registry);
        let spelled = |path: &str| known(path, &|own| host_component(own) == host);
        let paths = [Some(name), below(name, registry)];
        paths.into_iter().flatten().find_map(|path| exact(path).or_else(|| spelled(path)))
    }

    fn named(&self, name: &str, registry: Option<&str>) -> Vec<&Arc<Repository>> {
        match registry {
            Some(registry) => self.of_registry(name, registry).into_iter().collect(),
            None => self.meant(name),
        }
    }

    /// Whether there is a repository with this spelling, of `registry` if given.
    #[cfg(test)]
    pub fn has(&self, name: &str, registry: Option<&str>) -> bool {
        !self.named(name, registry).is_empty()
    }

    /// What a tag refers to under a spelling of a repository, only of `registry` if given. Nothing, if the registries with
    /// this path have different manifests under the tag.
    pub fn digest(&self, name: &str, registry: Option<&str>, tag: &Tag) -> Option<Digest> {
        let meant = self.named(name, registry);
        let digests = meant.into_iter().filter_map(|repository| self.digest_in(repository, tag));
        agreed(digests)
    }

    /// What a tag of a repository refers to.
    pub fn digest_in(&self, repository: &Repository, tag: &Tag) -> Option<Digest> {
        let first = self.numbers(repository, tag).next()?;
        self.entries.get(first).map(|entry| entry.digest)
    }

    /// Whether a listed manifest belongs to this repository: it is listed there, or belongs to every repository.
    pub fn lists(&self, name: &str, registry: Option<&str>, digest: &Digest) -> bool {
        let here = |own: Option<&Arc<Repository>>| self.entries.of(*digest, own).next().is_some();
        here(None) || self.named(name, registry).into_iter().any(|own| here(Some(own)))
    }

    /// At most `most` tags after `last`, in order, that [refer to something](LayoutIndex::digest) under a spelling of a
    /// repository; `None` if there is no such repository.
    pub fn tags(&self, name: &str, registry: Option<&str>, last: &str, most: usize) -> Option<Vec<Tag>> {
        let meant = self.named(name, registry);
        if meant.is_empty() {
            return None;
        }
        let from = last.parse::<Tag>().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = |repository: &&Arc<Repository>| {
            let tags = self.repositories.get(*repository).map(|known| &known.tags);
            tags.map(|tags| tags.range::<Tag, _>((from.as_ref(), Bound::Unbounded)).map(|(tag, _)| tag).peekable())
        };
        let mut lists: Vec<_> = meant.iter().filter_map(behind).collect();
        let mut tags = Vec::new();
        while tags.len() < most {
            let Some(next) = lists.iter_mut().filter_map(|list| list.peek().copied()).min().cloned() else { break };
            for list in &mut lists {
                list.next_if(|tag| **tag == next);
            }
            let digests = meant.iter().filter_map(|repository| self.digest_in(repository, &next));
            if next.as_str() > last && agreed(digests).is_some() {
                tags.push(next);
            }
        }
        Some(tags)
    }

    /// Every repository once, under the shortest unambiguous spelling.
    pub fn repositories(&self) -> BTreeSet<String> {
        let shortest = |repository: &Arc<Repository>| {
            let path = repository.path();
            if self.meant(path) == [repository] { path.to_owned() } else { scoped(repository) }
        };
        self.repositories.keys().map(shortest).collect()
    }

    /// The repository under which a push is recorded: the one its spelling means, otherwise as Docker reads it, and under the
    /// registry that the client names, if any.
    pub fn recorded(&self, name: &str, registry: Option<&str>) -> Option<Repository> {
        if let ([only], _) | ([only, ..], Some(_)) = (self.named(name, registry).as_slice(), registry) {
            return Some((***only).clone());
        }
        let Some(registry) = registry.map(canonical) else { return name.parse().ok() };
        let path = below(name, registry).unwrap_or(name);
        match registry {
            "docker.io" => format!("{registry}/{path}").parse().ok(),
            _ => Repository::new(registry, path).ok(),
        }
    }

    /// Whether anything is listed in this repository.
    pub fn knows(&self, repository: &Repository) -> bool {
        self.repositories.contains_key(repository)
    }

    /// Whether the manifest was deleted in this repository, is kept for another, and was not pushed again.
    pub fn is_deleted(&self, repository: &Repository, digest: &Digest) -> bool {
        !self.deleted.is_empty() && self.deleted.contains(&(*digest, repository.clone()))
    }

    /// Number of such deletions.
    pub fn count_deleted(&self) -> usize {
        self.deleted.len()
    }

    /// Whether the index lists a digest in any repository.
    pub fn is_listed(&self, digest: &Digest) -> bool {
        self.entries.of_digest(digest).is_some()
    }

    /// What a listed manifest refers to, according to its annotations and tags; empty if they do not say.
    pub fn subjects(&self, digest: &Digest) -> Vec<Digest> {
        let tagged = |entry: &IndexEntry| entry.tag.as_ref().and_then(Tag::companion_subject);
        self.entries.all_of(digest).filter_map(|entry| index::subject(entry).or_else(|| tagged(entry))).collect()
    }

    /// The digests of the index; one may occur several times.
    pub fn listed(&self) -> impl Iterator<Item = Digest> {
        self.entries.iter().map(|(_, entry)| entry.digest)
    }

    /// What other repositories have after `digest` was [deleted](Change::Delete) from this one. An entry without a repository
    /// belongs to all of them.
    pub fn listed_without(&self, repository: &Repository, digest: &Digest) -> impl Iterator<Item = Digest> {
        let stays = move |entry: &IndexEntry| match entry.repository.as_deref() {
            Some(own) => own != repository,
            None => entry.digest != *digest,
        };
        self.entries.iter().filter(move |(_, entry)| stays(entry)).map(|(_, entry)| entry.digest)
    }

    /// The media type of a digest in the index, if listed.
    pub fn media_type(&self, digest: &Digest) -> Option<MediaType> {
        self.entries.of_digest(digest).and_then(index::view).map(|view| view.media_type.clone())
    }

    /// Number of entries examined so far.
    #[cfg(test)]
    pub fn visits(&self) -> u64 {
        self.entries.visits.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// The digest, if all are equal.
fn agreed(mut digests: impl Iterator<Item = Digest>) -> Option<Digest> {
    let first = digests.next()?;
    digests.all(|digest| digest == first).then_some(first)
}

fn canonical(registry: &str) -> &str {
    if HUB_ALIASES.contains(&registry) { "docker.io" } else { registry }
}

/// The path of a name that starts with its registry, in either spelling.
fn below<'a>(name: &'a str, registry: &str) -> Option<&'a str> {
    let below = |host: &str| name.strip_prefix(host).and_then(|rest| rest.strip_prefix('/'));
    below(registry).or_else(|| below(&host_component(registry)))
}

fn scoped(repository: &Repository) -> String {
    format!("{}/{}", host_component(repository.registry()), repository.path())
}

fn spellings(repository: &Repository) -> [String; 3] {
    [repository.to_string(), scoped(repository), repository.path().to_owned()]
}
