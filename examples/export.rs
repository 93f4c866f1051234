//! The connected side's main job with the library: reads an allowlist and exports its images into one bundle.
//!
//! ```text
//! cargo run --example export -- images.txt images.tar
//! ```

use std::process::ExitCode;
use std::sync::Arc;

use gapferry::app::{Environment, ExportReport, ExportRequest, export, read_bounded};
use gapferry::base::position::refused;
use gapferry::base::progress::Lines;
use gapferry::pipeline::allowlist::{Allowlist, MAX_FILE_SIZE};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // A line for each image that could not be had.
            error.lines().iter().for_each(|line| eprintln!("{line}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether the bundle has everything.
async fn run() -> gapferry::Result<bool> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(list), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err(gapferry::Error::input("usage: export ALLOWLIST BUNDLE"));
    };
    let text = read_bounded(list.as_ref(), MAX_FILE_SIZE as u64 + 1)?;
    let images = Allowlist::parse_sources(&[], &[(text.name, text.bytes)]);
    let images = images.map_err(|problems| refused("the allowlist", &problems))?;
    let mut request = ExportRequest::new(images, output.into());
    // Images that cannot be had do not keep the others out; the report names them.
    request.resolve.keep_going = true;
    // Progress and warnings go to standard error; credentials, proxies and mirrors are those of this user.
    let environment = Environment::of_process(Arc::new(Lines::new(false)));
    let report = export(request, &environment).await?;
    if let ExportReport::Written(written) = &report {
        println!("{} {}", written.identity, written.output.display());
        written.missing.iter().for_each(|image| println!("missing: {image}"));
        if let Some(error) = &written.failure {
            eprintln!("{}", error.chain());
        }
    }
    Ok(report.outcome().is_ok())
}
