//! `--read-back`: what was written is read from the medium before it is called done.

#[derive(clap::Args)]
pub struct ReadBackArgs {
    /// Read all of it from the medium again, not from memory, before calling it done
    ///
    /// For sticks, cards and discs that take more than they keep. What comes back otherwise loses its name again: it is called
    /// `.partial`, and the exit code is 3. Where the system keeps it in memory all the same (tmpfs), that is told.
    #[arg(long, help_heading = "Output", hide_short_help = true)]
    pub read_back: bool,
}
