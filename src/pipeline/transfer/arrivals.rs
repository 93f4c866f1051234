//! Blobs that become readable one after the other, in an order other than the plan's.

use std::collections::HashMap;

use futures_util::stream::{self, BoxStream, StreamExt};

use crate::base::error::{Error, Result};
use crate::oci::Digest;
use crate::pipeline::plan::{BlobStep, Plan};

/// A blob of the plan that can be read now, or the reason why it never can.
pub type Coming<'p> = (&'p BlobStep, Option<Error>);

/// Knows when a blob can be read.
pub trait Arrivals: Sync {
    /// Returns each blob of the plan once: it can be read from the source from now on, or will not arrive.
    fn of<'p>(&'p self, plan: &'p Plan) -> BoxStream<'p, (Digest, Result<()>)>;

    /// Records that the blob is everywhere it had to go, or has failed for good: it is not read again.
    fn done_with(&self, digest: &Digest);
}

/// Returns the blobs of the plan as they arrive or, without arrivals, in its order.
pub fn coming<'p>(plan: &'p Plan, arrivals: Option<&'p dyn Arrivals>) -> BoxStream<'p, Coming<'p>> {
    let Some(arrivals) = arrivals else { return stream::iter(&plan.blobs).map(|step| (step, None)).boxed() };
    let steps: HashMap<Digest, &BlobStep> = plan.blobs.iter().map(|step| (step.blob.digest, step)).collect();
    let coming = arrivals.of(plan).filter_map(move |(digest, came)| {
        let step = steps.get(&digest).map(|step| (*step, came.err()));
        async move { step }
    });
    coming.boxed()
}
