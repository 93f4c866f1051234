//! `--read-back`: what was written is read from the medium before it is called done.

use std::path::PathBuf;

use super::context::Context;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::bundle;

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
        for path in paths {
            context.end();
            let (shown, events) = (path.display().to_string(), context.events.clone());
            let reading = tokio::task::spawn_blocking(move || bundle::read_back(&path, &events));
            let stopped = |e| Error::new(Kind::Interrupted, format!("reading back {shown}")).because(e);
            if reading.await.map_err(stopped)?? {
                context.say(&format!("{shown}: read back"));
                continue;
            }
            let text = "read back, but perhaps from memory, which the system would not let go of: unmount it, or take the medium \
                        out, and `gapferry verify` it";
            context.events.report(Event::Warning(format!("{shown}: {text}")));
        }
        Ok(())
    }
}
