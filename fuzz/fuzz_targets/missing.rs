//! What a bundle lacks: what is understood is written again so that it is understood the same, and is what can be.
#![no_main]

use gapferry::base::document::Document;
use gapferry::bundle::Missing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| gapferry_fuzz::bounded(1 << 20 | 64 * data.len(), || {
    match Missing::parse(data, "missing.json") {
        Ok(missing) => {
            assert_eq!(Missing::parse(missing.to_json().as_bytes(), "again").unwrap(), missing);
            for blob in &missing.blobs {
                let size = blob.size.unwrap_or(u64::MAX);
                assert!(blob.ranges.iter().all(|range| range.first <= range.last && range.last < size));
            }
        }
        Err(error) => assert!(error.to_string().contains("missing.json"), "{error}"),
    }
}));
