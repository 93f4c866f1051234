//! `auth check`: whether a registry accepts the credentials, and what they allow.

use serde_json::{Value, json};

use super::home::Home;
use super::{PASSWORD, base64_of, closed, ended};
use crate::support::faulty::{Answer, Server};
use crate::support::harbor::{Account, Harbor, Project, Right, Setup};
use crate::support::registry::{Options, Registry};

/// The report of `auth check ARGUMENTS --json`, which ends with `code`.
#[track_caller]
fn report(code: i32, home: &Home, arguments: &[&str], stdin: &str) -> Value {
    let output = home.gapferry(&[&["auth", "check", "--json", "--retries", "0"], arguments].concat(), stdin);
    ended(code, &output);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn verdicts(report: &Value) -> [&Value; 3] {
    [&report["accepted"], &report["pull"], &report["push"]]
}

#[test]
fn auth_check_reports_source_and_user_and_leaves_nothing_at_the_registry() {
    let (registry, home) = (closed(), Home::new());
    let host = registry.host();
    let right = format!("me:{PASSWORD}");
    let parsed = report(0, &home, &[host, "--push", "new/app", "--creds-stdin"], &right);
    assert_eq!(verdicts(&parsed), [&json!(true); 3]);
    assert_eq!((&parsed["credentials"], &parsed["user"]), (&json!({ "from": "command-line" }), &json!("me")));
    assert_eq!((&parsed["repository"], &parsed["error"]), (&json!("new/app"), &Value::Null));
    assert_eq!(registry.count("DELETE", "/v2/new/app/blobs/uploads/", 204), 1);
    let catalog = registry.request("GET", "/v2/_catalog").send().json();
    assert_eq!(catalog, json!({ "repositories": ["team/app"] }));

    let parsed = report(4, &home, &[host, "--push", "new/app", "--creds-stdin"], "me:hunter2");
    assert_eq!(verdicts(&parsed), [&json!(false), &Value::Null, &Value::Null]);
    assert!(parsed["error"]["message"].as_str().unwrap().contains("401"), "{parsed}");
    assert!(!parsed.to_string().contains("hunter2"), "{parsed}");
    let variable = format!("GAPFERRY_CREDS_{}", host.replace(['.', ':'], "_"));
    let home = home.with([(variable.as_str(), right.as_str())]);
    let parsed = report(0, &home, &[&format!("{host}/team/app")], "");
    assert_eq!(verdicts(&parsed), [&json!(true), &json!(true), &Value::Null]);
    assert_eq!(parsed["credentials"], json!({ "from": "variable", "name": variable }));
}

#[test]
fn auth_check_reports_a_read_only_registry_and_exits_5_for_an_unreachable_one() {
    let home = Home::new();
    let read_only = Registry::with(Options { read_only: true, ..Options::default() });
    let parsed = report(4, &home, &[read_only.host(), "--push", "a"], "");
    assert_eq!(verdicts(&parsed), [&json!(true), &json!(true), &json!(false)]);
    assert_eq!((&parsed["asked"], &parsed["credentials"]), (&json!(false), &Value::Null));
    let gone = read_only.host().to_owned();
    drop(read_only);
    let parsed = report(5, &home, &[&gone], "");
    assert_eq!(verdicts(&parsed), [&Value::Null; 3]);
    assert!(parsed["error"]["message"].as_str().unwrap().contains(&gone), "{parsed}");
}

/// After a mistyped host name or an expired proxy session, the command must not report success.
#[tokio::test]
async fn a_web_page_is_not_taken_for_a_registrys_verdict() {
    let home = Home::new();
    let page = || Answer::new(200).with("Content-Type", "text/html").body("<h1>Please sign in</h1>");
    let portal = Server::start(move |_, _| page()).await;
    let to = format!("http://{}/login", portal.address);
    let front = Server::start(move |_, _| Answer::new(302).with("Location", to.clone())).await;
    for server in [&portal, &front] {
        let host = server.address.as_str();
        for site in [host, &format!("{host}/team/app")] {
            let parsed = report(5, &home, &[site], "");
            assert_eq!(verdicts(&parsed), [&Value::Null; 3]);
            assert!(parsed["error"]["message"].as_str().unwrap().contains("Please sign in"), "{parsed}");
        }
        let text = ended(5, &home.gapferry(&["auth", "check", host, "--retries", "0"], ""));
        assert!(
            text.contains(&format!("auth check {host}/REPOSITORY")) && text.contains("accepted     not known"),
            "{text}"
        );
        let login = ["login", host, "-u", "me", "--password-stdin", "--retries", "0"];
        assert!(ended(0, &home.gapferry(&login, PASSWORD)).contains("could not be checked"));
    }
    // A gateway that routes only the paths of repositories.
    let gateway = Server::start(move |request, _| match request.target.starts_with("/v2/team/app/") {
        true => Answer::new(200).body(r#"{"name":"team/app","tags":["1"]}"#),
        false => page(),
    });
    let gateway = gateway.await;
    report(5, &home, &[&gateway.address], "");
    let parsed = report(0, &home, &[&format!("{}/team/app", gateway.address)], "");
    assert_eq!(verdicts(&parsed), [&Value::Null, &json!(true), &Value::Null]);
}

#[test]
fn auth_check_shows_a_pull_only_robot_before_an_import_fails() {
    let setup = Setup::default().account(Account::robot("reader", PASSWORD));
    let project = Project::new("apps").member("robot$reader", Right::Pull);
    let harbor = Harbor::start(setup.with(project));
    let (home, host) = (Home::new(), harbor.registry());
    let arguments = ["login", &host, "-u", "robot$reader", "--password-stdin"];
    ended(4, &home.gapferry(&arguments, "hunter2"));
    ended(0, &home.gapferry(&arguments, PASSWORD));
    let parsed = report(4, &home, &[&host, "--push", "apps/a"], "");
    assert_eq!(verdicts(&parsed), [&json!(true), &json!(true), &json!(false)]);
    assert_eq!(parsed["user"], json!("robot$reader"));
    let text = ended(4, &home.gapferry(&["auth", "check", &host, "--push", "apps/a"], ""));
    for line in ["accepted     yes", "pull         yes, apps/a", "push         no, apps/a", "hint: "] {
        assert!(text.contains(line), "{text}");
    }
    ended(4, &home.gapferry(&["auth", "check", &format!("{host}/other/a")], ""));
}

/// A token server that accepts the identity token `refresh` by POST, or only by GET.
async fn token_server(knows_post: bool) -> Server {
    let server = Server::start(move |request, _| match (request.method.as_str(), &request.target[..]) {
        ("POST", "/token") if !knows_post => Answer::new(404),
        ("POST", "/token") => match String::from_utf8_lossy(&request.body).contains("refresh_token=refresh") {
            true => Answer::new(200).body(r#"{"access_token":"t"}"#),
            false => Answer::new(401),
        },
        ("GET", target) if target.starts_with("/token") => {
            let basic = format!("Basic {}", base64_of("00000000-0000", "refresh"));
            if request.header("authorization") == basic {
                Answer::new(200).body(r#"{"token":"t"}"#)
            } else {
                Answer::new(401)
            }
        }
        _ if request.header("authorization") == "Bearer t" => Answer::new(200),
        _ => {
            let realm = format!(r#"Bearer realm="http://{}/token",service="s""#, request.header("host"));
            Answer::new(401).with("WWW-Authenticate", realm)
        }
    });
    server.await
}

#[tokio::test]
async fn an_identity_token_from_a_file_or_a_helper_is_accepted() {
    let home = Home::new();
    home.install_helper("vault");
    for knows_post in [true, false] {
        let server = token_server(knows_post).await;
        let host = server.address.as_str();
        let pair = base64_of("00000000-0000", "refresh");
        let file = json!({ "auths": { host: { "auth": pair, "identitytoken": "refresh" } } });
        home.write("run/containers/auth.json", &file.to_string());
        let parsed = report(0, &home, &[host], "");
        assert_eq!((&parsed["identityToken"], &parsed["accepted"]), (&json!(true), &json!(true)));
        assert_eq!(server.count("POST", "/token"), 1);
        assert_eq!(server.count("GET", "/token"), usize::from(!knows_post));
    }
    let server = token_server(true).await;
    let host = server.address.as_str();
    home.write("run/containers/auth.json", &json!({ "credHelpers": { host: "vault" } }).to_string());
    let kept = json!({ "ServerURL": host, "Username": "<token>", "Secret": "refresh" });
    home.write(&format!("bin/docker-credential-vault.kept/{host}"), &kept.to_string());
    let parsed = report(0, &home, &[host], "");
    assert_eq!((&parsed["user"], &parsed["identityToken"]), (&Value::Null, &json!(true)));
    let text = ended(0, &home.gapferry(&["auth", "check", host], ""));
    assert!(text.contains("by identity token"), "{text}");
}
