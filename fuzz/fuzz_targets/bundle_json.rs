//! `bundle.json`: what is understood is written again so that it is understood the same.
#![no_main]

use gapferry::bundle::BundleJson;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| gapferry_fuzz::bounded(1 << 20 | 64 * data.len(), || {
    match BundleJson::parse(data, "bundle.json") {
        Ok(bundle) => {
            let written = serde_json::to_vec(&bundle).unwrap();
            assert_eq!(BundleJson::parse(&written, "again").unwrap(), bundle);
        }
        Err(error) => assert!(error.to_string().contains("bundle.json"), "{error}"),
    }
}));
