//! `--log-http`: every request, and no secret.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::shop::Shop;
use crate::limits::{all_output, gapferry};
use crate::support;
use crate::support::faulty::{Answer, Seen, Server};

const PASSWORD: &str = "hunter2secret";
const BASIC: &str = "dXNlcjpodW50ZXIyc2VjcmV0";
const TOKEN: &str = "tokenSecretValue";
const SIGNATURE: &str = "signatureSecretValue";
const COOKIE: &str = "cookieSecretValue";
const STATE: &str = "stateSecretValue";

/// A registry that requires tokens, takes uploads, and redirects to storage with signed URLs.
async fn registry() -> Server {
    let (shop, failed) = (Shop::with(&[("team/app:1", "the layer")]), AtomicUsize::new(0));
    let authorized = |request: &Seen| request.header("authorization") == format!("Bearer {TOKEN}");
    Server::start(move |request, _| {
        let host = request.header("host");
        match (request.method.as_str(), request.target.split('?').next().unwrap()) {
            ("GET", "/token") if request.header("authorization") == format!("Basic {BASIC}") => {
                Answer::new(200).body(format!(r#"{{"token":"{TOKEN}"}}"#))
            }
            ("GET", path) if path.starts_with("/storage/") => {
                let path = path.strip_prefix("/storage").unwrap();
                shop.answer(&Seen { target: path.to_owned(), ..request.clone() })
            }
            _ if !authorized(request) => {
                let challenge = format!(r#"Bearer realm="http://{host}/token",service="s""#);
                Answer::new(401).with("WWW-Authenticate", challenge)
            }
            ("POST", _) => Answer::new(202).with("Location", format!("/upload?_state={STATE}")),
            ("PUT", _) => Answer::new(201),
            ("GET", path) if path.contains("/blobs/") => {
                let url = format!("http://{host}/storage{path}?X-Amz-Signature={SIGNATURE}&sig={SIGNATURE}");
                Answer::new(307).with("Location", url)
            }
            ("GET", path) if path.contains("/manifests/") && failed.fetch_add(1, Ordering::SeqCst) == 0 => {
                Answer::new(503)
            }
            _ => shop.answer(request).with("Set-Cookie", format!("sid={COOKIE}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn log_http_shows_every_exchange_and_no_secret() {
    let server = registry().await;
    let directory = support::tempdir();
    let out = directory.path().join("b.tar").display().to_string();
    let reference = format!("{}/team/app:1", server.address);
    let creds = format!("user:{PASSWORD}");
    let target = format!("{}/copy", server.address);
    let rows: &[(&[&str], i32, &[&str])] = &[
        (
            &["export", &reference, "-o", &out, "-vv"],
            0,
            &["/team/app/manifests/1", "(try 2)", "X-Amz-Signature=***", "authorization: Basic ***", " bytes after "],
        ),
        (&["export", &reference, "-o", &out, "-q"], 0, &["http 1 > GET ", "< 200 after "]),
        (&["lock", &reference, "--log-format", "json"], 0, &[r#""event":"http-request""#, r#""status":401"#]),
        (&["inspect", &reference], 0, &["authorization: Bearer ***", "set-cookie: ***"]),
        (
            &["import", &out, "--to", &target, "-vv", "--retries", "1"],
            1,
            &["> POST ", "location: /upload?_state=***", "> PUT "],
        ),
    ];
    for (arguments, code, shows) in rows {
        let arguments = [arguments, &["--log-http", "--creds", &creds][..]].concat();
        let output = gapferry(&arguments).await;
        let text = all_output(&output);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {text}");
        for part in *shows {
            assert!(text.contains(part), "{arguments:?} does not show {part:?}: {text}");
        }
        for secret in [PASSWORD, BASIC, TOKEN, SIGNATURE, COOKIE, STATE] {
            assert!(!text.contains(secret), "{arguments:?} tells {secret}: {text}");
        }
    }
}

/// A gateway redirects to a login page whose URL repeats the request; `/v2/` is answered, or redirected too.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_page_that_repeats_its_request_reveals_no_secret() {
    for is_root_open in [true, false] {
        let server = Server::start(move |request, _| match request.target.split('?').next().unwrap() {
            "/v2/" if is_root_open => {
                Answer::new(200).with("Docker-Distribution-Api-Version", "registry/2.0").body("{}")
            }
            "/signin" => Answer::new(302).with("Location", "/form"),
            "/form" => {
                let page = format!("<h1>Sign in</h1><p>{STATE}, then back to /v2/?_state={SIGNATURE}</p>");
                Answer::new(200).with("Content-Type", "text/html").body(page)
            }
            _ => Answer::new(302).with("Location", format!("/signin?state={STATE}")),
        });
        let server = server.await;
        let (image, path) = (format!("{}/team/app:1", server.address), format!("{}/team/app", server.address));
        let commands: [&[&str]; 4] =
            [&["inspect", &image], &["lock", &image], &["lock", &path], &["auth", "check", &path]];
        for command in commands {
            let output = gapferry(&[command, &["--retries", "0"]].concat()).await;
            let text = all_output(&output);
            assert!(!output.status.success() && text.contains("Sign in ***, then back to"), "{command:?}: {text}");
            assert!(![STATE, SIGNATURE].iter().any(|secret| text.contains(secret)), "{command:?}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_log_lines_and_progress_bars_do_not_mix() {
    let server = registry().await;
    let directory = support::tempdir();
    let (out, typescript) = (directory.path().join("b").display().to_string(), directory.path().join("typescript"));
    let creds = format!("user:{PASSWORD}");
    let program = env!("CARGO_BIN_EXE_gapferry");
    let command = format!("{program} export {}/team/app:1 -o {out} --log-http --creds {creds}", server.address);
    // script(1) provides a terminal.
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &command]).arg(&typescript).stdout(std::process::Stdio::null()).env("TERM", "xterm");
    let status = tokio::task::spawn_blocking(move || script.status().unwrap()).await.unwrap();
    let text = std::fs::read_to_string(&typescript).unwrap();
    assert!(status.success(), "{text}");
    assert!(text.contains("[2K"), "progress bars were cleared before log lines: {text:?}");
    let asked: Vec<&str> = text.lines().filter(|line| line.contains("> GET ")).collect();
    assert!(asked.len() > 5, "{text}");
    for line in asked {
        let (before, url) = line.split_once(" > GET ").unwrap();
        // Clearing the bars ends with an escape sequence.
        let number = before.rsplit_once("http ").unwrap().1;
        assert!(number.parse::<u32>().is_ok() && url.starts_with("http://"), "{line:?}");
    }
    assert!(![PASSWORD, TOKEN, SIGNATURE].iter().any(|secret| text.replace(&creds, "").contains(secret)), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_log_http_nothing_is_logged() {
    let server = registry().await;
    let creds = format!("user:{PASSWORD}");
    let output = gapferry(&["inspect", &format!("{}/team/app:1", server.address), "--creds", &creds]).await;
    assert!(output.status.success(), "{}", all_output(&output));
    assert!(!all_output(&output).contains("http 1"), "{}", all_output(&output));
}

#[test]
fn every_command_that_contacts_a_registry_has_log_http() {
    let help = |command: &[&str]| support::gapferry().args(command).arg("--help").output().unwrap();
    let commands: [&[&str]; 6] = [&["export"], &["lock"], &["inspect"], &["import"], &["login"], &["auth", "check"]];
    for command in commands {
        assert!(all_output(&help(command)).contains("--log-http"), "{command:?}");
    }
}
