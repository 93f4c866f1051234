//! `import --prune`: tags of images that are not wanted any more are listed, and with `--yes` deleted.
//!
//! # Threats
//! The bundle says what is not wanted any more, out of a receipt that anybody could have forged before the bundle was signed.
//! Only what a receipt of this side says was brought is deleted; of companions see [`crate::increment::orphans`].

mod beside;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use super::Args;
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::base::progress::units::count;
use crate::bundle::{Bundle, Removed};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::push::Push;
use crate::cli::receipts;
use crate::cli::signing::public;
use crate::content::{Account, Sink, TagDeletion};
use crate::increment::{Doomed, Fate, judge};
use crate::oci::{Digest, Reference, Repository};
use crate::pipeline::harbor::{self, Detected};
use crate::pipeline::lock::LockedImage;
use crate::pipeline::receipt::{
    Brought, CompanionReceipt, ImageOutcome, ImageReceipt, PrunedOutcome, PrunedReceipt, ReceiptKind,
};
use crate::pipeline::resolve::Failures;
use crate::transport::registry::Registries;

#[derive(clap::Args)]
pub struct PruneArgs {
    /// Afterwards list tags of images that are not wanted any more
    ///
    /// Images that were in what the bundle builds on, and are not in its allowlist. --yes with --arrived deletes these tags, if
    /// they still mean what they meant then; with --newer-than, an old bundle cannot take away what came later. Registries that cannot delete a tag
    /// alone (distribution before 3.0) keep it, and gapferry says so. Signatures, SBOMs and other companions that gapferry brought go,
    /// too, when no tag leads to what they speak of; what was signed on this side stays. Manifests of images and layers are for
    /// the registry to clean up.
    #[arg(long, help_heading = "Pushing", hide_short_help = true)]
    prune: bool,
    /// With --prune and --arrived: delete them
    #[arg(long, requires = "prune", help_heading = "Pushing", hide_short_help = true)]
    yes: bool,
    /// Prune only what this receipt says gapferry brought
    ///
    /// Repeatable. Receipts of earlier imports (--receipt) that were kept on this side. What an import only found there does not count:
    /// somebody here may have pushed it. A receipt that is written over an earlier one still says what that one says was pushed; so
    /// does one of an import with --arrived. Ctrl-C leaves a receipt, too. What an import has pushed that was killed, or had no
    /// --receipt, is to be deleted by hand. What the bundle says is no proof: it follows a receipt that crossed the gap. No
    /// inventory: that lists what others brought, too.
    #[arg(long, value_name = "RECEIPT", requires = "prune", help_heading = "Pushing", hide_short_help = true)]
    arrived: Vec<PathBuf>,
    /// Refuse what --arrived names if this public key has not signed it
    ///
    /// Repeatable: one of them has to have. The signature stands beside the receipt, in FILE.sig, where --sign-key puts it.
    #[arg(long, value_name = "FILE", requires = "arrived", help_heading = "Pushing", hide_short_help = true)]
    arrived_key: Vec<PathBuf>,
}

/// What the receipts of `--arrived` say that gapferry brought.
#[derive(Default)]
pub struct Arrived {
    /// Tags, with what they meant then and what came with that. `None`: no receipt was named.
    images: Option<HashMap<Doomed, Vec<CompanionReceipt>>>,
    brought: Brought,
    /// Their signatures were checked.
    is_signed: bool,
}

impl Arrived {
    /// What the receipt of this import can say of them. One that `is_signed` believes only what was signed.
    pub fn for_receipt(&self, is_signed: bool) -> Brought {
        if is_signed && !self.is_signed { Brought::default() } else { self.brought.clone() }
    }
}

impl PruneArgs {
    pub fn is_asked_for(&self) -> bool {
        self.prune
    }

    /// Reads the receipts of `--arrived`, before anything is pushed.
    ///
    /// # Errors
    /// One that cannot be read, is an inventory, or is not signed as it should be.
    pub fn arrived(&self, context: &Context) -> Result<Arrived> {
        if self.arrived.is_empty() {
            return Ok(Arrived::default());
        }
        let keys = self.arrived_key.iter().map(|key| public(key)).collect::<Result<Vec<_>>>()?;
        let (mut brought, mut receipts) = (Brought::default(), Vec::new());
        for path in &self.arrived {
            let receipt = receipts::read(path, &keys, "--arrived-key", context)?;
            if receipt.kind == ReceiptKind::Inventory {
                let text = "is an inventory, which does not say who brought what is there; --arrived takes receipts";
                return Err(Error::input(format!("{} {text}", path.display())));
            }
            brought.add(&receipt);
            receipts.push(receipt);
        }
        // One may have found there what another one says was pushed.
        receipts.iter_mut().for_each(|receipt| brought.mark(receipt));
        let mut images: HashMap<Doomed, Vec<CompanionReceipt>> = HashMap::new();
        for (image, companions) in receipts.into_iter().flat_map(|receipt| receipt.images).filter_map(came) {
            images.entry(image).or_default().extend(companions);
        }
        Ok(Arrived { images: Some(images), brought, is_signed: !keys.is_empty() })
    }
}

fn came(image: ImageReceipt) -> Option<(Doomed, Vec<CompanionReceipt>)> {
    let came = image.brought || image.outcome == ImageOutcome::Pushed;
    let (tag, digest) = (image.reference.filter(|_| came)?, image.digest?);
    let companions = image.companions.into_iter().filter(CompanionReceipt::is_brought).collect();
    Some((Doomed { tag, digest }, companions))
}

/// What `--prune` asks for, when everything has arrived.
///
/// # Errors
/// As [`run`].
pub async fn after(
    ended: Outcome,
    args: &Args,
    push: &Push<'_>,
    bundle: &Bundle,
    arrived: &Arrived,
    context: &Context,
) -> Result<Outcome> {
    match (args.prune.prune, ended) {
        (true, Outcome::Done) => return run(args, push, bundle, arrived, context).await,
        (true, _) => context.say("nothing is pruned: not everything has arrived"),
        (false, _) => {}
    }
    Ok(ended)
}

/// What has been pruned so far, and where it is reported.
struct Pruning<'a> {
    registries: &'a Registries,
    context: &'a Context,
    /// Otherwise it is listed.
    deletes: bool,
    is_harbor: bool,
    pruned: Vec<PrunedReceipt>,
    failures: Vec<Error>,
}

/// # Errors
/// Everything that the registry should have deleted and did not.
async fn run(args: &Args, push: &Push<'_>, bundle: &Bundle, arrived: &Arrived, context: &Context) -> Result<Outcome> {
    let registries = push.connect(context)?;
    let images = &bundle.lock().images;
    let (names_of, _) = push.name_images(images.iter())?;
    // A signature that was an image of its own may be one that travels along by now.
    let beside = images.iter().zip(&names_of).flat_map(|(image, to)| image.companion_tags(&to.repository));
    let beside: Vec<Reference> = beside.map(|(tag, _)| tag).collect();
    let in_use = beside::Wanted::new(images, &names_of);
    let wanted: BTreeSet<Reference> = names_of.into_iter().chain(beside).collect();
    let asked = args.prune.yes && !args.push.is_dry_run();
    let deletes = asked && arrived.images.is_some();
    let (pruned, failures) = Default::default();
    let names = names(push, bundle)?;
    let path = names.first().map_or("", |one| one.tag.repository.path());
    let account = Account { registry: push.registry(), path };
    let is_harbor = deletes && is_harbor(&registries, account).await?;
    let mut pruning = Pruning { registries: &registries, context, deletes, is_harbor, pruned, failures };
    let mut left_by = beside::Left::default();
    for one in names {
        let fate = match pruning.judge(&one, &wanted).await {
            Ok(fate) => fate,
            // What was deleted until now is reported all the same.
            Err(error) => {
                pruning.failures.push(error);
                continue;
            }
        };
        if fate == Fate::Blocked {
            let text = format!("{} is left: this account may not read which image it means now", one.tag);
            context.events.report(Event::Warning(text));
        }
        let companions = arrived.images.as_ref().map(|brought| brought.get(&one));
        // An earlier run may have ended between a tag and its companions.
        if let (Fate::Gone, Some(Some(companions))) = (fate, companions) {
            left_by.add(&one.tag, companions);
        }
        if fate != Fate::Deleted {
            tracing::debug!("{}: {fate:?}, so it is left alone", one.tag);
            continue;
        }
        let Some(companions) = companions.unwrap_or(Some(&Vec::new())).cloned() else {
            let text = format!("{} stays: no receipt of --arrived says that gapferry brought {}", one.tag, one.digest);
            context.events.report(Event::Warning(text));
            continue;
        };
        if pruning.delete_tag(&one).await {
            left_by.add(&one.tag, &companions);
        }
    }
    let tags = pruning.pruned.len();
    let has_unclear = left_by.prune(&mut pruning, &in_use).await;
    pruning.tell(tags, arrived.images.is_some());
    let Pruning { pruned, failures, .. } = pruning;
    // Something was to be deleted, and was not.
    let refused = asked && !deletes && !pruned.is_empty();
    let is_left = pruned.iter().any(|one| one.outcome == PrunedOutcome::Left);
    let kept = push.complete(pruned);
    if !failures.is_empty() {
        return Err(Failures(failures).into_error("deleting tags"));
    }
    kept?;
    Ok(if refused || is_left || has_unclear { Outcome::SomeImagesFailed } else { Outcome::Done })
}

impl Pruning<'_> {
    /// What is to become of a tag. Where a policy of the project forbids reading it, Harbor's own API may say what it means.
    async fn judge(&self, one: &Doomed, wanted: &BTreeSet<Reference>) -> Result<Fate> {
        let fate = judge(self.registries, one, wanted).await?;
        let is_harbor = self.is_harbor
            || fate == Fate::Blocked
                && harbor::detect(self.registries, Account::of(&one.tag.repository)).await?.harbor().is_some();
        if fate != Fate::Blocked || !is_harbor {
            return Ok(fate);
        }
        Ok(match harbor::tag_digest(self.registries, &one.tag).await? {
            Some(found) if found == one.digest => Fate::Deleted,
            Some(_) => Fate::Moved,
            None => Fate::Blocked,
        })
    }

    /// Whether the tag is gone, or would be.
    async fn delete_tag(&mut self, one: &Doomed) -> bool {
        let deleted = match self.deletes {
            true if self.is_harbor => Some(delete_in_harbor(self.registries, one).await),
            true => Some(self.registries.delete_tag(&one.tag).await),
            false => None,
        };
        if let Some(Ok(TagDeletion::Deleted)) = deleted {
            self.registries.forget_tag(&one.tag);
        }
        let left = "its registry cannot delete a tag without its manifest";
        self.note(&one.tag, one.digest, (None, ""), (deleted, left))
    }

    /// Harbor's own API asks for less of an account than the protocol does.
    async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<TagDeletion> {
        match self.is_harbor && harbor::delete_artifact(self.registries, repository, digest).await? {
            true => Ok(TagDeletion::Deleted),
            false => self.registries.delete_manifest(repository, digest).await,
        }
    }

    /// Says what became of one, with what it speaks of and `what` it is if it is a companion. Whether it is gone, or would be.
    fn note(
        &mut self,
        reference: &Reference,
        digest: Digest,
        (subject, what): (Option<Digest>, &str),
        (deleted, unsupported): (Option<Result<TagDeletion>>, &str),
    ) -> bool {
        let left = |why: &str| {
            self.context.events.report(Event::Warning(format!("{reference} is left: {why}")));
            PrunedOutcome::Left
        };
        let told = subject.map_or_else(String::new, |subject| format!(", {what} of {}", subject.short()));
        let outcome = match deleted {
            None => {
                self.context.say(&format!("would delete {reference} ({}{told})", digest.short()));
                PrunedOutcome::Listed
            }
            Some(Ok(TagDeletion::Deleted)) => {
                self.context.say(&format!("deleted {reference} (it was {digest}{told})"));
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
        self.pruned.push(PrunedReceipt { reference: reference.clone(), digest, subject, outcome });
        outcome != PrunedOutcome::Left
    }

    /// The sum of it. The first `tags` are tags of images, the others companions.
    fn tell(&self, tags: usize, has_arrived: bool) {
        let (images, companions) = self.pruned.split_at(tags);
        let deleted = |of: &[PrunedReceipt]| of.iter().filter(|one| one.outcome == PrunedOutcome::Deleted).count();
        let and = |text: String| if companions.is_empty() { String::new() } else { text };
        let (tags, beside) = (count(images.len(), "tag"), count(companions.len(), "companion"));
        let more = and(format!(" and {beside}"));
        self.context.say(&match self.deletes {
            _ if self.pruned.is_empty() => "nothing to prune".to_owned(),
            true => {
                let more = and(format!(", {} of {beside}", deleted(companions)));
                format!("{} of {tags} deleted{more}", deleted(images))
            }
            false if has_arrived => format!("{tags}{more} to prune; --yes deletes them"),
            false => format!(
                "{tags} to prune; --yes deletes those that gapferry brought: name the receipts that were kept here by \
                 --arrived FILE"
            ),
        });
    }
}

/// Tags only: what has none is for the registry to clean up.
fn names(push: &Push<'_>, bundle: &Bundle) -> Result<BTreeSet<Doomed>> {
    let mut names = BTreeSet::new();
    for removed in &bundle.json().removed {
        let tag = match removed.target.as_ref().filter(|target| push.is_below(target)) {
            Some(target) => target.clone(),
            None => push.name_images(std::iter::once(&as_locked(removed)))?.0.remove(0),
        };
        if tag.tag.is_some() && tag.digest.is_none() {
            names.insert(Doomed { tag, digest: removed.digest });
        }
    }
    Ok(names)
}

/// What naming looks at.
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

/// Whether tags are deleted through Harbor's API.
///
/// # Errors
/// It is Harbor, and its API does not answer.
async fn is_harbor(registries: &Registries, account: Account<'_>) -> Result<bool> {
    match harbor::detect(registries, account).await? {
        Detected::Harbor(_) => Ok(true),
        Detected::Another => Ok(false),
        Detected::Unclear(error) => {
            let text = "it is Harbor, whose API does not answer; nothing was deleted";
            let text = format!("deleting tags at {}: {text}", account.registry);
            Err(Error::new(error.kind(), text).because(error))
        }
    }
}

/// Harbor takes away a tag through its own API only; through the protocol all tags of the image would go.
async fn delete_in_harbor(registries: &Registries, doomed: &Doomed) -> Result<TagDeletion> {
    match harbor::delete_tag(registries, &doomed.tag, &doomed.digest).await? {
        true => Ok(TagDeletion::Deleted),
        false => Ok(TagDeletion::Unsupported),
    }
}
