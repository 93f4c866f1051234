//! Changes of names, which are also the records of the journal.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bundle::SUBJECT;
use crate::files::{IMAGE_NAME, REF_NAME};
use crate::oci::{Descriptor, Digest, Repository, Tag};

use super::entries::IndexEntry;
use super::{LayoutIndex, REPOSITORY, index};

/// A change describes the result, not the difference. All changes of a journal can therefore be made again in order, on top of
/// any of them, with the same outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum Change {
    /// The tag refers to this manifest. The one that had the tag before stays, by its digest.
    Tag {
        repository: Repository,
        tag: Tag,
        manifest: Descriptor,
        /// Its children that were listed by digest, and no longer are.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unlisted: Vec<Digest>,
    },
    /// The manifest is listed by its digest.
    List {
        repository: Repository,
        manifest: Descriptor,
        /// What it refers to. It then has no name in the index, because programs that load layouts would treat it as an image.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<Digest>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unlisted: Vec<Digest>,
    },
    /// The tag is removed; its manifest stays, by its digest.
    Untag { repository: Repository, tag: Tag },
    /// The manifest is removed from this repository, with all its tags.
    Delete {
        repository: Repository,
        digest: Digest,
        /// Whether another repository needs it, so that its content stays, and its absence in this one must be remembered.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        kept: bool,
    },
}

impl LayoutIndex {
    /// Makes a change. The time it takes does not depend on the number of names.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Tag { repository, tag, manifest, unlisted } => {
                self.deleted.remove(&(manifest.digest, repository.clone()));
                self.untag(repository, tag);
                self.remove_untagged(repository, &manifest.digest);
                self.add_named(repository, Some(tag), manifest);
                self.unlist(repository, unlisted);
            }
            Change::List { repository, manifest, subject, unlisted } => {
                self.deleted.remove(&(manifest.digest, repository.clone()));
                self.list(repository, manifest, subject.as_ref());
                self.unlist(repository, unlisted);
            }
            Change::Untag { repository, tag } => self.untag(repository, tag),
            Change::Delete { repository, digest, kept } => {
                let known = self.known(repository);
                let here = known.iter().flat_map(|own| self.entries.of(*digest, Some(own)));
                let all: Vec<u64> = here.chain(self.entries.of(*digest, None)).collect();
                self.remove_all(all);
                match kept {
                    true => drop(self.deleted.insert((*digest, repository.clone()))),
                    // Without its content it is unknown everywhere.
                    false => self.deleted.retain(|(deleted, _)| deleted != digest),
                }
            }
        }
    }

    /// Which of these digests the repository lists only by digest, and not as referrers.
    pub fn listed_untagged(&self, repository: &Repository, digests: Vec<Digest>) -> Vec<Digest> {
        let listed = |digest: &Digest| !self.untagged_by_name(repository, *digest).is_empty();
        digests.into_iter().filter(listed).collect()
    }

    /// Whether the manifest is listed in this repository, or belongs to every repository.
    pub fn lists_in(&self, repository: &Repository, digest: &Digest) -> bool {
        let known = self.known(repository);
        known.is_some_and(|known| self.entries.of(*digest, Some(&known)).next().is_some())
            || self.entries.of(*digest, None).next().is_some()
    }

    fn list(&mut self, repository: &Repository, manifest: &Descriptor, subject: Option<&Digest>) {
        let known = self.known(repository);
        let has_one = known.is_some_and(|known| self.entries.of(manifest.digest, Some(&known)).next().is_some());
        if has_one {
            return;
        }
        let Some(subject) = subject else { return self.add_named(repository, None, manifest) };
        let annotations = [(SUBJECT, subject.to_string()), (REPOSITORY, repository.to_string())];
        let raw = index::raw(manifest, &annotations);
        let repository = Some(Arc::new(repository.clone()));
        self.add(IndexEntry { digest: manifest.digest, raw, repository, tag: None, named: false });
    }

    fn untag(&mut self, repository: &Repository, tag: &Tag) {
        let numbers: Vec<u64> = self.numbers(repository, tag).collect();
        let old = numbers.first().and_then(|number| self.entries.get(*number)).and_then(index::view);
        // Listed first, so that the repository does not vanish in between.
        if let Some(old) = &old {
            self.add_named(repository, None, old);
        }
        self.remove_all(numbers);
        if let Some(old) = old {
            self.drop_surplus(repository, &old.digest);
        }
    }

    /// Removes an entry without a tag if the digest has another entry in the repository.
    fn drop_surplus(&mut self, repository: &Repository, digest: &Digest) {
        let Some(known) = self.known(repository) else { return };
        let surplus = self.entries.of(*digest, Some(&known)).nth(1).is_some();
        if let Some(last) = self.entries.untagged(*digest, Some(&known)).last().filter(|_| surplus) {
            self.remove(last);
        }
    }

    /// Referrers stay: being part of an index does not make them less of a referrer.
    fn unlist(&mut self, repository: &Repository, digests: &[Digest]) {
        for digest in digests {
            self.remove_all(self.untagged_by_name(repository, *digest));
        }
    }

    fn untagged_by_name(&self, repository: &Repository, digest: Digest) -> Vec<u64> {
        let known = self.known(repository);
        let untagged = known.iter().flat_map(|known| self.entries.untagged(digest, Some(known)));
        untagged.filter(|number| self.entries.get(*number).is_some_and(|entry| entry.named)).collect()
    }

    fn remove_untagged(&mut self, repository: &Repository, digest: &Digest) {
        let known = self.known(repository);
        let untagged = known.iter().flat_map(|known| self.entries.untagged(*digest, Some(known)));
        self.remove_all(untagged.collect());
    }

    fn add_named(&mut self, repository: &Repository, tag: Option<&Tag>, manifest: &Descriptor) {
        let name = match tag {
            Some(tag) => repository.with_tag(tag.clone()),
            None => repository.with_digest(manifest.digest),
        };
        let raw = index::raw(manifest, &[(REF_NAME, name.to_string()), (IMAGE_NAME, name.to_string())]);
        let (repository, tag) = (Some(Arc::new(repository.clone())), tag.cloned());
        self.add(IndexEntry { digest: manifest.digest, raw, repository, tag, named: true });
    }
}
