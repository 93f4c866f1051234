//! `gapferry prove`: what a receipt confirms, read back from the registry.

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
Reads back from a registry, over HTTP, everything that a receipt or an inventory confirms to be there, and proves its digests: a \
check of a registry whose storage is out of reach.

Tags must still mean what they meant; all manifests are read first, which gives the bytes to be read. Each blob is then read to its \
end once: registries keep one copy, and a repository only a name for it. In every other repository its last byte shows that the \
name leads to content of that length; --every-repository reads all of it there too. Mirrors are not asked. Limits of the registry \
are obeyed, and --jobs says how much is read at once.

What was proven is noted in RECEIPT.proving, or in the file of --state: after an interruption the same command goes on, blob by \
blob. The file is removed when all is done, so that the next proof reads everything again.

A tag that was moved or deleted since is one result, and its image is not looked for any further.

Exit code 0: everything was proven. 3: something is wrong, or a manifest or blob is missing. 1: tags were moved or deleted, or \
something could not be read. 4, 5: the registry refused, or could not be reached.";

const AFTER: &str = "\
Examples:
  gapferry import images.tar --to harbor.internal/mirror --receipt receipt.json --prove
  gapferry prove receipt.json
  gapferry prove receipt.json --dry-run
  gapferry prove receipt.json --key ours.pub
  gapferry prove receipt.json --to harbor-copy.internal/mirror
  gapferry prove receipt.json --json | jq -r '.images[] | select(.verdict != \"proven\") | .reference'";

/// More images that are wrong are not shown one by one.
const MOST_SHOWN: usize = 1000;

/// Prove over HTTP that a registry still has what a receipt confirms
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The receipt of an import or a migration, or an inventory
    receipt: PathBuf,
    /// Refuse a receipt that this public key has not signed
    ///
    /// Repeatable: one of them has to have. The signature stands beside the receipt, in RECEIPT.sig, where --sign-key puts it.
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Where it is now, if the registry has another name or its images have another prefix
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    to: Option<String>,
    /// Read every blob in every repository that needs it
    #[arg(long)]
    every_repository: bool,
    /// Ask about tags and manifests, print how much there is to read, and read none of it
    #[arg(long)]
    dry_run: bool,
    /// Note what was proven in this file instead of RECEIPT.proving
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Print one result for each image as JSON
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
