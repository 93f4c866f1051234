//! `gapferry logout`: what a login has kept is forgotten.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::{Context, env, environment};
use super::exit::Outcome;
use super::login_target::LoginTarget;
use crate::app::{JsonReport, REPORT_VERSION};
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::credentials::{Kept, Origin, Store, Variables};

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

/// What was forgotten.
#[derive(Serialize)]
struct LogoutReport {
    version: u32,
    ok: bool,
    /// Where it was kept.
    forgotten: Vec<Origin>,
}

impl JsonReport for LogoutReport {}

pub fn run(args: Args, context: &Context) -> Result<Outcome> {
    let login_target = args.host.as_deref().map(LoginTarget::parse).transpose()?;
    let files = Kept::all(args.authfile.as_deref(), &env);
    let forgotten = match &login_target {
        Some(login_target) => forget(&files, login_target, args.all)?,
        // What the other files have was not written by a login of this kind.
        None => files.first().map_or(Ok(Vec::new()), Kept::log_out_of_all)?,
    };
    let whom = login_target.as_ref().map_or("all registries".to_owned(), LoginTarget::to_string);
    if forgotten.is_empty() {
        let looked = if login_target.is_some() { &files[..] } else { files.get(..1).unwrap_or_default() };
        let paths: Vec<String> = looked.iter().map(|file| file.path().display().to_string()).collect();
        return Err(Error::input(format!("logging out of {whom}: nothing is kept in {}", paths.join(", "))));
    }
    for origin in &forgotten {
        context.say(&format!("forgotten: {origin}"));
    }
    if let Some(login_target) = &login_target {
        warn_of_others(login_target, args.authfile.as_deref(), context);
    }
    if args.json {
        context.print_json(&LogoutReport { version: REPORT_VERSION, ok: true, forgotten })?;
    }
    Ok(Outcome::Done)
}

/// The credentials that count: those of the first file that has any.
fn forget(files: &[Kept], login_target: &LoginTarget, below: bool) -> Result<Vec<Origin>> {
    for file in files {
        let forgotten = file.log_out(&login_target.registry, &login_target.path, below)?;
        if !forgotten.is_empty() {
            return Ok(forgotten);
        }
    }
    Ok(Vec::new())
}

/// Whoever logs out wants to be unknown.
fn warn_of_others(login_target: &LoginTarget, authfile: Option<&Path>, context: &Context) {
    let mut store = Store::load(authfile, &env).unwrap_or_default();
    if authfile.is_none() {
        store.set_variables(Variables::of(environment()));
    }
    if let Ok(Some(found)) = store.locate(&login_target.registry, &login_target.path) {
        let text = format!("{login_target} is still shown credentials: {}", found.origin);
        context.environment.events.report(Event::Warning(text));
    }
}
