//! Reads back from a registry what a receipt confirms.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::environment::Environment;
use super::outcome::{JsonReport, Outcome, REPORT_VERSION};
use super::receipts::NamedReceipt;
use super::registry::RegistryOptions;
use crate::base::error::{Error, Kind, Reason, Result};
use crate::base::progress::Event;
use crate::base::progress::units::{bytes, count};
use crate::oci::{Reference, Repository};
use crate::pipeline::naming::{Target, parse_target};
use crate::pipeline::prove::{
    Claim, Confirmed, ImageProof, ImageProver, Options, ProofPlan, ProveState, ToRead, Verdict,
};
use crate::pipeline::receipt::{CompanionReceipt, ImageOutcome, Receipt};
use crate::transport::registry::Registries;

/// What to prove.
#[derive(Clone, Debug)]
pub struct ProveRequest {
    /// The receipt of an import or a migration, or an inventory.
    pub receipt: NamedReceipt,
    /// The present target, as `HOST[:PORT][/PREFIX]`, if it differs from the one in the receipt.
    pub to: Option<String>,
    /// Read every blob in every repository that needs it, instead of in one repository.
    pub every_repository: bool,
    /// Check tags and manifests, and read no blob.
    pub dry_run: bool,
    /// Where to record proven blobs. Without it, an interrupted proof starts again.
    pub state: Option<PathBuf>,
    pub registry: RegistryOptions,
}

/// The result of a proof.
#[derive(Clone, Debug, Serialize)]
pub struct ProveReport {
    pub version: u32,
    /// Whether everything was proven.
    pub ok: bool,
    /// `HOST[:PORT][/PREFIX]`.
    pub target: String,
    #[serde(flatten)]
    pub proof: Proof,
}

impl JsonReport for ProveReport {}

/// What was read back.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// Whether blobs were left unread.
    pub dry_run: bool,
    pub images: Vec<ImageProof>,
    /// Number of distinct blobs.
    pub blobs: usize,
    /// Size of these blobs in bytes.
    pub bytes: u64,
    /// Bytes that an earlier run has read.
    pub proven_before: u64,
    /// Bytes that this run has read.
    pub read: u64,
    /// Number of confirmed digests that no image refers to now.
    pub unplaced: usize,
    #[serde(skip)]
    pub outcome: Outcome,
    #[serde(skip)]
    pub elapsed: Duration,
}

/// Reads back what a receipt confirms.
///
/// # Errors
/// The receipt confirms nothing, or the registry cannot be asked. What was proven is in the state.
pub async fn prove(request: &ProveRequest, environment: &Environment) -> Result<ProveReport> {
    let NamedReceipt { name, receipt } = &request.receipt;
    let from = parse_target(&receipt.target)?;
    let to = request.to.as_deref().map_or_else(|| parse_target(&receipt.target), parse_target)?;
    let (claims, confirmed) = claims(receipt, &from, &to)?;
    if claims.is_empty() {
        return Err(Error::input(format!("{name} confirms no image: there is nothing to prove")));
    }
    let registries = request.registry.connect([to.registry.clone()], &BTreeMap::new(), environment)?;
    let job = Job {
        registries: &registries,
        registry: &to.registry,
        options: Options { jobs: request.registry.jobs, every_repository: request.every_repository },
        state: request.state.as_deref(),
        dry_run: request.dry_run,
    };
    let proof = job.run(&claims, &confirmed, environment).await?;
    let target = request.to.clone().unwrap_or_else(|| receipt.target.clone());
    Ok(ProveReport { version: REPORT_VERSION, ok: proof.outcome.is_ok(), target, proof })
}

/// A proof to be done.
pub(super) struct Job<'a> {
    pub registries: &'a Registries,
    /// `host[:port]`.
    pub registry: &'a str,
    pub options: Options,
    /// As in [`ProveRequest::state`].
    pub state: Option<&'a Path>,
    pub dry_run: bool,
}

impl Job<'_> {
    /// Reads back the claims.
    ///
    /// # Errors
    /// The registry cannot be asked. What was proven is in the state.
    pub async fn run(&self, claims: &[Claim], confirmed: &Confirmed, environment: &Environment) -> Result<Proof> {
        let (started, events) = (Instant::now(), &environment.events);
        self.registries.expect(claims.iter().map(|claim| &claim.reference.repository));
        let target = self.registries.itself();
        let prover = ImageProver { target: &target, options: self.options, events: events.clone() };
        let mut plan = prover.plan(claims, confirmed).await?;
        let state = match self.state.filter(|_| !self.dry_run) {
            Some(path) => ProveState::open(path, self.registry, (environment.clock)(), events)?,
            None => ProveState::default(),
        };
        let ToRead { ahead, before } = plan.bytes(&state, self.options);
        let (blobs, images) = (count(plan.blobs.len(), "blob"), count(plan.images.len(), "image"));
        events.report(Event::Status(format!("{} to read: {blobs} of {images}", bytes(ahead))));
        if let Some(begun) = state.earlier() {
            let text = format!("{} were proven before; this proof began {begun}", bytes(before));
            events.report(Event::Status(text));
        }
        let read = if self.dry_run { 0 } else { prover.read(&mut plan, &state).await? };
        if plan.unplaced > 0 {
            let text = "confirmed, but not proven because no image leads there any more";
            events.report(Event::Warning(format!("{} {text}", count(plan.unplaced, "digest"))));
        }
        // If an image could not be read, the state is kept, so that the next run does not read the other images again.
        if plan.images.iter().all(|image| image.verdict != Verdict::Unread || image.withheld().is_some()) {
            state.finish()?;
        }
        Ok(Proof {
            dry_run: self.dry_run,
            outcome: outcome(&plan),
            images: plan.images,
            blobs: plan.blobs.len(),
            bytes: ahead.saturating_add(before),
            proven_before: before,
            read,
            unplaced: plan.unplaced,
            elapsed: started.elapsed(),
        })
    }
}

impl Proof {
    pub fn count(&self, verdict: Verdict) -> usize {
        self.images.iter().filter(|image| image.verdict == verdict).count()
    }
}

/// Where the state of an interrupted proof of a receipt is kept.
pub fn state_beside(receipt: &Path) -> PathBuf {
    let mut beside = receipt.as_os_str().to_owned();
    beside.push(".proving");
    beside.into()
}

fn outcome(plan: &ProofPlan) -> Outcome {
    match () {
        () if plan.count(Verdict::Damaged) > 0 => Outcome::Damaged,
        () if plan.is_proven() => Outcome::Done,
        () => Outcome::SomeImagesFailed,
    }
}

/// Returns what a receipt states to exist at the target.
fn claims(receipt: &Receipt, from: &Target, to: &Target) -> Result<(Vec<Claim>, Confirmed)> {
    let mut claims = BTreeMap::new();
    for image in &receipt.images {
        let is_there = matches!(image.outcome, ImageOutcome::Pushed | ImageOutcome::Present);
        let (Some(reference), Some(digest), true) = (&image.reference, image.digest, is_there) else { continue };
        let reference = moved(reference, from, to)?;
        let of = |companion: &CompanionReceipt| {
            let tag = companion.tag.clone().map(|tag| reference.repository.with_tag(tag));
            // If the target joined a list, the list of the bundle can exist as well, by its digest.
            let meant = companion.meant().map(|meant| [companion.digest, meant]).into_iter().flatten();
            meant.map(move |digest| (tag.clone(), digest)).collect::<Vec<_>>()
        };
        let mut companions: Vec<_> = image.companions.iter().flat_map(of).collect();
        let meant = image.meant().unwrap_or(digest);
        if meant != digest {
            companions.push((Some(reference.clone()), digest));
        }
        companions.dedup();
        let digest = meant;
        claims.insert(reference.clone(), Claim { reference, digest, companions });
    }
    let manifests = || receipt.manifests.iter().map(|kept| &kept.0);
    let referrers = manifests().filter(|manifest| manifest.subject().is_some()).cloned().collect();
    let lists = manifests().map(|manifest| (manifest.digest(), manifest.clone())).collect();
    let digests = receipt.confirmed.iter().copied().collect();
    // Older versions did not record companions.
    let find_companions = receipt.images.iter().all(|image| image.companions.is_empty());
    Ok((claims.into_values().collect(), Confirmed { digests, referrers, lists, find_companions }))
}

/// Translates a reference below `from` to the name below `to`.
fn moved(reference: &Reference, from: &Target, to: &Target) -> Result<Reference> {
    let (repository, wrong) =
        (&reference.repository, |why| Error::input(format!("the receipt names {reference}: {why}")));
    if repository.registry() != from.registry {
        return Err(wrong(format!("it is not at {}", from.registry)));
    }
    let path = repository.path();
    let below = from.prefix.as_ref().and_then(|prefix| path.strip_prefix(prefix)?.strip_prefix('/'));
    // A name from the allowlist can be outside the prefix.
    let path = match (&to.prefix, below) {
        (Some(prefix), Some(below)) => format!("{prefix}/{below}"),
        (Some(prefix), None) if from.prefix.is_none() => format!("{prefix}/{path}"),
        (None, Some(below)) => below.to_owned(),
        (_, None) => path.to_owned(),
    };
    let repository = Repository::new(&to.registry, &path).map_err(|e| wrong(e.reason))?;
    Ok(Reference { repository, ..reference.clone() })
}

/// Returns why an image was not proven, as the outcome of its push. An image is not failed if only a policy withholds it.
pub(super) fn failure(image: &ImageProof) -> Option<Error> {
    if image.withheld().is_some() {
        return None;
    }
    let text: Vec<&str> = image.problems.iter().map(|problem| problem.found.as_str()).collect();
    let text = text.join("; ");
    let kind = match image.verdict {
        Verdict::Proven => return None,
        Verdict::Damaged => Kind::Damaged,
        Verdict::Missing | Verdict::Moved => Kind::NotFound,
        Verdict::Unread => Kind::Network,
    };
    let error = Error::new(kind, format!("reading it back: {text}"));
    Some(if kind == Kind::Damaged { error.with_reason(Reason::DamagedTarget) } else { error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_was_renamed_has_the_same_images_below_its_new_prefix() {
        let reference: Reference = "old:1/mirror/team/app:1".parse().unwrap();
        for (from, to, path) in [
            ("old:1/mirror", "new/copy", "new/copy/team/app:1"),
            ("old:1/mirror", "new", "new/team/app:1"),
            ("old:1", "new/copy", "new/copy/mirror/team/app:1"),
            ("old:1/mirror/team", "new/x", "new/x/app:1"),
            ("old:1/other", "new/copy", "new/mirror/team/app:1"),
        ] {
            let (from, to) = (parse_target(from).unwrap(), parse_target(to).unwrap());
            assert_eq!(moved(&reference, &from, &to).unwrap().to_string(), path);
        }
        let (from, to) = (parse_target("elsewhere").unwrap(), parse_target("new").unwrap());
        assert!(moved(&reference, &from, &to).is_err(), "a receipt must not lead to another registry");
    }
}
