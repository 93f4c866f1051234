//! From an allowlist to a lock and its graph, or from a lock to its graph: the same for every command that reads images.

mod notes;
mod options;
mod walk_file;

use jiff::Timestamp;

use super::environment::Environment;
use super::local::{Text, read_bounded};
use super::outcome::Outcome;
use crate::base::error::{Error, Result};
use crate::base::position::ReferencePositions;
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

/// What an earlier lock or bundle says of entries that are resolved again.
#[derive(Default)]
pub struct Earlier {
    /// What immutable tags mean.
    locks: Vec<Lock>,
    modes: Modes,
    /// What is kept where a registry does not say what is attached.
    former: FormerCompanions,
    /// What single images are for, as far as the bundles that an export builds on say it.
    platforms: Platforms,
}

impl Earlier {
    pub fn with_platforms(self, platforms: Platforms) -> Earlier {
        Earlier { platforms, ..self }
    }
}

/// A lock, and where its images stand in its file.
pub struct WrittenLock {
    pub lock: Lock,
    pub written: ReferencePositions,
}

/// A resolution under way.
pub struct Resolver<'a> {
    pub options: &'a ResolveOptions,
    /// Images at a time.
    pub jobs: usize,
    pub environment: &'a Environment,
}

impl Resolver<'_> {
    /// Finds out what everything means now, but for immutable tags that `earlier` locks know.
    ///
    /// # Errors
    /// All images that could not be resolved and may not be left out.
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

    /// The same for a lock alone.
    ///
    /// # Errors
    /// As [`Resolver::resolve`].
    pub async fn pin(&self, list: &Allowlist, earlier: Earlier, cached: &Cached<'_>) -> Result<Lock> {
        let events = &self.environment.events;
        let (walk, wanted, now) = self.begin(list, earlier, cached).await?;
        let found = resolve::pin(&walk, wanted, self.leave_out(), now, self.jobs, events).await;
        report_walk(&walk, events);
        let lock = found.map_err(unresolved)?;
        report_other_platforms(&lock, events);
        Ok(Lock { load_platform: self.options.load_platform.clone(), ..lock })
    }

    /// The walk, what it has to find, and the time that stands for now.
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

    /// Makes the graph of a lock that exists. The lock is another one where images are left out, or have other companions.
    ///
    /// # Errors
    /// Something that the lock names is gone or is no longer what it says.
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
        // A bundle that only lacks some of the lock keeps its time: the complete one, of the same time, must be let in after it.
        let created = if has_others { self.environment.bundle_time()?.time } else { lock.created };
        Ok((Lock { created, ..lock }, graph))
    }

    /// The walk of what the options say.
    pub fn walk<'c>(&self, cached: &'c Cached<'c>) -> Walk<'c> {
        let options = Options {
            index: self.options.index,
            referrers: self.options.referrers,
            foreign_layers: self.options.foreign_layers,
            available_platforms: self.options.skip_missing_platform,
        };
        let walk = Walk::new(cached, options, self.environment.events.clone());
        walk.with_silent_effect(
            "its images are carried with those that were found (--require-referrers makes this an error, --no-referrers does not \
             look)",
        )
    }

    fn known(&self, earlier: Vec<Lock>) -> EarlierImages {
        EarlierImages::new(earlier, |tag| self.options.immutable_tags.iter().any(|pattern| pattern.is_match(tag)))
    }

    /// What earlier entries say: the lock in the file `path`, which is to be replaced; only where there is no such file that of
    /// a bundle, which may have been in other hands. `modes` are those of bundles that the export builds on; what is to be
    /// replaced counts more.
    ///
    /// # Errors
    /// A file that is no lock, where immutable tags depend on it.
    pub fn earlier(&self, path: Option<&std::path::Path>, bundle: Option<Lock>, modes: Modes) -> Result<Earlier> {
        let trusts_tags = self.options.trusts_tags();
        let lock = match path.filter(|path| path.is_file()) {
            None => bundle,
            Some(path) => match read_lock(path) {
                Ok(lock) => Some(lock),
                Err(error) if trusts_tags => return Err(error),
                // It is replaced, whatever it is.
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

    /// How a command ends that was done: whether anything is missing that was asked for, and was not to be.
    pub fn outcome(&self, missing: &[MissingImage]) -> Outcome {
        let is_allowed =
            |one: &MissingImage| self.options.skip_missing_platform && one.reason == MissingReason::PlatformMissing;
        if missing.iter().all(is_allowed) { Outcome::Done } else { Outcome::SomeImagesFailed }
    }

    /// # Errors
    /// A lock without images would replace a bundle by an empty one, and that was not asked for.
    pub fn refuse_empty(&self, lock: &Lock) -> Result<()> {
        match lock.images.is_empty() && !self.options.allow_empty {
            true => Err(Error::input("nothing to carry: the lock names no image; --allow-empty goes on without any")),
            false => Ok(()),
        }
    }
}

fn read_lock(path: &std::path::Path) -> Result<Lock> {
    let Text { name, bytes } = read_bounded(path, MAX_LOCK + 1)?;
    Lock::parse(&bytes, &name)
}

fn unresolved(failures: Failures) -> Error {
    failures.into_error("resolving the allowlist")
}
