//! The images of a storage as skopeo's `dir:` directories.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::closed::Closed;
use super::collect::Collected;
use super::faults;
use super::report::{Asked, Ended, Fate};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::units::{bytes, count, duration};
use crate::base::progress::{Event, Phase};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::content::{LinkMode, in_parallel};
use crate::pipeline::graph::Image;
use crate::transport::dir::{Images, Parts, Written};
use crate::transport::storage::{Storage, Tagged};

/// When so much is written it goes to the medium, while the rest is made: then there is less to wait for at the end. In
/// percent of the images.
const SYNC_EARLY: usize = 75;

/// Writes every whole image to where it was asked for; what is wrong with the others is told.
///
/// # Errors
/// That cannot be made, or lies in the storage; the disk is full or read-only. What befalls one image costs that one.
pub fn write(
    storage: &Storage,
    collected: &Collected,
    mode: LinkMode,
    asked: &Asked<'_>,
    context: &Context,
) -> Result<Outcome> {
    super::refuse_inside(storage, asked.to)?;
    let images = Images::create(asked.to, mode, context.events.clone())?;
    let whole: Vec<(&Tagged, &Image)> = collected.whole().collect();
    context.events.report(Event::Phase { phase: Phase::Publish, items: whole.len() as u64, bytes: 0 });
    let below = super::storage_below(storage, asked.to);
    let closed = Closed::default();
    let (written, synced) = write_all(&images, &whole, storage, (below.as_deref(), &closed), context);
    context.end();
    faults::tell(&collected.faults, context);
    closed.check()?;
    let (mut new, mut kept) = (0, 0);
    let fates = written.into_iter().map(|written| match written {
        Ok(Written::New) => {
            new += 1;
            Fate::Written
        }
        Ok(Written::Kept) => {
            kept += 1;
            Fate::Present
        }
        Err(error) => {
            context.failed_image(&error.chain(), None);
            Fate::Failed(error.chain())
        }
    });
    let fates = fates.collect();
    synced?;
    let ended = Ended { fates, linked: images.linked(), copied: images.copied(), bundle: None };
    let failed = ended.failed(collected);
    let kept = if kept > 0 { format!(", {} there already", count(kept, "image")) } else { String::new() };
    let lost = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    let copied = if images.copied() > 0 { format!(", {} copied", bytes(images.copied())) } else { String::new() };
    context.say(&format!(
        "{}: {} written{kept}{lost}; {} linked{copied}, {}; {}",
        asked.to.display(),
        count(new, "image"),
        count(usize::try_from(images.linked()).unwrap_or(usize::MAX), "blob"),
        faults::counted(&collected.faults),
        duration(asked.started.elapsed()),
    ));
    ended.finish(collected, asked, context)
}

/// What became of each; and what the medium says to all of it.
fn write_all(
    images: &Images,
    whole: &[(&Tagged, &Image)],
    storage: &Storage,
    (below, closed): (Option<&Path>, &Closed),
    context: &Context,
) -> (Vec<Result<Written>>, Result<()>) {
    let (early, new) = (Mutex::new(Ok(())), AtomicUsize::new(0));
    let sync_early = || *early.lock().unwrap_or_else(PoisonError::into_inner) = images.sync();
    let written = std::thread::scope(|scope| {
        in_parallel(whole, |(found, image)| {
            let written = match below.is_some_and(|below| Path::new(&found.name()).starts_with(below)) {
                true => Err(Error::input(format!("image {}: its directory would lie in the storage", found.name()))),
                false => closed.unless(|| write_image(images, found, image, storage)),
            };
            if matches!(written, Ok(Written::New))
                && new.fetch_add(1, Ordering::Relaxed) == whole.len() / 100 * SYNC_EARLY
            {
                scope.spawn(sync_early);
            }
            context.events.report(Event::ItemDone);
            written
        })
    });
    // A failed image may have left something, too; where all was there already, there is nothing to wait for.
    let has_changed = written.iter().any(|written| !matches!(written, Ok(Written::Kept)));
    // The medium tells each of its errors once.
    let early = early.into_inner().unwrap_or_else(PoisonError::into_inner);
    (written, early.and_then(|()| if has_changed { images.sync() } else { Ok(()) }))
}

fn write_image(images: &Images, found: &Tagged, image: &Image, storage: &Storage) -> Result<Written> {
    let name = found.name();
    let context = |error: Error| error.while_doing(format!("image {name}"));
    let root = image.root().ok_or_else(|| context(Error::new(Kind::NotFound, "its manifest is not among its own")))?;
    let manifests = image.manifests.iter().filter(|manifest| manifest.digest() != root.digest()).collect();
    let parts = Parts { root, manifests, blobs: &image.blobs, repository: &found.repository };
    images.write(&name, &parts, storage).map_err(context)
}
