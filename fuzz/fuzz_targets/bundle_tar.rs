//! A whole bundle through the check: if it is found to be right, every byte of every file has its sum.
#![no_main]

use std::sync::Arc;

use gapferry::bundle::{BUNDLE_JSON, CHUNKS, SUMS, is_signature};
use gapferry::verify::{Depth, check};
use gapferry::oci::Digest;
use gapferry::base::progress::{Events, Silent};
use gapferry::files::Layout;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = gapferry_fuzz::with_checksums(data);
    let (_kept, path) = gapferry_fuzz::file(&bytes);
    let events: Events = Arc::new(Silent);
    let checked = gapferry_fuzz::bounded(64 << 20 | 64 * bytes.len(), || check(&path, Depth::Full, &events));
    let Ok(report) = checked else { return };
    if !report.is_clean() {
        return;
    }
    let layout = Layout::open(&path).expect("it was just read");
    let read = |name: &str| layout.read(name, bytes.len() as u64).expect("it was just read").expect("it is there");
    let sums = String::from_utf8(read(SUMS).to_vec()).expect("text");
    for (name, _) in layout.entries().filter(|(name, _)| !matches!(*name, SUMS | CHUNKS) && !is_signature(name)) {
        let line = format!("{}  {name}", Digest::sha256(&read(name)).hex());
        assert!(sums.lines().any(|found| found == line), "{line}");
    }
    assert_eq!(report.identity, Some(Digest::sha256(&read(BUNDLE_JSON))));
});
