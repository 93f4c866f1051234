//! The report of a push, and the files that a push writes.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::failures::{ImageFailure, failures};
use super::planned::replaced;
use super::{Ended, LeftOut, NotBrought, Push, PushPlan, PushRequest};
use crate::app::failure::as_detail;
use crate::app::local::write_file;
use crate::app::outcome::{JsonReport, Outcome};
use crate::app::prove::Proof;
use crate::base::error::{Error, Reason, Result};
use crate::base::progress::{Event, Events};
use crate::oci::{Digest, Reference};
use crate::pipeline::plan::Plan;
use crate::pipeline::receipt::{FromBundle, PrunedReceipt, Receipt};
use crate::pipeline::transfer::{self, Done, Transfer};

/// What a push did, or would do.
#[derive(Serialize)]
#[serde(untagged)]
pub enum PushReport {
    /// The result of a dry run.
    Planned(Box<PushPlan>),
    Pushed(Box<Pushed>),
}

impl JsonReport for PushReport {}

/// What a push did: its receipt, `ok`, and why images failed.
#[derive(Serialize)]
pub struct Pushed {
    #[serde(flatten)]
    pub receipt: Receipt,
    /// Whether everything arrived.
    pub ok: bool,
    #[serde(skip)]
    pub outcome: Outcome,
    /// The error that occurred after the push: of a file to write, of the proof, or of a later step of the command.
    #[serde(rename = "error", skip_serializing_if = "Option::is_none", serialize_with = "as_detail")]
    pub failure: Option<Error>,
    /// Problems of the source.
    #[serde(skip)]
    pub problems: Vec<String>,
    /// Why images failed that the source could deliver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<ImageFailure>,
    /// Existing content that a policy forbids pulling, with the registry's message: tags, and children of indexes by tag
    /// and digest.
    #[serde(skip)]
    pub blocked: Vec<(Reference, String)>,
    /// Immutable tags that were not changed and may not be read. Their images are at the target.
    #[serde(skip)]
    pub kept: Vec<Reference>,
    #[serde(skip)]
    pub not_brought: NotBrought,
    #[serde(skip)]
    pub left_out: Option<LeftOut>,
    /// Number of tags that got another digest.
    #[serde(skip)]
    pub replaced: usize,
    /// Bytes of blobs that were uploaded.
    #[serde(skip)]
    pub uploaded: u64,
    /// Bytes of blobs that were mounted instead.
    #[serde(skip)]
    pub mounted: u64,
    /// What was read back. `None` if that was not requested, or there was nothing to read.
    #[serde(skip)]
    pub proof: Option<Proof>,
    /// Time since the start of the command.
    #[serde(skip)]
    pub elapsed: Duration,
}

impl PushReport {
    pub fn outcome(&self) -> Outcome {
        match self {
            PushReport::Planned(plan) => plan.outcome,
            PushReport::Pushed(pushed) => pushed.outcome,
        }
    }

    /// The error that occurred after the push.
    pub fn failure(&self) -> Option<&Error> {
        match self {
            PushReport::Planned(plan) => plan.failure.as_ref(),
            PushReport::Pushed(pushed) => pushed.failure.as_ref(),
        }
    }

    /// Sets the outcome of a later step.
    pub(in crate::app) fn conclude(&mut self, concluded: Outcome) {
        let (outcome, ok) = match self {
            PushReport::Planned(plan) => (&mut plan.outcome, &mut plan.ok),
            PushReport::Pushed(pushed) => (&mut pushed.outcome, &mut pushed.ok),
        };
        (*outcome, *ok) = (concluded, concluded.is_ok());
    }

    /// Adds what was deleted after the push.
    pub(in crate::app) fn add_pruned(&mut self, deleted: Vec<PrunedReceipt>) {
        match self {
            PushReport::Planned(plan) => plan.pruned = Some(deleted),
            PushReport::Pushed(pushed) => pushed.receipt.pruned = deleted,
        }
    }

    /// Records an error of a later step. The first error decides how the command ends; later ones are reported as warnings.
    pub(in crate::app) fn fail(&mut self, error: Error, events: &Events) {
        let failure = match self {
            PushReport::Planned(plan) => &mut plan.failure,
            PushReport::Pushed(pushed) => &mut pushed.failure,
        };
        if failure.is_some() {
            events.report(Event::Warning(error.chain()));
            return;
        }
        let kind = failure.insert(error).kind();
        self.conclude(Outcome::Failed(kind));
    }
}

impl Pushed {
    pub(super) fn new(
        request: &PushRequest<'_>,
        ended: &Ended<'_>,
        outcome: transfer::TransferOutcome,
        receipt: Receipt,
        started: Instant,
    ) -> Pushed {
        let plan = ended.plan;
        let not_brought = NotBrought::after(plan, &outcome);
        let failures = failures(request, plan, &outcome);
        let pushed = plan.images.iter().zip(&outcome.images);
        let pushed = pushed.filter(|(_, result)| matches!(result, Ok(Done::Pushed))).map(|(step, _)| step);
        let replaced = replaced(pushed, |own| (outcome.state(own), outcome.action(own)));
        let has_left = not_brought.is_failure() || request.left_out.is_some();
        let ended = ended_as(request, &outcome, &failures, has_left);
        Pushed {
            receipt,
            ok: ended.is_ok(),
            outcome: ended,
            failure: None,
            problems: request.problems.clone(),
            failures,
            not_brought,
            left_out: request.left_out.clone(),
            replaced,
            uploaded: outcome.moved,
            mounted: outcome.mounted,
            blocked: outcome.blocked,
            kept: outcome.kept,
            proof: None,
            elapsed: started.elapsed(),
        }
    }

    pub(super) fn add_proof(&mut self, proof: Option<Proof>) {
        let Some(proof) = proof else { return };
        if proof.outcome == Outcome::Damaged || self.outcome == Outcome::Done {
            (self.outcome, self.ok) = (proof.outcome, proof.outcome.is_ok());
        }
        self.proof = Some(proof);
    }
}

fn ended_as(
    request: &PushRequest<'_>,
    outcome: &transfer::TransferOutcome,
    failures: &[ImageFailure],
    has_left: bool,
) -> Outcome {
    if request.lost.is_empty() && failures.is_empty() {
        let is_waiting = outcome.images.iter().any(|result| matches!(result, Ok(Done::Waiting)));
        return match (is_waiting, has_left) {
            (true, _) => Outcome::Waiting,
            (false, true) => Outcome::SomeImagesFailed,
            (false, false) => Outcome::Done,
        };
    }
    let mut errors = failures.iter().map(|failure| &failure.error);
    match errors.clone().find(|error| error.stopped().is_some()) {
        Some(error) => Outcome::Failed(error.kind()),
        // Running the command again would not help: the bundle itself lacks content.
        None if request.identity.is_some() && errors.any(|error| error.reason() == Some(&Reason::DamagedFile)) => {
            Outcome::Damaged
        }
        None => Outcome::SomeImagesFailed,
    }
}

impl Push<'_> {
    /// Writes the receipt and the digest file, if requested. If one cannot be written, the other still is.
    ///
    /// # Errors
    /// The first file that could not be written.
    pub(super) fn write(
        &self,
        receipt: &Receipt,
        request: &PushRequest<'_>,
        ended: &Ended<'_>,
        outcome: &transfer::TransferOutcome,
    ) -> Result<()> {
        let kept = self.write_receipt(receipt);
        let listed = self.options.digest_file.as_ref().map_or(Ok(()), |path| {
            let there = request.graph.images.iter().zip(&ended.plan.images).zip(&outcome.images);
            let there = there.filter(|(_, result)| matches!(result, Ok(Done::Pushed | Done::Present)));
            let lines = there.map(|((image, step), _)| format!("{} docker://{}\n", image.locked.digest, step.to));
            write_file(path, lines.collect::<String>().as_bytes())
        });
        kept.and(listed)
    }

    /// Writes only the receipt, if requested.
    ///
    /// # Errors
    /// The receipt cannot be written.
    pub(in crate::app) fn write_receipt(&self, receipt: &Receipt) -> Result<()> {
        self.options.receipt.as_ref().map_or(Ok(()), |file| file.write(receipt))
    }

    pub(super) fn receipt(
        &self,
        request: &PushRequest<'_>,
        ended: &Ended<'_>,
        outcome: &transfer::TransferOutcome,
    ) -> Receipt {
        let from = FromBundle { identity: request.identity, created: request.created };
        let now = (self.environment.clock)();
        let mut receipt = Receipt::new(from, &self.options.to, &request.graph, ended.plan, outcome, now);
        receipt.images.iter_mut().zip(&ended.proven).for_each(|(image, proven)| image.proven = *proven);
        receipt.images.extend(request.lost.iter().cloned());
        receipt.missing.clone_from(&request.missing);
        receipt.wanted = ended.wanted.to_vec();
        receipt.confirmed.extend(below_unread(request, outcome));
        self.brought.mark(&mut receipt);
        receipt
    }
}

/// Returns the blobs of complete images below manifests that the target does not return. The target was asked for each of
/// them.
fn below_unread(request: &PushRequest<'_>, outcome: &transfer::TransferOutcome) -> BTreeSet<Digest> {
    // Below an image that could not be read, it is unknown which blobs are missing.
    if !request.lost.is_empty() {
        return BTreeSet::new();
    }
    let mut partial =
        request.graph.images.iter().zip(&outcome.images).filter(|(image, _)| image.is_partial()).peekable();
    if partial.peek().is_none() || !partial.all(|(_, result)| matches!(result, Ok(Done::Pushed | Done::Present))) {
        return BTreeSet::new();
    }
    let named: HashSet<Digest> = request.graph.blobs().iter().map(|blob| blob.digest).collect();
    request.places.keys().filter(|digest| !named.contains(digest)).copied().collect()
}

/// Writes the receipt if a push is dropped early: Ctrl-C must not lose the record of what arrived.
pub(super) struct Interrupted<'p>(Option<Running<'p>>);

struct Running<'p> {
    push: &'p Push<'p>,
    request: &'p PushRequest<'p>,
    plan: &'p Plan,
    transfer: &'p Transfer<'p>,
}

impl<'p> Interrupted<'p> {
    pub fn new(
        push: &'p Push<'p>,
        request: &'p PushRequest<'p>,
        plan: &'p Plan,
        transfer: &'p Transfer<'p>,
    ) -> Interrupted<'p> {
        Interrupted(Some(Running { push, request, plan, transfer }))
    }

    /// Called at the regular end of a push, which writes the receipt itself.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Interrupted<'_> {
    fn drop(&mut self) {
        let Some(Running { push, request, plan, transfer }) = self.0.take() else { return };
        let outcome = transfer.so_far(&request.graph, plan, "the run was stopped");
        let ended = Ended { plan, wanted: &[], proven: vec![None; outcome.images.len()] };
        if let Err(error) = push.write_receipt(&push.receipt(request, &ended, &outcome)) {
            tracing::warn!(error = %error.chain(), "no receipt was written");
        }
    }
}
