//! `import --prune`: removes tags of images that are no longer wanted.

use std::path::PathBuf;

use crate::app::{Arrived, PruneOptions, PruneReport, Pruned};
use crate::base::error::Result;
use crate::base::progress::units::count;
use crate::cli::context::Context;
use crate::cli::receipts;
use crate::cli::signing::public;

#[derive(clap::Args)]
pub struct PruneArgs {
    /// Afterwards, list tags of images that are no longer wanted
    ///
    /// These are images that an earlier bundle contained and the allowlist of this one does not. With --yes and --arrived,
    /// gapferry deletes their tags if they still have the digest they had then. Use --newer-than so that an old bundle
    /// cannot remove newer images. Registries that cannot delete a single tag (distribution before 3.0) keep it, and
    /// gapferry says so. Companions that gapferry pushed are deleted when no remaining tag leads to their image; signatures
    /// made on this side stay. Deleting manifests and layers is left to the registry's garbage collection.
    #[arg(long, help_heading = "Pushing", hide_short_help = true)]
    prune: bool,
    /// With --prune and --arrived: delete the tags
    #[arg(long, requires = "prune", help_heading = "Pushing", hide_short_help = true)]
    yes: bool,
    /// Prune only what this receipt says gapferry pushed
    ///
    /// Repeatable. Use receipts of earlier imports (--receipt) that never left this side. Images that an import only found
    /// at the target do not count: another user may have pushed them. A receipt that replaces an earlier one keeps its
    /// record of pushed images, and so does the receipt of an import with --arrived. What was pushed by an import that was
    /// killed, or that wrote no receipt, must be deleted by hand. The bundle itself is not accepted as evidence, because it
    /// is derived from a receipt that crossed the gap; nor is an inventory, which also lists what others pushed.
    #[arg(long, value_name = "RECEIPT", requires = "prune", help_heading = "Pushing", hide_short_help = true)]
    arrived: Vec<PathBuf>,
    /// Reject --arrived receipts that this public key did not sign
    ///
    /// Repeatable: one matching key is enough. The signature of FILE is read from FILE.sig, where --sign-key writes it.
    #[arg(long, value_name = "FILE", requires = "arrived", help_heading = "Pushing", hide_short_help = true)]
    arrived_key: Vec<PathBuf>,
}

impl PruneArgs {
    /// Converts the options for the library, and reads the receipts of `--arrived`.
    ///
    /// # Errors
    /// A receipt cannot be read, is an inventory, or lacks the required signature.
    pub fn options(&self, context: &Context) -> Result<Option<PruneOptions>> {
        let arrived = if self.arrived.is_empty() { None } else { Some(self.arrived(context)?) };
        Ok(self.prune.then_some(PruneOptions { delete: self.yes, arrived }))
    }

    fn arrived(&self, context: &Context) -> Result<Arrived> {
        let keys = self.arrived_key.iter().map(|key| public(key)).collect::<Result<Vec<_>>>()?;
        let read = self.arrived.iter().map(|path| receipts::read(path, &keys, "--arrived-key", context));
        Arrived::new(read.collect::<Result<Vec<_>>>()?, !keys.is_empty())
    }
}

/// Prints the summary.
pub fn show(pruned: &Pruned, context: &Context) {
    let report = match pruned {
        Pruned::Skipped => return context.say("nothing is pruned: not everything has arrived"),
        Pruned::Done(report) => report,
    };
    let PruneReport { tags, deleted_tags, companions, deleted_companions, deletes, has_receipts } = *report;
    let and = |text: String| if companions == 0 { String::new() } else { text };
    let (counted, beside) = (count(tags, "tag"), count(companions, "companion"));
    context.say(&match deletes {
        _ if tags + companions == 0 => "nothing to prune".to_owned(),
        true => {
            let more = and(format!(", {deleted_companions} of {beside}"));
            format!("{deleted_tags} of {counted} deleted{more}")
        }
        false if has_receipts => {
            let more = and(format!(" and {beside}"));
            format!("{counted}{more} to prune; --yes deletes them")
        }
        false => format!(
            "{counted} to prune; --yes deletes those that gapferry brought: name the receipts that were kept here by \
             --arrived FILE"
        ),
    });
}
