//! The tar, compressed in frames, into a file that gets its name last.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::{Kind, Outlet};
use crate::archive::seekable::{Frames, Packing};
use crate::base::document::OtherVersion;
use crate::base::error::{self, Error, Result};
use crate::base::fsops::{self, Entry, Open, WriteLock, publish};
use crate::bundle::Bundle;

/// How the names of such files end.
const ENDING: &str = ".tar.zst";
/// How much is written at a time.
const BUFFER: usize = 1 << 20;

/// `OUT.tar.zst` while it is written. Dropped before its end it leaves nothing.
pub struct Compressed {
    partial: Entry,
    frames: Option<Frames<BufWriter<File>>>,
    lock: WriteLock,
}

impl Compressed {
    /// Whether `out` means such a file.
    pub fn is_meant(out: &Path) -> bool {
        let name = out.file_name().unwrap_or_default().as_encoded_bytes().to_ascii_lowercase();
        name.ends_with(ENDING.as_bytes())
    }

    /// To be asked before anything that takes time.
    ///
    /// # Errors
    /// Another run is writing `out`, or something that no export has made has its name, or that of the unfinished one.
    pub fn check_free(out: &Path) -> Result<()> {
        let out = &fsops::canonicalize(out)?;
        WriteLock::check(out)?;
        fsops::refuse_other_than_file(&fsops::beside(out, ".partial"))?;
        fsops::refuse_other_than_file(out)?;
        match Bundle::open(out) {
            Ok(_) => Ok(()),
            Err(_) if out.symlink_metadata().is_err() => Ok(()),
            Err(error) if error.find::<OtherVersion>().is_some() => {
                let text = format!("writing {}: what is there is not overwritten; remove it", out.display());
                Err(error.while_doing(text))
            }
            Err(error) => {
                let why = match error.kind() {
                    error::Kind::Damaged => "a damaged bundle is there; remove it",
                    _ => "something is there that is not a bundle, and it is not overwritten; name another output",
                };
                Err(Error::input(format!("writing {}: {why}", out.display())))
            }
        }
    }

    /// Begins `OUT.partial`; what an earlier run has left of it is of no use.
    ///
    /// # Errors
    /// Another run is writing it, or the disk's.
    pub fn create(out: &Path) -> Result<Compressed> {
        Compressed::check_free(out)?;
        let out = fsops::canonicalize(out)?;
        let parent = fsops::parent(&out);
        fs::create_dir_all(parent).map_err(|e| Error::disk("creating", parent, e))?;
        let lock = WriteLock::take(&out)?;
        let partial = lock.output().beside(".partial");
        let frames = Some(Frames::new(BufWriter::with_capacity(BUFFER, partial.open(Open::Empty)?)));
        Ok(Compressed { partial, frames, lock })
    }

    fn frames(&mut self) -> Result<&mut Frames<BufWriter<File>>> {
        let ended =
            || Error::new(error::Kind::Disk, format!("writing {}: it has ended", self.partial.path().display()));
        self.frames.as_mut().ok_or_else(ended)
    }
}

impl Outlet for Compressed {
    fn begin(&mut self, kind: Kind) -> Result<()> {
        let packing = if kind == Kind::Packed { Packing::Store } else { Packing::Compress };
        let partial = self.partial.clone();
        self.frames()?.begin(packing).map_err(|e| Error::disk("writing", partial.path(), e))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let partial = self.partial.clone();
        self.frames()?.write(bytes).map_err(|e| Error::disk("writing", partial.path(), e))
    }

    fn finish(&mut self) -> Result<()> {
        let writing = |e| Error::disk("writing", self.partial.path(), e);
        let Some(frames) = self.frames.take() else { return Ok(()) };
        let mut out = frames.finish().map_err(writing)?;
        out.flush().map_err(writing)?;
        publish(out.get_ref(), &self.partial, self.lock.output())
    }
}

impl Drop for Compressed {
    fn drop(&mut self) {
        if self.frames.is_some() {
            // It cannot be continued; that it stays would harm nobody.
            let _ = self.partial.remove();
        }
    }
}
