//! `gapferry inventory`: what a target has of an allowlist, as the base of the next increment.

use std::path::PathBuf;

use super::allowlist::read_lists;
use super::context::{Context, check_writable};
use super::exit::CommandOutcome;
use super::hint;
use super::push::NameArgs;
use super::registry::RegistryArgs;
use super::signing::SignArgs;
use crate::app::{self, InventoryFailure, InventoryRequest, Names, ReceiptFile};
use crate::base::error::{Error, Result};
use crate::base::progress::units::count;
use crate::pipeline::naming::parse_target;

const ABOUT: &str = "\
Asks a registry which images of an allowlist it has, and writes an inventory for `export --since`. Use it if there \
is no receipt, or if it is not known which receipt is the latest.

gapferry reads and verifies every manifest below each tag and asks for every blob. Names at the target are derived \
as `import` derives them, so give the same options. For a tag pattern or a name without a tag, the tags at the \
target count.

Images that this account cannot read are listed and the exit code is 1; the inventory contains the others. The exit \
code is also 1 if a list of tags may be incomplete.";

const AFTER: &str = "\
Examples:
  gapferry inventory harbor.internal/mirror -f images.txt -o inventory.json
  gapferry export -f images.txt --since inventory.json -o next.tar";

/// Record what a registry has, for the next increment
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Target registry, as for import
    #[arg(value_name = "HOST[/PREFIX]")]
    target: String,
    /// Allowlist file, `-` for standard input; repeatable
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Write the inventory to FILE instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
    /// Print a summary as JSON
    #[arg(long, requires = "output", help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    sign: SignArgs,
    /// Keep the source registry as the first path component
    #[arg(long, conflicts_with = "flatten", help_heading = "Names")]
    scoped: bool,
    #[command(flatten)]
    names: NameArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    check_writable(&args.output)?;
    let json = args.json;
    let request = args.request(context)?;
    let report = app::inventory(&request, &context.environment).await?;
    context.end();
    if request.output.is_none() {
        context.print(&report.inventory.to_file_that_fits()?)?;
    } else if json {
        context.print_json(&report)?;
    }
    for InventoryFailure { source, error } in &report.unreadable {
        context.failed_image(&format!("{source}: {}", error.chain()), hint::for_error(error));
    }
    let missed = match report.unreadable.len() {
        0 => String::new(),
        some => format!("; {some} could not be read and may exist"),
    };
    let (all, confirmed) = (count(report.image_count, "image"), report.confirmed_count);
    let summary = format!("{} of {all} are complete; {confirmed} blobs and manifests confirmed", report.present);
    context.say(&(summary + &missed));
    Ok(report.outcome.into())
}

impl Args {
    fn request(self, context: &Context) -> Result<InventoryRequest> {
        // Before asking for a passphrase.
        parse_target(&self.target)?;
        self.registry.claim_stdin()?;
        let output = match (self.output, self.sign.key(context)?) {
            (None, Some(_)) => return Err(Error::input("--sign-key signs a file: name one by -o FILE")),
            (path, sign_key) => path.map(|path| ReceiptFile { path, sign_key }),
        };
        let names = self.names.options(Names::Hosted, self.scoped)?;
        let allowlist = read_lists(&[], &self.files)?;
        Ok(InventoryRequest { target: self.target, allowlist, names, output, registry: self.registry.options()? })
    }
}
