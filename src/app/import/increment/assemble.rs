//! The images of an increment. What the target has and does not give, because a policy of the project forbids pulling it, costs
//! only the images that cannot do without it.

use std::collections::HashSet;

use super::super::{FILES_AT_ONCE, OF_BUNDLE};
use crate::app::push::{LeftOut, PushRequest};
use crate::base::error::{Error, Reason, Result};
use crate::base::progress::units::count;
use crate::base::progress::{Event, Events};
use crate::bundle::Bundle;
use crate::content::Cached;
use crate::increment::TargetBackedSource;
use crate::oci::Digest;
use crate::pipeline::companion::Kind;
use crate::pipeline::graph::{Graph, Image};
use crate::pipeline::lock::{Attached, Lock};
use crate::pipeline::plan::Targets;
use crate::pipeline::receipt::ImageReceipt;
use crate::pipeline::resolve::{self, Failures};
use crate::pipeline::walk::{LockOrigin, Walk};

/// Images that cannot be pushed because the bytes of a manifest of theirs are nowhere to be had.
#[derive(Default)]
pub struct LostImages {
    images: Vec<ImageReceipt>,
    /// A line for each, for the end.
    faults: Vec<String>,
    /// About companions that the bundle brings and that are not pushed.
    left_out: Option<LeftOut>,
}

/// The images of `lock` in its order, without manifests that the target has where they are needed and does not give.
pub async fn images(expected: &TargetBackedSource<'_>, lock: &Lock, events: &Events) -> Vec<Result<Image>> {
    let cached = Cached::new(expected, None);
    let walk = Walk::new(&cached, OF_BUNDLE, events.clone()).leaving_withheld();
    resolve::assemble_each(&walk, lock, LockOrigin::Bundle, FILES_AT_ONCE, events).await
}

/// Tells images that can be pushed from those that a policy of the project alone keeps from being read.
///
/// # Errors
/// Every image that failed for any other reason.
pub fn split(
    images: Vec<Result<Image>>,
    bundle: &Bundle,
    targets: &Targets,
    events: &Events,
) -> Result<(Graph, LostImages)> {
    let lock = bundle.lock();
    let assumed: HashSet<Digest> = bundle.json().assumed.iter().map(|assumed| assumed.digest).collect();
    let (mut left, mut seen, mut unbrought, mut without) = (0, HashSet::new(), Vec::new(), Vec::new());
    let (mut graph, mut lost, mut failures) = (Graph::default(), LostImages::default(), Vec::new());
    for (image, (locked, to)) in images.into_iter().zip(lock.images.iter().zip(targets)) {
        match image {
            Ok(image) => {
                let kept: HashSet<Digest> = image.locked.companions().iter().map(|own| own.digest).collect();
                let gone = locked.companions().iter().filter(|own| !kept.contains(&own.digest));
                let (there, mut carried): (Vec<_>, Vec<_>) = gone.partition(|own| assumed.contains(&own.digest));
                left += there.len();
                // Several tags may mean the image.
                carried.retain(|own| seen.insert((&to.repository, own.digest)));
                without.extend((!carried.is_empty()).then(|| to.clone()));
                let kind = |own: &Attached| Kind::of(own.tag.as_ref(), own.artifact_type.as_deref(), None);
                unbrought.extend(carried.into_iter().map(kind));
                graph.images.push(image);
            }
            Err(error) if error.reason() == Some(&Reason::PullPolicy) => {
                lost.faults.push(format!("{to}: {}", reason(&error)));
                let receipt = ImageReceipt::lost(locked.reference.to_string(), Some(locked.digest), reason(&error));
                lost.images.push(ImageReceipt { reference: Some(to.clone()), ..receipt });
            }
            Err(error) => failures.push(error),
        }
    }
    if left > 0 {
        let text = "left as the target has them: a policy of the project forbids reading them, or what they belong to";
        events.report(Event::Notice(format!("{} {text}", count(left, "companion"))));
    }
    if !unbrought.is_empty() {
        lost.left_out = Some(LeftOut { companions: unbrought, images: without });
    }
    match failures.is_empty() {
        true => Ok((graph, lost)),
        false => Err(Failures(failures).into_error("reading the bundle's manifests")),
    }
}

/// What is wrong, and what helps.
fn reason(error: &Error) -> String {
    format!("{}; {}", error.chain(), crate::pipeline::plan::WITHHELD_REMEDY)
}

impl LostImages {
    /// They count as failed beside what `request` brings.
    pub fn beside(self, request: PushRequest<'_>) -> PushRequest<'_> {
        PushRequest { lost: self.images, faults: self.faults, left_out: self.left_out, ..request }
    }
}
