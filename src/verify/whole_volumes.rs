//! Volumes read from their first byte to their last, where recovery volumes say what these bytes were.
//!
//! A recovery volume that was made of other volumes is good by itself, and cannot rebuild a lost volume. What a volume holds is
//! hashed in the same pass: only files that are cut are read twice, as a whole and in their volumes.

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

/// How much is read at a time, in bytes.
const PIECE: usize = 256 * 1024;

/// What the pass over the volumes has shown.
#[derive(Default)]
pub struct WholeVolumes<'s> {
    set: Option<&'s Volumes>,
    /// As in the set. `None`: it was not read this way.
    read: Vec<Option<ReadVolume>>,
}

struct ReadVolume {
    size: u64,
    sha256: Digest,
    /// Blobs by the algorithm of their names, any other file by sha256.
    files: HashMap<String, Hashed>,
}

impl<'s> WholeVolumes<'s> {
    /// Reads all volumes, if all of their bytes are to be proven and recovery volumes are here. What cannot be read, or has faults,
    /// is left to the check of its files.
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

    /// What a file of the bundle hashes to, if one volume has all of it: then it is read from there, and not from pieces. With
    /// another algorithm than that of `digest` it says nothing.
    pub fn of_bundle(&self, path: &str, digest: &Digest) -> Option<&Hashed> {
        self.of_volume(self.set?.layout().part_of(path)?, path, digest)
    }

    /// The same of a file in the volume at this place.
    pub fn of_volume(&self, at: usize, path: &str, digest: &Digest) -> Option<&Hashed> {
        let is_hashed_so = algorithm_of(path) == digest.algorithm();
        self.read.get(at)?.as_ref().filter(|_| is_hashed_so)?.files.get(path)
    }

    /// A problem of every recovery volume that was made of other bytes than a volume has that is here, and good: `problems` are
    /// those that were found.
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

/// Of one recovery volume, with the first volume that it does not fit.
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

/// Reads a tar. `None`: the file is not a tar, or not laid out as it should be.
fn read(layout: &Layout, buffer: &mut [u8], advance: &dyn Fn(u64)) -> io::Result<Option<ReadVolume>> {
    let Some(file) = layout.tar().filter(|_| layout.faults().is_empty()) else { return Ok(None) };
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
