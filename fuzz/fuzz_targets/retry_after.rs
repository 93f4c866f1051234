//! `Retry-After`: a time that can be added up, or nothing.
#![no_main]

use std::time::{Duration, SystemTime};

use gapferry::transport::registry::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| gapferry_fuzz::bounded(1 << 20 | 16 * header.len(), || {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_220_000);
    if let Some(wait) = fuzzing::retry_after(header, now) {
        if let Ok(seconds) = header.trim().parse::<u64>() {
            assert_eq!(wait.as_secs(), seconds);
        }
        // What a run has waited for is a sum of these.
        assert!(Duration::from_secs(86_400).checked_add(wait).is_some() && wait.checked_mul(3).is_some(), "{wait:?}");
    }
}));
