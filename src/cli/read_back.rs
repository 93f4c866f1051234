//! `--read-back`: read the output back from the medium before reporting success.

#[derive(clap::Args)]
pub struct ReadBackArgs {
    /// Read everything back from the medium before reporting success
    ///
    /// For faulty or counterfeit media that accept more data than they store. The read bypasses the page cache. If the data
    /// differs, the output is renamed to OUT.partial, and the exit code is 3. On file systems that live in
    /// memory (tmpfs) gapferry warns that this proves nothing.
    #[arg(long, help_heading = "Output", hide_short_help = true)]
    pub read_back: bool,
}
