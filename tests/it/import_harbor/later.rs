//! After an import: deleted tags, inventories, and migration out of the storage.

use super::fixture::{ADMIN, CI, ROBOT, bundle, bundle_of, import, setup, small};
use crate::support::cosign::{self, list};
use crate::support::harbor::{Account, Harbor, Project, Right, Setup};
use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{gapferry, tempdir};

/// Harbor deletes no tag through the distribution protocol, and deleting the manifest would remove other tags.
#[test]
fn an_unwanted_tag_is_deleted_by_harbors_api_and_its_artifact_stays() {
    let source = Registry::start();
    let images = ["1", "2", "3", "locked"].map(|tag| images::oci("apps/web", tag, &[tag]));
    let again = images[0].named("apps/web", "same-as-1");
    images.iter().chain([&again]).for_each(|image| image.push(&source));
    let name = |image: &Image| format!("{}/{}", source.host(), image.name());
    let all: Vec<String> = images.iter().chain([&again]).map(name).collect();
    let setup = setup().with(Project::new("own").member("ci", Right::Maintain).immutable("locked"));
    let server = Harbor::start(setup);
    let directory = tempdir();
    let receipt = directory.path().join("receipt.json");
    let receipt = receipt.to_str().unwrap();
    import(&bundle_of(&source, &all, &[]), &server, "/own", CI, &["--receipt", receipt]).ended(0);
    let next = bundle_of(&source, &all[..2], &["--since", receipt]);
    let tag = |tag: &str| server.tag("own/apps/web", tag).is_some();
    let look = import(&next, &server, "/own", CI, &["--prune"]).ended(0);
    look.reported(&["own/apps/web:3", "own/apps/web:locked", "own/apps/web:same-as-1", "3 tags to prune"]);
    assert!(tag("3") && tag("same-as-1"), "without --yes nothing is deleted");
    server.set_busy_api(1000);
    let unclear = import(&next, &server, "/own", CI, &["--prune", "--yes", "--arrived", receipt]);
    unclear.ended(5).reported(&["Harbor", "does not answer", "nothing was deleted"]);
    assert!(tag("3") && tag("same-as-1"), "the distribution protocol would delete more than these tags");
    server.set_busy_api(0);
    let pruned = import(&next, &server, "/own", CI, &["--prune", "--yes", "--arrived", receipt]);
    pruned.ended(4).reported(&["2 of 3 tags deleted", "own/apps/web:locked", "immutable"]);
    assert!(tag("1") && tag("2") && tag("locked") && !tag("3") && !tag("same-as-1"));
    let digest = |image: &Image| image.digest().parse().unwrap();
    assert!(server.manifest("own/apps/web", &digest(&images[2])).is_some(), "the artifact stays");
    assert!(server.manifest("own/apps/web", &digest(&images[0])).is_some(), "and so does the artifact of another tag");
    assert_eq!(server.violations(), Vec::<String>::new());
}

/// An account that may read artifacts can look up a tag that a policy blocks from pulling.
#[test]
fn a_tag_hidden_by_a_policy_is_pruned_with_data_from_harbors_api() {
    let source = Registry::start();
    let images = ["1", "2", "3"].map(|tag| images::oci("apps/web", tag, &[tag]));
    images.iter().for_each(|image| image.push(&source));
    let names: Vec<String> = images.iter().map(|image| format!("{}/{}", source.host(), image.name())).collect();
    let own = Project::new("own").member("ci", Right::Maintain).member("robot$own+ci", Right::Maintain);
    let server = Harbor::start(setup().account(Account::robot("own+ci", "secret")).with(own));
    server.change("own", |project| project.wants_scan = true);
    let directory = tempdir();
    let receipt = directory.path().join("receipt.json").display().to_string();
    import(&bundle_of(&source, &names, &[]), &server, "/own", CI, &["--receipt", &receipt]).ended(0);
    let changed = images::oci("apps/web", "3", &["made here since"]);
    import(&bundle(&[&changed]), &server, "/own", CI, &[]).ended(0);
    let tag = |tag: &str| server.tag("own/apps/web", tag).is_some();
    let next = bundle_of(&source, &names[..1], &["--since", &receipt]);
    let prune = ["--prune", "--yes", "--arrived", &receipt];
    let hidden = import(&next, &server, "/own", "robot$own+ci:secret", &prune).ended(0);
    hidden.reported(&["own/apps/web:2 is left", "may not read its present digest", "nothing to prune"]);
    import(&next, &server, "/own", CI, &prune).ended(0).reported(&["deleted", "own/apps/web:2", "1 of 1 tag deleted"]);
    assert!(tag("1") && !tag("2") && tag("3"));
}

/// Content trust hides attestations, which are not signed themselves. The hidden attestation keeps the artifacts it may
/// refer to, but no signature or SBOM beside it. An account that may read artifacts can look it up.
#[test]
fn a_hidden_companion_does_not_keep_the_others_of_a_pruned_image() {
    let source = Registry::start();
    // The remaining index is not signed, so only Harbor's API shows its children.
    let staying = [images::oci("apps/web", "1", &["1"]), images::oci_index("apps/web", "multi", "multi")];
    let going = images::oci_index("apps/web", "2", "2");
    let (signature, sbom) =
        (images::cosign_signature(&going), images::referrer(&going, "application/spdx+json", b"sbom"));
    let attestation = list(&going, "att", &[cosign::signature(&going, "vendor")]);
    let beside = [images::cosign_signature(&staying[0]), images::cosign_signature(&going.children[0])];
    let kept = images::cosign_signature(&staying[1].children[0]);
    let listed = images::referrers_tag(&going, std::slice::from_ref(&sbom));
    let all = staying.iter().chain([&going, &signature, &sbom, &listed, &attestation, &kept]).chain(&beside);
    all.for_each(|image| image.push(&source));
    let names = ["1", "2", "multi"].map(|tag| format!("{}/apps/web:{tag}", source.host()));
    let directory = tempdir();
    let receipt = directory.path().join("receipt.json").display().to_string();
    let has =
        |server: &Harbor, image: &Image| server.manifest("own/apps/web", &image.digest().parse().unwrap()).is_some();
    for (creds, images, companions) in [(CI, 3, "4 of 4"), ("robot$own+ci:secret", 2, "3 of 3")] {
        let own = Project::new("own").member("ci", Right::Maintain).member("robot$own+ci", Right::Maintain);
        let server = Harbor::start(setup().account(Account::robot("own+ci", "secret")).with(own));
        server.change("own", |project| project.content_trust = true);
        let first = bundle_of(&source, &names[..images], &[]);
        import(&first, &server, "/own", creds, &["--receipt", &receipt]).ended(0);
        let next: Vec<String> = names[..images].iter().filter(|name| !name.ends_with(":2")).cloned().collect();
        let next = bundle_of(&source, &next, &["--since", &receipt]);
        let prune = ["--prune", "--yes", "--arrived", &receipt];
        let ran = import(&next, &server, "/own", creds, &prune).ended(0);
        let ran = ran.reported(&[&format!("1 of 1 tag deleted, {companions} companions")]);
        assert!([&signature, &sbom, &beside[1]].iter().all(|gone| !has(&server, gone)), "{}", ran.stderr);
        assert!(has(&server, &beside[0]) && has(&server, &kept) == (creds == CI));
        assert_eq!(has(&server, &attestation), creds != CI);
        assert_eq!(ran.stderr.contains(".att stays: a policy"), creds != CI, "{}", ran.stderr);
    }
}

/// Repositories a robot may not read are named; the rest still serves as a base for the next export.
#[test]
fn an_inventory_continues_past_an_unreadable_repository() {
    let images = ["one", "two"].map(small);
    let server = Harbor::start(setup().with(Project::new("closed")));
    import(&bundle(&[&images[0], &images[1]]), &server, "/apps", ADMIN, &[]).ended(0);
    let directory = tempdir();
    let inventory = |list: &str| {
        let (file, out) = (directory.path().join("images.txt"), directory.path().join("inventory.json"));
        std::fs::write(&file, list).unwrap();
        let mut command = gapferry();
        command.arg("inventory").arg(server.registry()).arg("-f").arg(&file).arg("-o").arg(&out);
        let ran = Ran::of(command.args(["--creds", ROBOT, "--retries", "1"]));
        (ran, std::fs::read_to_string(out).unwrap_or_default())
    };
    // The account may only pull from `apps`, which is enough.
    let (ran, written) = inventory("quay.io/apps/team/one:1\nquay.io/apps/team/two\n");
    ran.ended(0).reported(&["2 of 2 images are complete"]);
    assert!(written.contains("apps/team/two:1"), "{written}");
    for unreadable in ["quay.io/closed/x:1", "quay.io/closed/x"] {
        let (ran, written) = inventory(&format!("quay.io/apps/team/one:1\n{unreadable}\n"));
        ran.ended(1).reported(&["1 of 2 images are complete", "1 could not be read", unreadable]);
        assert!(written.contains(&images[0].digest()) && written.contains("closed/x"), "{written}");
    }
    inventory("quay.io/closed/x:1\n").0.ended(4);
}

/// Harbor 2.15 and later keep no tags in their storage, and their API lists no signatures: it names them beside their
/// images.
#[test]
fn a_signature_missing_from_harbors_listing_is_pruned_with_its_image() {
    let image = images::oci("team/app", "1", &["content"]);
    let signature = images::cosign_signature(&image);
    let source = Registry::start();
    [&image, &signature].iter().for_each(|image| image.push(&source));
    let server = Harbor::start(setup());
    let bundle = bundle_of(&source, &[format!("{}/team/app:1", source.host())], &[]);
    import(&bundle, &server, "/base", CI, &[]).ended(0);
    let path = "/api/v2.0/projects/base/repositories/team%252Fapp/artifacts?page_size=100&with_accessory=true";
    let message = server.request("GET", path).basic(CI.split_once(':')).send().expect(200).text();
    assert!(!message.contains(".sig"), "{message}");

    let (old, new, directory) = (Registry::start(), Registry::start(), tempdir());
    let tag = signature.tag.as_deref().unwrap();
    image.named("base/team/app", "1").push(&old);
    signature.named("base/team/app", tag).push(&old);
    let held = old.storage().join("docker/registry/v2/repositories/base/team/app/_manifests");
    std::fs::remove_dir_all(held.join("tags")).unwrap();
    let artifacts = directory.path().join("artifacts.json");
    std::fs::write(&artifacts, message).unwrap();
    let mut command = gapferry();
    command.arg("migrate").arg(old.storage()).arg("--tags-from").arg(&artifacts).args(["--to", new.host()]);
    let ran = Ran::of(&mut command).ended(0);
    assert_eq!(new.digest("base/team/app", "1"), Some(image.digest()));
    assert_eq!(new.digest("base/team/app", tag), Some(signature.digest()));
    assert!(!ran.stderr.contains("left behind"), "{}", ran.stderr);
}

/// Before 2.9, Harbor does not announce that it lists referrers, so a tag lists them.
#[test]
fn pruning_removes_companions_and_their_referrers_list_in_every_harbor_version() {
    let source = Registry::start();
    let images = ["1", "2"].map(|tag| images::oci_index("apps/web", tag, tag));
    let going = &images[1];
    let (signature, sbom) =
        (images::cosign_signature(going), images::referrer(going, "application/spdx+json", b"sbom"));
    let list = images::referrers_tag(going, std::slice::from_ref(&sbom));
    images.iter().chain([&signature, &sbom, &list]).for_each(|image| image.push(&source));
    let all: Vec<String> = images.iter().map(|image| format!("{}/{}", source.host(), image.name())).collect();
    let directory = tempdir();
    let receipt = directory.path().join("receipt.json");
    let receipt = receipt.to_str().unwrap();
    for (version, companions) in [((2, 7), 3), ((2, 8), 3), ((2, 11), 2)] {
        let setup = Setup { version, ..setup() }.with(Project::new("own").member("ci", Right::Maintain));
        let server = Harbor::start(setup);
        import(&bundle_of(&source, &all, &[]), &server, "/own", CI, &["--receipt", receipt]).ended(0);
        let next = bundle_of(&source, &all[..1], &["--since", receipt]);
        let ran = import(&next, &server, "/own", CI, &["--prune", "--yes", "--arrived", receipt]).ended(0);
        let message = format!("1 of 1 tag deleted, {companions} of {companions} companions");
        assert!(ran.stderr.contains(&message), "{version:?}: {}", ran.stderr);
        for companion in [&signature, &sbom] {
            assert!(server.manifest("own/apps/web", &companion.digest().parse().unwrap()).is_none(), "{version:?}");
        }
        assert!(server.tag("own/apps/web", list.tag.as_deref().unwrap()).is_none());
        assert!(server.tag("own/apps/web", "1").is_some());
    }
}
