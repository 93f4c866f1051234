//! Options that say what to carry, the same for `export` and `lock`; and the way from them to a lock and its graph.

mod notes;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;

use super::context::Context;
use super::exit::Outcome;
use super::registry::RegistryArgs;
use super::stdin::take_stdin;
pub use crate::app::missing_lines;
use crate::app::{Input, Text};
use crate::base::error::{Error, Result};
use crate::base::position::Written;
use crate::base::progress::Event;
use crate::base::progress::units::count;
use crate::content::{Cached, Checkpoint};
use crate::oci::Platform;
use crate::pipeline::allowlist::{Allowlist, MAX_FILE_SIZE, Pattern, refused};
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::{IndexMode, Lock, MAX_LOCK, MissingImage, MissingReason};
use crate::pipeline::resolve::{self, Expanded, Failures, LeaveOut, TagLists};
use crate::pipeline::walk::{Former, Known, LockedCompanions, Modes, Options, Platforms, Referrers, Walk};
use crate::transport::registry::Registries;
use notes::{report_changed_companions, report_kept_companions, report_other_platforms, report_refused, report_walk};

#[derive(Args)]
#[command(next_help_heading = "What to carry")]
pub struct AllowlistArgs {
    /// Images: name:tag, name@digest, or name alone for all its tags
    ///
    /// name:tag@digest is pinned, and keeps its tag.
    /// Short names mean what they mean to Docker: nginx is docker.io/library/nginx.
    #[arg(value_name = "REF")]
    references: Vec<String>,
    /// Allowlist file, `-` for standard input; repeatable
    ///
    /// Text (one reference a line, # comments, then platform=… and as=…), a YAML list with the same keys, or the file
    /// of `skopeo sync --src yaml` as it is.
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Take only OS/ARCH[/VARIANT], as linux/arm64; repeatable
    ///
    /// An entry's own platform= counts more. A platform that an image lacks is an error. linux/arm/v7 takes v6 or else v5 of an image
    /// without v7. windows/amd64 takes every version of Windows that an index has; windows(10.0.20348)/amd64 takes that one.
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<Platform>,
    /// Take what an image has of the platforms asked for; one that lacks all of them is left out
    ///
    /// The lock records it, and the exit code is that of success.
    #[arg(long, hide_short_help = true)]
    skip_missing_platform: bool,
    /// Go on without images that cannot be had
    ///
    /// The lock records them, each with a reason, and the exit code is 1. An increment does not take a missing image for an unwanted
    /// one. A lost signature or other companion alone never costs its image, except with --require-referrers, with --locked and
    /// without this option, or where the registry gives no answer about it.
    #[arg(long)]
    pub keep_going: bool,
    /// What becomes of an index when platforms are left out
    ///
    /// Without this option: single for one manifest whose config names the platform, else trim, as for one platform of Windows in several
    /// versions. An entry of the lock or bundle that is replaced keeps its mode.
    #[arg(long, value_name = "MODE")]
    index: Option<IndexMode>,
    /// The platform that `docker load` and `podman load` take of an index with several [default: linux/amd64]
    #[arg(long, value_name = "PLATFORM", hide_short_help = true)]
    load_platform: Option<Platform>,
    #[command(flatten)]
    companions: Companions,
    /// Fail where a registry does not say whether signatures, SBOMs or other referrers are attached
    ///
    /// Without it such an image is carried with what was found, its lock entry says `attachedUnknown`, and one warning for each
    /// registry says why.
    #[arg(long, conflicts_with = "no_referrers", hide_short_help = true)]
    require_referrers: bool,
    /// Fetch layers kept outside registries (Windows base layers)
    #[arg(long, hide_short_help = true)]
    foreign_layers: bool,
    /// A tag pattern that matches nothing is no error, and neither is a list without images
    #[arg(long, hide_short_help = true)]
    allow_empty: bool,
    /// Tags that never move: where the earlier lock says what they mean, that is not asked again; repeatable
    ///
    /// A pattern, as in images-by-tag-regex: found anywhere in the tag unless anchored, such as '^v?[0-9]+[.]'. An image with such
    /// a tag that stands in the lock file to be replaced, or without one in the lock of the bundle to be replaced, is taken as
    /// it stands there, with what travelled along then. Rely on a bundle only if it never left your hands; else keep a lock on
    /// your side and name it (export: --lock FILE). Nothing is asked about the tag; manifests that the bundle at hand does not
    /// have are read by their digests. Where the tag has to be asked about after all, because that image is gone or is wanted
    /// otherwise now, and means another image, that is an error.
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::new)]
    immutable_tags: Vec<Pattern>,
}

/// What travels with images.
#[derive(clap::Args)]
pub struct Companions {
    /// Leave signatures, SBOMs and referrers behind
    #[arg(long)]
    pub no_referrers: bool,
}

/// Who takes no index whose children are not all there.
pub const SPARSE_REFUSED: &str = "Harbor, docker-registry 2 and zot refuse an index without all its children; distribution 3 takes \
                                  it with `validation.manifests.indexes.platforms: none`";

/// What an earlier lock or bundle says of entries that are resolved again.
#[derive(Default)]
pub struct Earlier {
    /// What immutable tags mean.
    locks: Vec<Lock>,
    modes: Modes,
    /// What is kept where a registry does not say what is attached.
    former: Former,
}

/// An allowlist that was read, and the client for its registries.
pub struct Sources {
    pub allowlist: Allowlist,
    pub registries: Registries,
}

impl AllowlistArgs {
    /// Reads references and files; everything that is wrong in them is one error.
    pub fn read(&self, registry: &RegistryArgs, context: &Context) -> Result<Sources> {
        if self.references.is_empty() && self.files.is_empty() {
            return Err(Error::input("nothing to carry: name images, or a file of them with -f"));
        }
        self.references.iter().try_for_each(|reference| refuse_file(reference))?;
        registry.claim_stdin()?;
        let files: Result<Vec<(String, Vec<u8>)>> = self.files.iter().map(|path| read_file(path)).collect();
        let mut allowlist = Allowlist::parse_sources(&self.references, &files?)
            .map_err(|problems| refused("the allowlist", &problems))?;
        for notice in &allowlist.notices {
            context.events.report(Event::Notice(notice.clone()));
        }
        if allowlist.rules.is_empty() && !self.allow_empty {
            let text = "nothing to carry: no file names an image; --allow-empty goes on without any";
            return Err(Error::input(text));
        }
        for rule in &mut allowlist.rules {
            if rule.platforms.is_empty() {
                rule.platforms.clone_from(&self.platforms);
            }
        }
        let names = allowlist.rules.iter().map(|rule| rule.select.repository().registry().to_owned());
        let registries = registry.connect(names, &allowlist.registries, context)?;
        registries.expect(allowlist.rules.iter().map(|rule| rule.select.repository()));
        Ok(Sources { allowlist, registries })
    }

    /// Finds out what everything means now, but for immutable tags that `earlier` locks know. Which `platforms` single images are
    /// for is believed.
    pub async fn resolve(
        &self,
        sources: &Sources,
        (earlier, platforms): (Earlier, Platforms),
        cached: &Cached<'_>,
        registry: &RegistryArgs,
        context: &Context,
    ) -> Result<(Lock, Graph)> {
        let (walk, wanted, now) = self.begin(sources, earlier, cached, registry, context).await?;
        let walk = walk.with_platforms(platforms);
        let pace = (now, registry.jobs());
        let found = resolve::discover(&walk, wanted, self.leave_out(), pace, &context.events).await;
        report_walk(&walk, context);
        let (lock, graph) = found.map_err(unresolved)?;
        report_other_platforms(&lock, context);
        if !self.files.is_empty() {
            report_refused(&sources.allowlist, &graph, context);
        }
        Ok((Lock { load_platform: self.load_platform.clone(), ..lock }, graph))
    }

    /// The same for a lock alone.
    pub async fn pin(
        &self,
        sources: &Sources,
        earlier: Earlier,
        cached: &Cached<'_>,
        registry: &RegistryArgs,
        context: &Context,
    ) -> Result<Lock> {
        let (walk, wanted, now) = self.begin(sources, earlier, cached, registry, context).await?;
        let pace = (now, registry.jobs());
        let found = resolve::pin(&walk, wanted, self.leave_out(), pace, &context.events).await;
        report_walk(&walk, context);
        let lock = found.map_err(unresolved)?;
        report_other_platforms(&lock, context);
        Ok(Lock { load_platform: self.load_platform.clone(), ..lock })
    }

    /// The walk, what it has to find, and the time that stands for now.
    async fn begin<'a>(
        &self,
        sources: &Sources,
        earlier: Earlier,
        cached: &'a Cached<'a>,
        registry: &RegistryArgs,
        context: &Context,
    ) -> Result<(Walk<'a>, Expanded, Timestamp)> {
        let (now, _) = context.now()?;
        let Earlier { locks, modes, former } = earlier;
        let walk = self.walk(cached, context).with_known(self.known(locks)).with_modes(modes).with_former(former);
        let (rules, jobs) = (&sources.allowlist.rules, registry.jobs());
        let lists = TagLists { allow_empty: self.allow_empty, companions: !self.companions.no_referrers };
        let wanted = resolve::expand(cached, rules, lists, self.leave_out(), jobs, &context.events).await;
        Ok((walk, wanted.map_err(unresolved)?, now))
    }

    /// Which failures leave an image out.
    pub fn leave_out(&self) -> LeaveOut {
        LeaveOut { failed: self.keep_going, platform_missing: self.skip_missing_platform }
    }

    /// How a run ends that was done: whether anything is missing that was asked for, and was not to be.
    pub fn ended(&self, missing: &[MissingImage]) -> Outcome {
        let is_allowed =
            |one: &MissingImage| self.skip_missing_platform && one.reason == MissingReason::PlatformMissing;
        if missing.iter().all(is_allowed) { Outcome::Done } else { Outcome::SomeImagesFailed }
    }

    /// # Errors
    /// A lock without images would replace a bundle by an empty one, and that was not asked for.
    pub fn refuse_empty(&self, lock: &Lock) -> Result<()> {
        match lock.images.is_empty() && !self.allow_empty {
            true => Err(Error::input("nothing to carry: the lock names no image; --allow-empty goes on without any")),
            false => Ok(()),
        }
    }

    /// Whether an image fails whose companions cannot all be had.
    pub fn requires_referrers(&self) -> bool {
        self.require_referrers
    }

    fn referrers(&self) -> Referrers {
        match (self.companions.no_referrers, self.require_referrers) {
            (true, _) => Referrers::Leave,
            (false, true) => Referrers::Require,
            (false, false) => Referrers::Look,
        }
    }

    /// Whether some tags are believed to mean what an earlier lock says.
    pub fn trusts_tags(&self) -> bool {
        !self.immutable_tags.is_empty()
    }

    fn known(&self, earlier: Vec<Lock>) -> Known {
        Known::new(earlier, |tag| self.immutable_tags.iter().any(|pattern| pattern.is_match(tag)))
    }

    /// What earlier entries say: the lock in the file at `path`, which is to be replaced; only where there is no such file that
    /// of a bundle, which may have been in other hands.
    ///
    /// # Errors
    /// A file that is no lock, where immutable tags depend on it.
    ///
    /// `modes` are those of bundles that the export builds on; what is to be replaced counts more.
    pub fn earlier(&self, path: Option<&PathBuf>, bundle: Option<Lock>, modes: Modes) -> Result<Earlier> {
        let lock = match path.filter(|path| path.is_file()) {
            None => bundle,
            Some(path) => match read_lock(path) {
                Ok(lock) => Some(lock),
                Err(error) if !self.immutable_tags.is_empty() => return Err(error),
                // It is replaced, whatever it is.
                Err(_) => bundle,
            },
        };
        let mut earlier = Earlier { modes, ..Earlier::default() };
        if let Some(lock) = &lock {
            earlier.modes.add(lock);
            earlier.former.add(lock);
        }
        if !self.immutable_tags.is_empty() {
            earlier.locks.extend(lock);
        }
        Ok(earlier)
    }

    /// Makes the graph of a lock that exists, and says where its images stand in its file; the lock is another one where images are left out, or have other companions.
    ///
    /// # Errors
    /// Something that the lock names is gone or is no longer what it says.
    pub async fn follow(
        &self,
        (lock, written): (Lock, Written),
        companions: LockedCompanions,
        cached: &Cached<'_>,
        registry: &RegistryArgs,
        context: &Context,
    ) -> Result<(Lock, Graph)> {
        let walk = self.walk(cached, context).with_companions(companions).with_written(written);
        let walk = walk.leaving_lost_companions(self.keep_going && !self.require_referrers);
        let before = lock.images.clone();
        let followed = resolve::follow(&walk, lock, self.leave_out(), registry.jobs(), &context.events).await;
        report_kept_companions(walk.kept_companions(), context);
        let (lock, graph) = followed.map_err(|failures| failures.into_error("following the lock"))?;
        report_other_platforms(&lock, context);
        let has_others = report_changed_companions(&before, (&lock, &graph), cached, context).await;
        // A bundle that only lacks some of the lock keeps its time: the complete one, of the same time, must be let in after it.
        let created = if has_others { context.now()?.0 } else { lock.created };
        Ok((Lock { created, ..lock }, graph))
    }

    /// Whether companions were asked to stay behind.
    pub fn no_referrers(&self) -> bool {
        self.companions.no_referrers
    }

    /// The walk of what these options say.
    pub fn walk<'a>(&self, cached: &'a Cached<'a>, context: &Context) -> Walk<'a> {
        let options = Options {
            index: self.index,
            referrers: self.referrers(),
            foreign_layers: self.foreign_layers,
            available_platforms: self.skip_missing_platform,
        };
        let walk = Walk::new(cached, options, context.events.clone());
        walk.with_untold_effect(
            "its images are carried with those that were found (--require-referrers makes this an error, --no-referrers does not \
             look)",
        )
    }
}

fn read_lock(path: &Path) -> Result<Lock> {
    let (name, bytes) = read_bounded(path, MAX_LOCK + 1)?;
    Lock::parse(&bytes, &name)
}

/// A list of images that was given as if it were an image.
fn refuse_file(reference: &str) -> Result<()> {
    // An image with a tag or digest is hardly meant to be a file.
    let may_be_file = !reference.contains('@') && !reference.rsplit('/').next().is_some_and(|name| name.contains(':'));
    if !may_be_file || !Path::new(reference).is_file() {
        return Ok(());
    }
    let text = format!("{reference} is a file; for the images listed in it: -f {reference}");
    let is_path = reference.starts_with(['/', '.']);
    Err(Error::input(match is_path {
        true => text,
        false => format!("{text}; for all tags of an image of that name, write its registry before it"),
    }))
}

/// Before the work: says where nothing can be kept because something else has the name.
pub fn tell_obstacle(kept: &Checkpoint<'_>, context: &Context) {
    if let Some((path, why)) = kept.obstacle() {
        let text = format!("{}: {why}; manifests that are read are not kept for the next run", path.display());
        context.events.report(Event::Warning(text));
    }
}

/// After the work: what was read is kept for the next run. Somebody may first have to mend a word of the allowlist, make room,
/// or wait. What is impossible whatever the registries say, such as an output that is no bundle, is told before they are asked:
/// then there is nothing to keep.
pub fn settle<T>(kept: &Checkpoint<'_>, outcome: Result<T>, context: &Context) -> Result<T> {
    if outcome.is_ok() {
        kept.remove();
    } else if let Some((number, path)) = kept.left() {
        let (what, path) = (count(number, "manifest"), path.display());
        context.say(&format!("{what} kept in {path}: the same command, run again, continues from there"));
    }
    outcome
}

fn unresolved(failures: Failures) -> Error {
    failures.into_error("resolving the allowlist")
}

/// The client for the registries a lock names.
pub fn connect_for(lock: &Lock, registry: &RegistryArgs, context: &Context) -> Result<Registries> {
    let names = lock.images.iter().map(|image| image.reference.repository.registry().to_owned());
    let registries = registry.connect(names, &BTreeMap::new(), context)?;
    registries.expect(lock.images.iter().map(|image| &image.reference.repository));
    Ok(registries)
}

/// Content and name of a file, `-` being standard input; not more than an allowlist may have.
pub fn read_file(path: &Path) -> Result<(String, Vec<u8>)> {
    read_bounded(path, MAX_FILE_SIZE as u64 + 1)
}

/// The same, but only its first `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> Result<(String, Vec<u8>)> {
    let Text { name, bytes } = input(path, limit)?.read(limit)?;
    Ok((name, bytes))
}

/// The file, or at most the first `limit` bytes of standard input if it is `-`.
pub fn input(path: &Path, limit: u64) -> Result<Input> {
    if path != Path::new("-") {
        return Ok(Input::File(path.to_owned()));
    }
    take_stdin("a file to read (`-`)")?;
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
    read.map_err(|e| Error::disk("reading", path, e))?;
    Ok(Input::Text(Text { name: "standard input".to_owned(), bytes }))
}
