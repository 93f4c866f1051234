//! Collects problems: each once. Of many similar problems it keeps the first and counts the others.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Problem, ProblemKind};

/// Blobs are listed one by one, so that exactly these can be fetched again.
const MOST_BLOBS: usize = 100_000;
/// The most problems of one kind that do not concern a blob.
const MOST_OTHERS: usize = 100;

#[derive(Default)]
pub struct Problems {
    list: BTreeSet<Problem>,
    /// Blobs that already have a problem of this kind. A second problem would add no facts.
    blobs: HashSet<(ProblemKind, String)>,
    others: BTreeMap<ProblemKind, usize>,
    unreported: BTreeMap<ProblemKind, usize>,
}

impl Problems {
    pub fn push(&mut self, problem: Problem) {
        if self.list.contains(&problem) {
            return;
        }
        let fits = match is_of_blob(&problem) {
            true if self.blobs.len() >= MOST_BLOBS => false,
            true if !self.blobs.insert((problem.kind, problem.path.clone())) => return,
            true => true,
            false => {
                let known = self.others.entry(problem.kind).or_default();
                *known += 1;
                *known <= MOST_OTHERS
            }
        };
        if fits {
            self.list.insert(problem);
        } else {
            *self.unreported.entry(problem.kind).or_default() += 1;
        }
    }

    /// Sorted by path. Problems that were only counted have the path `…`.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        for (kind, more) in self.unreported {
            self.list.insert(Problem::unlisted(kind, more));
        }
        self.list.into_iter().collect()
    }
}

impl Extend<Problem> for Problems {
    fn extend<T: IntoIterator<Item = Problem>>(&mut self, problems: T) {
        problems.into_iter().for_each(|problem| self.push(problem));
    }
}

/// Whether the problem is of a blob that the bundle should have. An undeclared file can have any name.
fn is_of_blob(problem: &Problem) -> bool {
    let may_be_any = matches!(problem.kind, ProblemKind::Undeclared | ProblemKind::Unsafe | ProblemKind::CutShort);
    problem.path.starts_with("blobs/") && !may_be_any
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::SUMS;

    #[test]
    fn similar_problems_are_counted_and_every_bad_blob_is_listed() {
        let mut problems = Problems::default();
        for at in 0..1_000 {
            problems.push(Problem::new("bundle.json", ProblemKind::Disagreement).found(at));
            problems.push(Problem::new(&format!("blobs/sha256/{at}"), ProblemKind::Missing).expected("5 bytes"));
            problems.push(Problem::new(&format!("blobs/sha256/{at}"), ProblemKind::Missing));
            problems.push(Problem::new(&format!("blobs/sha256/{at}.bak"), ProblemKind::Undeclared));
            problems.push(Problem::new(SUMS, ProblemKind::Missing));
        }
        let list = problems.into_sorted();
        let of = |kind| list.iter().filter(|problem| problem.kind == kind).count();
        assert_eq!(of(ProblemKind::Disagreement), MOST_OTHERS + 1);
        assert_eq!(of(ProblemKind::Undeclared), MOST_OTHERS + 1);
        assert_eq!(of(ProblemKind::Missing), 1_001, "each blob once, and the sums");
        assert!(list.iter().any(|p| p.path == "…" && p.found.as_deref() == Some("and 900 more of this kind")));
    }
}
