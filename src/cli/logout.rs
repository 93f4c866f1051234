//! `gapferry logout`: what a login has kept is forgotten.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::{Context, env, environment};
use super::exit::Outcome;
use super::site::Site;
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
    let site = args.host.as_deref().map(Site::parse).transpose()?;
    let files = Kept::all(args.authfile.as_deref(), &env);
    let forgotten = match &site {
        Some(site) => forget(&files, site, args.all)?,
        // What the other files have was not written by a login of this kind.
        None => files.first().map_or(Ok(Vec::new()), Kept::log_out_of_all)?,
    };
    let whom = site.as_ref().map_or("all registries".to_owned(), Site::to_string);
    if forgotten.is_empty() {
        let looked = if site.is_some() { &files[..] } else { files.get(..1).unwrap_or_default() };
        let paths: Vec<String> = looked.iter().map(|file| file.path().display().to_string()).collect();
        return Err(Error::input(format!("logging out of {whom}: nothing is kept in {}", paths.join(", "))));
    }
    for origin in &forgotten {
        context.say(&format!("forgotten: {origin}"));
    }
    if let Some(site) = &site {
        warn_of_others(site, args.authfile.as_deref(), context);
    }
    if args.json {
        context.print_json(&LogoutReport { version: REPORT_VERSION, ok: true, forgotten })?;
    }
    Ok(Outcome::Done)
}

/// The credentials that count: those of the first file that has any.
fn forget(files: &[Kept], site: &Site, below: bool) -> Result<Vec<Origin>> {
    for file in files {
        let forgotten = file.log_out(&site.registry, &site.path, below)?;
        if !forgotten.is_empty() {
            return Ok(forgotten);
        }
    }
    Ok(Vec::new())
}

/// Whoever logs out wants to be unknown.
fn warn_of_others(site: &Site, authfile: Option<&Path>, context: &Context) {
    let mut store = Store::load(authfile, &env).unwrap_or_default();
    if authfile.is_none() {
        store.set_variables(Variables::of(environment()));
    }
    if let Ok(Some(found)) = store.locate(&site.registry, &site.path) {
        let text = format!("{site} is still shown credentials: {}", found.origin);
        context.events.report(Event::Warning(text));
    }
}
