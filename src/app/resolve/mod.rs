//! Resolves an allowlist to a lock and a graph, or a lock to its graph. All commands that read images use this module.

mod notes;
mod options;
mod walk_file;

use std::path::Path;

use jiff::Timestamp;

use super::environment::Environment;
use super::local::{Text, read_bounded};
use super::outcome::Outcome;
use crate::base::document::Document;
use crate::base::error::{Error, Result};
use crate::base::position::ReferencePositions;
use crate::bundle::{Bundle, Form};
use crate::content::Cached;
use crate::pipeline::allowlist::Allowlist;
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::{Lock, MAX_LOCK, MissingImage, MissingReason};
use crate::pipeline::resolve::{self, Expanded, Failures, LeaveOut, TagLists};
use crate::pipeline::walk::{
    EarlierImages, FormerCompanions, LockedCompanions, Modes, Options, Platforms, Referrers, Walk,
};
use notes::{report_changed_companions, report_kept_companions, report_other_platforms, report_refused, report_walk};
pub use options::{ResolveOptions, connect_for};
pub(super) use walk_file::{finish_walk_file, report_obstacle};

/// What an earlier lock or bundle states about entries that are resolved again.
#[derive(Default)]
pub struct Earlier {
    /// Locks that supply the digests of immutable tags.
    locks: Vec<Lock>,
    modes: Modes,
    /// Companions that are kept if a registry does not answer.
    former: FormerCompanions,
    /// The platforms of single images, as far as the parent bundles of an export state them.
    platforms: Platforms,
}

impl Earlier {
    pub fn with_platforms(self, platforms: Platforms) -> Earlier {
        Earlier { platforms, ..self }
    }
}

/// A lock, and the positions of its images in its file.
pub struct WrittenLock {
    pub lock: Lock,
    pub written: ReferencePositions,
}

/// A running resolution.
pub struct Resolver<'a> {
    pub options: &'a ResolveOptions,
    /// Number of images resolved at the same time.
    pub jobs: usize,
    pub environment: &'a Environment,
}

impl Resolver<'_> {
    /// Resolves every entry, except immutable tags that `earlier` locks contain.
    ///
    /// # Errors
    /// Lists all images that could not be resolved and may not be left out.
    pub async fn resolve(&self, list: &Allowlist, earlier: Earlier, cached: &Cached<'_>) -> Result<(Lock, Graph)> {
        let events = &self.environment.events;
        let (walk, wanted, now) = self.begin(list, earlier, cached).await?;
        let found = resolve::discover(&walk, wanted, self.leave_out(), now, self.jobs, events).await;
        report_walk(&walk, events);
        let (lock, graph) = found.map_err(unresolved)?;
        report_other_platforms(&lock, events);
        if self.options.note_refused {
            report_refused(list, &graph, events);
        }
        Ok((Lock { load_platform: self.options.load_platform.clone(), ..lock }, graph))
    }

    /// As [`Resolver::resolve`], but returns only the lock.
    ///
    /// # Errors
    /// As for [`Resolver::resolve`].
    pub async fn pin(&self, list: &Allowlist, earlier: Earlier, cached: &Cached<'_>) -> Result<Lock> {
        let events = &self.environment.events;
        let (walk, wanted, now) = self.begin(list, earlier, cached).await?;
        let found = resolve::pin(&walk, wanted, self.leave_out(), now, self.jobs, events).await;
        report_walk(&walk, events);
        let lock = found.map_err(unresolved)?;
        report_other_platforms(&lock, events);
        Ok(Lock { load_platform: self.options.load_platform.clone(), ..lock })
    }

    /// Returns the walk, the images to find, and the present time.
    async fn begin<'c>(
        &self,
        list: &Allowlist,
        earlier: Earlier,
        cached: &'c Cached<'c>,
    ) -> Result<(Walk<'c>, Expanded, Timestamp)> {
        let now = self.environment.bundle_time()?.time;
        let Earlier { locks, modes, former, platforms } = earlier;
        let walk = self.walk(cached).with_known(self.known(locks)).with_modes(modes).with_former(former);
        let lists =
            TagLists { allow_empty: self.options.allow_empty, companions: self.options.referrers != Referrers::Leave };
        let events = &self.environment.events;
        let wanted = resolve::expand(cached, &list.rules, lists, self.leave_out(), self.jobs, events).await;
        Ok((walk.with_platforms(platforms), wanted.map_err(unresolved)?, now))
    }

    /// Follows an existing lock to its graph. The returned lock differs if images are left out or have other companions.
    ///
    /// # Errors
    /// Content of the lock no longer exists, or has changed.
    pub async fn follow(
        &self,
        WrittenLock { lock, written }: WrittenLock,
        companions: LockedCompanions,
        cached: &Cached<'_>,
    ) -> Result<(Lock, Graph)> {
        let events = &self.environment.events;
        let walk = self.walk(cached).with_companions(companions).with_written(written);
        let walk =
            walk.leaving_lost_companions(self.options.keep_going && self.options.referrers != Referrers::Require);
        let before = lock.images.clone();
        let followed = resolve::follow(&walk, lock, self.leave_out(), self.jobs, events).await;
        report_kept_companions(walk.kept_companions(), events);
        let (lock, graph) = followed.map_err(|failures| failures.into_error("following the lock"))?;
        report_other_platforms(&lock, events);
        let has_others = report_changed_companions(&before, &lock, &graph, cached, events).await;
        // A bundle that only lacks part of the lock keeps its time: the complete bundle has the same time, and must still
        // be accepted after it.
        let created = if has_others { self.environment.bundle_time()?.time } else { lock.created };
        Ok((Lock { created, ..lock }, graph))
    }

    /// Creates the walk for these options.
    pub fn walk<'c>(&self, cached: &'c Cached<'c>) -> Walk<'c> {
        let options = Options {
            index: self.options.index,
            referrers: self.options.referrers,
            foreign_layers: self.options.foreign_layers,
            available_platforms: self.options.skip_missing_platform,
        };
        let walk = Walk::new(cached, options, self.environment.events.clone());
        walk.with_silent_effect(
            "its images are exported with the companions that were found (--require-referrers makes this an error, \
             --no-referrers does not look for companions)",
        )
    }

    fn known(&self, earlier: Vec<Lock>) -> EarlierImages {
        EarlierImages::new(earlier, |tag| self.options.immutable_tags.iter().any(|pattern| pattern.is_match(tag)))
    }

    /// Collects earlier statements about the entries. They come from the lock in the file `path`, which will be replaced.
    /// Only if that file does not exist, they come from the former bundle, which may have left our hands. `modes` are those
    /// of the parent bundles; what will be replaced takes precedence over them.
    ///
    /// # Errors
    /// The file is not a lock, and immutable tags depend on it.
    pub fn earlier(&self, path: Option<&std::path::Path>, bundle: Option<Lock>, modes: Modes) -> Result<Earlier> {
        let trusts_tags = self.options.trusts_tags();
        let lock = match path.filter(|path| path.is_file()) {
            None => bundle,
            Some(path) => match read_lock(path) {
                Ok(lock) => Some(lock),
                Err(error) if trusts_tags => return Err(error),
                // The file will be replaced, whatever it contains.
                Err(_) => bundle,
            },
        };
        let mut earlier = Earlier { modes, ..Earlier::default() };
        if let Some(lock) = &lock {
            earlier.modes.add(lock);
            earlier.former.add(lock);
        }
        if trusts_tags {
            earlier.locks.extend(lock);
        }
        Ok(earlier)
    }

    /// Which failures leave an image out.
    pub fn leave_out(&self) -> LeaveOut {
        LeaveOut { failed: self.options.keep_going, platform_missing: self.options.skip_missing_platform }
    }

    /// The outcome of a command: whether requested images are missing that may not be.
    pub fn outcome(&self, missing: &[MissingImage]) -> Outcome {
        let is_allowed =
            |one: &MissingImage| self.options.skip_missing_platform && one.reason == MissingReason::PlatformMissing;
        if missing.iter().all(is_allowed) { Outcome::Done } else { Outcome::SomeImagesFailed }
    }

    /// Checks that the lock has images.
    ///
    /// # Errors
    /// The lock is empty and would replace a bundle by an empty one, which was not allowed.
    pub fn refuse_empty(&self, lock: &Lock) -> Result<()> {
        match lock.images.is_empty() && !self.options.allow_empty {
            true => {
                Err(Error::input("nothing to export: the lock names no image; --allow-empty continues without images"))
            }
            false => Ok(()),
        }
    }
}

/// Returns the lock in a bundle, as a lock file has it. `None` if there is no bundle at the path.
///
/// # Errors
/// A directory is no bundle, or the bundle cannot be read.
pub fn lock_in_bundle(path: &Path) -> Result<Option<Text>> {
    if !path.is_dir() && Form::named(path) == Form::Directory {
        return Ok(None);
    }
    let opened = Bundle::open_any(std::slice::from_ref(&path.to_owned()))?;
    Ok(Some(Text { name: path.display().to_string(), bytes: opened.lock().to_file()?.into_bytes() }))
}

fn read_lock(path: &Path) -> Result<Lock> {
    let Text { name, bytes } = read_bounded(path, MAX_LOCK + 1)?;
    Lock::parse(&bytes, &name)
}

fn unresolved(failures: Failures) -> Error {
    failures.into_error("resolving the allowlist")
}
