//! Manifests: the bytes are kept, what they are is decided once, and a second look says the same.
#![no_main]

use gapferry::oci::{Digest, Manifest, media_type};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| gapferry_fuzz::bounded(1 << 20 | 64 * data.len(), || {
    let bytes = || data.to_vec().into();
    for served_as in [None, Some(media_type::OCI_INDEX), Some(media_type::DOCKER_MANIFEST), Some("text/html")] {
        let Ok(manifest) = Manifest::parse(bytes(), served_as, None) else { continue };
        assert_eq!(manifest.bytes().unwrap()[..], *data);
        assert_eq!(manifest.digest(), Digest::sha256(data));
        assert_eq!(manifest.size(), data.len() as u64);
        assert!(media_type::is_manifest(manifest.media_type()));
        let digest = manifest.digest();
        let again = Manifest::parse(bytes(), Some(manifest.media_type()), Some(&digest)).expect("its own words");
        assert_eq!(again.children(), manifest.children());
        assert_eq!(again.descriptor(), manifest.descriptor());
        // A digest alone has 71 bytes.
        assert!(manifest.children().len() <= data.len() / 71);
    }
}));
