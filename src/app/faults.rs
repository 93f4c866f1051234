//! Faults of a storage: how many there are, and in words.

use std::collections::{BTreeMap, HashMap};

use crate::base::progress::plain_piece;
use crate::base::progress::units::count;
use crate::transport::storage::{Fault, FaultKind};

/// How many images are named of those that a fault costs.
const NAMED: usize = 5;

/// A fault in lines: path, kind, what, and the images it costs.
pub fn fault_lines(fault: &Fault) -> String {
    let mut text = reason(fault) + "\n";
    let named: Vec<&str> = fault.images.iter().take(NAMED).map(|image| &**image).collect();
    if let Some(more) = fault.images.len().checked_sub(named.len()).filter(|_| !named.is_empty()) {
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        text.push_str(&format!("  affects {}{more}\n", plain_piece(&named.join(", "))));
    }
    text
}

/// Why an image fails that it costs: path, kind, what.
fn reason(fault: &Fault) -> String {
    let path = if fault.path.is_empty() { "the tar" } else { &fault.path };
    format!("{}: {}: {}", plain_piece(path), fault.kind.label(), plain_piece(&fault.what))
}

/// Why each image fails, by its name.
pub fn reasons(faults: &[Fault]) -> HashMap<&str, Vec<String>> {
    let mut reasons: HashMap<&str, Vec<String>> = HashMap::new();
    for fault in faults {
        fault.images.iter().for_each(|image| reasons.entry(image).or_default().push(reason(fault)));
    }
    reasons
}

/// How many there are of each kind.
pub fn fault_counts(faults: &[Fault]) -> BTreeMap<FaultKind, usize> {
    let mut counts = BTreeMap::new();
    faults.iter().for_each(|fault| *counts.entry(fault.kind).or_default() += 1);
    counts
}

/// `nothing wrong`, or `3 faults (2 missing, 1 wrong size)`.
pub fn faults_line(faults: &[Fault]) -> String {
    if faults.is_empty() {
        return "nothing wrong".to_owned();
    }
    let kinds: Vec<String> =
        fault_counts(faults).iter().map(|(kind, number)| format!("{number} {}", kind.label())).collect();
    format!("{} ({})", count(faults.len(), "fault"), kinds.join(", "))
}
