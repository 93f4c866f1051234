//! Imports a bundle that builds on content of the target: all of that content is found before anything is pushed.

mod assemble;

use std::collections::BTreeSet;
use std::path::Path;

use super::allowed::Allowed;
use super::pump::Pump;
use super::{Import, has_config, of_bundle};
use crate::app::TOOL;
use crate::app::local::write_file;
use crate::app::push::{NoteLacking, PushReport, PushRequest, SeveralRuns};
use crate::base::document::Document;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::units::{bytes, count};
use crate::base::progress::{Event, Events};
use crate::bundle::{Assumed, Bundle, MISSING_VERSION, Missing, MissingBlob, refuse_unfinished, repair_is_for};
use crate::content::Source;
use crate::files::Layout;
use crate::increment::{AssumedProof, RepairSource, TargetBackedSource};
use crate::oci::Digest;
use crate::pipeline::plan;
use crate::pipeline::transfer::Arrivals;

/// How the bundle arrives.
#[derive(Clone, Copy)]
pub struct From<'a> {
    /// In several runs.
    pub runs: Option<&'a dyn SeveralRuns>,
    /// From a pipe.
    pub pump: Option<&'a Pump>,
    pub allowed: &'a Allowed<'a>,
}

impl Import<'_> {
    /// Pushes an increment.
    ///
    /// # Errors
    /// [`Kind::Lacking`]: the target lacks something that the bundle expects; nothing was pushed.
    pub(super) async fn increment(&self, bundle: &Bundle, from: From<'_>) -> Result<PushReport> {
        let (push, events) = (self.push, &self.environment.events);
        let (targets, _) = push.name_images(bundle.lock().images.iter())?;
        let registries = push.connect()?;
        let closed = push.closed(&registries, &targets).await?;
        let repair = self.request.repair.as_ref().map(|path| open_repair(path, bundle)).transpose()?;
        let expected = TargetBackedSource::new(bundle.layout(), bundle.json(), &registries, &targets, &closed);
        let expected = expected.with_repair(repair.as_ref().map(repair_source));
        let images = assemble::images(&expected, bundle.lock(), events).await;
        let mut proof = expected.find_all(&registries, push.jobs(), events).await?;
        if !proof.missing.is_empty() && images.iter().all(Result::is_ok) {
            let missing = proof.missing.iter().map(|missing| missing.digest).collect();
            let images = images.iter().flatten().zip(&targets);
            let unnecessary = plan::made_unnecessary(&registries, images, &missing).await?;
            proof.missing.retain(|missing| !unnecessary.contains(&missing.digest));
        }
        self.refuse_lacking(bundle, &proof)?;
        let (graph, lost) = assemble::split(images, bundle, &targets, events)?;
        from.allowed.check_content(&graph)?;
        if let Some(pump) = from.pump {
            pump.check(&graph)?;
        }
        from.allowed.check_configs(&expected, &graph, has_config(bundle)).await?;
        // Content that the target claims to have and cannot return is found only when the push is planned.
        let missing = self.request.missing.as_deref();
        let note_lacking = |lost: &BTreeSet<Digest>| {
            let assumed = bundle.json().assumed.iter();
            write_missing(missing, bundle, assumed.filter(|assumed| lost.contains(&assumed.digest)), events)
        };
        let note_lacking: Option<&NoteLacking<'_>> = Some(&note_lacking);
        let arrived = from.pump.map(|pump| pump.arrived(&expected));
        let source = arrived.as_ref().map_or(&expected as &dyn Source, |arrived| arrived);
        let request = PushRequest {
            places: proof.places,
            note_lacking,
            runs: from.runs,
            arrivals: from.pump.map(|pump| pump as &dyn Arrivals),
            ..of_bundle(bundle, source, graph)
        };
        push.run(&lost.beside(request), self.started).await
    }

    /// Handles the options of increments for a bundle that expects nothing at the target.
    ///
    /// # Errors
    /// A repair file was given.
    pub(super) fn expects_nothing(&self, bundle: &Bundle) -> Result<()> {
        if let Some(repair) = &self.request.repair {
            let (bundle, repair) = (bundle.layout().path().display(), repair.display());
            let text = format!("{bundle} expects nothing at the target, so it does not need {repair}");
            return Err(Error::input(format!("{text}; use `gapferry repair` to repair a damaged bundle")));
        }
        self.refuse_lacking(bundle, &AssumedProof::default())
    }

    /// Refuses a bundle if the target lacks content that it expects.
    ///
    /// # Errors
    /// Content is missing.
    fn refuse_lacking(&self, bundle: &Bundle, proof: &AssumedProof) -> Result<()> {
        let (path, events) = (self.request.missing.as_deref(), &self.environment.events);
        write_missing(path, bundle, proof.missing.iter().chain(&proof.withheld), events)?;
        let Some(first) = proof.missing.first() else { return Ok(()) };
        let parents = bundle.json().parents.iter().map(ToString::to_string);
        let size = proof.missing.iter().map(|missing| missing.size).fold(0, u64::saturating_add);
        let text = format!(
            "nothing was pushed: {} lacks {} of the {} ({}) that {} expects there; the first is {}. The bundle builds on",
            self.request.push.to,
            count(proof.missing.len(), "blob"),
            bundle.json().assumed.len(),
            bytes(size),
            bundle.layout().path().display(),
            first.digest,
        );
        Err(Error::new(Kind::Lacking, text).listing(parents.map(|parent| format!("  {parent}"))))
    }
}

fn open_repair(path: &Path, bundle: &Bundle) -> Result<Layout> {
    refuse_unfinished(path)?;
    let layout = Layout::open(path)?;
    let shown = path.display();
    match repair_is_for(&layout)? {
        Some(identity) if identity == bundle.identity() => Ok(layout),
        Some(identity) => Err(Error::input(format!("{shown} is a repair file for another bundle, {identity}"))),
        None => Err(Error::input(format!("{shown} is not a repair file"))),
    }
}

fn repair_source(repair: &Layout) -> RepairSource<'_> {
    let holds = repair.entries().filter_map(|(path, _)| Digest::of_blob_path(path)).collect();
    RepairSource { source: repair, holds }
}

/// Lists what the target lacks in the file of `--missing`, for `export --repair`.
///
/// # Errors
/// The file cannot be written.
fn write_missing<'a>(
    path: Option<&Path>,
    bundle: &Bundle,
    lacking: impl Iterator<Item = &'a Assumed>,
    events: &Events,
) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let blob = |it: &Assumed| MissingBlob { digest: it.digest, size: Some(it.size), ranges: Vec::new() };
    let (tool, identity) = (TOOL.to_owned(), bundle.identity());
    let (metadata, tools, blobs) = (Vec::new(), Vec::new(), lacking.map(blob).collect());
    let missing = Missing { gapferry_missing: MISSING_VERSION, tool, identity, metadata, tools, blobs };
    write_file(path, missing.to_file()?.as_bytes())?;
    if !missing.is_empty() {
        let (blobs, size) = (count(missing.blobs.len(), "blob"), bytes(missing.bytes()));
        events.report(Event::Status(format!("{}: {blobs}, {size} to fetch", path.display())));
    }
    Ok(())
}
