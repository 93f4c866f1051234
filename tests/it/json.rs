//! `--json`: standard output is always one JSON object that says whether all is well, and errors have a code. Each test
//! says what a script would lose otherwise.

use serde_json::{Value, json};

use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{gapferry, images, tempdir};

#[track_caller]
fn run(arguments: &[&str], code: i32) -> Value {
    let ran = Ran::of(gapferry().args(arguments)).ended(code);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {ran:#?}"))
}

/// A script would have to parse text to learn why there is no result, or take empty output for one.
#[test]
fn a_failing_command_prints_one_json_object_with_a_code() {
    let registry = Registry::start();
    images::oci("team/app", "1", &["content"]).push(&registry);
    let directory = tempdir();
    let below = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (gone, out) = (format!("{}/team/gone:1", registry.host()), below("out.tar"));
    let nothing = below("nothing.tar");
    let nowhere = "127.0.0.1:1/team/app:1";
    let text = below("text.tar");
    std::fs::write(&text, "no tar").unwrap();
    for (arguments, code, word) in [
        (&["export", &gone, "-o", &out, "--json"][..], 4, "not-found"),
        (&["export", nowhere, "-o", &out, "--json", "--retries", "0"], 5, "network"),
        (&["lock", &gone, "-o", &out, "--json"], 4, "not-found"),
        (&["verify", &nothing, "--json"], 2, "disk"),
        (&["verify", &text, "--json"], 2, "input"),
        (&["list", &nothing, "--json"], 2, "disk"),
        (&["inspect", &nothing, "--json"], 2, "disk"),
        (&["fingerprint", &nothing, "--json"], 2, "disk"),
        (&["import", &nothing, "--to", "127.0.0.1:1", "--json"], 2, "disk"),
        (&["prove", &nothing, "--json"], 2, "disk"),
        (&["check", &nothing, "--json"], 2, "disk"),
        (&["migrate", &nothing, "--list", "--json"], 2, "disk"),
        (&["split", &nothing, "-o", &out, "--volume-size", "1GB", "--json"], 2, "disk"),
        (&["join", &nothing, "-o", &out, "--json"], 2, "disk"),
        (&["repair", &nothing, &text, "--json"], 2, "disk"),
        (&["logout", "nowhere.example", "--json", "--authfile", &nothing], 2, "input"),
        // The command line itself is wrong.
        (&["verify", "--json", "--no-such-option"], 2, "usage"),
    ] {
        let report = run(arguments, code);
        assert_eq!((&report["version"], &report["ok"]), (&json!(1), &json!(false)), "{arguments:?}");
        assert_eq!(report["error"]["code"], word, "{arguments:?}: {report}");
        assert!(!report["error"]["message"].as_str().unwrap().is_empty(), "{arguments:?}: {report}");
    }
}

/// A script could not tell which file of the bundle is wrong, although gapferry knows.
#[test]
fn an_import_that_refuses_a_bundle_lists_its_problems_with_codes() {
    let registry = Registry::start();
    images::oci("team/app", "1", &["content"]).push(&registry);
    let directory = tempdir();
    let bundle = directory.path().join("bundle");
    let reference = format!("{}/team/app:1", registry.host());
    gapferry().arg("export").arg(reference).arg("-o").arg(&bundle).assert().success();
    std::fs::write(bundle.join("index.json"), "{}").unwrap();
    let (bundle, to) = (bundle.to_str().unwrap(), format!("{}/mirror", registry.host()));
    let report = run(&["import", bundle, "--to", &to, "--json"], 3);
    let codes: Vec<&Value> = report["error"]["problems"].as_array().unwrap().iter().map(|one| &one["code"]).collect();
    assert!(codes.contains(&&json!("wrong-size")), "{report}");
    assert_eq!((&report["ok"], &report["error"]["code"]), (&json!(false), &json!("damaged")));
    assert!(report["error"]["hint"].is_string(), "the hint for a person: {report}");
    assert_eq!(report["error"]["hintCode"], "damaged-file", "{report}");
    let verified = run(&["verify", bundle, "--json"], 3);
    assert_eq!(
        (&verified["ok"], &verified["error"]),
        (&json!(false), &Value::Null),
        "verify has a result, so there is no error"
    );
    let found: Vec<&Value> = verified["problems"].as_array().unwrap().iter().map(|one| &one["code"]).collect();
    assert!(found.contains(&&json!("wrong-size")), "{verified}");
}

/// A second object after the report would keep a parser from reading the first.
#[test]
fn a_failure_after_the_result_is_part_of_the_report() {
    let registry = Registry::start();
    images::oci("team/app", "1", &["content"]).push(&registry);
    let directory = tempdir();
    let out = directory.path().join("out.tar");
    let reference = format!("{}/team/app:1", registry.host());
    gapferry().arg("export").arg(&reference).arg("-o").arg(&out).assert().success();
    // A device that opens but accepts no data.
    let report = run(&["export", &reference, "-o", out.to_str().unwrap(), "--lock", "/dev/full", "--json"], 2);
    assert_eq!((&report["ok"], &report["unchanged"]), (&json!(false), &json!(true)));
    assert_eq!(report["error"]["code"], "disk-full", "{report}");
}

/// A script would have to match error texts to learn why one image of many failed.
#[test]
fn each_failed_image_has_its_own_code() {
    let (source, target) = (Registry::start(), Registry::start());
    ["a", "b"].iter().for_each(|name| images::oci(&format!("mirror/{name}"), "1", &[name]).push(&source));
    images::oci("mirror/a", "1", &["another"]).push(&target);
    let directory = tempdir();
    let bundle = directory.path().join("bundle.tar");
    let references = ["a", "b"].map(|name| format!("{}/mirror/{name}:1", source.host()));
    gapferry().arg("export").args(references).arg("-o").arg(&bundle).assert().success();
    let (bundle, to) = (bundle.to_str().unwrap(), target.host());
    let report = run(&["import", bundle, "--to", to, "--on-existing", "fail", "--json"], 1);
    let failures = report["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1, "{report}");
    assert_eq!(failures[0]["reference"], json!(format!("{to}/mirror/a:1")));
    assert_eq!(failures[0]["error"]["code"], "refused", "{report}");
    assert_eq!((&report["ok"], &report["error"]), (&json!(false), &Value::Null));
}
