//! What only a full check examines: everything below `blobs`, and files next to the links.

use std::collections::HashSet;

use super::problem::{StorageProblem, StorageProblemKind};
use super::survey::{Holding, no_directory, unknown_algorithm};
use super::tree::Kind;
use super::{Storage, links};
use crate::oci::{Algorithm, Digest};

/// The links to layers in a repository.
#[derive(Default)]
pub(super) struct Layers {
    /// Links that a registry would not find, with the blob; and files next to the links.
    pub odd: Vec<(Option<Digest>, StorageProblem)>,
    linked: HashSet<Digest>,
    /// Algorithms with any links. Distribution 3 may do without them.
    algorithms: HashSet<Algorithm>,
}

impl Layers {
    /// Whether a registry refuses the blob because of a missing link, although other blobs of the repository have theirs.
    pub fn lack(&self, blob: &Digest) -> bool {
        self.algorithms.contains(&blob.algorithm()) && !self.linked.contains(blob)
    }
}

impl Storage {
    /// Every blob that has a directory. Anything else there is a problem.
    pub(super) fn stored(&self, problems: &mut Vec<StorageProblem>) -> Vec<Digest> {
        let mut digests = Vec::new();
        for (algorithm, kind) in self.list("blobs", problems) {
            let directory = format!("blobs/{algorithm}");
            if let Some(problem) = unknown_algorithm(&directory, &algorithm, kind) {
                problems.push(problem);
                continue;
            }
            for (start, kind) in self.list(&directory, problems) {
                let directory = format!("{directory}/{start}");
                if kind != Kind::Directory {
                    problems.push(no_directory(directory, kind));
                    continue;
                }
                for (hex, kind) in self.list(&directory, problems) {
                    let path = format!("{directory}/{hex}");
                    match format!("{algorithm}:{hex}").parse::<Digest>() {
                        Ok(digest) if hex.get(..2) == Some(&start) && kind == Kind::Directory => {
                            problems.extend(self.strays(&path, "data"));
                            digests.push(digest);
                        }
                        Ok(_) if kind != Kind::Directory => problems.push(no_directory(path, kind)),
                        _ => problems.push(StorageProblem::new(
                            path,
                            StorageProblemKind::BadName,
                            "not a digest, or in the wrong place",
                        )),
                    }
                }
            }
        }
        digests
    }

    /// Checks all links of a repository.
    pub(super) fn layers(&self, holding: &Holding) -> Layers {
        let name = holding.repository.path();
        let (mut layers, mut problems) = (Layers::default(), Vec::new());
        let revisions = holding.revisions.iter().map(|digest| links::of_revision(name, digest));
        let tags = format!("repositories/{name}/_manifests/tags");
        let tags = self.list(&tags, &mut problems).into_iter().map(|(tag, _)| links::of_tag(name, &tag));
        for link in revisions.chain(tags) {
            problems.extend(self.strays(link.trim_end_matches("/link"), "link"));
        }
        let directory = format!("repositories/{name}/_layers");
        for (algorithm, kind) in self.list(&directory, &mut problems) {
            let directory = format!("{directory}/{algorithm}");
            if let Some(problem) = unknown_algorithm(&directory, &algorithm, kind) {
                problems.push(problem);
                continue;
            }
            for (hex, _) in self.list(&directory, &mut problems) {
                let Ok(blob) = format!("{algorithm}:{hex}").parse::<Digest>() else {
                    problems.push(StorageProblem::new(
                        format!("{directory}/{hex}"),
                        StorageProblemKind::BadName,
                        "not a digest",
                    ));
                    continue;
                };
                // A link by another algorithm is looked up by its sha256; a collected blob leaves its link behind.
                let path = links::of_layer(name, &blob);
                let read = match blob.algorithm() {
                    Algorithm::Sha256 => links::read_own(&self.tree, &path, &blob),
                    _ => links::read(&self.tree, &path).map(|held| held.is_some()),
                };
                if self.tree.has_layers() {
                    layers.algorithms.insert(blob.algorithm());
                }
                // A bad link is a problem of its own.
                if !matches!(read, Ok(false)) {
                    layers.linked.insert(blob);
                }
                layers.odd.extend(read.err().map(|problem| (Some(blob), problem)));
            }
        }
        layers.odd.extend(problems.into_iter().map(|problem| (None, problem)));
        layers
    }

    /// Everything in `directory` but `expected`. Its reader reports if it is missing or not a file.
    fn strays(&self, directory: &str, expected: &str) -> Vec<StorageProblem> {
        let mut problems = Vec::new();
        for (name, _) in self.list(directory, &mut problems).into_iter().filter(|(name, _)| name != expected) {
            let what = "an unknown file: an interrupted write may have left it";
            problems.push(StorageProblem::new(format!("{directory}/{name}"), StorageProblemKind::Stray, what));
        }
        problems
    }
}
