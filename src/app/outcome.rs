//! How a command ended that came to its end.

use serde::Serialize;

use crate::base::error::Kind;

/// The version of the JSON of reports.
pub const REPORT_VERSION: u32 = 1;

/// See the module documentation. What kept a command from its end is an error instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The others are there.
    SomeImagesFailed,
    /// Something is not what it should be; the report says what.
    Damaged,
    /// Everything failed for one cause of this kind.
    Failed(Kind),
    /// Everything that was given is done; the rest is still to come.
    Waiting,
}

impl Outcome {
    /// What the field `ok` of reports says.
    pub fn is_ok(self) -> bool {
        self == Outcome::Done
    }
}

/// What a command prints as JSON. Every report has the fields `version` and `ok`, and all its fields are in `docs/json.md`.
pub trait JsonReport: Serialize {}
