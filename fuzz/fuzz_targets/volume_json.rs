//! What a volume or a recovery volume says of itself: what is understood is written again so that it is understood the same.
#![no_main]

use gapferry::bundle::volumes::{RecoveryJson, VolumeJson};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| gapferry_fuzz::bounded(1 << 20 | 64 * data.len(), || {
    match VolumeJson::parse(data, "volumes/003.json", data.len()) {
        Ok(json) => {
            assert_eq!(VolumeJson::parse(&json.to_bytes().unwrap(), "again", data.len()).unwrap(), json);
            assert!(json.files.iter().all(|file| ["blobs/", "segments/", "chunks.b3"].iter().any(|at| file.stored_path().starts_with(at))));
        }
        Err(error) => assert!(error.to_string().contains("volumes/003.json"), "{error}"),
    }
    match RecoveryJson::parse(data, "volumes/r01.json") {
        Ok(json) => assert_eq!(RecoveryJson::parse(&json.to_bytes().unwrap(), "again").unwrap(), json),
        Err(error) => assert!(error.to_string().contains("volumes/r01.json"), "{error}"),
    }
}));
