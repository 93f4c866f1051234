//! Checks the form of signatures. Whether an accepted key made them is checked elsewhere.

use super::{Problem, ProblemKind};
use crate::bundle::{CHUNKS, MAX_SIGNATURE, MOST_SIGNATURES, SIGNATURE, SUMS, signatures_of};
use crate::files::Layout;
use crate::signing::{is_well_formed, signature_in};

impl Problem {
    /// The problem of a bundle that was repaired from a copy with a signature by an accepted key, while its own signatures
    /// were `refused`.
    pub fn unsigned(refused: &str, has_no_place: bool) -> Problem {
        let place = if has_no_place { "; it has no room for the copy's signature" } else { "" };
        Problem::new(SIGNATURE, ProblemKind::Unsigned).found(format!("{refused}{place}"))
    }
}

/// Returns a problem for every malformed signature, and one if there are too many.
pub fn check(layout: &Layout) -> Vec<Problem> {
    let mut problems = Vec::new();
    for signed in [SUMS, CHUNKS] {
        let paths = signatures_of(layout, signed);
        if let Some(path) = paths.get(MOST_SIGNATURES) {
            let found = format!("{} signatures of {signed}; at most {MOST_SIGNATURES} are read", paths.len());
            problems.push(Problem::new(path, ProblemKind::Malformed).found(found));
        }
        problems.extend(paths.into_iter().take(MOST_SIGNATURES).filter_map(|path| problem(layout, path)));
    }
    problems
}

fn problem(layout: &Layout, path: &str) -> Option<Problem> {
    if let Some(size) = layout.size_of(path).filter(|size| *size > MAX_SIGNATURE) {
        let found = format!("{size} bytes; a signature has at most {MAX_SIGNATURE}");
        return Some(Problem::new(path, ProblemKind::Malformed).found(found));
    }
    match layout.read(path, MAX_SIGNATURE) {
        Ok(Some(file)) if !is_well_formed(&signature_in(&file)) => {
            let found = "not a signature: neither 64 bytes of Ed25519 nor the DER of ECDSA";
            Some(Problem::new(path, ProblemKind::Malformed).found(found))
        }
        Ok(_) => None,
        Err(error) => Some(Problem::new(path, ProblemKind::Unreadable).found(error.chain())),
    }
}
