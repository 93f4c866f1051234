//! Reads volumes from the first byte to the last, to compare them with the sums in recovery volumes.
//!
//! A recovery volume computed from other volumes can be intact and still unable to reconstruct a lost volume. The files in
//! a volume are hashed in the same pass: only files cut into segments are read twice, once as a whole and once in their
//! volumes.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::FileExt;

use super::{Depth, Problem, ProblemKind};
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::VOLUMES;
use crate::bundle::volumes::{Part, Recovery, Volumes, WholeVolume};
use crate::content::in_parallel_buffered;
use crate::content::proof::Hashed;
use crate::files::Layout;
use crate::oci::{Algorithm, Digest, Hasher};

/// Bytes read at a time.
const PIECE: usize = 256 * 1024;

/// The result of reading whole volumes.
#[derive(Default)]
pub struct WholeVolumes<'s> {
    set: Option<&'s Volumes>,
    /// One per volume, in the order of the set. `None` if it was not read from start to end.
    read: Vec<Option<ReadVolume>>,
}

struct ReadVolume {
    size: u64,
    sha256: Digest,
    /// Hashes of its files: blobs by the algorithm of their names, other files by SHA-256.
    files: HashMap<String, Hashed>,
}

impl<'s> WholeVolumes<'s> {
    /// Reads all volumes if every byte must be proven and recovery volumes were given. Volumes that cannot be read, or
    /// whose layout is wrong, are left to the check of their files.
    pub fn read(set: &'s Volumes, depth: Depth, events: &Events) -> WholeVolumes<'s> {
        if depth != Depth::Full || set.recovery.is_empty() {
            return WholeVolumes::default();
        }
        let layouts: Vec<Option<&Layout>> = (0..set.volumes.len()).map(|at| set.layout_of(at)).collect();
        let sizes = layouts.iter().flatten().flat_map(|layout| layout.entries()).map(|(_, size)| size);
        let (items, bytes) = (layouts.len() as u64, sizes.fold(0, u64::saturating_add));
        events.report(Event::Phase { phase: Phase::Verify, items, bytes });
        let read = in_parallel_buffered(&layouts, PIECE, |buffer, layout| {
            let advance = |bytes| events.report(Event::BlobAdvanced { digest: set.set.identity, bytes });
            let read = layout.and_then(|layout| read(layout, buffer, &advance).ok().flatten());
            events.report(Event::ItemDone);
            read
        });
        WholeVolumes { set: Some(set), read }
    }

    /// Returns the hash of a file of the bundle, if one volume contains all of it: the bundle then reads it from that
    /// volume and not from segments. `None` if it was hashed with another algorithm than that of `digest`.
    pub fn of_bundle(&self, path: &str, digest: &Digest) -> Option<&Hashed> {
        self.of_volume(self.set?.layout().part_of(path)?, path, digest)
    }

    /// As [`WholeVolumes::of_bundle`], for a file in the volume at this position.
    pub fn of_volume(&self, at: usize, path: &str, digest: &Digest) -> Option<&Hashed> {
        let is_hashed_so = algorithm_of(path) == digest.algorithm();
        self.read.get(at)?.as_ref().filter(|_| is_hashed_so)?.files.get(path)
    }

    /// Returns a problem for every recovery volume that does not fit a given volume that is good. `problems` are those
    /// found so far.
    pub fn stale(&self, problems: &[Problem]) -> Vec<Problem> {
        let Some(set) = self.set else { return Vec::new() };
        let bad: HashSet<&str> = problems.iter().filter_map(|problem| problem.volume.as_deref()).collect();
        let is_good = |path: &std::path::Path| !bad.contains(&*path.display().to_string());
        let mut copies: HashMap<u32, Vec<&ReadVolume>> = HashMap::new();
        for (volume, read) in set.volumes.iter().zip(&self.read).filter(|(volume, _)| is_good(&volume.path)) {
            copies.entry(volume.json.number).or_default().extend(read);
        }
        let recovery = set.recovery.iter().filter(|recovery| is_good(&recovery.path));
        recovery.filter_map(|recovery| stale(set, recovery, &copies)).collect()
    }
}

/// Returns the problem of one recovery volume, with the first volume that it does not fit.
fn stale(set: &Volumes, recovery: &Recovery, copies: &HashMap<u32, Vec<&ReadVolume>>) -> Option<Problem> {
    let mut misfits = (1..).zip(&recovery.json.volumes).filter_map(|(number, said)| {
        let copies = copies.get(&number)?;
        let fits = |read: &&ReadVolume| said.is(read.size, &read.sha256);
        let first = copies.first().filter(|_| !copies.iter().any(fits))?;
        Some((number, said, *first))
    });
    let (number, WholeVolume { size, sha256 }, read) = misfits.next()?;
    let more = match misfits.count() {
        0 => String::new(),
        more => format!("; and {more} more differ"),
    };
    let label = Part::Volume(number).label(set.set.of);
    let problem = Problem::new(&format!("{VOLUMES}{}.json", recovery.label), ProblemKind::StaleRecovery);
    let problem = problem.expected(format!("volume {label} with {} bytes and {}", read.size, read.sha256));
    Some(problem.found(format!("{size} bytes and {sha256}{more}")).in_volume(&recovery.path))
}

fn algorithm_of(path: &str) -> Algorithm {
    Digest::of_blob_path(path).map_or(Algorithm::Sha256, |digest| digest.algorithm())
}

/// Reads a tar. `None` if the file is not a tar, or its layout is wrong.
fn read(layout: &Layout, buffer: &mut [u8], advance: &dyn Fn(u64)) -> io::Result<Option<ReadVolume>> {
    let Some(file) = layout.tar().filter(|_| layout.problems().is_empty()) else { return Ok(None) };
    let size = file.metadata()?.len();
    let mut places = Vec::new();
    for (path, length) in layout.entries() {
        let Some(slice) = layout.slice(path).ok().flatten() else { return Ok(None) };
        places.push((slice.offset(), length, path));
    }
    places.sort_unstable();
    let (mut whole, mut at) = (Hasher::new(Algorithm::Sha256), 0);
    let mut pass = |from: u64, to: u64, own: &mut dyn FnMut(&[u8])| -> io::Result<()> {
        let mut from = from;
        while from < to {
            let length = usize::try_from(to - from).unwrap_or(usize::MAX).min(buffer.len());
            let piece = &mut buffer[..length];
            file.read_exact_at(piece, from)?;
            whole.update(piece);
            own(piece);
            from += length as u64;
        }
        Ok(())
    };
    let mut files = HashMap::with_capacity(places.len());
    for (offset, length, path) in places {
        let Some(end) = offset.checked_add(length).filter(|end| offset >= at && *end <= size) else { return Ok(None) };
        let mut own = Hasher::new(algorithm_of(path));
        pass(at, offset, &mut |_| ())?;
        pass(offset, end, &mut |piece| {
            own.update(piece);
            advance(piece.len() as u64);
        })?;
        files.insert(path.to_owned(), Hashed::of(own));
        at = end;
    }
    pass(at, size, &mut |_| ())?;
    Ok(Some(ReadVolume { size, sha256: whole.finish(), files }))
}
