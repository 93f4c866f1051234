//! A mirror of several registries, as containerd asks it (`?ns=`).

use super::{code, layout_of};
use crate::support::embedded::Embedded;
use crate::support::images::{self};
use crate::support::{sha256, tempdir};

#[test]
fn a_request_for_one_registry_never_gets_the_image_of_another() {
    let work = tempdir();
    let image = |text: &str| images::oci("x", "1", &[text]);
    let (hub, quay, port, single) = (image("hub"), image("quay"), image("port"), image("single"));
    let layout = [
        hub.named("docker.io/org/same", "1"),
        quay.named("quay.io/org/same", "1"),
        port.named("registry.example:5000/org/same", "1"),
        single.named("quay.io/org/single", "1"),
    ];
    layout_of(work.path(), &layout);
    let server = Embedded::serve(work.path());
    for (path, expected) in [
        ("org/same/manifests/1?ns=docker.io", Some(&hub)),
        ("org/same/manifests/1?ns=registry-1.docker.io", Some(&hub)),
        ("org/same/manifests/1?ns=quay.io", Some(&quay)),
        ("org/same/manifests/1?ns=registry.example:5000", Some(&port)),
        ("org/same/manifests/1?ns=registry.example%3A5000", Some(&port)),
        ("org/same/manifests/1?ns=registry.example-5000", Some(&port)),
        ("quay.io/org/same/manifests/1?ns=quay.io", Some(&quay)),
        ("docker.io/org/same/manifests/1?ns=docker.io", Some(&hub)),
        ("registry.example-5000/org/same/manifests/1?ns=registry.example:5000", Some(&port)),
        ("org/single/manifests/1?ns=quay.io", Some(&single)),
        ("org/single/manifests/1?ns=docker.io", None),
        ("quay.io/org/same/manifests/1?ns=docker.io", None),
        ("org/same/manifests/1?ns=other.example", None),
        ("same/manifests/1?ns=org", None),
        ("org/single/manifests/1", Some(&single)),
        ("org/same/tags/list?ns=other.example", None),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = server.request(method, &format!("/v2/{path}")).send();
            match expected {
                Some(image) => {
                    let answer = answer.expect(200);
                    assert_eq!(answer.header("docker-content-digest"), Some(&*image.digest()), "{method} {path}");
                }
                None => assert_eq!(answer.status, 404, "{method} {path}"),
            }
        }
    }
    // Content named by digest cannot be mistaken.
    server.get(&format!("/v2/org/same/manifests/{}?ns=other.example", quay.digest())).expect(200);
    server.get(&format!("/v2/org/same/blobs/{}?ns=other.example", sha256(&quay.blobs[0]))).expect(200);
    for invalid in ["ns=", "ns=a/b", "ns=..", "ns=a%20b"] {
        assert_eq!(code(&server.get(&format!("/v2/org/same/manifests/1?{invalid}")).expect(400)), "NAME_INVALID");
    }
}

#[test]
fn a_push_for_one_registry_changes_nothing_of_another() {
    let work = tempdir();
    let (hub, quay) = (images::oci("x", "1", &["hub"]), images::oci("x", "1", &["quay"]));
    layout_of(work.path(), &[hub.named("docker.io/org/same", "1")]);
    let server = Embedded::writable(work.path());
    quay.blobs.iter().for_each(|blob| images::push_blob(&server, "org/same", blob));
    let ask = |method, path: &str| {
        let request = server.request(method, &format!("/v2/{path}")).header("Content-Type", &quay.media_type);
        request.body(if method == "PUT" { quay.manifest.clone() } else { vec![] }).send()
    };
    ask("PUT", "org/same/manifests/1?ns=quay.io").expect(201);
    let digest = |path: &str| ask("HEAD", path).header("docker-content-digest").map(str::to_owned);
    assert_eq!(digest("org/same/manifests/1?ns=docker.io"), Some(hub.digest()));
    assert_eq!(digest("org/same/manifests/1?ns=quay.io"), Some(quay.digest()));
    assert_eq!(digest("quay.io/org/same/manifests/1"), Some(quay.digest()));
    assert_eq!(code(&ask("PUT", "org/same/manifests/1?ns=a/b").expect(400)), "NAME_INVALID");
    ask("DELETE", "org/same/manifests/1?ns=other.example").expect(404);
    ask("DELETE", "org/same/manifests/1?ns=docker.io").expect(202);
    ask("GET", "org/same/manifests/1?ns=docker.io").expect(404);
    ask("GET", "org/same/manifests/1?ns=quay.io").expect(200);
}
