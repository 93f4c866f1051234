//! A credential helper stores the logins assigned to it, and the auth file stores none of them.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;

use super::home::{Home, read_json};
use super::login::log_in;
use super::{PASSWORD, base64, closed, ended};
use crate::support::barrier::Barrier;
use crate::support::gapferry_process;
use crate::support::registry::{Options, Registry};

#[test]
fn a_login_goes_to_the_registrys_helper_where_skopeo_finds_it() {
    let (registry, home) = (closed(), Home::new());
    let host = registry.host();
    home.install_helper("vault");
    let before = json!({ "auths": { "a.io": { "auth": base64("a") } }, "credHelpers": { host: "vault" } }).to_string();
    home.write("run/containers/auth.json", &before);
    let text = log_in(&home, host, &["-vv"]);
    assert!(text.contains("kept by docker-credential-vault"), "{text}");
    assert_eq!(std::fs::read_to_string(home.authfile()).unwrap(), before);
    let expected = json!({ "ServerURL": host, "Username": "me", "Secret": PASSWORD });
    assert_eq!(home.kept("vault"), [(host.to_owned(), expected)]);

    let output = home.gapferry(&["auth", "check", host, "--json"], "");
    ended(0, &output);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let path = home.authfile().display().to_string();
    let origin = json!({ "from": "helper", "program": "docker-credential-vault", "server": host, "path": path });
    assert_eq!((&report["credentials"], &report["user"]), (&origin, &json!("me")));
    assert_eq!(home.asked("vault"), [format!("store {host}"), format!("get {host}")]);
    ended(0, &home.gapferry(&["lock", &format!("{host}/team/app:1")], ""));
    assert_eq!(home.skopeo_user(host, &[]).as_deref(), Some("me"));

    let text = ended(0, &home.gapferry(&["logout", host], ""));
    assert!(text.contains("forgotten: docker-credential-vault"), "{text}");
    assert_eq!(home.kept("vault"), []);
    assert_eq!(std::fs::read_to_string(home.authfile()).unwrap(), before);
    ended(2, &home.gapferry(&["logout", host], ""));
}

#[test]
fn gapferry_finds_and_removes_a_login_that_skopeo_gave_to_a_helper() {
    let (registry, home) = (closed(), Home::new());
    let host = registry.host();
    home.install_helper("vault");
    home.write("run/containers/auth.json", &json!({ "credHelpers": { host: "vault" } }).to_string());
    let arguments = ["login", "--tls-verify=false", "-u", "me", "--password-stdin", host];
    assert!(home.skopeo(&arguments, PASSWORD).status.success());
    assert_eq!(home.kept("vault").len(), 1);
    ended(0, &home.gapferry(&["lock", &format!("{host}/team/app:1")], ""));
    ended(0, &home.gapferry(&["logout", host], ""));
    assert_eq!(home.skopeo_user(host, &[]), None);
}

#[test]
fn creds_store_takes_over_the_logins_of_the_file() {
    let (registry, home) = (closed(), Home::new().with([("DOCKER_CONFIG", "")]));
    let host = registry.host();
    home.install_helper("store");
    let file = json!({ "auths": { host: { "auth": base64("old"), "email": "e" } }, "credsStore": "store" });
    let file = home.write("docker/config.json", &file.to_string());
    log_in(&home, host, &["--authfile", &file]);
    // The old secret would override the new one.
    let left = json!({ "auths": { host: { "email": "e" } }, "credsStore": "store" });
    assert_eq!(read_json(&home.path("docker/config.json")), left);
    let check = ["auth", "check", host, "--authfile", &file];
    assert!(ended(0, &home.gapferry(&check, "")).contains("docker-credential-store"));
    ended(0, &home.gapferry(&["logout", host, "--authfile", &file], ""));
    assert_eq!(home.kept("store"), []);
    assert!(ended(4, &home.gapferry(&check, "")).contains("none; looked in"));
}

#[test]
fn logout_all_erases_the_logins_of_every_helper() {
    let (registry, home) = (closed(), Home::new());
    let host = registry.host();
    ["vault", "store"].iter().for_each(|name| home.install_helper(name));
    let other = super::closed();
    let file = json!({ "auths": { "a.io": { "auth": base64("a") } }, "credHelpers": { host: "vault", "b.io": "vault" }, "credsStore": "store" });
    let file = home.write("auth.json", &file.to_string());
    for host in [host, other.host()] {
        log_in(&home, host, &["--authfile", &file]);
    }
    assert_eq!((home.kept("vault").len(), home.kept("store").len()), (1, 1));
    let text = ended(0, &home.gapferry(&["logout", "--all", "--authfile", &file], ""));
    assert_eq!(text.matches("forgotten: ").count(), 3, "{text}");
    assert_eq!((home.kept("vault"), home.kept("store")), (vec![], vec![]));
    let left = json!({ "auths": {}, "credHelpers": { host: "vault", "b.io": "vault" }, "credsStore": "store" });
    assert_eq!(read_json(&home.path("auth.json")), left);
}

#[test]
fn a_failing_helper_exits_2_with_its_message_but_no_password() {
    let (registry, home) = (closed(), Home::new());
    let host = registry.host();
    home.install_helper("vault");
    home.break_helper("vault");
    let before = json!({ "auths": { host: { "auth": base64("old") } }, "credHelpers": { host: "vault" } }).to_string();
    let file = home.write("auth.json", &before);
    let arguments = ["login", host, "-u", "me", "--password-stdin", "--authfile", &file, "-vv"];
    let text = ended(2, &home.gapferry(&arguments, PASSWORD));
    assert!(text.contains("docker-credential-vault") && text.contains("auth.json"), "{text}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    // The password as escaped in JSON.
    let other = Options { credentials: Some(("me".into(), r#"hun"terhorn\2"#.into())), ..Options::default() };
    let other = Registry::with(other);
    let file_of_other = home.write("other.json", &json!({ "credHelpers": { other.host(): "vault" } }).to_string());
    let arguments_of_other = ["login", other.host(), "-u", "me", "--password-stdin", "--authfile", &file_of_other];
    let text = ended(2, &home.gapferry(&arguments_of_other, r#"hun"terhorn\2"#));
    assert!(text.contains("contains the password") && !text.contains("terhorn"), "{text}");
    let text = ended(2, &home.gapferry(&["auth", "check", host, "--authfile", &file], ""));
    assert!(text.contains("the keyring is locked"), "{text}");
    std::fs::remove_file(home.path("bin/docker-credential-vault")).unwrap();
    let text = ended(2, &home.gapferry(&arguments, PASSWORD));
    assert!(text.contains("docker-credential-vault") && text.contains("No such file"), "{text}");
}

#[test]
fn a_namespace_login_is_refused_where_a_helper_would_get_it() {
    let (registry, home) = (closed(), Home::new());
    home.install_helper("vault");
    let asked = registry.requests().len();
    for before in [json!({ "credHelpers": { registry.host(): "vault" } }), json!({ "credsStore": "vault" })] {
        let file = home.write("auth.json", &before.to_string());
        let site = format!("{}/team", registry.host());
        let arguments = ["login", &site, "-u", "me", "--password-stdin", "--authfile", &file];
        let text = ended(2, &home.gapferry(&arguments, PASSWORD));
        assert!(text.contains("docker-credential-vault") && text.contains("does not support namespaces"), "{text}");
        assert_eq!(read_json(&home.path("auth.json")), before);
    }
    assert_eq!((home.asked("vault").len(), registry.requests().len()), (0, asked));
}

/// Prints the credentials and fails anyway, like a helper whose session ends while it answers.
const TALKATIVE: &str = r#"#!/bin/sh
answer='{"ServerURL":"h","Username":"me","Secret":"pa:ss w0rd"}'
[ -e "$0.$1.fails" ] || { echo "$answer"; exit 0; }
echo "warning: session ended"; echo "$answer"; exit 1
"#;

#[test]
fn a_secret_printed_by_a_failing_helper_is_masked() {
    let (registry, home) = (closed(), Home::new());
    let host = registry.host();
    home.install_helper("vault");
    home.write("bin/docker-credential-vault", TALKATIVE);
    let file = home.write("auth.json", &json!({ "credHelpers": { host: "vault" } }).to_string());
    let ways = [("erase", vec!["logout"]), ("get", vec!["auth", "check"]), ("get", vec!["auth", "check", "-vv"])];
    for (verb, arguments) in ways {
        home.write(&format!("bin/docker-credential-vault.{verb}.fails"), "");
        let arguments = [&arguments[..], &[host, "--authfile", &file]].concat();
        let text = ended(2, &home.gapferry(&arguments, ""));
        assert!(text.contains("docker-credential-vault") && text.contains("may contain the secret"), "{text}");
        assert!(!text.contains("w0rd") && !text.contains("Username"), "{text}");
    }
}

/// Answers, and records everything else it was given.
const CURIOUS: &str = r#"#!/bin/sh
env > "$0.env"; ulimit -c > "$0.core"
echo '{"ServerURL":"h","Username":"me","Secret":"pa:ss w0rd"}'
"#;

#[test]
fn a_helper_inherits_no_other_secrets_and_core_dumps_are_off() {
    let registry = closed();
    let secrets = [("GAPFERRY_CREDS_OTHER_IO", "a:secret one"), ("COSIGN_PASSWORD", "secret two"), ("OWN", "needed")];
    let home = Home::new().with(secrets);
    home.install_helper("vault");
    let helper = home.write("bin/docker-credential-vault", CURIOUS);
    let file = home.write("auth.json", &json!({ "credHelpers": { registry.host(): "vault" } }).to_string());
    ended(0, &home.gapferry(&["auth", "check", registry.host(), "--authfile", &file], ""));
    let given = std::fs::read_to_string(format!("{helper}.env")).unwrap();
    assert!(given.contains("OWN=needed") && !given.contains("secret") && !given.contains("GAPFERRY_CREDS"), "{given}");
    assert_eq!(std::fs::read_to_string(format!("{helper}.core")).unwrap(), "0\n");
}

#[test]
fn a_helper_name_that_is_a_path_is_refused_and_never_run() {
    let (registry, home) = (closed(), Home::new());
    home.install_helper("vault");
    let path = home.write("bin/docker-credential-vault", CURIOUS);
    for name in [&path, "../bin/vault"] {
        let file = home.write("auth.json", &json!({ "credHelpers": { registry.host(): name } }).to_string());
        for command in [&["auth", "check"][..], &["login", "--username", "me", "--password-stdin"], &["logout"]] {
            let text = ended(2, &home.gapferry(&[command, &[registry.host(), "--authfile", &file]].concat(), PASSWORD));
            assert!(text.contains("has no slash") && text.contains("auth.json"), "{text}");
        }
    }
    assert!(!std::path::Path::new(&format!("{path}.env")).exists());
}

/// Installs `script` as the helper `vault` with these pipes beside it; returns their paths.
fn install<const N: usize>(home: &Home, script: &str, pipes: [&str; N]) -> [String; N] {
    home.install_helper("vault");
    let path = home.write("bin/docker-credential-vault", script);
    let pipes = pipes.map(|name| format!("{path}.{name}"));
    assert!(Command::new("mkfifo").args(&pipes).status().unwrap().success());
    pipes
}

/// Stops a command once its helper runs; returns it and the reader of the helper's pipe `runs`.
fn stop(home: &Home, arguments: &[&str], runs: &str) -> (Child, BufReader<File>) {
    let mut command = gapferry_process();
    command.envs(home.environment()).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    let process = command.spawn().unwrap();
    let mut runs = BufReader::new(File::open(runs).unwrap());
    runs.read_line(&mut String::new()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&process), rustix::process::Signal::TERM).unwrap();
    (process, runs)
}

/// Reports that it runs, and waits for a PIN that is never entered.
const WAITING: &str = r#"#!/bin/sh
exec 3> "$0.runs"
echo "$1" >&3
read pin < "$0.pin"
"#;

#[test]
fn a_stopped_command_leaves_no_waiting_helper_behind() {
    let (registry, home) = (closed(), Home::new());
    let host = registry.host();
    let [runs, _] = install(&home, WAITING, ["runs", "pin"]);
    let file = home.write("auth.json", &json!({ "credHelpers": { host: "vault" } }).to_string());
    let image = format!("{host}/team/app:1");
    for arguments in [&["lock", &image][..], &["auth", "check", host], &["logout", host]] {
        let (process, mut runs) = stop(&home, &[arguments, &["--authfile", &file]].concat(), &runs);
        let output = process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(143), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        // The pipe ends when no process has it open any more.
        let (gone, is_gone) = mpsc::channel();
        std::thread::spawn(move || gone.send(runs.read_line(&mut String::new()).unwrap()));
        assert_eq!(is_gone.recv_timeout(Duration::from_secs(60)), Ok(0), "{arguments:?}: the helper still runs");
    }
}

/// Needs to clean up before it ends, like a helper that turned off the terminal's echo.
const TIDY: &str = r#"#!/bin/sh
exec 3> "$0.runs"
trap 'echo asked >&3; read go < "$0.go"; echo "let go" >&3; exit 1' TERM
echo "$1" >&3
read pin < "$0.pin"
"#;

#[test]
fn a_stopped_helper_can_restore_the_terminal_before_it_ends() {
    let (registry, home) = (closed(), Home::new());
    let host = registry.host();
    let [runs, _, go] = install(&home, TIDY, ["runs", "pin", "go"]);
    // Opening for reading and writing does not wait for a reader.
    let mut go = File::options().read(true).write(true).open(go).unwrap();
    let file = home.write("auth.json", &json!({ "credHelpers": { host: "vault" } }).to_string());
    let (process, mut runs) = stop(&home, &["auth", "check", host, "--authfile", &file], &runs);
    runs.read_line(&mut String::new()).unwrap();
    writeln!(go).unwrap();
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", String::from_utf8_lossy(&output.stderr));
    let mut last = String::new();
    runs.read_line(&mut last).unwrap();
    assert_eq!(last, "let go\n", "the helper was killed without a chance to clean up");
}

/// Answers once the PIN arrives.
const PATIENT: &str = r#"#!/bin/sh
read pin < "$0.pin"
echo '{"ServerURL":"h","Username":"me","Secret":"pa:ss w0rd"}'
"#;

#[test]
fn a_waiting_helper_does_not_block_another_registry() {
    let (closed, open, home) = (closed(), Registry::start(), Home::new());
    crate::support::images::oci("team/app", "1", &["y"]).push(&open);
    let [pin] = install(&home, PATIENT, ["pin"]);
    let file = home.write("auth.json", &json!({ "credHelpers": { closed.host(): "vault" } }).to_string());
    let images = [closed.host(), open.host()].map(|host| format!("{host}/team/app:1"));
    let barrier = Barrier::before(open.host(), "GET /v2/team/app/manifests/");
    let other = format!("{}/team/app:1", barrier.host());
    let mut command = gapferry_process();
    command.envs(home.environment()).args(["lock", &images[0], &other, "--authfile", &file]);
    let process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The other registry is contacted while the helper waits.
    barrier.wait();
    barrier.open();
    std::fs::write(&pin, "1234\n").unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
