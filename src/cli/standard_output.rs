//! Standard output as the outlet of a bundle that is written in one pass.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use crate::base::error::{Error, Kind, Result};
use crate::bundle::stream::Outlet;

/// Standard output as it is, without the buffer that ends at lines.
pub struct StandardOutput(File);

impl StandardOutput {
    /// # Errors
    /// It is closed.
    pub fn open() -> Result<StandardOutput> {
        let own = std::io::stdout().as_fd().try_clone_to_owned();
        own.map(|fd| StandardOutput(File::from(fd))).map_err(failed)
    }
}

impl Outlet for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(failed)
    }

    fn finish(&mut self) -> Result<()> {
        // A file is on its medium before it is called done; what is none cannot be synced.
        match self.0.metadata() {
            Ok(metadata) if metadata.is_file() => self.0.sync_all().map_err(failed),
            _ => Ok(()),
        }
    }
}

fn failed(error: std::io::Error) -> Error {
    let text = match error.kind() {
        std::io::ErrorKind::BrokenPipe => {
            "writing to standard output: whoever read it has gone; what has gone out is cut short, and every reader will say so"
        }
        _ => "writing to standard output",
    };
    Error::new(Kind::Disk, text).because(error)
}
