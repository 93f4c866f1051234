//! What an export has done, or would do.

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

/// What an export has done, or would do.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum ExportReport {
    /// Of a dry run.
    Planned(Box<ExportPlan>),
    Written(Box<Exported>),
}

impl JsonReport for ExportReport {}

/// What an export would do.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportPlan {
    pub version: u32,
    /// Nothing is missing.
    pub ok: bool,
    /// Where the bundle would go.
    #[serde(serialize_with = "as_path")]
    pub output: PathBuf,
    /// The identity that the bundle would have.
    pub identity: Digest,
    /// The same as words.
    pub fingerprint: String,
    /// When the references were resolved.
    pub created: Timestamp,
    /// The bundle is there already.
    pub up_to_date: bool,
    pub images: Vec<ListedImage>,
    /// Images that were asked for and cannot be had.
    pub missing: Vec<MissingImage>,
    /// Size of the bundle in bytes.
    pub bytes: u64,
    /// Bytes of blobs that would be fetched.
    pub bytes_to_fetch: u64,
    /// Bytes that images have in common, and that are carried once.
    pub bytes_saved_by_sharing: u64,
    /// Bytes that the bundle would take from the file system. Absent: it is written in one pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_needed: Option<u64>,
    /// Bytes that the file system has left. Absent as `bytesNeeded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_free: Option<u64>,
    /// What speaks of whole indexes and is not carried.
    pub left_behind: Vec<LeftBehind>,
    /// Where images are read that are not read at the place that their name says: image to repository.
    #[serde(serialize_with = "as_object")]
    pub read_from: Vec<ReadFrom>,
    /// Of an export to volumes.
    #[serde(flatten)]
    pub volumes: Option<PlannedVolumes>,
    #[serde(skip)]
    pub outcome: Outcome,
}

/// Where an image is read.
#[derive(Clone, Debug)]
pub struct ReadFrom {
    pub image: String,
    pub repository: Repository,
}

/// The volumes that would be written.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedVolumes {
    pub volumes: Vec<PlannedVolume>,
    /// How many volumes the set has.
    pub of: usize,
    /// How many recovery volumes.
    pub recovery: u32,
}

/// A volume that would be written.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedVolume {
    /// The file.
    #[serde(serialize_with = "as_path")]
    pub path: PathBuf,
    /// From 1 on.
    pub number: u32,
    /// Its size.
    pub bytes: u64,
}

/// What an export has done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exported {
    pub version: u32,
    /// Nothing is missing, and everything that was asked for is written.
    pub ok: bool,
    /// Where the bundle is.
    #[serde(serialize_with = "as_path")]
    pub output: PathBuf,
    pub identity: Digest,
    /// What was written is so many bytes long.
    pub bytes: u64,
    /// It was there already.
    pub unchanged: bool,
    /// How many images it has.
    pub images: usize,
    /// Images that were asked for and could not be had.
    pub missing: Vec<MissingImage>,
    /// Bytes of blobs that were fetched.
    pub bytes_moved: u64,
    /// Bytes that images have in common, and that are carried once.
    pub bytes_saved_by_sharing: u64,
    /// What speaks of whole indexes and is not carried.
    pub left_behind: Vec<LeftBehind>,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
    /// What came from somewhere else than the place that names say.
    pub mirrors: Vec<Served>,
    /// Of an export to volumes.
    #[serde(flatten)]
    pub volumes: Option<ExportedVolumes>,
    /// Who has signed it.
    #[serde(skip)]
    pub signed_by: Option<PublicKey>,
    #[serde(skip)]
    pub outcome: Outcome,
    /// What failed when the bundle was there: the lock or a signature that was to be written.
    #[serde(rename = "error", skip_serializing_if = "Option::is_none", serialize_with = "as_detail")]
    pub failure: Option<Error>,
}

/// The volumes that were written.
#[derive(Clone, Debug, Serialize)]
pub struct ExportedVolumes {
    pub volumes: Vec<ExportedVolume>,
    /// How many volumes the set has.
    pub of: usize,
    /// Its recovery volumes that were written.
    pub recovery: Vec<ExportedVolume>,
}

/// A volume that was written, or was there already.
#[derive(Clone, Debug, Serialize)]
pub struct ExportedVolume {
    /// The file.
    #[serde(serialize_with = "as_path")]
    pub path: PathBuf,
    /// From 1 on.
    pub number: u32,
    /// Its size.
    pub bytes: u64,
    /// It was there already.
    pub unchanged: bool,
}

impl ExportReport {
    pub fn outcome(&self) -> Outcome {
        match self {
            ExportReport::Planned(plan) => plan.outcome,
            ExportReport::Written(written) => written.outcome,
        }
    }

    /// All went well until now, and the export as a whole ended so.
    pub(super) fn conclude(&mut self, concluded: Outcome) {
        let (outcome, ok, failure) = match self {
            ExportReport::Planned(plan) => (&mut plan.outcome, &mut plan.ok, None),
            ExportReport::Written(written) => (&mut written.outcome, &mut written.ok, written.failure.as_ref()),
        };
        *outcome = failure.map_or(concluded, |error| Outcome::Failed(error.kind()));
        *ok = outcome.is_ok();
    }
}

/// Where the images of a lock are read that have another place than their name says.
pub fn read_from(lock: &Lock, registries: &Registries) -> Vec<ReadFrom> {
    let place = |image: &LockedImage| {
        let digest = image.selection.as_ref().map_or(image.digest, |selection| selection.original.digest);
        registries.served_by(&image.reference.repository, &digest)
    };
    let served = |image: &LockedImage| Some(ReadFrom { image: image.name(), repository: place(image)? });
    lock.images.iter().filter_map(served).collect()
}

/// The images of a lock whose graph is read.
pub fn listed(lock: &Lock, graph: &Graph) -> Vec<ListedImage> {
    let manifests = graph.images.iter().flat_map(|image| &image.manifests);
    let by_digest: HashMap<Digest, &Manifest> = manifests.map(|own| (own.digest(), own)).collect();
    let manifest_of = |_: &LockedImage, attached: &Attached| by_digest.get(&attached.digest).map(|own| (*own).clone());
    lock.images.iter().map(|image| ListedImage::new(image, &manifest_of)).collect()
}

/// Bytes of every distinct blob, manifests apart.
pub fn blob_bytes(graph: &Graph) -> u64 {
    graph.blobs().iter().map(|blob| blob.size).fold(0, u64::saturating_add)
}

/// Bytes that images have in common.
pub fn saved_by_sharing(graph: &Graph) -> u64 {
    graph.unshared_size().saturating_sub(graph.total_size())
}

impl PlannedVolume {
    pub fn new(set: &Set, volume: &VolumePlan) -> PlannedVolume {
        PlannedVolume { path: set.path_of(volume), number: volume.number, bytes: volume.length }
    }
}

impl ExportedVolume {
    /// `unchanged`: the numbers of those that were there already.
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
