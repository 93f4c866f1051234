//! Bytes that are kept until the end of a run, such as manifests: in memory up to a bound for the whole process, and beyond it
//! compressed in an unnamed temporary file.
//!
//! Strangers decide how many manifests there are and how large they are. The bound keeps them from deciding how much memory
//! the program takes. An ordinary run never reaches it and creates no file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::FallocateFlags;

/// Maximum number of bytes in memory.
const IN_MEMORY: usize = 32 * 1024 * 1024;
/// Maximum size of the temporary file in bytes, compressed.
const IN_FILE: u64 = 8 * 1024 * 1024 * 1024;
/// zstd's fastest ordinary level: JSON shrinks to a fraction of its size.
const LEVEL: i32 = 1;
/// Bytes that are returned at a time.
const PIECE: usize = 128 * 1024;

static SPOOL: LazyLock<Arc<Spool>> = LazyLock::new(|| Arc::new(Spool::new(IN_MEMORY, IN_FILE)));

/// Stores bytes.
#[derive(Debug)]
struct Spool {
    in_memory: usize,
    in_file: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes in memory.
    used: usize,
    file: Option<Arc<File>>,
    /// The end of the file, and the number of bytes in use.
    end: u64,
    filled: u64,
}

/// Bytes that are kept until the last clone is dropped.
#[derive(Clone)]
pub struct Kept(Arc<Held>);

struct Held {
    place: Place,
    size: usize,
    spool: Arc<Spool>,
}

enum Place {
    Memory(Bytes),
    File {
        file: Arc<File>,
        offset: u64,
        /// Their compressed length in the file.
        packed: usize,
    },
    /// There was no space for them, with the reason.
    Nowhere(Full),
}

/// Why bytes could not be kept.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}; manifests beyond {} MiB are kept in a temporary file: set TMPDIR to a directory with space", IN_MEMORY >> 20)]
struct Full {
    why: String,
    kind: io::ErrorKind,
}

impl Kept {
    /// Approximate overhead in memory in bytes, wherever the bytes are.
    pub const OVERHEAD: usize = size_of::<Held>() + 32;

    /// Stores `bytes`. If there is no space for them, reading them back fails.
    pub fn new(bytes: &[u8]) -> Kept {
        SPOOL.store(bytes)
    }

    /// The number of bytes.
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// Passes the bytes to `take` in order and in pieces: bytes in the file are never in memory as a whole.
    ///
    /// # Errors
    /// As for [`Kept::bytes`], or `take` failed.
    pub fn read(&self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let Place::File { file, offset, packed } = &self.0.place else { return take(&self.bytes()?) };
        let mut plain = zstd::Decoder::new(Section { file, offset: *offset, left: *packed })?;
        let (mut buffer, mut left) = (vec![0; PIECE], self.0.size);
        while left > 0 {
            match plain.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    take(&buffer[..read.min(left)])?;
                    left = left.saturating_sub(read);
                }
            }
        }
        Ok(())
    }

    /// The bytes.
    ///
    /// # Errors
    /// There was no space for them, or the temporary file cannot be read.
    pub fn bytes(&self) -> io::Result<Bytes> {
        match &self.0.place {
            Place::Memory(bytes) => Ok(bytes.clone()),
            Place::File { file, offset, packed } => {
                let mut compressed = vec![0; *packed];
                file.read_exact_at(&mut compressed, *offset)?;
                zstd::bulk::decompress(&compressed, self.0.size).map(Bytes::from)
            }
            Place::Nowhere(full) => Err(io::Error::new(full.kind, full.clone())),
        }
    }
}

/// Part of a file, readable as if it were a file.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    left: usize,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.left);
        let read = self.file.read_at(&mut buffer[..most], self.offset)?;
        (self.offset, self.left) = (self.offset + read as u64, self.left - read);
        Ok(read)
    }
}

impl Spool {
    fn new(in_memory: usize, in_file: u64) -> Spool {
        Spool { in_memory, in_file, state: Mutex::default() }
    }

    fn store(self: &Arc<Spool>, bytes: &[u8]) -> Kept {
        let place = match self.reserve(bytes.len()) {
            // A slice may be part of a larger buffer.
            true => Place::Memory(Bytes::copy_from_slice(bytes)),
            false => self.write(bytes).unwrap_or_else(Place::Nowhere),
        };
        Kept(Arc::new(Held { place, size: bytes.len(), spool: Arc::clone(self) }))
    }

    /// Reserves memory, if available.
    fn reserve(&self, bytes: usize) -> bool {
        let mut state = self.state();
        let fits = state.used.saturating_add(bytes) <= self.in_memory;
        if fits {
            state.used += bytes;
        }
        fits
    }

    fn write(&self, bytes: &[u8]) -> Result<Place, Full> {
        let packed = zstd::bulk::compress(bytes, LEVEL).map_err(full)?;
        let (file, offset) = self.reserve_in_file(packed.len() as u64)?;
        if let Err(error) = file.write_all_at(&packed, offset) {
            self.release_in_file(&file, offset, packed.len());
            return Err(full(error));
        }
        Ok(Place::File { file, offset, packed: packed.len() })
    }

    fn reserve_in_file(&self, bytes: u64) -> Result<(Arc<File>, u64), Full> {
        let mut state = self.state();
        if state.filled.saturating_add(bytes) > self.in_file {
            let why = format!("the manifests of this run take more than {} GiB, compressed", self.in_file >> 30);
            return Err(Full { why, kind: io::ErrorKind::QuotaExceeded });
        }
        let file = match &state.file {
            Some(file) => Arc::clone(file),
            None => Arc::new(tempfile::tempfile().map_err(full)?),
        };
        let offset = state.end;
        state.file = Some(Arc::clone(&file));
        state.end += bytes;
        state.filled += bytes;
        Ok((file, offset))
    }

    fn release_in_file(&self, file: &File, offset: u64, bytes: usize) {
        // Not every file system supports this; the space is then freed at the end of the run.
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = rustix::fs::fallocate(file, flags, offset, bytes as u64);
        self.state().filled -= bytes as u64;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full(error: io::Error) -> Full {
    let directory: PathBuf = std::env::temp_dir();
    Full { why: format!("there is no space for it in {}: {error}", directory.display()), kind: error.kind() }
}

impl Drop for Held {
    fn drop(&mut self) {
        match &self.place {
            Place::Memory(bytes) => self.spool.state().used -= bytes.len(),
            Place::File { file, offset, packed } => self.spool.release_in_file(file, *offset, *packed),
            Place::Nowhere(_) => {}
        }
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({} bytes)", self.0.size)
    }
}

/// Equal if the bytes are equal; bytes that cannot be read are equal to nothing.
///
impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        let read = || Some(self.bytes().ok()? == other.bytes().ok()?);
        Arc::ptr_eq(&self.0, &other.0) || (self.0.size == other.0.size && read() == Some(true))
    }
}

impl Eq for Kept {}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(n: usize) -> Bytes {
        Bytes::from(vec![u8::try_from(n % 251).unwrap(); 1000 + n])
    }

    #[test]
    fn what_does_not_fit_into_memory_comes_back_from_the_file() {
        let spool = Arc::new(Spool::new(10_000, IN_FILE));
        let all: Vec<Kept> = (0..100).map(|n| spool.store(&bytes(n))).collect();
        let taken = || {
            let state = spool.state();
            (state.used, state.filled)
        };
        let (used, filled) = taken();
        assert!(used <= 10_000 && filled > 0);
        for (n, kept) in all.iter().enumerate() {
            assert_eq!(kept.bytes().unwrap(), bytes(n));
            let mut read = Vec::new();
            kept.read(&mut |piece| {
                read.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
            assert_eq!(read, bytes(n));
        }
        assert_ne!(all[98], all[99]);
        assert_eq!(all[99], spool.store(&bytes(99)));
        drop(all);
        assert_eq!(taken(), (0, 0));
        assert!(matches!(spool.store(&bytes(1)).0.place, Place::Memory(_)), "room that was given back is used again");
    }

    #[test]
    fn a_file_that_is_full_is_an_error_where_the_bytes_are_needed() {
        let spool = Arc::new(Spool::new(0, 0));
        let kept = spool.store(&bytes(1));
        let message = "the manifests of this run take more than 0 GiB, compressed; manifests beyond 32 MiB are kept in a temporary file: \
                    set TMPDIR to a directory with space";
        assert_eq!(kept.bytes().unwrap_err().to_string(), message);
    }
}
