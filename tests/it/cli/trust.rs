//! Trust settings already in place for docker, podman and skopeo apply to gapferry.

use std::path::Path;

use super::*;
use crate::support::images;
use crate::support::registry::{Options, Registry};

/// A registry with one image and a certificate that only the site's own authority vouches for.
fn secured() -> (Registry, String) {
    let registry = Registry::with(Options { tls: true, ..Options::default() });
    images::oci("team/app", "1.0", &["content"]).push(&registry);
    let reference = format!("{}/team/app:1.0", registry.host());
    (registry, reference)
}

fn inspect(reference: &str, home: &Path, more: &[&str]) -> Output {
    gapferry().args(["inspect", reference]).args(more).env("HOME", home).output().unwrap()
}

#[test]
fn podmans_certificates_are_trusted_without_options() {
    let (registry, reference) = secured();
    let home = tempdir();
    let refused = inspect(&reference, home.path(), &[]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(stderr(&refused).contains("certs.d"), "the hint says where: {}", stderr(&refused));
    let directory = home.path().join(".config/containers/certs.d").join(registry.host());
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::copy(registry.ca_file(), directory.join("ca.crt")).unwrap();
    let output = inspect(&reference, home.path(), &[]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_certificate_directory_can_be_given_and_half_a_pair_in_it_is_refused() {
    let (registry, reference) = secured();
    let (home, certificates) = (tempdir(), tempdir());
    std::fs::copy(registry.ca_file(), certificates.path().join("site.crt")).unwrap();
    let named = ["--cert-dir", certificates.path().to_str().unwrap()];
    let output = inspect(&reference, home.path(), &named);
    assert!(output.status.success(), "{}", stderr(&output));
    std::fs::write(certificates.path().join("us.key"), "").unwrap();
    let output = inspect(&reference, home.path(), &named);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("us.key: us.cert is missing"), "{}", stderr(&output));
}
