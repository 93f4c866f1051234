//! `ratelimit-limit` and `ratelimit-remaining`: a pause that can be waited for, and none where pulls abound.
#![no_main]

use std::time::Duration;

use gapferry::transport::registry::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|headers: (&str, &str)| gapferry_fuzz::bounded(1 << 20, || {
    let Some(pause) = fuzzing::pause(headers.0, headers.1) else { return };
    assert!(pause <= Duration::from_secs(7 * 24 * 3600), "{pause:?}");
    assert!(headers.0.bytes().any(|byte| byte.is_ascii_digit()) && headers.1.bytes().any(|byte| byte.is_ascii_digit()));
}));
