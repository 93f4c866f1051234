//! Reports which mirror served what.

use std::collections::BTreeMap;

use super::context::Context;
use crate::base::progress::units::{bytes, count};
use crate::transport::registry::Served;

/// Prints a line for each registry with mirrors and each place that served part of it.
pub fn report_mirrors(served: &[Served], context: &Context) {
    let mut sums: BTreeMap<(&str, &str), [u64; 3]> = BTreeMap::new();
    for served in served {
        let sum = sums.entry((served.repository.registry(), served.from.registry())).or_default();
        for (sum, more) in sum.iter_mut().zip([served.manifest_count, served.blobs, served.bytes]) {
            *sum = sum.saturating_add(more);
        }
    }
    for ((registry, from), [manifests, blobs, size]) in sums {
        let items = |number: u64, what: &str| count(usize::try_from(number).unwrap_or(usize::MAX), what);
        let (manifests, blobs, size) = (items(manifests, "manifest"), items(blobs, "blob"), bytes(size));
        context.say(&format!("{registry} read from {from}: {manifests}, {blobs}, {size}"));
    }
}
