//! Positions in files written by people, and the problems found there.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::base::error::Error;
use crate::base::progress::plain_piece;
use crate::oci::Reference;

/// Where a rule was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// A reference on the command line, counted from 1.
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

/// A problem in a file that a person wrote. Prints as `file:line: what` on one line without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputProblem {
    pub at: Position,
    pub text: String,
}

impl fmt::Display for InputProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, plain_piece(&self.text))
    }
}

/// Where the operator asked for images, for messages: `list.txt:3: nginx:1.27`, or `images.lock:12` for a lock.
#[derive(Clone, Debug, Default)]
pub struct ReferencePositions(HashMap<Reference, String>);

impl ReferencePositions {
    /// What messages call an image: its reference and where the operator asked for it.
    pub fn shown(&self, reference: &Reference) -> String {
        match self.0.get(reference).filter(|written| !written.is_empty()) {
            Some(written) => format!("{reference} ({written})"),
            None => reference.to_string(),
        }
    }
}

impl From<HashMap<Reference, String>> for ReferencePositions {
    fn from(written: HashMap<Reference, String>) -> ReferencePositions {
        ReferencePositions(written)
    }
}

impl FromIterator<(Reference, String)> for ReferencePositions {
    fn from_iter<I: IntoIterator<Item = (Reference, String)>>(written: I) -> ReferencePositions {
        ReferencePositions(written.into_iter().collect())
    }
}

/// Combines all problems into the one error that ends the run, one line each. `what` is what was read: `the allowlist`.
pub fn refused(what: &str, problems: &[InputProblem]) -> Error {
    let these = super::progress::units::count(problems.len(), "problem");
    Error::input(format!("reading {what}: {these}")).listing(problems.iter().map(InputProblem::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_whatever_stands_in_the_file() {
        let at = Position::line("list.yaml", 3);
        let problem = InputProblem { at, text: "as=a\nlist.yaml:9: forged\u{1b}[2J".to_owned() };
        assert_eq!(problem.to_string(), "list.yaml:3: as=a\\u000alist.yaml:9: forged\\u001b[2J");
    }
}
