//! Counts and describes the problems of a storage.

use std::collections::{BTreeMap, HashMap};

use crate::base::progress::plain_piece;
use crate::base::progress::units::count;
use crate::transport::storage::{Fault, FaultKind};

/// The most affected images named for one problem.
const NAMED: usize = 5;

/// Describes a problem in lines: path, kind, details, and the affected images.
pub fn fault_lines(fault: &Fault) -> String {
    let mut text = reason(fault) + "\n";
    let named: Vec<&str> = fault.images.iter().take(NAMED).map(|image| &**image).collect();
    if let Some(more) = fault.images.len().checked_sub(named.len()).filter(|_| !named.is_empty()) {
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        text.push_str(&format!("  affects {}{more}\n", plain_piece(&named.join(", "))));
    }
    text
}

/// Describes a problem in one line: path, kind, details.
fn reason(fault: &Fault) -> String {
    let path = if fault.path.is_empty() { "the tar" } else { &fault.path };
    format!("{}: {}: {}", plain_piece(path), fault.kind.label(), plain_piece(&fault.what))
}

/// Returns the reasons for which images fail, by image.
pub fn reasons(faults: &[Fault]) -> HashMap<&str, Vec<String>> {
    let mut reasons: HashMap<&str, Vec<String>> = HashMap::new();
    for fault in faults {
        fault.images.iter().for_each(|image| reasons.entry(image).or_default().push(reason(fault)));
    }
    reasons
}

/// Counts the problems of each kind.
pub fn fault_counts(faults: &[Fault]) -> BTreeMap<FaultKind, usize> {
    let mut counts = BTreeMap::new();
    faults.iter().for_each(|fault| *counts.entry(fault.kind).or_default() += 1);
    counts
}

/// Returns `nothing wrong`, or `3 problems (2 missing, 1 wrong size)`.
pub fn faults_line(faults: &[Fault]) -> String {
    if faults.is_empty() {
        return "nothing wrong".to_owned();
    }
    let kinds: Vec<String> =
        fault_counts(faults).iter().map(|(kind, number)| format!("{number} {}", kind.label())).collect();
    format!("{} ({})", count(faults.len(), "problem"), kinds.join(", "))
}
