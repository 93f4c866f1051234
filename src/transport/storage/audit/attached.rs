//! Finds what is attached to images: signatures, SBOMs and other manifests that name them as their subject, and tags that
//! cosign sets for them. Only what no tag of the survey leads to: everything else is carried under its own tag.
//!
//! # Threats
//! Anyone who may push can claim that a manifest refers to another. Each manifest is read once, however many claim it, and
//! followed once, however long the chain.

use std::collections::{HashMap, HashSet};

use super::{Auditor, Claims};
use crate::content::in_parallel;
use crate::oci::{Descriptor, Digest, Manifest, Repository, Tag};
use crate::transport::storage::problem::StorageProblemKind;
use crate::transport::storage::survey::{Holding, Tagged};

/// Manifests that refer to another one in their repository.
#[derive(Debug, Default)]
pub struct AttachedDescriptors(HashMap<Repository, HashMap<Digest, Vec<Descriptor>>>);

impl AttachedDescriptors {
    /// What names `subject`, if no tag of the survey leads to it.
    pub fn to(&self, repository: &Repository, subject: &Digest) -> &[Descriptor] {
        self.0.get(repository).and_then(|speaking| speaking.get(subject)).map(Vec::as_slice).unwrap_or_default()
    }
}

/// What refers to a manifest of a repository, by its index in the survey.
pub(super) type Speaking = HashMap<(usize, Digest), Vec<Speaker>>;

pub(super) struct Speaker {
    pub digest: Digest,
    /// By its subject, not by a tag.
    is_referrer: bool,
}

impl Auditor<'_> {
    /// Finds what is attached to everything below `roots`, if no tag of the survey leads to it, and reads all of it. Its blobs
    /// join `claims`. `tagged` is what tags of the survey refer to; `beside` are other tags, which may be cosign's.
    pub(super) fn attach(
        &mut self,
        tagged: Vec<(usize, Digest)>,
        roots: &[(usize, Digest)],
        beside: &[(usize, &Tagged)],
        claims: &mut Claims,
    ) {
        let mut tags_lead_to = HashSet::new();
        self.follow(tagged, &mut tags_lead_to);
        let mut speaking = self.referrers(roots, &tags_lead_to);
        for (at, found) in beside {
            if let Some(subject) = found.tag.as_ref().and_then(Tag::cosign_subject) {
                speaking.entry((*at, subject)).or_default().push(Speaker { digest: found.digest, is_referrer: false });
            }
        }
        let mut seen = HashSet::new();
        let mut ahead = if speaking.is_empty() { Vec::new() } else { self.follow(roots.to_vec(), &mut seen) };
        while !ahead.is_empty() {
            let speakers = |place: &(usize, Digest)| speaking.get(place).map(Vec::as_slice).unwrap_or_default();
            let found = ahead.iter().flat_map(|place| speakers(place).iter().map(|speaker| (place.0, speaker.digest)));
            let found: Vec<(usize, Digest)> = found.collect();
            self.read_manifests(found.iter().copied(), claims);
            ahead = self.follow(found, &mut seen);
        }
        self.speaking = speaking;
    }

    /// By their subjects. Unreadable ones are problems, because their subjects are unknown.
    fn referrers(&mut self, roots: &[(usize, Digest)], tags_lead_to: &HashSet<(usize, Digest)>) -> Speaking {
        let places: HashSet<usize> = roots.iter().map(|(at, _)| *at).collect();
        let holdings = self.repositories.iter().enumerate().filter(|(at, _)| places.contains(at));
        let all = holdings.flat_map(|(at, holding)| holding.revisions.iter().map(move |digest| (at, *digest)));
        let others: Vec<(usize, Digest)> = all.filter(|place| !tags_lead_to.contains(place)).collect();
        let mut unread: Vec<Digest> = others.iter().map(|(_, digest)| *digest).collect();
        unread.sort_unstable();
        unread.dedup();
        unread.retain(|digest| !self.nodes.contains_key(digest));
        let read = in_parallel(&unread, |digest| self.storage.stored_manifest(digest));
        for (digest, read) in unread.into_iter().zip(read) {
            match read {
                Ok(manifest) if manifest.subject().is_some() => drop(self.early.insert(digest, manifest)),
                Ok(_) => {}
                // These refer to nothing.
                Err(problem)
                    if matches!(problem.kind, StorageProblemKind::Schema1 | StorageProblemKind::NotAManifest) => {}
                Err(problem) => drop(self.note(problem)),
            }
        }
        let mut speaking = Speaking::new();
        for (at, digest) in others {
            let known = || self.manifests.as_ref()?.get(&digest);
            if let Some(subject) = self.early.get(&digest).or_else(known).and_then(Manifest::subject) {
                let speaker = Speaker { digest, is_referrer: true };
                speaking.entry((at, subject.digest)).or_default().push(speaker);
            }
        }
        speaking
    }

    /// `roots` and everything below them that was not seen before.
    fn follow(&self, roots: Vec<(usize, Digest)>, seen: &mut HashSet<(usize, Digest)>) -> Vec<(usize, Digest)> {
        let (mut ahead, mut met) = (roots, Vec::new());
        while let Some((at, digest)) = ahead.pop() {
            if !self.repositories[at].has(&digest) || !seen.insert((at, digest)) {
                continue;
            }
            met.push((at, digest));
            let parts = self.nodes.get(&digest).map(|node| node.parts()).unwrap_or_default();
            ahead.extend(parts.iter().filter(|part| part.is_manifest).map(|part| (at, part.digest)));
        }
        met
    }

    /// What was found, by repository.
    pub(super) fn attached(&self) -> AttachedDescriptors {
        let mut attached = AttachedDescriptors::default();
        for ((at, subject), speakers) in &self.speaking {
            let known = |speaker: &Speaker| self.manifests.as_ref()?.get(&speaker.digest).map(Manifest::descriptor);
            let referrers = speakers.iter().filter(|speaker| speaker.is_referrer).filter_map(known);
            let Holding { repository, .. } = &self.repositories[*at];
            attached.0.entry(repository.clone()).or_default().entry(*subject).or_default().extend(referrers);
        }
        attached
    }
}
