//! The import of a bundle that builds on what the target has: all of that is found before anything is pushed.

mod assemble;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use super::allowed::Allowed;
use super::piped::Pump;
use super::{Args, cargo, has_config};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::units::{bytes, count};
use crate::bundle::{Assumed, Bundle, MISSING_VERSION, Missing, MissingBlob, refuse_unfinished, repair_is_for};
use crate::cli::context::{Context, write_file};
use crate::cli::exit::Outcome;
use crate::cli::export::TOOL;
use crate::cli::push::{Arriving, NoteLacking, Push};
use crate::files::Layout;
use crate::increment::{Beside, Expected, Proof};
use crate::oci::Digest;
use crate::pipeline::plan;

/// How the bundle comes.
#[derive(Clone, Copy)]
pub struct From<'a> {
    /// In several runs.
    pub arriving: Option<&'a dyn Arriving>,
    /// Out of a pipe.
    pub pump: Option<&'a Pump>,
    pub allowed: &'a Allowed,
}

/// # Errors
/// [`Kind::Lacking`]: the target lacks something that is assumed to be there; nothing was pushed.
pub async fn run(
    args: &Args,
    push: &Push<'_>,
    bundle: &Bundle,
    from: From<'_>,
    started: Instant,
    context: &Context,
) -> Result<Outcome> {
    let (targets, _) = push.name_images(bundle.lock().images.iter())?;
    let registries = push.connect(context)?;
    let closed = push.closed(&registries, &targets).await?;
    let repair = args.repair.as_ref().map(|path| open_repair(path, bundle)).transpose()?;
    let expected = Expected::new((bundle.layout(), bundle.json()), &registries, &targets, &closed);
    let expected = expected.with(repair.as_ref().map(beside));
    let images = assemble::images(&expected, bundle.lock(), context).await;
    let mut proof = expected.prove(&registries, push.jobs(), &context.events).await?;
    if !proof.missing.is_empty() && images.iter().all(Result::is_ok) {
        let missing = proof.missing.iter().map(|missing| missing.digest).collect();
        let images = images.iter().flatten().zip(&targets);
        let unnecessary = plan::made_unnecessary(&registries, images, &missing).await?;
        proof.missing.retain(|missing| !unnecessary.contains(&missing.digest));
    }
    tell_missing(args, bundle, &proof, context)?;
    let (graph, lost) = assemble::split(images, bundle, &targets, context)?;
    from.allowed.check_content(&graph)?;
    if let Some(pump) = from.pump {
        pump.check(&graph)?;
    }
    from.allowed.check_configs(&expected, &graph, has_config(bundle)).await?;
    // What is claimed there and cannot be read shows only when the push is planned.
    let note_lacking = |lost: &BTreeSet<Digest>| {
        let assumed = bundle.json().assumed.iter();
        write_missing(args, bundle, assumed.filter(|assumed| lost.contains(&assumed.digest))).map(drop)
    };
    let note_lacking: Option<&NoteLacking<'_>> = Some(&note_lacking);
    let Some(pump) = from.pump else {
        let cargo = cargo(bundle, &expected, graph, from.arriving);
        return push
            .run(&lost.beside(super::Cargo { places: proof.places, note_lacking, ..cargo }), started, context)
            .await;
    };
    let arrived = pump.arrived(&expected);
    let cargo = cargo(bundle, &arrived, graph, None);
    let cargo = super::Cargo { places: proof.places, note_lacking, arrivals: Some(pump), ..cargo };
    push.run(&lost.beside(cargo), started, context).await
}

/// The same options for a bundle that expects nothing: it lacks nothing.
///
/// # Errors
/// A repair was given.
pub fn not_needed(args: &Args, bundle: &Bundle, context: &Context) -> Result<()> {
    if let Some(repair) = &args.repair {
        let (bundle, repair) = (bundle.layout().path().display(), repair.display());
        let text = format!("{bundle} expects nothing at the target that {repair} could bring");
        return Err(Error::input(format!("{text}; a damaged bundle is mended by `gapferry repair`")));
    }
    tell_missing(args, bundle, &Proof::default(), context)
}

fn open_repair(path: &Path, bundle: &Bundle) -> Result<Layout> {
    refuse_unfinished(path)?;
    let layout = Layout::open(path)?;
    let shown = path.display();
    match repair_is_for(&layout)? {
        Some(identity) if identity == bundle.identity() => Ok(layout),
        Some(identity) => Err(Error::input(format!("{shown} is a repair of another bundle, {identity}"))),
        None => Err(Error::input(format!("{shown} is no repair"))),
    }
}

fn beside(repair: &Layout) -> Beside<'_> {
    let holds = repair.entries().filter_map(|(path, _)| Digest::of_blob_path(path)).collect();
    Beside { source: repair, holds }
}

/// What would help, in the file of `--missing` if there is one.
fn write_missing<'a>(args: &Args, bundle: &Bundle, lacking: impl Iterator<Item = &'a Assumed>) -> Result<Missing> {
    let blobs = lacking.map(|it| MissingBlob { digest: it.digest, size: Some(it.size), ranges: Vec::new() }).collect();
    let (tool, identity) = (TOOL.to_owned(), bundle.identity());
    let (metadata, tools) = (Vec::new(), Vec::new());
    let missing = Missing { gapferry_missing: MISSING_VERSION, tool, identity, metadata, tools, blobs };
    if let Some(path) = &args.missing {
        write_file(path, missing.to_json().as_bytes())?;
    }
    Ok(missing)
}

/// # Errors
/// Something is missing.
fn tell_missing(args: &Args, bundle: &Bundle, proof: &Proof, context: &Context) -> Result<()> {
    write_missing(args, bundle, proof.missing.iter().chain(&proof.withheld))?;
    let Some(first) = proof.missing.first() else { return Ok(()) };
    context.end();
    let parents = bundle.json().parents.iter().map(ToString::to_string);
    let size = proof.missing.iter().map(|missing| missing.size).fold(0, u64::saturating_add);
    let text = format!(
        "nothing was pushed: {} lacks {} of {} ({}) that {} expects there, the first {}; the bundle builds on",
        args.to,
        count(proof.missing.len(), "blob"),
        bundle.json().assumed.len(),
        bytes(size),
        bundle.layout().path().display(),
        first.digest,
    );
    Err(Error::new(Kind::Lacking, text).listing(parents.map(|parent| format!("  {parent}"))))
}
