//! Credential helpers: `docker-credential-<name> get` with the server on standard input and JSON on standard output; `store`,
//! `erase` and `list` likewise (docker-credential-helpers, `client/client.go`).

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::Deserialize;
use serde_json::json;

use super::{Credentials, Secret, running};
use crate::base::error::{Error, Result};

/// What helpers print if they have nothing; the exit code is that of a failure.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Names of secrets in lower case; they also occur as parts of names.
const KEYS: [&str; 3] = ["secret", "password", "token"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Answers of helpers, including failures: a helper may ask its user, who must not be asked for every repository. Code that
/// changes what a helper stores asks it again with [`get`].
#[derive(Clone, Debug, Default)]
pub(super) struct HelperAnswers {
    /// Where helpers are looked for, if not in this process's `PATH`.
    path: Option<String>,
    remembered: Arc<Mutex<BTreeMap<(String, String), Remembered>>>,
}

/// Filled by the first caller; others wait for it.
type Remembered = Arc<OnceLock<Result<Option<Credentials>>>>;

impl HelperAnswers {
    pub(super) fn of_helpers_on(path: Option<String>) -> HelperAnswers {
        HelperAnswers { path, ..HelperAnswers::default() }
    }

    /// [`get`], called only once for each helper and server.
    pub(super) fn get(&self, name: &str, server: &str) -> Result<Option<Credentials>> {
        let asked = (program(name), server.to_owned());
        let answer = self.remembered.lock().unwrap_or_else(PoisonError::into_inner).entry(asked).or_default().clone();
        answer.get_or_init(|| get(name, server, self.path.as_deref())).clone()
    }
}

/// The program for a helper name in a file.
pub(super) fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// Checks the name of a helper.
///
/// # Errors
/// The name would select a program outside of `PATH`: a file that others can write must not decide what is run.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.contains('/') {
        let text = "the name of a credential helper has no slash: it is what follows docker-credential- in the name \
                    of a program on PATH";
        return Err(Error::input(format!("the credential helper {name:?}: {text}")));
    }
    Ok(())
}

/// Asks the helper, and blocks until it answers, which may require its user.
pub(super) fn get(name: &str, server: &str, path: Option<&str>) -> Result<Option<Credentials>> {
    let attempt = format!("asking credential helper {} about {server}", program(name));
    let Some(output) = answer(name, "get", server, path, &attempt)? else { return Ok(None) };
    let answer: Answer = serde_json::from_slice(&output).map_err(|_| strange(&attempt))?;
    match answer.username.as_str() {
        "<token>" => Ok(Some(Credentials::identity(answer.secret))),
        "" if answer.secret.is_empty() => Ok(None),
        username => Ok(Some(Credentials::basic(username, answer.secret))),
    }
}

/// Stores a user name and password in the helper.
pub(super) fn store(name: &str, path: Option<&str>, server: &str, username: &str, password: &Secret) -> Result<()> {
    let attempt = format!("giving credentials for {server} to credential helper {}", program(name));
    let input = json!({ "ServerURL": server, "Username": username, "Secret": password.expose() }).to_string();
    let output = run(name, "store", &input, path, &attempt)?;
    if output.status.success() {
        return Ok(());
    }
    // It may repeat its input with any quotes and escapes.
    let bare = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
    match bare(&words(&output)).contains(&bare(password.expose())) {
        true => Err(Error::input(format!("{attempt}: {}; its message contains the password", output.status))),
        // The password was not found in the output, so words about a password may be shown.
        false => Err(failed(&attempt, &output, &KEYS[..1])),
    }
}

/// Makes the helper erase a server; returns `false` if it had nothing.
pub(super) fn erase(name: &str, server: &str, path: Option<&str>) -> Result<bool> {
    // Some helpers do not report that there was nothing.
    if get(name, server, path)?.is_none() {
        return Ok(false);
    }
    let attempt = format!("telling credential helper {} to forget {server}", program(name));
    Ok(answer(name, "erase", server, path, &attempt)?.is_some())
}

/// The servers that a helper has.
pub(super) fn list(name: &str, path: Option<&str>) -> Result<Vec<String>> {
    let attempt = format!("asking credential helper {} what it knows", program(name));
    let Some(output) = answer(name, "list", "", path, &attempt)? else { return Ok(Vec::new()) };
    let known: BTreeMap<String, String> = serde_json::from_slice(&output).map_err(|_| strange(&attempt))?;
    Ok(known.into_keys().collect())
}

/// The helper's answer, or `None` if it has nothing.
fn answer(name: &str, verb: &str, input: &str, path: Option<&str>, attempt: &str) -> Result<Option<Vec<u8>>> {
    let output = run(name, verb, input, path, attempt)?;
    match output.status.success() {
        true => Ok(Some(output.stdout)),
        false if words(&output).contains(NOT_FOUND) => Ok(None),
        false => Err(failed(attempt, &output, &KEYS)),
    }
}

fn run(name: &str, verb: &str, input: &str, path: Option<&str>, attempt: &str) -> Result<Output> {
    check_name(name)?;
    let on_delay = || {
        running::warn(format!(
            "still {attempt}: it may wait for you, a PIN, a browser or a smart card; see to it there, or stop with Ctrl-C"
        ))
    };
    let mut command = Command::new(program(name));
    command.arg(verb).envs(path.map(|path| ("PATH", path)));
    let output = running::run(&mut command, input, running::PATIENCE, on_delay);
    output.map_err(|e| Error::input(attempt).because(e))
}

/// Everything a helper prints; reasons appear on either stream.
fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn failed(attempt: &str, output: &Output, keys: &[&str]) -> Error {
    let words = words(output);
    if may_hold_secret(&words, keys) {
        return Error::input(format!(
            "{attempt}: {}; its message may contain the secret and is not shown",
            output.status
        ));
    }
    let message: String = words.trim().chars().take(300).flat_map(char::escape_debug).collect();
    Error::input(format!("{attempt}: {}: {message}", output.status))
}

/// Whether the text contains the beginning of something like a JSON object, or what may be the key of a secret with its value.
/// A helper may fail after it has found the credentials, and its output may be partial and not JSON. The bare word among
/// others is shown, because “password store is empty” and “token expired” are helpful. A secret that stands alone cannot be
/// told from other words.
fn may_hold_secret(words: &str, keys: &[&str]) -> bool {
    let lower = words.to_ascii_lowercase();
    let has_value = |key: &&str| lower.match_indices(*key).any(|(at, key)| begins_value(&lower[at + key.len()..]));
    lower.contains('{') || keys.iter().any(has_value)
}

/// Whether a value starts `after` a key, which may be part of a longer name, with any quotes: in a list, a query, a table, a
/// tag.
fn begins_value(after: &str) -> bool {
    let after = after.trim_start_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-'));
    let is_between = |c: char| matches!(c, '"' | '\'' | '`' | '\\' | ']' | ')') || c.is_whitespace() && c != '\t';
    let after = after.trim_start_matches(is_between);
    after.starts_with([':', '=', '>', '|', '\t']) || after.starts_with("%3")
}

fn strange(attempt: &str) -> Error {
    Error::input(format!("{attempt}: its answer is not the JSON expected of a helper"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_the_secret_is_withheld_and_what_helps_is_shown() {
        for withheld in [
            r#"{"ServerURL":"h","Username":"u","Secret":"hunter2"}"#,
            "{'Username': 'u', 'secret': 'hunter2'}",
            "ServerURL=x Username=u Password=hunter2",
            "Username: u\nTOKEN: hunter2",
            "warning: session ended { hunter2",
            "token = hunter2",
            "'token' : 'hunter2'",
            r#"out: \"access_token\":\"hunter2\""#,
            "password store is empty, secret_id=hunter2",
            "https://h/login?id_token%3Dhunter2",
            "<Secret>hunter2</Secret>",
            "user\ttoken\t\nu\thunter2",
            "| user | token |",
        ] {
            assert!(may_hold_secret(withheld, &KEYS), "{withheld}");
        }
        for shown in [
            NOT_FOUND,
            "user cancelled",
            "exit status 2: gpg: decryption failed: No pinentry",
            "pass not initialized: exit status 1: Error: password store is empty. Try \"pass init\".",
            "token expired, run `vault login`",
            "error: the token has expired: log in again",
            "no secret found at https://vault.example:8200/v1/kv",
            "the tokenizer failed",
        ] {
            assert!(!may_hold_secret(shown, &KEYS), "{shown}");
        }
        // Code that knows the password searches for it, not for words about it.
        assert!(!may_hold_secret("password: too short", &KEYS[..1]));
    }
}
