//! `import --prune`: tags of images that are not wanted any more are listed, and with `--yes` deleted.
//!
//! # Threats
//! The bundle says what is not wanted any more, out of a receipt that anybody could have forged before the bundle was signed.
//! Only what a receipt of this side says was brought is deleted.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use super::Args;
use crate::bundle::{Bundle, Removed};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::push::Push;
use crate::cli::receipts;
use crate::cli::signing::public;
use crate::content::{Sink, TagDeletion};
use crate::error::{Error, Result};
use crate::harbor;
use crate::increment::{Doomed, Fate, judge};
use crate::lock::LockedImage;
use crate::oci::Reference;
use crate::progress::Event;
use crate::progress::units::count;
use crate::receipt::{ImageOutcome, ImageReceipt, ReceiptKind};
use crate::resolve::Failures;
use crate::transport::registry::Registries;

#[derive(clap::Args)]
pub struct PruneArgs {
    /// Afterwards list tags of images that are not wanted any more
    ///
    /// Images that were in what the bundle builds on, and are not in its allowlist. --yes with --arrived deletes these tags, if
    /// they still mean what they meant then; with --newer-than, an old bundle cannot take away what came later. Registries that cannot delete a tag
    /// alone (distribution before 3.0) keep it, and gapferry says so. Manifests and layers are for the registry to clean up, and so are
    /// the tags of signatures (sha256-….sig): the same image may have other names.
    #[arg(long, help_heading = "Pushing", hide_short_help = true)]
    prune: bool,
    /// With --prune and --arrived: delete them
    #[arg(long, requires = "prune", help_heading = "Pushing", hide_short_help = true)]
    yes: bool,
    /// Prune only what this receipt says gapferry brought
    ///
    /// Repeatable. A receipt of an earlier import (--receipt) that was kept on this side. What the bundle says is no proof: it
    /// follows a receipt that crossed the gap. No inventory: that lists what others brought, too.
    #[arg(long, value_name = "RECEIPT", requires = "prune", help_heading = "Pushing", hide_short_help = true)]
    arrived: Vec<PathBuf>,
    /// Refuse what --arrived names if this public key has not signed it
    ///
    /// Repeatable: one of them has to have. The signature stands beside the receipt, in FILE.sig, where --sign-key puts it.
    #[arg(long, value_name = "FILE", requires = "arrived", help_heading = "Pushing", hide_short_help = true)]
    arrived_key: Vec<PathBuf>,
}

/// Tags that gapferry brought, with what they meant then. `None`: no receipt was named.
pub struct Arrived(Option<HashSet<Doomed>>);

impl PruneArgs {
    /// Reads the receipts of `--arrived`, before anything is pushed.
    ///
    /// # Errors
    /// One that cannot be read, is an inventory, or is not signed as it should be.
    pub fn arrived(&self, context: &Context) -> Result<Arrived> {
        if self.arrived.is_empty() {
            return Ok(Arrived(None));
        }
        let keys = self.arrived_key.iter().map(|key| public(key)).collect::<Result<Vec<_>>>()?;
        let mut brought = HashSet::new();
        for path in &self.arrived {
            let receipt = receipts::read(path, &keys, "--arrived-key", context)?;
            if receipt.kind == ReceiptKind::Inventory {
                let text = "is an inventory, which does not say who brought what is there; --arrived takes receipts";
                return Err(Error::input(format!("{} {text}", path.display())));
            }
            brought.extend(receipt.images.into_iter().filter_map(came));
        }
        Ok(Arrived(Some(brought)))
    }
}

fn came(image: ImageReceipt) -> Option<Doomed> {
    let came = matches!(image.outcome, ImageOutcome::Pushed | ImageOutcome::Present);
    let (tag, digest) = (image.reference.filter(|_| came)?, image.digest?);
    Some(Doomed { tag, digest })
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
        (true, _) => context.say("nothing is pruned: not all images have arrived"),
        (false, _) => {}
    }
    Ok(ended)
}

/// # Errors
/// Every tag that the registry should have deleted and did not.
async fn run(args: &Args, push: &Push<'_>, bundle: &Bundle, arrived: &Arrived, context: &Context) -> Result<Outcome> {
    let registries = push.connect(context)?;
    let images = &bundle.lock().images;
    let (names_of, _) = push.name_images(images.iter())?;
    // A signature that was an image of its own may be one that travels along by now.
    let beside = images.iter().zip(&names_of).flat_map(|(image, to)| image.companion_tags(&to.repository));
    let beside: Vec<Reference> = beside.map(|(tag, _)| tag).collect();
    let wanted: BTreeSet<Reference> = names_of.into_iter().chain(beside).collect();
    let asked = args.prune.yes && !args.push.is_dry_run();
    let delete = asked && arrived.0.is_some();
    let mut failures = Vec::new();
    let (mut doomed, mut left) = (0, 0);
    for one in names(push, bundle)? {
        let fate = judge(&registries, &one, &wanted).await?;
        if fate == Fate::Blocked {
            let text = format!("{} is left: a policy of its project forbids reading which image it means now", one.tag);
            context.events.report(Event::Warning(text));
        }
        if fate != Fate::Deleted {
            tracing::debug!("{}: {fate:?}, so it is left alone", one.tag);
            continue;
        }
        if arrived.0.as_ref().is_some_and(|brought| !brought.contains(&one)) {
            let text = format!("{} stays: no receipt of --arrived says that gapferry brought {}", one.tag, one.digest);
            context.events.report(Event::Warning(text));
            continue;
        }
        doomed += 1;
        if !delete {
            context.say(&format!("would delete {} ({})", one.tag, one.digest.short()));
            continue;
        }
        match delete_tag(&registries, push, &one).await {
            Ok(TagDeletion::Deleted) => context.say(&format!("deleted {} (it was {})", one.tag, one.digest)),
            Ok(TagDeletion::Unsupported) => {
                left += 1;
                let text = format!("{} is left: its registry cannot delete a tag without its manifest", one.tag);
                context.events.report(Event::Warning(text));
            }
            Ok(TagDeletion::SwitchedOff) => {
                left += 1;
                let text = "deletion is switched off at its registry (distribution: storage.delete.enabled)";
                context.events.report(Event::Warning(format!("{} is left: {text}", one.tag)));
            }
            Err(error) => failures.push(error),
        }
    }
    let tags = count(doomed, "tag");
    context.say(&match delete {
        _ if doomed == 0 => "nothing to prune".to_owned(),
        true => format!("{} of {tags} deleted", doomed - left - failures.len()),
        false if arrived.0.is_some() => format!("{tags} to prune; --yes deletes them"),
        false => format!(
            "{tags} to prune; --yes deletes those that gapferry brought: name the receipts that were kept here by --arrived FILE"
        ),
    });
    if !failures.is_empty() {
        return Err(Failures(failures).into_error("deleting tags"));
    }
    // Something was to be deleted, and was not.
    let refused = asked && !delete && doomed > 0;
    Ok(if refused || left > 0 { Outcome::SomeImagesFailed } else { Outcome::Done })
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

/// Harbor takes away a tag through its own API only; through the protocol all tags of the image would go.
async fn delete_tag(registries: &Registries, push: &Push<'_>, doomed: &Doomed) -> Result<TagDeletion> {
    match harbor::detect(registries, push.registry()).await? {
        Some(_) => match harbor::delete_tag(registries, &doomed.tag, &doomed.digest).await? {
            true => Ok(TagDeletion::Deleted),
            false => Ok(TagDeletion::Unsupported),
        },
        None => registries.delete_tag(&doomed.tag).await,
    }
}
