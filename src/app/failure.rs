//! Errors as JSON says them.

use serde::{Serialize, Serializer};

use super::hint::Hint;
use super::outcome::{JsonReport, REPORT_VERSION};
use crate::base::code::Code;
use crate::base::error::Error;
use crate::verify::{Problem, Refusal};

/// What a command prints as JSON that came to no result.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorReport {
    pub version: u32,
    /// `false`.
    pub ok: bool,
    /// Why there is no result.
    pub error: ErrorDetail,
}

impl JsonReport for ErrorReport {}

/// Why something failed.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorDetail {
    /// What a program goes by.
    pub code: Code,
    /// What a person reads: the error and its causes, and below that a line for each thing that it lists.
    pub message: String,
    /// What a person may do about it.
    #[serde(flatten)]
    pub hint: Option<Hint>,
    /// Of a bundle that is refused: what is wrong with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl ErrorDetail {
    /// Without a hint.
    pub fn of(error: &Error) -> ErrorDetail {
        let problems = Refusal::of(error).map(|refusal| refusal.problems.clone()).unwrap_or_default();
        ErrorDetail { code: Code::of(error), message: error.lines().join("\n"), hint: None, problems }
    }
}

impl ErrorReport {
    pub fn new(error: ErrorDetail) -> ErrorReport {
        ErrorReport { version: REPORT_VERSION, ok: false, error }
    }
}

/// For what failed.
pub(super) fn as_one_detail<S: Serializer>(error: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    ErrorDetail::of(error).serialize(serializer)
}

/// For the field of a report that says what failed after the result was there.
pub(super) fn as_detail<S: Serializer>(error: &Option<Error>, serializer: S) -> Result<S::Ok, S::Error> {
    error.as_ref().map(ErrorDetail::of).serialize(serializer)
}
