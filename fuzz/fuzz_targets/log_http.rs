//! URLs in the log of requests: one line, and no password in it.
#![no_main]

use gapferry::transport::registry::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|parts: (&str, &str, &str)| gapferry_fuzz::bounded(
    1 << 20 | 64 * (parts.0.len() + parts.1.len() + parts.2.len()),
    || {
        let (user, host, path) = parts;
        let secret = "S3CR3TPASSWORD";
        for url in [
            format!("https://{user}:{secret}@{host}/{path}"),
            format!("https://{host}/{path}?X-Amz-Signature={secret}"),
            format!("https://{host}/v2/?{path}&_state={secret}&token={secret}"),
        ] {
            let Some(shown) = fuzzing::shown(&url) else { continue };
            gapferry_fuzz::is_harmless(&shown);
            // What ends the user part or the query early makes the rest a path, or a fragment.
            let plain =
                |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '/' | '%'));
            if plain(user) && plain(host) && plain(path) && !user.contains('/') {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
    }
));
