//! What a migration has found, or done.

use crate::app::units::as_path;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::collect::Collected;
use super::counted::Counted;
use super::faulty::faulty;
use super::name::StoredName;
use crate::app::failure::{as_detail, as_one_detail};
use crate::app::faults::fault_counts;
use crate::app::outcome::{JsonReport, Outcome, REPORT_VERSION};
use crate::app::push::PushReport;
use crate::app::units::as_seconds;
use crate::base::error::Error;
use crate::bundle::Finished;
use crate::oci::{Digest, Platform};
use crate::signing::PublicKey;
use crate::transport::storage::{Fault, FaultKind};

/// What a migration has found, or done.
#[derive(Serialize)]
#[serde(untagged)]
pub enum MigrateReport {
    Listed(Box<StorageList>),
    /// Nothing was done, because something is wrong and that was not to be.
    Refused(Box<MigrationRefused>),
    Pushed(PushReport),
    Written(Box<Migrated>),
}

impl JsonReport for MigrateReport {}

/// What is in a storage.
#[derive(Clone, Debug, Serialize)]
pub struct StorageList {
    pub version: u32,
    /// It could be read. That some of it is faulty is in `faults`.
    pub ok: bool,
    /// Where it is, as it was named.
    #[serde(serialize_with = "as_path")]
    pub storage: PathBuf,
    /// How many repositories it has.
    pub repositories: usize,
    /// How many manifests, in all repositories.
    pub manifests: usize,
    /// Bytes of the images, each blob and manifest once.
    pub size: u64,
    pub images: Vec<StoredImage>,
    pub faults: Vec<Fault>,
    /// How many faults there are of each code.
    pub counts: BTreeMap<FaultKind, usize>,
    /// What its tags are.
    #[serde(skip)]
    pub counted: Counted,
}

/// An image in a storage.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredImage {
    #[serde(flatten)]
    pub name: StoredName,
    /// Of its manifest, where that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it is for. Absent of a faulty one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<Platform>>,
    /// Bytes of everything below it. Absent of a faulty one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// How many of these another image has too. Absent of a faulty one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<u64>,
    pub state: StoredState,
    /// What it is in a word. `None`: that cannot be read.
    #[serde(skip)]
    pub type_name: Option<&'static str>,
}

/// Whether an image in a storage is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredState {
    Ok,
    /// The faults that name it say why.
    Faulty,
}

/// A migration that did not begin.
#[derive(Clone, Debug, Serialize)]
pub struct MigrationRefused {
    pub version: u32,
    /// `false`.
    pub ok: bool,
    /// Where the storage is, as it was named.
    #[serde(serialize_with = "as_path")]
    pub storage: PathBuf,
    pub faults: Vec<Fault>,
    /// How many faults there are of each code.
    pub counts: BTreeMap<FaultKind, usize>,
    /// Why it did not begin.
    #[serde(serialize_with = "as_one_detail")]
    pub error: Error,
}

/// What became of the images of a storage.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Migrated {
    pub version: u32,
    /// No image failed.
    pub ok: bool,
    /// Where the storage is, as it was named.
    #[serde(serialize_with = "as_path")]
    pub storage: PathBuf,
    /// Where the images are.
    #[serde(serialize_with = "as_path")]
    pub output: PathBuf,
    /// First those that were whole.
    pub images: Vec<MigratedImage>,
    /// How many images were written.
    pub written: usize,
    /// How many were there already.
    pub present: usize,
    /// How many failed, and how many places are not readable where some may be.
    pub failed: usize,
    /// Blobs that are links to the storage.
    pub blobs_linked: u64,
    /// Bytes of blobs that were copied.
    pub bytes_copied: u64,
    pub faults: Vec<Fault>,
    /// How many faults there are of each code.
    pub counts: BTreeMap<FaultKind, usize>,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
    /// Of a bundle.
    #[serde(flatten)]
    pub bundle: Option<MigratedBundle>,
    /// What kept the rest from being written.
    #[serde(rename = "error", skip_serializing_if = "Option::is_none", serialize_with = "as_detail")]
    pub failure: Option<Error>,
    /// Of a storage: files of other images that keep their owner, as they are hard links of an earlier run.
    #[serde(skip)]
    pub kept_owner: u64,
    #[serde(skip)]
    pub outcome: Outcome,
}

/// The bundle that a migration has written.
#[derive(Clone, Debug, Serialize)]
pub struct MigratedBundle {
    pub identity: Digest,
    /// Its size.
    pub bytes: u64,
    /// It was there already.
    pub unchanged: bool,
    /// Who has signed it.
    #[serde(skip)]
    pub signed_by: Option<PublicKey>,
}

/// An image of a storage, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct MigratedImage {
    #[serde(flatten)]
    pub name: StoredName,
    /// Bytes of everything below it. Absent of a faulty one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub state: MigratedState,
    /// Why it failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// It was whole in the storage.
    #[serde(skip)]
    pub was_whole: bool,
}

/// What became of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MigratedState {
    Written,
    /// It was there already.
    Present,
    Failed,
}

/// What became of an image that was whole in the storage.
pub enum MigrateOutcome {
    Written,
    Present,
    /// With the reason.
    Failed(String),
}

/// What a run came to.
#[derive(Default)]
pub struct Ended {
    /// Those of [`Collected::whole`], in its order; fewer if it ended early.
    pub outcomes: Vec<MigrateOutcome>,
    /// Blobs that are links.
    pub linked: u64,
    /// Bytes of blobs that were written.
    pub copied: u64,
    pub bundle: Option<Finished>,
    /// Who has signed it.
    pub signed_by: Option<PublicKey>,
    /// What kept the rest from being written.
    pub failure: Option<Error>,
    /// As in [`Migrated::kept_owner`].
    pub kept_owner: u64,
}

impl Ended {
    /// The report. `elapsed` is since the command began.
    pub fn report(self, collected: &Collected, storage: PathBuf, output: PathBuf, elapsed: Duration) -> Migrated {
        let of = |wanted: fn(&MigrateOutcome) -> bool| self.outcomes.iter().filter(|outcome| wanted(outcome)).count();
        let written = of(|outcome| matches!(outcome, MigrateOutcome::Written));
        let present = of(|outcome| matches!(outcome, MigrateOutcome::Present));
        let failed = collected.failed() + of(|outcome| matches!(outcome, MigrateOutcome::Failed(_)));
        let outcome = match &self.failure {
            Some(error) => Outcome::Failed(error.kind()),
            None if failed > 0 => Outcome::SomeImagesFailed,
            None => Outcome::Done,
        };
        Migrated {
            version: REPORT_VERSION,
            ok: outcome.is_ok(),
            storage,
            output,
            images: images(self.outcomes, collected),
            written,
            present,
            failed,
            blobs_linked: self.linked,
            bytes_copied: self.copied,
            faults: collected.faults.clone(),
            counts: fault_counts(&collected.faults),
            elapsed,
            bundle: self.bundle.map(|Finished { identity, size, unchanged, .. }| MigratedBundle {
                identity,
                bytes: size,
                unchanged,
                signed_by: self.signed_by,
            }),
            failure: self.failure,
            kept_owner: self.kept_owner,
            outcome,
        }
    }
}

/// Every image that was wanted, and what became of it: first those that were whole.
fn images(outcomes: Vec<MigrateOutcome>, collected: &Collected) -> Vec<MigratedImage> {
    let whole = collected.whole().zip(outcomes).map(|((found, image), outcome)| {
        let (state, reasons) = match outcome {
            MigrateOutcome::Written => (MigratedState::Written, Vec::new()),
            MigrateOutcome::Present => (MigratedState::Present, Vec::new()),
            MigrateOutcome::Failed(reason) => (MigratedState::Failed, vec![reason]),
        };
        let (name, size) = (StoredName::of(found), Some(image.total_size()));
        MigratedImage { name, size, state, reasons, was_whole: true }
    });
    let faulty = faulty(collected).into_iter().map(|faulty| MigratedImage {
        name: faulty.known(),
        size: None,
        state: MigratedState::Failed,
        reasons: faulty.reasons,
        was_whole: false,
    });
    whole.chain(faulty).collect()
}

impl MigrateReport {
    pub fn outcome(&self) -> Outcome {
        match self {
            MigrateReport::Listed(_) => Outcome::Done,
            MigrateReport::Refused(refused) => Outcome::Failed(refused.error.kind()),
            MigrateReport::Pushed(pushed) => pushed.outcome(),
            MigrateReport::Written(migrated) => migrated.outcome,
        }
    }
}
