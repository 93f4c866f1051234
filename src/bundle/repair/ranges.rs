//! Single chunks of large blobs in a repair file: of a blob of many gigabytes with one bad mebibyte, only that mebibyte is
//! included.
//!
//! # Threats
//! The list of what is missing and the repair file may contain anything. Fetched ranges are proven by the values in the list,
//! and the resulting blob by its digest before any byte of it is written. All ranges are held in memory; if they exceed the
//! limit, whole blobs are fetched, and a repair file with more is rejected.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::missing::{Missing, MissingBlob, MissingRange};
use crate::content::chunks::{CHUNK, OneChunk};
use crate::content::{Origin, Slice, Source};
use crate::files::Layout;
use crate::oci::{Blake3, Descriptor, Digest, Repository};
use crate::pipeline::graph::PlacedBlob;
use crate::pipeline::transfer::refuse_failed;

/// The file with the bytes of all ranges, one after the other.
pub const RANGES: &str = "ranges";
/// Maximum number of bytes, and of ranges, in it.
const MOST_BYTES: u64 = 48 << 20;
const MOST_RANGES: usize = 500;

/// A range in `repair.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairRange {
    /// Digest of the blob.
    pub digest: Digest,
    /// The first and last byte in the blob.
    pub first: u64,
    pub last: u64,
}

/// Bytes of a blob.
#[derive(Clone, Debug)]
pub struct Patch {
    /// Position of the first byte in the blob.
    pub first: u64,
    pub bytes: Slice,
}

impl Patch {
    /// The position after its last byte.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.bytes.size())
    }
}

/// The blob with these patches, ascending and disjoint, in place of its own bytes; `None` if they exceed its end.
pub fn patched(blob: &Slice, patches: &[Patch]) -> Option<Slice> {
    let mut pieces = Vec::with_capacity(2 * patches.len() + 1);
    let mut at = 0;
    for patch in patches {
        pieces.extend([blob.between(at, patch.first), patch.bytes.clone()]);
        at = patch.end();
    }
    pieces.push(blob.between(at, blob.size()));
    Slice::joined(pieces).filter(|joined| joined.size() == blob.size())
}

/// The blobs of which only ranges are included.
pub fn in_ranges(missing: &Missing) -> HashMap<Digest, &MissingBlob> {
    let (mut bytes, mut number) = (0_u64, 0);
    let fits = |blob: &&MissingBlob| {
        let own = blob.ranges.iter().map(length).fold(0, u64::saturating_add);
        let fits = own > 0 && bytes.saturating_add(own) <= MOST_BYTES && number + blob.ranges.len() <= MOST_RANGES;
        if fits {
            bytes += own;
            number += blob.ranges.len();
        }
        fits
    };
    missing.blobs.iter().filter(fits).map(|blob| (blob.digest, blob)).collect()
}

fn length(range: &MissingRange) -> u64 {
    range.last.saturating_sub(range.first).saturating_add(1)
}

/// Fetches ranges of these blobs in parallel: their entries in `repair.json`, and their bytes.
///
/// # Errors
/// Lists every range that failed at the source or has wrong bytes.
pub async fn fetch(
    wanted: Vec<(&MissingBlob, PlacedBlob)>,
    source: &dyn Source,
    jobs: usize,
    events: &Events,
) -> Result<(Vec<RepairRange>, Vec<u8>)> {
    let all: Vec<(&MissingRange, &PlacedBlob)> =
        wanted.iter().flat_map(|(blob, placed)| blob.ranges.iter().map(move |range| (range, placed))).collect();
    if all.is_empty() {
        return Ok(Default::default());
    }
    let bytes: u64 = all.iter().map(|(range, _)| length(range)).sum();
    events.report(Event::Phase { phase: Phase::Transfer, items: all.len() as u64, bytes });
    let fetch = |(range, PlacedBlob { blob, repository }): (&MissingRange, &PlacedBlob)| {
        let (range, blob, repository) = (range.clone(), blob.clone(), repository.clone());
        async move {
            let (digest, size) = (blob.digest, length(&range));
            events.report(Event::BlobStarted { digest, size, present: 0 });
            let bytes = fetch_one(&range, &blob, &repository, source).await?;
            events.report(Event::BlobAdvanced { digest, bytes: size });
            events.report(Event::BlobFinished { digest });
            events.report(Event::ItemDone);
            Ok::<_, Error>((RepairRange { digest, first: range.first, last: range.last }, bytes))
        }
    };
    let mut fetched = stream::iter(all).map(fetch).buffered(jobs.max(1));
    let (mut ranges, mut bytes) = (Vec::new(), Vec::with_capacity(usize::try_from(bytes).unwrap_or_default()));
    let mut failures = Vec::new();
    while let Some(fetched) = fetched.next().await {
        match fetched {
            Ok((range, own)) => {
                ranges.push(range);
                bytes.extend(own);
            }
            Err(error) => failures.push(error),
        }
    }
    refuse_failed(Ok(()), failures)?;
    Ok((ranges, bytes))
}

async fn fetch_one(
    range: &MissingRange,
    blob: &Descriptor,
    repository: &Repository,
    source: &dyn Source,
) -> Result<Vec<u8>> {
    loop {
        let body = Origin { source, repository }.body(blob, range.first).await?;
        let (mut at, mut stream, mut bytes) = (body.offset, body.stream, Vec::new());
        while at <= range.last {
            let Some(piece) = stream.next().await.transpose()? else { break };
            let end = at + piece.len() as u64;
            let (from, to) = (range.first.clamp(at, end), (range.last + 1).clamp(at, end));
            let place = |byte: u64| usize::try_from(byte - at).unwrap_or(usize::MAX);
            bytes.extend_from_slice(piece.get(place(from)..place(to)).unwrap_or_default());
            at = end;
        }
        if is_right(range, blob.size, &bytes) {
            return Ok(bytes);
        }
        let (first, last, digest) = (range.first, range.last, blob.digest);
        let text = format!(
            "reading bytes {first}-{last} of blob {digest}: they differ from those that the bundle was made of"
        );
        source.gave_wrong(repository, blob, Error::damaged(text)).await?;
    }
}

/// The bad ranges as a copy of the bundle has them; two copies may be bad in different places.
pub fn of_copy(copy: &Layout, missing: &Missing) -> HashMap<Digest, Vec<Patch>> {
    let patches = missing.blobs.iter().filter(|blob| !blob.ranges.is_empty()).filter_map(|blob| {
        let slice = copy.slice(&blob.digest.blob_path()).ok().flatten()?;
        let patch = |range: &MissingRange| {
            let bytes = slice.between(range.first, range.last.saturating_add(1));
            Patch { first: range.first, bytes }
        };
        Some((blob.digest, blob.ranges.iter().map(patch).collect()))
    });
    patches.collect()
}

/// Whether the patches cover the whole range of a blob of `size` bytes with bytes that do not match its values.
pub fn is_other(range: &MissingRange, patches: &[Patch], size: u64) -> bool {
    let patch = patches.iter().find(|patch| patch.first <= range.first && range.last < patch.end());
    patch.is_some_and(|patch| {
        let brought = patch.bytes.between(range.first - patch.first, range.last - patch.first + 1);
        !brought.read_all(MOST_BYTES).is_ok_and(|bytes| is_right(range, size, &bytes))
    })
}

fn is_right(range: &MissingRange, size: u64, bytes: &[u8]) -> bool {
    let value = |(number, chunk): (u64, &[u8])| {
        let mut one = OneChunk::new(number, size);
        one.update(chunk);
        Blake3::from(one.finish())
    };
    let found = (range.first / CHUNK..).zip(bytes.chunks(CHUNK as usize)).map(value);
    bytes.len() as u64 == length(range) && found.eq(range.values.iter().copied())
}

/// The ranges in a repair file, by blob; unsorted ones are not used.
///
/// # Errors
/// There are more than allowed, or their bytes are missing.
pub fn patches(repair: &Layout, ranges: &[RepairRange]) -> Result<HashMap<Digest, Vec<Patch>>> {
    let fail = |why: &str| Error::damaged(format!("reading {}: {why}", repair.path().join(RANGES).display()));
    if ranges.is_empty() {
        return Ok(HashMap::new());
    }
    let all = repair.slice(RANGES)?.ok_or_else(|| fail("it is missing"))?;
    if all.size() > MOST_BYTES {
        return Err(fail(&format!("it has {} bytes, more than {MOST_BYTES}", all.size())));
    }
    let (mut patches, mut at): (HashMap<Digest, Vec<Patch>>, u64) = (HashMap::new(), 0);
    for RepairRange { digest, first, last } in ranges {
        let length = last.checked_sub(*first).and_then(|length| length.checked_add(1));
        let end = length.and_then(|length| at.checked_add(length)).filter(|end| *end <= all.size());
        let end = end.ok_or_else(|| fail("its bytes differ from repair.json"))?;
        let own = patches.entry(*digest).or_default();
        if own.last().is_some_and(|before| before.end() > *first) {
            return Err(fail("its ranges are not in order"));
        }
        own.push(Patch { first: *first, bytes: all.between(at, end) });
        at = end;
    }
    Ok(patches)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::content::chunks::Chunks;
    use crate::content::{Body, Files, Need, ReferrerList, TagList};
    use crate::oci::{Manifest, Reference, media_type};

    /// A single blob, either from any position or always from its start.
    struct Only(Vec<u8>, bool);

    #[async_trait]
    impl Source for Only {
        async fn tags(&self, _: &Repository, _: Need) -> Result<TagList> {
            Ok(TagList::default())
        }

        async fn resolve(&self, _: &Reference, _: Need) -> Result<Option<Descriptor>> {
            Ok(None)
        }

        async fn manifest(&self, _: &Reference, _: Need) -> Result<Option<Manifest>> {
            Ok(None)
        }

        async fn referrers(&self, _: &Repository, _: &Digest) -> Result<ReferrerList> {
            Ok(ReferrerList::default())
        }

        async fn blob(&self, _: &Repository, _: &Descriptor, offset: u64) -> Result<Body> {
            let offset = if self.1 { 0 } else { offset };
            let pieces: Vec<Result<Bytes>> =
                self.0[offset as usize..].chunks(70_001).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            Ok(Body::new(offset, stream::iter(pieces).boxed()))
        }

        async fn gave_wrong(&self, _: &Repository, _: &Descriptor, error: Error) -> Result<()> {
            Err(error)
        }

        fn counts_pulls(&self, _: &Repository) -> bool {
            false
        }

        fn files(&self) -> Option<&dyn Files> {
            None
        }
    }

    #[tokio::test]
    async fn exactly_the_bytes_that_are_missing_are_taken_and_others_are_refused() {
        let bytes: Vec<u8> = (0..3 * CHUNK + 5).map(|at| (at % 251) as u8).collect();
        let blob = Descriptor::new(media_type::OCI_INDEX, Digest::sha256(&bytes), bytes.len() as u64);
        let repository = "registry.test/a:1".parse::<Reference>().unwrap().repository;
        let values: Vec<Blake3> = Chunks::of(&bytes).values().iter().copied().map(Blake3::from).collect();
        for (from, to) in [(0, 0), (1, 2), (2, 3), (3, 3), (0, 3)] {
            let (first, last) = (from as u64 * CHUNK, ((to as u64 + 1) * CHUNK).min(blob.size) - 1);
            let range = MissingRange { first, last, values: values[from..=to].to_vec() };
            let expected = &bytes[first as usize..=last as usize];
            for ignores in [false, true] {
                let source = Only(bytes.clone(), ignores);
                assert_eq!(fetch_one(&range, &blob, &repository, &source).await.unwrap(), expected);
                let mut wrong = bytes.clone();
                wrong[last as usize] ^= 1;
                for wrong in [wrong, bytes[..last as usize].to_vec()] {
                    let refused = fetch_one(&range, &blob, &repository, &Only(wrong, ignores)).await;
                    assert!(refused.unwrap_err().chain().contains("differ from those that the bundle was made of"));
                }
            }
        }
    }

    #[test]
    fn of_more_than_fits_into_memory_whole_blobs_are_carried() {
        let blob = |name: &[u8], mebibytes: u64| {
            let range = MissingRange { first: 0, last: mebibytes * CHUNK - 1, values: Vec::new() };
            MissingBlob { digest: Digest::sha256(name), size: None, ranges: vec![range] }
        };
        let blobs = vec![blob(b"a", 40), blob(b"b", 9), blob(b"c", 8)];
        let (identity, tool) = (Digest::sha256(b"bundle"), String::new());
        let missing = Missing { gapferry_missing: 1, tool, identity, metadata: Vec::new(), tools: Vec::new(), blobs };
        let in_ranges = in_ranges(&missing);
        assert_eq!(
            ["a", "b", "c"].map(|name| in_ranges.contains_key(&Digest::sha256(name.as_bytes()))),
            [true, false, true]
        );
    }
}
