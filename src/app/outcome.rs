//! How a command ended that has a result.

use serde::Serialize;

use crate::base::error::Kind;

/// The version of the JSON of reports.
pub const REPORT_VERSION: u32 = 1;

/// See the module documentation. A command without a result returns an error instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Some images failed; the others arrived.
    SomeImagesFailed,
    /// Content differs from what it should be. The report gives the details.
    Damaged,
    /// Everything failed for one cause of this kind.
    Failed(Kind),
    /// Everything given was handled; more input is needed.
    Waiting,
}

impl Outcome {
    /// The field `ok` of reports.
    pub fn is_ok(self) -> bool {
        self == Outcome::Done
    }
}

/// What a command prints as JSON. Every report has the fields `version` and `ok`. `docs/json.md` lists all fields.
pub trait JsonReport: Serialize {}
