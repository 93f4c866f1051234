//! A bundle on several media: files of a limited size, each a tar of its own that says of which bundle it is.
//!
//! What may enter: the metadata of a bundle and the sizes of its files. The room must not know where blobs come from.

mod assemble;
mod expected;
mod finished;
mod format;
mod layout;
mod names;
mod opened;
mod output;
mod parity;
mod plan;
mod proof;
mod rebuild;
mod recovery;
mod recovery_layout;
mod remains;
mod room;
mod sealing;
mod set;
mod state;
mod targets;

pub use assemble::KeptPiece;
pub(super) use finished::{lacking, volumes_of, whole};
pub use format::{
    MAX_VOLUME_JSON, MOST_VOLUMES, RecoveryJson, Segment, VOLUME_VERSION, VolumeFile, VolumeJson, WholeVolume,
};
pub use layout::{Cut, Held, VolumePlan};
pub use names::{Part, RECOVERY_DIGITS, SetName, WrittenVolume};
pub use opened::{Broken, Foreign, Opened, Recovery, SetId, Volume, Volumes, VolumesMissing};
pub(super) use output::{VolumesOutput, claimed, reserved};
pub use plan::{SetPlan, Wanted};
pub use rebuild::{Rebuilt, is_set, rebuild};
pub use recovery::{RecoveryOf, recovery_length, write_recovery};
pub use remains::RecoveryFault;
pub use set::{Selection, Set, Shape, VolumeOptions};
#[cfg(test)]
pub(super) use state::Json as StateJson;
pub use state::State;
