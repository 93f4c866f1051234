//! Reading from imperfect registries: short lists, refused lookups, gateways in between. Omissions are reported, and
//! show in the exit code or the lock.

mod broken;
mod lists;
mod referrers;
mod usage;

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support;

/// Runs the program under test next to the server of this test.
async fn gapferry(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let run = move || support::gapferry().args(arguments).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Everything it printed.
fn all_output(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", all_output(output));
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
