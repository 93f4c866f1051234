//! Lists the storage of a registry, or migrates its images to another registry, a bundle, `dir:` directories or a new
//! storage.

mod broken;
mod choice;
mod collect;
pub mod counted;
mod disk_full;
mod inside;
mod list;
mod name;
mod report;
mod request;
mod selected_storage;
mod signatures;
mod tags;
mod to_bundle;
mod to_dir;
mod to_storage;

use std::time::Instant;

use super::environment::Environment;
use super::outcome::REPORT_VERSION;
use super::push::{Push, PushRequest};
use super::storage_problems::{problem_counts, problem_line, problems_line};
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::base::progress::units::count;
use crate::pipeline::graph::Graph;
use crate::pipeline::receipt::{Brought, ImageReceipt};
use crate::pipeline::resolve::companion_tags;
use crate::transport::storage::{AuditDepth, Storage};
pub use choice::ImageFilter;
use collect::{Collected, CompanionChoice, Look, collect};
pub use counted::Counted;
pub use name::StoredName;
pub use report::{
    MigrateReport, Migrated, MigratedBundle, MigratedImage, MigratedState, MigrationRefused, StorageList, StoredImage,
    StoredState,
};
pub use request::{BundleOutput, Destination, MigrateRequest};

/// The registry in references to the contents of a storage.
pub const REGISTRY: &str = "localhost";

/// A running migration.
struct Migration<'a> {
    request: &'a MigrateRequest,
    storage: &'a Storage,
    companions: CompanionChoice,
    environment: &'a Environment,
    /// Start of the command.
    started: Instant,
}

/// Lists or migrates the images of a storage. The storage is not changed.
///
/// # Errors
/// The storage cannot be read, no image is selected, or nothing can be written or pushed.
pub async fn migrate(request: &MigrateRequest, environment: &Environment) -> Result<MigrateReport> {
    let started = Instant::now();
    let storage = request.which.name(Storage::open(&request.storage, REGISTRY)?, REGISTRY)?;
    let push = match &request.to {
        Destination::Registry(options) => Some(Push::new(options, Brought::default(), environment)?),
        Destination::Bundle(output) => {
            output.check(&storage)?;
            None
        }
        _ => None,
    };
    let companions = request.companions();
    let migration = Migration { request, storage: &storage, companions, environment, started };
    let collected = collect(&storage, &migration.of(request.depth()), &environment.events)?;
    if !matches!(request.to, Destination::List) {
        if request.strict && !collected.problems.is_empty() {
            return Ok(migration.refuse(collected));
        }
        migration.check_any(&collected)?;
        migration.report_left(&collected);
    }
    match push {
        Some(push) => Ok(MigrateReport::Pushed(push.run(&to_push(&storage, collected), started).await?)),
        None => migration.write(collected).await,
    }
}

/// Converts the complete images into a push, and the others into entries of its report.
fn to_push(storage: &Storage, collected: Collected) -> PushRequest<'_> {
    let problems = collected.problems.iter().map(problem_line).collect();
    let lost = broken::broken_images(&collected).into_iter().map(|broken| {
        let source = format!("{REGISTRY}/{}", broken.name);
        ImageReceipt::lost(source, broken.found.map(|found| found.digest), broken.reasons.join("; "))
    });
    let lost = lost.collect();
    let images = collected.images.into_iter().filter_map(|(_, image)| image).collect();
    let graph = Graph { images, ..Graph::default() };
    PushRequest { problems, lost, ..PushRequest::new(storage, graph) }
}

impl MigrateRequest {
    fn depth(&self) -> AuditDepth {
        let is_proven_later = matches!(self.to, Destination::Registry(_) | Destination::Bundle(_));
        let default = if self.strict && is_proven_later { AuditDepth::Digest } else { AuditDepth::Size };
        self.depth.unwrap_or(default)
    }

    fn companions(&self) -> CompanionChoice {
        match (&self.to, self.which.referrers) {
            // A list shows every tag, and a `dir:` image cannot contain a companion.
            (Destination::List | Destination::Directories { .. }, _) => CompanionChoice::Separate,
            (_, false) => CompanionChoice::StayBehind,
            (Destination::Storage { .. }, true) => CompanionChoice::TravelWithLists,
            (Destination::Registry(_) | Destination::Bundle(_), true) => CompanionChoice::Travel,
        }
    }
}

impl Migration<'_> {
    /// What to look at.
    fn of(&self, depth: AuditDepth) -> Look<'_> {
        Look { which: &self.request.which, depth, companions: self.companions, jobs: self.request.jobs }
    }

    async fn write(&self, mut collected: Collected) -> Result<MigrateReport> {
        let events = &self.environment.events;
        let (path, ended) = match &self.request.to {
            Destination::Bundle(output) => (&output.path, self.to_bundle(&mut collected, output).await?),
            Destination::Directories { path, link } => {
                (path, to_dir::write(self.storage, &collected, path, *link, events)?)
            }
            Destination::Storage { path, link, owner } => {
                (path, to_storage::write(self.storage, &collected, path, *link, *owner, events)?)
            }
            // Pushing to a registry was done by the caller.
            Destination::List | Destination::Registry(_) => {
                return Ok(MigrateReport::Listed(Box::new(list::list(&self.request.storage, &collected))));
            }
        };
        let (storage, elapsed) = (self.request.storage.clone(), self.started.elapsed());
        let report = ended.report(&collected, storage, path.clone(), elapsed);
        Ok(MigrateReport::Written(Box::new(report)))
    }

    fn refuse(&self, collected: Collected) -> MigrateReport {
        let (storage, counted) = (&self.request.storage, problems_line(&collected.problems));
        let text = format!("{} has {counted}; nothing was done (--strict)", storage.display());
        MigrateReport::Refused(Box::new(MigrationRefused {
            version: REPORT_VERSION,
            ok: false,
            storage: storage.clone(),
            counts: problem_counts(&collected.problems),
            problems: collected.problems,
            error: Error::damaged(text),
        }))
    }

    /// Refuses a storage without a selected image: a storage without tags is not empty, and must not look like a success.
    fn check_any(&self, collected: &Collected) -> Result<()> {
        if !collected.images.is_empty() || collected.revisions == 0 || collected.lost() > 0 {
            return Ok(());
        }
        let text = match self.request.which.is_all() {
            true => {
                "has manifests, but no tags: Harbor 2.15 and later keep tags only in their database; --untagged selects all by \
                 their digests, --tags-from FILE supplies the tags"
            }
            false => "has no image that -f, --include and --exclude select",
        };
        Err(Error::input(format!("{} {text}", self.request.storage.display())))
    }

    /// Reports what is left behind. If companions were not looked for, signatures and SBOMs of the images can be part of
    /// it.
    fn report_left(&self, collected: &Collected) {
        let notice = |text| self.environment.events.report(Event::Notice(text));
        if collected.companions > 0 {
            notice(companion_tags(collected.companions, self.companions != CompanionChoice::StayBehind));
        }
        let referrers = matches!(self.companions, CompanionChoice::Travel | CompanionChoice::TravelWithLists);
        if collected.left > 0 {
            let what = if referrers { "" } else { ", or signatures and SBOMs" };
            let left = count(collected.left, "manifest");
            notice(format!(
                "left behind: {left} that no tag leads to: older images{what}; --untagged selects them too"
            ));
        }
        if collected.lost_by_attached > 0 {
            let lost = count(collected.lost_by_attached, "image");
            notice(format!(
                "{lost} would be complete without signatures, SBOMs and other companions: --no-referrers leaves them behind"
            ));
        }
    }
}
