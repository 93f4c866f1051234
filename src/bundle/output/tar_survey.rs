//! How a damaged tar was laid out originally, as far as its remains show.

use std::os::unix::fs::FileExt;

use crate::archive::tar::Place;
use crate::base::error::{Error, Result};
use crate::bundle::fileset::FileList;
use crate::bundle::format::{CHUNKS, MOST_SIGNATURES, SUMS, signatures_of};
use crate::bundle::tar_plan::{BLOCK, END, PlannedFile, TarPlan, header_length};
use crate::files::Layout;

/// Bytes of a signature in a tar, with its header.
pub const SIGNATURE_ROOM: u64 = 2 * BLOCK;

/// The position of everything that follows from `bundle.json`, and the places of signatures.
#[derive(Debug)]
pub struct TarSurvey {
    /// Without signatures, which are not in any list.
    pub files: Vec<PlannedFile>,
    /// The positions of the headers of signatures of the sums.
    pub signatures: Vec<u64>,
    /// The positions of the headers of signatures of `chunks.b3`, which are the last entries.
    pub chunks_signatures: Vec<u64>,
    /// Size of the file in bytes.
    pub length: u64,
}

impl TarSurvey {
    /// The original layout of this tar; `None` if another program wrote it or it is not a tar. The number of signatures
    /// follows from the offset of a readable file after the sums, or of an intact header after a bad one; without any, from
    /// the size, if that allows only one answer.
    ///
    /// # Errors
    /// The tar cannot be read.
    pub fn of(bundle: &Layout, list: &FileList<'_>, wants_chunks: bool) -> Result<Option<TarSurvey>> {
        let Some(tar) = bundle.tar() else { return Ok(None) };
        let length = tar.metadata().map_err(|e| Error::disk("reading", bundle.path(), e))?.len();
        let files = list.files();
        let behind = files.iter().position(|file| file.path == SUMS).map_or(files.len(), |at| at + 1);
        let plan = TarPlan::new(files.into_iter().map(|file| (file.path, file.size)))?;
        let TarPlan { files: mut planned, length: least } = plan;
        let chunks = list.chunks_length();
        let of_chunks = header_length(CHUNKS) + chunks.next_multiple_of(BLOCK);
        let found = |path: &str| bundle.slice(path).ok().flatten().map(|slice| (slice.offset(), slice.size()));
        let (mut known, mut seen) = (None, 0);
        for (at, file) in planned.iter().enumerate() {
            let Some((offset, size)) = found(&file.path) else { continue };
            let shift = offset.checked_sub(file.data).filter(|_| size == file.size);
            match shift {
                Some(0) if at < behind => {}
                Some(shift) if at >= behind && known.is_none_or(|known| known == shift) => known = Some(shift),
                _ => return Ok(None),
            }
            seen += 1;
        }
        let [of_sums, signatures_of_chunks] = [SUMS, CHUNKS].map(|signed| signatures_of(bundle, signed).len());
        let is_there = bundle.size_of(CHUNKS).is_some();
        let at_end = |shift: u64| least - END + shift + header_length(CHUNKS);
        if bundle.entries().count() != seen + of_sums + signatures_of_chunks + usize::from(is_there) {
            return Ok(None);
        }
        // What follows the blobs if the signatures before them take `shift` bytes.
        let behind_blobs = |shift: u64| {
            let rest = length.checked_sub(least.checked_add(shift)?)?;
            match rest.checked_sub(of_chunks) {
                _ if rest == 0 => Some(0),
                Some(signatures) if are_signatures(signatures) => Some(rest),
                _ => None,
            }
        };
        let shifts = || (0..=MOST_SIGNATURES as u64).map(|number| number * SIGNATURE_ROOM);
        let of_chunks_b3 = |shift: u64| {
            let data = at_end(shift);
            PlannedFile { path: CHUNKS.to_owned(), size: chunks, header: data - header_length(CHUNKS), data }
        };
        let has_header = |file: &PlannedFile, shift: u64| {
            let expected = file.header_blocks(list.json.mtime());
            let mut found = vec![0; expected.len()];
            tar.read_exact_at(&mut found, file.header.saturating_add(shift)).is_ok() && found == expected
        };
        let by_headers = || {
            let is_at_end = |shift: &u64| has_header(&of_chunks_b3(*shift), 0);
            let found = |file: &PlannedFile| shifts().find(|shift| has_header(file, *shift));
            planned[behind..].iter().find_map(found).or_else(|| shifts().find(is_at_end))
        };
        // With signatures at both ends, several numbers of them fit; then only a header can decide.
        let by_length = || {
            let mut fitting = shifts().filter(|shift| behind_blobs(*shift).is_some());
            fitting.next().filter(|_| fitting.next().is_none())
        };
        let shift = known.or_else(by_headers).or_else(by_length).filter(|shift| are_signatures(*shift));
        let Some(shift) = shift else { return Ok(None) };
        if found(CHUNKS).is_some_and(|(offset, _)| offset != at_end(shift)) {
            return Ok(None);
        }
        let found_chunks = of_chunks + signatures_of_chunks as u64 * SIGNATURE_ROOM;
        // The whole end is written for a tar that has lost its end. What is found there is not cut off.
        let trailer = behind_blobs(shift).filter(|rest| *rest > 0 || !wants_chunks).unwrap_or(found_chunks);
        let trailer = if is_there { trailer.max(found_chunks) } else { trailer };
        let first = planned.get(behind).map_or(least - END, |file| file.header);
        planned.iter_mut().skip(behind).for_each(|file| {
            file.header += shift;
            file.data += shift;
        });
        if trailer > 0 {
            planned.push(of_chunks_b3(shift));
        }
        let signatures: Vec<u64> = (0..shift / SIGNATURE_ROOM).map(|number| first + number * SIGNATURE_ROOM).collect();
        let header_of = |path: &str| found(path).and_then(|(offset, _)| offset.checked_sub(BLOCK));
        let is_in_place = |path: &str| header_of(path).is_some_and(|header| signatures.contains(&header));
        if !signatures_of(bundle, SUMS).into_iter().all(is_in_place) {
            // One that was added after the rest would be cut off.
            return Ok(None);
        }
        let end = at_end(shift) + chunks.next_multiple_of(BLOCK);
        let behind_chunks = trailer.saturating_sub(of_chunks) / SIGNATURE_ROOM;
        let chunks_signatures = (0..behind_chunks).map(|number| end + number * SIGNATURE_ROOM).collect();
        Ok(Some(TarSurvey { files: planned, signatures, chunks_signatures, length: least + shift + trailer }))
    }
}

/// A damaged copy with the files that its survey adds to those of its headers; `None` if its headers list all files, or
/// nothing says where the others are.
///
/// # Errors
/// The copy cannot be read.
pub fn by_survey(copy: &Layout, list: &FileList<'_>) -> Result<Option<Layout>> {
    if copy.problems().is_empty() {
        return Ok(None);
    }
    let Some(survey) = TarSurvey::of(copy, list, false)? else { return Ok(None) };
    let places =
        survey.files.into_iter().map(|PlannedFile { path, size, data, .. }| (path, Place { offset: data, size }));
    Ok(copy.with_places(places))
}

/// Whether this can be the size of signatures.
fn are_signatures(bytes: u64) -> bool {
    bytes.is_multiple_of(SIGNATURE_ROOM) && bytes / SIGNATURE_ROOM <= MOST_SIGNATURES as u64
}
