//! A region of a file that holds one piece of content: a whole file of a directory, or an entry of a tar.
//!
//! Always read by position: any number of readers share one open file, and nothing is ever extracted. read() and not mmap:
//! a bad medium must be an error, not a signal.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use rustix::buffer::spare_capacity;

use super::Body;
use crate::error::{Error, Kind, Result};
use crate::oci::{Algorithm, Digest, Hasher};

/// How much is read at a time for a stream.
const PIECE: usize = 256 * 1024;
/// How much is read at a time for hashing: enough to keep a disk busy.
const HASH_BUFFER: usize = 1024 * 1024;

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct Slice {
    file: Arc<File>,
    /// For messages.
    path: Arc<PathBuf>,
    offset: u64,
    size: u64,
}

impl Slice {
    /// `size` bytes of `file` from `offset` on. `path` is what errors call it.
    pub fn new(file: Arc<File>, path: impl Into<PathBuf>, offset: u64, size: u64) -> Slice {
        Slice { file, path: Arc::new(path.into()), offset, size }
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same, ending after its first `end` bytes.
    pub fn until(mut self, end: u64) -> Slice {
        self.size = self.size.min(end);
        self
    }

    /// Reads at most `buffer.len()` bytes from `position` on; 0 at the end of the slice.
    ///
    /// # Errors
    /// A failing medium, or a file that ends before the slice does.
    pub fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(position);
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        match self.file.read_at(&mut buffer[..want], self.offset.saturating_add(position))? {
            0 => Err(cut_short(left)),
            read => Ok(read),
        }
    }

    /// Up to [`PIECE`] bytes from `position` on, into memory that was not zeroed for it; never empty.
    fn read_piece(&self, position: u64) -> io::Result<Bytes> {
        let left = self.size.saturating_sub(position);
        let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let mut buffer = Vec::with_capacity(want);
        let from = self.offset.saturating_add(position);
        rustix::io::retry_on_intr(|| rustix::io::pread(&self.file, spare_capacity(&mut buffer), from))?;
        if buffer.is_empty() {
            return Err(cut_short(left));
        }
        // The allocator may have given more room than was asked for: what lies behind is another entry's.
        buffer.truncate(want);
        Ok(buffer.into())
    }

    /// All of it, when it is no larger than `limit` bytes.
    ///
    /// # Errors
    /// Larger than that, or not readable.
    pub fn read_all(&self, limit: u64) -> Result<Bytes> {
        if self.size > limit {
            let text = format!("reading {}: it has {} bytes, more than {limit}", self.path.display(), self.size);
            return Err(Error::new(Kind::Damaged, text));
        }
        let mut all = vec![0; usize::try_from(self.size).unwrap_or_default()];
        let mut filled = 0;
        while filled < all.len() {
            let read = self.read_at(filled as u64, &mut all[filled..]);
            filled += read.map_err(|e| Error::disk("reading", &self.path, e))?;
        }
        Ok(all.into())
    }

    /// Hashes it from the start; `progress` hears of every piece, in bytes.
    ///
    /// # Errors
    /// Not readable to its end.
    pub fn hash(&self, algorithm: Algorithm, progress: &dyn Fn(u64)) -> io::Result<Digest> {
        self.hash_prefix(algorithm, self.size, progress).map(Hasher::finish)
    }

    /// The state of hashing after the first `length` bytes.
    ///
    /// # Errors
    /// Not readable up to there.
    pub fn hash_prefix(&self, algorithm: Algorithm, length: u64, progress: &dyn Fn(u64)) -> io::Result<Hasher> {
        let mut hasher = Hasher::new(algorithm);
        let length = length.min(self.size);
        let mut buffer = vec![0; usize::try_from(length).unwrap_or(HASH_BUFFER).clamp(1, HASH_BUFFER)];
        let mut position = 0;
        while position < length {
            let want = usize::try_from(length - position).unwrap_or(usize::MAX).min(buffer.len());
            let read = self.read_at(position, &mut buffer[..want])?;
            hasher.update(&buffer[..read]);
            position += read as u64;
            progress(read as u64);
        }
        Ok(hasher)
    }

    /// The bytes from `offset` on, read ahead on a thread of their own.
    pub fn stream(self, offset: u64) -> Body {
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            let mut position = offset;
            while position < self.size {
                let piece = self.read_piece(position).map_err(|e| Error::disk("reading", &self.path, e));
                position += piece.as_ref().map_or(0, |piece| piece.len() as u64);
                let failed = piece.is_err();
                if sender.blocking_send(piece).is_err() || failed {
                    return;
                }
            }
        });
        let pieces = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        Body { offset, stream: pieces.boxed() }
    }
}

fn cut_short(left: u64) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the file ends {left} bytes too early"))
}

/// Does `work` for every item on `threads` threads; results come in the items' order. Hashing is the work it is for.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
