//! The report of a migration.

use crate::app::units::as_path;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::broken::broken_images;
use super::collect::Collected;
use super::counted::Counted;
use super::name::StoredName;
use crate::app::failure::{as_detail, as_one_detail};
use crate::app::outcome::{JsonReport, Outcome, REPORT_VERSION};
use crate::app::push::PushReport;
use crate::app::storage_problems::problem_counts;
use crate::app::units::as_seconds;
use crate::base::error::Error;
use crate::bundle::Finished;
use crate::oci::{Digest, Platform};
use crate::signing::PublicKey;
use crate::transport::storage::{StorageProblem, StorageProblemKind};

/// What a migration found or did.
#[derive(Serialize)]
#[serde(untagged)]
pub enum MigrateReport {
    Listed(Box<StorageList>),
    /// Nothing was done, because the storage has problems and the request is strict.
    Refused(Box<MigrationRefused>),
    Pushed(PushReport),
    Written(Box<Migrated>),
}

impl JsonReport for MigrateReport {}

/// The contents of a storage.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageList {
    pub version: u32,
    /// Whether the storage could be read. Its problems are in `problems`.
    pub ok: bool,
    /// The storage, as named in the request.
    #[serde(serialize_with = "as_path")]
    pub storage: PathBuf,
    /// Number of repositories.
    pub repository_count: usize,
    /// Number of manifests in all repositories.
    pub manifest_count: usize,
    /// Size of the images in bytes. Shared blobs and manifests count once.
    pub size: u64,
    pub images: Vec<StoredImage>,
    pub problems: Vec<StorageProblem>,
    /// Number of problems by code.
    pub counts: BTreeMap<StorageProblemKind, usize>,
    /// What kinds of tags there are.
    #[serde(skip)]
    pub counted: Counted,
}

/// An image in a storage.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredImage {
    #[serde(flatten)]
    pub name: StoredName,
    /// The media type of its manifest, if that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The platforms of the image. Absent if it is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<Platform>>,
    /// Size of all its content in bytes. Absent if it is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes of it that another image has too. Absent if it is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<u64>,
    pub state: StoredState,
    /// Its type in a word. `None` if it cannot be read.
    #[serde(skip)]
    pub type_name: Option<&'static str>,
}

/// Whether an image in a storage is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredState {
    Ok,
    /// The image is damaged. The entries of `problems` that name it give the reason.
    Damaged,
}

/// A migration that did not start.
#[derive(Clone, Debug, Serialize)]
pub struct MigrationRefused {
    pub version: u32,
    /// `false`.
    pub ok: bool,
    /// The storage, as named in the request.
    #[serde(serialize_with = "as_path")]
    pub storage: PathBuf,
    pub problems: Vec<StorageProblem>,
    /// Number of problems by code.
    pub counts: BTreeMap<StorageProblemKind, usize>,
    /// Why the migration did not start.
    #[serde(serialize_with = "as_one_detail")]
    pub error: Error,
}

/// What a migration did with the images of a storage.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Migrated {
    pub version: u32,
    /// Whether no image failed.
    pub ok: bool,
    /// The storage, as named in the request.
    #[serde(serialize_with = "as_path")]
    pub storage: PathBuf,
    /// Where the images were written.
    #[serde(serialize_with = "as_path")]
    pub output: PathBuf,
    /// The images; those that were complete in the storage come first.
    pub images: Vec<MigratedImage>,
    /// Number of images written.
    pub written: usize,
    /// Number of images that already existed.
    pub present: usize,
    /// Number of failed images, and of unreadable places that may contain images.
    pub failed_count: usize,
    /// Number of blobs that are links to the storage.
    pub blobs_linked: u64,
    /// Bytes of blobs that were copied.
    pub bytes_copied: u64,
    pub problems: Vec<StorageProblem>,
    /// Number of problems by code.
    pub counts: BTreeMap<StorageProblemKind, usize>,
    /// Duration of the migration.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
    /// Only for a bundle.
    #[serde(flatten)]
    pub bundle: Option<MigratedBundle>,
    /// The error that ended the migration early.
    #[serde(rename = "error", skip_serializing_if = "Option::is_none", serialize_with = "as_detail")]
    pub failure: Option<Error>,
    /// For a storage: number of files that keep their owner, because they are hard links of an earlier run.
    #[serde(skip)]
    pub kept_owner: u64,
    #[serde(skip)]
    pub outcome: Outcome,
}

/// The bundle that a migration wrote.
#[derive(Clone, Debug, Serialize)]
pub struct MigratedBundle {
    pub identity: Digest,
    /// Size in bytes.
    pub bytes: u64,
    /// Whether the bundle already existed.
    pub unchanged: bool,
    /// The key that signed the bundle.
    #[serde(skip)]
    pub signed_by: Option<PublicKey>,
}

/// An image of a storage, and the result of its migration.
#[derive(Clone, Debug, Serialize)]
pub struct MigratedImage {
    #[serde(flatten)]
    pub name: StoredName,
    /// Size of all its content in bytes. Absent if it is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub state: MigratedState,
    /// Why the image failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Whether the image was complete in the storage.
    #[serde(skip)]
    pub was_whole: bool,
}

/// The result for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MigratedState {
    Written,
    /// The image already existed.
    Present,
    Failed,
}

/// The result for an image that was complete in the storage.
pub enum MigrateOutcome {
    Written,
    Present,
    /// The reason of the failure.
    Failed(String),
}

/// The result of a run.
#[derive(Default)]
pub struct Ended {
    /// One per image of [`Collected::whole`], in its order. Fewer if the run ended early.
    pub outcomes: Vec<MigrateOutcome>,
    /// Number of blobs that are links.
    pub linked: u64,
    /// Bytes of blobs that were written.
    pub copied: u64,
    pub bundle: Option<Finished>,
    /// The key that signed the bundle.
    pub signed_by: Option<PublicKey>,
    /// The error that ended the migration early.
    pub failure: Option<Error>,
    /// As in [`Migrated::kept_owner`].
    pub kept_owner: u64,
}

impl Ended {
    /// Builds the report. `elapsed` is the time since the start of the command.
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
            failed_count: failed,
            blobs_linked: self.linked,
            bytes_copied: self.copied,
            problems: collected.problems.clone(),
            counts: problem_counts(&collected.problems),
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

/// Returns every selected image with its result. Those that were complete come first.
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
    let broken = broken_images(collected).into_iter().map(|broken| MigratedImage {
        name: broken.known(),
        size: None,
        state: MigratedState::Failed,
        reasons: broken.reasons,
        was_whole: false,
    });
    whole.chain(broken).collect()
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
