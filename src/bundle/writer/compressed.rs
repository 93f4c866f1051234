//! Writes the tar, compressed in frames, into a file that gets its name at the end.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::sink::{Section, StreamSink};
use crate::archive::seekable::{Frames, Packing};
use crate::base::error::{self, Error, Result};
use crate::base::fsops::{self, Entry, Occupant, Open, WriteLock, publish_over};
use crate::bundle::options::Form;
use crate::bundle::preflight;

/// Bytes per write.
const BUFFER: usize = 1 << 20;

/// `OUT.tar.zst` while it is written. If dropped early, it leaves nothing.
pub struct Compressed {
    partial: Entry,
    /// What had the name at the start; nothing else is replaced.
    former: Occupant,
    frames: Option<Frames<BufWriter<File>>>,
    is_published: bool,
    lock: WriteLock,
}

impl Compressed {
    /// Starts `OUT.partial`; the remains of an earlier run are useless.
    ///
    /// # Errors
    /// Something other than a bundle has the name, another run is writing it, or the disk fails.
    pub fn create(out: &Path) -> Result<Compressed> {
        preflight::check_free(out, &Form::Compressed)?;
        let out = fsops::canonicalize(out)?;
        fsops::Dir::create(fsops::parent(&out))?;
        let lock = WriteLock::take(&out)?;
        let former = lock.output().occupant();
        preflight::refuse_foreign(&out, &Form::Compressed)?;
        let partial = lock.output().beside(".partial");
        let frames = Some(Frames::new(BufWriter::with_capacity(BUFFER, partial.open(Open::Empty)?)));
        Ok(Compressed { partial, former, frames, is_published: false, lock })
    }

    fn frames(&mut self) -> Result<&mut Frames<BufWriter<File>>> {
        let ended = || {
            Error::new(error::Kind::Disk, format!("writing {}: it has already ended", self.partial.path().display()))
        };
        self.frames.as_mut().ok_or_else(ended)
    }
}

impl StreamSink for Compressed {
    fn begin(&mut self, section: Section) -> Result<()> {
        let packing = if section == Section::Packed { Packing::Store } else { Packing::Compress };
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
        publish_over(out.get_ref(), &self.partial, self.lock.output(), self.former)?;
        self.is_published = true;
        Ok(())
    }
}

impl Drop for Compressed {
    fn drop(&mut self) {
        if !self.is_published {
            // It cannot be continued; if it stays, it does no harm.
            let _ = self.partial.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_get_its_name_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("b.tar.zst");
        let mut compressed = Compressed::create(&out).unwrap();
        compressed.write(b"all of it").unwrap();
        std::fs::create_dir(&out).unwrap();
        assert!(compressed.finish().is_err());
        drop(compressed);
        assert!(!directory.path().join("b.tar.zst.partial").exists());
    }
}
