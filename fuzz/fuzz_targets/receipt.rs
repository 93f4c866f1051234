//! A receipt that came back over the gap: what is understood is written again so that it is understood the same, and a manifest
//! in it is what its digest says.
#![no_main]

use gapferry::base::document::Document;
use gapferry::oci::Digest;
use gapferry::pipeline::receipt::Receipt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| gapferry_fuzz::bounded(1 << 20 | 256 * data.len(), || {
    match Receipt::parse(data, "receipt.json") {
        Ok(receipt) => {
            assert_eq!(Receipt::parse(receipt.to_json().as_bytes(), "again").unwrap(), receipt);
            for kept in &receipt.manifests {
                let (digest, bytes) = (kept.0.digest(), kept.0.bytes().unwrap());
                assert_eq!(Digest::of(digest.algorithm(), &bytes), digest);
            }
        }
        Err(error) => assert!(error.to_string().contains("receipt.json"), "{error}"),
    }
}));
