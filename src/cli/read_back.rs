//! `--read-back`: what was written is read from the medium before it is called done.

use std::path::PathBuf;

use super::context::Context;
use crate::app;
use crate::base::error::Result;

#[derive(clap::Args)]
pub struct ReadBackArgs {
    /// Read all of it from the medium again, not from memory, before calling it done
    ///
    /// For sticks, cards and discs that take more than they keep. What comes back otherwise loses its name again: it is called
    /// `.partial`, and the exit code is 3. Where the system keeps it in memory all the same (tmpfs), that is told.
    #[arg(long, help_heading = "Output", hide_short_help = true)]
    pub read_back: bool,
}

impl ReadBackArgs {
    /// Reads back these files or directories, if that was asked for.
    ///
    /// # Errors
    /// One of them is not what was written.
    pub async fn prove(&self, paths: impl IntoIterator<Item = PathBuf>, context: &Context) -> Result<()> {
        if !self.read_back {
            return Ok(());
        }
        context.end();
        app::read_back(paths, &context.events).await
    }
}
