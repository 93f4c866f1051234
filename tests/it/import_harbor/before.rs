//! The checks of an import before it pushes anything.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fixture::{ADMIN, CI, ROBOT, bundle, import, map_file, setup, small};
use crate::support::harbor::{Account, Harbor, Project, Right, Setup};
use crate::support::images;
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{gapferry, tempdir};

#[test]
fn all_missing_projects_are_named_at_once_and_nothing_is_pushed() {
    let images = ["one", "two", "three"].map(small);
    let bundle = bundle(&[&images[0], &images[1], &images[2]]);
    let server = Harbor::start(setup());
    let directory = tempdir();
    let map =
        map_file(directory.path(), &[("team/one", "new/one"), ("team/two", "other/two"), ("team/three", "base/x")]);
    import(&bundle, &server, "", ADMIN, &["--map", &map]).ended(4).reported(&[
        "project new does not exist",
        "project other does not exist",
        "--create-projects",
    ]);
    assert_eq!(server.pushes(), []);
    assert_eq!(server.projects().len(), 2);
}

#[test]
fn denied_rights_and_missing_projects_are_named_together() {
    let images = ["one", "two", "three"].map(small);
    let bundle = bundle(&[&images[0], &images[1], &images[2]]);
    let directory = tempdir();
    let map =
        map_file(directory.path(), &[("team/one", "base/one"), ("team/two", "apps/two"), ("team/three", "new/x")]);
    for (creds, absent) in [(CI, "project new does not exist"), (ROBOT, "project new does not exist")] {
        let server = Harbor::start(setup());
        import(&bundle, &server, "", creds, &["--map", &map])
            .ended(4)
            .reported(&["may not push to project apps", absent]);
        assert_eq!(server.pushes(), []);
    }
}

/// A robot that pushes new content to its project must not need push rights for base images that are already there.
#[test]
fn only_projects_that_receive_something_need_the_right_to_push() {
    let images = ["one", "two"].map(small);
    let directory = tempdir();
    let both = bundle(&[&images[0], &images[1]]);
    let map_to = |one: &str, two: &str| map_file(directory.path(), &[("team/one", one), ("team/two", two)]);
    for (creds, project, denied) in [
        (CI, "apps", "may not push to project apps"),
        (ROBOT, "apps", "may not push to project apps"),
        (CI, "cache", "project cache is a proxy cache"),
    ] {
        let cache = Project::new("cache").proxy_cache().member("ci", Right::Push);
        let server = Harbor::start(setup().with(cache));
        let two = format!("{project}/two");
        import(&both, &server, "", creds, &["--map", &map_to("base/one", &two)])
            .ended(4)
            .reported(&[denied, "nothing was pushed"]);
        assert_eq!(server.pushes(), []);
        if project == "cache" {
            continue;
        }
        import(&bundle(&[&images[1]]), &server, "", ADMIN, &["--map", &map_to("apps/one", &two)]).ended(0);
        let map = map_to("base/one", &two);
        let plan = import(&both, &server, "", creds, &["--map", &map, "--dry-run"]).ended(0);
        assert!(!plan.stdout.contains("may not push"), "{}", plan.stdout);
        import(&both, &server, "", creds, &["--map", &map]).ended(0);
        assert!(server.tag("base/one", "1").is_some());
        // `--reupload` pushes them again.
        import(&both, &server, "", creds, &["--map", &map, "--reupload"]).ended(4).reported(&[denied]);
    }
}

#[test]
fn missing_projects_are_created_with_the_requested_settings() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(setup());
    let options = ["--create-projects", "--project-public", "--project-quota", "2GiB"];
    import(&bundle, &server, "/2026", ADMIN, &options).ended(0).reported(&["project 2026 created"]);
    let made = server.projects().into_iter().find(|project| project.name == "2026").unwrap();
    assert_eq!((made.public, made.quota), (true, Some(2 << 30)));
    assert!(server.tag("2026/team/one", "1").is_some());
    // A second run, with an existing project.
    import(&bundle, &server, "/2026", ADMIN, &options).ended(0);
}

#[test]
fn no_project_is_created_for_an_import_that_would_fail_anyway() {
    let images = ["one", "two"].map(small);
    let bundle = bundle(&[&images[0], &images[1]]);
    let server = Harbor::start(setup());
    let directory = tempdir();
    let map = map_file(directory.path(), &[("team/one", "new/one"), ("team/two", "apps/two")]);
    import(&bundle, &server, "", CI, &["--map", &map, "--create-projects"])
        .ended(4)
        .reported(&["may not push to project apps"]);
    assert_eq!(server.projects().len(), 2);
}

#[test]
fn missing_rights_to_create_projects_are_reported() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(Setup { everyone_creates: false, ..setup() });
    import(&bundle, &server, "/new", CI, &["--create-projects"])
        .ended(4)
        .reported(&["project new", "Only system admin can create project"]);
    assert_eq!(server.pushes(), []);
}

#[test]
fn a_dry_run_creates_no_project_and_still_prints_the_plan() {
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
fn a_dry_run_names_every_obstacle_to_the_import() {
    let images = ["one", "two", "three"].map(small);
    let bundle = bundle(&[&images[0], &images[1], &images[2]]);
    let server = Harbor::start(Setup { read_only: true, ..setup() });
    let directory = tempdir();
    // `ap` is missing and `apps` is denied; the names must not be confused.
    let map = map_file(directory.path(), &[("team/one", "ap/one"), ("team/two", "apps/two"), ("team/three", "base/x")]);
    let options = ["--map", &map, "--dry-run", "--create-projects"];
    let ran = import(&bundle, &server, "", CI, &options).ended(4);
    for message in ["read-only mode", "project ap does not exist: it will be", "may not push to project apps: give it"]
    {
        assert!(ran.stdout.contains(message), "{message}: {}", ran.stdout);
    }
    assert_eq!(server.pushes(), []);
}

#[test]
fn read_only_mode_is_reported_before_any_push() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(Setup { read_only: true, ..setup() });
    for options in [&["--max-wait", "0s"][..], &["--max-wait", "0s", "--create-projects"]] {
        import(&bundle, &server, "/base", CI, options).ended(4).reported(&["read-only mode"]);
    }
    // Problems that do not pass by themselves are not waited for.
    import(&bundle, &server, "/apps", CI, &[]).ended(4).reported(&["read-only mode", "may not push to project apps"]);
    assert_eq!(server.pushes(), []);
}

/// The nightly import starts while an administrator makes a backup.
#[test]
fn an_import_waits_out_read_only_mode_before_the_first_push() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(setup());
    server.set_read_only_for(1);
    let ran = import(&bundle, &server, "/new", ADMIN, &["--create-projects"]).ended(0);
    ran.reported(&[
        "read-only mode: waiting up to 10 min 0 s (--max-wait)",
        "accepts changes again",
        "project new created",
    ]);
    assert!(server.tag("new/team/one", "1").is_some());
}

#[test]
fn wrong_credentials_are_not_reported_as_a_missing_project() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(setup());
    let ran = import(&bundle, &server, "/base", "ci:secret-that-is-wrong", &[]).ended(4);
    let ran = ran.reported(&["does not accept the credentials"]);
    assert!(!ran.stderr.contains("does not exist") && !ran.stderr.contains("secret-that-is-wrong"), "{}", ran.stderr);
}

#[test]
fn a_name_without_a_project_is_refused_with_a_remedy() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(setup());
    import(&bundle, &server, "", CI, &["--flatten"]).ended(4).reported(&["has no project", "--to HOST/PROJECT"]);
    assert_eq!(server.pushes(), []);
}

#[test]
fn a_proxy_cache_project_is_refused_as_a_target() {
    let bundle = bundle(&[&small("one")]);
    let server = Harbor::start(setup().with(Project::new("hub").proxy_cache()));
    import(&bundle, &server, "/hub", ADMIN, &[]).ended(4).reported(&["hub is a proxy cache"]);
    assert_eq!(server.pushes(), []);
}

#[test]
fn other_registries_get_no_harbor_api_requests() {
    let bundle = bundle(&[&small("one")]);
    let target = Registry::start();
    let to = format!("{}/any", target.host());
    let output = gapferry().arg("import").arg(&bundle.path).args(["--to", &to, "--create-projects"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("is not Harbor"), "{stderr}");
    assert!(!target.requests().iter().any(|entry| entry.path.contains("/api/v2.0/")));
}

/// Harbor answers 201, but the project has no quota.
#[test]
fn a_quota_that_harbor_ignored_is_reported() {
    let bundle = bundle(&[&small("one")]);
    let options = ["--create-projects", "--project-quota", "2GiB"];
    let maker = Account { reads_projects: false, ..Account::user("maker", "Maker123") };
    let server = Harbor::start(setup().account(maker));
    let message = ["project 2026 has no storage quota, not of 2.0 GiB", "only administrators"];
    import(&bundle, &server, "/2026", CI, &options).ended(0).reported(&message);
    // An account that may create projects may lack the right to read them.
    let unread = ["quota of 2.0 GiB could not be checked", "may not read it"];
    import(&bundle, &server, "/2028", "maker:Maker123", &options).ended(0).reported(&unread);
    let ran = import(&bundle, &server, "/2027", ADMIN, &options).ended(0);
    assert!(!ran.stderr.contains("storage quota"), "{}", ran.stderr);
}

/// One 503 must not turn a Harbor into a registry without projects.
#[test]
fn a_brief_api_failure_is_retried_and_a_lasting_one_reported() {
    let bundle = bundle(&[&small("one")]);
    let create = ["--create-projects"];
    let server = Harbor::start(Setup { busy_api: 1, ..setup() });
    import(&bundle, &server, "/new", ADMIN, &create).ended(0).reported(&["project new created"]);

    let server = Harbor::start(Setup { busy_api: 1000, ..setup() });
    import(&bundle, &server, "/new", ADMIN, &create).ended(5).reported(&[
        "creating projects at",
        "does not answer",
        "503",
    ]);
    assert_eq!(server.pushes(), []);
    // A gateway may route only the distribution protocol, which is enough to push.
    import(&bundle, &server, "/base", CI, &[]).ended(0).reported(&["quotas were not checked"]);
    assert!(server.tag("base/team/one", "1").is_some());
}

/// The usual setup of Harbor: each project has its own robot, and no account can access more than one project.
#[test]
fn credentials_stored_for_one_project_are_used_for_every_request_about_it() {
    let [one, two] = ["one", "two"].map(|name| images::oci(&format!("{name}/app"), "1", &["what all share", name]));
    let bundle = bundle(&[&one, &two]);
    let setup = Setup::default()
        .account(Account::robot("one+ci", "first"))
        .account(Account::robot("two+ci", "second"))
        .with(Project::new("one").member("robot$one+ci", Right::Push))
        .with(Project::new("two").member("robot$two+ci", Right::Push));
    let server = Harbor::start(setup);
    let directory = tempdir();
    let authfile = directory.path().join("auth.json");
    let import = |second: &str, to: &str| {
        let entry = |name: &str, secret: &str| {
            let auth = STANDARD.encode(format!("robot${name}+ci:{secret}"));
            (format!("{}/{name}", server.registry()), serde_json::json!({ "auth": auth }))
        };
        let auths: serde_json::Map<_, _> = [entry("one", "first"), entry("two", second)].into_iter().collect();
        std::fs::write(&authfile, serde_json::json!({ "auths": auths }).to_string()).unwrap();
        let mut command = gapferry();
        command.arg("import").arg(&bundle.path).args(["--retries", "1", "--to", to]);
        Ran::of(command.arg("--authfile").arg(&authfile))
    };
    let refused = import("wrong", &server.registry()).ended(4);
    refused.reported(&["nothing was pushed", "does not accept the credentials for two"]);
    assert_eq!(server.pushes(), []);
    import("second", &server.registry()).ended(0);
    assert!(server.tag("one/app", "1").is_some() && server.tag("two/app", "1").is_some());
    server.clear_log();
    import("second", &server.registry()).ended(0).reported(&["2 present"]);
    let asked = server.log().into_iter().filter(|entry| entry.path == "/v2/" && entry.authorized).count();
    assert!(asked <= 2, "once for each account: {asked}");
}
