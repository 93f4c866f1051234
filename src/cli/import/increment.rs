//! The import of a bundle that builds on what the target has: all of that is found before anything is pushed.

use std::time::Instant;

use super::piped::Pump;
use super::{Args, cargo, read_graph};
use crate::bundle::{Bundle, MISSING_VERSION, Missing, MissingBlob};
use crate::cli::context::{Context, write_file};
use crate::cli::exit::Outcome;
use crate::cli::export::TOOL;
use crate::cli::push::{Arriving, Push};
use crate::error::{Error, Kind, Result};
use crate::increment::{Expected, Proof};
use crate::progress::units::{bytes, count};

/// How the bundle comes.
#[derive(Clone, Copy, Default)]
pub struct From<'a> {
    /// In several runs.
    pub arriving: Option<&'a dyn Arriving>,
    /// Out of a pipe.
    pub pump: Option<&'a Pump>,
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
    let expected = Expected::new((bundle.layout(), bundle.json()), &registries, &targets, &closed);
    let graph = read_graph(&expected, bundle.lock(), context).await;
    let known = graph.as_ref().ok().map(|graph| (graph, &targets));
    let proof = expected.prove(&registries, known, push.jobs(), &context.events).await?;
    tell_missing(args, bundle, &proof, context)?;
    let graph = graph?;
    let Some(pump) = from.pump else {
        let cargo = cargo(bundle, &expected, graph, from.arriving);
        return push.run(&super::Cargo { places: proof.places, ..cargo }, started, context).await;
    };
    pump.check(&graph)?;
    let arrived = pump.arrived(&expected);
    let cargo = cargo(bundle, &arrived, graph, None);
    push.run(&super::Cargo { places: proof.places, arrivals: Some(pump), ..cargo }, started, context).await
}

/// # Errors
/// Something is missing.
fn tell_missing(args: &Args, bundle: &Bundle, proof: &Proof, context: &Context) -> Result<()> {
    let blobs = proof.missing.iter();
    let blobs = blobs.map(|it| MissingBlob { digest: it.digest, size: Some(it.size), ranges: Vec::new() }).collect();
    let (tool, identity) = (TOOL.to_owned(), bundle.identity());
    let missing = Missing { gapferry_missing: MISSING_VERSION, tool, identity, metadata: Vec::new(), blobs };
    if let Some(path) = &args.missing {
        write_file(path, missing.to_json().as_bytes())?;
    }
    let Some(first) = proof.missing.first() else { return Ok(()) };
    context.end();
    let parents: Vec<String> = bundle.json().parents.iter().map(|parent| format!("\n  {parent}")).collect();
    Err(Error::new(
        Kind::Lacking,
        format!(
            "nothing was pushed: {} lacks {} of {} ({}) that {} expects there, the first {}; the bundle builds on{}",
            args.to,
            count(proof.missing.len(), "blob"),
            bundle.json().assumed.len(),
            bytes(missing.bytes()),
            bundle.layout().path().display(),
            first.digest,
            parents.concat(),
        ),
    ))
}
