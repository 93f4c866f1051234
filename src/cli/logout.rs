//! `gapferry logout`: what a login has kept is forgotten.

use std::path::PathBuf;

use super::context::Context;
use super::exit::CommandOutcome;
use crate::app::{self, LoginTarget, LogoutRequest};
use crate::base::error::Result;
use crate::base::progress::Event;

const ABOUT: &str = "\
Forgets the credentials for a registry, whoever logged in: gapferry, skopeo, podman or docker. They are looked for where \
`gapferry login` keeps them, then in the other files that are read; the first file that has any loses them, and so does the \
credential helper it names. All else in it stays as it is.";

const AFTER: &str = "\
Examples:
  gapferry logout harbor.internal
  gapferry logout harbor.internal --all     # and its namespaces
  gapferry logout --all --authfile auth.json

Exit code 0: forgotten. 2: there was nothing to forget.";

/// Forget the credentials kept for a registry
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The registry, or a namespace there
    #[arg(value_name = "HOST[/NAMESPACE]", required_unless_present = "all")]
    host: Option<String>,
    /// Also what is kept for namespaces below HOST; without HOST: everything in the file
    #[arg(short, long)]
    all: bool,
    /// The file of credentials; default: those that `gapferry login --help` names
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Print what was forgotten as JSON
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
