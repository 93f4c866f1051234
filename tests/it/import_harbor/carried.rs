//! Everything arrives, and nothing is sent twice.

use super::fixture::{ADMIN, Bundle, CI, ROBOT, bundle, bundle_of, import, map_file, setup, small};
use crate::support::harbor::{Harbor, Project, Setup};
use crate::support::images::{self, Corpus, Pushed};
use crate::support::registry::Registry;
use crate::support::{gapferry, tempdir};

#[test]
fn every_kind_of_image_arrives_at_every_version_with_every_account() {
    let source = Registry::start();
    let pushed: Vec<Pushed> = Corpus::everything().push(&source);
    let references: Vec<String> = pushed.iter().map(|image| image.reference.clone()).collect();
    let bundle = bundle_of(&source, &references, &[]);
    for (version, creds) in [((2, 7), ADMIN), ((2, 8), CI), ((2, 11), ROBOT)] {
        let server = Harbor::start(Setup { version, ..setup() });
        import(&bundle, &server, "/base", creds, &[]).ended(0);
        for image in pushed.iter().filter(|image| !image.reference.contains('@')) {
            let (repository, tag) = image.reference.split_once('/').unwrap().1.rsplit_once(':').unwrap();
            let there = server.tag(&format!("base/{repository}"), tag).map(|digest| digest.to_string());
            assert_eq!(there.as_deref(), Some(image.digest.as_str()), "{}", image.reference);
        }
        assert_eq!(server.violations(), Vec::<String>::new());
        let uploads = server.uploads();
        import(&bundle, &server, "/base", creds, &[]).ended(0);
        assert_eq!(server.uploads(), uploads, "present content is not pushed again");
    }
}

#[test]
fn images_in_harbor_can_be_exported_with_all_their_referrers() {
    let image = images::oci_index("team/app", "1.0", "content");
    let sbom = images::referrer(&image, "application/spdx+json", b"sbom");
    let signature = images::cosign_signature(&image);
    let source = Registry::start();
    for pushed in [&image, &sbom, &images::referrers_tag(&image, std::slice::from_ref(&sbom)), &signature] {
        pushed.push(&source);
    }
    let first = bundle_of(&source, &[format!("{}/team/app:1.0", source.host())], &[]);
    for version in [(2, 7), (2, 8), (2, 11)] {
        let (one, two) = (Harbor::start(Setup { version, ..setup() }), Harbor::start(setup()));
        import(&first, &one, "/base", CI, &[]).ended(0);
        let directory = tempdir();
        let path = directory.path().join("bundle.tar");
        let reference = format!("{}/base/team/app:1.0", one.registry());
        gapferry().args(["export", &reference, "--creds", CI, "-o"]).arg(&path).assert().success();
        gapferry().arg("verify").arg(&path).assert().success();
        let second = Bundle { path, _directory: directory };
        import(&second, &two, "", CI, &[]).ended(0);
        for carried in [&image, &sbom, &signature] {
            let digest = carried.digest().parse().unwrap();
            assert!(two.manifest("base/team/app", &digest).is_some(), "{version:?}: {}", carried.name());
        }
    }
}

#[test]
fn a_blob_is_uploaded_once_and_mounted_into_other_projects() {
    let images = ["one", "two", "three"].map(small);
    let bundle = bundle(&[&images[0], &images[1], &images[2]]);
    let server = Harbor::start(setup().with(Project::new("p1")).with(Project::new("p2")).with(Project::new("p3")));
    let directory = tempdir();
    let map = map_file(directory.path(), &[("team/one", "p1/one"), ("team/two", "p2/two"), ("team/three", "p3/three")]);
    import(&bundle, &server, "", ADMIN, &["--map", &map]).ended(0);
    // The shared layer once, three layers of single images, three configs.
    assert_eq!((server.uploads(), server.mounts()), (7, 2));
}

#[test]
fn uploads_into_one_project_are_serialized_on_request() {
    let images = ["one", "two", "three"].map(small);
    let bundle = bundle(&[&images[0], &images[1], &images[2]]);
    let server = Harbor::start(setup());
    import(&bundle, &server, "/base", ADMIN, &["--per-project", "1"]).ended(0);
    let uploads = server.pushes().into_iter().filter(|push| push.path.contains("/blobs/uploads/"));
    let order: Vec<String> = uploads.filter(|push| !push.path.contains("mount=")).map(|push| push.method).collect();
    assert_eq!(order, ["POST", "PUT"].repeat(7), "each upload ends before the next starts");
}
