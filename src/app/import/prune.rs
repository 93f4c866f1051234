//! Lists or deletes the tags of images that are no longer wanted, after an import.
//!
//! # Threats
//! The bundle lists what is no longer wanted. It does so from a receipt that anybody could have forged before the bundle
//! was signed. Therefore only tags that a receipt kept on this side lists as brought are deleted. For companions, see
//! [`crate::increment::orphans`].

mod beside;

use std::collections::{BTreeSet, HashMap};

use super::{Import, ImportReport};
use crate::app::outcome::Outcome;
use crate::app::push::{Push, PushReport};
use crate::app::receipts::{NamedReceipt, ReceiptFile};
use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events};
use crate::bundle::{Bundle, Removed};
use crate::content::{Account, Sink, TagDeletion};
use crate::increment::{Decision, PruneCandidate, decide};
use crate::oci::{Digest, Reference, Repository};
use crate::pipeline::harbor::{self, Detected};
use crate::pipeline::lock::LockedImage;
use crate::pipeline::receipt::{
    Brought, CompanionReceipt, ImageOutcome, ImageReceipt, PrunedOutcome, PrunedReceipt, Receipt, ReceiptKind,
};
use crate::pipeline::resolve::Failures;
use crate::transport::registry::Registries;

/// What to do about tags of images that were in the parents of a bundle and are not in its allowlist.
#[derive(Clone)]
pub struct PruneOptions {
    /// Delete the tags; otherwise they are listed. Without `arrived`, nothing is deleted.
    pub delete: bool,
    /// What gapferry brought according to receipts kept on this side: only that is deleted.
    pub arrived: Option<Arrived>,
}

/// The result of pruning.
#[derive(Clone, Debug)]
pub enum Pruned {
    /// Nothing was checked, because not every image has arrived.
    Skipped,
    /// The counts. The outcome of each tag is in the receipt, or in the plan.
    Done(PruneReport),
}

/// What pruning found, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Tags that are no longer wanted.
    pub tags: usize,
    pub deleted_tags: usize,
    /// Companions of their images that nothing else uses.
    pub companions: usize,
    pub deleted_companions: usize,
    /// Whether tags were to be deleted; otherwise they were listed.
    pub deletes: bool,
    /// Whether receipts show what gapferry brought.
    pub has_receipts: bool,
}

/// What gapferry brought, according to receipts kept on this side.
#[derive(Clone)]
pub struct Arrived {
    /// Tags with the digest they had then, and the companions that arrived with the image.
    images: HashMap<PruneCandidate, Vec<CompanionReceipt>>,
    brought: Brought,
    /// Whether the signatures of the receipts were verified.
    is_signed: bool,
}

impl Arrived {
    /// Collects the contents of `receipts`. `is_signed`: their signatures were verified.
    ///
    /// # Errors
    /// One of them is an inventory.
    pub fn new(receipts: Vec<NamedReceipt>, is_signed: bool) -> Result<Arrived> {
        let mut brought = Brought::default();
        for NamedReceipt { name, receipt } in &receipts {
            if receipt.kind == ReceiptKind::Inventory {
                let text = "is an inventory, which does not show who pushed an image; --arrived needs receipts";
                return Err(Error::input(format!("{name} {text}")));
            }
            brought.add(receipt);
        }
        let mut images: HashMap<PruneCandidate, Vec<CompanionReceipt>> = HashMap::new();
        for NamedReceipt { mut receipt, .. } in receipts {
            // One receipt can list as present what another lists as pushed.
            brought.mark(&mut receipt);
            for (image, companions) in receipt.images.into_iter().filter_map(came) {
                images.entry(image).or_default().extend(companions);
            }
        }
        Ok(Arrived { images, brought, is_signed })
    }
}

impl PruneOptions {
    /// What the receipt of this import can state as brought before. A signed receipt relies only on signed receipts.
    pub(super) fn brought(&self, receipt: Option<&ReceiptFile>) -> Brought {
        let signs = receipt.is_some_and(|receipt| receipt.sign_key.is_some());
        let arrived = self.arrived.as_ref().filter(|arrived| arrived.is_signed || !signs);
        arrived.map(|arrived| arrived.brought.clone()).unwrap_or_default()
    }
}

fn came(image: ImageReceipt) -> Option<(PruneCandidate, Vec<CompanionReceipt>)> {
    let came = image.brought || image.outcome == ImageOutcome::Pushed;
    let (tag, digest) = (image.reference.filter(|_| came)?, image.digest?);
    let companions = image.companions.into_iter().filter(CompanionReceipt::is_brought).collect();
    Some((PruneCandidate { tag, digest }, companions))
}

/// The end of pruning.
struct Ended {
    counts: PruneReport,
    pruned: Vec<PrunedReceipt>,
    /// All deletions that failed.
    failure: Option<Error>,
    outcome: Outcome,
}

impl Import<'_> {
    /// Prunes the target if everything has arrived.
    pub(super) async fn prune(&self, report: &mut ImportReport, bundle: &Bundle) {
        let Some(options) = self.request.prune.as_ref().filter(|_| report.push.failure().is_none()) else { return };
        if report.push.outcome() != Outcome::Done {
            report.pruned = Some(Pruned::Skipped);
            return;
        }
        let events = &self.environment.events;
        let receipt = match &report.push {
            PushReport::Pushed(pushed) => Some(&pushed.receipt),
            PushReport::Planned(_) => None,
        };
        let interrupted = Interrupted { push: self.push, receipt, pruned: Vec::new() };
        let Ended { counts, pruned, failure, outcome } = match self.delete_unwanted(options, bundle, interrupted).await
        {
            Ok(ended) => ended,
            Err(error) => return report.push.fail(error, events),
        };
        report.pruned = Some(Pruned::Done(counts));
        let is_any = !pruned.is_empty();
        report.push.add_pruned(pruned);
        report.push.conclude(outcome);
        let kept = match &report.push {
            PushReport::Pushed(pushed) if is_any => self.push.write_receipt(&pushed.receipt),
            _ => Ok(()),
        };
        failure.into_iter().chain(kept.err()).for_each(|error| report.push.fail(error, events));
    }

    /// Deletes or lists the unwanted tags.
    ///
    /// # Errors
    /// Pruning could not start.
    async fn delete_unwanted(
        &self,
        options: &PruneOptions,
        bundle: &Bundle,
        interrupted: Interrupted<'_>,
    ) -> Result<Ended> {
        let (registries, events) = (self.push.connect()?, &self.environment.events);
        let images = &bundle.lock().images;
        let (names_of, _) = self.push.name_images(images.iter())?;
        // A signature that was an image in an earlier bundle can be a companion now.
        let beside = images.iter().zip(&names_of).flat_map(|(image, to)| image.companion_tags(&to.repository));
        let beside: Vec<Reference> = beside.map(|(tag, _)| tag).collect();
        let in_use = beside::BundleContents::new(images, &names_of);
        let wanted: BTreeSet<Reference> = names_of.into_iter().chain(beside).collect();
        let asked = options.delete && !self.request.push.dry_run;
        let deletes = asked && options.arrived.is_some();
        let names = names(self.push, bundle)?;
        let path = names.first().map_or("", |one| one.tag.repository.path());
        let account = Account { registry: self.push.registry(), path };
        let is_harbor = deletes && is_harbor(&registries, account).await?;
        let mut pruning =
            Pruning { registries: &registries, events, deletes, is_harbor, interrupted, failures: Vec::new() };
        let mut left_by = beside::Left::default();
        for one in names {
            let decision = match pruning.decide(&one, &wanted).await {
                Ok(decision) => decision,
                // The tags deleted so far are reported anyway.
                Err(error) => {
                    pruning.failures.push(error);
                    continue;
                }
            };
            if decision == Decision::Blocked {
                let text = format!("{} is left: this account may not read its present digest", one.tag);
                events.report(Event::Warning(text));
            }
            let companions = options.arrived.as_ref().map(|arrived| arrived.images.get(&one));
            // An earlier run can have ended after deleting the tag and before deleting its companions.
            if let (Decision::Gone, Some(Some(companions))) = (decision, companions) {
                left_by.add(&one.tag, companions);
            }
            if decision != Decision::Deleted {
                tracing::debug!("{}: {decision:?}, so it is left alone", one.tag);
                continue;
            }
            let Some(companions) = companions.unwrap_or(Some(&Vec::new())).cloned() else {
                let text =
                    format!("{} is left: no receipt of --arrived lists {} as brought by gapferry", one.tag, one.digest);
                events.report(Event::Warning(text));
                continue;
            };
            if pruning.delete_tag(&one).await {
                left_by.add(&one.tag, &companions);
            }
        }
        let tags = pruning.interrupted.pruned.len();
        let has_unclear = left_by.prune(&mut pruning, &in_use).await;
        let counts = pruning.counts(tags, options.arrived.is_some());
        let Pruning { interrupted, failures, .. } = pruning;
        let pruned = interrupted.disarm();
        // Tags should have been deleted, and were not.
        let refused = asked && !deletes && !pruned.is_empty();
        let is_left = pruned.iter().any(|one| one.outcome == PrunedOutcome::Left);
        let outcome = if refused || is_left || has_unclear { Outcome::SomeImagesFailed } else { Outcome::Done };
        let failure = (!failures.is_empty()).then(|| Failures(failures).into_error("deleting tags"));
        Ok(Ended { counts, pruned, failure, outcome })
    }
}

/// The state of pruning, and where it is reported.
struct Pruning<'a> {
    registries: &'a Registries,
    events: &'a Events,
    /// Whether tags are deleted; otherwise they are listed.
    deletes: bool,
    is_harbor: bool,
    interrupted: Interrupted<'a>,
    failures: Vec<Error>,
}

/// The tags and companions handled so far. If the command is dropped early, they are written to the receipt: Ctrl-C must
/// not lose the record of what was deleted.
struct Interrupted<'a> {
    push: &'a Push<'a>,
    /// The receipt of the push. `None` in a dry run, which writes no receipt.
    receipt: Option<&'a Receipt>,
    pruned: Vec<PrunedReceipt>,
}

impl Interrupted<'_> {
    /// Returns the entries at the regular end, where the receipt is written.
    fn disarm(mut self) -> Vec<PrunedReceipt> {
        std::mem::take(&mut self.pruned)
    }
}

impl Drop for Interrupted<'_> {
    fn drop(&mut self) {
        let pruned = std::mem::take(&mut self.pruned);
        let Some(receipt) = self.receipt.filter(|_| !pruned.is_empty()) else { return };
        if let Err(error) = self.push.write_receipt(&Receipt { pruned, ..receipt.clone() }) {
            tracing::warn!(error = %error.chain(), "the receipt does not list what was deleted");
        }
    }
}

/// The answer of a registry to a deletion.
struct Deletion<'a> {
    reference: &'a Reference,
    digest: Digest,
    /// For a companion: its subject and its kind.
    about: Option<(Digest, &'a str)>,
    /// `None` if it is only listed.
    result: Option<Result<TagDeletion>>,
    /// Why it is left if the registry cannot delete it.
    unsupported: &'a str,
}

impl Pruning<'_> {
    /// Decides about a tag. If a policy of the project forbids reading the tag, Harbor's own API might return its digest.
    async fn decide(&self, one: &PruneCandidate, wanted: &BTreeSet<Reference>) -> Result<Decision> {
        let decision = decide(self.registries, one, wanted).await?;
        let is_harbor = self.is_harbor
            || decision == Decision::Blocked
                && harbor::detect(self.registries, Account::of(&one.tag.repository)).await?.harbor().is_some();
        if decision != Decision::Blocked || !is_harbor {
            return Ok(decision);
        }
        Ok(match harbor::tag_digest(self.registries, &one.tag).await? {
            Some(found) if found == one.digest => Decision::Deleted,
            Some(_) => Decision::Moved,
            None => Decision::Blocked,
        })
    }

    /// Deletes a tag. Returns whether it is gone, or would be.
    async fn delete_tag(&mut self, one: &PruneCandidate) -> bool {
        let deleted = match self.deletes {
            true if self.is_harbor => Some(delete_in_harbor(self.registries, one).await),
            true => Some(self.registries.delete_tag(&one.tag).await),
            false => None,
        };
        if let Some(Ok(TagDeletion::Deleted)) = deleted {
            self.registries.forget_tag(&one.tag);
        }
        let unsupported = "its registry cannot delete a tag without its manifest";
        self.note(Deletion { reference: &one.tag, digest: one.digest, about: None, result: deleted, unsupported })
    }

    /// Harbor's own API requires fewer rights of an account than the protocol does.
    async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<TagDeletion> {
        match self.is_harbor && harbor::delete_artifact(self.registries, repository, digest).await? {
            true => Ok(TagDeletion::Deleted),
            false => self.registries.delete_manifest(repository, digest).await,
        }
    }

    /// Reports and records one deletion. Returns whether the reference is gone, or would be.
    fn note(&mut self, Deletion { reference, digest, about, result, unsupported }: Deletion<'_>) -> bool {
        let left = |why: &str| {
            self.events.report(Event::Warning(format!("{reference} is left: {why}")));
            PrunedOutcome::Left
        };
        let subject = about.map(|(subject, _)| subject);
        let about = about.map_or_else(String::new, |(subject, what)| format!(", {what} of {}", subject.short()));
        let outcome = match result {
            None => {
                self.events.report(Event::Status(format!("would delete {reference} ({}{about})", digest.short())));
                PrunedOutcome::Listed
            }
            Some(Ok(TagDeletion::Deleted)) => {
                self.events.report(Event::Status(format!("deleted {reference} (it was {digest}{about})")));
                PrunedOutcome::Deleted
            }
            Some(Ok(TagDeletion::Unsupported)) => left(unsupported),
            Some(Ok(TagDeletion::SwitchedOff)) => {
                left("deletion is switched off at its registry (distribution: storage.delete.enabled)")
            }
            Some(Err(error)) => {
                self.failures.push(error);
                PrunedOutcome::Left
            }
        };
        self.interrupted.pruned.push(PrunedReceipt { reference: reference.clone(), digest, subject, outcome });
        outcome != PrunedOutcome::Left
    }

    /// Counts the results. The first `tags` entries are tags of images, the others companions.
    fn counts(&self, tags: usize, has_receipts: bool) -> PruneReport {
        let (images, companions) = self.interrupted.pruned.split_at(tags);
        let deleted = |of: &[PrunedReceipt]| of.iter().filter(|one| one.outcome == PrunedOutcome::Deleted).count();
        PruneReport {
            tags: images.len(),
            deleted_tags: deleted(images),
            companions: companions.len(),
            deleted_companions: deleted(companions),
            deletes: self.deletes,
            has_receipts,
        }
    }
}

/// Returns the candidates. Only tags count: untagged manifests are cleaned up by the registry.
fn names(push: &Push<'_>, bundle: &Bundle) -> Result<BTreeSet<PruneCandidate>> {
    let mut names = BTreeSet::new();
    for removed in &bundle.json().removed {
        let tag = match removed.target.as_ref().filter(|target| push.is_below(target)) {
            Some(target) => target.clone(),
            None => push.name_images(std::iter::once(&as_locked(removed)))?.0.remove(0),
        };
        if tag.tag.is_some() && tag.digest.is_none() {
            names.insert(PruneCandidate { tag, digest: removed.digest });
        }
    }
    Ok(names)
}

/// Converts an entry to the type that naming needs.
fn as_locked(removed: &Removed) -> LockedImage {
    LockedImage {
        reference: removed.reference.clone(),
        rename: removed.rename.clone(),
        source: String::new(),
        digest: removed.digest,
        media_type: String::new(),
        size: 0,
        total_size: 0,
        platforms: Vec::new(),
        selection: None,
        absent: Vec::new(),
        attached: None,
        attached_unknown: false,
    }
}

/// Whether tags are deleted with Harbor's API.
///
/// # Errors
/// The registry is Harbor, and its API does not answer.
async fn is_harbor(registries: &Registries, account: Account<'_>) -> Result<bool> {
    match harbor::detect(registries, account).await? {
        Detected::Harbor(_) => Ok(true),
        Detected::Another => Ok(false),
        Detected::Unclear(error) => {
            let text = "it is Harbor, and its API does not answer; nothing was deleted";
            let text = format!("deleting tags at {}: {text}", account.registry);
            Err(Error::new(error.kind(), text).because(error))
        }
    }
}

/// Deletes one tag with Harbor's own API: the protocol would delete all tags of the image.
async fn delete_in_harbor(registries: &Registries, candidate: &PruneCandidate) -> Result<TagDeletion> {
    match harbor::delete_tag(registries, &candidate.tag, &candidate.digest).await? {
        true => Ok(TagDeletion::Deleted),
        false => Ok(TagDeletion::Unsupported),
    }
}
