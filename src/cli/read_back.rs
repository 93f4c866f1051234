//! `--read-back`: read the output back from the medium before reporting success.

#[derive(clap::Args)]
pub struct ReadBackArgs {
    /// Read everything back from the medium before reporting success
    ///
    /// For USB sticks, cards and discs that accept more than they store. The read bypasses the page cache. If the data
    /// differs, the output loses its name and is called `.partial`, and the exit code is 3. On file systems that live in
    /// memory (tmpfs) gapferry warns that this proves nothing.
    #[arg(long, help_heading = "Output", hide_short_help = true)]
    pub read_back: bool,
}
