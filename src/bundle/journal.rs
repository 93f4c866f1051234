//! The journal beside an unfinished tar, or the unfinished volumes of a set: which layout was begun, where each blob goes, and how far
//! it has come.
//!
//! Lines of text, appended after the bytes they speak of were written. A torn last line is dropped; what the journal says
//! is a claim that the next run proves by hashing.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use crate::base::bounded::read_all;
use crate::base::error::{Error, Result};
use crate::base::fsops::{Entry, Open};
use crate::oci::Digest;

const MAGIC: &str = "gapferry-journal 1";
/// Room for millions of lines; a larger file is not ours.
const MAX_JOURNAL: u64 = 1 << 30;

/// What an earlier run wrote down.
#[derive(Debug, Default)]
pub struct Claims {
    /// Of the tar plan it was made for; `None`: of none that this program makes.
    pub fingerprint: Option<Digest>,
    /// Offset and size, in bytes, of each blob in that tar.
    pub places: HashMap<Digest, (u64, u64)>,
    pub done: HashSet<Digest>,
    /// How many bytes of a blob were there at least.
    pub part: HashMap<Digest, u64>,
}

impl Claims {
    /// Reads a journal; `None` when there is none that is whole enough to use.
    pub fn read(journal: &Entry) -> Option<Claims> {
        let file = journal.open(Open::Read).ok()?;
        let bytes = read_all(file, MAX_JOURNAL).ok()??;
        Claims::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Bytes of blobs, finished or not, that were fetched and of which nothing is `kept`.
    pub fn lost(&self, kept: impl Fn(&Digest) -> bool) -> u64 {
        let size = |digest: &Digest| self.places.get(digest).map_or(0, |(_, size)| *size);
        let done = self.done.iter().filter(|digest| !kept(digest)).map(size);
        let part = self.part.iter().filter(|(digest, _)| !self.done.contains(digest) && !kept(digest));
        done.chain(part.map(|(digest, bytes)| size(digest).min(*bytes))).fold(0, u64::saturating_add)
    }

    fn parse(text: &str) -> Option<Claims> {
        let complete = &text[..text.rfind('\n')? + 1];
        let mut lines = complete.lines();
        let fingerprint = lines.next()?.strip_prefix(MAGIC)?.trim().parse().ok();
        let mut claims = Claims { fingerprint, ..Claims::default() };
        let mut begun = false;
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["at", digest, offset, size] => {
                    // The table was written at once: torn, it lacks its end mark.
                    claims.places.insert(digest.parse().ok()?, (offset.parse().ok()?, size.parse().ok()?));
                }
                ["begun"] => begun = true,
                ["part", digest, bytes] => {
                    if let (Ok(digest), Ok(bytes)) = (digest.parse(), bytes.parse()) {
                        // It was called finished, and found wrong since.
                        claims.done.remove(&digest);
                        claims.part.insert(digest, bytes);
                    }
                }
                ["done", digest] => claims.done.extend(digest.parse::<Digest>()),
                // A line that a kill has torn, ended by the run after it.
                _ => {}
            }
        }
        begun.then_some(claims)
    }
}

/// A journal that is written.
#[derive(Debug)]
pub struct Journal {
    file: Mutex<File>,
    entry: Entry,
}

impl Journal {
    /// Begins a new one for a tar in which each blob has this offset and size.
    pub fn begin(
        entry: &Entry,
        fingerprint: Digest,
        places: impl Iterator<Item = (Digest, u64, u64)>,
    ) -> Result<Journal> {
        let mut text = format!("{MAGIC} {fingerprint}\n");
        for (digest, offset, size) in places {
            text.push_str(&format!("at {digest} {offset} {size}\n"));
        }
        text.push_str("begun\n");
        let journal = Journal::open(entry, Open::Empty)?;
        journal.append(&text)?;
        Ok(journal)
    }

    /// Goes on with one that exists.
    pub fn resume(entry: &Entry) -> Result<Journal> {
        let journal = Journal::open(entry, Open::Append)?;
        // Ends the torn line that a kill may have left.
        journal.append("\n").map(|()| journal)
    }

    fn open(entry: &Entry, how: Open) -> Result<Journal> {
        Ok(Journal { file: Mutex::new(entry.open(how)?), entry: entry.clone() })
    }

    pub fn part(&self, digest: &Digest, bytes: u64) -> Result<()> {
        self.append(&format!("part {digest} {bytes}\n"))
    }

    pub fn done(&self, digest: &Digest) -> Result<()> {
        self.append(&format!("done {digest}\n"))
    }

    /// One write, so that lines of several threads do not mix.
    fn append(&self, text: &str) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(text.as_bytes()).map_err(|e| Error::disk("writing", self.entry.path(), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_loses_only_itself() {
        let digest = Digest::sha256(b"x");
        let whole = format!("{MAGIC} f\nat {digest} 512 9\nbegun\npart {digest} 4\ndone {digest}\n");
        let claims = Claims::parse(&whole).unwrap();
        assert_eq!((claims.done.len(), claims.part[&digest], claims.places[&digest]), (1, 4, (512, 9)));
        let torn = Claims::parse(&whole[..whole.len() - 5]).unwrap();
        assert_eq!((torn.done.len(), torn.part[&digest]), (0, 4));
        assert!(Claims::parse(&whole[..60]).is_none(), "a table that is not whole says nothing");
    }
}
