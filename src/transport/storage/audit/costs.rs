//! Finds the problems of everything below an image by following it through the manifests that were read.

use std::collections::HashSet;

use super::Auditor;
use crate::oci::{Digest, Repository};
use crate::transport::storage::nodes::{Node, NodeChild};
use crate::transport::storage::problem::{At, StorageProblem, StorageProblemKind};
use crate::transport::storage::{data_path, links};

impl Auditor<'_> {
    /// The problems of an image and, if requested, of what is `attached` to it.
    pub(super) fn costs(&mut self, at: usize, root: Digest, attached: bool) -> Vec<At> {
        let (mut costs, mut seen) = (Vec::new(), HashSet::new());
        let mut met = self.descend(at, vec![root], &mut seen, &mut costs);
        self.reached.extend(met.iter().map(|digest| (at, *digest)));
        while attached && !met.is_empty() && !self.speaking.is_empty() {
            let speakers = met.iter().filter_map(|digest| self.speaking.get(&(at, *digest))).flatten();
            let speakers = speakers.map(|speaker| speaker.digest).collect();
            met = self.descend(at, speakers, &mut seen, &mut costs);
            self.carried.extend(met.iter().map(|digest| (at, *digest)));
        }
        costs.sort_unstable();
        costs.dedup();
        costs
    }

    /// Visits the manifests at and below `roots` that were not seen before; their problems join `costs`.
    fn descend(
        &mut self,
        at: usize,
        roots: Vec<Digest>,
        seen: &mut HashSet<Digest>,
        costs: &mut Vec<At>,
    ) -> Vec<Digest> {
        let repositories = self.repositories;
        let mut ahead: Vec<(Digest, Option<Digest>)> = roots.into_iter().map(|root| (root, None)).collect();
        let mut met = Vec::new();
        let mut others = Vec::new();
        while let Some((digest, parent)) = ahead.pop() {
            if !seen.insert(digest) {
                continue;
            }
            met.push(digest);
            if !repositories[at].has(&digest) {
                let problem = lacks(&repositories[at].repository, &digest, parent);
                let surveyed = self.surveyed.get(problem.path.as_str()).copied();
                costs.push(surveyed.unwrap_or_else(|| self.note(problem)));
                continue;
            }
            match self.nodes.get(&digest) {
                Some(Node::Broken(problem)) => costs.push(*problem),
                Some(Node::Whole { parts, .. }) => {
                    for part in parts {
                        match part.is_manifest {
                            true => {
                                ahead.push((part.digest, Some(digest)));
                                others.extend(self.lie(digest, part));
                            }
                            false => {
                                costs.extend(self.blobs.get(&(part.digest, part.size)));
                                costs.extend(self.links.get(&(at, part.digest)));
                                others.extend(self.unlinked(at, part));
                            }
                        }
                    }
                }
                None => {}
            }
        }
        costs.extend(others.into_iter().map(|problem| self.note(problem)));
        met
    }

    /// A child whose size differs from that in its index, which every client would reject.
    fn lie(&self, index: Digest, part: &NodeChild) -> Option<StorageProblem> {
        match self.nodes.get(&part.digest) {
            Some(Node::Whole { size, .. }) if *size != part.size => {
                let what = format!("it states {} bytes for {}, which has {size}", part.size, part.digest);
                Some(StorageProblem::new(data_path(&index), StorageProblemKind::WrongSize, what))
            }
            _ => None,
        }
    }

    /// A blob that exists but that a registry does not serve because its link is missing. It can be read from the storage.
    fn unlinked(&self, at: usize, part: &NodeChild) -> Option<StorageProblem> {
        let is_lacking = self.layers.get(at).is_some_and(|layers| layers.lack(&part.digest));
        let is_there = !self.blobs.contains_key(&(part.digest, part.size));
        let path = || links::of_layer(self.repositories[at].repository.path(), &part.digest);
        let what = "the blob exists, but without this link its registry does not deliver it (migrate does)";
        (is_lacking && is_there).then(|| StorageProblem::new(path(), StorageProblemKind::Missing, what))
    }
}

fn lacks(repository: &Repository, digest: &Digest, parent: Option<Digest>) -> StorageProblem {
    let path = links::of_revision(repository.path(), digest);
    match parent {
        None => StorageProblem::new(
            path,
            StorageProblemKind::Missing,
            format!("a tag means {digest}, which the repository does not have"),
        ),
        Some(parent) => {
            let what = format!("the index {parent} names it, and it was deleted or collected");
            StorageProblem::new(path, StorageProblemKind::MissingChild, what)
        }
    }
}
