//! `gapferry logout`: removes stored credentials.

use std::path::PathBuf;

use super::context::Context;
use super::exit::CommandOutcome;
use crate::app::{self, LoginTarget, LogoutRequest};
use crate::base::error::Result;
use crate::base::progress::Event;

const ABOUT: &str = "\
Removes stored credentials for a registry, no matter which tool stored them: gapferry, skopeo, podman or docker. \
gapferry looks where `gapferry login` stores them and then in the other files it reads. It removes them from the \
first file that has any, and from the credential helper that the file names. The rest of the file is not changed.

Exit codes: 0 removed; 2 there were none.";

const AFTER: &str = "\
Examples:
  gapferry logout harbor.internal
  gapferry logout harbor.internal --all     # and its namespaces
  gapferry logout --all --authfile auth.json";

/// Remove stored credentials for a registry
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Registry, or a namespace in it
    #[arg(value_name = "HOST[/NAMESPACE]", required_unless_present = "all")]
    host: Option<String>,
    /// Also remove those of namespaces; without HOST: remove all
    #[arg(short, long)]
    all: bool,
    /// Credentials file; default: as for `gapferry login`
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Print what was removed as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    let target = args.host.as_deref().map(LoginTarget::parse).transpose()?;
    let request = LogoutRequest { target, below: args.all, authfile: args.authfile };
    let report = app::logout(&request, &context.environment)?;
    for origin in &report.forgotten {
        context.say(&format!("forgotten: {origin}"));
    }
    if let Some((target, origin)) = request.target.zip(report.remaining.as_ref()) {
        let text = format!("{target} is still shown credentials: {origin}");
        context.environment.events.report(Event::Warning(text));
    }
    if args.json {
        context.print_json(&report)?;
    }
    Ok(CommandOutcome::Done)
}
