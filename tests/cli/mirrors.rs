//! Mirrors at the console: set up once for podman, used here, and shown.

use super::*;
use crate::support::images;
use crate::support::registry::Registry;

/// `registry.example` at a registry that has two images, behind a mirror that has one of them.
struct Site {
    primary: Registry,
    mirror: Registry,
    directory: tempfile::TempDir,
}

const HELD: &str = "registry.example/team/app:1.0";
const LACKING: &str = "registry.example/team/other:1.0";

impl Site {
    fn new() -> Site {
        let (primary, mirror) = (Registry::start(), Registry::start());
        let app = images::oci("team/app", "1.0", &["content"]);
        app.push(&primary);
        app.push(&mirror);
        images::oci("team/other", "1.0", &["other content"]).push(&primary);
        Site { primary, mirror, directory: tempdir() }
    }

    /// Writes the file and names it.
    fn conf(&self) -> String {
        let text = format!(
            "[[registry]]\nprefix = 'registry.example'\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{}'\n",
            self.primary.host(),
            self.mirror.host()
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
    let site = Site::new();
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
    let told = stderr(&output);
    assert!(told.contains(&format!("registry.example read from {mirror}: ")), "{told}");
    assert!(told.contains(&format!("mirror {mirror}/team/other lacks {LACKING}")), "{told}");
    assert!(succeed(&["verify", &out]).status.success());
}

#[test]
fn what_podman_is_set_up_with_needs_no_option_and_a_mirror_changes_no_lock() {
    let site = Site::new();
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
fn a_file_with_mistakes_is_wrong_input_with_every_line_and_version_1_says_what_to_write() {
    let site = Site::new();
    let bad = site.write("bad.conf", "[[registry]]\nlocation = 'https://x'\n[[registry]]\nblocked = 'yes'\n");
    let told = stderr(&ends_with(2, &["lock", HELD, "--registries-conf", &bad]));
    assert!(told.contains("bad.conf:2: ") && told.contains("bad.conf:4: "), "{told}");
    let old = site.write("old.conf", "[registries.insecure]\nregistries = ['registry.example']\n");
    let told = stderr(&ends_with(2, &["lock", HELD, "--registries-conf", &old]));
    assert!(told.contains("old.conf:1: ") && told.contains("[[registry]]"), "{told}");
}

#[test]
fn a_blocked_registry_is_refused_and_the_file_and_line_are_named() {
    let site = Site::new();
    let conf = site.write("block.conf", "[[registry]]\nlocation = 'registry.example'\nblocked = true\n");
    let told = stderr(&ends_with(4, &["lock", HELD, "--registries-conf", &conf]));
    assert!(told.contains("block.conf:1") && told.contains("blocked"), "{told}");
}
