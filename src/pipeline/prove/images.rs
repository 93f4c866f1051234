//! Reads what tags mean, and everything below the images.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{BlobClaim, Claim, Confirmed, ImageProof, ImageProver, ProofPlan, Verdict};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Phase};
use crate::content::Need;
use crate::oci::{Described, Descriptor, Digest, Manifest, Reference, Repository, Role, Tag};
use crate::pipeline::companion::merge;

/// One image as far as it was followed.
struct Tree {
    proof: ImageProof,
    repository: Repository,
    blobs: Vec<Blob>,
    /// Manifests that were read.
    manifests: HashSet<Digest>,
    /// Companions whose tags mean other lists now, and their configs.
    replaced: Vec<Digest>,
    /// Why a part of it could not be read.
    failed: Option<Error>,
}

/// What a manifest names of the confirmed content. The manifest itself may have 4 MiB and is not kept.
#[derive(Default)]
struct Below {
    manifests: Vec<Digest>,
    blobs: Vec<Blob>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Blob {
    digest: Digest,
    size: u64,
}

/// Manifests that were read before, by repository: many images share theirs. `None` if one does not exist.
type Read = Mutex<HashMap<(Repository, Digest), Option<Arc<Below>>>>;

impl ImageProver<'_> {
    /// Reads what each tag means and all manifests, and lists the blobs.
    ///
    /// # Errors
    /// The registry cannot be asked at all, or asks for a longer pause than is allowed.
    pub async fn plan(&self, claims: &[Claim], confirmed: &Confirmed) -> Result<ProofPlan> {
        self.events.report(Event::Phase { phase: Phase::Walk, items: claims.len() as u64, bytes: 0 });
        let read = &Read::default();
        let trees: Vec<Tree> = stream::iter(claims)
            .map(|claim| async move {
                let tree = self.follow(claim, confirmed, read).await;
                self.events.report(Event::ItemDone);
                tree
            })
            .buffered(self.options.jobs.max(1))
            .try_collect()
            .await?;
        // If nothing is known about any image, that is not a result: the registry cannot be asked.
        if let Some(failed) = trees.first().and_then(|tree| tree.failed.clone())
            && trees.iter().all(|tree| tree.failed.is_some() && tree.manifests.len() <= 1)
        {
            return Err(failed);
        }
        let is_whole = |tree: &Tree| !matches!(tree.proof.verdict, Verdict::Moved | Verdict::Missing | Verdict::Unread);
        let reached: HashSet<Digest> = trees.iter().flat_map(Tree::digests).collect();
        // Content of an image that is gone, or that could not be followed, was not looked for.
        let unplaced = match trees.iter().all(is_whole) {
            true => confirmed.digests.iter().filter(|digest| !reached.contains(*digest)).count(),
            false => 0,
        };
        Ok(list(trees, unplaced))
    }

    async fn follow(&self, claim: &Claim, confirmed: &Confirmed, read: &Read) -> Result<Tree> {
        let repository = claim.reference.repository.clone();
        let (reference, digest) = (claim.reference.clone(), claim.digest);
        let (verdict, found, problems, policy, withheld, blobs) =
            (Verdict::Proven, None, Vec::new(), None, 0, Vec::new());
        let proof = ImageProof { reference, digest, verdict, found, problems, policy, withheld, blobs };
        let mut tree = Tree {
            proof,
            repository,
            blobs: Vec::new(),
            manifests: HashSet::new(),
            replaced: Vec::new(),
            failed: None,
        };
        let Some(root) = self.root(&mut tree, claim, confirmed).await? else { return Ok(tree) };
        self.follow_from(&mut tree, root, Verdict::Missing, confirmed, read).await?;
        for (tag, digest) in &claim.companions {
            let digest = match tag {
                Some(tag) => self.tagged(&mut tree, tag, *digest, confirmed).await?,
                None => Some(*digest),
            };
            if let Some(digest) = digest {
                self.follow_from(&mut tree, digest, Verdict::Damaged, confirmed, read).await?;
            }
        }
        if confirmed.find_companions {
            self.find_companions(&mut tree, confirmed, read).await?;
        }
        Ok(tree)
    }

    /// Returns the manifest that the image's tag leads to, if it is the right one.
    async fn root(&self, tree: &mut Tree, claim: &Claim, confirmed: &Confirmed) -> Result<Option<Digest>> {
        let Claim { reference, digest, .. } = claim;
        match reference.digest {
            Some(_) => Ok(Some(*digest)),
            None => self.tagged(tree, reference, *digest, confirmed).await,
        }
    }

    /// Returns what a tag leads to, if it is right: `digest`, or a list that others have added to.
    async fn tagged(
        &self,
        tree: &mut Tree,
        tag: &Reference,
        digest: Digest,
        confirmed: &Confirmed,
    ) -> Result<Option<Digest>> {
        match tag.tag.as_ref().is_some_and(Tag::is_list) {
            true => self.list(tree, tag, digest, confirmed).await,
            false => Ok(self.check_tag(tree, tag, digest).await?.then_some(digest)),
        }
    }

    /// Whether a tag still means what it should.
    async fn check_tag(&self, tree: &mut Tree, tag: &Reference, digest: Digest) -> Result<bool> {
        match self.target.resolve(tag, Need::Required).await {
            Ok(Some(found)) if found.digest == digest => return Ok(true),
            Ok(Some(found)) => tree.note_moved(tag, found.digest, String::new()),
            Ok(None) => tree.note_missing(tag),
            Err(error) => tree.fail(error)?,
        }
        Ok(false)
    }

    /// Returns what the tag of a list means now, instead of `digest` if others have added to it.
    async fn list(
        &self,
        tree: &mut Tree,
        tag: &Reference,
        digest: Digest,
        confirmed: &Confirmed,
    ) -> Result<Option<Digest>> {
        let theirs = match self.target.manifest(tag, Need::Required).await {
            Ok(Some(theirs)) => theirs,
            Ok(None) => {
                tree.note_missing(tag);
                return Ok(None);
            }
            Err(error) => return tree.fail(error).map(|()| None),
        };
        let found = theirs.digest();
        if found == digest {
            return Ok(Some(found));
        }
        tree.replaced.push(digest);
        // A list that no longer exists cannot be compared; its former entries are missed by their digests.
        if let Some(ours) = self.list_as_brought(tree, digest, confirmed).await {
            tree.replaced.extend(ours.config().map(|config| config.digest));
            if !merge(&theirs, &ours).is_ok_and(|merged| merged.theirs_has_ours()) {
                tree.note_moved(tag, found, format!(", which lacks some of what {digest} has"));
            }
        }
        Ok(Some(found))
    }

    async fn list_as_brought(&self, tree: &Tree, list: Digest, confirmed: &Confirmed) -> Option<Manifest> {
        match confirmed.lists.get(&list) {
            Some(known) => Some(known.clone()),
            None => self.target.manifest(&tree.repository.with_digest(list), Need::Required).await.ok()?,
        }
    }

    /// Reads a manifest and everything below it. `absent` is the verdict if it does not exist.
    async fn follow_from(
        &self,
        tree: &mut Tree,
        digest: Digest,
        absent: Verdict,
        confirmed: &Confirmed,
        read: &Read,
    ) -> Result<()> {
        let mut open = vec![(digest, absent)];
        while let Some((digest, absent)) = open.pop() {
            if !tree.manifests.insert(digest) {
                continue;
            }
            match self.below(&tree.repository, digest, confirmed, read).await {
                Ok(Some(below)) => {
                    open.extend(below.manifests.iter().map(|child| (*child, Verdict::Damaged)));
                    tree.blobs.extend(&below.blobs);
                }
                Ok(None) => tree.note(absent, format!("manifest {digest} is not in {}", tree.repository)),
                Err(error) => tree.fail(error)?,
            }
        }
        Ok(())
    }

    /// Reads a manifest, unless it was read before.
    async fn below(
        &self,
        repository: &Repository,
        digest: Digest,
        confirmed: &Confirmed,
        read: &Read,
    ) -> Result<Option<Arc<Below>>> {
        let place = (repository.clone(), digest);
        let known = read.lock().unwrap_or_else(PoisonError::into_inner).get(&place).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let manifest = self.target.manifest(&repository.with_digest(digest), Need::Required).await?;
        let below = manifest.map(|manifest| Arc::new(Below::of(&manifest, confirmed)));
        read.lock().unwrap_or_else(PoisonError::into_inner).insert(place, below.clone());
        Ok(below)
    }

    /// Finds confirmed signatures and the like: those whose subject is a manifest of the image, and those under
    /// cosign's tags.
    async fn find_companions(&self, tree: &mut Tree, confirmed: &Confirmed, read: &Read) -> Result<()> {
        let mut asked = HashSet::new();
        loop {
            let new: Vec<Digest> = tree.manifests.iter().filter(|digest| !asked.contains(*digest)).copied().collect();
            if new.is_empty() {
                return Ok(());
            }
            for subject in new {
                asked.insert(subject);
                for companion in self.companions_of(tree, &subject, confirmed).await? {
                    self.follow_from(tree, companion, Verdict::Damaged, confirmed, read).await?;
                }
            }
        }
    }

    async fn companions_of(&self, tree: &mut Tree, subject: &Digest, confirmed: &Confirmed) -> Result<Vec<Digest>> {
        let names = |manifest: &&Manifest| manifest.subject().is_some_and(|named| named.digest == *subject);
        let mut found: Vec<Digest> = confirmed.referrers.iter().filter(names).map(Manifest::digest).collect();
        for kind in ["sig", "att", "sbom"] {
            let tag = tree.repository.with_tag(Tag::cosign(subject, kind));
            match self.target.resolve(&tag, Need::Required).await {
                Ok(Some(meant)) if confirmed.digests.contains(&meant.digest) => found.push(meant.digest),
                Ok(_) => {}
                Err(error) => tree.fail(error)?,
            }
        }
        Ok(found)
    }
}

impl Below {
    fn of(manifest: &Manifest, confirmed: &Confirmed) -> Below {
        let (mut below, mut seen) = (Below::default(), HashSet::new());
        for child in manifest.children() {
            let Described { digest, size, .. } = *child.descriptor;
            if !confirmed.digests.contains(&digest) || !seen.insert(Blob { digest, size }) {
                continue;
            }
            match child.role {
                Role::Manifest => below.manifests.push(digest),
                Role::Config | Role::Layer | Role::ForeignLayer => below.blobs.push(Blob { digest, size }),
            }
        }
        below
    }
}

impl Tree {
    fn note(&mut self, verdict: Verdict, problem: String) {
        self.proof.note(verdict, problem);
    }

    fn note_missing(&mut self, tag: &Reference) {
        self.note(Verdict::Missing, format!("{tag} does not exist"));
    }

    fn note_moved(&mut self, tag: &Reference, found: Digest, more: String) {
        self.proof.found = Some(found);
        self.note(Verdict::Moved, format!("{tag} means {found} now{more}"));
    }

    /// # Errors
    /// What ends the whole proof.
    fn fail(&mut self, error: Error) -> Result<()> {
        match error.kind() {
            Kind::Damaged => self.note(Verdict::Damaged, error.chain()),
            Kind::RateLimited | Kind::Interrupted | Kind::Input | Kind::Disk => return Err(error),
            _ if error.stopped().is_some() => return Err(error),
            _ if let Some(policy) = error.policy() => self.proof.note_withheld(policy, error.chain()),
            _ => {
                self.note(Verdict::Unread, error.chain());
                self.failed = self.failed.take().or(Some(error));
            }
        }
        Ok(())
    }

    fn digests(&self) -> impl Iterator<Item = Digest> {
        self.manifests.iter().chain(&self.replaced).copied().chain(self.blobs.iter().map(|blob| blob.digest))
    }
}

/// Returns each blob once, with all its places.
fn list(trees: Vec<Tree>, unplaced: usize) -> ProofPlan {
    let mut plan = ProofPlan { unplaced, ..ProofPlan::default() };
    let mut known: HashMap<Blob, usize> = HashMap::new();
    let mut seen = HashSet::new();
    for Tree { mut proof, repository, blobs, .. } in trees {
        for blob in blobs {
            let at = *known.entry(blob).or_insert(plan.blobs.len());
            if at == plan.blobs.len() {
                // Without the URLs of a foreign layer: the registry itself must have it.
                let blob = Descriptor::new("", blob.digest, blob.size);
                plan.blobs.push(BlobClaim { blob, places: Vec::new() });
            }
            if seen.insert((at, repository.clone())) {
                plan.blobs[at].places.push(repository.clone());
            }
            proof.blobs.push(at);
        }
        proof.blobs.sort_unstable();
        proof.blobs.dedup();
        plan.images.push(proof);
    }
    plan
}
