//! Lists which images of an allowlist a target has, as a baseline for the next increment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::environment::Environment;
use super::failure::as_one_detail;
use super::outcome::{JsonReport, Outcome, REPORT_VERSION};
use super::push::{NameOptions, absent};
use super::receipts::ReceiptFile;
use super::registry::RegistryOptions;
use super::units::as_optional_path;
use crate::base::document::Document;
use crate::base::error::{Error, Result};
use crate::increment::{Holdings, InventoryBuilder, UnreadableImage};
use crate::oci::Reference;
use crate::pipeline::allowlist::Allowlist;
use crate::pipeline::naming::{Naming, Target, parse_target};
use crate::pipeline::receipt::{ImageOutcome, ImageReceipt, Receipt, ReceiptKind};

/// What to list.
pub struct InventoryRequest {
    /// `HOST[:PORT][/PREFIX]`.
    pub target: String,
    pub allowlist: Allowlist,
    /// Where the images are at the target, as for an import.
    pub names: NameOptions,
    /// Where to write the inventory.
    pub output: Option<ReceiptFile>,
    pub registry: RegistryOptions,
}

/// What the target has.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryReport {
    pub version: u32,
    /// Whether every image and every list of tags could be read.
    pub ok: bool,
    /// The inventory file.
    #[serde(serialize_with = "as_optional_path")]
    pub output: Option<PathBuf>,
    /// `HOST[:PORT][/PREFIX]`.
    pub target: String,
    /// Number of images that the target was asked for.
    pub image_count: usize,
    /// Number of images that the target has as a whole.
    pub present: usize,
    /// Number of blobs and manifests that the target confirmed.
    pub confirmed_count: usize,
    /// Images that could not be read and might exist.
    pub unreadable: Vec<InventoryFailure>,
    #[serde(skip)]
    pub inventory: Receipt,
    #[serde(skip)]
    pub outcome: Outcome,
}

impl JsonReport for InventoryReport {}

/// An image that could not be read.
#[derive(Clone, Debug, Serialize)]
pub struct InventoryFailure {
    /// The image at its source, or the entry of the allowlist.
    pub source: String,
    /// Why it could not be read.
    #[serde(serialize_with = "as_one_detail")]
    pub error: Error,
}

/// Asks a registry which images of an allowlist it has. Every manifest below a tag is read and proven, and the registry is
/// asked for each blob.
///
/// # Errors
/// No image could be read, or the inventory cannot be written.
pub async fn inventory(request: &InventoryRequest, environment: &Environment) -> Result<InventoryReport> {
    let (environment, watch) = environment.watched();
    let target = parse_target(&request.target)?;
    if let Some(output) = &request.output {
        super::local::check_writable([&output.path])?;
    }
    let (naming, rules) = (request.names.naming(&target), &request.allowlist.rules);
    let registries = request.registry.connect([target.registry.clone()], &BTreeMap::new(), &environment)?;
    let closed = absent(&registries, &target, &places(request, &naming, &target)?).await?;
    let (source, sink, events) = (&registries, &registries, &environment.events);
    let builder = InventoryBuilder { source, sink, closed: &closed, jobs: request.registry.jobs, events };
    let (named, mut unreadable) = builder.expand(rules, &naming, &target.registry).await?;
    let Holdings { mut images, confirmed, manifests, unreadable: more } = builder.ask(&named).await?;
    images.extend(unreadable.iter().map(|it| ImageReceipt::lost(it.source.clone(), None, it.error.chain())));
    unreadable.extend(more);
    if unreadable.len() == images.len()
        && let Some(UnreadableImage { error, .. }) = unreadable.first()
    {
        return Err(error.clone());
    }
    let inventory = Receipt {
        version: Receipt::VERSION,
        kind: ReceiptKind::Inventory,
        bundle: None,
        created: None,
        target: request.target.clone(),
        finished: (environment.clock)(),
        pruned: Vec::new(),
        wanted: Vec::new(),
        images,
        missing: Vec::new(),
        confirmed,
        manifests,
    };
    request.output.as_ref().map_or(Ok(()), |output| output.write(&inventory))?;
    let is_whole = unreadable.is_empty() && !watch.is_incomplete();
    let outcome = if is_whole { Outcome::Done } else { Outcome::SomeImagesFailed };
    let failure = |UnreadableImage { source, error }| InventoryFailure { source, error };
    Ok(InventoryReport {
        version: REPORT_VERSION,
        ok: outcome.is_ok(),
        output: request.output.as_ref().map(|output| output.path.clone()),
        target: request.target.clone(),
        image_count: inventory.images.len(),
        present: inventory.images.iter().filter(|image| image.outcome == ImageOutcome::Present).count(),
        confirmed_count: inventory.confirmed.len(),
        unreadable: unreadable.into_iter().map(failure).collect(),
        inventory,
        outcome,
    })
}

/// Returns a reference in each repository that the rules lead to.
fn places(request: &InventoryRequest, naming: &Naming, target: &Target) -> Result<Vec<Reference>> {
    let place = |rule: &crate::pipeline::allowlist::Rule| {
        let repository = naming.repository(&target.registry, rule.select.repository(), rule.rename.as_ref())?;
        Ok(repository.with_tag("latest".parse().map_err(|e| Error::input("naming").because(e))?))
    };
    request.allowlist.rules.iter().map(place).collect()
}
