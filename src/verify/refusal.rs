//! The error for a bundle that has problems.

use std::fmt;
use std::path::Path;

use super::{Problem, Report};
use crate::base::error::{Error, Fact};
use crate::base::progress::units::count;

/// The problems of a refused bundle: the source of the error that [`refuse`] returns.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub problems: Vec<Problem>,
}

impl Fact for Refusal {}

impl Refusal {
    /// Returns the refusal that caused `error`.
    pub fn of(error: &Error) -> Option<&Refusal> {
        error.find()
    }
}

/// Shows the first problem.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problems.first().map_or(Ok(()), |first| write!(f, "{} is {}", first.path, first.kind.label()))
    }
}

impl std::error::Error for Refusal {}

/// Returns the error for a bundle that must not be used.
pub fn refuse(path: &Path, report: &Report) -> Error {
    let problems = count(report.problems.len(), "problem");
    let text = format!("{} has {problems}, the first", path.display());
    Error::damaged(text).because(Refusal { problems: report.problems.clone() })
}
