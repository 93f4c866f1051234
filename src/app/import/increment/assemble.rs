//! Assembles the images of an increment. Content that the target has but may not return, because a policy of its project
//! forbids pulling it, only affects the images that need it.

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

/// Images that cannot be pushed because one of their manifests cannot be read anywhere.
#[derive(Default)]
pub struct LostImages {
    images: Vec<ImageReceipt>,
    /// One line for each image, for the end of the output.
    problems: Vec<String>,
    /// Companions in the bundle that are not pushed.
    left_out: Option<LeftOut>,
}

/// Assembles the images of `lock` in order, without manifests that the target has and does not return.
pub async fn images(expected: &TargetBackedSource<'_>, lock: &Lock, events: &Events) -> Vec<Result<Image>> {
    let cached = Cached::new(expected, None);
    let walk = Walk::new(&cached, OF_BUNDLE, events.clone()).leaving_withheld();
    resolve::assemble_each(&walk, lock, LockOrigin::Bundle, FILES_AT_ONCE, events).await
}

/// Separates images that can be pushed from those that cannot be read only because of a policy of the project.
///
/// # Errors
/// Lists every image that failed for another reason.
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
                // Several tags can name the same image.
                carried.retain(|own| seen.insert((&to.repository, own.digest)));
                without.extend((!carried.is_empty()).then(|| to.clone()));
                let kind = |own: &Attached| Kind::of(own.tag.as_ref(), own.artifact_type.as_deref(), None);
                unbrought.extend(carried.into_iter().map(kind));
                graph.images.push(image);
            }
            Err(error) if error.reason() == Some(&Reason::PullPolicy) => {
                lost.problems.push(format!("{to}: {}", reason(&error)));
                let receipt = ImageReceipt::lost(locked.reference.to_string(), Some(locked.digest), reason(&error));
                lost.images.push(ImageReceipt { reference: Some(to.clone()), ..receipt });
            }
            Err(error) => failures.push(error),
        }
    }
    if left > 0 {
        let text =
            "left unchanged at the target: a policy of the project forbids reading them or the images they belong to";
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

/// Describes the error and its remedy.
fn reason(error: &Error) -> String {
    format!("{}; {}", error.chain(), crate::pipeline::plan::WITHHELD_REMEDY)
}

impl LostImages {
    /// Adds these images to `request`, where they count as failed.
    pub fn beside(self, request: PushRequest<'_>) -> PushRequest<'_> {
        PushRequest { lost: self.images, problems: self.problems, left_out: self.left_out, ..request }
    }
}
