//! `gapferry man`: manual pages.

use std::path::{Path, PathBuf};

use super::context::{Context, write_file};
use super::exit::CommandOutcome;
use crate::base::error::{Error, Kind, Result};
use crate::base::fsops;

const AFTER: &str = "\
Examples:
  gapferry man | man -l -
  gapferry man -o /usr/local/share/man/man1";

/// Print the manual page, or write one per command
#[derive(clap::Args)]
#[command(after_long_help = AFTER)]
pub struct Args {
    /// Write gapferry.1, gapferry-export.1 and so on into DIR
    #[arg(short, long, value_name = "DIR", alias = "dir")]
    output: Option<PathBuf>,
}

pub fn run(args: &Args, context: &Context) -> Result<CommandOutcome> {
    let mut command = super::command();
    command.build();
    let Some(directory) = &args.output else {
        context.print_bytes(&page(command)?)?;
        return Ok(CommandOutcome::Done);
    };
    fsops::Dir::create(directory)?;
    write_below(&command, "gapferry", directory)?;
    write_file(&directory.join("gapferry.1"), &page(command)?)?;
    Ok(CommandOutcome::Done)
}

/// Writes the pages of all sub-commands, recursively.
fn write_below(command: &clap::Command, name: &str, directory: &Path) -> Result<()> {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("{name}-{}", sub.get_name());
        // clap requires names that live as long as the program; there are only a few.
        let leaked: &'static str = name.clone().leak();
        write_file(&directory.join(format!("{name}.1")), &page(sub.clone().name(leaked))?)?;
        write_below(sub, &name, directory)?;
    }
    Ok(())
}

fn page(command: clap::Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let title = command.get_name().to_uppercase();
    let page = clap_mangen::Man::new(command).title(title).source(concat!("gapferry ", env!("CARGO_PKG_VERSION")));
    let rendered = page.manual("gapferry manual").render(&mut text);
    rendered.map_err(|e| Error::new(Kind::Disk, "writing a manual page").because(e))?;
    Ok(text)
}
