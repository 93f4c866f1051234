//! The same reader for a tar that can be read once: out of a pipe, entry by entry. It says of the same bytes what
//! [`scan`](super::scan) says.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{
    BLOCK, Entries, Extended, HIDDEN, Header, MAX_END, MAX_EXTENDED, NO_ENTRY, OVERFLOWS, Place, TOO_LARGE, add, check,
    cut_between, cut_in_end, cut_within, hidden, is_extended, no_header, padded, take_extended, too_long,
};
use crate::base::error::{Error, Result};

/// How much is read at a time where nobody wants the bytes.
const SKIPPED: usize = 64 * 1024;

/// A tar while it passes.
pub struct Stream<R> {
    path: PathBuf,
    input: R,
    /// Bytes that were read.
    position: u64,
    extended: Extended,
    open: Option<Open>,
    ended: bool,
    cut: bool,
    /// Why nothing more can be read, where that is the fault of whatever made the bytes.
    broken: Option<String>,
}

/// A regular file whose bytes come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// As it stands there.
    pub name: Vec<u8>,
    pub place: Place,
}

struct Open {
    file: File,
    left: u64,
    padding: u64,
}

impl<R: Read> Stream<R> {
    /// `path` is what errors call it.
    pub fn new(path: &Path, input: R) -> Stream<R> {
        let (extended, path) = (Extended::default(), path.to_owned());
        Stream { path, input, position: 0, extended, open: None, ended: false, cut: false, broken: None }
    }

    /// How many bytes have been read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether it ended within the bytes of a file, which [`Entries::file`] was told of all the same.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The next regular file; what has not been read of the one before is skipped. `None`: the tar has ended.
    ///
    /// # Errors
    /// Not readable, or `found` has had enough. All else that is wrong is told to `found`.
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
        self.broken.iter().for_each(|why| found.fault(b"", why.as_str()));
        Ok(None)
    }

    /// At most `buffer.len()` bytes of the file that [`Stream::next`] gave last; 0 at its end, and where the tar is cut.
    ///
    /// # Errors
    /// As there.
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

    /// What comes before the next file, one header.
    fn entry(&mut self, found: &mut impl Entries) -> Result<Option<Open>> {
        let (begin, mut block) = (self.position, [0; BLOCK as usize]);
        if self.fill(&mut block)? < block.len() {
            found.cut(b"", cut_between(self.position));
            self.ended = true;
            return Ok(None);
        }
        if block.iter().all(|byte| *byte == 0) {
            if self.extended.unanswered {
                found.fault(b"", NO_ENTRY);
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

    /// An entry whose bytes nobody wants; `false`: the tar ends in it.
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

    /// Padding that is cut off is found as a missing header or end mark.
    fn check_padding(&mut self, name: &[u8], length: u64, found: &mut impl Entries) -> Result<()> {
        let mut padding = [0; BLOCK as usize];
        let padding = &mut padding[..usize::try_from(length).unwrap_or_default()];
        if self.fill(padding)? == padding.len() && padding.iter().any(|byte| *byte != 0) {
            found.fault(name, HIDDEN);
        }
        Ok(())
    }

    /// After the end mark, of which the first block has been read, comes nothing.
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
                    found.fault(b"", too_long());
                } else if !empty {
                    found.fault(b"", hidden(begin));
                }
                return Ok(());
            }
        }
        found.fault(b"", too_long());
        Ok(())
    }

    fn end(&mut self, found: &mut impl Entries, name: &[u8], what: impl Into<String>) {
        found.fault(name, what);
        self.ended = true;
    }

    /// Less than wanted only at the end of the input.
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

    /// As [`Stream::skip`]. Bytes that are wrong before they are a tar ([`io::ErrorKind::InvalidData`]) end it as well.
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
