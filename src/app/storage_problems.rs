//! Counts and describes the problems of a storage.

use std::collections::{BTreeMap, HashMap};

use crate::base::progress::plain_piece;
use crate::base::progress::units::count;
use crate::transport::storage::{StorageProblem, StorageProblemKind};

/// The most affected images named for one problem.
const NAMED: usize = 5;

/// Describes a problem in lines: path, kind, details, and the affected images.
pub fn problem_lines(problem: &StorageProblem) -> String {
    let affected = affected(problem).map(|images| format!("  affects {images}\n")).unwrap_or_default();
    format!("{}\n{affected}", reason(problem))
}

/// Does the same in one line.
pub fn problem_line(problem: &StorageProblem) -> String {
    let affected = affected(problem).map(|images| format!(" (affects {images})")).unwrap_or_default();
    reason(problem) + &affected
}

/// Names the affected images, if there are any.
fn affected(problem: &StorageProblem) -> Option<String> {
    let named: Vec<&str> = problem.images.iter().take(NAMED).map(|image| &**image).collect();
    let more = match problem.images.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!named.is_empty()).then(|| plain_piece(&named.join(", ")).into_owned() + &more)
}

/// Describes a problem without its images: path, kind, details.
fn reason(problem: &StorageProblem) -> String {
    let path = if problem.path.is_empty() { "the tar" } else { &problem.path };
    format!("{}: {}: {}", plain_piece(path), problem.kind.label(), plain_piece(&problem.what))
}

/// Returns the reasons for which images fail, by image.
pub fn reasons(problems: &[StorageProblem]) -> HashMap<&str, Vec<String>> {
    let mut reasons: HashMap<&str, Vec<String>> = HashMap::new();
    for problem in problems {
        problem.images.iter().for_each(|image| reasons.entry(image).or_default().push(reason(problem)));
    }
    reasons
}

/// Counts the problems of each kind.
pub fn problem_counts(problems: &[StorageProblem]) -> BTreeMap<StorageProblemKind, usize> {
    let mut counts = BTreeMap::new();
    problems.iter().for_each(|problem| *counts.entry(problem.kind).or_default() += 1);
    counts
}

/// Returns `no problems`, or `3 problems (2 missing, 1 wrong size)`.
pub fn problems_line(problems: &[StorageProblem]) -> String {
    if problems.is_empty() {
        return "no problems".to_owned();
    }
    let kinds: Vec<String> =
        problem_counts(problems).iter().map(|(kind, number)| format!("{number} {}", kind.label())).collect();
    format!("{} ({})", count(problems.len(), "problem"), kinds.join(", "))
}
