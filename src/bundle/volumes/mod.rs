//! A bundle on several media: files of a limited size, each a tar of its own that says of which bundle it is.
//!
//! What may enter: the metadata of a bundle and the sizes of its files. The room must not know where blobs come from.

mod expected;
mod finished;
mod format;
mod joining;
mod mending;
mod names;
mod opened;
mod parity;
mod place;
mod plan;
mod proof;
mod rebuild;
mod recovery;
mod remains;
mod room;
mod sealing;
mod set;
mod split;
mod state;
mod targets;
mod whole;

pub use format::{
    MAX_VOLUME_JSON, MOST_VOLUMES, RecoveryJson, Segment, VOLUME_VERSION, VolumeFile, VolumeJson, WholeVolume,
};
pub use joining::{Joined, join};
pub use mending::{MendedSet, mend_set};
pub use names::{Part, RECOVERY_DIGITS, SetName, VOLUMES, stored_path};
pub use opened::{Broken, Foreign, KeptPiece, Opened, Recovery, SetId, Volume, Volumes};
pub use place::there;
pub(super) use place::{VolumeFiles, claimed, reserved};
pub use plan::{Cut, Held, SetPlan, VolumePlan, Wanted};
pub use rebuild::{Rebuilt, is_set, rebuild};
pub use recovery::{RecoveryOf, recovery_length, write_recovery};
pub use set::{Set, Shape};
pub use split::{Split, WrittenVolume};
#[cfg(test)]
pub(super) use state::Json as StateJson;
pub use state::State;
