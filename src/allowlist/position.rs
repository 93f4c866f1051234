//! Where something was written, and what is wrong there.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;

/// Where a rule was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// The n-th reference on the command line, counted from 1.
    Argument(usize),
    /// A line of a file, counted from 1.
    Line { file: Arc<str>, line: u64 },
}

impl Position {
    pub fn line(file: &str, line: u64) -> Position {
        Position::Line { file: file.into(), line }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Argument(number) => write!(f, "command line, reference {number}"),
            Position::Line { file, line } => write!(f, "{file}:{line}"),
        }
    }
}

/// Something wrong in a file that a person wrote; prints as `file:line: what`, on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub at: Position,
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.text)
    }
}

/// All problems as the one error that ends the run, a line each. `what` is what was read: `the allowlist`.
pub fn refused(what: &str, problems: &[Problem]) -> Error {
    let mut text = format!("reading {what}: {}", if problems.len() == 1 { "one problem" } else { "these problems" });
    for problem in problems {
        text.push_str(&format!("\n{problem}"));
    }
    Error::input(text)
}
