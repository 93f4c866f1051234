//! A failing login gives a helpful message and loses no stored login.

use super::home::Home;
use super::{PASSWORD, base64, closed, ended};
use crate::support::disk::Disk;
use crate::support::gapferry_process;

/// An auth file with an earlier login.
fn kept(home: &Home, host: &str) -> (String, String) {
    let text = format!("{{ \"auths\": {{\"{host}\": {{ \"auth\": \"{}\"}} }},\n \"more\": 1}}", base64("former"));
    (home.write("auth.json", &text), text)
}

fn log_in(home: &Home, host: &str, file: &str, password: &str) -> std::process::Output {
    let arguments = ["login", host, "-u", "me", "--password-stdin", "--authfile", file, "--retries", "0", "-vv"];
    home.gapferry(&arguments, password)
}

#[test]
fn a_refused_password_exits_4_and_is_not_stored() {
    let (registry, home) = (closed(), Home::new());
    let (file, before) = kept(&home, registry.host());
    let text = ended(4, &log_in(&home, registry.host(), &file, "hunter2"));
    assert!(text.contains("logging in to") && text.contains("nothing was stored"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains(&base64("hunter2")), "{text}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    let never = home.path("never/auth.json");
    ended(4, &log_in(&home, registry.host(), never.to_str().unwrap(), "hunter2"));
    assert!(!home.path("never").exists());
}

#[test]
fn an_unreachable_registry_exits_5_and_nothing_is_stored() {
    let home = Home::new();
    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (file, before) = kept(&home, &host);
    let text = ended(5, &log_in(&home, &host, &file, PASSWORD));
    assert!(text.contains(&host) && text.contains("hint: "), "{text}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
}

#[test]
fn a_malformed_auth_file_exits_2_unchanged_before_any_request() {
    let (registry, home) = (closed(), Home::new());
    for before in [
        "nonsense",
        "[]",
        r#"{"auths": {"#,
        r#"{"auths": []}"#,
        r#"{"auths": {"r.io": "me:hunter2"}}"#,
        r#"{"auths": {"r.io": {"auth": 1}}}"#,
        r#"{"credHelpers": "pass"}"#,
        "\u{feff}{}",
    ] {
        let file = home.write("broken.json", before);
        let asked = registry.requests().len();
        for output in [
            log_in(&home, registry.host(), &file, PASSWORD),
            home.gapferry(&["logout", registry.host(), "--authfile", &file], ""),
            home.gapferry(&["logout", "--all", "--authfile", &file], ""),
            home.gapferry(&["auth", "check", registry.host(), "--authfile", &file], ""),
        ] {
            let text = ended(2, &output);
            assert!(text.contains("broken.json") && !text.contains("hunter2"), "{before}: {text}");
        }
        assert_eq!(registry.requests().len(), asked, "{before}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    }
}

#[test]
fn an_unwritable_auth_file_exits_2_before_the_password_is_sent() {
    let (registry, home) = (closed(), Home::new());
    let Some(disk) = Disk::of(64) else { return };
    let file = disk.path().join("auth.json").display().to_string();
    std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"{}"}}}}}}"#, registry.host(), base64("old"))).unwrap();
    let before = std::fs::read_to_string(&file).unwrap();
    disk.make_read_only();
    let asked = registry.requests().len();
    let text = ended(2, &log_in(&home, registry.host(), &file, PASSWORD));
    assert!(text.contains(&file) && text.contains("remount the file system read-write"), "{text}");
    assert_eq!(registry.requests().len(), asked);
    let text = ended(2, &home.gapferry(&["logout", registry.host(), "--authfile", &file], ""));
    assert!(text.contains(&file) && text.contains("remount the file system read-write"), "{text}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
}

#[test]
fn a_full_disk_loses_no_stored_login() {
    let (registry, home) = (closed(), Home::new());
    let Some(disk) = Disk::of(64) else { return };
    let file = disk.path().join("auth.json").display().to_string();
    let before = format!(r#"{{"auths":{{}},"more":"{}"}}"#, "x".repeat(20_000));
    std::fs::write(&file, &before).unwrap();
    std::fs::write(disk.path().join("filling"), vec![0; 32 << 10]).unwrap();
    let text = ended(2, &log_in(&home, registry.host(), &file, PASSWORD));
    assert!(text.contains(&file) && text.contains("free some space"), "{text}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 2, "a file is left behind");
}

#[test]
fn a_missing_runtime_directory_is_named() {
    let (registry, home) = (closed(), Home::new().with([("XDG_RUNTIME_DIR", "/nowhere/at/all")]));
    let text = ended(2, &home.gapferry(&["login", registry.host(), "-u", "me", "--password-stdin"], PASSWORD));
    assert!(text.contains("XDG_RUNTIME_DIR") && text.contains("/nowhere/at/all"), "{text}");
}

#[test]
fn wrong_usage_exits_2_and_never_prints_a_password() {
    let (registry, home) = (closed(), Home::new());
    let host = registry.host();
    let url = format!("https://{host}");
    let inside = format!("me:hunter2@{host}");
    let asked = registry.requests().len();
    for (arguments, stdin, says) in [
        (&["login", host][..], "", "--username"),
        (&["login", host, "-u", "me"], "", "--password-stdin"),
        (&["login", host, "--password-stdin"], "hunter2", "--username"),
        (&["login", host, "-u", "me", "--password-stdin"], "", "empty"),
        (&["login", host, "-u", "", "--password-stdin"], "hunter2", "user name is empty"),
        (&["login", host, "-u", "a:b", "--password-stdin"], "hunter2", "must not contain a colon"),
        (&["login", host, "-u", "me", "-p", "hunter2", "--password-stdin"], "hunter2", "cannot be used with"),
        (&["login", host, "-u", "me", "--creds", "me:hunter2"], "", "cannot be used with"),
        (&["login", &url, "-u", "me", "--password-stdin"], "hunter2", "without https://"),
        (&["login", &inside], "", "a name must not contain a password"),
        (&["logout", &inside], "", "a name must not contain a password"),
        (&["auth", "check", &inside], "", "a name must not contain a password"),
        (&["login", "UPPER/Case", "-u", "me", "--password-stdin"], "hunter2", "lower case"),
        (&["auth", "check", host, "--push", "UPPER"], "", "lower case"),
        (&["auth", "check", &format!("{host}/a"), "--push", "b"], "", "name one of them"),
    ] {
        let text = ended(2, &home.gapferry(arguments, stdin));
        assert!(text.contains(says) && !text.contains("hunter2"), "{arguments:?}: {text}");
    }
    assert_eq!(registry.requests().len(), asked);
    assert!(!home.path("run/containers").exists());
}

#[test]
fn a_password_on_the_command_line_works_with_a_warning() {
    let (registry, home) = (closed(), Home::new());
    let text = ended(0, &home.gapferry(&["login", registry.host(), "-u", "me", "-p", PASSWORD], ""));
    assert!(text.contains("warning: other users of this machine can see --password"), "{text}");
    let pair = format!("me:{PASSWORD}");
    ended(0, &home.gapferry(&["login", registry.host(), "--creds-stdin"], &pair));
}

/// Checks the system calls, because no test can cut the power.
#[test]
fn a_login_removed_before_a_power_cut_does_not_come_back() {
    let home = Home::new();
    let (file, _) = kept(&home, "a.io");
    let (program, calls) = (gapferry_process(), home.path("calls").display().to_string());
    let strace = ["strace", "-f", "-y", "-e", "trace=/^rename,fsync", "-o", &calls];
    let arguments = ["logout", "a.io", "--authfile", &file];
    let command: Vec<&str> = strace.into_iter().chain(program.get_program().to_str()).chain(arguments).collect();
    let output = home.other("env", &command, "");
    let Ok(calls) = std::fs::read_to_string(&calls) else {
        eprintln!("skipped: this test needs strace: {}", String::from_utf8_lossy(&output.stderr));
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let home = home.path("").canonicalize().unwrap();
    let directory = format!("<{}>", home.display());
    let orders: Vec<&str> = calls.lines().filter(|call| call.contains("rename") || call.contains("fsync")).collect();
    let renamed = orders.iter().position(|call| call.contains("rename") && call.contains("auth.json")).unwrap();
    let written = orders[..renamed].iter().any(|call| call.contains("fsync") && call.contains("/.gapferry-"));
    let named = orders[renamed..].iter().any(|call| call.contains("fsync") && call.contains(&directory));
    assert!(written && named, "{orders:#?}");
}
