//! Checks whether the images of a storage are complete. Every manifest below them is read once, and every blob examined once,
//! however many images share it. Each problem lists the images that it affects.
//!
//! # Threats
//! Only a manifest's children are kept. Indexes may be nested in any way; each manifest is visited once.

mod attached;
mod costs;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::contents::Layers;
use super::nodes::{Node, parts_of};
use super::problem::{At, StorageProblem, StorageProblemKind};
use super::survey::{Holding, Survey, Tagged};
use super::{Storage, data_path};
use crate::base::progress::{Event, Events, Phase};
use crate::content::proof::{Unproven, prove};
use crate::content::{Manifests, in_parallel};
use crate::oci::{Digest, Manifest, Repository};
pub use attached::AttachedDescriptors;
use attached::Speaking;

/// How thoroughly blobs are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditDepth {
    Size,
    /// Every byte is read.
    Digest,
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditScope {
    /// Tagged images.
    Tagged,
    /// All manifests, with or without a tag.
    Manifests,
    /// All manifests and all blobs, and that nothing else exists.
    Everything,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Audit {
    /// Including those of the survey; sorted by path.
    pub problems: Vec<StorageProblem>,
    /// Whether each tag of the survey is complete.
    pub whole: Vec<bool>,
    /// Manifests that neither have a tag nor belong to a tagged image, if they were checked, and whether they are complete.
    pub untagged: Vec<(Tagged, bool)>,
    /// The manifests of images that were read; empty if everything is checked, which may be far more.
    pub manifests: Manifests,
    /// The number of manifests in a repository that no tag of the survey leads to, and that are not attached to what one leads
    /// to, if requested. Repositories without any are not listed.
    pub unreached: HashMap<Repository, usize>,
    /// What is attached to images.
    pub attached: AttachedDescriptors,
    /// The number of images that would be complete without what is attached to them.
    pub lost_by_attached: usize,
    /// Number of distinct blobs that were checked, and their size in bytes.
    pub blobs: usize,
    pub bytes: u64,
}

/// Blobs by what their manifests state about them.
type Claims = HashMap<Digest, Claim>;

struct Claim {
    sizes: Vec<u64>,
    /// A repository that has it, by its index in the survey.
    home: usize,
}

struct Auditor<'a> {
    pub storage: &'a Storage,
    pub repositories: &'a [Holding],
    problems: Vec<StorageProblem>,
    known: HashMap<(String, StorageProblemKind, String), At>,
    /// The survey's problems by path.
    pub surveyed: HashMap<&'a str, At>,
    pub nodes: HashMap<Digest, Node>,
    pub manifests: Option<HashMap<Digest, Manifest>>,
    /// Manifests that were read before it was known whether they are needed.
    pub early: HashMap<Digest, Manifest>,
    pub speaking: Speaking,
    pub blobs: HashMap<(Digest, u64), At>,
    /// Bad links of blobs, by which a registry would not find them, by repository.
    pub links: HashMap<(usize, Digest), At>,
    /// For each repository, if everything is checked.
    pub layers: Vec<Layers>,
    /// What was reached from an image, by repository.
    pub reached: HashSet<(usize, Digest)>,
    /// What was reached from attached manifests.
    pub carried: HashSet<(usize, Digest)>,
}

impl Storage {
    /// Checks everything in `scope`. With `beside` it also checks what is attached to images, and counts its problems as
    /// theirs: manifests that name them as their subject, and those tags, which are not in the survey, that cosign has
    /// attached to them.
    pub fn audit(
        &self,
        survey: &Survey,
        scope: AuditScope,
        depth: AuditDepth,
        beside: Option<&[Tagged]>,
        events: &Events,
    ) -> Audit {
        let mut auditor = Auditor {
            storage: self,
            repositories: &survey.repositories,
            problems: survey.problems.clone(),
            known: HashMap::new(),
            surveyed: survey.problems.iter().enumerate().map(|(at, problem)| (problem.path.as_str(), at)).collect(),
            nodes: HashMap::new(),
            early: HashMap::new(),
            speaking: Speaking::new(),
            manifests: (scope != AuditScope::Everything).then(HashMap::new),
            blobs: HashMap::new(),
            links: HashMap::new(),
            layers: Vec::new(),
            reached: HashSet::new(),
            carried: HashSet::new(),
        };
        let places: HashMap<&Repository, usize> =
            survey.repositories.iter().enumerate().map(|(at, holding)| (&holding.repository, at)).collect();
        let place = |repository| places.get(repository).copied();
        let tagged = survey.tags.iter().filter_map(|tagged| Some((place(&tagged.repository)?, tagged.digest)));
        let untagged = survey.repositories.iter().enumerate().flat_map(|(at, holding)| {
            let all = if scope != AuditScope::Tagged { &holding.revisions[..] } else { &[] };
            all.iter().map(move |digest| (at, *digest))
        });
        let roots: Vec<(usize, Digest)> = tagged.chain(untagged).collect();
        let mut claims = Claims::new();
        auditor.read_manifests(roots.iter().copied(), &mut claims);
        if let Some(beside) = beside {
            let beside = beside.iter().filter_map(|found| Some((place(&found.repository)?, found)));
            let tagged = survey.tags.iter().filter(|image| image.tag.is_some());
            let tagged = tagged.filter_map(|image| Some((place(&image.repository)?, image.digest)));
            auditor.attach(tagged.collect(), &roots, &beside.collect::<Vec<_>>(), &mut claims);
        }
        let (blobs, bytes) = auditor.look_at_blobs(&claims, scope, depth, events);
        let mut audit = Audit { blobs, bytes, ..Audit::default() };
        audit.whole = survey.tags.iter().map(|image| auditor.check_image(place(&image.repository), image)).collect();
        let lost = survey.tags.iter().zip(&audit.whole).filter(|(_, whole)| !**whole).map(|(image, _)| image);
        let lost = lost.filter_map(|image| Some((place(&image.repository)?, image.digest)));
        audit.lost_by_attached = lost.filter(|(at, digest)| auditor.costs(*at, *digest, false).is_empty()).count();
        if scope != AuditScope::Tagged {
            for other in &survey.others {
                auditor.check_image(place(&other.repository), other);
            }
        }
        for (at, _) in auditor.unreached().filter(|place| !auditor.carried.contains(place)) {
            *audit.unreached.entry(survey.repositories[at].repository.clone()).or_default() += 1;
        }
        audit.attached = auditor.attached();
        if scope != AuditScope::Tagged {
            audit.untagged = auditor.untagged();
        }
        audit.problems = auditor.problems;
        audit.manifests = auditor.manifests.unwrap_or_default().into();
        audit.problems.iter_mut().for_each(|problem| problem.images.sort_unstable());
        audit
            .problems
            .sort_by(|one, other| (&one.path, one.kind, &one.what).cmp(&(&other.path, other.kind, &other.what)));
        audit
    }
}

impl Auditor<'_> {
    /// Reads every manifest at and below `roots` that was not read yet; the blobs they need join `claims`.
    pub(super) fn read_manifests(&mut self, roots: impl Iterator<Item = (usize, Digest)>, claims: &mut Claims) {
        let mut seen = HashSet::new();
        // What no repository has does not exist, or is left from a deletion.
        let has = |(at, digest): &(usize, Digest)| self.repositories[*at].has(digest);
        let mut level: Vec<(usize, Digest)> = roots.filter(has).filter(|place| seen.insert(*place)).collect();
        while !level.is_empty() {
            let mut begun = HashSet::new();
            let is_new = |(_, digest): &&(usize, Digest)| !self.nodes.contains_key(digest) && begun.insert(*digest);
            let unread: Vec<(usize, Digest)> = level.iter().filter(is_new).copied().collect();
            self.read_each(&unread, claims);
            // Repositories that share an index need not have the same children.
            let mut next = Vec::new();
            for (home, digest) in level {
                let parts = self.nodes.get(&digest).map(Node::parts).unwrap_or_default();
                let children = parts.iter().filter(|part| part.is_manifest).map(|part| (home, part.digest));
                let had = |(at, digest): &(usize, Digest)| self.repositories[*at].has(digest);
                next.extend(children.filter(had).filter(|place| seen.insert(*place)));
            }
            level = next;
        }
    }

    /// Reads manifests, each once, and adds the blobs they need to `claims`.
    fn read_each(&mut self, unread: &[(usize, Digest)], claims: &mut Claims) {
        let read = in_parallel(unread, |(_, digest)| {
            let read = self.early.get(digest).cloned().map_or_else(|| self.storage.stored_manifest(digest), Ok);
            read.map(|manifest| (parts_of(&manifest), manifest))
        });
        for ((home, digest), read) in unread.iter().zip(read) {
            let node = match read {
                Ok((parts, manifest)) => {
                    let size = manifest.size();
                    self.manifests.as_mut().map(|manifests| manifests.insert(*digest, manifest));
                    Node::Whole { parts, size }
                }
                Err(problem) => Node::Broken(self.note(problem)),
            };
            for part in node.parts().iter().filter(|part| !part.is_manifest) {
                let claim = claims.entry(part.digest).or_insert(Claim { sizes: Vec::new(), home: *home });
                if !claim.sizes.contains(&part.size) {
                    claim.sizes.push(part.size);
                }
            }
            self.nodes.insert(*digest, node);
        }
    }

    /// Checks every blob of `claims`, and in the whole scope all others too. Returns their number and size in bytes.
    fn look_at_blobs(
        &mut self,
        claims: &Claims,
        scope: AuditScope,
        depth: AuditDepth,
        events: &Events,
    ) -> (usize, u64) {
        let mut wanted: Vec<(Digest, u64)> =
            claims.iter().map(|(digest, claim)| (*digest, claim.sizes.first().copied().unwrap_or_default())).collect();
        if scope == AuditScope::Everything {
            self.look_at_links();
            let others = self.storage.stored(&mut self.problems);
            let is_other = |digest: &Digest| !self.nodes.contains_key(digest) && !claims.contains_key(digest);
            wanted.extend(others.into_iter().filter(is_other).map(|digest| (digest, 0)));
        }
        // The largest come first: one at the end would keep all other cores waiting.
        wanted.sort_unstable_by_key(|(digest, size)| (std::cmp::Reverse(*size), *digest));
        let bytes = wanted.iter().map(|(_, size)| *size).fold(0, u64::saturating_add);
        if depth == AuditDepth::Digest {
            events.report(Event::Phase { phase: Phase::Verify, items: wanted.len() as u64, bytes });
        }
        let looked = in_parallel(&wanted, |(digest, _)| {
            let claim = claims.get(digest);
            let looked = self.look_at(digest, claim, depth, events);
            if depth == AuditDepth::Digest {
                events.report(Event::ItemDone);
            }
            looked
        });
        let mut total = 0_u64;
        for ((digest, _), looked) in wanted.iter().zip(looked) {
            let sizes = claims.get(digest).map(|claim| &claim.sizes[..]).unwrap_or_default();
            match looked {
                Ok(found) => {
                    total = total.saturating_add(found);
                    for size in sizes.iter().filter(|size| **size != found) {
                        let what = format!("{found} bytes instead of {size}");
                        let at = self.note(StorageProblem::new(data_path(digest), StorageProblemKind::WrongSize, what));
                        self.blobs.insert((*digest, *size), at);
                    }
                }
                Err(problem) => {
                    let at = self.note(problem);
                    self.blobs.extend(sizes.iter().map(|size| ((*digest, *size), at)));
                }
            }
        }
        (wanted.len(), total)
    }

    fn look_at_links(&mut self) {
        let found = in_parallel(self.repositories, |holding| self.storage.layers(holding));
        for (at, mut found) in found.into_iter().enumerate() {
            for (blob, problem) in std::mem::take(&mut found.odd) {
                let problem = self.note(problem);
                self.links.extend(blob.map(|blob| ((at, blob), problem)));
            }
            self.layers.push(found);
        }
    }

    /// Returns its size in bytes.
    fn look_at(
        &self,
        digest: &Digest,
        claim: Option<&Claim>,
        depth: AuditDepth,
        events: &Events,
    ) -> Result<u64, StorageProblem> {
        let slice = match claim.map(|claim| self.repositories[claim.home].repository.path()) {
            Some(repository) if depth == AuditDepth::Size => return self.storage.look_at_blob(repository, digest),
            Some(repository) => self.storage.blob_file(repository, digest)?,
            None => self.storage.data(digest)?,
        };
        // A wrong size is conclusive; unclaimed blobs can be checked only by digest.
        let fits = claim.is_none_or(|claim| claim.sizes.contains(&slice.size()));
        if depth == AuditDepth::Size || !fits {
            return Ok(slice.size());
        }
        let id = *digest;
        events.report(Event::BlobStarted { digest: id, size: slice.size(), present: 0 });
        let proven = prove(&slice, digest, &|bytes| events.report(Event::BlobAdvanced { digest: id, bytes }));
        events.report(Event::BlobFinished { digest: id });
        proven.map(|()| slice.size()).map_err(|unproven| {
            let kind = match &unproven {
                Unproven::Wrong(_) => StorageProblemKind::WrongDigest,
                Unproven::Unreadable(_) => StorageProblemKind::Unreadable,
            };
            StorageProblem::new(data_path(digest), kind, unproven.to_string())
        })
    }

    fn unreached(&self) -> impl Iterator<Item = (usize, Digest)> {
        let holdings = self.repositories.iter().enumerate();
        let all = holdings.flat_map(|(at, holding)| holding.revisions.iter().map(move |digest| (at, *digest)));
        all.filter(|place| !self.reached.contains(place))
    }

    /// Manifests that no tag leads to, and whether they are complete.
    fn untagged(&mut self) -> Vec<(Tagged, bool)> {
        let repositories = self.repositories;
        let mut left: Vec<(usize, Digest)> = self.unreached().collect();
        // What an untagged index points to belongs to it.
        let of_indexes: HashSet<Digest> = left
            .iter()
            .filter_map(|(_, digest)| self.nodes.get(digest))
            .flat_map(|node| node.parts().iter().filter(|part| part.is_manifest).map(|part| part.digest))
            .collect();
        left.retain(|(_, digest)| !of_indexes.contains(digest));
        let looked = left.into_iter().map(|(at, digest)| {
            let untagged = Tagged { repository: repositories[at].repository.clone(), tag: None, digest };
            let is_whole = self.check_image(Some(at), &untagged);
            (untagged, is_whole)
        });
        looked.collect()
    }

    /// Whether the image in that repository is complete. It is added to each problem that it meets.
    fn check_image(&mut self, at: Option<usize>, image: &Tagged) -> bool {
        let costs = at.map(|at| self.costs(at, image.digest, true)).unwrap_or_default();
        if costs.is_empty() {
            return true;
        }
        let name: Arc<str> = Arc::from(image.name());
        costs.iter().for_each(|at| self.problems[*at].images.push(name.clone()));
        false
    }

    /// Records each problem once.
    pub(super) fn note(&mut self, problem: StorageProblem) -> At {
        let next = self.problems.len();
        let at = *self.known.entry((problem.path.clone(), problem.kind, problem.what.clone())).or_insert(next);
        if at == next {
            self.problems.push(problem);
        }
        at
    }
}
