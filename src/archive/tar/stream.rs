//! The same reader for a tar that can be read only once, from a pipe, entry by entry. It reports the same as
//! [`scan`](super::scan) for the same bytes.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{
    BLOCK, Entries, Extended, HIDDEN, Header, MAX_END, MAX_EXTENDED, NO_ENTRY, OVERFLOWS, Place, TOO_LARGE, add, check,
    cut_between, cut_in_end, cut_within, hidden, is_extended, no_header, padded, take_extended, too_long,
};
use crate::base::error::{Error, Result};

/// Bytes to read at a time when they are skipped.
const SKIPPED: usize = 64 * 1024;

/// A tar that is read from a stream.
pub struct Stream<R> {
    path: PathBuf,
    input: R,
    /// Bytes read so far.
    position: u64,
    extended: Extended,
    open: Option<Open>,
    ended: bool,
    cut: bool,
    /// Why nothing more can be read, if the source of the bytes is to blame.
    broken: Option<String>,
}

/// A regular file whose bytes come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// As in the tar.
    pub name: Vec<u8>,
    pub place: Place,
}

struct Open {
    file: File,
    left: u64,
    padding: u64,
}

impl<R: Read> Stream<R> {
    /// `path` is the name in errors.
    pub fn new(path: &Path, input: R) -> Stream<R> {
        let (extended, path) = (Extended::default(), path.to_owned());
        Stream { path, input, position: 0, extended, open: None, ended: false, cut: false, broken: None }
    }

    /// Number of bytes read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the tar ended within a file that was reported to [`Entries::file`].
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Returns the next regular file, and skips the rest of the previous one. Returns `None` at the end of the tar.
    ///
    /// # Errors
    /// The stream cannot be read, or `found` stopped the scan. Other problems are reported to `found`.
    pub fn next(&mut self, found: &mut impl Entries) -> Result<Option<File>> {
        if let Some(open) = self.open.take() {
            self.close(open, found)?;
        }
        while !self.ended {
            if let Some(open) = self.entry(found)? {
                let file = open.file.clone();
                self.open = Some(open);
                return Ok(Some(file));
            }
        }
        self.broken.iter().for_each(|why| found.problem(b"", why.as_str()));
        Ok(None)
    }

    /// Reads up to `buffer.len()` bytes of the file that [`Stream::next`] returned last; returns 0 at its end and if the tar
    /// is cut.
    ///
    /// # Errors
    /// As for [`Stream::next`].
    pub fn read(&mut self, buffer: &mut [u8], found: &mut impl Entries) -> Result<usize> {
        let Some(open) = &self.open else { return Ok(0) };
        let want = usize::try_from(open.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let read = self.fill(&mut buffer[..want])?;
        if let Some(open) = &mut self.open {
            open.left -= read as u64;
            if read < want {
                let problem = cut_within(open.file.place.size, self.position);
                found.cut(&open.file.name, problem);
                (self.ended, self.cut, self.open) = (true, true, None);
            }
        }
        Ok(read)
    }

    /// Reads one header before the next file.
    fn entry(&mut self, found: &mut impl Entries) -> Result<Option<Open>> {
        let (begin, mut block) = (self.position, [0; BLOCK as usize]);
        if self.fill(&mut block)? < block.len() {
            found.cut(b"", cut_between(self.position));
            self.ended = true;
            return Ok(None);
        }
        if block.iter().all(|byte| *byte == 0) {
            if self.extended.unanswered {
                found.problem(b"", NO_ENTRY);
            }
            return self.check_end(begin, found).map(|()| None);
        }
        let header = match Header::parse(&block) {
            Ok(header) => header,
            Err(what) => {
                self.end(found, b"", no_header(begin, what));
                return Ok(None);
            }
        };
        let size = self.extended.size_of(&header);
        let Some(all) = padded(size).filter(|padded| self.position.checked_add(*padded).is_some()) else {
            self.end(found, &header.name, OVERFLOWS);
            return Ok(None);
        };
        let place = Place { offset: self.position, size };
        if is_extended(header.kind) {
            return self.extended_header(&header, size, all - size, found).map(|()| None);
        }
        check(found, &header, &self.extended);
        if self.extended.is_file(&header) {
            let name = self.extended.name_of(&header).to_vec();
            add(found, header, std::mem::take(&mut self.extended), place);
            found.count(&self.path)?;
            return Ok(Some(Open { file: File { name, place }, left: size, padding: all - size }));
        } else if self.pass_over(&header, size, all - size, found)? {
            add(found, header, std::mem::take(&mut self.extended), place);
            found.count(&self.path)?;
        }
        Ok(None)
    }

    fn extended_header(&mut self, header: &Header, size: u64, padding: u64, found: &mut impl Entries) -> Result<()> {
        if size > MAX_EXTENDED {
            self.end(found, &header.name, TOO_LARGE);
            return Ok(());
        }
        let mut data = vec![0; usize::try_from(size).unwrap_or_default()];
        if self.fill(&mut data)? < data.len() {
            let name = self.extended.name_of(header).to_vec();
            self.end(found, &name, cut_within(size, self.position));
            return Ok(());
        }
        let name = self.extended.name_of(header).to_vec();
        self.check_padding(&name, padding, found)?;
        take_extended(&mut self.extended, header, &data, found);
        found.count(&self.path)
    }

    /// Skips an entry. Returns `false` if the tar ends within it.
    fn pass_over(&mut self, header: &Header, size: u64, padding: u64, found: &mut impl Entries) -> Result<bool> {
        let name = self.extended.name_of(header).to_vec();
        if self.skip(size)? < size {
            self.end(found, &name, cut_within(size, self.position));
            return Ok(false);
        }
        self.check_padding(&name, padding, found)?;
        Ok(true)
    }

    fn close(&mut self, open: Open, found: &mut impl Entries) -> Result<()> {
        let Open { file, left, padding } = open;
        if self.skip(left)? < left {
            self.cut = true;
            self.end(found, &file.name, cut_within(file.place.size, self.position));
            return Ok(());
        }
        self.check_padding(&file.name, padding, found)
    }

    /// Padding that is cut off shows up as a missing header or end mark.
    fn check_padding(&mut self, name: &[u8], length: u64, found: &mut impl Entries) -> Result<()> {
        let mut padding = [0; BLOCK as usize];
        let padding = &mut padding[..usize::try_from(length).unwrap_or_default()];
        if self.fill(padding)? == padding.len() && padding.iter().any(|byte| *byte != 0) {
            found.problem(name, HIDDEN);
        }
        Ok(())
    }

    /// Checks the rest of the end mark, whose first block has been read: only zeros, and at most `MAX_END` bytes.
    fn check_end(&mut self, begin: u64, found: &mut impl Entries) -> Result<()> {
        self.ended = true;
        let (mut buffer, mut empty) = (vec![0; SKIPPED], true);
        while self.position - begin <= MAX_END {
            let read = self.fill(&mut buffer)?;
            empty &= buffer[..read].iter().all(|byte| *byte == 0);
            if read < buffer.len() {
                if self.position < begin + 2 * BLOCK {
                    found.cut(b"", cut_in_end(self.position));
                } else if self.position - begin > MAX_END {
                    found.problem(b"", too_long());
                } else if !empty {
                    found.problem(b"", hidden(begin));
                }
                return Ok(());
            }
        }
        found.problem(b"", too_long());
        Ok(())
    }

    fn end(&mut self, found: &mut impl Entries, name: &[u8], what: impl Into<String>) {
        found.problem(name, what);
        self.ended = true;
    }

    /// Skips bytes. Returns less than `length` only at the end of the input.
    fn skip(&mut self, length: u64) -> Result<u64> {
        let most = usize::try_from(length).unwrap_or(SKIPPED).min(SKIPPED);
        let (mut buffer, mut left) = (vec![0; most], length);
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(most).min(most);
            let read = self.fill(&mut buffer[..want])?;
            left -= read as u64;
            if read < want {
                break;
            }
        }
        Ok(length - left)
    }

    /// Reads like [`Stream::skip`]. Bytes that are invalid before they are a tar ([`io::ErrorKind::InvalidData`]) also end it.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() && self.broken.is_none() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => self.broken = Some(error.to_string()),
                Err(error) => return Err(Error::disk("reading", &self.path, error)),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }
}
