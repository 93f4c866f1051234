//! Tests of the test support itself. If these fail, the failures of other tests mean nothing.

use crate::support;
use crate::support::images::Corpus;
use crate::support::registry::{Options, Registry};
use crate::support::{skopeo, tempdir};

#[test]
fn every_kind_of_image_reaches_a_real_registry_unchanged() {
    let registry = Registry::start();
    let pushed = Corpus::everything().push(&registry);
    for image in &pushed {
        assert_eq!(skopeo::digest(&format!("docker://{}", image.reference)), image.digest, "{}", image.reference);
    }
    assert_eq!(registry.tags("library/oci").len(), 2);
    assert!(registry.uploads() > 20);
    assert!(registry.storage().join("docker/registry/v2/repositories/a/b/c/d").is_dir());
    let directory = tempdir();
    skopeo::copy(&format!("docker://{}", pushed[3].reference), &format!("dir:{}", directory.path().display()));
}

#[test]
fn a_registry_with_password_and_tls_requires_both() {
    let registry = Registry::with(Options {
        credentials: Some(("robot".into(), "s3cret".into())),
        tls: true,
        ..Options::default()
    });
    registry.request("GET", "/v2/").basic(None).send().expect(401);
    registry.request("GET", "/v2/").ca_file(None).try_send().unwrap_err();
    support::images::oci("a", "x", &["secret"]).push(&registry);
    assert_eq!(registry.tags("a"), ["x"]);
}
