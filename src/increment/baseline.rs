//! What is reported to be at the target already, by which document, and what a bundle can leave out because of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;

use crate::bundle::{Assumed, AssumedKind, Basis, Bundle, Contents, Parent, ParentKind, Removed};
use crate::content::{Manifests, Source};
use crate::oci::{Digest, Manifest, Platform, Reference, Repository, Tag};
use crate::pipeline::lock::LockedImage;
use crate::pipeline::naming::parse_target;
use crate::pipeline::receipt::{ImageOutcome, Receipt, ReceiptKind};
use crate::pipeline::walk::Modes;

/// All these reports. One bundle can go to several registries, so of their receipts only what *all* of them have
/// counts. Several receipts of one registry add up, and a bundle is assumed to have arrived everywhere.
#[derive(Default)]
pub struct Baseline {
    parents: Vec<Parent>,
    /// What is confirmed, by registry.
    confirmed: BTreeMap<String, HashSet<Digest>>,
    /// What earlier bundles have.
    sent: HashSet<Digest>,
    /// Images that existed.
    former: Vec<Removed>,
    /// Manifests from receipts, and the bundles: what need not be read at its source.
    manifests: Manifests,
    bundles: Vec<Box<dyn Source>>,
    /// The index modes of the entries of the bundles.
    modes: Modes,
    /// The platforms of single images according to the receipts, by the digest of the manifest.
    platforms: HashMap<Digest, BTreeSet<Vec<Platform>>>,
}

impl Baseline {
    /// Only what a receipt confirms counts, never what it says about failed images.
    pub fn add_receipt(&mut self, receipt: Receipt) {
        let registry = parse_target(&receipt.target).map_or_else(|_| receipt.target.clone(), |target| target.registry);
        self.confirmed.entry(registry).or_default().extend(&receipt.confirmed);
        let arrived = || {
            let there = |outcome| matches!(outcome, ImageOutcome::Pushed | ImageOutcome::Present);
            receipt.images.iter().filter(move |image| there(image.outcome))
        };
        let repositories: BTreeSet<&Repository> =
            arrived().filter_map(|image| image.reference.as_ref()).map(|reference| &reference.repository).collect();
        let parent = Parent {
            kind: match receipt.kind {
                ReceiptKind::Receipt => ParentKind::Receipt,
                ReceiptKind::Inventory => ParentKind::Inventory,
            },
            bundle: receipt.bundle,
            target: Some(receipt.target.clone()),
            // The times in a bundle are whole seconds.
            time: Timestamp::from_second(receipt.finished.as_second()).ok(),
            repositories: repositories.into_iter().cloned().collect(),
        };
        if !self.parents.contains(&parent) {
            self.parents.push(parent);
        }
        for image in arrived().filter(|image| !image.platforms.is_empty()) {
            let Some(digest) = image.digest else { continue };
            self.platforms.entry(digest).or_default().insert(image.platforms.clone());
        }
        // An image that migrate took from a storage may have a name that no allowlist could have.
        self.former.extend(arrived().filter_map(|image| {
            let (reference, digest) = (image.source.parse().ok()?, image.digest?);
            Some(Removed { reference, rename: None, digest, target: image.reference.clone() })
        }));
        self.manifests.extend(receipt.manifests.into_iter().map(|kept| kept.0));
    }

    /// Adds everything that a bundle carries, and what it assumes itself.
    pub fn add_bundle(&mut self, bundle: Bundle) {
        if self
            .parents
            .iter()
            .any(|parent| parent.kind == ParentKind::Bundle && parent.bundle == Some(bundle.identity()))
        {
            // Another volume of the same bundle.
            self.bundles.push(Box::new(bundle.into_lock_and_layout().1));
            return;
        }
        self.modes.add(bundle.lock());
        self.sent.extend(bundle.files().iter().filter_map(|file| Digest::of_blob_path(&file.path)));
        self.sent.extend(bundle.json().assumed.iter().map(|assumed| assumed.digest));
        let (bundle_identity, time) = (Some(bundle.identity()), Some(bundle.lock().created));
        let kind = ParentKind::Bundle;
        self.parents.push(Parent { kind, bundle: bundle_identity, target: None, time, repositories: Vec::new() });
        self.former.extend(bundle.lock().images.iter().map(|image| Removed {
            reference: image.reference.clone(),
            rename: image.rename.clone(),
            digest: image.digest,
            target: None,
        }));
        self.bundles.push(Box::new(bundle.into_lock_and_layout().1));
    }

    /// Returns sources from which manifests can be read without asking their registry. The manifests are proven by
    /// their digests, so the origin does not matter.
    pub fn take_at_hand(&mut self) -> Vec<Box<dyn Source>> {
        let manifests = std::mem::take(&mut self.manifests);
        let brought = (!manifests.is_empty()).then(|| Box::new(manifests) as Box<dyn Source>);
        brought.into_iter().chain(std::mem::take(&mut self.bundles)).collect()
    }

    /// Returns the index modes of entries of the bundles: an increment keeps them.
    pub fn take_modes(&mut self) -> Modes {
        std::mem::take(&mut self.modes)
    }

    /// Returns the platforms of images, as far as the receipts agree, so that the configs of images that will be left
    /// out need not be read. Call it before [`take_at_hand`](Self::take_at_hand).
    pub fn platforms(&self) -> HashMap<Digest, Vec<Platform>> {
        let is_left_out = |digest: &Digest| {
            let below = self.manifests.get(digest).map(Manifest::children).unwrap_or_default();
            self.has(digest) && !below.is_empty() && below.iter().all(|child| self.has(&child.descriptor.digest))
        };
        let known = self.platforms.iter().filter(|(digest, platforms)| platforms.len() == 1 && is_left_out(digest));
        known.filter_map(|(digest, platforms)| Some((*digest, platforms.first()?.clone()))).collect()
    }

    /// Number of registries for which something is confirmed.
    pub fn targets(&self) -> usize {
        self.confirmed.len()
    }

    pub fn parents(&self) -> &[Parent] {
        &self.parents
    }

    fn has(&self, digest: &Digest) -> bool {
        let everywhere = !self.confirmed.is_empty() && self.confirmed.values().all(|there| there.contains(digest));
        everywhere || self.sent.contains(digest)
    }

    /// Returns what can be left out of `contents`, which are complete in themselves. A manifest only if everything
    /// below it is there. Never a list of signatures: the isolated side may have joined it with its own and deleted
    /// what has no tag any more. Only the bytes of this list show whether the list there contains all of it.
    pub fn basis(&self, contents: &Contents) -> Basis {
        let carried: HashSet<Digest> = contents.all().map(|(digest, _)| digest).collect();
        let mut left_out: HashSet<Digest> =
            contents.blobs.iter().map(|blob| blob.digest).filter(|digest| self.has(digest)).collect();
        let lists: HashSet<Digest> = contents.lock.images.iter().flat_map(LockedImage::signature_lists).collect();
        for manifest in children_first(&contents.manifests) {
            let mut below = manifest.children().into_iter().map(|child| child.descriptor.digest);
            let whole = below.all(|digest| left_out.contains(&digest) || !carried.contains(&digest));
            if whole && self.has(&manifest.digest()) && !lists.contains(&manifest.digest()) {
                left_out.insert(manifest.digest());
            }
        }
        let manifests = contents.manifests.iter().filter(|manifest| left_out.contains(&manifest.digest()));
        let mut assumed: Vec<Assumed> = manifests.map(of_manifest).collect();
        let blobs = contents.blobs.iter().filter(|blob| left_out.contains(&blob.digest));
        assumed.extend(blobs.map(|blob| Assumed { digest: blob.digest, size: blob.size, kind: AssumedKind::Blob }));
        Basis { parents: self.parents.clone(), assumed, removed: self.removed(contents) }
    }

    fn removed(&self, contents: &Contents) -> Vec<Removed> {
        let images = &contents.lock.images;
        let beside = images.iter().flat_map(|image| image.companion_tags(&image.reference.repository));
        let beside = beside.map(|(tag, _)| tag.to_string());
        let wanted: HashSet<String> = images.iter().map(|image| image.name()).chain(beside).collect();
        let mut seen = HashSet::new();
        // A tag that an older run took for an image: it is gone only with its subject.
        let subjects =
            images.iter().filter_map(|image| image.selection.as_ref()).map(|selection| selection.original.digest);
        // Missing does not mean unwanted: what the target has of such an image stays, with everything that refers to
        // it.
        let is_missing = |image: &Removed| contents.lock.missing.iter().any(|missing| missing.covers(&image.reference));
        let missing = self.former.iter().filter(|image| is_missing(image)).map(|image| image.digest);
        let carried = contents.manifests.iter().map(Manifest::digest);
        let subjects: HashSet<Digest> = carried.chain(subjects).chain(missing).collect();
        let is_companion = |image: &Removed| {
            let subject = image.reference.tag.as_ref().and_then(Tag::companion_subject);
            subject.is_some_and(|subject| subjects.contains(&subject))
        };
        let gone = self
            .former
            .iter()
            .filter(|image| !is_missing(image) && !wanted.contains(&name(&image.reference, image.digest)));
        let gone = gone.filter(|image| !is_companion(image));
        gone.filter(|image| seen.insert((&image.reference, image.digest, &image.target))).cloned().collect()
    }
}

/// Returns the manifests, each after its children.
fn children_first(manifests: &[Manifest]) -> Vec<&Manifest> {
    let by_digest: HashMap<Digest, &Manifest> = manifests.iter().map(|one| (one.digest(), one)).collect();
    let (mut begun, mut ordered) = (HashSet::new(), Vec::with_capacity(manifests.len()));
    for manifest in manifests {
        // Each is in the list twice: before its descendants, and after them.
        let mut open = vec![(manifest, false)];
        while let Some((next, is_behind)) = open.pop() {
            if is_behind {
                ordered.push(next);
            } else if begun.insert(next.digest()) {
                open.push((next, true));
                let below =
                    next.children().into_iter().filter_map(|child| by_digest.get(&child.descriptor.digest).copied());
                open.extend(below.map(|child| (child, false)));
            }
        }
    }
    ordered
}

fn of_manifest(manifest: &Manifest) -> Assumed {
    Assumed { digest: manifest.digest(), size: manifest.size(), kind: AssumedKind::Manifest }
}

/// As in [`LockedImage::name`](crate::pipeline::lock::LockedImage::name).
fn name(reference: &Reference, digest: Digest) -> String {
    match &reference.tag {
        Some(tag) => reference.repository.with_tag(tag.clone()).to_string(),
        None => reference.repository.with_digest(digest).to_string(),
    }
}
