//! `Content-Range` of a download and `Range` of an upload: what is read was said, and reads the same when said plainly.
#![no_main]

use gapferry::transport::registry::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| gapferry_fuzz::bounded(1 << 20, || {
    if let Some((start, end, total)) = fuzzing::content_range(header) {
        let total_said = total.map_or("*".to_owned(), |total| total.to_string());
        assert_eq!(fuzzing::content_range(&format!("bytes {start}-{end}/{total_said}")), Some((start, end, total)));
        assert!(header.contains('-') && header.contains('/'));
    }
    if let Some(there) = fuzzing::upload_range(header) {
        assert!(there > 1, "0-0 means nothing");
        if there < u64::MAX {
            assert_eq!(fuzzing::upload_range(&format!("0-{}", there - 1)), Some(there));
        }
    }
}));
