//! Credentials from pipes, variables and files, and `login`, `logout` and `auth check`, tested against skopeo, which
//! reads what gapferry writes and writes what gapferry reads.

mod failures;
mod given;
mod helper;
mod home;
mod kept;
mod login;
mod places;
mod verdict;

use std::process::Output;

use crate::support::images;
use crate::support::registry::{Options, Registry};
use crate::support::{gapferry, tempdir};

/// The password of every registry here. It must never appear in output.
const PASSWORD: &str = "pa:ss w0rd";

/// A registry that admits only `me`, with the image `team/app:1`.
fn closed() -> Registry {
    let registry = Registry::with(Options { credentials: Some(("me".into(), PASSWORD.into())), ..Options::default() });
    images::oci("team/app", "1", &["x"]).push(&registry);
    registry
}

fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Checks the exit code and that no output contains a secret.
#[track_caller]
fn ended(code: i32, output: &Output) -> String {
    let text = shown(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains(PASSWORD) && !text.contains(&base64(PASSWORD)), "{text}");
    text
}

/// `me` and this password as auth files encode them.
fn base64(password: &str) -> String {
    base64_of("me", password)
}

fn base64_of(user: &str, password: &str) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}
