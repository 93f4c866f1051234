//! Parity over files: computes what is lost of some from the others, one stripe at a time.
//!
//! The input is files, and which of their mebibytes are good. The module does not depend on their content or names. Nothing is
//! proven here; callers compare the output with its expected digests.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

use crate::base::error::{Error, Result};
use crate::base::fsops;
use crate::content::in_parallel;
use crate::oci::{Algorithm, Digest, Hasher};

/// Bytes that are good or bad as a whole and have a BLAKE3 of their own.
pub const MEBIBYTE: u64 = 1 << 20;
/// The length of a shard is a multiple of this many bytes, which are coded independently.
pub const UNIT: u64 = 64;
/// Bytes in memory for the shards of a stripe; the coder takes as much again.
const STRIPES: usize = 16 << 20;
/// Maximum number of files to keep open; others are opened for each read.
const MOST_OPEN: usize = 400;

/// Where the bytes of a shard are; some may be bad.
#[derive(Debug)]
pub struct ShardPlace {
    path: PathBuf,
    /// Position of the shard in the file.
    offset: u64,
    /// By mebibyte of the shard; `None` if all are good.
    good: Option<Vec<bool>>,
}

impl ShardPlace {
    pub fn new(path: &Path, offset: u64, good: Option<Vec<bool>>) -> ShardPlace {
        ShardPlace { path: path.to_owned(), offset, good }
    }

    fn is_good(&self, mebibyte: u64) -> bool {
        let at = usize::try_from(mebibyte).unwrap_or(usize::MAX);
        self.good.as_ref().is_none_or(|good| good.get(at).copied().unwrap_or(false))
    }
}

/// One of the original files, or a parity.
#[derive(Debug)]
pub struct Shard {
    /// Size in bytes; zeros follow up to the length of all shards.
    pub size: u64,
    /// `None` if it is lost.
    pub place: Option<ShardPlace>,
}

impl Shard {
    /// Whether these bytes are known. Bytes beyond its end always are.
    fn is_known(&self, at: u64) -> bool {
        at >= self.size || self.place.as_ref().is_some_and(|place| place.is_good(at / MEBIBYTE))
    }
}

/// All shards of a code. Invariant: the code supports these numbers.
#[derive(Debug)]
pub struct Shards {
    originals: Vec<Shard>,
    parities: Vec<Shard>,
    /// Length of every shard in bytes; a multiple of [`UNIT`].
    length: u64,
}

/// One of the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShardId {
    Original(usize),
    Parity(usize),
}

/// A file to write a shard to.
#[derive(Debug)]
pub struct ShardTarget {
    pub which: ShardId,
    pub path: PathBuf,
    pub file: Arc<File>,
    /// Position of the shard in the file.
    pub offset: u64,
}

/// The digests of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeDigests {
    pub sha256: Digest,
    /// BLAKE3 of each mebibyte.
    pub mebibytes: Vec<[u8; 32]>,
}

/// Hashes the bytes of a file in order.
pub struct VolumeHasher {
    sha256: Hasher,
    mebibyte: blake3::Hasher,
    mebibytes: Vec<[u8; 32]>,
}

impl Default for VolumeHasher {
    fn default() -> VolumeHasher {
        let sha256 = Hasher::new(Algorithm::Sha256);
        VolumeHasher { sha256, mebibyte: blake3::Hasher::new(), mebibytes: Vec::new() }
    }
}

impl VolumeHasher {
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.sha256.update(bytes);
        while !bytes.is_empty() {
            let room = usize::try_from(MEBIBYTE - self.mebibyte.count()).unwrap_or(bytes.len());
            let (now, then) = bytes.split_at(room.min(bytes.len()));
            self.mebibyte.update(now);
            if self.mebibyte.count() == MEBIBYTE {
                self.end_mebibyte();
            }
            bytes = then;
        }
    }

    fn end_mebibyte(&mut self) {
        self.mebibytes.push(self.mebibyte.finalize().into());
        self.mebibyte.reset();
    }

    pub fn finish(mut self) -> VolumeDigests {
        if self.mebibyte.count() > 0 {
            self.end_mebibyte();
        }
        VolumeDigests { sha256: self.sha256.finish(), mebibytes: self.mebibytes }
    }
}

/// What passed through [`Shards::compute`].
#[derive(Debug)]
pub struct Computed {
    /// The originals that were completely read or computed, in order.
    pub originals: Vec<Option<VolumeDigests>>,
    /// The parities that were computed.
    pub parities: Vec<Option<VolumeDigests>>,
}

/// All shards in one stripe.
#[derive(Clone, Copy)]
struct Rows<'a> {
    originals: &'a [Mutex<Row>],
    parities: &'a [Mutex<Row>],
}

/// The bytes of a shard in one stripe.
struct Row {
    bytes: Vec<u8>,
    is_known: bool,
    hasher: Option<VolumeHasher>,
    /// Kept open unless there are too many.
    file: Option<File>,
}

impl Shards {
    /// `length` is that of every shard in bytes.
    ///
    /// # Errors
    /// There are more shards than the code supports, or one is longer than `length`.
    pub fn new(originals: Vec<Shard>, parities: Vec<Shard>, length: u64) -> Result<Shards> {
        let (k, n) = (originals.len(), parities.len());
        let fits = |shard: &Shard| shard.size <= length;
        let is_coded = supports(k, n) && length > 0 && length.is_multiple_of(UNIT);
        if !is_coded || !originals.iter().all(fits) || !parities.iter().all(|shard| shard.size == length) {
            return Err(Error::input(format!(
                "parity of {k} volumes in {n} with {length} bytes each cannot be computed"
            )));
        }
        Ok(Shards { originals, parities, length })
    }

    /// Length of every shard in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Number of additional parities needed; 0 if everything that is lost can be computed.
    pub fn lacking(&self) -> usize {
        let mebibytes = 0..self.length.div_ceil(MEBIBYTE);
        mebibytes.map(|mebibyte| self.lacking_in(mebibyte * MEBIBYTE)).max().unwrap_or(0)
    }

    fn lacking_in(&self, at: u64) -> usize {
        let known = |shards: &[Shard]| shards.iter().filter(|shard| shard.is_known(at)).count();
        (self.originals.len() - known(&self.originals)).saturating_sub(known(&self.parities))
    }

    /// Writes `targets` and computes what is lost; reads only what that needs. `advance` receives the number of bytes done in
    /// each shard.
    ///
    /// # Errors
    /// Too much is lost (`Damaged`; nothing was written), or the disk fails.
    pub fn compute(&self, targets: &[ShardTarget], advance: &dyn Fn(u64)) -> Result<Computed> {
        let lacking = self.lacking();
        if lacking > 0 {
            return Err(Error::damaged(format!("too much is lost: {lacking} more recovery volumes are needed")));
        }
        let wants_parity = targets.iter().any(|target| matches!(target.which, ShardId::Parity(_)));
        let is_target = |which| targets.iter().any(|target| target.which == which);
        let rows = |shards: &[Shard], which: fn(usize) -> ShardId, all: bool| -> Vec<Mutex<Row>> {
            let row = |at| {
                let hasher = (all || is_target(which(at))).then(VolumeHasher::default);
                Mutex::new(Row { bytes: Vec::new(), is_known: false, hasher, file: None })
            };
            (0..shards.len()).map(row).collect()
        };
        let originals = rows(&self.originals, ShardId::Original, wants_parity);
        let parities = rows(&self.parities, ShardId::Parity, false);
        let step = self.stripe();
        let mut at = 0;
        while at < self.length {
            let length = (self.length - at).min(step);
            self.compute_stripe(
                Rows { originals: &originals, parities: &parities },
                at,
                length,
                wants_parity,
                targets,
            )?;
            advance(length);
            at += length;
        }
        let done = |rows: Vec<Mutex<Row>>| -> Vec<Option<VolumeDigests>> {
            let rows = rows.into_iter().map(|row| row.into_inner().unwrap_or_else(PoisonError::into_inner));
            rows.map(|row| row.hasher.map(VolumeHasher::finish)).collect()
        };
        Ok(Computed { originals: done(originals), parities: done(parities) })
    }

    /// Bytes of each shard per stripe: a power of two, so that no stripe spans two mebibytes.
    fn stripe(&self) -> u64 {
        let (k, n) = (self.originals.len(), self.parities.len());
        let rows = (k + n.next_power_of_two()).max(n + k.next_power_of_two()).next_power_of_two();
        ((STRIPES / rows) as u64).clamp(UNIT, MEBIBYTE)
    }

    fn compute_stripe(
        &self,
        rows: Rows<'_>,
        at: u64,
        length: u64,
        wants_parity: bool,
        targets: &[ShardTarget],
    ) -> Result<()> {
        let Rows { originals, parities } = rows;
        let lost: Vec<usize> = (0..originals.len()).filter(|k| !self.originals[*k].is_known(at)).collect();
        let all = wants_parity || !lost.is_empty();
        let is_read = |k: &usize| all || targets.iter().any(|target| target.which == ShardId::Original(*k));
        let read: Vec<(&Shard, &Mutex<Row>)> =
            (0..originals.len()).filter(is_read).map(|k| (&self.originals[k], &originals[k])).collect();
        let given = (0..parities.len()).filter(|n| self.parities[*n].is_known(at)).take(lost.len());
        let given: Vec<usize> = given.collect();
        let read_parities = given.iter().map(|n| (&self.parities[*n], &parities[*n]));
        let read: Vec<(&Shard, &Mutex<Row>)> = read.into_iter().chain(read_parities).collect();
        let keep = self.originals.len() + self.parities.len() + targets.len() <= MOST_OPEN;
        in_parallel(&read, |(shard, row)| fill(shard, &mut locked(row), at, length, keep))
            .into_iter()
            .collect::<Result<()>>()?;
        if !lost.is_empty() {
            self.restore(originals, parities, &given, length)?;
        }
        if wants_parity {
            self.compute_parities(originals, parities, length)?;
        }
        let hash = |shard: &Shard, row: &Mutex<Row>| {
            let Row { bytes, hasher, .. } = &mut *locked(row);
            let known = usize::try_from(shard.size.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
            hasher.iter_mut().for_each(|hasher| hasher.update(&bytes[..known]));
        };
        let hashed: Vec<(&Shard, &Mutex<Row>)> =
            self.originals.iter().zip(originals).chain(self.parities.iter().zip(parities)).collect();
        in_parallel(&hashed, |(shard, row)| hash(shard, row));
        in_parallel(targets, |target| self.write(target, rows, at)).into_iter().collect()
    }

    fn write(&self, target: &ShardTarget, rows: Rows<'_>, at: u64) -> Result<()> {
        let (shard, row) = match target.which {
            ShardId::Original(k) => (&self.originals[k], &rows.originals[k]),
            ShardId::Parity(n) => (&self.parities[n], &rows.parities[n]),
        };
        let row = locked(row);
        let known = usize::try_from(shard.size.saturating_sub(at)).unwrap_or(usize::MAX).min(row.bytes.len());
        let written = target.file.write_all_at(&row.bytes[..known], target.offset + at);
        written.map_err(|e| Error::disk("writing", &target.path, e))
    }

    /// The originals that are unknown in this stripe, from the others and the `given` parities.
    fn restore(&self, originals: &[Mutex<Row>], parities: &[Mutex<Row>], given: &[usize], length: u64) -> Result<()> {
        let (k, n) = (originals.len(), parities.len());
        let restored = in_columns(length, |begin, end| {
            let mut decoder = ReedSolomonDecoder::new(k, n, end - begin)?;
            for (at, row) in originals.iter().enumerate() {
                let row = locked(row);
                if row.is_known {
                    decoder.add_original_shard(at, &row.bytes[begin..end])?;
                }
            }
            for at in given {
                decoder.add_recovery_shard(*at, &locked(&parities[*at]).bytes[begin..end])?;
            }
            let result = decoder.decode()?;
            Ok(result.restored_original_iter().map(|(at, bytes)| (at, bytes.to_vec())).collect())
        })?;
        for (begin, rows) in restored {
            rows.into_iter().for_each(|(at, bytes)| put(&originals[at], begin, &bytes, length));
        }
        originals.iter().for_each(|row| locked(row).is_known = true);
        Ok(())
    }

    /// All parities of this stripe.
    fn compute_parities(&self, originals: &[Mutex<Row>], parities: &[Mutex<Row>], length: u64) -> Result<()> {
        let (k, n) = (originals.len(), parities.len());
        let computed = in_columns(length, |begin, end| {
            let mut encoder = ReedSolomonEncoder::new(k, n, end - begin)?;
            for row in originals {
                encoder.add_original_shard(&locked(row).bytes[begin..end])?;
            }
            let result = encoder.encode()?;
            Ok(result.recovery_iter().map(<[u8]>::to_vec).enumerate().collect())
        })?;
        for (begin, rows) in computed {
            rows.into_iter().for_each(|(at, bytes)| put(&parities[at], begin, &bytes, length));
        }
        Ok(())
    }
}

/// Whether the code supports this many parities of this many files.
pub fn supports(originals: usize, parities: usize) -> bool {
    ReedSolomonEncoder::supports(originals, parities)
}

fn locked(row: &Mutex<Row>) -> MutexGuard<'_, Row> {
    row.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads what is known of a shard in a stripe.
fn fill(shard: &Shard, row: &mut Row, at: u64, length: u64, keep: bool) -> Result<()> {
    let length = usize::try_from(length).unwrap_or_default();
    if row.bytes.len() != length {
        row.bytes.resize(length, 0);
    }
    row.is_known = shard.is_known(at);
    let left = usize::try_from(shard.size.saturating_sub(at)).unwrap_or(usize::MAX).min(length);
    row.bytes[left..].fill(0);
    let Some(place) = shard.place.as_ref().filter(|_| row.is_known && left > 0) else { return Ok(()) };
    let fail = |e| Error::disk("reading", &place.path, e);
    let file = match row.file.take() {
        Some(file) => file,
        None => fsops::open_plain(&place.path).map_err(fail)?,
    };
    let read = file.read_exact_at(&mut row.bytes[..left], place.offset + at);
    read.map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::damaged(format!("{} changed while it was being read", place.path.display()))
        }
        _ => fail(e),
    })?;
    row.file = keep.then_some(file);
    Ok(())
}

fn put(row: &Mutex<Row>, begin: usize, bytes: &[u8], length: u64) {
    let mut row = locked(row);
    let length = usize::try_from(length).unwrap_or_default();
    if row.bytes.len() != length {
        row.bytes.resize(length, 0);
    }
    row.bytes[begin..begin + bytes.len()].copy_from_slice(bytes);
}

/// The result for a piece of a stripe: shards by number, from this byte of the stripe.
type Column = (usize, Vec<(usize, Vec<u8>)>);

/// Processes a stripe in pieces of whole units on all cores.
fn in_columns(
    length: u64,
    work: impl Fn(usize, usize) -> Result<Vec<(usize, Vec<u8>)>, reed_solomon_simd::Error> + Sync,
) -> Result<Vec<Column>> {
    let threads = std::thread::available_parallelism().map_or(1, |number| number.get() as u64);
    let step = length.div_ceil(threads).next_multiple_of(UNIT).max(UNIT);
    let length = usize::try_from(length).unwrap_or_default();
    let step = usize::try_from(step).unwrap_or(length.max(1));
    let columns: Vec<(usize, usize)> =
        (0..length).step_by(step).map(|begin| (begin, length.min(begin + step))).collect();
    let done = in_parallel(&columns, |(begin, end)| work(*begin, *end).map(|rows| (*begin, rows)));
    let done = done.into_iter().collect::<Result<Vec<Column>, _>>();
    done.map_err(|e| Error::damaged("computing with recovery volumes").because(e))
}

#[cfg(test)]
mod tests;
