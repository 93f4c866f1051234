//! Events that end a push, or part of it, after it has started.

use super::fixture::{ADMIN, CI, ROBOT, bundle, import, map_file, setup, small};
use crate::support::harbor::{Change, Database, Harbor, Logged, Project, Right, Row};
use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::{gapferry, tempdir};
use gapferry::oci::Digest;

/// Twenty images of one large layer each.
fn many() -> Vec<Image> {
    (0..20).map(|n| images::oci(&format!("team/app{n:02}"), "1", &[&images::noise(n, 20_000)])).collect()
}

#[test]
fn an_exceeded_quota_is_warned_about_and_reported_in_harbors_words() {
    let images = ["one", "two"].map(small);
    let bundle = bundle(&[&images[0], &images[1]]);
    let server = Harbor::start(setup().with(Project::new("tight").quota(100)).with(Project::new("full").quota(1)));
    let directory = tempdir();
    let map = map_file(directory.path(), &[("team/one", "tight/one"), ("team/two", "base/two")]);
    import(&bundle, &server, "/full", ADMIN, &[]).ended(4).reported(&["0 images pushed", "; 0 B uploaded"]);
    import(&bundle, &server, "", ADMIN, &["--map", &map]).ended(4).reported(&[
        "project tight will probably exceed its quota",
        "will exceed the configured upper limit",
        "raise the quota",
        "hint: raise the project's quota, or delete",
        "tight/one:1",
    ]);
    assert!(server.tag("base/two", "1").is_some() && server.tag("tight/one", "1").is_none());
    // Once there is space, the same command finishes the rest.
    server.change("tight", |project| project.quota = None);
    import(&bundle, &server, "", ADMIN, &["--map", &map]).ended(0);
}

/// "Check the spelling" would not help: the blob exists and is being deleted.
#[test]
fn a_blob_that_garbage_collection_is_deleting_is_named_with_a_remedy() {
    let image = small("one");
    let bundle = bundle(&[&image]);
    let server = Harbor::start(setup());
    let blobs: Vec<Digest> = image.blob_digests().iter().map(|digest| digest.parse().unwrap()).collect();
    blobs.iter().for_each(|blob| server.set_row(blob, Some(Row::Deleting)));
    let ran = import(&bundle, &server, "/base", CI, &[]).ended(1);
    let ran = ran.reported(&["blob is in GC", "garbage collection is running"]);
    let waits = ran.stderr.lines().filter(|line| line.contains("is in GC") && !line.starts_with("failed: "));
    assert_eq!(waits.count(), 1, "one message for the collection, not one per blob: {}", ran.stderr);
    blobs.iter().for_each(|blob| server.set_row(blob, None));
    import(&bundle, &server, "/base", CI, &[]).ended(0);
}

/// The database has dropped the layer, and the storage still has it for a moment: without another upload, the image
/// breaks when the collection ends.
#[test]
fn a_blob_missing_from_the_database_is_uploaded_again() {
    let server = Harbor::start(setup());
    let old = images::oci("team/one", "1", &["base", "old"]);
    let new = images::oci("team/one", "2", &["base", "new"]);
    import(&bundle(&[&old]), &server, "/base", CI, &[]).ended(0);
    let layer: Digest =
        new.blob_digests().into_iter().find(|digest| old.blob_digests().contains(digest)).unwrap().parse().unwrap();
    server.set_row(&layer, Some(Row::Absent));
    server.clear_log();
    import(&bundle(&[&new]), &server, "/base", CI, &[]).ended(0);
    let sent = |entry: &&Logged| entry.method == "PUT" && entry.path.contains(&layer.hex());
    assert_eq!(server.pushes().iter().filter(sent).count(), 1);
    // While the collection deletes the blob, nothing can be pushed, and no manifest may rely on it.
    server.set_row(&layer, Some(Row::Deleting));
    let third = images::oci("team/one", "3", &["base", "third"]);
    import(&bundle(&[&third]), &server, "/base", CI, &[]).ended(1).reported(&["garbage collection is running"]);
    assert!(server.tag("base/team/one", "3").is_none());
}

/// One answer speaks for all remaining uploads to that project; the rest of the run continues.
#[test]
fn an_obstacle_that_ends_pushes_to_a_project_is_reported_once_and_not_retried() {
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
        let ran = import(&bundle, &server, "", CI, &["--map", &map, "--max-wait", "0s"]).ended(4);
        let refused = |entry: &&Logged| matches!(entry.status, 401 | 403) && entry.authorized;
        let refusals = server.pushes().iter().filter(refused).count();
        // Six uploads, six mounts and six images at a time.
        assert!((1..=18).contains(&refusals), "{change:?}: {refusals} refusals: only requests in flight");
        let failed: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("failed: ")).collect();
        assert!(failed.len() == 1 && failed[0].contains(says), "{change:?}: {failed:#?}");
        assert!(failed[0].contains(" images: "), "{failed:#?}");
        let arrived = (16..20).filter(|n| server.tag(&format!("own/app{n}"), "1").is_some()).count();
        assert!(arrived == 4 || !others, "{change:?}: the other project has {arrived} of 4");
    }
}

/// Blobs larger than the remaining quota are not sent, those that fit are, and no refused upload stays in the storage.
#[test]
fn a_quota_that_runs_out_during_an_import_is_hit_only_once() {
    let mut all = many();
    all.push(images::oci("team/tiny", "1", &["tiny"]));
    let bundle = bundle(&all.iter().collect::<Vec<_>>());
    let server = Harbor::start(setup());
    let size = |image: &Image| image.blobs.iter().map(Vec::len).sum::<usize>() + image.manifest.len();
    let fits = all[..6].iter().map(size).sum::<usize>() + size(&all[20]) + 3000;
    server.change("base", |project| project.quota = Some(fits as u64));
    // A robot cannot read the quota beforehand.
    let ran = import(&bundle, &server, "/base", ROBOT, &[]).ended(4);
    let refused = server.pushes().iter().filter(|entry| entry.status == 403).count();
    assert!((1..=6).contains(&refused), "{refused} refusals: only requests in flight");
    let failed: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("failed: ")).collect();
    assert!(failed.len() == 1 && failed[0].contains("/base has no space left"), "{failed:#?}");
    ran.reported(&["configured upper limit", "hint: raise the project's quota"]);
    assert!(server.tag("base/team/tiny", "1").is_some(), "blobs that fit arrive");
    assert_eq!(server.open_uploads(), 0, "refused uploads are cancelled");
    server.change("base", |project| project.quota = None);
    import(&bundle, &server, "/base", ROBOT, &[]).ended(0);
}

/// The rest of an image with a refused blob would only use up quota that other images need, or be refused in turn.
#[test]
fn the_rest_of_an_image_whose_blob_was_refused_is_not_sent() {
    let layers: Vec<String> = (0..8).map(|n| images::noise(n, 20_000)).collect();
    let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
    let bundle = bundle(&[&images::oci("team/app", "1", &layers)]);
    let server = Harbor::start(setup());
    server.change("base", |project| project.quota = Some(1000));
    import(&bundle, &server, "/base", ROBOT, &["--per-project", "1"]).ended(4).reported(&["; 0 B uploaded"]);
    let ends = |status: u16| server.pushes().iter().filter(|it| it.method == "PUT" && it.status == status).count();
    assert_eq!((ends(403), ends(201)), (1, 0), "{:#?}", server.pushes());
    assert_eq!(server.open_uploads(), 0, "started uploads are cancelled");
}

/// An administrator makes a backup, or Harbor recalculates its quotas: read-only mode passes.
#[test]
fn read_only_mode_during_an_import_is_waited_out_without_loss() {
    let all = many();
    let bundle = bundle(&all.iter().collect::<Vec<_>>());
    let server = Harbor::start(setup());
    server.change_once_tagged(3, Change::ReadOnlyFor(10));
    let ran = import(&bundle, &server, "/base", ROBOT, &[]).ended(0);
    let message = |words: &str| ran.stderr.lines().filter(|line| line.contains(words)).count();
    assert_eq!((message("read-only mode: waiting up to"), message("accepts changes again")), (1, 1), "{}", ran.stderr);
    assert!(all.iter().all(|image| server.tag(&format!("base/{}", image.repository), "1").is_some()));
    assert_eq!(server.open_uploads(), 0, "started uploads finish in their sessions");
}

/// Harbor answers 401 while it cannot reach its database, although the credentials are right.
#[test]
fn a_stopped_database_is_an_outage_and_not_a_credentials_problem() {
    let all = many();
    let bundle = bundle(&all.iter().collect::<Vec<_>>());
    let server = Harbor::start(setup());
    server.change_once_tagged(3, Change::DatabaseStopped);
    let ran = import(&bundle, &server, "/base", CI, &["--retry-budget", "2s"]).ended(5);
    let ran = ran.reported(&["does not answer", "failed to connect to", "gapferry sends it no more requests"]);
    let count = |words: &str| ran.stderr.lines().filter(|line| line.contains(words)).count();
    let failed = ran.stderr.lines().filter(|line| line.starts_with("failed: ")).count();
    assert!(failed == 1 && !ran.stderr.contains("auth check"), "{}", ran.stderr);
    assert_eq!((count("does not answer"), count("answers again, after")), (1, 0), "{}", ran.stderr);
    server.set_database(Database::Running);
    import(&bundle, &server, "/base", CI, &[]).ended(0);
}

/// Without its database, Harbor refuses correct credentials. A user who believes that changes the password or gives up.
#[test]
fn a_database_down_from_the_start_is_blamed_instead_of_the_credentials() {
    let bundle = bundle(&[&small("one")]);
    for (database, creds) in
        [(Database::Away, CI), (Database::Away, ROBOT), (Database::Away, ADMIN), (Database::AwayForLong, CI)]
    {
        let server = Harbor::start(setup());
        server.set_database(database);
        let ran = import(&bundle, &server, "/base", creds, &["--retry-budget", "1s"]).ended(5);
        let ran = ran.reported(&[
            "Harbor's database is down, its health check says: ",
            "failed to connect to",
            "same command",
        ]);
        for wrong in ["credentials", "auth check", "--plain-http", "answers again, after"] {
            assert!(!ran.stderr.contains(wrong), "{database:?} {creds}: {wrong}: {}", ran.stderr);
        }
        let waits = ran.stderr.lines().filter(|line| line.contains("wait")).count();
        assert!(waits <= 1, "{database:?} {creds}: {}", ran.stderr);
        assert_eq!(server.pushes(), []);
        server.set_database(Database::Running);
        import(&bundle, &server, "/base", creds, &[]).ended(0);
    }
}

#[test]
fn auth_check_tells_a_database_outage_from_wrong_credentials() {
    let server = Harbor::start(setup());
    let check = |creds: &str| {
        let options = ["auth", "check", &server.registry(), "--creds", creds, "--retry-budget", "1s", "--retries", "1"];
        Ran::of(gapferry().args(options))
    };
    check("ci:wrong").ended(4);
    server.set_database(Database::Away);
    check(CI).ended(5).reported(&["Harbor's database is down"]);
    server.set_database(Database::Running);
    check(CI).ended(0);
}
