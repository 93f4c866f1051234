//! Registries with rate limits: waiting, resuming later, and not requesting known content. And the log of requests.

mod checkpoint;
mod echo;
mod known;
mod log;
mod memory;
mod patience;
pub mod shop;

use std::process::Output;

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
