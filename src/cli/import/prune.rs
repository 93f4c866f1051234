//! `import --prune`: tags of images that are not wanted any more.

use std::path::PathBuf;

use crate::app::{Arrived, PruneOptions, PruneReport, Pruned};
use crate::base::error::Result;
use crate::base::progress::units::count;
use crate::cli::context::Context;
use crate::cli::receipts;
use crate::cli::signing::public;

#[derive(clap::Args)]
pub struct PruneArgs {
    /// Afterwards list tags of images that are not wanted any more
    ///
    /// Images that were in what the bundle builds on, and are not in its allowlist. --yes with --arrived deletes these tags, if
    /// they still mean what they meant then; with --newer-than, an old bundle cannot take away what came later. Registries that cannot delete a tag
    /// alone (distribution before 3.0) keep it, and gapferry says so. Signatures, SBOMs and other companions that gapferry brought go,
    /// too, when no tag leads to what they speak of; what was signed on this side stays. Manifests of images and layers are for
    /// the registry to clean up.
    #[arg(long, help_heading = "Pushing", hide_short_help = true)]
    prune: bool,
    /// With --prune and --arrived: delete them
    #[arg(long, requires = "prune", help_heading = "Pushing", hide_short_help = true)]
    yes: bool,
    /// Prune only what this receipt says gapferry brought
    ///
    /// Repeatable. Receipts of earlier imports (--receipt) that were kept on this side. What an import only found there does not count:
    /// somebody here may have pushed it. A receipt that is written over an earlier one still says what that one says was pushed; so
    /// does one of an import with --arrived. Ctrl-C leaves a receipt, too. What an import has pushed that was killed, or had no
    /// --receipt, is to be deleted by hand. What the bundle says is no proof: it follows a receipt that crossed the gap. No
    /// inventory: that lists what others brought, too.
    #[arg(long, value_name = "RECEIPT", requires = "prune", help_heading = "Pushing", hide_short_help = true)]
    arrived: Vec<PathBuf>,
    /// Refuse what --arrived names if this public key has not signed it
    ///
    /// Repeatable: one of them has to have. The signature stands beside the receipt, in FILE.sig, where --sign-key puts it.
    #[arg(long, value_name = "FILE", requires = "arrived", help_heading = "Pushing", hide_short_help = true)]
    arrived_key: Vec<PathBuf>,
}

impl PruneArgs {
    /// What is asked for; reads the receipts of `--arrived`.
    ///
    /// # Errors
    /// One that cannot be read, is an inventory, or is not signed as it should be.
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

/// The sum of it.
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
