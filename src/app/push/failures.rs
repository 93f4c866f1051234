//! Images that failed to be pushed.

use std::sync::Arc;

use serde::Serialize;

use super::PushRequest;
use crate::app::failure::as_one_detail;
use crate::base::error::{Error, Kind, Reason};
use crate::oci::Reference;
use crate::pipeline::graph::Image;
use crate::pipeline::lock::{AbsentReason, IndexMode};
use crate::pipeline::plan::Plan;
use crate::pipeline::transfer::TransferOutcome;

/// What to do about an index whose children were left out on purpose.
pub const SPARSE_REMEDY: &str = "its index is sparse, which Harbor, docker-registry 2 and zot refuse: export it again with \
     --index trim or single; distribution 3 accepts it with `validation.manifests.indexes.platforms: none` in its configuration";

/// An image that failed.
#[derive(Clone, Debug, Serialize)]
pub struct ImageFailure {
    /// The reference at the target.
    pub reference: Reference,
    /// Why it failed, without the name of the image.
    #[serde(serialize_with = "as_one_detail")]
    pub error: Arc<Error>,
    /// Whether the target probably refuses the image because its index names children that do not exist.
    #[serde(skip)]
    pub is_sparse: bool,
}

/// Returns the failed images, in the order of the graph.
pub(super) fn failures(request: &PushRequest<'_>, plan: &Plan, outcome: &TransferOutcome) -> Vec<ImageFailure> {
    let images = request.graph.images.iter().zip(&plan.images).zip(&outcome.images);
    let failure = |((image, step), result): ((&Image, &crate::pipeline::plan::ImageStep), &Result<_, Arc<Error>>)| {
        let error = result.as_ref().err()?.clone();
        Some(ImageFailure { reference: step.to.clone(), is_sparse: is_sparse(image, &error), error })
    };
    images.filter_map(failure).collect()
}

fn is_sparse(image: &Image, error: &Error) -> bool {
    let chosen = image.locked.selection.as_ref().is_some_and(|selection| selection.index == IndexMode::Sparse);
    // The registry that the image came from lacks these children as well.
    let is_sparse = chosen || image.locked.absent.iter().any(|absent| absent.reason == AbsentReason::NotFound);
    let is_other = error.reason().is_some_and(|reason| !matches!(reason, Reason::UnknownContent(_)));
    is_sparse && !is_other && matches!(error.kind(), Kind::Refused | Kind::NotFound)
}
