//! A login made with one program works in the other and can be removed there.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::home::{Home, read_json};
use super::{PASSWORD, base64, closed, ended, shown};
use crate::support::registry::Registry;

#[track_caller]
fn skopeo_succeeds(home: &Home, arguments: &[&str], stdin: &str) {
    let output = home.skopeo(arguments, stdin);
    assert!(output.status.success(), "{arguments:?}: {}", shown(&output));
}

#[track_caller]
pub fn log_in(home: &Home, host: &str, options: &[&str]) -> String {
    let arguments = [&["login", host, "--username", "me", "--password-stdin"], options].concat();
    ended(0, &home.gapferry(&arguments, &format!("{PASSWORD}\n")))
}

/// Whether skopeo can read the image with the credentials it finds itself.
fn skopeo_may_read(home: &Home, image: &str) -> bool {
    home.skopeo(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{image}")], "").status.success()
}

fn gapferry_may_read(home: &Home, image: &str) -> bool {
    home.gapferry(&["lock", image], "").status.success()
}

#[test]
fn skopeo_uses_and_removes_a_login_made_by_gapferry() {
    let (registry, home) = (closed(), Home::new());
    let image = format!("{}/team/app:1", registry.host());
    assert!(!skopeo_may_read(&home, &image));
    let text = log_in(&home, registry.host(), &["-vv", "--log-http"]);
    assert!(text.contains("logged in to") && text.contains("run/containers/auth.json"), "{text}");
    assert_eq!(home.skopeo_user(registry.host(), &[]).as_deref(), Some("me"));
    assert!(skopeo_may_read(&home, &image) && gapferry_may_read(&home, &image));

    skopeo_succeeds(&home, &["logout", registry.host()], "");
    let text = ended(4, &home.gapferry(&["auth", "check", registry.host()], ""));
    assert!(text.contains("none; looked in") && text.contains("auth.json"), "{text}");
}

#[test]
fn gapferry_uses_and_removes_a_login_made_by_skopeo() {
    let (registry, home) = (closed(), Home::new());
    let image = format!("{}/team/app:1", registry.host());
    let arguments = ["login", "--tls-verify=false", "--username", "me", "--password-stdin", registry.host()];
    skopeo_succeeds(&home, &arguments, PASSWORD);
    let text = ended(0, &home.gapferry(&["auth", "check", registry.host()], ""));
    assert!(text.contains("run/containers/auth.json") && text.contains(" me\n"), "{text}");
    assert!(gapferry_may_read(&home, &image));

    let text = ended(0, &home.gapferry(&["logout", registry.host()], ""));
    assert!(text.contains("forgotten: ") && text.contains("auth.json"), "{text}");
    assert_eq!(home.skopeo_user(registry.host(), &[]), None);
    assert!(!gapferry_may_read(&home, &image));
    let text = ended(2, &home.gapferry(&["logout", registry.host()], ""));
    assert!(text.contains("no credentials are stored in") && text.contains("auth.json"), "{text}");
}

#[test]
fn a_namespace_login_applies_only_to_that_namespace_in_both_programs() {
    let (registry, home) = (closed(), Home::new());
    let host = registry.host();
    let (inside, outside) = (format!("{host}/team/app:1"), format!("{host}/teams/app:1"));
    crate::support::images::oci("teams/app", "1", &["x"]).push(&registry);
    log_in(&home, &format!("{host}/team"), &[]);
    assert!(skopeo_may_read(&home, &inside) && gapferry_may_read(&home, &inside));
    assert!(!skopeo_may_read(&home, &outside) && !gapferry_may_read(&home, &outside));
    let of = |site: &str| home.gapferry(&["auth", "check", site], "");
    assert!(ended(0, &of(&format!("{host}/team/app"))).contains(&format!("entry {host}/team\n")));
    ended(4, &of(host));

    ended(2, &home.gapferry(&["logout", host], ""));
    ended(0, &home.gapferry(&["logout", &format!("{host}/team")], ""));
    assert!(!gapferry_may_read(&home, &inside));

    // As skopeo writes it.
    let arguments = ["login", "--tls-verify=false", "-u", "me", "--password-stdin", &format!("{host}/team")];
    skopeo_succeeds(&home, &arguments, PASSWORD);
    assert!(gapferry_may_read(&home, &inside) && !gapferry_may_read(&home, &outside));
    log_in(&home, host, &[]);
    let text = ended(0, &home.gapferry(&["logout", host, "--all"], ""));
    assert_eq!(text.matches("forgotten: ").count(), 2, "{text}");
    assert_eq!(read_json(&home.authfile()), json!({ "auths": {} }));
}

#[test]
fn login_keeps_everything_else_in_the_file_and_its_order() {
    let (registry, home) = (closed(), Home::new());
    let before = format!(
        r#"{{"HttpHeaders":{{"X-Meta":"1"}},"zeta":[1.50,null],"auths":{{"z.io":{{"auth":"{}","email":"me@z.io"}},
        "a.io/ns":{{}},"{}":{{"auth":"b2xkOm9sZA==","email":"old@a.io","identitytoken":"stale"}},
        "strange":{{"auth":"!!!","more":{{"deep":true}}}}}},"credHelpers":{{"gcr.io":"gcloud"}},"currentContext":"c"}}"#,
        base64("other"),
        registry.host(),
    );
    let file = home.write("config.json", &before);
    let before: serde_json::Value = serde_json::from_str(&before).unwrap();
    log_in(&home, registry.host(), &["--authfile", &file]);
    let mut expected = before.clone();
    expected["auths"][registry.host()] = json!({ "email": "old@a.io", "auth": base64(PASSWORD) });
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected);
    let places: Vec<_> = ["HttpHeaders", "zeta", "z.io", "a.io/ns", registry.host(), "strange", "gcr.io", "currentCon"]
        .map(|name| text.find(name).unwrap())
        .into();
    assert!(places.is_sorted(), "{text}");

    ended(0, &home.gapferry(&["logout", registry.host(), "--authfile", &file], ""));
    expected["auths"].as_object_mut().unwrap().remove(registry.host());
    assert_eq!(read_json(&home.path("config.json")), expected);
}

#[test]
fn the_auth_file_is_private_to_its_owner_and_a_symlink_to_it_stays() {
    let (registry, home) = (closed(), Home::new());
    let mode = |name: &str| home.path(name).metadata().unwrap().permissions().mode() & 0o777;
    log_in(&home, registry.host(), &[]);
    assert_eq!((mode("run/containers"), mode("run/containers/auth.json")), (0o700, 0o600));

    home.write("dotfiles/auth.json", r#"{"auths":{"q.io":{}}}"#);
    std::fs::set_permissions(home.path("dotfiles/auth.json"), PermissionsExt::from_mode(0o644)).unwrap();
    for (link, to) in [("link.json", "dotfiles/auth.json"), ("dangling.json", "dotfiles/new.json")] {
        std::os::unix::fs::symlink(to, home.path(link)).unwrap();
        log_in(&home, registry.host(), &["--authfile", home.path(link).to_str().unwrap()]);
        assert!(home.path(link).is_symlink());
        assert_eq!(mode(to), 0o600);
        assert_eq!(read_json(&home.path(to))["auths"][registry.host()]["auth"], base64(PASSWORD));
    }
    assert_eq!(read_json(&home.path("link.json"))["auths"]["q.io"], json!({}));
    let left: Vec<_> =
        std::fs::read_dir(home.path("dotfiles")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn concurrent_logins_do_not_lose_each_other() {
    let (registry, home) = (closed(), Home::new());
    let sites: Vec<String> = (0..6).map(|number| format!("{}/ns{number}", registry.host())).collect();
    std::thread::scope(|scope| {
        for site in &sites {
            scope.spawn(|| log_in(&home, site, &[]));
        }
    });
    let kept = read_json(&home.authfile());
    assert!(sites.iter().all(|site| kept["auths"][site]["auth"] == base64(PASSWORD)), "{kept}");
}

#[test]
fn an_empty_auth_file_from_mktemp_can_be_used() {
    let (registry, home) = (closed(), Home::new());
    let file = home.write("auth.json", "");
    log_in(&home, registry.host(), &["--authfile", &file]);
    assert_eq!(home.skopeo_user(registry.host(), &["--authfile", &file]).as_deref(), Some("me"));
}

#[test]
fn a_login_that_is_unverified_or_overridden_is_reported() {
    let home = Home::new();
    let open = Registry::start();
    let text = log_in(&home, open.host(), &[]);
    assert!(text.contains("warning: ") && text.contains("accepts anonymous requests"), "{text}");

    let closed = closed();
    let own = format!("GAPFERRY_CREDS_{}", closed.host().replace(['.', ':'], "_"));
    for name in [own.as_str(), "GAPFERRY_CREDS"] {
        let home = Home::new().with([(name, "you:no")]);
        let text = log_in(&home, closed.host(), &[]);
        assert!(text.contains("warning: ") && text.contains(&format!("{name} is set")), "{text}");
    }
    let text = log_in(&home, closed.host(), &[]);
    assert!(!text.contains("warning: "), "{text}");
}

#[test]
fn logout_reports_remaining_credentials() {
    let (registry, home) = (closed(), Home::new());
    let dockers = home.write(
        ".docker/config.json",
        &format!(r#"{{"auths":{{"{}":{{"auth":"{}"}}}}}}"#, registry.host(), base64("other")),
    );
    log_in(&home, registry.host(), &[]);
    let text = ended(0, &home.gapferry(&["logout", registry.host()], ""));
    assert!(text.contains("warning: ") && text.contains(&dockers), "{text}");
    let text = ended(0, &home.gapferry(&["logout", registry.host()], ""));
    assert!(!text.contains("warning: ") && text.contains(&format!("forgotten: {dockers}")), "{text}");
    ended(2, &home.gapferry(&["logout", registry.host()], ""));
}

#[test]
fn logout_all_removes_every_login_and_keeps_the_settings() {
    let home = Home::new();
    let entry = |user: &str| json!({ "auth": base64(user) });
    let json = json!({ "auths": { "a.io": entry("a"), "b.io/x": entry("b"), "c.io": {} }, "proxies": { "p": 1 } });
    let file = home.write("auth.json", &json.to_string());
    let output = home.gapferry(&["logout", "--all", "--json", "--authfile", &file], "");
    ended(0, &output);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["forgotten"][1], json!({ "from": "file", "path": file, "key": "b.io/x" }));
    assert_eq!(report["forgotten"].as_array().map(Vec::len), Some(2));
    assert_eq!(read_json(&home.path("auth.json")), json!({ "auths": {}, "proxies": { "p": 1 } }));
    ended(2, &home.gapferry(&["logout"], ""));
}

#[test]
fn login_prompts_on_a_terminal_and_does_not_echo_the_password() {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};
    let (registry, home) = (closed(), Home::new());
    let command = format!("{} login {}", env!("CARGO_BIN_EXE_gapferry"), registry.host());
    let mut terminal = Command::new("script");
    terminal.env_clear().envs(home.environment()).args(["-qec", &command, "/dev/null"]);
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keys, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    let mut seen = String::new();
    for (question, answer) in [("User at", "me\n"), ("Password of me: ", &format!("{PASSWORD}\n"))] {
        while !seen.contains(question) {
            let mut byte = [0];
            assert_eq!(screen.read(&mut byte).unwrap(), 1, "login ended without a prompt: {seen}");
            seen.push(char::from(byte[0]));
        }
        keys.write_all(answer.as_bytes()).unwrap();
    }
    screen.read_to_string(&mut seen).unwrap();
    assert!(terminal.wait().unwrap().success(), "{seen}");
    assert!(seen.contains("logged in to") && !seen.contains(PASSWORD), "{seen}");
    assert_eq!(home.skopeo_user(registry.host(), &[]).as_deref(), Some("me"));
}
