//! Writes the images of a storage as `dir:` directories of skopeo.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::collect::Collected;
use super::disk_full::DiskFull;
use super::inside::{refuse_inside, storage_below};
use super::report::{Ended, MigrateOutcome};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Events, Phase};
use crate::content::{LinkMode, in_parallel};
use crate::pipeline::graph::Image;
use crate::transport::dir::{ImageDirectory, ImageWrite, Parts};
use crate::transport::storage::{Storage, Tagged};

/// Percentage of images after which the data written so far is synced while the others are written. This shortens the wait
/// at the end.
const SYNC_EARLY: usize = 75;

/// Writes every complete image.
///
/// # Errors
/// The directory cannot be created, or is inside the storage. An error of one image only fails that image.
pub fn write(storage: &Storage, collected: &Collected, to: &Path, link: LinkMode, events: &Events) -> Result<Ended> {
    refuse_inside(storage, to)?;
    let images = ImageDirectory::create(to, link, events.clone())?;
    let whole: Vec<(&Tagged, &Image)> = collected.whole().collect();
    events.report(Event::Phase { phase: Phase::Publish, items: whole.len() as u64, bytes: 0 });
    let below = storage_below(storage, to);
    let disk_full = DiskFull::default();
    let (written, synced) = write_all(&images, &whole, storage, below.as_deref(), &disk_full, events);
    let outcome = |written| match written {
        Ok(ImageWrite::New) => MigrateOutcome::Written,
        Ok(ImageWrite::Kept) => MigrateOutcome::Present,
        Err(error) => MigrateOutcome::Failed(Error::chain(&error)),
    };
    let failure = disk_full.check().and(synced).err();
    let outcomes = written.into_iter().map(outcome).collect();
    Ok(Ended { outcomes, linked: images.linked(), copied: images.copied(), failure, ..Ended::default() })
}

/// Returns the result for each image, and the result of syncing.
fn write_all(
    images: &ImageDirectory,
    whole: &[(&Tagged, &Image)],
    storage: &Storage,
    below: Option<&Path>,
    disk_full: &DiskFull,
    events: &Events,
) -> (Vec<Result<ImageWrite>>, Result<()>) {
    let (early, new) = (Mutex::new(Ok(())), AtomicUsize::new(0));
    let sync_early = || *early.lock().unwrap_or_else(PoisonError::into_inner) = images.sync();
    let written = std::thread::scope(|scope| {
        in_parallel(whole, |(found, image)| {
            let written = match below.is_some_and(|below| Path::new(&found.name()).starts_with(below)) {
                true => Err(Error::input(format!("image {}: its directory would be inside the storage", found.name()))),
                false => disk_full.unless(|| write_image(images, found, image, storage)),
            };
            if matches!(written, Ok(ImageWrite::New))
                && new.fetch_add(1, Ordering::Relaxed) == whole.len() * SYNC_EARLY / 100
            {
                scope.spawn(sync_early);
            }
            events.report(Event::ItemDone);
            written
        })
    });
    // A failed image can have left files as well. If everything already existed, nothing needs to be synced.
    let has_changed = written.iter().any(|written| !matches!(written, Ok(ImageWrite::Kept)));
    // A sync reports each error only once.
    let early = early.into_inner().unwrap_or_else(PoisonError::into_inner);
    (written, early.and_then(|()| if has_changed { images.sync() } else { Ok(()) }))
}

fn write_image(images: &ImageDirectory, found: &Tagged, image: &Image, storage: &Storage) -> Result<ImageWrite> {
    let name = found.name();
    let context = |error: Error| error.while_doing(format!("image {name}"));
    let root = image.root().ok_or_else(|| context(Error::new(Kind::NotFound, "its manifest was not read")))?;
    let manifests = image.manifests.iter().filter(|manifest| manifest.digest() != root.digest()).collect();
    let parts = Parts { root, manifests, blobs: &image.blobs, repository: &found.repository };
    images.write(&name, &parts, storage).map_err(context)
}
