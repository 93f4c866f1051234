//! Blobs that become readable one after another, in an order other than the plan's.

use std::collections::HashMap;

use futures_util::stream::{self, BoxStream, StreamExt};

use crate::base::error::{Error, Result};
use crate::oci::Digest;
use crate::pipeline::plan::{BlobStep, Plan};

/// A blob of the plan that can be read now, or the error because of which it never can.
pub type Coming<'p> = (&'p BlobStep, Option<Error>);

/// Knows when a blob can be read.
pub trait Arrivals: Sync {
    /// Yields each blob of the plan once: from then on the source can read it or, with an error, it will never arrive.
    fn of<'p>(&'p self, plan: &'p Plan) -> BoxStream<'p, (Digest, Result<()>)>;

    /// Records that the blob has reached every repository that lacked it, or has failed for good. It is not read again.
    fn done_with(&self, digest: &Digest);
}

/// Yields the blobs of the plan as they arrive; without `arrivals`, in the plan's order.
pub fn coming<'p>(plan: &'p Plan, arrivals: Option<&'p dyn Arrivals>) -> BoxStream<'p, Coming<'p>> {
    let Some(arrivals) = arrivals else { return stream::iter(&plan.blobs).map(|step| (step, None)).boxed() };
    let steps: HashMap<Digest, &BlobStep> = plan.blobs.iter().map(|step| (step.blob.digest, step)).collect();
    let coming = arrivals.of(plan).filter_map(move |(digest, came)| {
        let step = steps.get(&digest).map(|step| (*step, came.err()));
        async move { step }
    });
    coming.boxed()
}
