//! Mirrors on the command line: configured once for podman, used here, and shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::support::faulty::{Answer, Fault, Proxy, Server, exchange};
use crate::support::images;
use crate::support::registry::Registry;

/// `registry.example` with two images, behind a mirror that has one of them.
struct TestSite {
    primary: Registry,
    mirror: Registry,
    directory: tempfile::TempDir,
}

const HELD: &str = "registry.example/team/app:1.0";
const LACKING: &str = "registry.example/team/other:1.0";

impl TestSite {
    fn new() -> TestSite {
        let (primary, mirror) = (Registry::start(), Registry::start());
        let app = images::oci("team/app", "1.0", &["content"]);
        app.push(&primary);
        app.push(&mirror);
        images::oci("team/other", "1.0", &["other content"]).push(&primary);
        TestSite { primary, mirror, directory: tempdir() }
    }

    /// Writes the configuration and returns its path.
    fn conf(&self) -> String {
        self.conf_by_way_of(self.primary.host(), self.mirror.host())
    }

    fn conf_by_way_of(&self, primary: &str, mirror: &str) -> String {
        let text = format!(
            "[[registry]]\nprefix = 'registry.example'\nlocation = '{primary}'\n[[registry.mirror]]\nlocation = '{mirror}'\n"
        );
        self.write("registries.conf", &text)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn out(&self) -> String {
        self.directory.path().join("bundle").display().to_string()
    }
}

#[test]
fn the_plan_and_the_report_show_which_mirror_served_what() {
    let site = TestSite::new();
    let (conf, out) = (site.conf(), site.out());
    let export = ["export", HELD, LACKING, "-o", &out, "--registries-conf", &conf];
    let plan = stdout(&succeed(&[&export[..], &["--dry-run"]].concat()));
    let (mirror, primary) = (site.mirror.host(), site.primary.host());
    assert!(plan.contains(&format!("{HELD} is read from {mirror}/team/app\n")), "{plan}");
    assert!(plan.contains(&format!("{LACKING} is read from {primary}/team/other\n")), "{plan}");
    let plan = json(&succeed(&[&export[..], &["--dry-run", "--json"]].concat()));
    assert_eq!(plan["readFrom"][HELD], format!("{mirror}/team/app"));

    let output = succeed(&[&export[..], &["--json"]].concat());
    let report = json(&output);
    let places: Vec<(&str, &str)> = report["mirrors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|served| (served["repository"].as_str().unwrap(), served["from"].as_str().unwrap()))
        .collect();
    let (app, other) = (format!("{mirror}/team/app"), format!("{primary}/team/other"));
    assert_eq!(places, [("registry.example/team/app", app.as_str()), ("registry.example/team/other", &other)]);
    assert!(report["mirrors"][0]["bytes"].as_u64().unwrap() > 0, "{report}");
    let message = stderr(&output);
    assert!(message.contains(&format!("registry.example read from {mirror}: ")), "{message}");
    assert!(message.contains(&format!("mirror {mirror}/team/other lacks {LACKING}")), "{message}");
    assert!(succeed(&["verify", &out]).status.success());
}

#[test]
fn podmans_mirror_configuration_applies_without_options_and_changes_no_lock() {
    let site = TestSite::new();
    let named = stdout(&succeed(&["lock", HELD, "--registries-conf", &site.conf()]));
    let home = tempdir();
    let own = home.path().join(".config/containers");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(site.conf(), own.join("registries.conf")).unwrap();
    let lock = |variable: &str, value: &std::path::Path| {
        let output = gapferry().args(["lock", HELD]).env(variable, value).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        images_of(&stdout(&output))
    };
    let at_home = lock("HOME", home.path());
    let by_variable = lock("CONTAINERS_REGISTRIES_CONF", site.conf().as_ref());
    let moved = format!("[[registry]]\nprefix = 'registry.example'\nlocation = '{}'\n", site.primary.host());
    let unmirrored = lock("CONTAINERS_REGISTRIES_CONF", site.write("moved.conf", &moved).as_ref());
    assert_eq!([&at_home, &by_variable, &unmirrored], [&images_of(&named); 3]);
}

/// A lock without its time.
fn images_of(lock: &str) -> Value {
    serde_json::from_str::<Value>(lock).unwrap()["images"].clone()
}

#[test]
fn a_faulty_registries_conf_is_refused_with_every_line_and_version_1_with_the_fix() {
    let site = TestSite::new();
    let bad = site.write("bad.conf", "[[registry]]\nlocation = 'https://x'\n[[registry]]\nblocked = 'yes'\n");
    let message = stderr(&ends_with(2, &["lock", HELD, "--registries-conf", &bad]));
    assert!(message.contains("bad.conf:2: ") && message.contains("bad.conf:4: "), "{message}");
    let old = site.write("old.conf", "[registries.insecure]\nregistries = ['registry.example']\n");
    let message = stderr(&ends_with(2, &["lock", HELD, "--registries-conf", &old]));
    assert!(message.contains("old.conf:1: ") && message.contains("[[registry]]"), "{message}");
}

#[test]
fn a_blocked_registry_is_refused_with_the_file_and_line() {
    let site = TestSite::new();
    let conf = site.write("block.conf", "[[registry]]\nlocation = 'registry.example'\nblocked = true\n");
    let message = stderr(&ends_with(4, &["lock", HELD, "--registries-conf", &conf]));
    assert!(message.contains("block.conf:1") && message.contains("blocked"), "{message}");
}

#[test]
fn a_mirror_that_serves_wrong_bytes_causes_a_warning_and_no_lost_image() {
    for (fault, why) in [(Fault::WrongDigest, "wrong digest"), (Fault::ExtraBytes(5), "its descriptor says")] {
        let site = TestSite::new();
        let lying = Proxy::before(site.mirror.host());
        lying.when("GET", "/blobs/").always().fault(fault);
        let (conf, out) = (site.conf_by_way_of(site.primary.host(), &lying.address), site.out());
        let message = stderr(&succeed(&["export", HELD, "-o", &out, "--registries-conf", &conf]));
        let named = |line: &str| line.contains(&format!("{}/team/app", lying.address)) && line.contains(why);
        assert!(message.lines().any(named), "{message}");
        succeed(&["verify", &out]);
    }
}

#[test]
fn wrong_bytes_from_the_registry_itself_are_an_error_naming_it() {
    let site = TestSite::new();
    let (mirror, primary) = (Proxy::before(site.mirror.host()), Proxy::before(site.primary.host()));
    for line in [&mirror, &primary] {
        line.when("GET", "/blobs/").always().fault(Fault::WrongDigest);
    }
    let (conf, out) = (site.conf_by_way_of(&primary.address, &mirror.address), site.out());
    let output = run(&["export", HELD, "-o", &out, "--registries-conf", &conf]);
    let (message, named) = (stderr(&output), format!("{}/team/app", primary.address));
    assert!(!output.status.success(), "{message}");
    assert!(message.lines().any(|line| line.contains(&named) && line.contains("wrong digest")), "{message}");
}

#[tokio::test]
async fn a_blob_started_by_a_bad_mirror_is_not_wrong_in_later_runs() {
    let site = TestSite::new();
    let app = images::oci("team/app", "2.0", &[&images::noise(1, 6_000_000)]);
    app.push(&site.primary);
    app.push(&site.mirror);
    // The mirror's first bytes are wrong and it breaks off after some of them; later requests get the right content.
    let (host, is_down) = (site.mirror.host().to_owned(), Arc::new(AtomicBool::new(true)));
    let down = is_down.clone();
    let mirror = Server::start(move |request, _| {
        let mut answer = exchange(&host, request).unwrap();
        if !request.is("GET", "/v2/team/app/blobs/") {
            return answer;
        }
        match request.range() {
            Some(_) if down.load(Ordering::SeqCst) => Answer::new(503),
            None if answer.body.len() > 3_000_000 => {
                answer.body[1000] ^= 1;
                answer.but(Fault::Truncate(3_000_000))
            }
            _ => answer,
        }
    });
    let mirror = mirror.await;
    let primary = Proxy::before(site.primary.host());
    primary.when("GET", "/blobs/").always().fault(Fault::Status(503));
    let (conf, out) = (site.conf_by_way_of(&primary.address, &mirror.address), site.out());
    let export = ["export", "registry.example/team/app:2.0", "-o", &out, "--registries-conf", &conf, "--retries", "0"];
    assert!(!run(&export).status.success());
    let begun = primary.seen().iter().find_map(|request| request.range());
    assert!(begun.is_some_and(|from| from > 1_000_000), "{begun:?}");

    primary.heal();
    is_down.store(false, Ordering::SeqCst);
    let message = stderr(&succeed(&export));
    assert!(message.lines().any(|line| line.contains(&mirror.address) && line.contains("wrong digest")), "{message}");
    succeed(&["verify", &out]);
}
