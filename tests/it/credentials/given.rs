//! Credentials from standard input and variables: which one applies, and what is reported about unusable ones.

use std::process::Output;

use super::home::Home;
use super::{PASSWORD, base64, closed, ended, gapferry, tempdir};

/// `gapferry lock IMAGE` with these variables, options and standard input.
fn lock(image: &str, variables: &[(&str, &str)], options: &[&str], stdin: &str) -> Output {
    let mut command = gapferry();
    command.args(["lock", image]).args(options).envs(variables.iter().copied());
    command.write_stdin(stdin).output().unwrap()
}

/// The credentials variable of a registry on a loopback port.
fn variable(host: &str) -> String {
    format!("GAPFERRY_CREDS_{}", host.replace(['.', ':'], "_"))
}

#[test]
fn credentials_on_stdin_work_with_or_without_a_newline() {
    let registry = closed();
    let image = format!("{}/team/app:1", registry.host());
    for end in ["", "\n", "\r\n"] {
        ended(0, &lock(&image, &[], &["--creds-stdin", "-vv"], &format!("me:{PASSWORD}{end}")));
    }
    ended(4, &lock(&image, &[], &["--creds-stdin"], &format!("me:{PASSWORD}\n\n")));
}

#[test]
fn malformed_credentials_on_stdin_are_a_usage_error_and_are_not_printed() {
    let registry = closed();
    let image = format!("{}/team/app:1", registry.host());
    for stdin in ["", "\n", "hunter2\n", ":hunter2", &"hunter2".repeat(10_000)] {
        let text = ended(2, &lock(&image, &[], &["--creds-stdin"], stdin));
        assert!(text.contains("standard input") && !text.contains("hunter2"), "{text}");
    }
    let authfile = tempdir();
    let authfile = authfile.path().join("auth.json");
    for others in [["--creds", "me:x"], ["--authfile", authfile.to_str().unwrap()]] {
        ended(2, &lock(&image, &[], &[&["--creds-stdin"], &others[..]].concat(), "me:x"));
    }
}

#[test]
fn a_password_is_never_read_as_an_allowlist() {
    let registry = closed();
    let directory = tempdir();
    let bundle = directory.path().join("b.tar");
    for arguments in [
        &["lock", "--creds-stdin", "-f", "-"][..],
        &["export", "-o", bundle.to_str().unwrap(), "--creds-stdin", "--locked", "-"],
        &["import", bundle.to_str().unwrap(), "--to", registry.host(), "--creds-stdin", "--map", "-"],
    ] {
        let output = gapferry().args(arguments).write_stdin("me:HUNTER 2").output().unwrap();
        let text = ended(2, &output);
        assert!(text.contains("cannot be both") && !text.contains("HUNTER"), "{text}");
    }
}

#[test]
fn the_command_line_beats_the_registrys_variable_then_the_general_one_then_files() {
    let registry = closed();
    let image = format!("{}/team/app:1", registry.host());
    let own = variable(registry.host());
    let right = format!("me:{PASSWORD}");
    let home = tempdir();
    let entry = |auth: &str| format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.host());
    let file = |name: &str, auth: &str| {
        std::fs::write(home.path().join(name), entry(auth)).unwrap();
        home.path().join(name).display().to_string()
    };
    let (bad, good) = (file("bad.json", &base64("wrong")), file("good.json", &base64(PASSWORD)));
    let (all, files) = ("GAPFERRY_CREDS", "REGISTRY_AUTH_FILE");
    // Every source of lower precedence is wrong.
    ended(0, &lock(&image, &[(files, &bad), (all, "me:no"), (&own, "me:no")], &["--creds", &right], ""));
    ended(0, &lock(&image, &[(files, &bad), (all, "me:no"), (&own, "me:no")], &["--creds-stdin"], &right));
    ended(0, &lock(&image, &[(files, &bad), (all, "me:no"), (&own, &right)], &["-vv"], ""));
    ended(0, &lock(&image, &[(files, &bad), (all, &right)], &["-vv"], ""));
    ended(0, &lock(&image, &[(files, &good)], &["-vv"], ""));
    ended(0, &lock(&image, &[(all, "me:no"), (&own, "me:no")], &["--authfile", &good], ""));
    // A wrong source of higher precedence fails the request.
    ended(4, &lock(&image, &[(files, &good), (all, &right), (&own, "me:no")], &[], ""));
    ended(4, &lock(&image, &[(files, &good), (all, "me:no")], &[], ""));
    ended(4, &lock(&image, &[(files, &good), (all, &right), (&own, &right)], &["--creds", "me:no"], ""));
}

#[test]
fn a_registrys_variable_is_never_sent_to_another_registry() {
    let (one, other) = (closed(), closed());
    let image = format!("{}/team/app:1", other.host());
    let right = format!("me:{PASSWORD}");
    ended(4, &lock(&image, &[(&variable(one.host()), &right)], &[], ""));
    ended(0, &lock(&image, &[(&variable(one.host()), "me:no"), ("GAPFERRY_CREDS", &right)], &[], ""));
    let text = ended(2, &lock(&image, &[(&variable(other.host()), "hunter2")], &[], ""));
    assert!(text.contains(&variable(other.host())) && !text.contains("hunter2"), "{text}");
}

/// Otherwise somebody approves a plan that cannot be carried out.
#[test]
fn a_dry_run_with_a_wrong_password_fails_like_the_push() {
    let (registry, home, directory) = (closed(), Home::new(), tempdir());
    let bundle = directory.path().join("b.tar").display().to_string();
    let image = format!("{}/team/app:1", registry.host());
    ended(0, &home.gapferry(&["export", &image, "-o", &bundle, "--creds-stdin"], &format!("me:{PASSWORD}")));
    let to = format!("{}/mirror", registry.host());
    for (more, password, code) in [(&["--dry-run"][..], "wrong", 4), (&[], "wrong", 4), (&["--dry-run"], PASSWORD, 0)] {
        let import = [&["import", &bundle, "--to", &to, "--creds-stdin"], more].concat();
        let message = ended(code, &home.gapferry(&import, &format!("me:{password}")));
        assert_eq!(message.contains("does not accept the credentials"), code == 4 && !more.is_empty(), "{message}");
    }
}
