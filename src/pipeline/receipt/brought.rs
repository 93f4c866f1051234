//! What gapferry pushed, according to receipts that the isolated side has kept.

use std::collections::HashSet;

use super::{CompanionOutcome, CompanionReceipt, ImageOutcome, ImageReceipt, Receipt, ReceiptKind};
use crate::oci::{Digest, Reference, Repository, Tag};

/// What receipts of this side say that gapferry pushed: each name, with its meaning at that time.
#[derive(Clone, Debug, Default)]
pub struct Brought {
    images: HashSet<(Reference, Digest)>,
    companions: HashSet<(Repository, Option<Tag>, Digest)>,
}

impl Brought {
    /// A run that only found something is no proof that gapferry pushed it: someone else may have.
    pub fn add(&mut self, receipt: &Receipt) {
        if receipt.kind == ReceiptKind::Inventory {
            return;
        }
        for image in &receipt.images {
            let Some(reference) = &image.reference else { continue };
            let is_brought = image.brought || image.outcome == ImageOutcome::Pushed;
            self.images.extend(image.digest.filter(|_| is_brought).map(|digest| (reference.clone(), digest)));
            let companions = image.companions.iter().filter(|one| one.is_brought());
            self.companions.extend(companions.map(|one| (reference.repository.clone(), one.tag.clone(), one.digest)));
        }
    }

    pub fn has_image(&self, image: &ImageReceipt) -> bool {
        let name = image.reference.clone().zip(image.digest);
        name.is_some_and(|name| self.images.contains(&name))
    }

    fn has_companion(&self, repository: &Repository, companion: &CompanionReceipt) -> bool {
        self.companions.contains(&(repository.clone(), companion.tag.clone(), companion.digest))
    }

    /// Marks what `receipt` did not push itself and an earlier run did.
    pub fn mark(&self, receipt: &mut Receipt) {
        for image in &mut receipt.images {
            image.brought = image.outcome != ImageOutcome::Pushed && self.has_image(image);
            let Some(reference) = &image.reference else { continue };
            for companion in &mut image.companions {
                let is_other = companion.outcome != CompanionOutcome::Pushed;
                companion.brought = is_other && self.has_companion(&reference.repository, companion);
            }
        }
    }
}
