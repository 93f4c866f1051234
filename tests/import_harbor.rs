//! `gapferry import` into a server that behaves as Harbor does: what it finds out before pushing, what it says when Harbor
//! refuses, and that nothing is pushed when it can't succeed.

mod support;

use std::path::{Path, PathBuf};

use support::harbor::{Account, Change, Harbor, Logged, Project, Right, Row, Scopes, Setup};
use support::images::{self, Corpus, Image, Pushed};
use support::ran::Ran;
use support::registry::Registry;
use support::{gapferry, tempdir};
use tempfile::TempDir;

const ADMIN: &str = "admin:Harbor12345";
/// Pushes to `base`, pulls from `apps`.
const CI: &str = "ci:Ci123456";
/// The same, and may not read the project API.
const ROBOT: &str = "robot$base+ci:secret";

fn setup() -> Setup {
    Setup::default()
        .account(Account::user("ci", "Ci123456"))
        .account(Account::robot("base+ci", "secret"))
        .with(Project::new("base").member("ci", Right::Push).member("robot$base+ci", Right::Push))
        .with(Project::new("apps").member("ci", Right::Pull).member("robot$base+ci", Right::Pull))
}

/// A bundle of what stands in a registry of the connected side.
struct Bundle {
    path: PathBuf,
    _directory: TempDir,
}

fn bundle_of(source: &Registry, references: &[String], options: &[&str]) -> Bundle {
    let directory = tempdir();
    let path = directory.path().join("bundle");
    let output = gapferry().arg("export").args(references).arg("-o").arg(&path).args(options).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(source.requests().len() > 1);
    Bundle { path, _directory: directory }
}

fn bundle(images: &[&Image]) -> Bundle {
    let source = Registry::start();
    images.iter().for_each(|image| image.push(&source));
    let references: Vec<String> = images.iter().map(|image| format!("{}/{}", source.host(), image.name())).collect();
    bundle_of(&source, &references, &[])
}

fn import(bundle: &Bundle, server: &Harbor, prefix: &str, creds: &str, options: &[&str]) -> Ran {
    let to = format!("{}{prefix}", server.registry());
    let mut command = gapferry();
    command.arg("import").arg(&bundle.path).args(["--to", &to, "--creds", creds, "--retries", "1"]).args(options);
    Ran::of(&mut command)
}

/// A map file that sends each repository of `rules` elsewhere.
fn map_file(directory: &Path, source_is_any: &[(&str, &str)]) -> String {
    let path = directory.join("names.map");
    let rules: String = source_is_any.iter().map(|(from, to)| format!("~ ^[^/]+/{from}$ -> {to}\n")).collect();
    std::fs::write(&path, rules).unwrap();
    path.to_str().unwrap().to_owned()
}

fn small(name: &str) -> Image {
    images::oci(&format!("team/{name}"), "1", &["what all share", name])
}

#[test]
fn every_kind_of_image_arrives_whatever_the_version_and_the_account() {
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
        assert_eq!(server.uploads(), uploads, "what is there is not pushed again");
    }
}

#[test]
fn what_lies_in_harbor_can_be_carried_on_with_all_that_speaks_of_it() {
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
    // The shared layer once, three layers of their own, three configs.
    assert_eq!((server.uploads(), server.mounts()), (7, 2));
}

#[test]
fn all_missing_projects_are_named_at_once_and_nothing_is_pushed() {
    let images = ["one", "two", "three"].map(small);
    let bundle = bundle(&[&images[0], &images[1], &images[2]]);
    let server = Harbor::start(setup());
    let directory = tempdir();
    let map =
        map_file(directory.path(), &[("team/one", "new/one"), ("team/two", "other/two"), ("team/three", "base/x")]);
    import(&bundle, &server, "", ADMIN, &["--map", &map]).ended(4).said(&[
        "project new does not exist",
        "project other does not exist",
        "--create-projects",
    ]);
    assert_eq!(server.pushes(), []);
    assert_eq!(server.projects().len(), 2);
}

#[test]
fn denied_rights_are_named_with_the_missing_projects() {
    let images = ["one", "two", "three"].map(small);
    let bundle = bundle(&[&images[0], &images[1], &images[2]]);
    let directory = tempdir();
    let map =
        map_file(directory.path(), &[("team/one", "base/one"), ("team/two", "apps/two"), ("team/three", "new/x")]);
    for (creds, absent) in [(CI, "project new does not exist"), (ROBOT, "project new does not exist")] {
        let server = Harbor::start(setup());
        import(&bundle, &server, "", creds, &["--map", &map]).ended(4).said(&["may not push to project apps", absent]);
        assert_eq!(server.pushes(), []);
    }
}

#[test]
fn missing_projects_are_created_as_asked_for() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(setup());
    let options = ["--create-projects", "--project-public", "--project-quota", "2GiB"];
    import(&bundle, &server, "/2026", ADMIN, &options).ended(0).said(&["project 2026 created"]);
    let made = server.projects().into_iter().find(|project| project.name == "2026").unwrap();
    assert_eq!((made.public, made.quota), (true, Some(2 << 30)));
    assert!(server.tag("2026/team/one", "1").is_some());
    // Again, and for a project that is there.
    import(&bundle, &server, "/2026", ADMIN, &options).ended(0);
}

#[test]
fn nothing_is_created_for_an_import_that_would_fail_all_the_same() {
    let images = ["one", "two"].map(small);
    let bundle = bundle(&[&images[0], &images[1]]);
    let server = Harbor::start(setup());
    let directory = tempdir();
    let map = map_file(directory.path(), &[("team/one", "new/one"), ("team/two", "apps/two")]);
    import(&bundle, &server, "", CI, &["--map", &map, "--create-projects"])
        .ended(4)
        .said(&["may not push to project apps"]);
    assert_eq!(server.projects().len(), 2);
}

#[test]
fn who_may_not_create_projects_is_told_so() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(Setup { everyone_creates: false, ..setup() });
    import(&bundle, &server, "/new", CI, &["--create-projects"])
        .ended(4)
        .said(&["project new", "Only system admin can create project"]);
    assert_eq!(server.pushes(), []);
}

#[test]
fn a_dry_run_creates_no_project_and_still_gives_the_plan() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(setup());
    let ran = import(&bundle, &server, "/new", ADMIN, &["--create-projects", "--dry-run"]).ended(0);
    assert!(
        ran.stdout.contains("project new does not exist: it will be created") && ran.stdout.contains("new/team/one:1"),
        "{ran:#?}"
    );
    assert_eq!((server.projects().len(), server.pushes()), (2, vec![]));
}

#[test]
fn a_dry_run_names_all_that_would_stop_the_import() {
    let images = ["one", "two", "three"].map(small);
    let bundle = bundle(&[&images[0], &images[1], &images[2]]);
    let server = Harbor::start(Setup { read_only: true, ..setup() });
    let directory = tempdir();
    // `ap` is to be created, `apps` is denied: the one is not taken for the other.
    let map = map_file(directory.path(), &[("team/one", "ap/one"), ("team/two", "apps/two"), ("team/three", "base/x")]);
    let options = ["--map", &map, "--dry-run", "--create-projects"];
    let ran = import(&bundle, &server, "", CI, &options).ended(0);
    for said in ["read-only mode", "project ap does not exist: it will be", "may not push to project apps: give it"] {
        assert!(ran.stdout.contains(said), "{said}: {}", ran.stdout);
    }
    assert_eq!(server.pushes(), []);
}

#[test]
fn read_only_mode_is_named_before_any_push() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(Setup { read_only: true, ..setup() });
    for options in [&[][..], &["--create-projects"]] {
        import(&bundle, &server, "/base", CI, options).ended(4).said(&["read-only mode"]);
    }
    assert_eq!(server.pushes(), []);
}

#[test]
fn wrong_credentials_are_named_and_not_taken_for_a_missing_project() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(setup());
    let ran = import(&bundle, &server, "/base", "ci:secret-that-is-wrong", &[]).ended(4);
    let ran = ran.said(&["does not accept the credentials"]);
    assert!(!ran.stderr.contains("does not exist") && !ran.stderr.contains("secret-that-is-wrong"), "{}", ran.stderr);
}

#[test]
fn a_name_without_a_project_is_refused_with_the_remedy() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(setup());
    import(&bundle, &server, "", CI, &["--flatten"]).ended(4).said(&["has no project", "--to HOST/PROJECT"]);
    assert_eq!(server.pushes(), []);
}

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
fn an_immutable_tag_with_another_digest_fails_alone() {
    let server = Harbor::start(setup());
    server.change("base", |project| project.immutable.push("1*".to_owned()));
    let old = images::oci("team/app", "1.0", &["old"]);
    import(&bundle(&[&old]), &server, "/base", CI, &[]).ended(0);
    let new = images::oci("team/app", "1.0", &["new"]);
    let ran = import(&bundle(&[&new, &small("one")]), &server, "/base", CI, &[]);
    ran.ended(1).said(&["base/team/app:1.0", "configured as immutable", "1 failed"]);
    assert_eq!(server.tag("base/team/app", "1.0").unwrap().to_string(), old.digest());
    assert!(server.tag("base/team/one", "1").is_some(), "the other image arrives");
}

#[test]
fn an_exceeded_quota_is_warned_of_and_told_in_harbors_words() {
    let images = ["one", "two"].map(small);
    let bundle = bundle(&[&images[0], &images[1]]);
    let server = Harbor::start(setup().with(Project::new("tight").quota(100)));
    let directory = tempdir();
    let map = map_file(directory.path(), &[("team/one", "tight/one"), ("team/two", "base/two")]);
    import(&bundle, &server, "", ADMIN, &["--map", &map]).ended(4).said(&[
        "project tight will probably exceed its quota",
        "will exceed the configured upper limit",
        "raise the quota",
        "hint: raise the project's quota, or delete",
        "tight/one:1",
    ]);
    assert!(server.tag("base/two", "1").is_some() && server.tag("tight/one", "1").is_none());
    // Once there is room, the same command does the rest.
    server.change("tight", |project| project.quota = None);
    import(&bundle, &server, "", ADMIN, &["--map", &map]).ended(0);
}

#[test]
fn uploads_into_one_project_take_turns_if_that_is_asked_for() {
    let images = ["one", "two", "three"].map(small);
    let bundle = bundle(&[&images[0], &images[1], &images[2]]);
    let server = Harbor::start(setup());
    import(&bundle, &server, "/base", ADMIN, &["--per-project", "1"]).ended(0);
    let uploads = server.pushes().into_iter().filter(|push| push.path.contains("/blobs/uploads/"));
    let order: Vec<String> = uploads.filter(|push| !push.path.contains("mount=")).map(|push| push.method).collect();
    assert_eq!(order, ["POST", "PUT"].repeat(7), "each is ended before the next begins");
}

#[test]
fn a_sparse_index_is_refused_with_the_remedy() {
    let image = images::oci_index("team/app", "1.0", "content");
    let source = Registry::start();
    image.push(&source);
    small("one").push(&source);
    let references = ["team/app:1.0", "team/one:1"].map(|name| format!("{}/{name}", source.host()));
    let sparse = bundle_of(&source, &references[..1], &["--platform", "linux/amd64", "--index", "sparse"]);
    let server = Harbor::start(setup());
    import(&sparse, &server, "/base", CI, &[]).ended(1).said(&["base/team/app:1.0", "--index trim"]);
    assert!(server.tag("base/team/app", "1.0").is_none());
    let trimmed = bundle_of(&source, &references[..1], &["--platform", "linux/amd64", "--index", "trim"]);
    import(&trimmed, &server, "/base", CI, &[]).ended(0);
    assert!(server.tag("base/team/app", "1.0").is_some());
}

#[test]
fn a_proxy_cache_is_no_target() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(setup().with(Project::new("hub").proxy_cache()));
    import(&bundle, &server, "/hub", ADMIN, &[]).ended(4).said(&["hub is a proxy cache"]);
    assert_eq!(server.pushes(), []);
}

#[test]
fn another_registry_is_asked_nothing_of_harbors() {
    let bundle = bundle(&[&small("one")]);
    let target = Registry::start();
    let to = format!("{}/any", target.host());
    let output = gapferry().arg("import").arg(&bundle.path).args(["--to", &to, "--create-projects"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("is not Harbor"), "{stderr}");
    assert!(!target.requests().iter().any(|entry| entry.path.contains("/api/v2.0/")));
}

/// Through the distribution protocol Harbor deletes no tag, and with the manifest other tags would go.
#[test]
fn a_tag_that_is_not_wanted_any_more_goes_by_harbors_own_api_and_its_artifact_stays() {
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
    look.said(&["own/apps/web:3", "own/apps/web:locked", "own/apps/web:same-as-1", "3 tags to prune"]);
    assert!(tag("3") && tag("same-as-1"), "a look changes nothing");
    let pruned = import(&next, &server, "/own", CI, &["--prune", "--yes", "--arrived", receipt]);
    pruned.ended(4).said(&["2 of 3 tags deleted", "own/apps/web:locked", "immutable"]);
    assert!(tag("1") && tag("2") && tag("locked") && !tag("3") && !tag("same-as-1"));
    let digest = |image: &Image| image.digest().parse().unwrap();
    assert!(server.manifest("own/apps/web", &digest(&images[2])).is_some(), "the artifact stays");
    assert!(server.manifest("own/apps/web", &digest(&images[0])).is_some(), "and what another tag means");
    assert_eq!(server.violations(), Vec::<String>::new());
}

/// Harbor answers 412 to whoever asks what a tag means there, until the image is signed or scanned. Pushing is allowed.
#[test]
fn a_policy_that_forbids_pulling_stops_no_push() {
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
        ran.said(&["cannot be pulled yet", "base/team/one:1"]);
        assert!(server.tag("base/team/app", signature.tag.as_deref().unwrap()).is_some());
        let uploads = server.uploads();
        import(&first, &server, "/base", creds, &[]).ended(0);
        assert_eq!(server.uploads(), uploads, "what is there is not sent again");
        import(&second, &server, "/base", creds, &[]).ended(0);
        assert_eq!(tag("base/team/one", "1"), changed.digest(), "a changed image arrives");
        assert_eq!(tag("base/team/two", "1"), images[1].digest(), "and so does a new one");
    }
}

/// A robot cannot find out what such a tag means: it may be the same image.
#[test]
fn a_tag_that_nobody_may_read_is_left_alone_where_that_was_asked_for() {
    let server = Harbor::start(setup());
    server.change("base", |project| project.content_trust = true);
    let bundle = bundle(&[&small("one")]);
    import(&bundle, &server, "/base", ROBOT, &[]).ended(0);
    let before = server.pushes().len();
    let look = import(&bundle, &server, "/base", ROBOT, &["--dry-run"]).ended(0);
    assert!(look.stdout.contains("renew"), "{}", look.stdout);
    import(&bundle, &server, "/base", ROBOT, &["--on-existing", "skip"]).ended(0).said(&["1 skipped"]);
    import(&bundle, &server, "/base", ROBOT, &["--on-existing", "fail"]).ended(1).said(&["forbids reading"]);
    assert_eq!(server.pushes().len(), before);
    // Who may read artifacts knows.
    import(&bundle, &server, "/base", CI, &["--on-existing", "fail"]).ended(0).said(&["1 present"]);
}

/// "Check the spelling" would be no help: the blob is there, and on its way out.
#[test]
fn a_blob_that_a_garbage_collection_is_deleting_is_named_with_what_helps() {
    let image = small("one");
    let bundle = bundle(&[&image]);
    let server = Harbor::start(setup());
    let layer = image.blob_digests().remove(0).parse().unwrap();
    server.set_row(&layer, Some(Row::Deleting));
    import(&bundle, &server, "/base", CI, &[]).ended(1).said(&["blob is in GC", "garbage collection is at work"]);
    server.set_row(&layer, None);
    import(&bundle, &server, "/base", CI, &[]).ended(0);
}

/// Twenty images of one large layer each.
fn many() -> Vec<Image> {
    (0..20).map(|n| images::oci(&format!("team/app{n:02}"), "1", &[&images::noise(n, 20_000)])).collect()
}

/// One answer speaks for all that is still to be sent there; the rest of the run goes on.
#[test]
fn what_ends_a_push_to_a_project_in_the_middle_is_said_once_and_not_tried_again() {
    let all = many();
    let bundle = bundle(&all.iter().collect::<Vec<_>>());
    let directory = tempdir();
    let rules: Vec<(String, String)> = (0..20)
        .map(|n| (format!("team/app{n:02}"), format!("{}/app{n:02}", if n < 16 { "base" } else { "own" })))
        .collect();
    let rules: Vec<(&str, &str)> = rules.iter().map(|(from, to)| (&**from, &**to)).collect();
    let map = map_file(directory.path(), &rules);
    for (change, says, others) in [
        (Change::ReadOnly, "read only mode", false),
        (Change::ProxyCache("base"), "to a proxy project", true),
        (Change::RightsLost("base"), "unauthorized to access repository", true),
    ] {
        let server = Harbor::start(setup().with(Project::new("own").member("ci", Right::Push)));
        server.change_once_tagged(3, change);
        let ran = import(&bundle, &server, "", CI, &["--map", &map]).ended(4);
        let refused = |entry: &&Logged| matches!(entry.status, 401 | 403) && entry.authorized;
        let refusals = server.pushes().iter().filter(refused).count();
        assert!((1..=14).contains(&refusals), "{change:?}: {refusals} refusals: only what was on its way");
        let failed: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("failed: ")).collect();
        assert!(failed.len() == 1 && failed[0].contains(says), "{change:?}: {failed:#?}");
        assert!(failed[0].contains(" images: "), "{failed:#?}");
        let arrived = (16..20).filter(|n| server.tag(&format!("own/app{n}"), "1").is_some()).count();
        assert!(arrived == 4 || !others, "{change:?}: the other project has {arrived} of 4");
    }
}

/// What is larger than the room that is left is not sent, what fits is, and no refused upload stays in the storage.
#[test]
fn a_quota_that_is_used_up_on_the_way_is_met_once() {
    let mut all = many();
    all.push(images::oci("team/tiny", "1", &["tiny"]));
    let bundle = bundle(&all.iter().collect::<Vec<_>>());
    let server = Harbor::start(setup());
    let size = |image: &Image| image.blobs.iter().map(Vec::len).sum::<usize>() + image.manifest.len();
    let fits = all[..6].iter().map(size).sum::<usize>() + size(&all[20]) + 3000;
    server.change("base", |project| project.quota = Some(fits as u64));
    // A robot cannot read the quota before.
    let ran = import(&bundle, &server, "/base", ROBOT, &[]).ended(4);
    let refused = server.pushes().iter().filter(|entry| entry.status == 403).count();
    assert!((1..=6).contains(&refused), "{refused} refusals: only what was on its way");
    let failed: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("failed: ")).collect();
    assert!(failed.len() == 1 && failed[0].contains("/base has no room left"), "{failed:#?}");
    ran.said(&["configured upper limit", "hint: raise the project's quota"]);
    assert!(server.tag("base/team/tiny", "1").is_some(), "what fits arrives");
    assert_eq!(server.open_uploads(), 0, "what was refused is taken back");
    server.change("base", |project| project.quota = None);
    import(&bundle, &server, "/base", ROBOT, &[]).ended(0);
}

/// A token costs Harbor a password hash: 100 images in 60 repositories of 30 projects take a handful of them.
#[test]
fn a_hundred_images_take_a_dozen_tokens_at_most() {
    let image = |n: usize| {
        let (repository, tag) = (format!("p{:02}/team/app{:02}", n % 30, n % 60), format!("{}", n / 60));
        images::oci(&repository, &tag, &["what all share", &format!("{n}")])
    };
    let all: Vec<Image> = (0..100).map(image).collect();
    let bundle = bundle(&all.iter().collect::<Vec<_>>());
    for creds in [CI, ROBOT] {
        let member = |project: Project| project.member("ci", Right::Push).member("robot$base+ci", Right::Push);
        let projects = (0..30).map(|n| member(Project::new(&format!("p{n:02}"))));
        let server = Harbor::start(projects.fold(setup(), Setup::with));
        import(&bundle, &server, "", creds, &[]).ended(0);
        let tokens = server.token_requests();
        assert!(tokens <= 12, "{creds}: {tokens} tokens");
        assert_eq!(server.mounts(), 59, "the shared layer is still mounted into every other repository");
        server.clear_log();
        import(&bundle, &server, "", creds, &[]).ended(0);
        let tokens = server.token_requests();
        assert!(tokens <= 12, "{creds}, nothing to do: {tokens} tokens");
    }
}

/// A gateway may have a token server of its own kind: then each repository gets a token of its own again.
#[test]
fn a_token_server_that_does_not_take_several_repositories_at_once_is_asked_for_each() {
    let images = ["one", "two", "three"].map(small);
    let bundle = bundle(&[&images[0], &images[1], &images[2]]);
    let directory = tempdir();
    let map = map_file(directory.path(), &[("team/one", "p1/one"), ("team/two", "p2/two"), ("team/three", "p3/three")]);
    for several_scopes in [Scopes::First, Scopes::FirstOpaque, Scopes::Refused] {
        let projects = ["p1", "p2", "p3"].map(|name| Project::new(name).member("robot$base+ci", Right::Push));
        let server = Harbor::start(projects.into_iter().fold(Setup { several_scopes, ..setup() }, Setup::with));
        import(&bundle, &server, "", ROBOT, &["--map", &map]).ended(0);
        let arrived =
            ["one", "two", "three"].iter().zip(1..).all(|(name, n)| server.tag(&format!("p{n}/{name}"), "1").is_some());
        assert!(arrived, "{several_scopes:?}");
    }
}

/// Who manages the project may read its rules: nothing is sent for a tag that could not be moved, and the plan says so.
#[test]
fn an_immutable_tag_is_refused_before_anything_of_its_image_is_sent() {
    let setup = setup().with(Project::new("own").member("ci", Right::Maintain).immutable("1*"));
    let server = Harbor::start(setup);
    import(&bundle(&[&images::oci("team/app", "1.0", &["old"])]), &server, "/own", CI, &[]).ended(0);
    let new = bundle(&[&images::oci("team/app", "1.0", &["new"]), &small("one")]);
    let look = import(&new, &server, "/own", CI, &["--dry-run"]).ended(0);
    assert!(look.stdout.contains("immutable") && !look.stdout.contains("overwrite"), "{}", look.stdout);
    server.clear_log();
    import(&new, &server, "/own", CI, &[]).ended(1).said(&["own/team/app:1.0", "immutable", "--on-existing skip"]);
    assert!(!server.pushes().iter().any(|entry| entry.path.contains("/team/app/")), "{:#?}", server.pushes());
    assert!(server.tag("own/team/one", "1").is_some(), "the other image arrives");
    import(&new, &server, "/own", CI, &["--on-existing", "skip"]).ended(0).said(&["1 skipped"]);
}

/// Harbor answers 201, and the project has no limit.
#[test]
fn a_quota_that_harbor_ignores_is_told() {
    let bundle = bundle(&[&small("one")]);
    let options = ["--create-projects", "--project-quota", "2GiB"];
    let server = Harbor::start(setup());
    let said = ["project 2026 has no storage quota, not of 2.0 GiB", "only administrators"];
    import(&bundle, &server, "/2026", CI, &options).ended(0).said(&said);
    let ran = import(&bundle, &server, "/2027", ADMIN, &options).ended(0);
    assert!(!ran.stderr.contains("storage quota"), "{}", ran.stderr);
}

/// What a robot may not read is named; the rest is a basis for the next export all the same.
#[test]
fn an_inventory_goes_on_where_one_repository_cannot_be_read() {
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
    // It may only pull from `apps`, and that is enough.
    let (ran, written) = inventory("quay.io/apps/team/one:1\nquay.io/apps/team/two\n");
    ran.ended(0).said(&["2 of 2 images are there"]);
    assert!(written.contains("apps/team/two:1"), "{written}");
    for unreadable in ["quay.io/closed/x:1", "quay.io/closed/x"] {
        let (ran, written) = inventory(&format!("quay.io/apps/team/one:1\n{unreadable}\n"));
        ran.ended(1).said(&["1 of 2 images are there", "1 could not be read", unreadable]);
        assert!(written.contains(&images[0].digest()) && written.contains("closed/x"), "{written}");
    }
    inventory("quay.io/closed/x:1\n").0.ended(4);
}
