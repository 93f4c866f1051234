//! `gapferry prove`: reads back from a registry what a receipt confirms.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::context::Context;
use super::exit::CommandOutcome;
use super::receipts;
use super::registry::RegistryArgs;
use super::render::proof::{show_withheld, summary};
use super::signing::public;
use crate::app::{self, NamedReceipt, Proof, ProveRequest, state_beside};
use crate::base::error::Result;
use crate::pipeline::prove::{ImageProof, Verdict};

const ABOUT: &str = "\
Reads back from a registry, over HTTP, everything that a receipt or an inventory confirms, and verifies its digests. \
It checks a registry whose storage you cannot reach.

gapferry first checks that the tags have not moved and reads all manifests. It then reads each blob completely once: \
registries store one copy, and each repository refers to it. In the other repositories it reads only the last byte, \
which shows that the repository refers to content of that size; --every-repository reads all of it there too. \
Mirrors are not used. gapferry respects the registry's rate limits; --jobs sets how much it reads in parallel.

Progress is recorded in RECEIPT.proving, or in the file given by --state. After an interruption, the same command \
continues. The file is removed when the proof is complete, so the next proof reads everything again.

A tag that was moved or deleted is reported, and its image is not checked further.

Exit codes: 0 everything is proven; 3 something is wrong or missing; 1 tags were moved or deleted, or something \
could not be read; 4, 5 the registry refused or could not be reached.";

const AFTER: &str = "\
Examples:
  gapferry prove receipt.json
  gapferry prove receipt.json --dry-run
  gapferry prove receipt.json --key our.pub
  gapferry prove receipt.json --to harbor-copy.internal/mirror
  gapferry prove receipt.json --json |
    jq -r '.images[] | select(.verdict != \"proven\") | .reference'";

/// Limit on the images that are shown one by one.
const MOST_SHOWN: usize = 1000;

/// Read back what a receipt confirms and verify it
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Receipt of an import or a migration, or an inventory
    receipt: PathBuf,
    /// Require a signature by this public key; repeatable
    ///
    /// One matching key is enough. The signature is read from RECEIPT.sig, where --sign-key writes it.
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Registry to read from, if it has moved since
    ///
    /// Use this if the registry has another name, or its images another prefix.
    #[arg(long, value_name = "HOST[/PREFIX]")]
    to: Option<String>,
    /// Read every blob in every repository that uses it
    #[arg(long)]
    every_repository: bool,
    /// Check tags and manifests, print the amount to read, and stop
    #[arg(long)]
    dry_run: bool,
    /// Record progress in FILE instead of RECEIPT.proving
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Print one result per image as JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    args.registry.claim_stdin()?;
    let keys = args.key.iter().map(|key| public(key)).collect::<Result<Vec<_>>>()?;
    let receipt = receipts::read(&args.receipt, &keys, "--key", context)?;
    let request = ProveRequest {
        receipt: NamedReceipt { name: args.receipt.display().to_string(), ..receipt },
        to: args.to,
        every_repository: args.every_repository,
        dry_run: args.dry_run,
        state: Some(args.state.unwrap_or_else(|| state_beside(&args.receipt))),
        registry: args.registry.options()?,
    };
    let report = app::prove(&request, &context.environment).await?;
    context.end();
    if args.json {
        context.print_json(&report)?;
    } else {
        print(&report.proof, context)?;
        show_withheld(&report.proof, context);
        context.say(&summary(&report.proof));
    }
    Ok(report.proof.outcome.into())
}

fn print(proof: &Proof, context: &Context) -> Result<()> {
    let is_shown = |image: &&ImageProof| image.verdict != Verdict::Proven && image.withheld().is_none();
    let wrong = || proof.images.iter().filter(is_shown);
    for image in wrong().take(MOST_SHOWN) {
        let problems: BTreeSet<&String> = image.problems.iter().map(|problem| &problem.found).collect();
        let problems: String = problems.iter().map(|problem| format!("  {problem}\n")).collect();
        context.print(&format!("{} {}\n{problems}", word(image.verdict), image.reference))?;
    }
    match wrong().count().saturating_sub(MOST_SHOWN) {
        0 => Ok(()),
        more => context.print(&format!("and {more} more\n")),
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Proven => "proven:",
        Verdict::Moved => "moved:",
        Verdict::Missing => "missing:",
        Verdict::Damaged => "damaged:",
        Verdict::Unread => "not read:",
    }
}
