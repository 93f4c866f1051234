//! `gapferry completions`: completion scripts for shells.

use clap_complete::Shell;

use super::context::Context;
use super::exit::CommandOutcome;
use crate::base::error::Result;

const AFTER: &str = "\
Examples:
  gapferry completions zsh >~/.zfunc/_gapferry
  gapferry completions fish >~/.config/fish/completions/gapferry.fish
  gapferry completions bash \\
    >~/.local/share/bash-completion/completions/gapferry";

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(after_long_help = AFTER)]
pub struct Args {
    /// Shell
    shell: Shell,
}

pub fn run(args: &Args, context: &Context) -> Result<CommandOutcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "gapferry", &mut script);
    context.print_bytes(&script)?;
    Ok(CommandOutcome::Done)
}
