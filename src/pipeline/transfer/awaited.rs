//! Which images wait for which blobs, so that each is published as soon as it can be.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use crate::oci::{Digest, Repository};
use crate::pipeline::graph::Graph;
use crate::pipeline::plan::{BlobStep, Plan};

/// The images of a plan, by index, and the blobs that they still wait for.
pub struct Awaited {
    waiting: HashMap<Digest, Vec<usize>>,
    /// Number of blobs that each image still waits for.
    left: Mutex<Vec<usize>>,
    complete: UnboundedSender<usize>,
}

impl Awaited {
    /// Images that wait for nothing are sent to `complete` immediately.
    pub fn new(graph: &Graph, plan: &Plan, complete: UnboundedSender<usize>) -> Awaited {
        let places = plan.blobs.iter().flat_map(|step| step.missing.iter().map(|place| (place, step.blob.digest)));
        let missing: HashSet<(&Repository, Digest)> = places.collect();
        let mut waiting: HashMap<Digest, Vec<usize>> = HashMap::new();
        let mut left = Vec::with_capacity(plan.images.len());
        for (at, (image, step)) in graph.images.iter().zip(&plan.images).enumerate() {
            let lacks = |digest: &Digest| missing.contains(&(&step.to.repository, *digest));
            let lacking: HashSet<Digest> = image.blobs.iter().map(|blob| blob.digest).filter(lacks).collect();
            left.push(lacking.len());
            if lacking.is_empty() {
                // The receiver is gone only when the run is over.
                let _ = complete.send(at);
            }
            for digest in lacking {
                waiting.entry(digest).or_default().push(at);
            }
        }
        Awaited { waiting, left: Mutex::new(left), complete }
    }

    /// Records that the blob is where it had to go, or has failed for good.
    pub fn mark_done(&self, step: &BlobStep) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for at in self.waiting.get(&step.blob.digest).into_iter().flatten() {
            let Some(left) = left.get_mut(*at) else { continue };
            *left = left.saturating_sub(1);
            if *left == 0 {
                let _ = self.complete.send(*at);
            }
        }
    }
}
