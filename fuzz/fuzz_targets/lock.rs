//! Locks: what is read is written again so that it reads the same.
#![no_main]

use gapferry::base::document::Document;
use gapferry::pipeline::lock::Lock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| gapferry_fuzz::bounded(1 << 20 | 64 * data.len(), || {
    match Lock::parse(data, "x.lock") {
        Ok(lock) => {
            assert_eq!(Lock::parse(lock.to_json().as_bytes(), "again").unwrap(), lock);
            for image in &lock.images {
                gapferry_fuzz::is_harmless(&image.name());
            }
        }
        Err(error) => assert!(error.to_string().contains("x.lock"), "{error}"),
    }
}));
