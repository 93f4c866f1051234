//! `gapferry inventory`: what a target has of an allowlist, as a baseline for the next increment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

use super::allowlist::read_file;
use super::context::{Context, check_writable};
use super::exit::Outcome;
use super::hint;
use super::push::report::keep;
use super::push::{NameArgs, Names, absent};
use super::registry::RegistryArgs;
use super::signing::SignArgs;
use crate::base::document::Document;
use crate::base::error::{Error, Result};
use crate::base::progress::units::count;
use crate::increment::{Asker, Holdings, Unreadable};
use crate::pipeline::allowlist::{Allowlist, refused};
use crate::pipeline::naming::parse_target;
use crate::pipeline::receipt::{ImageOutcome, ImageReceipt, Receipt, ReceiptKind};

const ABOUT: &str = "\
Asks a registry what it has of the images of an allowlist, and writes that down for `export --since`: where there is no receipt, \
or nobody knows which one is the last.

Nothing is guessed: every manifest below a tag is read and proven, and the registry is asked for each blob. Names are made as \
`import` makes them, so give the same options. Of a pattern, or a name without a tag, the tags count that are at the target.

What this account may not read is named, and the exit code is 1; the rest is written all the same. The exit code is also 1 if a list \
of tags may be short.

With --sign-key the inventory is signed too, in FILE.sig, for `export --since-key`.";

const AFTER: &str = "\
Examples:
  gapferry inventory harbor.internal/mirror -f images.txt -o inventory.json
  gapferry export -f images.txt --since inventory.json -o next.tar     # connected side";

/// Write down what a registry has, for the next increment
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The target, as for import
    #[arg(value_name = "HOST[:PORT][/PREFIX]")]
    target: String,
    /// Allowlist file, `-` for standard input; repeatable
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
    #[command(flatten)]
    sign: SignArgs,
    /// Keep the source host as the first part of the path
    #[arg(long, conflicts_with = "flatten", help_heading = "Names")]
    scoped: bool,
    #[command(flatten)]
    names: NameArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    check_writable(&args.output)?;
    let target = parse_target(&args.target)?;
    args.registry.claim_stdin()?;
    let key = args.sign.key(context)?;
    if key.is_some() && args.output.is_none() {
        return Err(Error::input("--sign-key signs a file: name one by -o FILE"));
    }
    let naming = args.names.naming(&target, Names::Hosted { scoped: args.scoped })?;
    let files: Vec<(String, Vec<u8>)> = args.files.iter().map(|path| read_file(path)).collect::<Result<_>>()?;
    let allowlist = Allowlist::parse_sources(&[], &files).map_err(|problems| refused("the allowlist", &problems))?;
    let registries = args.registry.connect([target.registry.clone()], &BTreeMap::new(), context)?;
    let places = allowlist.rules.iter().map(|rule| {
        let repository = naming.repository(&target.registry, rule.select.repository(), rule.rename.as_ref())?;
        Ok(repository.with_tag("latest".parse().map_err(|e| Error::input("naming").because(e))?))
    });
    let closed = absent(&registries, &target, &places.collect::<Result<Vec<_>>>()?).await?;
    let (source, sink, jobs) = (&registries, &registries, args.registry.jobs());
    let asker = Asker { source, sink, closed: &closed, jobs, events: &context.events };
    let (named, mut unreadable) = asker.expand(&allowlist.rules, &naming, &target.registry).await?;
    let Holdings { mut images, confirmed, manifests, unreadable: more } = asker.ask(&named).await?;
    images.extend(unreadable.iter().map(|it| ImageReceipt::lost(it.source.clone(), None, it.error.chain())));
    unreadable.extend(more);
    if unreadable.len() == images.len()
        && let Some(Unreadable { error, .. }) = unreadable.first()
    {
        return Err(error.clone());
    }
    let there = images.iter().filter(|image| image.outcome == ImageOutcome::Present).count();
    let (version, kind, to, finished) = (Receipt::VERSION, ReceiptKind::Inventory, args.target, Timestamp::now());
    let receipt = Receipt {
        version,
        kind,
        bundle: None,
        created: None,
        target: to,
        finished,
        pruned: Vec::new(),
        wanted: Vec::new(),
        images,
        missing: Vec::new(),
        confirmed,
        manifests,
    };
    context.end();
    match &args.output {
        Some(path) => keep(path, &receipt, key.as_deref())?,
        None => context.print(&receipt.to_file_that_fits()?)?,
    }
    let (all, blobs) = (count(receipt.images.len(), "image"), count(receipt.confirmed.len(), "blob"));
    for Unreadable { source, error } in &unreadable {
        context.failed_image(&format!("{source}: {}", error.chain()), hint::for_error(error));
    }
    let missed = match unreadable.len() {
        0 => String::new(),
        some => format!("; {some} could not be read, and may be there"),
    };
    context.say(&format!("{there} of {all} are there as a whole; {blobs} confirmed{missed}"));
    Ok(if unreadable.is_empty() { Outcome::Done } else { Outcome::SomeImagesFailed })
}
