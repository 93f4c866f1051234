//! The journal next to an unfinished tar, or to the unfinished volumes of a set: the layout that was started, the position of
//! each blob, and its progress.
//!
//! It consists of text lines that are appended after the bytes they refer to were written. A torn last line is dropped. Its
//! content is a claim that the next run proves by hashing.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use crate::base::bounded::read_all;
use crate::base::error::{Error, Result};
use crate::base::fsops::{Entry, Open};
use crate::oci::Digest;

const MAGIC: &str = "gapferry-journal 1";
/// Enough for millions of lines; a larger file is not ours.
const MAX_JOURNAL: u64 = 1 << 30;

/// What an earlier run recorded.
#[derive(Debug, Default)]
pub struct Claims {
    /// The tar plan it was made for; `None` if this program makes no such plan.
    pub fingerprint: Option<Digest>,
    /// Offset and size in bytes of each blob in that tar.
    pub places: HashMap<Digest, (u64, u64)>,
    pub done: HashSet<Digest>,
    /// Bytes of a blob that were written at least.
    pub part: HashMap<Digest, u64>,
}

impl Claims {
    /// Reads a journal. Returns `None` if there is no usable one.
    pub fn read(journal: &Entry) -> Option<Claims> {
        let file = journal.open(Open::Read).ok()?;
        let bytes = read_all(file, MAX_JOURNAL).ok()??;
        Claims::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Bytes of blobs, complete or not, that were fetched and are not `kept`.
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
                    // The table was written at once; a torn one lacks its end mark.
                    claims.places.insert(digest.parse().ok()?, (offset.parse().ok()?, size.parse().ok()?));
                }
                ["begun"] => begun = true,
                ["part", digest, bytes] => {
                    if let (Ok(digest), Ok(bytes)) = (digest.parse(), bytes.parse()) {
                        // It was complete, and has been found wrong since.
                        claims.done.remove(&digest);
                        claims.part.insert(digest, bytes);
                    }
                }
                ["done", digest] => claims.done.extend(digest.parse::<Digest>()),
                // A line torn by a kill, and ended by the next run.
                _ => {}
            }
        }
        begun.then_some(claims)
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    file: Mutex<File>,
    entry: Entry,
}

impl Journal {
    /// Starts a new journal for a tar in which each blob has this offset and size.
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

    /// Continues an existing journal.
    pub fn resume(entry: &Entry) -> Result<Journal> {
        let journal = Journal::open(entry, Open::Append)?;
        // Ends a line that a kill may have torn.
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

    /// A single write, so that lines of several threads do not mix.
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
