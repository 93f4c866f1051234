//! A bundle from a pipe instead of a file.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::stdin::take_stdin;
use crate::app::BundleStream;
use crate::base::error::{Error, Result};

/// Opens standard input for `-`, or a named pipe. Returns `None` for a file, a directory or a missing path.
///
/// # Errors
/// Standard input is a terminal, the pipe cannot be opened, or its content is not a tar.
pub fn open(path: &Path) -> Result<Option<BundleStream>> {
    let is_stdin = path == Path::new("-");
    let path = if is_stdin { PathBuf::from("standard input") } else { path.to_owned() };
    let opening = |e| Error::disk("opening", &path, e);
    let file = if is_stdin {
        take_stdin("the bundle (`-`)")?;
        if std::io::stdin().is_terminal() {
            let text = "standard input is a terminal; pipe a bundle into it (ssh … |, < FILE), or name a file";
            return Err(Error::input(text));
        }
        File::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(opening)?)
    } else if path.metadata().is_ok_and(|metadata| is_stream(metadata.file_type())) {
        File::open(&path).map_err(opening)?
    } else {
        return Ok(None);
    };
    BundleStream::new(path, Box::new(file)).map(Some)
}

fn is_stream(kind: std::fs::FileType) -> bool {
    // Block devices are excluded: after the bundle they contain whatever was there before.
    kind.is_fifo() || kind.is_char_device()
}
