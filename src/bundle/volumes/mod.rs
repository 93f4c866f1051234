//! A bundle on several media: files of limited size, each a tar that states which bundle it belongs to.
//!
//! The module lays out the files of a bundle in volumes, fills and proves volumes, and keeps the segments for an import of
//! single volumes. It must not depend on where blobs come from.

mod assemble;
mod capacity;
mod computed;
mod existing;
mod expected;
mod format;
mod layout;
mod names;
mod opened;
mod output;
mod parity;
mod partial;
mod plan;
mod reconstruct;
mod recovery;
mod recovery_layout;
mod set;
mod state;
mod surviving;
mod unfinished;
mod volume_metadata;
mod volume_proof;

pub use assemble::KeptPiece;
pub use existing::{KnownVolume, Replaceable};
pub(super) use existing::{lacking, volumes_of, whole};
pub use format::{
    MAX_VOLUME_JSON, MOST_VOLUMES, RecoveryJson, Segment, VOLUME_VERSION, VolumeFile, VolumeJson, WholeVolume,
};
pub use layout::{Cut, Held, VolumePlan};
pub use names::{Part, RECOVERY_DIGITS, SetName, WrittenVolume};
pub use opened::{Broken, Foreign, Opened, Recovery, SetId, Volume, Volumes, VolumesMissing};
pub(super) use output::{VolumesOutput, claimed, reserved};
pub use plan::{SetPlan, SetRequest};
pub use reconstruct::{Reconstructed, is_set, reconstruct};
pub use recovery::write_recovery;
pub use recovery_layout::{RecoveryOf, recovery_length};
pub use set::{Set, Shape, VolumeOptions, VolumeSelection};
pub use state::ImportState;
#[cfg(test)]
pub(super) use state::StateJson;
pub use surviving::RecoveryProblem;
pub(super) use unfinished::remove_orphaned_journals;
pub use volume_proof::VolumeEntries;
