//! Keys, what a site demands, and signatures: read or refused; a passphrase is asked for only where it can be of use, and what
//! comes out is harmless.
#![no_main]

use std::path::PathBuf;

use gapferry::base::error::Error;
use gapferry::app::SitePolicy;
use gapferry::signing::{PrivateKey, PublicKey, signature_in};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| gapferry_fuzz::bounded(16 << 20 | 64 * data.len(), || {
    match PublicKey::parse(data, "x.pub") {
        Ok(key) => assert!(!key.verifies(b"nobody has signed this", &signature_in(data))),
        Err(error) => {
            assert!(error.to_string().contains("x.pub"), "{error}");
            gapferry_fuzz::is_harmless(&error.chain());
        }
    }
    // Trying a passphrase costs what it should, which is too much here.
    let asked = || Err(Error::input("the passphrase of x.key"));
    match PrivateKey::parse(data, "x.key", &asked) {
        Ok(key) => {
            let signature = key.sign(data).expect("a signature");
            assert!(signature.len() <= key.longest_signature() && key.public().verifies(data, &signature));
        }
        Err(error) => {
            assert!(error.to_string().contains("x.key"), "{error}");
            gapferry_fuzz::is_harmless(&error.chain());
        }
    }
    if let Err(problems) = SitePolicy::parse(&[(PathBuf::from("config.toml"), data.to_vec())]) {
        assert!(!problems.is_empty());
        problems.iter().for_each(|problem| gapferry_fuzz::is_harmless(&problem.to_string()));
    }
}));
