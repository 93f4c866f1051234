//! `gapferry list`: lists the images of a bundle.

use std::path::PathBuf;

use super::allowlist::missing_lines;
use super::context::Context;
use super::exit::CommandOutcome;
use super::render::images_table;
use super::tools;
use crate::app::{self, ListReport, ListRequest};
use crate::base::error::Result;
use crate::base::progress::units::{bytes, count};

const ABOUT: &str = "\
Lists the images of a bundle: reference, platforms, total size, digest and companions (signatures, attestations, \
SBOMs). The list comes from bundle.json, plus the manifests of companions where needed. It does not show that the \
bytes are intact; `gapferry verify` does.";

const AFTER: &str = "\
Examples:
  gapferry list images.tar
  gapferry list images.tar --json | jq -r '.images[].reference'";

/// List the images of a bundle
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Bundle: directory, tar, or any volume of a set
    #[arg(required = true)]
    bundle: Vec<PathBuf>,
    /// Print the identity and the lock as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<CommandOutcome> {
    let report = app::list(&ListRequest { bundle: args.bundle.clone() })?;
    match args.json {
        true => context.print_json(&report)?,
        false => context.print(&as_text(&report))?,
    }
    Ok(CommandOutcome::Done)
}

fn as_text(report: &ListReport) -> String {
    let summary = format!(
        "\n{}, {} ({} without sharing), resolved {}\nidentity {}\n",
        count(report.images.len(), "image"),
        bytes(report.size),
        bytes(report.unshared),
        report.created,
        report.identity,
    );
    let assumed = report.assumed.iter().map(|assumed| assumed.size).fold(0, u64::saturating_add);
    let basis = app::basis_line(&report.parents, report.assumed.len(), assumed);
    let basis = basis.map(|line| line + "\n").unwrap_or_default();
    let missing: String = missing_lines(&report.missing).iter().map(|line| format!("{line}\n")).collect();
    images_table(&report.images) + &summary + &missing + &tools::tools_table(report.tools.iter()) + &basis
}
