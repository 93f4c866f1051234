//! `WWW-Authenticate`: read or skipped; nothing comes out that did not go in.
#![no_main]

use gapferry::transport::registry::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| gapferry_fuzz::bounded(1 << 20 | 64 * header.len(), || {
    let Some(parts) = fuzzing::challenge(header) else { return };
    // A realm that is a path is completed and escaped.
    assert!(parts.iter().map(String::len).sum::<usize>() <= 3 * header.len() + 64);
    if let [realm, ..] = &parts[..] {
        assert!(!realm.is_empty());
        // The same, said plainly, is read the same.
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let plain = format!("Bearer realm=\"{}\"", quote(realm));
        assert_eq!(fuzzing::challenge(&plain).as_deref(), Some(&[realm.clone()][..]));
    }
}));
