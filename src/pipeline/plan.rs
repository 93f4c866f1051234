//! The plan: what has to move where, decided before anything moves.
//!
//! Pure except for [`take_inventory`] and [`Plan::proven`], which ask the target.

mod companions;
mod inventory;
mod lists;
mod proof;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Serialize;

use crate::content::Lookup;
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use crate::pipeline::graph::{Graph, Image, PlacedBlob};
pub use companions::{CompanionAction, CompanionStep, decide};
pub use inventory::{Before, Inventory, take_inventory, take_tags};
pub use lists::{ListState, compare, lists, made_unnecessary};

/// What to do about an image whose manifest the target has and withholds.
pub const WITHHELD_REMEDY: &str = "import --missing FILE lists what `export --repair` has to bring";

/// Where each image of a graph goes: its reference (tag or digest) at the target, in the order of the graph.
pub type Targets = Vec<Reference>;

/// What to do with a tag that means something else at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExisting {
    #[default]
    Overwrite,
    Skip,
    Fail,
}

/// Everything that has to be done, in flat lists.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One for each image of the graph, in its order.
    pub images: Vec<ImageStep>,
    /// Blobs that some repository of the target lacks. Those of the largest image come first, so that images are
    /// completed one after the other and the rest at the end is small.
    pub blobs: Vec<BlobStep>,
}

/// What is done with one image.
#[derive(Clone, Debug)]
pub struct ImageStep {
    /// Where it is read.
    pub from: Repository,
    pub to: Reference,
    pub tag: TagState,
    pub action: Action,
    /// Digests of manifests that exist already.
    pub present: HashSet<Digest>,
    /// Digests of manifests that exist and that a policy of the target forbids pulling, with the target's words.
    pub withheld: HashMap<Digest, String>,
    /// Whether the target has the image's own manifest, withholds it, and it is unknown whether the tag means it. The
    /// end of the push shows whether the image is there.
    pub is_unreadable: bool,
    /// Whether a blob of it is missing, so that the target's statements about its manifests and tag are in doubt:
    /// distribution accepts no manifest without its blobs.
    pub doubtful: bool,
    /// The tags of its companions, and its own if it is the tag of a list. Empty if the image is left alone.
    pub companions: Vec<CompanionStep>,
    /// Digests of manifests and blobs that the target need not have, because the tag of a companion means something
    /// else there.
    pub not_needed: HashSet<Digest>,
}

/// What the tag means at the target before the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "digest")]
pub enum TagState {
    /// It does not exist yet.
    New,
    /// It already means this image.
    Same,
    /// It means another image.
    Other(Digest),
    /// It exists or may exist, and this account may not read what it means. It may be this image.
    Blocked,
}

impl TagState {
    /// The state of a tag that should mean `wanted`, according to the inventory.
    fn of(inventory: &Inventory, tag: &Reference, wanted: &Digest) -> TagState {
        match inventory.tags.get(tag) {
            None if inventory.blocked.contains_key(tag) => TagState::Blocked,
            None => TagState::New,
            Some(digest) => TagState::meaning(*digest, wanted),
        }
    }

    /// The same, according to a look-up.
    pub fn now(found: &Lookup, wanted: &Digest) -> TagState {
        match found {
            Lookup::Absent => TagState::New,
            Lookup::Found(found) => TagState::meaning(found.digest, wanted),
            Lookup::Blocked(_) => TagState::Blocked,
        }
    }

    fn meaning(digest: Digest, wanted: &Digest) -> TagState {
        if digest == *wanted { TagState::Same } else { TagState::Other(digest) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Push what is missing.
    Push,
    /// Everything exists, including the tag.
    Nothing,
    /// The tag means another image and should be left alone.
    Skip,
    /// The tag means another image, or the tag of a companion something else, and that is an error.
    Refuse,
    /// The tag means another image and is immutable.
    Immutable,
    /// Something that it needs has not arrived yet: blobs that have arrived are pushed, but no manifest.
    Wait,
}

/// A blob, and the repositories of the target that lack it.
#[derive(Clone, Debug)]
pub struct BlobStep {
    pub blob: Descriptor,
    /// Where it is read.
    pub from: Repository,
    /// Repositories of the target that have it, from which it can be mounted.
    pub present: Vec<Repository>,
    pub missing: Vec<Repository>,
}

impl Plan {
    /// A plan of blobs alone, for a sink that has no repositories.
    pub fn of_blobs(blobs: impl IntoIterator<Item = PlacedBlob>) -> Plan {
        let step = |PlacedBlob { blob, repository }: PlacedBlob| {
            let missing = vec![repository.clone()];
            BlobStep { blob, from: repository, present: Vec::new(), missing }
        };
        Plan { images: Vec::new(), blobs: blobs.into_iter().map(step).collect() }
    }

    /// Decides what moves. `targets` is parallel to `graph.images`.
    pub fn new(graph: &Graph, targets: &Targets, inventory: &Inventory, on_existing: OnExisting) -> Plan {
        let images: Vec<ImageStep> =
            graph.images.iter().zip(targets).map(|(image, to)| image_step(image, to, inventory, on_existing)).collect();
        let blobs = blob_steps(graph, &images, inventory);
        Plan { images, blobs }
    }

    /// Removes the blobs that neither the source nor the target has; images that need one of them wait. Returns these
    /// blobs.
    pub fn hold_back(&mut self, graph: &Graph, at_hand: impl Fn(&Digest) -> bool) -> BTreeSet<Digest> {
        let is_held = |step: &BlobStep| step.present.is_empty() && !at_hand(&step.blob.digest);
        let held: BTreeSet<Digest> =
            self.blobs.iter().filter(|step| is_held(step)).map(|step| step.blob.digest).collect();
        self.blobs.retain(|step| !is_held(step));
        for (image, step) in graph.images.iter().zip(&mut self.images) {
            let waits = || step.blobs(image).any(|blob| held.contains(&blob.digest));
            if step.action == Action::Push && waits() {
                step.action = Action::Wait;
            }
        }
        held
    }

    /// Bytes of blobs that have to be transferred to the target, each counted once.
    pub fn new_bytes(&self) -> u64 {
        let absent = self.blobs.iter().filter(|step| step.present.is_empty());
        absent.map(|step| step.blob.size).fold(0, u64::saturating_add)
    }

    /// Bytes of blobs that pushed images need and that the target already has.
    pub fn present_bytes(&self, graph: &Graph) -> u64 {
        let new: HashSet<Digest> =
            self.blobs.iter().filter(|step| step.present.is_empty()).map(|step| step.blob.digest).collect();
        let images = graph.images.iter().zip(&self.images);
        let wanted = images.filter(|(_, step)| matches!(step.action, Action::Push | Action::Nothing | Action::Wait));
        let mut seen = HashSet::new();
        let present = wanted.flat_map(|(image, step)| step.blobs(image)).filter(|blob| !new.contains(&blob.digest));
        present.filter(|blob| seen.insert(blob.digest)).map(|blob| blob.size).fold(0, u64::saturating_add)
    }

    /// Bytes that are mounted from another repository instead of transferred.
    pub fn mounted_bytes(&self) -> u64 {
        let mounts = |step: &BlobStep| step.missing.len() as u64 - u64::from(step.present.is_empty());
        self.blobs.iter().map(|step| step.blob.size.saturating_mul(mounts(step))).fold(0, u64::saturating_add)
    }
}

impl ImageStep {
    /// Returns the blobs of this image that the target must have.
    pub fn blobs<'i>(&self, image: &'i Image) -> impl Iterator<Item = &'i Descriptor> {
        image.blobs.iter().filter(|blob| !self.not_needed.contains(&blob.digest))
    }

    /// Returns the manifests of this image that the target must have, at least under their digests.
    pub fn manifests<'i>(&self, image: &'i Image) -> impl Iterator<Item = &'i Manifest> {
        image.manifests.iter().filter(|manifest| !self.not_needed.contains(&manifest.digest()))
    }

    /// Returns the step for the image's own tag, if that is the tag of a list that others may add to.
    pub fn own_list(&self) -> Option<&CompanionStep> {
        self.companions.iter().find(|step| step.tag == self.to)
    }

    /// Returns what its tag means before the push and not after it. Joined signatures are not replaced.
    pub fn replaced(&self) -> Option<Digest> {
        match (self.tag, self.action) {
            (TagState::Other(digest), Action::Push) if self.own_list().is_none() => Some(digest),
            _ => None,
        }
    }

    /// Returns why the image is refused.
    pub fn refusal(&self) -> String {
        let reason = self.companions.iter().find_map(|companion| match &companion.action {
            CompanionAction::Refuse { reason } => Some(reason.clone()),
            CompanionAction::Unreadable { reason, .. } | CompanionAction::Obstructed { reason }
                if companion.tag == self.to =>
            {
                Some(reason.clone())
            }
            _ => None,
        });
        let of_tag = match self.tag {
            TagState::Blocked => "the tag already exists, and a policy forbids reading what it means",
            _ => "the tag already means another image",
        };
        reason.unwrap_or_else(|| of_tag.to_owned())
    }
}

fn image_step(image: &Image, to: &Reference, inventory: &Inventory, on_existing: OnExisting) -> ImageStep {
    let repository = &to.repository;
    let has = |digest: &Digest| inventory.manifests.contains(&(repository.clone(), *digest));
    let present: HashSet<Digest> = image.manifests.iter().map(|m| m.digest()).filter(|digest| has(digest)).collect();
    let withheld = |digest: Digest| Some((digest, inventory.withheld.get(&(repository.clone(), digest))?.clone()));
    let own = image.manifests.iter().map(Manifest::digest).chain([image.locked.digest]);
    let withheld = own.filter_map(withheld).collect();
    let tag = TagState::of(inventory, to, &image.locked.digest);
    let from = image.locked.reference.repository.clone();
    let (companions, not_needed) = Default::default();
    let (action, doubtful, is_unreadable) = (Action::Push, false, image.root().is_none() && tag != TagState::Same);
    let to_here = to.clone();
    let step = ImageStep {
        from,
        to: to_here,
        tag,
        action,
        present,
        withheld,
        is_unreadable,
        doubtful,
        companions,
        not_needed,
    };
    // A list that others may add to is not just another image.
    let is_list = lists::is_list(to);
    match (tag, on_existing) {
        (TagState::Other(_) | TagState::Blocked, OnExisting::Skip) if !is_list => {
            return ImageStep { action: Action::Skip, ..step };
        }
        (TagState::Other(_) | TagState::Blocked, OnExisting::Fail) if !is_list => {
            return ImageStep { action: Action::Refuse, ..step };
        }
        (TagState::Other(_), _) if !is_list && inventory.immutable.contains(to) => {
            return ImageStep { action: Action::Immutable, ..step };
        }
        _ => {}
    }
    let companions = companions::steps(image, to, inventory, on_existing);
    let not_needed = companions::not_needed(image, to, &companions);
    let step = ImageStep { not_needed, companions, ..step };
    let is_settled =
        |companion: &CompanionStep| companion.action == CompanionAction::Nothing || companion.action.leaves_tag();
    let doubtful = !step.blobs(image).all(|blob| inventory.blobs.contains(&(repository.clone(), blob.digest)));
    let is_complete = step.manifests(image).all(|manifest| step.present.contains(&manifest.digest()))
        && !doubtful
        && step.companions.iter().all(is_settled);
    let is_refused = |companion: &CompanionStep| matches!(companion.action, CompanionAction::Refuse { .. });
    let action = match (tag, step.own_list().map(|own| &own.action)) {
        _ if step.companions.iter().any(is_refused) => Action::Refuse,
        (_, Some(CompanionAction::Skip)) => Action::Skip,
        (_, Some(CompanionAction::Unreadable { .. } | CompanionAction::Obstructed { .. })) => Action::Refuse,
        (TagState::Same, _) | (_, Some(CompanionAction::Nothing)) if is_complete => Action::Nothing,
        _ => Action::Push,
    };
    ImageStep { action, doubtful, ..step }
}

/// Returns the image's root if it can be put by its tag alone, which saves a request. `None` if something refers to it:
/// that must find the root before the tag exists.
pub fn put_by_tag(image: &Image, to: &Reference) -> Option<Digest> {
    (to.digest.is_none() && image.locked.companions().is_empty()).then_some(image.locked.digest)
}

fn blob_steps(graph: &Graph, images: &[ImageStep], inventory: &Inventory) -> Vec<BlobStep> {
    let mut steps: Vec<BlobStep> = Vec::new();
    let mut position: HashMap<Digest, usize> = HashMap::new();
    let mut seen: HashSet<(&Repository, Digest)> = HashSet::new();
    for (image, step) in graph.images.iter().zip(images) {
        let skipped = matches!(step.action, Action::Skip | Action::Refuse | Action::Immutable);
        for blob in &image.blobs {
            let repository = &step.to.repository;
            let skipped = skipped || step.not_needed.contains(&blob.digest);
            if !seen.insert((repository, blob.digest)) {
                continue;
            }
            let at = *position.entry(blob.digest).or_insert_with(|| {
                let (blob, from) = (blob.clone(), step.from.clone());
                let present = inventory.elsewhere.get(&blob.digest).cloned().into_iter().collect();
                steps.push(BlobStep { blob, from, present, missing: Vec::new() });
                steps.len() - 1
            });
            if inventory.blobs.contains(&(repository.clone(), blob.digest)) {
                if !steps[at].present.contains(repository) {
                    steps[at].present.push(repository.clone());
                }
            } else if skipped {
                // Another image of the same repository may still need it.
                seen.remove(&(repository, blob.digest));
            } else {
                steps[at].missing.push(repository.clone());
            }
        }
    }
    steps.retain(|step| !step.missing.is_empty());
    steps.shrink_to_fit();
    let weight = weights(graph);
    steps.sort_by_key(|step| {
        let image = weight.get(&step.blob.digest).copied().unwrap_or_default();
        (Reverse(image), Reverse(step.blob.size), step.blob.digest)
    });
    steps
}

/// Returns, for each blob, the largest image that has it; among equals the first.
fn weights(graph: &Graph) -> HashMap<Digest, (u64, Reverse<usize>)> {
    let mut weights = HashMap::new();
    for (at, image) in graph.images.iter().enumerate() {
        let weight = (image.locked.total_size, Reverse(at));
        for blob in &image.blobs {
            weights.entry(blob.digest).and_modify(|known: &mut _| *known = weight.max(*known)).or_insert(weight);
        }
    }
    weights
}
