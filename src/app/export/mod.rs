//! Exports images from registries into a bundle.
//!
//! [`export`] checks that the output is free and connects to the registries. `job` resolves the list to a lock and a graph,
//! or follows a given lock. It removes what an increment leaves out, builds the list of files, and writes a directory or a
//! tar (`write`), volumes, or a single pass (`stream`). Content that cannot be fetched is left out if that is allowed. The
//! lock is written afterwards, and the output is read back before the report. [`export_repair`] writes what a damaged
//! bundle lacks.

mod job;
mod keep_going;
mod loaders;
mod repair;
mod report;
mod request;
mod stream;
mod volumes;
mod write;

use std::time::Instant;

use super::environment::Environment;
use super::local::check_writable;
use super::outcome::Outcome;
use super::resolve::{self, connect_for};
use super::signed::warn_if_unsigned;
use crate::base::error::{Error, Result};
use crate::bundle::Bundle;
use crate::content::Checkpoint;
use crate::pipeline::lock::{self, Lock};
use crate::transport::registry::Registries;
use job::{ExportBasis, ExportJob, ExportedImages};
pub use repair::{ExportRepairRequest, ExportedRepair, export_repair};
pub use report::{
    ExportPlan, ExportReport, Exported, ExportedVolume, ExportedVolumes, PlannedVolume, PlannedVolumes, ReadFrom,
};
pub use request::{ExportRequest, Images};
pub(super) use write::{LostBlobs, WriteRequest, WrittenWhole, write_whole};

/// Exports images into a bundle.
///
/// # Errors
/// An image cannot be fetched and may not be left out, or the bundle cannot be written. Manifests and blobs that were read
/// stay for the next run. Errors that occur once the bundle exists are in the report.
pub async fn export(mut request: ExportRequest, environment: &Environment) -> Result<ExportReport> {
    let started = Instant::now();
    let (environment, watch) = environment.watched();
    check_writable(&request.lock)?;
    request.output.check_form()?;
    if request.output.only_volume().is_some() && matches!(request.images, Images::Listed(_)) {
        return Err(Error::input("--only-volume requires --locked"));
    }
    if !request.dry_run {
        request.output.check_free()?;
        request.output.note_new_directory(&environment.events);
    }
    let former = request.output.former()?;
    let was_signed = former.as_ref().is_some_and(Bundle::has_signature);
    let (registries, wanted) = connect(&request, &environment)?;
    let walk_file = request.output.walk_file();
    let kept = match (request.dry_run, &walk_file) {
        (true, Some(file)) => Checkpoint::reading(&registries, file),
        _ => Checkpoint::new(&registries, walk_file),
    };
    resolve::report_obstacle(&kept, &environment.events);
    let (since, tools) = (request.since.take(), std::mem::take(&mut request.tools));
    let job = ExportJob { request: &request, registries: &registries, environment: &environment, started };
    let ended = job.run(wanted, ExportBasis { since, tools, former }, &kept).await;
    if ended.is_ok() {
        warn_if_unsigned(was_signed, &request.output, &environment.events);
    }
    let mut report = resolve::finish_walk_file(&kept, ended, &environment.events)?;
    if watch.is_incomplete() && report.outcome() == Outcome::Done {
        report.conclude(Outcome::SomeImagesFailed);
    }
    Ok(report)
}

/// Returns the images to export, and the client for their registries.
fn connect(request: &ExportRequest, environment: &Environment) -> Result<(Registries, ExportedImages)> {
    match &request.images {
        Images::Listed(list) => {
            let (list, registries) = request.resolve.connect(list, &request.registry, environment)?;
            Ok((registries, ExportedImages::Listed(list)))
        }
        Images::Locked { lock: text, companions } => {
            let lock = Lock::parse(&text.bytes, &text.name)?;
            let registries = connect_for(&lock, &request.registry, environment)?;
            let written = lock::written(&text.bytes, &text.name);
            let lock = Box::new(resolve::WrittenLock { lock, written });
            Ok((registries, ExportedImages::Locked { lock, companions: *companions }))
        }
    }
}
