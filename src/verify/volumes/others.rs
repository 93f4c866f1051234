//! Checks recovery volumes, which the sums of the bundle do not cover.

use std::path::Path;

use super::super::{Depth, Problem, ProblemKind};
use super::{own_sums, own_sums_path, problems_in, undeclared};
use crate::bundle::VOLUMES;
use crate::content::proof::{Unproven, Wrong, prove};
use crate::files::Layout;

/// Checks the three files of a recovery volume against its sums.
pub fn recovery(path: &Path, layout: &Layout, label: &str, depth: Depth) -> Vec<Problem> {
    let mut problems = problems_in(layout);
    let (sums, own) = own_sums(layout, label);
    problems.extend(own);
    let files = ["json", "b3", "parity"].map(|end| format!("{VOLUMES}{label}.{end}"));
    let is_own = |path: &str| sums.contains_key(path) && files.iter().any(|file| file == path);
    problems.extend(undeclared(layout, |path| path == own_sums_path(label) || is_own(path)));
    for (file, sum) in &sums {
        let proven = layout.slice(file).ok().flatten().map(|slice| match depth {
            Depth::Structure => Ok(()),
            Depth::Full | Depth::Chunks => prove(&slice, sum, &|_| ()),
        });
        problems.extend(match proven {
            None => Some(Problem::new(file, ProblemKind::Missing)),
            Some(Err(Unproven::Unreadable(error))) => Some(Problem::new(file, ProblemKind::Unreadable).found(error)),
            Some(Err(Unproven::Wrong(Wrong { found, .. }))) => {
                Some(Problem::new(file, ProblemKind::WrongDigest).expected(sum).found(found))
            }
            Some(Ok(())) => None,
        });
    }
    problems.into_iter().map(|problem| problem.in_volume(path)).collect()
}
