//! Reads the headers of a plain tar: which entries it has, and at which offsets. The caller decides which names are valid and
//! what the entries mean.
//!
//! It supports POSIX ustar with GNU long names (`L`), GNU base-256 numbers, and PAX `path` and `size`. Other PAX records are
//! accepted if they do not affect the content or position of a file. Any entry other than a regular file or a directory is a
//! problem, and so is a tar that ends early.
//!
//! # Threats
//! In addition to those of any layout: a tar that two programs read as two different tars, so that what is verified
//! here is not what `tar xf` unpacks. Everything that programs are known to read differently is a problem, including
//! sloppy numbers and broken extended headers. So is every field or record that is not known to occur in plain entries,
//! and an extended header that contradicts a short name or small size in the header, because a program without extended
//! headers uses the header. The reader reads only headers, padding and what follows the end mark, and of that no more
//! than a tar can need.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

mod extended;
mod stream;

use extended::{Extended, digits, says_nothing};
pub use stream::{File as StreamedFile, Stream};

use crate::base::error::{Error, Result};

pub const BLOCK: u64 = 512;
/// Maximum length of a name or an extended header in bytes.
const MAX_EXTENDED: u64 = 64 * 1024;
/// Maximum number of bytes after the end mark: a tar is padded to whole records, which are rarely longer than 10 KiB.
const MAX_END: u64 = 16 * 1024 * 1024;

/// A source of bytes that can be read by position.
pub trait ReadAt {
    /// Fills `buffer`.
    ///
    /// # Errors
    /// The source cannot be read, or ends early.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

/// The position of an entry's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub offset: u64,
    pub size: u64,
}

/// Receives the entries that a scan finds, in order, with names as they are in the tar.
pub trait Entries {
    /// A regular file.
    fn file(&mut self, name: &[u8], place: Place);

    fn directory(&mut self, name: &[u8]);

    /// Any other entry: a link, a device, a sparse file.
    fn other(&mut self, name: &[u8], what: impl Into<String>);

    /// The tar, or the entry with this name, ends early.
    fn cut(&mut self, name: &[u8], what: String);

    /// Something that is broken or that programs may read differently. An empty name means the tar itself.
    fn problem(&mut self, name: &[u8], what: impl Into<String>);

    /// Called for every entry of any kind. `path` is that of the tar.
    ///
    /// # Errors
    /// There are too many; the scan ends.
    fn count(&mut self, path: &Path) -> Result<()>;
}

/// A decoded header block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub name: Vec<u8>,
    pub size: u64,
    pub kind: u8,
    /// What programs might read in fields that are empty in every plain entry of this dialect.
    pub foreign: Option<&'static str>,
}

/// Finds every entry of the tar in `file`, which has `length` bytes. `path` is its name in errors.
///
/// # Errors
/// The file cannot be read, or `found` stopped the scan. Other problems are reported to `found`.
pub fn scan(path: &Path, file: &impl ReadAt, length: u64, found: &mut impl Entries) -> Result<()> {
    scan_from(path, file, 0, length, found)
}

/// Does the same, starting with the header at byte `position`.
///
/// # Errors
/// As for [`scan`].
pub fn scan_from(
    path: &Path,
    file: &impl ReadAt,
    mut position: u64,
    length: u64,
    found: &mut impl Entries,
) -> Result<()> {
    let mut extended = Extended::default();
    loop {
        let Some(block) = read_block(path, file, position, length)? else {
            found.cut(b"", cut_between(length));
            return Ok(());
        };
        if block.iter().all(|byte| *byte == 0) {
            if extended.unanswered {
                found.problem(b"", NO_ENTRY);
            }
            return check_end(path, file, position, length, found);
        }
        let header = match Header::parse(&block) {
            Ok(header) => header,
            Err(what) => {
                found.problem(b"", no_header(position, what));
                return Ok(());
            }
        };
        let offset = position + BLOCK;
        let size = extended.size_of(&header);
        let Some(next) = padded(size).and_then(|padded| offset.checked_add(padded)) else {
            found.problem(&header.name, OVERFLOWS);
            return Ok(());
        };
        if is_extended(header.kind) && size > MAX_EXTENDED {
            found.problem(&header.name, TOO_LARGE);
            return Ok(());
        }
        if !is_extended(header.kind) {
            check(found, &header, &extended);
        }
        if offset.saturating_add(size) > length {
            let name = extended.name.as_ref().unwrap_or(&header.name);
            found.cut(name, cut_within(size, length));
            return Ok(());
        }
        let padding = next - offset - size;
        if !is_empty(path, file, offset + size, padding)? {
            found.problem(extended.name.as_ref().unwrap_or(&header.name), HIDDEN);
        }
        match header.kind {
            kind if is_extended(kind) => {
                let data = read_extended(path, file, &header, offset)?;
                take_extended(&mut extended, &header, &data, found);
            }
            _ => add(found, header, std::mem::take(&mut extended), Place { offset, size }),
        }
        found.count(path)?;
        position = next;
    }
}

/// The name in the header at byte `position`, or `None` if there is no valid header.
pub fn name_at(file: &impl ReadAt, position: u64) -> Option<Vec<u8>> {
    let mut block = [0; BLOCK as usize];
    file.read_exact_at(&mut block, position).ok()?;
    Header::parse(&block).ok().map(|header| header.name)
}

/// Nothing may follow the end mark: readers stop there, so nothing would verify it.
fn check_end(path: &Path, file: &impl ReadAt, position: u64, length: u64, found: &mut impl Entries) -> Result<()> {
    if position + 2 * BLOCK > length {
        found.cut(b"", cut_in_end(length));
    } else if length - position > MAX_END {
        found.problem(b"", too_long());
    } else if !is_empty(path, file, position, length - position)? {
        found.problem(b"", hidden(position));
    }
    Ok(())
}

fn too_long() -> String {
    format!("the tar has more than {MAX_END} bytes after its end mark")
}

fn hidden(position: u64) -> String {
    format!("data is hidden after the end mark of the tar at byte {position}")
}

fn cut_in_end(length: u64) -> String {
    format!("the tar ends at byte {length} in the middle of its end mark: it is cut short")
}

fn cut_between(length: u64) -> String {
    format!("the tar ends at byte {length} without its end mark: it is cut short")
}

fn cut_within(size: u64, length: u64) -> String {
    format!("the tar ends at byte {length}, within the {size} bytes of this file: it is cut short")
}

fn no_header(position: u64, what: &str) -> String {
    format!("no valid tar header at byte {position}: {what}; nothing after it is read")
}

const HIDDEN: &str = "data is hidden in the padding after it";
const OVERFLOWS: &str = "its size overflows";
const TOO_LARGE: &str = "its extended header is too large";
const FOREIGN_PREFIX: &str = "its header has a prefix, which its dialect does not define and some programs read";
const FOREIGN_FIELD: &str = "its header has a field that a plain entry of its dialect does not have and some programs \
                             read";
const NO_ENTRY: &str = "an extended header at the end belongs to no entry";

/// Whether the entry is an extended header, which is read separately.
fn is_extended(kind: u8) -> bool {
    matches!(kind, b'L' | b'x' | b'g')
}

/// Takes an extended header, or reports what is wrong with it.
fn take_extended(extended: &mut Extended, header: &Header, data: &[u8], found: &mut impl Entries) {
    match header.kind {
        // Of two headers, some programs use the first, some the last, and some combine both.
        _ if extended.unanswered => found.problem(&header.name, "it is a second extended header for one entry"),
        _ if header.foreign.is_some() => header.foreign.iter().for_each(|what| found.problem(&header.name, *what)),
        // Programs treat headers for all entries differently; ours writes none.
        b'g' if says_nothing(data) => {}
        b'g' => found.problem(&header.name, "it is a global header, which changes all entries after it"),
        kind if extended.take(kind, data) => {}
        _ => found.problem(&header.name, "its extended header is malformed"),
    }
}

/// Whether `file`, which has `length` bytes, begins like a tar.
///
/// # Errors
/// The file cannot be read, or is compressed and can therefore not be read by position.
pub fn is_tar(path: &Path, file: &impl ReadAt, length: u64) -> Result<bool> {
    let mut start = [0; 512];
    let known = start.len().min(usize::try_from(length).unwrap_or(usize::MAX));
    file.read_exact_at(&mut start[..known], 0).map_err(|e| Error::disk("reading", path, e))?;
    looks_like_tar(path, &start)
}

/// Does the same for its first block, padded with zeros.
///
/// # Errors
/// It is compressed.
pub fn looks_like_tar(path: &Path, start: &[u8; 512]) -> Result<bool> {
    let compressed = match &start[..4] {
        [0x1f, 0x8b, ..] => Some(("gzip", "gzip -dc")),
        [0x28, 0xb5, 0x2f, 0xfd] => Some(("zstd", "zstd -dc")),
        [b'B', b'Z', b'h', _] => Some(("bzip2", "bzip2 -dc")),
        [0xfd, b'7', b'z', b'X'] => Some(("xz", "xz -dc")),
        _ => None,
    };
    if let Some((program, command)) = compressed {
        let path = path.display();
        let text = format!(
            "{path} is compressed with {program}, and gapferry reads only a plain tar in place: decompress it first \
             ({command} {path} > PLAIN.tar)"
        );
        return Err(Error::input(text));
    }
    Ok(&start[257..262] == b"ustar")
}

/// Whether these bytes are all zero.
fn is_empty(path: &Path, file: &impl ReadAt, mut offset: u64, mut length: u64) -> Result<bool> {
    let mut buffer = [0; 4096];
    while length > 0 {
        let piece = &mut buffer[..usize::try_from(length).unwrap_or(usize::MAX).min(4096)];
        match file.read_exact_at(piece, offset) {
            Ok(()) if piece.iter().all(|byte| *byte == 0) => {}
            Ok(()) => return Ok(false),
            // Padding that is cut off shows up as a missing header or end mark.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(true),
            Err(error) => return Err(Error::disk("reading", path, error)),
        }
        offset += piece.len() as u64;
        length -= piece.len() as u64;
    }
    Ok(true)
}

/// Reports what programs may read differently about an entry.
fn check(found: &mut impl Entries, header: &Header, extended: &Extended) {
    let name = extended.name_of(header);
    header.foreign.into_iter().chain(extended.contradiction(header)).for_each(|what| found.problem(name, what));
    // Entries other than files and directories are reported as such; a link, for example, may have a long target.
    if let Some(key) = extended.unknown.as_ref().filter(|_| matches!(header.kind, b'0' | 0 | b'5')) {
        found.problem(name, format!("its extended header has {key:?}, which programs read differently"));
    }
}

fn add(found: &mut impl Entries, header: Header, extended: Extended, place: Place) {
    let name = extended.name.unwrap_or(header.name);
    match header.kind {
        _ if extended.sparse => found.other(&name, "it is a sparse file"),
        b'0' | 0 if !name.ends_with(b"/") => found.file(&name, place),
        b'5' | b'0' | 0 if place.size == 0 => found.directory(&name),
        b'5' | b'0' | 0 => found.problem(&name, "it is a directory with content"),
        b'1' => found.other(&name, "it is a hard link"),
        b'2' => found.other(&name, "it is a symbolic link"),
        b'3' | b'4' | b'6' => found.other(&name, "it is a device"),
        b'S' => found.other(&name, "it is a sparse file"),
        kind => found.other(&name, format!("it has the unknown type {:?}", char::from(kind))),
    }
}

fn read_extended(path: &Path, file: &impl ReadAt, header: &Header, offset: u64) -> Result<Vec<u8>> {
    let mut data = vec![0; usize::try_from(header.size.min(MAX_EXTENDED)).unwrap_or_default()];
    file.read_exact_at(&mut data, offset).map_err(|e| Error::disk("reading", path, e))?;
    Ok(data)
}

fn read_block(path: &Path, file: &impl ReadAt, position: u64, length: u64) -> Result<Option<[u8; 512]>> {
    if position.saturating_add(BLOCK) > length {
        return Ok(None);
    }
    let mut block = [0; 512];
    file.read_exact_at(&mut block, position).map_err(|e| Error::disk("reading", path, e))?;
    Ok(Some(block))
}

/// `size` rounded up to whole blocks.
fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK)
}

impl Header {
    /// Decodes a block and checks its checksum.
    pub(super) fn parse(block: &[u8; 512]) -> Result<Header, &'static str> {
        let stored = number(&block[148..156]).ok_or("no checksum")?;
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
            .sum();
        if stored != sum {
            return Err("wrong checksum");
        }
        let size = number(&block[124..136]).ok_or("no valid size")?;
        let mut name = until_nul(&block[..100]).to_vec();
        let (dialect, kind) = (&block[257..265], block[156]);
        let prefix = until_nul(&block[345..500]);
        match dialect {
            b"ustar\x0000" if !prefix.is_empty() => name = [prefix, b"/", &name].concat(),
            b"ustar\x0000" | b"ustar  \0" => {}
            // The oldest tars have nothing there and do not know extended headers.
            [0, 0, 0, 0, 0, 0, 0, 0] if !matches!(kind, b'L' | b'K' | b'x' | b'g') => {}
            _ => return Err("an unknown dialect"),
        }
        // After the prefix, or in its place, other dialects have times, or the size and the map of a sparse file.
        let is_posix = dialect == b"ustar\x0000";
        let is_clear = match is_posix {
            true => is_clear(block, prefix.len()),
            false => block[345..].iter().all(|byte| *byte == 0),
        };
        let has_times = dialect == b"ustar  \0" && number(&block[345..357]).is_some();
        let foreign = match is_clear {
            true => None,
            false if is_posix || prefix.is_empty() || has_times => Some(FOREIGN_FIELD),
            false => Some(FOREIGN_PREFIX),
        };
        Ok(Header { name, size, kind, foreign })
    }
}

/// Whether a POSIX header has nothing after its prefix that programs interpret. node-tar and star shorten the prefix by two
/// times (pax(1), star(5)), on which nothing else depends.
fn is_clear(block: &[u8; 512], prefix: usize) -> bool {
    let is_zero = |field: &[u8]| field.iter().all(|byte| *byte == 0);
    let is_time = |field: &[u8]| is_zero(field) || number(field).is_some();
    if block[475] != 0 {
        return is_zero(&block[345 + prefix..]);
    }
    is_zero(&block[345 + prefix..476])
        && is_time(&block[476..488])
        && is_time(&block[488..500])
        && is_zero(&block[500..508])
        && (is_zero(&block[508..]) || block[508..] == *b"tar\0")
}

fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits, or big-endian binary with the first bit set (GNU). A blank field is not zero: GNU tar skips such an entry,
/// others reject or accept it.
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let (head, tail) = field.split_at(field.len() - 8);
        let rest_is_zero =
            head.iter().enumerate().all(|(at, byte)| if at == 0 { byte & 0x7f == 0 } else { *byte == 0 });
        let value = u64::from_be_bytes(tail.try_into().ok()?);
        return (rest_is_zero && value <= i64::MAX as u64).then_some(value);
    }
    let text = std::str::from_utf8(until_nul(field)).ok()?.trim_matches(' ');
    digits(text.as_bytes(), 8)
}

#[cfg(test)]
mod tests;
