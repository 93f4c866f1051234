//! A bundle that comes out of a pipe, and not from a file.

use std::fs::File;
use std::io::{BufReader, Cursor, IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::context::take_stdin;
use crate::archive::{seekable, tar};
use crate::base::error::{Error, Result};

/// How much is read at a time, in bytes: a tape gives one record, whatever its length.
const BUFFER: usize = 1 << 20;

/// What can be read once.
pub struct Piped {
    /// What errors call it.
    pub path: PathBuf,
    pub input: Input,
}

impl Piped {
    /// `None`: it is a file or a directory, or is not there.
    ///
    /// # Errors
    /// It is a terminal, cannot be opened, or what comes out of it is no tar.
    pub fn open(path: &Path) -> Result<Option<Piped>> {
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
        let reading = |e| Error::disk("reading", &path, e);
        let (mut start, mut input) = begin(Box::new(BufReader::with_capacity(BUFFER, file))).map_err(reading)?;
        if start.starts_with(&seekable::MAGIC) {
            let packed = Cursor::new(start).chain(input);
            (start, input) = begin(Box::new(seekable::decompressed(packed).map_err(reading)?)).map_err(reading)?;
        }
        let mut block = [0; 512];
        block[..start.len()].copy_from_slice(&start);
        if !tar::looks_like_tar(&path, &block)? {
            let what = if start.is_empty() { "is empty" } else { "is not a tar" };
            return Err(Error::input(format!("{} {what}", path.display())));
        }
        Ok(Some(Piped { path, input: Box::new(Cursor::new(start).chain(input)) }))
    }
}

/// Bytes that can be read once.
pub type Input = Box<dyn Read + Send>;

/// The first block, and what follows.
fn begin(mut input: Input) -> std::io::Result<(Vec<u8>, Input)> {
    let mut start = Vec::with_capacity(512);
    input.by_ref().take(512).read_to_end(&mut start)?;
    Ok((start, input))
}

fn is_stream(kind: std::fs::FileType) -> bool {
    // Not a disk: behind a bundle on it comes whatever was there before.
    kind.is_fifo() || kind.is_char_device()
}
