//! What a registry says when it refuses: shown as one short line that cannot speak to the terminal.
#![no_main]

use gapferry::transport::registry::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| gapferry_fuzz::bounded(1 << 20 | 64 * body.len(), || {
    let message = fuzzing::excerpt(body);
    gapferry_fuzz::is_harmless(&message);
    assert!(message.chars().count() <= 300 * 10 + 1, "{message}");
}));
