//! An increment together with its target: a source that has everything the images need.
//!
//! # Threats
//! Neither side is trusted. What the bundle assumes is a question to the target, not an answer. A manifest from the
//! target is proven by its digest, a blob when it is read. Repositories that the bundle names are asked only if they
//! belong to the target's own registry. A target that has lost much, or is the wrong one, is not asked for everything
//! everywhere.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::base::error::{Error, Kind, Reason, Result};
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::{Assumed, AssumedKind, BundleJson};
use crate::content::{Body, Files, Need, ReferrerList, Sink, Source, TagList};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use crate::pipeline::plan::Targets;

/// After this many objects were looked for in every repository of the target and found in none, the rest counts as
/// missing unless it is where it is needed: something is wrong there, and thousands of objects in thousands of
/// repositories would mean millions of questions.
const MOST_NOWHERE: usize = 20;

/// A repair that was given with the bundle.
pub struct RepairSource<'a> {
    pub source: &'a dyn Source,
    pub holds: HashSet<Digest>,
}

/// See the module documentation. Content that is not assumed comes from the bundle.
pub struct TargetBackedSource<'a> {
    bundle: &'a dyn Source,
    repair: Option<RepairSource<'a>>,
    target: &'a dyn Source,
    assumed: HashMap<Digest, Assumed>,
    /// In the bundle's order.
    list: &'a [Assumed],
    /// Where images of a repository go.
    names: HashMap<Repository, Vec<Repository>>,
    /// Every repository of the target that may have something.
    all: Vec<Repository>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    manifests: HashSet<Digest>,
    /// Where the descendants of a manifest are needed, and so probably are.
    needed: HashMap<Digest, Vec<Repository>>,
    /// What was looked for everywhere.
    nowhere: HashSet<Digest>,
    /// Manifests that exist and can be read nowhere, because a policy of the target forbids it.
    withheld: HashMap<Digest, Withheld>,
    /// A repository of the target that has the blob.
    blobs: HashMap<Digest, Repository>,
}

/// A manifest that the target has and withholds.
struct Withheld {
    /// The refusal of the last repository that was asked.
    why: Error,
    at: HashSet<Repository>,
}

/// Where a blob is read.
struct Place<'a> {
    source: &'a dyn Source,
    repository: Repository,
}

/// The result of asking for everything that is assumed.
#[derive(Debug, Default)]
pub struct AssumedProof {
    /// Where each blob is; it can be mounted from there.
    pub places: HashMap<Digest, Repository>,
    /// What exists nowhere, in the bundle's order.
    pub missing: Vec<Assumed>,
    /// What exists and cannot be read, because a policy of the target forbids pulling it, in the bundle's order.
    pub withheld: Vec<Assumed>,
}

impl<'a> TargetBackedSource<'a> {
    /// `targets` are those of the lock's images. Repositories in `closed` are not asked.
    pub fn new(
        bundle: &'a dyn Source,
        json: &'a BundleJson,
        target: &'a dyn Source,
        targets: &Targets,
        closed: &dyn Fn(&Repository) -> bool,
    ) -> TargetBackedSource<'a> {
        let mut names: HashMap<Repository, Vec<Repository>> = HashMap::new();
        let mut all: BTreeSet<Repository> = BTreeSet::new();
        for (image, to) in json.lock.images.iter().zip(targets).filter(|(_, to)| !closed(&to.repository)) {
            let known = names.entry(image.reference.repository.clone()).or_default();
            if !known.contains(&to.repository) {
                known.push(to.repository.clone());
            }
            all.insert(to.repository.clone());
        }
        let registry = targets.first().map(|to| to.repository.registry());
        let named = json.parents.iter().flat_map(|parent| &parent.repositories);
        all.extend(named.filter(|named| Some(named.registry()) == registry && !closed(named)).cloned());
        let assumed = json.assumed.iter().map(|assumed| (assumed.digest, *assumed)).collect();
        let (list, all) = (&*json.assumed, all.into_iter().collect());
        TargetBackedSource { bundle, repair: None, target, assumed, list, names, all, found: Mutex::default() }
    }

    /// What `repair` contains need not be at the target.
    pub fn with_repair(self, repair: Option<RepairSource<'a>>) -> TargetBackedSource<'a> {
        TargetBackedSource { repair, ..self }
    }

    /// Finds everything that is assumed, at the target or in the repair. Call it after all manifests of the images were
    /// requested, as far as they exist. If much is missing, something that exists may be reported missing, never the
    /// other way round.
    ///
    /// # Errors
    /// A question without a clear answer.
    pub async fn find_all(&self, sink: &dyn Sink, jobs: usize, events: &Events) -> Result<AssumedProof> {
        events.report(Event::Phase { phase: Phase::Inventory, items: self.list.len() as u64, bytes: 0 });
        let missing: Vec<Option<Assumed>> = stream::iter(self.list)
            .map(|assumed| async {
                let there = self.is_in_repair(&assumed.digest)
                    || match assumed.kind {
                        AssumedKind::Manifest => self.find_manifest(&assumed.digest).await?,
                        AssumedKind::Blob => self.find_blob(sink, assumed).await?,
                    };
                events.report(Event::ItemDone);
                Ok::<_, Error>((!there).then_some(*assumed))
            })
            .buffered(jobs.max(1))
            .try_collect()
            .await?;
        let found = self.found();
        let unread = missing.into_iter().flatten();
        let (withheld, missing) = unread.partition(|assumed| found.withheld.contains_key(&assumed.digest));
        Ok(AssumedProof { places: found.blobs.clone(), missing, withheld })
    }

    fn is_in_repair(&self, digest: &Digest) -> bool {
        self.repair.as_ref().is_some_and(|repair| repair.holds.contains(digest))
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the repositories where it is needed, then all others; only the former once too much was found nowhere.
    fn places(&self, digest: &Digest, first: &[Repository]) -> Vec<Repository> {
        let found = self.found();
        let mut places = first.to_vec();
        let needed = found.needed.get(digest).map(Vec::as_slice).unwrap_or_default();
        let all = if found.nowhere.len() < MOST_NOWHERE { &self.all[..] } else { &[] };
        for repository in needed.iter().chain(all) {
            if !places.contains(repository) {
                places.push(repository.clone());
            }
        }
        places
    }

    /// Whether the manifest exists. One that was read to follow the images need not be read twice.
    async fn find_manifest(&self, digest: &Digest) -> Result<bool> {
        if self.found().manifests.contains(digest) {
            return Ok(true);
        }
        Ok(self.read_manifest(digest, &[]).await?.is_some())
    }

    async fn read_manifest(&self, digest: &Digest, first: &[Repository]) -> Result<Option<Manifest>> {
        if self.found().nowhere.contains(digest) {
            return Ok(None);
        }
        let mut withheld: Option<Withheld> = None;
        for repository in self.places(digest, first) {
            match self.target.manifest(&repository.with_digest(*digest), Need::Required).await {
                Ok(Some(manifest)) => {
                    self.found().manifests.insert(*digest);
                    return Ok(Some(manifest));
                }
                Ok(None) => {}
                // It exists. Another project may deliver its bytes.
                Err(why) if why.reason() == Some(&Reason::PullPolicy) => {
                    let mut at = withheld.map(|withheld| withheld.at).unwrap_or_default();
                    at.insert(repository);
                    withheld = Some(Withheld { why, at });
                }
                Err(error) => return Err(error),
            }
        }
        let mut found = self.found();
        found.nowhere.insert(*digest);
        found.withheld.extend(withheld.map(|withheld| (*digest, withheld)));
        Ok(None)
    }

    async fn find_blob(&self, sink: &dyn Sink, assumed: &Assumed) -> Result<bool> {
        let blob = Descriptor::new("", assumed.digest, assumed.size);
        for repository in self.places(&assumed.digest, &[]) {
            if sink.has_blob(&repository, &blob).await? {
                self.found().blobs.insert(assumed.digest, repository);
                return Ok(true);
            }
        }
        self.found().nowhere.insert(assumed.digest);
        Ok(false)
    }

    /// Returns where a blob of `repository` is read. `None` if the target should have it, and it was not found there.
    fn place_of(&self, repository: &Repository, blob: &Digest) -> Option<Place<'a>> {
        let place = |source| Some(Place { source, repository: repository.clone() });
        if !self.assumed.contains_key(blob) {
            return place(self.bundle);
        }
        if let Some(repair) = self.repair.as_ref().filter(|repair| repair.holds.contains(blob)) {
            return place(repair.source);
        }
        let repository = self.found().blobs.get(blob).cloned()?;
        Some(Place { source: self.target, repository })
    }

    /// Records that the descendants of `manifest` are needed in `repositories`.
    fn note_needed(&self, manifest: &Manifest, repositories: &[Repository]) {
        let mut found = self.found();
        for child in manifest.children() {
            if !self.assumed.contains_key(&child.descriptor.digest) {
                continue;
            }
            let known = found.needed.entry(child.descriptor.digest).or_default();
            let new = repositories.iter().filter(|repository| !known.contains(repository));
            let new: Vec<Repository> = new.cloned().collect();
            known.extend(new);
        }
    }

    async fn find(&self, reference: &Reference, names: &[Repository], need: Need) -> Result<Option<Manifest>> {
        let Some(digest) = reference.digest.filter(|digest| self.assumed.contains_key(digest)) else {
            return self.bundle.manifest(reference, need).await;
        };
        if let Some(repair) = self.repair.as_ref().filter(|repair| repair.holds.contains(&digest)) {
            return repair.source.manifest(reference, need).await;
        }
        let read = self.read_manifest(&digest, names).await?;
        read.map_or_else(|| self.refusal(&digest, names).map_or(Ok(None), Err), |manifest| Ok(Some(manifest)))
    }

    /// Returns why an existing manifest cannot be read. [`Kind::Refused`]: it exists in all repositories of `names`, so
    /// it need not be put there. [`Kind::Lacking`]: it exists elsewhere, so it must be.
    fn refusal(&self, digest: &Digest, names: &[Repository]) -> Option<Error> {
        let found = self.found();
        let Withheld { why, at } = found.withheld.get(digest)?;
        if !names.is_empty() && names.iter().all(|name| at.contains(name)) {
            return Some(why.clone());
        }
        let text =
            format!("the bundle leaves manifest {digest} to the target, which has it only in another repository");
        Some(Error::new(Kind::Lacking, text).because(why.clone()))
    }
}

#[async_trait]
impl Source for TargetBackedSource<'_> {
    async fn tags(&self, repository: &Repository, need: Need) -> Result<TagList> {
        self.bundle.tags(repository, need).await
    }

    async fn resolve(&self, reference: &Reference, need: Need) -> Result<Option<Descriptor>> {
        self.bundle.resolve(reference, need).await
    }

    async fn manifest(&self, reference: &Reference, need: Need) -> Result<Option<Manifest>> {
        let names = self.names.get(&reference.repository).map(Vec::as_slice).unwrap_or_default();
        let found = self.find(reference, names, need).await?;
        found.iter().for_each(|manifest| self.note_needed(manifest, names));
        Ok(found)
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<ReferrerList> {
        self.bundle.referrers(repository, subject).await
    }

    async fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        match self.place_of(repository, &blob.digest) {
            Some(Place { source, repository }) => source.blob(&repository, blob, offset).await,
            None => Err(Error::new(Kind::Lacking, format!("blob {} is expected at the target", blob.digest))),
        }
    }

    async fn gave_wrong(&self, repository: &Repository, blob: &Descriptor, error: Error) -> Result<()> {
        match self.place_of(repository, &blob.digest) {
            Some(Place { source, repository }) => source.gave_wrong(&repository, blob, error).await,
            None => Err(error),
        }
    }

    fn counts_pulls(&self, repository: &Repository) -> bool {
        self.bundle.counts_pulls(repository)
    }

    /// Some of its blobs are at the target.
    fn files(&self) -> Option<&dyn Files> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::content::{Cached, Manifests};

    const CONTENT: &[u8] = b"a layer";

    /// A target behind a mirror that alters what it serves.
    #[derive(Default)]
    struct Target {
        leaves_mirror_out: AtomicBool,
    }

    #[async_trait]
    impl Source for Target {
        async fn tags(&self, _: &Repository, _: Need) -> Result<TagList> {
            Ok(TagList::default())
        }

        async fn resolve(&self, _: &Reference, _: Need) -> Result<Option<Descriptor>> {
            Ok(None)
        }

        async fn manifest(&self, _: &Reference, _: Need) -> Result<Option<Manifest>> {
            Ok(None)
        }

        async fn referrers(&self, _: &Repository, _: &Digest) -> Result<ReferrerList> {
            Ok(ReferrerList::default())
        }

        async fn blob(&self, repository: &Repository, _: &Descriptor, _: u64) -> Result<Body> {
            assert_eq!(repository.path(), "other");
            let is_right = self.leaves_mirror_out.load(Ordering::Relaxed);
            let bytes = Bytes::from_static(if is_right { CONTENT } else { b"A layer" });
            Ok(Body::new(0, stream::iter([Ok(bytes)]).boxed()))
        }

        async fn gave_wrong(&self, repository: &Repository, _: &Descriptor, error: Error) -> Result<()> {
            assert_eq!(repository.path(), "other");
            if self.leaves_mirror_out.swap(true, Ordering::Relaxed) { Err(error) } else { Ok(()) }
        }

        fn counts_pulls(&self, _: &Repository) -> bool {
            false
        }

        fn files(&self) -> Option<&dyn Files> {
            None
        }
    }

    #[tokio::test]
    async fn a_blob_that_a_mirror_of_the_target_alters_is_read_from_the_target_itself() {
        let (bundle, target) = (Manifests::default(), Target::default());
        let blob = Descriptor::new("x/y", Digest::sha256(CONTENT), CONTENT.len() as u64);
        let assumed = Assumed { digest: blob.digest, size: blob.size, kind: AssumedKind::Blob };
        let [needed, other] = ["needed", "other"].map(|path| Repository::new("target.test", path).unwrap());
        let found = Found { blobs: HashMap::from([(blob.digest, other)]), ..Found::default() };
        let expected = TargetBackedSource {
            bundle: &bundle,
            repair: None,
            target: &target,
            assumed: HashMap::from([(blob.digest, assumed)]),
            list: &[],
            names: HashMap::new(),
            all: Vec::new(),
            found: Mutex::new(found),
        };
        let read = Cached::new(&expected, None).small_blob(&needed, &blob, 1 << 10).await;
        assert_eq!(read.unwrap(), CONTENT);
    }
}
