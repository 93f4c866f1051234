//! `import --prune`: tags of images that are not wanted any more are listed, and with `--yes` deleted.

use std::collections::BTreeSet;

use super::Args;
use crate::bundle::{Bundle, Removed};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::push::Push;
use crate::content::Sink;
use crate::error::Result;
use crate::harbor;
use crate::increment::{Doomed, Fate, judge};
use crate::lock::LockedImage;
use crate::oci::Reference;
use crate::progress::Event;
use crate::progress::units::count;
use crate::resolve::Failures;
use crate::transport::registry::Registries;

/// What `--prune` asks for, when everything has arrived.
///
/// # Errors
/// As [`run`].
pub async fn after(
    ended: Outcome,
    args: &Args,
    push: &Push<'_>,
    bundle: &Bundle,
    context: &Context,
) -> Result<Outcome> {
    match (args.prune, ended) {
        (true, Outcome::Done) => run(args, push, bundle, context).await?,
        (true, _) => context.say("nothing is pruned: not all images have arrived"),
        (false, _) => {}
    }
    Ok(ended)
}

/// # Errors
/// Every tag that the registry should have deleted and did not.
async fn run(args: &Args, push: &Push<'_>, bundle: &Bundle, context: &Context) -> Result<()> {
    let registries = push.connect(context)?;
    let images = &bundle.lock().images;
    let (names_of, _) = push.name_images(images.iter())?;
    // A signature that was an image of its own may be one that travels along by now.
    let beside = images.iter().zip(&names_of).flat_map(|(image, to)| image.companion_tags(&to.repository));
    let beside: Vec<Reference> = beside.map(|(tag, _)| tag).collect();
    let wanted: BTreeSet<Reference> = names_of.into_iter().chain(beside).collect();
    let delete = args.yes && !args.push.is_dry_run();
    let mut failures = Vec::new();
    let (mut doomed, mut left) = (0, 0);
    for one in names(push, bundle)? {
        let fate = judge(&registries, &one, &wanted).await?;
        if fate != Fate::Deleted {
            tracing::debug!("{}: {fate:?}, so it is left alone", one.tag);
            continue;
        }
        doomed += 1;
        if !delete {
            context.say(&format!("would delete {} ({})", one.tag, one.digest.short()));
            continue;
        }
        match delete_tag(&registries, push, &one).await {
            Ok(true) => context.say(&format!("deleted {} (it was {})", one.tag, one.digest)),
            Ok(false) => {
                left += 1;
                let text = format!("{} is left: its registry cannot delete a tag without its manifest", one.tag);
                context.events.report(Event::Warning(text));
            }
            Err(error) => failures.push(error),
        }
    }
    let tags = count(doomed, "tag");
    context.say(&match delete {
        _ if doomed == 0 => "nothing to prune".to_owned(),
        true => format!("{} of {tags} deleted", doomed - left - failures.len()),
        false => format!("{tags} to prune; --yes deletes them"),
    });
    if failures.is_empty() { Ok(()) } else { Err(Failures(failures).into_error("deleting tags")) }
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
    }
}

/// Harbor takes away a tag through its own API only; through the protocol all tags of the image would go.
async fn delete_tag(registries: &Registries, push: &Push<'_>, doomed: &Doomed) -> Result<bool> {
    match harbor::detect(registries, push.registry()).await? {
        Some(_) => harbor::delete_tag(registries, &doomed.tag, &doomed.digest).await,
        None => registries.delete_tag(&doomed.tag).await,
    }
}
