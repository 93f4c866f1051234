//! Credential files: read or refused; no password appears in a message.
#![no_main]

use gapferry::credentials::Store;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Helpers are programs: asking one would run whatever the input names.
    let names_helper = match serde_json::from_slice::<serde_json::Value>(data) {
        Ok(json) => json.get("credHelpers").is_some() || json.get("credsStore").is_some(),
        Err(_) => false,
    };
    let (_kept, path) = gapferry_fuzz::file(data);
    gapferry_fuzz::bounded(1 << 20 | 64 * data.len(), || {
        let store = match Store::load(Some(&path), &|_| None) {
            Ok(store) => store,
            Err(error) => return assert!(error.to_string().contains("/proc/self/fd/"), "{error}"),
        };
        if names_helper {
            return;
        }
        for (registry, path) in [("r.io", "team/app"), ("docker.io", ""), ("localhost:5000", "a")] {
            match store.find(registry, path) {
                Ok(Some(found)) => {
                    let shown = format!("{found:?} {store:?}");
                    let secret = found.password.expose();
                    // Short ones may stand there by chance.
                    assert!(secret.len() < 12 || found.username.contains(secret) || !shown.contains(secret));
                }
                Ok(None) => {}
                Err(error) => assert!(error.chain().contains("/proc/self/fd/"), "{}", error.chain()),
            }
        }
    });
});
