//! The images of an increment. What the target has and does not give, because a policy of the project forbids pulling it, costs
//! only the images that cannot do without it.

use super::super::{Cargo, FILES_AT_ONCE, OF_BUNDLE};
use crate::cli::context::Context;
use crate::content::Cached;
use crate::error::{Error, Reason, Result};
use crate::graph::{Graph, Image};
use crate::increment::Expected;
use crate::lock::Lock;
use crate::plan::Targets;
use crate::progress::Event;
use crate::progress::units::count;
use crate::receipt::ImageReceipt;
use crate::resolve::{self, Failures};
use crate::walk::{Origin, Walk};

/// Images that cannot be pushed because the bytes of a manifest of theirs are nowhere to be had.
#[derive(Default)]
pub struct Lost {
    images: Vec<ImageReceipt>,
    /// A line for each, for the end.
    faults: Vec<String>,
}

/// The images of `lock` in its order, without manifests that the target has where they are needed and does not give.
pub async fn images(expected: &Expected<'_>, lock: &Lock, context: &Context) -> Vec<Result<Image>> {
    let cached = Cached::new(expected, None);
    let walk = Walk::new(&cached, OF_BUNDLE, context.events.clone()).leaving_withheld();
    resolve::assemble_each(&walk, lock, Origin::Bundle, FILES_AT_ONCE, &context.events).await
}

/// Tells images that can be pushed from those that a policy of the project alone keeps from being read.
///
/// # Errors
/// Every image that failed for any other reason.
pub fn split(images: Vec<Result<Image>>, lock: &Lock, targets: &Targets, context: &Context) -> Result<(Graph, Lost)> {
    let mut left = 0;
    let (mut graph, mut lost, mut failures) = (Graph::default(), Lost::default(), Vec::new());
    for (image, (locked, to)) in images.into_iter().zip(lock.images.iter().zip(targets)) {
        match image {
            Ok(image) => {
                left += locked.companions().len() - image.locked.companions().len();
                graph.images.push(image);
            }
            Err(error) if error.reason() == Some(&Reason::PullPolicy) => {
                lost.faults.push(format!("{to}: {}", reason(&error)));
                let told = ImageReceipt::lost(locked.reference.to_string(), Some(locked.digest), reason(&error));
                lost.images.push(ImageReceipt { reference: Some(to.clone()), ..told });
            }
            Err(error) => failures.push(error),
        }
    }
    if left > 0 {
        let text = "left as the target has them: a policy of the project forbids reading them there";
        context.events.report(Event::Notice(format!("{} {text}", count(left, "companion"))));
    }
    match failures.is_empty() {
        true => Ok((graph, lost)),
        false => Err(Failures(failures).into_error("reading the bundle's manifests")),
    }
}

/// What is wrong, and what helps.
fn reason(error: &Error) -> String {
    format!("{}; {}", error.chain(), crate::plan::WITHHELD_REMEDY)
}

impl Lost {
    /// They count as failed beside what `cargo` brings.
    pub fn beside(self, cargo: Cargo<'_>) -> Cargo<'_> {
        Cargo { lost: self.images, faults: self.faults, ..cargo }
    }
}
