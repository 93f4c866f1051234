//! Signatures by their form: whether one is by a key that is accepted is asked elsewhere.

use super::{Problem, ProblemKind};
use crate::bundle::{CHUNKS, MAX_SIGNATURE, MOST_SIGNATURES, SIGNATURE, SUMS, signatures_of};
use crate::files::Layout;
use crate::signing::{is_well_formed, signature_in};

impl Problem {
    /// A bundle whose own signatures were `refused` after it was repaired with a copy that an accepted key has signed.
    pub fn unsigned(refused: &str, has_no_place: bool) -> Problem {
        let place = if has_no_place { "; it has no place for the copy's signature" } else { "" };
        Problem::new(SIGNATURE, ProblemKind::Unsigned).found(format!("{refused}{place}"))
    }
}

/// Every signature that cannot be one, and too many of them.
pub fn check(layout: &Layout) -> Vec<Problem> {
    let mut problems = Vec::new();
    for signed in [SUMS, CHUNKS] {
        let paths = signatures_of(layout, signed);
        if let Some(path) = paths.get(MOST_SIGNATURES) {
            let found = format!("{} signatures of {signed}, and at most {MOST_SIGNATURES} are read", paths.len());
            problems.push(Problem::new(path, ProblemKind::Malformed).found(found));
        }
        problems.extend(paths.into_iter().take(MOST_SIGNATURES).filter_map(|path| fault(layout, path)));
    }
    problems
}

fn fault(layout: &Layout, path: &str) -> Option<Problem> {
    if let Some(size) = layout.size_of(path).filter(|size| *size > MAX_SIGNATURE) {
        let found = format!("{size} bytes, and a signature has at most {MAX_SIGNATURE}");
        return Some(Problem::new(path, ProblemKind::Malformed).found(found));
    }
    match layout.read(path, MAX_SIGNATURE) {
        Ok(Some(file)) if !is_well_formed(&signature_in(&file)) => {
            let found = "it is no signature: neither 64 bytes of Ed25519 nor the DER of ECDSA";
            Some(Problem::new(path, ProblemKind::Malformed).found(found))
        }
        Ok(_) => None,
        Err(error) => Some(Problem::new(path, ProblemKind::Unreadable).found(error.chain())),
    }
}
