//! Renders what was read back from a registry.

use std::collections::BTreeMap;

use super::named;
use crate::app::{HintCode, Proof};
use crate::base::progress::units::{bytes, count, duration};
use crate::cli::context::Context;
use crate::oci::Reference;
use crate::pipeline::prove::Verdict;

/// Prints images that a policy withholds from everyone, one line for each policy.
pub fn show_withheld(proof: &Proof, context: &Context) {
    let mut policies: BTreeMap<&str, Vec<&Reference>> = BTreeMap::new();
    for image in &proof.images {
        image.withheld().into_iter().for_each(|policy| policies.entry(policy).or_default().push(&image.reference));
    }
    for (policy, images) in policies {
        let (number, names) = (count(images.len(), "image"), named(images));
        let text = format!("{number} not proven ({names}): a policy of the project forbids pulling: {policy}");
        context.failed_image(&text, Some(HintCode::PullPolicy));
    }
}

/// One line with the number of images for each outcome.
pub fn summary(proof: &Proof) -> String {
    let mut parts = Vec::new();
    let proven = if proof.dry_run { "to prove" } else { "proven" };
    for (verdict, word) in [
        (Verdict::Proven, proven),
        (Verdict::Damaged, "damaged"),
        (Verdict::Missing, "missing"),
        (Verdict::Moved, "moved"),
        (Verdict::Unread, "not read"),
    ] {
        match proof.count(verdict) {
            0 if verdict != Verdict::Proven => {}
            number if parts.is_empty() => parts.push(format!("{} {word}", count(number, "image"))),
            number => parts.push(format!("{number} {word}")),
        }
    }
    format!("{}; {} read, {}", parts.join(", "), bytes(proof.read), duration(proof.elapsed))
}
