//! Names: what is accepted is written the same way again, and could not be anything but a name.
#![no_main]

use gapferry::pipeline::lock::Rename;
use gapferry::oci::{Digest, Platform, Reference, Repository, Tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| gapferry_fuzz::bounded(1 << 20 | 64 * text.len(), || {
    match text.parse::<Reference>() {
        Ok(reference) => {
            let written = reference.to_string();
            assert_eq!(written.parse::<Reference>().as_ref(), Ok(&reference));
            gapferry_fuzz::is_harmless(&written);
            let path = reference.repository.path();
            assert!(path.len() <= 255 && !path.starts_with('/') && !path.contains(".."), "{path}");
            assert!(!reference.repository.registry().contains(['/', '@', '?', '#', ' ', '%']));
            let json = serde_json::to_string(&reference).unwrap();
            assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), reference);
        }
        Err(error) => {
            let message = error.to_string();
            gapferry_fuzz::is_harmless(&message);
            assert!(message.len() < 8 * (300 + 300) + 400, "{message}");
        }
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert!(tag.as_str() == text && text.len() <= 128 && !text.starts_with(['.', '-']));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert!(!digest.blob_path().contains(".."));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse::<Platform>(), Ok(platform));
    }
    if let Ok(repository) = text.parse::<Repository>() {
        assert_eq!(repository.to_string().parse::<Repository>(), Ok(repository));
    }
    if let Ok(rename) = Rename::try_from(text.to_owned()) {
        assert_eq!(Rename::try_from(rename.to_string()), Ok(rename));
    }
    if let Ok(target) = gapferry::pipeline::naming::parse_target(text) {
        // A host of one word, which a reference could not begin with; a prefix so long that no name fits below it.
        let repository = Repository::new(&target.registry, target.prefix.as_deref().unwrap_or("x"));
        assert!(repository.is_ok(), "{repository:?}");
    }
}));
