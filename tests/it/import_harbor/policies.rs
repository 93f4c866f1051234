//! Project policies that forbid moving a tag or pulling unsigned or unscanned images.

use super::fixture::{CI, ROBOT, bundle, bundle_of, import, setup, small};
use crate::support::cosign::{list, signature};
use crate::support::harbor::{Harbor, Project, Right};
use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{gapferry, tempdir};

#[test]
fn an_immutable_tag_with_the_same_digest_is_left_alone() {
    let image = images::oci_index("team/app", "1.0", "content");
    let signature = images::cosign_signature(&image);
    let source = Registry::start();
    image.push(&source);
    let reference = [format!("{}/team/app:1.0", source.host())];
    let before = bundle_of(&source, &reference, &[]);
    signature.push(&source);
    let after = bundle_of(&source, &reference, &[]);
    let server = Harbor::start(setup());
    server.change("base", |project| project.immutable.push("*".to_owned()));
    import(&before, &server, "/base", CI, &[]).ended(0);
    // The signature is new, the tag is not.
    import(&after, &server, "/base", CI, &[]).ended(0);
    import(&after, &server, "/base", CI, &[]).ended(0);
    assert!(server.tag("base/team/app", signature.tag.as_deref().unwrap()).is_some());
    assert!(!server.log().iter().any(|entry| entry.status == 412), "{:#?}", server.pushes());
}

#[test]
fn an_immutable_tag_with_another_digest_fails_only_its_image() {
    let server = Harbor::start(setup());
    server.change("base", |project| project.immutable.push("1*".to_owned()));
    let old = images::oci("team/app", "1.0", &["old"]);
    import(&bundle(&[&old]), &server, "/base", CI, &[]).ended(0);
    let new = images::oci("team/app", "1.0", &["new"]);
    let ran = import(&bundle(&[&new, &small("one")]), &server, "/base", CI, &[]);
    let ran = ran.ended(1).reported(&["base/team/app:1.0", "configured as immutable", "1 failed"]);
    assert!(!ran.stderr.contains("is overwritten"), "{}", ran.stderr);
    assert_eq!(server.tag("base/team/app", "1.0").unwrap().to_string(), old.digest());
    assert!(server.tag("base/team/one", "1").is_some(), "the other image arrives");
}

/// A project manager may read its rules: nothing is sent for a tag that cannot be moved, and the plan says so.
#[test]
fn an_immutable_tag_is_refused_before_its_image_is_uploaded() {
    let setup = setup().with(Project::new("own").member("ci", Right::Maintain).immutable("1*"));
    let server = Harbor::start(setup);
    import(&bundle(&[&images::oci("team/app", "1.0", &["old"])]), &server, "/own", CI, &[]).ended(0);
    let new = bundle(&[&images::oci("team/app", "1.0", &["new"]), &small("one")]);
    let look = import(&new, &server, "/own", CI, &["--dry-run"]).ended(0);
    assert!(look.stdout.contains("immutable") && !look.stdout.contains("overwrite"), "{}", look.stdout);
    server.clear_log();
    import(&new, &server, "/own", CI, &[]).ended(1).reported(&["own/team/app:1.0", "immutable", "--on-existing skip"]);
    assert!(!server.pushes().iter().any(|entry| entry.path.contains("/team/app/")), "{:#?}", server.pushes());
    assert!(server.tag("own/team/one", "1").is_some(), "the other image arrives");
    import(&new, &server, "/own", CI, &["--on-existing", "skip"]).ended(0).reported(&["1 skipped"]);
}

/// Rules for all tags also cover signature tags. The image arrives without the signatures that cannot be added.
#[test]
fn an_immutable_signature_tag_loses_the_signatures_but_not_the_image() {
    let (image, signed) = (images::oci("team/app", "1.0", &["content"]), images::oci("team/app", "2.0", &["content"]));
    let [vendor, own] = ["vendor", "own"].map(|key| signature(&image, key));
    let source = Registry::start();
    [&image, &signed, &list(&image, "sig", &[vendor])].iter().for_each(|image| image.push(&source));
    let bundle = bundle_of(&source, &[format!("{}/team/app:2.0", source.host())], &[]);
    let setup = setup().with(Project::new("own").member("ci", Right::Maintain).immutable("*"));
    let server = Harbor::start(setup);
    let isolated = Registry::start();
    let theirs = list(&image, "sig", &[own]);
    [&image, &theirs].iter().for_each(|image| image.push(&isolated));
    let first = bundle_of(&isolated, &[format!("{}/team/app:1.0", isolated.host())], &[]);
    import(&first, &server, "/own", CI, &[]).ended(0);
    server.clear_log();
    let says = [theirs.tag.as_deref().unwrap(), "makes it immutable", "--on-existing skip"];
    let look = import(&bundle, &server, "/own", CI, &["--dry-run"]).ended(0);
    assert!(look.stdout.contains("obstructed") && !look.stdout.contains("join"), "{}", look.stdout);
    import(&bundle, &server, "/own", CI, &[])
        .ended(1)
        .reported(&says)
        .reported(&["1 image pushed", "failed: companion"]);
    assert_eq!(server.tag("own/team/app", "2.0").unwrap().to_string(), signed.digest());
    import(&bundle, &server, "/own", CI, &[]).ended(1).reported(&says).reported(&["1 present", "failed: companion"]);
    import(&bundle, &server, "/own", CI, &["--on-existing", "skip"]).ended(0);
    assert_eq!(server.tag("own/team/app", says[0]).unwrap().to_string(), theirs.digest());
}

/// Harbor answers 412 to a tag lookup until the image is signed or scanned. Pushing is allowed.
#[test]
fn a_policy_that_forbids_pulling_does_not_stop_a_push() {
    let images = ["one", "two"].map(small);
    let signed = images::oci_index("team/app", "1.0", "content");
    let signature = images::cosign_signature(&signed);
    let source = Registry::start();
    for image in images.iter().chain([&signed, &signature]) {
        image.push(&source);
    }
    let name = |image: &Image| format!("{}/{}", source.host(), image.name());
    let first = bundle_of(&source, &[name(&images[0]), name(&signed)], &[]);
    let changed = images::oci("team/one", "1", &["what all share", "changed"]);
    changed.push(&source);
    let second = bundle_of(&source, &[name(&changed), name(&images[1]), name(&signed)], &[]);
    for (creds, policy) in [(ROBOT, "signed"), (CI, "signed"), (ROBOT, "scanned"), (CI, "scanned")] {
        let server = Harbor::start(setup());
        server.change("base", |project| {
            (project.content_trust, project.wants_scan) = (policy == "signed", policy == "scanned");
        });
        let tag = |repository: &str, tag: &str| server.tag(repository, tag).unwrap().to_string();
        let ran = import(&first, &server, "/base", creds, &[]).ended(0);
        let ran = ran.reported(&["cannot be pulled yet", "base/team/one:1"]);
        let child = signed.children[0].digest();
        assert!(ran.stderr.contains(&child), "a node pulls a child by its digest: {}", ran.stderr);
        assert!(server.tag("base/team/app", signature.tag.as_deref().unwrap()).is_some());
        let uploads = server.uploads();
        let again = import(&first, &server, "/base", creds, &[]).ended(0);
        assert_eq!(server.uploads(), uploads, "present content is not sent again");
        again.reported(&["cannot be pulled yet", "base/team/one:1", &format!("base/team/app:1.0@{child}")]);
        import(&second, &server, "/base", creds, &[]).ended(0);
        assert_eq!(tag("base/team/one", "1"), changed.digest(), "a changed image arrives");
        assert_eq!(tag("base/team/two", "1"), images[1].digest(), "and so does a new one");
    }
}

/// An increment omits content that the target has, except manifests that the target does not serve.
#[test]
fn an_increment_arrives_where_a_policy_forbids_pulling() {
    let old = images::oci_index("team/app", "1.0", "content");
    let source = Registry::start();
    [&old, &small("one"), &small("two")].iter().for_each(|image| image.push(&source));
    let names = ["team/app:1.0", "team/one:1", "team/two:1"].map(|name| format!("{}/{name}", source.host()));
    let directory = tempdir();
    for creds in [ROBOT, CI] {
        let server = Harbor::start(setup());
        server.change("base", |project| project.content_trust = true);
        let first = bundle_of(&source, &names[..2], &[]);
        let mut since = first;
        // The second receipt comes from a run that found everything in place.
        for receipt in ["pushed", "present"].map(|name| directory.path().join(name).display().to_string()) {
            import(&since, &server, "/base", creds, &["--receipt", &receipt]).ended(0);
            since = bundle_of(&source, &names, &["--since", &receipt]);
            let carried = std::fs::read_dir(since.path.join("blobs/sha256")).unwrap().count();
            assert!(carried <= 5 + 2 + 2, "manifests, and the blobs of new images: {carried}");
        }
        import(&since, &server, "/base", creds, &[]).ended(0);
        assert!(server.tag("base/team/two", "1").is_some());
    }
}

/// The receipt is older than the policy: the target has the expected content but does not serve it. The import must
/// still push the rest, and an image already under its tag has not failed.
#[test]
fn content_withheld_by_a_policy_fails_no_other_image_of_an_increment() {
    let source = Registry::start();
    let multi = images::oci_index("team/app", "1.0", "content");
    [&small("one"), &small("two"), &multi].iter().for_each(|image| image.push(&source));
    let names = ["team/one:1", "team/app:1.0", "team/two:1"].map(|name| format!("{}/{name}", source.host()));
    let directory = tempdir();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let [receipt, after, lock, missing, repair] = ["receipt", "after", "lock", "missing", "repair.tar"].map(path);
    let before = bundle_of(&source, &names[..2], &[]);
    // The existing image gets signed on the connected side in the meantime.
    let signature = images::cosign_signature(&small("one"));
    signature.push(&source);
    for creds in [CI, ROBOT] {
        let server = Harbor::start(setup());
        import(&before, &server, "/base", creds, &["--receipt", &receipt]).ended(0);
        server.change("base", |project| project.wants_scan = true);
        let next = bundle_of(&source, &names, &["--since", &receipt, "--lock", &lock]);
        let options = ["--missing", &missing, "--receipt", &after];
        let dry = import(&next, &server, "/base", creds, &["--dry-run"]).ended(0).stdout;
        // The account that may read artifacts can see that the tags mean these images.
        if creds == CI {
            assert!(!dry.contains("unreadable"), "{dry}");
            import(&next, &server, "/base", creds, &options).ended(0).reported(&["2 images pushed, 1 present"]);
        } else {
            assert_eq!(dry.matches("unreadable").count(), 2, "{dry}");
            let ran = import(&next, &server, "/base", creds, &options).ended(1);
            ran.reported(&[
                "1 image pushed, 2 failed",
                "base/team/one:1: ",
                "policy of the project forbids",
                "--missing",
            ]);
        }
        assert!(server.tag("base/team/two", "1").is_some());
        assert!(server.tag("base/team/one", signature.tag.as_deref().unwrap()).is_some(), "the signature arrives");
        let lacking = std::fs::read_to_string(&missing).unwrap();
        assert!(lacking.contains(&small("one").digest()) && lacking.contains(&multi.digest()), "{lacking}");
        let mut command = gapferry();
        command.args(["export", "--repair", &missing, "--locked", &lock, "-o", &repair]);
        Ran::of(&mut command).ended(0);
        import(&next, &server, "/base", creds, &["--repair", &repair]).ended(0);
        // The new receipt confirms only what the target serves, so the next increment carries the manifests and no
        // layer.
        if creds == CI {
            let third = bundle_of(&source, &names, &["--since", &after]);
            let carried = std::fs::read_dir(third.path.join("blobs/sha256")).unwrap().count();
            assert!(carried <= 7, "{carried}");
            import(&third, &server, "/base", creds, &[]).ended(0);
        }
    }
}

/// `cosign sign -r` signs an index and each of its platforms. While the policy hides the index, the import cannot know
/// that the platforms belong to it; their signatures must not be lost with exit code 0.
#[test]
fn platform_signatures_below_a_hidden_index_are_reported_and_arrive_next_run() {
    let source = Registry::start();
    let multi = images::oci_index("team/app", "1.0", "content");
    multi.push(&source);
    let names = [format!("{}/team/app:1.0", source.host())];
    let directory = tempdir();
    let receipt = directory.path().join("receipt").display().to_string();
    let server = Harbor::start(setup());
    import(&bundle_of(&source, &names, &[]), &server, "/base", CI, &["--receipt", &receipt]).ended(0);
    server.change("base", |project| project.content_trust = true);
    let of_index = images::cosign_signature(&multi);
    let of_platforms: Vec<Image> = multi.children.iter().map(images::cosign_signature).collect();
    of_platforms.iter().chain([&of_index]).for_each(|signature| signature.push(&source));
    let next = bundle_of(&source, &names, &["--since", &receipt]);
    let is_there = |signature: &Image| server.tag("base/team/app", signature.tag.as_deref().unwrap()).is_some();
    let says = format!("warning: {} signatures not brought (", of_platforms.len());
    import(&next, &server, "/base", CI, &["--dry-run"]).ended(0).reported(&[&says]);
    let ran = import(&next, &server, "/base", CI, &[]).ended(1);
    ran.reported(&[&says, "base/team/app:1.0", "Run the same command again"]);
    assert!(is_there(&of_index) && !of_platforms.iter().any(is_there));
    // Once signed, the index can be pulled.
    import(&next, &server, "/base", CI, &[]).ended(0);
    assert!(of_platforms.iter().all(is_there));
}

/// Pushing an index does not require reading a child that the target already has in that repository.
#[test]
fn an_index_is_pushed_again_even_if_a_policy_withholds_a_present_child() {
    let source = Registry::start();
    let [old, more] = ["old", "more"].map(|content| images::oci("team/app", "1.0", &["shared", content]));
    let new = images::index_of("team/app", "1.1", &[(&old, Some("amd64")), (&more, Some("arm64"))], None);
    [&old, &new].iter().for_each(|image| image.push(&source));
    let name = |tag: &str| format!("{}/team/app:{tag}", source.host());
    let directory = tempdir();
    let receipt = directory.path().join("receipt").display().to_string();
    let server = Harbor::start(setup());
    import(&bundle_of(&source, &[name("1.0")], &[]), &server, "/base", ROBOT, &["--receipt", &receipt]).ended(0);
    server.change("base", |project| project.content_trust = true);
    let next = bundle_of(&source, &[name("1.1")], &["--since", &receipt]);
    import(&next, &server, "/base", ROBOT, &[]).ended(0);
    assert_eq!(server.tag("base/team/app", "1.1").unwrap().to_string(), new.digest());
}

/// A manifest in another repository does not help: its bytes are needed under the new name. Only this image fails.
#[test]
fn an_image_whose_only_manifest_is_withheld_elsewhere_fails_alone() {
    let source = Registry::start();
    [&small("one"), &small("one").named("team/again", "1"), &small("two")].iter().for_each(|image| image.push(&source));
    let names = ["team/one:1", "team/again:1", "team/two:1"].map(|name| format!("{}/{name}", source.host()));
    let directory = tempdir();
    let receipt = directory.path().join("receipt").display().to_string();
    for carried in [&names[1..2], &names[1..]] {
        let server = Harbor::start(setup());
        import(&bundle_of(&source, &names[..1], &[]), &server, "/base", CI, &["--receipt", &receipt]).ended(0);
        server.change("base", |project| project.content_trust = true);
        let next = bundle_of(&source, carried, &["--since", &receipt]);
        let ran = import(&next, &server, "/base", CI, &[]).ended(1);
        let ran = ran.reported(&["base/team/again:1: ", "base/team/one", "not signed by cosign", "1 failed"]);
        assert_eq!(server.tag("base/team/two", "1").is_some(), carried.len() == 2);
        assert!(!ran.stderr.contains("lacks"), "{}", ran.stderr);
    }
}

/// Harbor refuses to set an immutable tag, and where pulling is forbidden a robot cannot even see that the tag means
/// this image.
#[test]
fn an_image_already_under_an_unreadable_immutable_tag_has_not_failed() {
    let server = Harbor::start(setup());
    server.change("base", |project| {
        project.content_trust = true;
        project.immutable.push("1*".to_owned());
    });
    let (image, other) = (images::oci("team/app", "1.0", &["content"]), images::oci("team/app", "1.0", &["other"]));
    let again = bundle(&[&image, &image.named("team/app", "latest"), &image.named("team/app", "1.1")]);
    import(&again, &server, "/base", ROBOT, &[]).ended(0);
    for _ in 0..2 {
        let ran = import(&again, &server, "/base", ROBOT, &[]).ended(0);
        ran.reported(&["2 tags left alone", "base/team/app:1.0", "1 image pushed", "2 present"]);
    }
    // A tag cannot mean an image that is not there.
    let refused = import(&bundle(&[&other]), &server, "/base", ROBOT, &[]).ended(1);
    refused.reported(&["base/team/app:1.0", "configured as immutable", "1 failed"]);
    assert_eq!(server.tag("base/team/app", "1.0").unwrap().to_string(), image.digest());
}

/// A robot cannot find out what such a tag means; it may be the same image.
#[test]
fn on_existing_leaves_an_unreadable_tag_alone() {
    let server = Harbor::start(setup());
    server.change("base", |project| project.content_trust = true);
    let bundle = bundle(&[&small("one")]);
    import(&bundle, &server, "/base", ROBOT, &[]).ended(0);
    let before = server.pushes().len();
    let look = import(&bundle, &server, "/base", ROBOT, &["--dry-run"]).ended(0);
    assert!(look.stdout.contains("renew"), "{}", look.stdout);
    import(&bundle, &server, "/base", ROBOT, &["--on-existing", "skip"]).ended(0).reported(&["1 skipped"]);
    import(&bundle, &server, "/base", ROBOT, &["--on-existing", "fail"]).ended(1).reported(&["forbids reading"]);
    assert_eq!(server.pushes().len(), before);
    // An account that may read artifacts knows.
    import(&bundle, &server, "/base", CI, &["--on-existing", "fail"]).ended(0).reported(&["1 present"]);
}

/// Content trust requires signatures of attestations too, so those that this bundle brought can never be read. That
/// causes no warning at each rerun, but another list put under the tag by the isolated side does.
#[test]
fn hidden_attestations_cause_no_warning_once_they_are_present() {
    let image = images::oci("team/app", "1", &["content"]);
    let [vendor, own] = ["vendor", "own"].map(|key| signature(&image, key));
    let sbom = images::oci("team/app", "1", &["sbom"]);
    let sbom = sbom.named("team/app", &format!("{}.sbom", image.digest().replace(':', "-")));
    let lists = [&vendor, &own].map(|signature| list(&image, "att", std::slice::from_ref(signature)));
    let source = Registry::start();
    [&image, &images::cosign_signature(&image), &lists[0], &sbom].iter().for_each(|image| image.push(&source));
    let bundle = bundle_of(&source, &[format!("{}/team/app:1", source.host())], &[]);
    for creds in [ROBOT, CI] {
        let server = Harbor::start(setup());
        server.change("base", |project| project.content_trust = true);
        import(&bundle, &server, "/base", creds, &[]).ended(0);
        let again = import(&bundle, &server, "/base", creds, &[]).ended(0);
        let message: Vec<&str> = again.stderr.lines().filter(|line| line.contains("signature tag")).collect();
        match creds == CI {
            true => assert!(message.is_empty(), "{}", again.stderr),
            false => {
                assert!(message.len() == 1 && message[0].starts_with("note: 1 signature tag left"), "{}", again.stderr)
            }
        }
        assert!(!again.stderr.contains("warning:"), "{}", again.stderr);
    }
    // The receipt is older than the policy, so the next bundle omits the attestations.
    let directory = tempdir();
    let receipt = directory.path().join("receipt").display().to_string();
    let server = Harbor::start(setup());
    import(&bundle, &server, "/base", ROBOT, &["--receipt", &receipt]).ended(0);
    server.change("base", |project| project.content_trust = true);
    let next = bundle_of(&source, &[format!("{}/team/app:1", source.host())], &["--since", &receipt]);
    import(&next, &server, "/base", ROBOT, &[]).ended(0).reported(&["note: 1 companion left", "1 present"]);
    let server = Harbor::start(setup());
    let isolated = Registry::start();
    [&image, &lists[1]].iter().for_each(|image| image.push(&isolated));
    let theirs = bundle_of(&isolated, &[format!("{}/team/app:1", isolated.host())], &[]);
    import(&theirs, &server, "/base", ROBOT, &[]).ended(0);
    server.change("base", |project| project.content_trust = true);
    let ran = import(&bundle, &server, "/base", ROBOT, &[]).ended(0);
    ran.reported(&["warning: 1 signature tag left unchanged", "not signed by cosign"]);
}

/// Content that is present but may not be pulled has not failed: the next increment need not bring it again.
#[test]
fn content_withheld_from_a_proof_counts_as_present_but_unproven() {
    let names = ["one", "two"].map(small);
    let bundle = bundle(&[&names[0], &names[1]]);
    let directory = tempdir();
    let receipt = directory.path().join("receipt").display().to_string();
    let server = Harbor::start(setup());
    server.change("base", |project| project.content_trust = true);
    let message = |stderr: &str| {
        let lines = stderr.lines().filter(|line| line.starts_with("failed:"));
        assert_eq!(lines.count(), 1, "{stderr}");
        assert!(stderr.contains("2 images not proven") && stderr.contains("Configuration: content trust"), "{stderr}");
        assert!(stderr.contains("not signed by cosign") && !stderr.contains("--plain-http"), "{stderr}");
    };
    message(&import(&bundle, &server, "/base", ROBOT, &["--prove", "--receipt", &receipt]).ended(1).stderr);
    let written = std::fs::read_to_string(&receipt).unwrap();
    assert_eq!(written.matches(r#""outcome": "pushed""#).count(), 2, "{written}");
    assert_eq!(written.matches(r#""proven": false"#).count(), 2, "{written}");
    let mut prove = gapferry();
    message(&Ran::of(prove.args(["prove", &receipt, "--creds", ROBOT, "--retries", "1"])).ended(1).stderr);
}

/// The missing right is more useful to report than the denied lookup.
#[test]
fn a_push_only_account_gets_the_reason_for_its_failure() {
    let bundle = bundle(&[&small("one")]);
    let cache = Project::new("cache").proxy_cache().member("robot$base+ci", Right::Deliver);
    let server = Harbor::start(setup().with(cache).with(Project::new("in").member("robot$base+ci", Right::Deliver)));
    let refused = import(&bundle, &server, "/cache/x", ROBOT, &[]).ended(4);
    refused.reported(&["can not push artifact to a proxy project: cache", "choose another project"]);
    for existing in ["skip", "fail"] {
        import(&bundle, &server, "/in", ROBOT, &["--on-existing", existing])
            .ended(4)
            .reported(&["permission to pull there"]);
    }
    import(&bundle, &server, "/in", ROBOT, &[]).ended(0);
}

#[test]
fn a_sparse_index_is_refused_with_a_remedy() {
    let image = images::oci_index("team/app", "1.0", "content");
    let source = Registry::start();
    image.push(&source);
    small("one").push(&source);
    let references = ["team/app:1.0", "team/one:1"].map(|name| format!("{}/{name}", source.host()));
    let sparse = bundle_of(&source, &references[..1], &["--platform", "linux/amd64", "--index", "sparse"]);
    let server = Harbor::start(setup());
    import(&sparse, &server, "/base", CI, &[]).ended(1).reported(&["base/team/app:1.0", "--index trim"]);
    assert!(server.tag("base/team/app", "1.0").is_none());
    let trimmed = bundle_of(&source, &references[..1], &["--platform", "linux/amd64", "--index", "trim"]);
    import(&trimmed, &server, "/base", CI, &[]).ended(0);
    assert!(server.tag("base/team/app", "1.0").is_some());
}

/// The account cannot check whether the isolated side has signed, so the signature tag is left alone; the image itself
/// needs no reading.
#[test]
fn a_push_only_account_pushes_images_without_signatures_and_reports_it() {
    let image = images::oci("team/app", "1.0", &["content"]);
    let vendor = list(&image, "sig", &[signature(&image, "vendor")]);
    let source = Registry::start();
    [&image, &vendor].iter().for_each(|image| image.push(&source));
    let bundle = bundle_of(&source, &[format!("{}/team/app:1.0", source.host())], &[]);
    let mut setup = setup();
    setup.projects[0] = setup.projects[0].clone().member("robot$base+ci", Right::Deliver);
    let server = Harbor::start(setup);
    for _ in 0..2 {
        let ran = import(&bundle, &server, "/base", ROBOT, &[]).ended(1);
        ran.reported(&[
            "1 signature tag left unchanged: this account may not read what the target has there",
            "right to pull",
        ]);
        assert_eq!(server.tag("base/team/app", "1.0").unwrap().to_string(), image.digest());
        assert!(server.tag("base/team/app", vendor.tag.as_deref().unwrap()).is_none());
    }
    import(&bundle, &server, "/base", ROBOT, &["--dry-run"]).ended(0).reported(&["right to pull"]);
    import(&bundle, &server, "/base", CI, &[]).ended(0);
    assert!(server.tag("base/team/app", vendor.tag.as_deref().unwrap()).is_some());
}
