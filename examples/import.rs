//! The isolated side's main job with the library: proves a bundle and pushes its images into a registry.
//!
//! ```text
//! cargo run --example import -- images.tar registry.internal:5000/mirror [them.pub]
//! ```

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use gapferry::app::{BundleInput, Environment, ImportRequest, PushOptions, PushReport, ReceiptFile, Trust, import};
use gapferry::base::progress::Lines;
use gapferry::verify::Refusal;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            for problem in Refusal::of(&error).into_iter().flat_map(|refusal| &refusal.problems) {
                eprintln!("{}: {}", problem.path, problem.kind.label());
            }
            eprintln!("{}", error.chain());
            ExitCode::FAILURE
        }
    }
}

/// Whether everything is there.
async fn run() -> gapferry::Result<bool> {
    let mut arguments = std::env::args().skip(1);
    let (Some(bundle), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err(gapferry::Error::input("usage: import BUNDLE HOST[:PORT][/PREFIX] [KEY]"));
    };
    let mut push = PushOptions::to(to);
    push.receipt = Some(ReceiptFile { path: PathBuf::from("receipt.json"), sign_key: None });
    let mut request = ImportRequest::new(Vec::new(), push);
    request.bundle = BundleInput::Files { paths: vec![bundle.into()], state: None, verify_first: true };
    // Progress and warnings go to standard error; credentials, proxies, mirrors and the policy are those of this machine and user.
    let environment = Environment::of_process(Arc::new(Lines::new(false)));
    let keys: Vec<PathBuf> = arguments.next().into_iter().map(PathBuf::from).collect();
    request.trust = Trust::load(&keys, &environment)?;
    let report = import(request, &environment).await?;
    if let PushReport::Pushed(pushed) = &report.push {
        for image in &pushed.receipt.images {
            println!(
                "{:?} {}",
                image.outcome,
                image.reference.as_ref().map_or(image.source.clone(), ToString::to_string)
            );
        }
        if let Some(error) = &pushed.failure {
            eprintln!("{}", error.chain());
        }
    }
    Ok(report.push.outcome().is_ok())
}
