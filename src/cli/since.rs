//! What an export builds on.

use std::path::PathBuf;

use super::allowlist::input;
use super::context::Context;
use super::signing::public;
use crate::app::{self, Input};
use crate::base::error::Result;
use crate::increment::Baseline;
use crate::pipeline::receipt::MAX_RECEIPT;
use crate::signing::PublicKey;

#[derive(clap::Args)]
pub struct SinceArgs {
    /// Leave out what this receipt says has arrived
    ///
    /// Repeatable. A receipt (`import --receipt`) and an inventory (`gapferry inventory`) confirm what is there; `-` reads one from
    /// standard input. That a bundle has arrived is an assumption; one volume of a set stands for all of it. Import finds everything that was
    /// left out at the target before it pushes anything. Of receipts of several registries only what all of them have is left out.
    #[arg(long, value_name = "FILE", help_heading = "What to carry")]
    since: Vec<PathBuf>,
    /// Refuse what --since names if this public key has not signed it
    ///
    /// Repeatable: one of them has to have. The signature of a receipt or an inventory stands beside it, in FILE.sig, where
    /// `--sign-key` of import and inventory puts it.
    #[arg(long, value_name = "FILE", help_heading = "What to carry", requires = "since", hide_short_help = true)]
    since_key: Vec<PathBuf>,
}

impl SinceArgs {
    /// `None`: the bundle is to be complete in itself.
    ///
    /// # Errors
    /// A file that is neither a receipt, an inventory nor a bundle, or cannot be read.
    pub fn read(&self, context: &Context) -> Result<Option<Baseline>> {
        let keys = self.since_key.iter().map(|key| public(key)).collect::<Result<Vec<PublicKey>>>()?;
        let since = self.since.iter().map(|path| input(path, MAX_RECEIPT + 1)).collect::<Result<Vec<Input>>>()?;
        match since.is_empty() {
            true => Ok(None),
            false => app::read_baseline(&since, &keys, &context.environment.events).map(Some),
        }
    }
}
