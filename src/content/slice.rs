//! The location of one piece of content: a file in a directory, an entry of a tar, or several such regions in a row.
//!
//! It is always read by position, so any number of readers share an open file, and nothing is extracted. It uses read() and
//! not mmap, because a bad medium must cause an error and not a signal.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use rustix::io::{Errno, ReadWriteFlags};

use super::Body;
use crate::archive::seekable::Seekable;
use crate::base::error::{Error, Kind, Result};
use crate::oci::{Algorithm, Digest, Hasher};

/// Bytes per read for a stream: what stays in a core's cache until it is hashed and sent.
const PIECE: usize = 64 * 1024;
/// Bytes per read when every piece costs a switch to another thread: enough to make the switch cheap.
const LARGE_PIECE: usize = 512 * 1024;
/// Bytes per read for hashing: enough to keep a disk busy.
const HASH_BUFFER: usize = 1024 * 1024;

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct Slice {
    /// At least one, in the order of the content.
    extents: Arc<[Extent]>,
    size: u64,
}

/// Receives a piece and its position in the content.
pub type Take<'a, E> = dyn FnMut(&[u8], u64) -> std::result::Result<(), E> + 'a;

/// Why bytes could not be read, and their position in the content.
#[derive(Debug)]
pub struct Unreadable {
    pub position: u64,
    pub error: io::Error,
}

impl From<Unreadable> for io::Error {
    fn from(unreadable: Unreadable) -> io::Error {
        unreadable.error
    }
}

/// A region of one file.
#[derive(Clone, Debug)]
struct Extent {
    file: Medium,
    /// For messages.
    path: Arc<PathBuf>,
    offset: u64,
    /// Its start and end in the content.
    begin: u64,
    end: u64,
}

/// What contains the bytes.
#[derive(Clone, Debug)]
enum Medium {
    File(Arc<File>),
    Compressed(Arc<Seekable>),
}

impl Slice {
    /// `size` bytes of `file` from `offset`. `path` is the name in errors.
    pub fn new(file: Arc<File>, path: impl Into<PathBuf>, offset: u64, size: u64) -> Slice {
        Slice::of(Medium::File(file), path.into(), offset, size)
    }

    /// Does the same for the decompressed content of `file`.
    pub fn compressed(file: Arc<Seekable>, path: impl Into<PathBuf>, offset: u64, size: u64) -> Slice {
        Slice::of(Medium::Compressed(file), path.into(), offset, size)
    }

    fn of(file: Medium, path: PathBuf, offset: u64, size: u64) -> Slice {
        let only = Extent { file, path: Arc::new(path), offset, begin: 0, end: size };
        Slice { extents: [only].into(), size }
    }

    /// Joins `pieces`. Returns `None` for no pieces, or if the size overflows.
    pub fn joined(pieces: impl IntoIterator<Item = Slice>) -> Option<Slice> {
        let (mut extents, mut size) = (Vec::new(), 0_u64);
        for piece in pieces {
            for extent in piece.extents.iter().filter(|extent| extent.begin < piece.size) {
                let (begin, end) = (size.checked_add(extent.begin)?, size.checked_add(extent.end.min(piece.size))?);
                extents.push(Extent { begin, end, ..extent.clone() });
            }
            // An empty piece is kept only if there is no other.
            if extents.is_empty() {
                extents.extend(piece.extents.first().map(|extent| Extent { begin: 0, end: 0, ..extent.clone() }));
            }
            size = size.checked_add(piece.size)?;
        }
        (!extents.is_empty()).then(|| Slice { extents: extents.into(), size })
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its start in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.extents.first().map_or(0, |first| first.offset)
    }

    /// When its file was last modified, if known.
    pub fn modified(&self) -> Option<std::time::SystemTime> {
        match &self.extents.first()?.file {
            Medium::File(file) => file.metadata().and_then(|metadata| metadata.modified()).ok(),
            Medium::Compressed(file) => file.modified(),
        }
    }

    /// The path of the file, or of the first of several.
    pub fn path(&self) -> &Path {
        self.path_at(0)
    }

    /// The file that contains the byte at `position`.
    fn path_at(&self, position: u64) -> &Path {
        self.extent_at(position).map_or(Path::new(""), |extent| &extent.path)
    }

    /// The extent with the byte at `position`, or the last one.
    fn extent_at(&self, position: u64) -> Option<&Extent> {
        let at = self.extents.partition_point(|extent| extent.end <= position);
        self.extents.get(at).or(self.extents.last())
    }

    /// The first `end` bytes of the slice.
    pub fn until(mut self, end: u64) -> Slice {
        self.size = self.size.min(end);
        self
    }

    /// The bytes from `begin` to `end`, as far as they exist.
    pub fn between(&self, begin: u64, end: u64) -> Slice {
        let end = end.min(self.size);
        let begin = begin.min(end);
        let part = |extent: &Extent| {
            let (from, to) = (extent.begin.max(begin), extent.end.min(end));
            let offset = extent.place_of(from);
            (from < to).then(|| Extent { offset, begin: from - begin, end: to - begin, ..extent.clone() })
        };
        let mut extents: Vec<Extent> = self.extents.iter().filter_map(part).collect();
        if extents.is_empty() {
            extents.extend(self.extent_at(begin).map(|extent| Extent { begin: 0, end: 0, ..extent.clone() }));
        }
        Slice { extents: extents.into(), size: end - begin }
    }

    /// Reads up to `buffer.len()` bytes from `position`; returns 0 at the end of the slice.
    ///
    /// # Errors
    /// The medium fails, or a file ends before the slice does.
    pub fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((extent, left)) = self.left_at(position) else { return Ok(0) };
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let (buffer, place) = (&mut buffer[..want], extent.place_of(position));
        let read = match &extent.file {
            Medium::File(file) => file.read_at(buffer, place),
            Medium::Compressed(file) => file.read_at(buffer, place),
        };
        match read? {
            0 => Err(cut_short(left)),
            read => Ok(read),
        }
    }

    /// The extent with the byte at `position`, and the number of bytes left in it; `None` at the end of the slice.
    fn left_at(&self, position: u64) -> Option<(&Extent, u64)> {
        let extent = self.extent_at(position).filter(|_| position < self.size)?;
        Some((extent, extent.end.min(self.size).saturating_sub(position)))
    }

    /// Reads everything, if it is not larger than `limit` bytes.
    ///
    /// # Errors
    /// It is larger or cannot be read.
    pub fn read_all(&self, limit: u64) -> Result<Bytes> {
        if self.size > limit {
            let text = format!("reading {}: it has {} bytes, more than {limit}", self.path().display(), self.size);
            return Err(Error::new(Kind::Damaged, text));
        }
        let mut all = vec![0; usize::try_from(self.size).unwrap_or_default()];
        let mut filled = 0;
        while filled < all.len() {
            let read = self.read_at(filled as u64, &mut all[filled..]);
            filled += read.map_err(|error| self.unreadable(Unreadable { position: filled as u64, error }))?;
        }
        Ok(all.into())
    }

    /// Lets `target`, an empty file, share the bytes, if the file system supports it.
    ///
    /// # Errors
    /// The file system does not support it, or the slice is only part of a file.
    pub fn reflink(&self, target: &File) -> io::Result<()> {
        match &self.extents[..] {
            [Extent { file: Medium::File(file), offset: 0, .. }] if file.metadata()?.len() == self.size => {
                Ok(rustix::fs::ioctl_ficlone(target, file)?)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The error for bytes with another digest, `found`.
    pub fn wrong(&self, found: Digest) -> Error {
        let text = format!("{}: wrong digest: its bytes have {found}", self.path().display());
        Error::new(Kind::Damaged, text)
    }

    /// Hashes everything. `progress` receives the size of every piece in bytes.
    ///
    /// # Errors
    /// The bytes cannot be read to the end.
    pub fn hash(&self, algorithm: Algorithm, progress: &dyn Fn(u64)) -> io::Result<Digest> {
        self.hash_prefix(algorithm, self.size, progress).map(Hasher::finish)
    }

    /// The hash state after the first `length` bytes.
    ///
    /// # Errors
    /// The bytes cannot be read that far.
    pub fn hash_prefix(&self, algorithm: Algorithm, length: u64, progress: &dyn Fn(u64)) -> io::Result<Hasher> {
        let mut hasher = Hasher::new(algorithm);
        self.read_prefix(length, &mut |piece, _| {
            hasher.update(piece);
            progress(piece.len() as u64);
            Ok::<(), Unreadable>(())
        })?;
        Ok(hasher)
    }

    /// Passes the first `length` bytes to `take`, in order and in pieces, each with its position.
    ///
    /// # Errors
    /// The bytes cannot be read that far, or `take` failed.
    pub fn read_prefix<E: From<Unreadable>>(&self, length: u64, take: &mut Take<'_, E>) -> std::result::Result<(), E> {
        let length = length.min(self.size);
        let mut buffer = vec![0; usize::try_from(length).unwrap_or(HASH_BUFFER).clamp(1, HASH_BUFFER)];
        let mut position = 0;
        while position < length {
            let want = usize::try_from(length - position).unwrap_or(usize::MAX).min(buffer.len());
            let read = self.read_at(position, &mut buffer[..want]).map_err(|error| Unreadable { position, error })?;
            take(&buffer[..read], position)?;
            position += read as u64;
        }
        Ok(())
    }

    /// The bytes from `offset`.
    ///
    /// Cached data is read directly by the calling thread. Data that must come from a medium is read on a separate thread, and
    /// so is everything on a file system that cannot tell the difference.
    pub fn stream(self, offset: u64) -> Body {
        let file = Some(self.path().to_owned());
        let pieces = stream::try_unfold((self, offset, true), |(slice, position, asks)| async move {
            if position >= slice.size {
                return Ok(None);
            }
            let cached = if asks { slice.read_cached(position) } else { Err(Errno::OPNOTSUPP) };
            let asks = !cached.as_ref().is_err_and(is_not_known);
            let piece = match cached {
                Ok(piece) => piece,
                Err(_) => slice.clone().read_waiting(position, if asks { PIECE } else { LARGE_PIECE }).await?,
            };
            let next = position + piece.len() as u64;
            Ok(Some((piece, (slice, next, asks))))
        });
        Body { file, ..Body::new(offset, pieces.boxed()) }
    }

    /// Up to [`PIECE`] bytes from `position`, at least one, if they are available without waiting for a medium. Any problem is
    /// left to [`read_waiting`](Self::read_waiting).
    fn read_cached(&self, position: u64) -> rustix::io::Result<Bytes> {
        let (extent, left) = self.left_at(position).ok_or(Errno::AGAIN)?;
        let mut buffer = vec![0; piece_of(left, PIECE)];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let Medium::File(file) = &extent.file else { return Err(Errno::OPNOTSUPP) };
        let read = rustix::io::preadv2(file, &mut parts, extent.place_of(position), ReadWriteFlags::NOWAIT)?;
        buffer.truncate(read);
        if read > 0 { Ok(buffer.into()) } else { Err(Errno::AGAIN) }
    }

    async fn read_waiting(self, position: u64, most: usize) -> Result<Bytes> {
        let slice = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; piece_of(slice.left_at(position).map_or(0, |(_, left)| left), most)];
            let read = slice.read_at(position, &mut buffer)?;
            buffer.truncate(read);
            Ok(buffer.into())
        });
        // The read is lost only when the run is ending.
        let piece = read.await.unwrap_or_else(|lost| Err(io::Error::other(lost)));
        piece.map_err(|error| self.unreadable(Unreadable { position, error }))
    }

    /// The error for bytes that could not be read; it names the file that contains them.
    pub fn unreadable(&self, Unreadable { position, error }: Unreadable) -> Error {
        Error::disk("reading", self.path_at(position), error)
    }
}

impl Extent {
    /// The position in the file of the byte at `position` of the content.
    fn place_of(&self, position: u64) -> u64 {
        self.offset.saturating_add(position.saturating_sub(self.begin))
    }
}

fn piece_of(left: u64, most: usize) -> usize {
    usize::try_from(left).unwrap_or(most).min(most)
}

/// Whether the file system, or the whole system, does not support reading without waiting.
fn is_not_known(error: &Errno) -> bool {
    matches!(*error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)
}

fn cut_short(left: u64) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the file ends {left} bytes too early"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(content: &[u8], offset: u64, size: u64) -> (tempfile::NamedTempFile, Slice) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let slice = Slice::new(Arc::new(File::open(file.path()).unwrap()), file.path(), offset, size);
        (file, slice)
    }

    async fn all(body: Body) -> Result<Vec<u8>> {
        let mut stream = body.stream;
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a_stream_has_exactly_the_bytes_of_its_slice() {
        let content: Vec<u8> = (0..3 * PIECE).map(|at| (at % 251) as u8).collect();
        for (offset, size, from) in [(0, content.len(), 0), (7, 2 * PIECE, 0), (7, 2 * PIECE, PIECE + 1), (9, 5, 5)] {
            let (_file, slice) = slice(&content, offset as u64, size as u64);
            let waited = slice.clone().read_waiting(from as u64, PIECE).await;
            let read = all(slice.stream(from as u64)).await.unwrap();
            assert_eq!(read, content[offset + from..offset + size], "{size} bytes at {offset}, from {from}");
            // What is not in memory takes another path and is the same.
            assert_eq!(waited.unwrap()[..], read[..read.len().min(PIECE)]);
        }
    }

    #[tokio::test]
    async fn a_slice_of_several_files_reads_as_one_and_names_the_file_that_fails() {
        let content: Vec<u8> = (0..3 * PIECE).map(|at| (at % 251) as u8).collect();
        let parts = [(0, 5), (5, PIECE), (PIECE + 5, 0), (PIECE + 5, 2 * PIECE - 5)];
        let cut =
            |(from, size): (usize, usize)| slice(&[&[9], &content[from..from + size], &[9]].concat(), 1, size as u64);
        let (files, slices): (Vec<_>, Vec<_>) = parts.map(cut).into_iter().unzip();
        let joined = Slice::joined(slices).unwrap();
        assert_eq!(joined.size(), content.len() as u64);
        for from in [0, 4, 5, 6, PIECE + 4, PIECE + 5, 3 * PIECE - 1, 3 * PIECE] {
            assert_eq!(all(joined.clone().stream(from as u64)).await.unwrap(), content[from..], "from {from}");
        }
        assert_eq!(joined.read_all(u64::MAX).unwrap(), content);
        assert_eq!(joined.clone().until(6).read_all(10).unwrap(), content[..6]);
        for (begin, end) in
            [(0, 5), (3, 6), (5, PIECE + 6), (PIECE + 4, 3 * PIECE), (7, 7), (9, 4 * PIECE), (4 * PIECE, 9)]
        {
            let part = joined.between(begin as u64, end as u64);
            let end = end.min(content.len());
            let expected = &content[begin.min(end)..end];
            assert_eq!(
                (part.size(), part.read_all(u64::MAX).unwrap()),
                (expected.len() as u64, expected.to_vec().into())
            );
        }
        let again = Slice::joined([joined.clone().until(6), joined.clone().until(7)]).unwrap();
        assert_eq!(again.read_all(13).unwrap(), [&content[..6], &content[..7]].concat());
        files[3].as_file().set_len(50).unwrap();
        let error = all(joined.stream(0)).await.unwrap_err().chain();
        assert!(error.contains(&files[3].path().display().to_string()), "{error}");
        assert!(Slice::joined([]).is_none());
    }

    #[tokio::test]
    async fn a_file_system_that_cannot_tell_what_is_in_memory_is_read_anyway_in_larger_pieces() {
        // A kernel file: it can be read by position, but not without waiting.
        let (path, content) = ("/proc/version", std::fs::read("/proc/version").unwrap());
        let version = Slice::new(Arc::new(File::open(path).unwrap()), path, 0, content.len() as u64);
        assert!(version.read_cached(0).is_err_and(|error| is_not_known(&error)));
        assert_eq!(all(version.stream(0)).await.unwrap(), content);
        let content: Vec<u8> = (0..LARGE_PIECE + PIECE).map(|at| (at % 251) as u8).collect();
        let (_file, slice) = slice(&content, 0, content.len() as u64);
        assert_eq!(slice.clone().read_waiting(0, LARGE_PIECE).await.unwrap(), content[..LARGE_PIECE]);
        assert_eq!(slice.read_waiting(LARGE_PIECE as u64, LARGE_PIECE).await.unwrap(), content[LARGE_PIECE..]);
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_an_error_and_not_an_end() {
        let (file, slice) = slice(&[7; 100], 10, 90);
        file.as_file().set_len(50).unwrap();
        let error = all(slice.stream(0)).await.unwrap_err();
        assert!(error.chain().contains("ends 50 bytes too early"), "{}", error.chain());
    }
}
