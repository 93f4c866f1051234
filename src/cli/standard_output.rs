//! `-o -`: writes a bundle to standard output.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::app::{OneStreamSink, Output};
use crate::base::error::{Error, Kind, Result};
use crate::bundle::{Section, StreamSink};

/// The name of standard output and standard input on the command line.
pub const STANDARD: &str = "-";

/// Options that do not combine with a bundle on standard output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Besides {
    pub json: bool,
    pub dry_run: bool,
    pub read_back: bool,
}

/// Opens standard output for a bundle.
///
/// # Errors
/// Another option conflicts with it, or standard output is a terminal.
pub fn output(besides: Besides) -> Result<Output> {
    let Besides { json, dry_run, read_back } = besides;
    let refuse = |why: &str| Err(Error::input(format!("writing to standard output: {why}")));
    if json && !dry_run {
        return refuse("the bundle goes there, so --json cannot; `export --lock FILE` says what is in it");
    }
    if read_back {
        return refuse("what went there cannot be read back; verify it where it arrives");
    }
    if std::io::stdout().is_terminal() && !dry_run {
        return refuse("it is a terminal; pipe it somewhere (| ssh …, > FILE), or name an output");
    }
    Ok(Output::Stream { name: PathBuf::from("standard output"), sink: OneStreamSink::new(Stdout::open()?) })
}

/// Standard output without its line buffer.
struct Stdout(File);

impl Stdout {
    fn open() -> Result<Stdout> {
        let own = std::io::stdout().as_fd().try_clone_to_owned();
        own.map(|fd| Stdout(File::from(fd))).map_err(failed)
    }
}

impl StreamSink for Stdout {
    /// Bytes are written unchanged.
    fn begin(&mut self, _: Section) -> Result<()> {
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(failed)
    }

    fn finish(&mut self) -> Result<()> {
        // A file must be synced before the command reports success. Pipes and devices cannot be synced.
        match self.0.metadata() {
            Ok(metadata) if metadata.is_file() => self.0.sync_all().map_err(failed),
            _ => Ok(()),
        }
    }
}

fn failed(error: std::io::Error) -> Error {
    let text = match error.kind() {
        std::io::ErrorKind::BrokenPipe => {
            "writing to standard output: the reading process has ended; its copy of the stream is cut off, and every reader will report that"
        }
        _ => "writing to standard output",
    };
    Error::new(Kind::Disk, text).because(error)
}
