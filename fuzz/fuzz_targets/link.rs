//! `Link`: the next page is a piece of the header, between its brackets.
#![no_main]

use gapferry::transport::registry::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| gapferry_fuzz::bounded(1 << 20 | 64 * header.len(), || {
    let Some(target) = fuzzing::next_page(header) else { return };
    assert!(header.contains(&format!("<{target}>")) && !target.contains('>'));
    assert_eq!(fuzzing::next_page(&format!("<{target}>; rel=\"next\"")), Some(target));
}));
