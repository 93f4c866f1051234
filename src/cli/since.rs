//! Options that name what an increment builds on.

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
    /// Leave out what the target has according to this receipt, inventory or bundle
    ///
    /// Repeatable; `-` reads a receipt from standard input. A receipt (`import --receipt`) or an inventory (`gapferry
    /// inventory`) confirms what the target has. Of a bundle, or one volume of a set, gapferry assumes that it arrived. Import
    /// checks that the target has everything that was left out before it pushes anything. Given receipts of several
    /// registries, only what all of them have is left out.
    #[arg(long, value_name = "FILE", help_heading = "Images")]
    since: Vec<PathBuf>,
    /// Reject --since files that this public key did not sign
    ///
    /// Repeatable: one matching key is enough. The signature of FILE is read from FILE.sig, where --sign-key of `import`
    /// and `inventory` writes it.
    #[arg(long, value_name = "FILE", help_heading = "Images", requires = "since", hide_short_help = true)]
    since_key: Vec<PathBuf>,
}

impl SinceArgs {
    /// Returns `None` if the bundle must be complete in itself.
    ///
    /// # Errors
    /// A file cannot be read, or is neither a receipt, an inventory nor a bundle.
    pub fn read(&self, context: &Context) -> Result<Option<Baseline>> {
        let keys = self.since_key.iter().map(|key| public(key)).collect::<Result<Vec<PublicKey>>>()?;
        let since = self.since.iter().map(|path| input(path, MAX_RECEIPT + 1)).collect::<Result<Vec<Input>>>()?;
        match since.is_empty() {
            true => Ok(None),
            false => app::read_baseline(&since, &keys, &context.environment.events).map(Some),
        }
    }
}
