//! What no sums of the bundle cover: recovery volumes, and the signature that every volume repeats.

use std::path::Path;

use super::super::{Depth, Problem, ProblemKind};
use super::{faults, own_sums, undeclared};
use crate::bundle::SIGNATURE;
use crate::bundle::volumes::Volumes;
use crate::files::Layout;
use crate::oci::Algorithm;

/// The three files of a recovery volume against its sums.
pub fn recovery(path: &Path, layout: &Layout, label: &str, depth: Depth) -> Vec<Problem> {
    let mut problems = faults(layout);
    let (sums, own) = own_sums(layout, label);
    problems.extend(own);
    problems.extend(undeclared(layout, &sums, label));
    for (file, sum) in &sums {
        let hashed = layout.slice(file).ok().flatten().map(|slice| match depth {
            Depth::Structure => Ok(None),
            Depth::Full | Depth::Chunks => slice.hash(Algorithm::Sha256, &|_| ()).map(Some),
        });
        let expected = format!("sha256:{sum}");
        problems.extend(match hashed {
            None => Some(Problem::new(file, ProblemKind::Missing)),
            Some(Err(error)) => Some(Problem::new(file, ProblemKind::Unreadable).found(error)),
            Some(Ok(Some(found))) if sum.sha256() != Some(found) => {
                Some(Problem::new(file, ProblemKind::WrongDigest).expected(expected).found(found))
            }
            Some(Ok(_)) => None,
        });
    }
    problems.into_iter().map(|problem| problem.in_volume(path)).collect()
}

/// The signature is in no sums: all volumes have the same, and who differs from most is wrong.
pub fn signatures(set: &Volumes) -> Vec<Problem> {
    let read = |at| set.layout_of(at).and_then(|layout| layout.read(SIGNATURE, 4096).ok().flatten());
    let all: Vec<Option<bytes::Bytes>> = (0..set.volumes.len()).map(read).collect();
    let count = |one: &Option<bytes::Bytes>| all.iter().filter(|other| *other == one).count();
    let most = all.iter().map(count).max().unwrap_or_default();
    let is_odd = |number: usize| number < all.len() && (number < most || most * 2 <= all.len());
    let odd = set.volumes.iter().zip(&all).filter(|(_, own)| is_odd(count(own)));
    odd.map(|(volume, _)| {
        let problem = Problem::new(SIGNATURE, ProblemKind::Disagreement);
        problem.found("it is another one than in other volumes").in_volume(&volume.path)
    })
    .collect()
}
