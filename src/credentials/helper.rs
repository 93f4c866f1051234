//! Credential helpers: `docker-credential-<name> get`, the server on its standard input, JSON on its standard output
//! (docker-credential-helpers, `client/client.go`).

use std::io::Write;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::Credentials;
use crate::error::{Error, Result};

/// What helpers print when they know nothing; the exit code is the same as for a failure.
const NOT_FOUND: &str = "credentials not found in native keychain";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// The program that a file's name for a helper means: the suffix of one on `PATH`, or a path.
pub(super) fn program(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("docker-credential-{name}") }
}

/// Asks the helper; blocks until it answers.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Credentials>> {
    let program = program(name);
    let attempt = format!("asking credential helper {program} about {server}");
    let fail = |e: std::io::Error| Error::input(attempt.clone()).because(e);
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that answers without reading is no failure.
        let _ = writeln!(input, "{server}");
    }
    let output = child.wait_with_output().map_err(fail)?;
    if !output.status.success() {
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if said.contains(NOT_FOUND) {
            return Ok(None);
        }
        let said: String = said.trim().chars().take(300).flat_map(char::escape_debug).collect();
        return Err(Error::input(format!("{attempt}: {}: {said}", output.status)));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| Error::input(format!("{attempt}: its answer is not the JSON expected of a helper")))?;
    match answer.username.as_str() {
        "<token>" => Ok(Some(Credentials::identity(answer.secret))),
        "" if answer.secret.is_empty() => Ok(None),
        username => Ok(Some(Credentials::basic(username, answer.secret))),
    }
}
