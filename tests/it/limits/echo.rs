//! Servers that repeat the request: no secret is printed, in any encoding.

use crate::limits::{all_output, gapferry};
use crate::support;
use crate::support::faulty::{Answer, Seen, Server};

const PASSWORD: &str = "hunter2/&\"secret";
const TOKEN: &str = "eyJhbGciOiJub25lIn0.tokenSecretValue.x";
/// Fragments of the password, plain and as base64 after a user name of any length.
const LEAKS: [&str; 4] = ["hunter2", "dW50ZXIy", "h1bnRlcj", "odW50ZXI"];

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>().replace("%68", "h").replace("%75", "u")
}

/// Repeats the request in a body, in headers that are shown, and in a URL.
fn echo(request: &Seen, status: u16) -> Answer {
    let authorization = request.header("authorization");
    let body = serde_json::json!({ "errors": [{ "code": "DENIED",
        "message": format!("you sent {authorization}\nand that is {PASSWORD}\u{1b}[2J\nOK: all is well"),
        "detail": { "password": PASSWORD, "token": TOKEN } }] });
    Answer::new(status)
        .with("Server", format!("echo {authorization} {PASSWORD} {TOKEN}"))
        .with("WWW-Authenticate", format!("Basic realm=\"{authorization}\""))
        .with("Location", format!("/x/{}/{}?scope={TOKEN}", encoded(PASSWORD), authorization.replace(' ', "/")))
        .body(body.to_string())
}

async fn server() -> Server {
    Server::start(|request, _| {
        let host = request.header("host");
        match request.target.split('?').next().unwrap_or_default() {
            "/token" => Answer::new(200).body(format!(r#"{{"token":"{TOKEN}"}}"#)),
            "/v2/plain/app/manifests/1" if request.header("authorization").is_empty() => {
                Answer::new(401).with("WWW-Authenticate", "Basic realm=\"r\"")
            }
            _ if request.header("authorization").is_empty() && !request.target.starts_with("/v2/plain") => {
                Answer::new(401).with("WWW-Authenticate", format!(r#"Bearer realm="http://{host}/token",service="s""#))
            }
            path if path.starts_with("/v2/moved/") => echo(request, 307),
            _ => echo(request, 403),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_repeated_by_a_server_is_masked_wherever_it_is_printed() {
    let server = server().await;
    let directory = support::tempdir();
    let file = |name: &str| directory.path().join(name).display().to_string();
    for repository in ["plain", "other", "moved"] {
        let reference = format!("{}/{repository}/app:1", server.address);
        let (out, lock) = (file("b"), file("lock"));
        let commands: [&[&str]; 5] = [
            &["inspect", &reference],
            &["lock", &reference, "-o", &lock],
            &["export", &reference, "-o", &out],
            &["auth", "check", &reference],
            &["auth", "check", &reference, "--json"],
        ];
        for command in commands {
            for options in [&[][..], &["-vv"], &["--log-http"], &["--log-format", "json", "-vv", "--log-http"]] {
                let creds = ["--creds", &format!("robot$a:{PASSWORD}"), "--retries", "0"];
                let output = gapferry(&[command, options, &creds].concat()).await;
                let all_output = all_output(&output);
                for leak in LEAKS.iter().chain(&[PASSWORD, "tokenSecretValue"]) {
                    assert!(!all_output.contains(leak), "{command:?} {options:?}: {leak}: {all_output}");
                }
                assert!(
                    !all_output.lines().any(|line| line.starts_with("OK")),
                    "{command:?} {options:?}: {all_output}"
                );
                let control = all_output.chars().find(|c| c.is_control() && *c != '\n');
                assert_eq!(control, None, "{command:?} {options:?}: {all_output:?}");
            }
        }
    }
}
