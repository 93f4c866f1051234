//! The embedded registry, as skopeo and plain HTTP see it.

mod command;
mod deleting;
mod differential;
mod killed;
mod limits;
mod mirror;
mod reading;
mod refused;
mod strangers;
mod writing;

use std::path::Path;

use crate::support;
use crate::support::embedded::Embedded;
use crate::support::images::Image;

/// Makes a layout with these images by pushing them into an empty directory.
fn layout_of(directory: &Path, pushed: &[Image]) {
    let server = Embedded::writable(directory);
    pushed.iter().for_each(|image| image.push(&server));
}

fn docker(server: &Embedded, reference: &str) -> String {
    format!("docker://{}/{reference}", server.host())
}

fn code(answer: &support::http::Answer) -> String {
    answer.json()["errors"][0]["code"].as_str().expect("a code").to_owned()
}
