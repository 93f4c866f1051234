//! Proves a registry over HTTP: everything that was confirmed to be there is read back, and its digests are proven.
//!
//! First the images: what each tag means now, and all manifests below it. That gives the plan, in bytes. Then the
//! blobs.
//!
//! **Once per digest.** Registries keep one copy of a blob, and each repository only a name for it: distribution, and
//! so Harbor, address their storage by digest. A blob is therefore read to its end in one repository; in every other
//! one, the last byte shows that its name leads to content of that length. If the content is wrong, or the caller says
//! that repositories have their own copies, it is read in each.
//!
//! **Threats.** Neither side is trusted. A list of claims comes from a receipt, which may say anything: only names
//! below one registry are requested. Manifests are proven by their digests before anything in them counts, and so are
//! blobs.

mod blobs;
mod images;
mod state;

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::base::progress::Events;
use crate::content::Source;
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
pub use state::ProveState;

/// Maximum number of problems that are listed for one image.
const MOST_PROBLEMS: usize = 20;

/// One image that should exist.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The tag or digest that it should have. The tag of a list may mean more by now: the current list is then read.
    pub reference: Reference,
    pub digest: Digest,
    /// Manifests that belong to it and that it does not name: signatures and the like. A tag means a list that others
    /// may have added to, so whatever the tag means now is read.
    pub companions: Vec<(Option<Reference>, Digest)>,
}

/// Which content below the images must exist, and where more of it may be looked for.
#[derive(Clone, Debug, Default)]
pub struct Confirmed {
    /// Blobs and manifests. Anything else that a manifest names was never pushed, such as a foreign layer or another
    /// platform.
    pub digests: HashSet<Digest>,
    /// Manifests that may belong to an image, by their subject.
    pub referrers: Vec<Manifest>,
    /// Manifests as they were pushed, including lists of signatures and referrers. If others have added to a list, its
    /// tag means a list that contains all of ours, with another config.
    pub lists: HashMap<Digest, Manifest>,
    /// Whether to look for companions that no claim names: by subject, and by cosign's tags.
    pub find_companions: bool,
}

/// How to read.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Number of questions, then of blobs, at a time.
    pub jobs: usize,
    /// Whether repositories have their own copies: each blob is then read in each of them.
    pub every_repository: bool,
}

/// The result for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every byte of it was read and is right.
    Proven,
    /// Its tag means another image now.
    Moved,
    /// Its tag or manifest does not exist.
    Missing,
    /// A part of it is wrong or missing.
    Damaged,
    /// A part of it could not be read, so it is unknown.
    Unread,
}

/// A problem with an image, or something that could not be found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageProblem {
    /// What is wrong, for programs.
    pub code: Verdict,
    /// What is wrong, for people.
    pub found: String,
    /// The repository that was read.
    pub path: String,
    /// The image that the problem affects.
    pub images: [Reference; 1],
}

/// An image, and what is known about it.
#[derive(Clone, Debug, Serialize)]
pub struct ImageProof {
    pub reference: Reference,
    pub digest: Digest,
    /// The result.
    pub verdict: Verdict,
    /// What its tag means instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Digest>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ImageProblem>,
    /// Why a policy forbids pulling a part of it, in the registry's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How many of the problems are due to that policy.
    #[serde(skip)]
    withheld: usize,
    /// Blobs that it needs, as indexes into the plan.
    #[serde(skip)]
    blobs: Vec<usize>,
}

/// A blob, and where it should be.
#[derive(Clone, Debug)]
pub struct BlobClaim {
    pub blob: Descriptor,
    /// Without repetition, in the order of the images.
    pub places: Vec<Repository>,
}

/// The images as far as their manifests show, and the blobs that will be read.
#[derive(Clone, Debug, Default)]
pub struct ProofPlan {
    pub images: Vec<ImageProof>,
    pub blobs: Vec<BlobClaim>,
    /// Number of confirmed digests that no image refers to now.
    pub unplaced: usize,
}

/// A proof under way.
pub struct ImageProver<'a> {
    pub target: &'a dyn Source,
    pub options: Options,
    pub events: Events,
}

/// A problem with one object at one place.
#[derive(Clone, Debug)]
struct Problem {
    place: Repository,
    verdict: Verdict,
    text: String,
}

/// How much of a target has to be read, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToRead {
    pub ahead: u64,
    /// Read by an earlier run.
    pub before: u64,
}

impl ProofPlan {
    /// Returns how much has to be read, according to `state`.
    pub fn bytes(&self, state: &ProveState, options: Options) -> ToRead {
        let (mut ahead, mut before) = (0_u64, 0_u64);
        for claim in &self.blobs {
            let places =
                if options.every_repository { &claim.places[..] } else { claim.places.get(..1).unwrap_or_default() };
            for place in places {
                let is_done = state.is_proven(&claim.blob.digest, options.every_repository.then_some(place));
                let sum = if is_done { &mut before } else { &mut ahead };
                *sum = sum.saturating_add(claim.blob.size);
            }
        }
        ToRead { ahead, before }
    }

    pub fn count(&self, verdict: Verdict) -> usize {
        self.images.iter().filter(|image| image.verdict == verdict).count()
    }

    /// Whether nothing is wrong, and nothing was left out.
    pub fn is_proven(&self) -> bool {
        self.unplaced == 0 && self.images.iter().all(|image| image.verdict == Verdict::Proven)
    }
}

impl ImageProof {
    /// Returns the words of the policy that alone prevents it from being proven.
    pub fn withheld(&self) -> Option<&str> {
        let is_alone = self.verdict == Verdict::Unread && self.problems.len() == self.withheld;
        self.policy.as_deref().filter(|_| is_alone)
    }

    /// Records that a policy forbids pulling a part of it.
    fn note_withheld(&mut self, policy: String, problem: String) {
        let before = self.problems.len();
        self.note(Verdict::Unread, problem);
        self.withheld += self.problems.len() - before;
        self.policy.get_or_insert(policy);
    }

    /// Records a problem. The worst of several is the verdict.
    fn note(&mut self, verdict: Verdict, found: String) {
        let rank = |verdict| match verdict {
            Verdict::Proven => 0,
            Verdict::Unread => 1,
            Verdict::Moved => 2,
            Verdict::Missing => 3,
            Verdict::Damaged => 4,
        };
        if rank(verdict) > rank(self.verdict) {
            self.verdict = verdict;
        }
        let is_known = |problem: &ImageProblem| problem.found == found;
        if self.problems.len() < MOST_PROBLEMS && !self.problems.iter().any(is_known) {
            let (path, images) = (self.reference.repository.path().to_owned(), [self.reference.clone()]);
            self.problems.push(ImageProblem { code: verdict, found, path, images });
        }
    }
}
