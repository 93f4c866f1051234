//! The report of an export.

use crate::app::units::as_path;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::app::failure::as_detail;
use crate::app::listed::ListedImage;
use crate::app::outcome::{JsonReport, Outcome};
use crate::app::units::as_seconds;
use crate::base::error::Error;
use crate::bundle::volumes::{Set, VolumePlan, WrittenVolume};
use crate::oci::{Digest, Manifest, Repository};
use crate::pipeline::graph::{Graph, LeftBehind};
use crate::pipeline::lock::{Attached, Lock, LockedImage, MissingImage};
use crate::signing::PublicKey;
use crate::transport::registry::{Registries, Served};

/// What an export did, or would do.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum ExportReport {
    /// The result of a dry run.
    Planned(Box<ExportPlan>),
    Written(Box<Exported>),
}

impl JsonReport for ExportReport {}

/// What an export would do.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportPlan {
    pub version: u32,
    /// Whether nothing is missing.
    pub ok: bool,
    /// Where the bundle would be written.
    #[serde(serialize_with = "as_path")]
    pub output: PathBuf,
    /// The identity that the bundle would have.
    pub identity: Digest,
    /// The identity as words.
    pub fingerprint: String,
    /// Whether an export would give this identity. If not, it includes the time of this plan.
    pub identity_is_final: bool,
    /// When the references were resolved.
    pub created: Timestamp,
    /// Whether the bundle already exists.
    pub up_to_date: bool,
    pub images: Vec<ListedImage>,
    /// Images that were requested and cannot be fetched.
    pub missing: Vec<MissingImage>,
    /// Size of the bundle in bytes.
    pub bytes: u64,
    /// Bytes of blobs that would be fetched.
    pub bytes_to_fetch: u64,
    /// Bytes saved by writing shared content only once.
    pub bytes_saved_by_sharing: u64,
    /// Bytes that the bundle would use in the file system. Absent if it is written in one pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_needed: Option<u64>,
    /// Free bytes in the file system. Absent if `bytesNeeded` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_free: Option<u64>,
    /// Artifacts that refer to a whole index and are not exported.
    pub left_behind: Vec<LeftBehind>,
    /// The repositories of images that are read from another place than their names say, by image.
    #[serde(serialize_with = "as_object")]
    pub read_from: Vec<ReadFrom>,
    /// Only for an export to volumes.
    #[serde(flatten)]
    pub volumes: Option<PlannedVolumes>,
    #[serde(skip)]
    pub outcome: Outcome,
}

/// Where an image is read from.
#[derive(Clone, Debug)]
pub struct ReadFrom {
    pub image: String,
    pub repository: Repository,
}

/// The volumes that would be written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedVolumes {
    pub volumes: Vec<PlannedVolume>,
    /// Number of volumes in the set.
    pub of: usize,
    /// Number of recovery volumes.
    pub recovery_count: u32,
}

/// A volume that would be written.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedVolume {
    /// The file.
    #[serde(serialize_with = "as_path")]
    pub path: PathBuf,
    /// The number, from 1.
    pub number: u32,
    /// Size in bytes.
    pub bytes: u64,
}

/// What an export did.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exported {
    pub version: u32,
    /// Whether nothing is missing, and everything requested was written.
    pub ok: bool,
    /// Where the bundle is.
    #[serde(serialize_with = "as_path")]
    pub output: PathBuf,
    pub identity: Digest,
    /// Size of the output in bytes.
    pub bytes: u64,
    /// Whether the bundle already existed.
    pub unchanged: bool,
    /// Number of images in the bundle.
    pub image_count: usize,
    /// Images that were requested and could not be fetched.
    pub missing: Vec<MissingImage>,
    /// Bytes of blobs that were fetched.
    pub bytes_moved: u64,
    /// Bytes saved by writing shared content only once.
    pub bytes_saved_by_sharing: u64,
    /// Artifacts that refer to a whole index and are not exported.
    pub left_behind: Vec<LeftBehind>,
    /// Duration of the export.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
    /// Content that came from another place than its name says.
    pub mirrors: Vec<Served>,
    /// Only for an export to volumes.
    #[serde(flatten)]
    pub volumes: Option<ExportedVolumes>,
    /// The key that signed the bundle.
    #[serde(skip)]
    pub signed_by: Option<PublicKey>,
    #[serde(skip)]
    pub outcome: Outcome,
    /// The error that occurred once the bundle existed: its lock or signature could not be written.
    #[serde(rename = "error", skip_serializing_if = "Option::is_none", serialize_with = "as_detail")]
    pub failure: Option<Error>,
}

/// The volumes that were written.
#[derive(Clone, Debug, Serialize)]
pub struct ExportedVolumes {
    pub volumes: Vec<ExportedVolume>,
    /// Number of volumes in the set.
    pub of: usize,
    /// The recovery volumes written.
    pub recovery: Vec<ExportedVolume>,
}

/// A volume that was written or already existed.
#[derive(Clone, Debug, Serialize)]
pub struct ExportedVolume {
    /// The file.
    #[serde(serialize_with = "as_path")]
    pub path: PathBuf,
    /// The number, from 1.
    pub number: u32,
    /// Size in bytes.
    pub bytes: u64,
    /// Whether the volume already existed.
    pub unchanged: bool,
}

impl ExportReport {
    pub fn outcome(&self) -> Outcome {
        match self {
            ExportReport::Planned(plan) => plan.outcome,
            ExportReport::Written(written) => written.outcome,
        }
    }

    /// Sets the outcome of the whole export, unless the report already has an error.
    pub(super) fn conclude(&mut self, concluded: Outcome) {
        let (outcome, ok, failure) = match self {
            ExportReport::Planned(plan) => (&mut plan.outcome, &mut plan.ok, None),
            ExportReport::Written(written) => (&mut written.outcome, &mut written.ok, written.failure.as_ref()),
        };
        *outcome = failure.map_or(concluded, |error| Outcome::Failed(error.kind()));
        *ok = outcome.is_ok();
    }
}

/// Returns the images of a lock that are read from another place than their names say.
pub fn read_from(lock: &Lock, registries: &Registries) -> Vec<ReadFrom> {
    let place = |image: &LockedImage| {
        let digest = image.selection.as_ref().map_or(image.digest, |selection| selection.original.digest);
        registries.served_by(&image.reference.repository, &digest)
    };
    let served = |image: &LockedImage| Some(ReadFrom { image: image.name(), repository: place(image)? });
    lock.images.iter().filter_map(served).collect()
}

/// Returns the images of a lock whose graph was read.
pub fn listed(lock: &Lock, graph: &Graph) -> Vec<ListedImage> {
    let manifests = graph.images.iter().flat_map(|image| &image.manifests);
    let by_digest: HashMap<Digest, &Manifest> = manifests.map(|own| (own.digest(), own)).collect();
    let manifest_of = |_: &LockedImage, attached: &Attached| by_digest.get(&attached.digest).map(|own| (*own).clone());
    lock.images.iter().map(|image| ListedImage::new(image, &manifest_of)).collect()
}

/// Returns the size of all distinct blobs in bytes, without manifests.
pub fn blob_bytes(graph: &Graph) -> u64 {
    graph.blobs().iter().map(|blob| blob.size).fold(0, u64::saturating_add)
}

/// Returns the bytes saved by writing shared content only once.
pub fn saved_by_sharing(graph: &Graph) -> u64 {
    graph.unshared_size().saturating_sub(graph.total_size())
}

impl PlannedVolume {
    pub fn new(set: &Set, volume: &VolumePlan) -> PlannedVolume {
        PlannedVolume { path: set.path_of(volume), number: volume.number, bytes: volume.length }
    }
}

impl ExportedVolume {
    /// `unchanged` has the numbers of the volumes that already existed.
    pub fn new(set: &Set, volume: &VolumePlan, unchanged: &BTreeSet<u32>) -> ExportedVolume {
        let (path, number, bytes) = (set.path_of(volume), volume.number, volume.length);
        ExportedVolume { path, number, bytes, unchanged: unchanged.contains(&number) }
    }
}

impl From<&WrittenVolume> for ExportedVolume {
    fn from(written: &WrittenVolume) -> ExportedVolume {
        let WrittenVolume { path, number, size, unchanged } = written;
        ExportedVolume { path: path.clone(), number: *number, bytes: *size, unchanged: *unchanged }
    }
}

fn as_object<S: Serializer>(places: &[ReadFrom], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(places.iter().map(|place| (&place.image, &place.repository)))
}
