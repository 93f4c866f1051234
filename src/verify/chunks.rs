//! Checks blobs against `chunks.b3`, chunk by chunk: on all cores however few blobs there are, in the order of their
//! position.

use std::sync::atomic::{AtomicU64, Ordering};

use super::declared::Declared;
use super::{ByteRange, Problem, ProblemKind};
use crate::base::progress::{Event, Events};
use crate::bundle::CHUNKS;
use crate::bundle::chunks::Reader;
use crate::content::chunks::{CHAINED, CHUNK, Chained, Chunks, OneChunk, values_of};
use crate::content::proof::{Unproven, prove};
use crate::content::{Slice, in_parallel_buffered};
use crate::files::Layout;
use crate::oci::Digest;

/// How many chunks one core takes at a time.
const STRETCH: u64 = 16;
/// Bytes read at a time: few enough to stay in a core's cache until they are hashed.
const PIECE: usize = 256 * 1024;
/// The most ranges listed for one blob.
pub const MOST_RANGES: usize = 1_000;

/// A blob that exists and has the declared size.
pub struct Blob<'a> {
    pub declared: &'a Declared,
    /// In bytes.
    pub size: u64,
    pub root: Chained,
}

struct Open<'a> {
    blob: &'a Blob<'a>,
    id: Digest,
    /// Chunks still to be read.
    left: AtomicU64,
}

/// The value of a chunk as read, or why it could not be read.
type Found = Result<Chained, String>;

/// Returns the problems of these blobs. `table` is the `chunks.b3` of their bundle.
pub fn check(layout: &Layout, table: &Reader, blobs: &[Blob<'_>], events: &Events) -> Vec<Problem> {
    let open: Vec<Open> = blobs.iter().map(open).collect();
    let mut stretches: Vec<(usize, u64, u64)> = Vec::new();
    for (at, blob) in open.iter().enumerate() {
        let chunks = blob.chunks();
        let begins = (0..chunks).step_by(usize::try_from(STRETCH).unwrap_or(1));
        stretches.extend(begins.map(|begin| (at, begin, chunks.min(begin + STRETCH))));
    }
    let found = in_parallel_buffered(&stretches, PIECE, |buffer, (at, begin, end)| {
        read(layout, &open[*at], *begin, *end, buffer, events)
    });
    let mut by_blob: Vec<Vec<Found>> = open.iter().map(|_| Vec::new()).collect();
    for ((at, ..), found) in stretches.iter().zip(found) {
        by_blob[*at].extend(found);
    }
    let (mut problems, mut misleading) = (Vec::new(), Vec::new());
    for (open, found) in open.iter().zip(by_blob) {
        match verdict(layout, table, open, &found) {
            Verdict::Right => {}
            Verdict::Wrong(problem) => problems.push(problem),
            Verdict::Misleading => misleading.push(open.id),
        }
    }
    problems.extend(misled(&misleading));
    problems
}

/// The problem of a `chunks.b3` whose values differ for these blobs, although their digests are right.
pub fn misled(blobs: &[Digest]) -> Option<Problem> {
    let first = blobs.first()?.blob_path();
    let more = blobs.len() - 1;
    let more = if more > 0 { format!(" and {more} more blobs") } else { String::new() };
    let found = format!("its values differ for {first}{more}, whose digests are right");
    Some(Problem::new(CHUNKS, ProblemKind::WrongDigest).found(found))
}

fn open<'a>(blob: &'a Blob<'a>) -> Open<'a> {
    let id = blob.declared.digest;
    let open = Open { blob, id, left: AtomicU64::new(0) };
    open.left.store(open.chunks(), Ordering::Relaxed);
    open
}

/// Opens one slice per stretch: a bundle can have more files than a process can have open.
fn slice(layout: &Layout, blob: &Blob<'_>) -> Result<Slice, String> {
    match layout.slice(&blob.declared.path) {
        Ok(Some(slice)) if slice.size() == blob.size => Ok(slice),
        Ok(_) => Err("the file changed while it was being read".to_owned()),
        Err(error) => Err(error.chain()),
    }
}

impl Open<'_> {
    fn size(&self) -> u64 {
        self.blob.size
    }

    /// At least one, because an empty blob has a digest too.
    fn chunks(&self) -> u64 {
        self.size().div_ceil(CHUNK).max(1)
    }

    /// The bytes that a chunk covers. For an empty blob, the range is byte 0.
    fn bytes_of(&self, chunk: u64) -> ByteRange {
        let first = chunk * CHUNK;
        ByteRange { first, last: (first + CHUNK).min(self.size()).saturating_sub(1) }
    }
}

fn read(layout: &Layout, open: &Open<'_>, begin: u64, end: u64, buffer: &mut [u8], events: &Events) -> Vec<Found> {
    if begin == 0 {
        events.report(Event::BlobStarted { digest: open.id, size: open.size(), present: 0 });
    }
    let found = match slice(layout, open.blob) {
        Ok(slice) => (begin..end).map(|chunk| hash(&slice, chunk, buffer, open.id, events)).collect(),
        Err(error) => (begin..end).map(|_| Err(error.clone())).collect(),
    };
    if open.left.fetch_sub(end - begin, Ordering::Relaxed) == end - begin {
        events.report(Event::BlobFinished { digest: open.id });
        events.report(Event::ItemDone);
    }
    found
}

fn hash(slice: &Slice, chunk: u64, buffer: &mut [u8], id: Digest, events: &Events) -> Found {
    let found = value_of(slice, chunk, buffer)?;
    let bytes = slice.size().saturating_sub(chunk * CHUNK).min(CHUNK);
    events.report(Event::BlobAdvanced { digest: id, bytes });
    Ok(found)
}

fn value_of(slice: &Slice, chunk: u64, buffer: &mut [u8]) -> Found {
    let mut one = OneChunk::new(chunk, slice.size());
    let (mut at, end) = (chunk * CHUNK, slice.size().min((chunk + 1) * CHUNK));
    while at < end {
        let room = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = slice.read_at(at, &mut buffer[..room]).map_err(|error| error.to_string())?;
        one.update(&buffer[..read]);
        at += read as u64;
    }
    Ok(one.finish())
}

/// The `found` text of a wrong blob whose values in [`CHUNKS`] are wrong as well.
const NOWHERE: &str = "its bytes are wrong; the values in chunks.b3 are wrong too, so the place is unknown";

enum Verdict {
    Right,
    Wrong(Problem),
    /// `chunks.b3` is wrong, and the blob is not.
    Misleading,
}

fn verdict(layout: &Layout, table: &Reader, open: &Open<'_>, found: &[Found]) -> Verdict {
    let unreadable = found.iter().find_map(|found| found.as_ref().err()).cloned();
    let is_right = match found {
        [Ok(only)] if open.size() <= CHUNK => *only == open.blob.root,
        _ => {
            let values: Option<Vec<Chained>> = found.iter().map(|found| found.as_ref().ok().copied()).collect();
            let chunks = values.and_then(|values| Chunks::proven(open.blob.root, values));
            chunks.is_some_and(|chunks| table.says(&open.id, &chunks))
        }
    };
    if is_right {
        return Verdict::Right;
    }
    let path = &open.blob.declared.path;
    if unreadable.is_none() {
        match slice(layout, open.blob).map(|slice| prove(&slice, &open.id, &|_| ())) {
            Ok(Ok(())) => return Verdict::Misleading,
            Ok(Err(Unproven::Wrong(_))) => {}
            Ok(Err(unreadable)) => {
                return Verdict::Wrong(Problem::new(path, ProblemKind::Unreadable).found(unreadable));
            }
            Err(error) => return Verdict::Wrong(Problem::new(path, ProblemKind::Unreadable).found(error)),
        }
    }
    let kind = if unreadable.is_some() { ProblemKind::Unreadable } else { ProblemKind::WrongDigest };
    let problem = Problem::new(path, kind).expected(open.id);
    let expected = table.values(&open.id);
    let wrong = |chunk: usize| match (&found[chunk], &expected) {
        (Err(_), _) => true,
        (Ok(_), _) if found.len() == 1 => true,
        (Ok(value), Some(expected)) => expected.values().get(chunk) != Some(value),
        (Ok(_), None) => false,
    };
    let ranges = merged((0..found.len()).filter(|chunk| wrong(*chunk)).map(|chunk| open.bytes_of(chunk as u64)));
    let mut text = match ranges.is_empty() {
        true => NOWHERE.to_owned(),
        false => format!("damage within {} of {}", shown(&ranges), open.size()),
    };
    if let Some(error) = unreadable {
        text = format!("{error}; {text}");
    }
    Verdict::Wrong(problem.found(text).at(ranges.into_iter().take(MOST_RANGES).collect()))
}

/// Adds the ranges that are wrong to `problem`, which is about a blob with the wrong digest. `found` has the values of its
/// chunks.
pub fn located(table: &Reader, blob: &Declared, size: u64, found: &Chunks, problem: Problem) -> Problem {
    let bytes_of =
        |chunk: u64| ByteRange { first: chunk * CHUNK, last: ((chunk + 1) * CHUNK).min(size).saturating_sub(1) };
    let ranges = if values_of(size) == 0 {
        vec![bytes_of(0)]
    } else {
        let Some(expected) = table.values(&blob.digest) else { return problem };
        let both = expected.values().iter().zip(found.values());
        let wrong = (0..).zip(both).filter(|(_, (one, other))| one != other);
        merged(wrong.map(|(chunk, _)| bytes_of(chunk)))
    };
    if ranges.is_empty() {
        return problem;
    }
    let found = problem.found.clone().unwrap_or_default();
    let text = format!("{found}; damage within {} of {size}", shown(&ranges));
    problem.found(text).at(ranges.into_iter().take(MOST_RANGES).collect())
}

/// Reads `values` values from byte `from` of `table`. Returns them if they give `root`.
fn values_in(table: &Slice, from: u64, values: u64, root: Chained) -> Option<Chunks> {
    let length = values.checked_mul(CHAINED as u64)?;
    if table.size() < from.checked_add(length)? {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    let mut filled = 0;
    while filled < bytes.len() {
        match table.read_at(from + filled as u64, &mut bytes[filled..]) {
            Ok(read) if read > 0 => filled += read,
            _ => return None,
        }
    }
    let values = bytes.chunks_exact(CHAINED).filter_map(|value| value.try_into().ok()).collect();
    Chunks::proven(root, values)
}

/// Returns the chunks of `slice` that differ from `table`, where `before` other values precede those of `slice`. `None` if
/// `table` gives no usable values.
pub fn bad_in(slice: &Slice, table: &Slice, before: u64, root: Chained) -> Option<Vec<ByteRange>> {
    let size = slice.size();
    if values_of(size) == 0 {
        return None;
    }
    let expected = values_in(table, before.checked_mul(CHAINED as u64)?, values_of(size), root)?;
    let mut buffer = vec![0; PIECE];
    let is_right = |number: u64, found: Chained| {
        usize::try_from(number).ok().and_then(|at| expected.values().get(at)) == Some(&found)
    };
    let mut is_bad = |number| !value_of(slice, number, &mut buffer).is_ok_and(|found| is_right(number, found));
    let bad: Vec<u64> = (0..size.div_ceil(CHUNK)).filter(|number| is_bad(*number)).collect();
    let bytes_of = |number: u64| ByteRange { first: number * CHUNK, last: ((number + 1) * CHUNK).min(size) - 1 };
    Some(merged(bad.into_iter().map(bytes_of)).into_iter().take(MOST_RANGES).collect())
}

/// Merges adjacent ranges.
fn merged(ranges: impl Iterator<Item = ByteRange>) -> Vec<ByteRange> {
    let mut merged: Vec<ByteRange> = Vec::new();
    for range in ranges {
        match merged.last_mut().filter(|before| before.last + 1 == range.first) {
            Some(before) => before.last = range.last,
            None => merged.push(range),
        }
    }
    merged
}

/// Describes ranges for people: the first three, and the number of the others.
pub fn shown(ranges: &[ByteRange]) -> String {
    let first: Vec<String> = ranges.iter().take(3).map(|ByteRange { first, last }| format!("{first}-{last}")).collect();
    let more = ranges.len().saturating_sub(3);
    let more = if more > 0 { format!(" and {more} more places") } else { String::new() };
    format!("bytes {}{more}", first.join(", "))
}
