//! Errors as they appear in JSON.

use serde::{Serialize, Serializer};

use super::hint::Hint;
use super::outcome::{JsonReport, REPORT_VERSION};
use crate::base::code::Code;
use crate::base::error::Error;
use crate::verify::{Problem, Refusal};

/// What a command without a result prints as JSON.
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
    /// The code for programs.
    pub code: Code,
    /// The text for people: the error and its causes, and then a line for each thing that it lists.
    pub message: String,
    /// What to do about the error.
    #[serde(flatten)]
    pub hint: Option<Hint>,
    /// The problems of a refused bundle.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl ErrorDetail {
    /// The detail of an error, without a hint.
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

/// Serializes an error.
pub(super) fn as_one_detail<S: Serializer>(error: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    ErrorDetail::of(error).serialize(serializer)
}

/// Serializes an error that occurred once the result existed.
pub(super) fn as_detail<S: Serializer>(error: &Option<Error>, serializer: S) -> Result<S::Ok, S::Error> {
    error.as_ref().map(ErrorDetail::of).serialize(serializer)
}
