//! Options that add programs and other files to a bundle.

use std::path::PathBuf;

use crate::base::error::Result;
use crate::base::progress::plain_piece;
use crate::base::progress::units::bytes;
use crate::bundle::{FileEntry, Tool};

#[derive(clap::Args)]
pub struct ToolArgs {
    /// Include this program as tools/gapferry
    ///
    /// For an isolated side that has nothing yet: `tar -xf BUNDLE.tar tools/gapferry SHA256SUMS`, then `sha256sum -c
    /// --ignore-missing SHA256SUMS`. A binary that you built needs a C library at least as new as on the build machine;
    /// a static one runs on any Linux with the same processor architecture. Use --tool-file for other architectures.
    #[arg(long, help_heading = "Images", hide_short_help = true)]
    include_tool: bool,
    /// Include this file as tools/NAME
    ///
    /// Repeatable: a program for another architecture, a script, a key. gapferry never runs or pushes it.
    #[arg(long, value_name = "FILE", help_heading = "Images", hide_short_help = true)]
    tool_file: Vec<PathBuf>,
}

impl ToolArgs {
    /// Checks the files. Call this before any request to a registry.
    ///
    /// # Errors
    /// Lists every file that cannot be included.
    pub fn read(&self) -> Result<Vec<Tool>> {
        Tool::read_all(self.include_tool, &self.tool_file)
    }
}

/// Renders the tools of a bundle as one line, or as nothing if there are no tools.
pub fn tools_table<'a>(tools: impl Iterator<Item = &'a FileEntry>) -> String {
    let one = |file: &FileEntry| format!("{} ({})", plain_piece(&file.path), bytes(file.size));
    let all: Vec<String> = tools.map(one).collect();
    if all.is_empty() { String::new() } else { format!("with {}\n", all.join(", ")) }
}
