//! Decides which volume contains what, and where, before the first byte is read.
//!
//! First fit in the order of the bundle's tar; see `docs/format.md`. It is pure: paths and sizes in, a layout out, always the
//! same.

use std::sync::Arc;

use super::capacity::{Cost, Room};
use super::format::MOST_VOLUMES;
use super::layout::{Common, Cut, Held, VolumePlan};
use super::recovery_layout::recovery_length;
use crate::base::error::{Error, Result};
use crate::base::progress::units::bytes;
use crate::bundle::tar_plan::BLOCK;
use crate::content::chunks::CHUNK;
use crate::oci::Digest;

/// A cut file starts in a volume with content only if at least this fraction of an empty volume is left.
const LEAST_BEGINNING: u64 = 8;

/// The cost of starting a volume, and of finding how much of a cut file fits into it, in steps of [`Effort`].
const BEGINNING: u64 = 128;

/// What to lay out as a set.
#[derive(Clone, Debug)]
pub struct SetRequest {
    /// Metadata with sizes in bytes, in tar order; the same in every volume.
    pub metadata: Vec<(String, u64)>,
    /// All manifests, likewise.
    pub manifests: Vec<(String, u64)>,
    /// Every other file, likewise; each is in one volume.
    pub files: Vec<(String, u64)>,
    /// Maximum size of a volume in bytes.
    pub limit: u64,
    /// Number of recovery volumes.
    pub recovery: u32,
}

/// Limits on the work of laying out a set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Number of volumes; a larger set is given up.
    pub volumes: u32,
    /// Number of volumes to examine for space, counted for each file.
    pub steps: u64,
}

impl Effort {
    /// As many volumes as a set can have, however long it takes.
    fn any() -> Effort {
        Effort { volumes: MOST_VOLUMES, steps: u64::MAX }
    }
}

/// All volumes of a set except recovery volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetPlan {
    pub limit: u64,
    pub recovery: u32,
    pub volumes: Vec<VolumePlan>,
}

impl SetPlan {
    /// Lays out the set.
    ///
    /// # Errors
    /// The limit is too small for the metadata, or causes too many volumes; the error names the smallest limit that works.
    pub fn new(wanted: &SetRequest) -> Result<SetPlan> {
        let Some(drafts) = draft(wanted, wanted.limit, &mut Effort::any())? else {
            let least = smallest(wanted)?;
            let text = format!(
                "volumes of {} bytes are too small for this bundle: each contains all metadata and manifests, and \
                 there can be at most {MOST_VOLUMES}. The smallest possible size is {least} bytes ({})",
                wanted.limit,
                bytes(least)
            );
            return Err(Error::input(text));
        };
        let of = u32::try_from(drafts.len()).unwrap_or(u32::MAX);
        let (metadata, manifests) = (wanted.metadata.clone(), wanted.manifests.clone());
        let common = Arc::new(Common { metadata, manifests, limit: wanted.limit, recovery: wanted.recovery });
        let volumes = drafts.into_iter().zip(1..).map(|(files, number)| {
            let (fingerprint, common) = (Digest::sha256(b""), common.clone());
            let volume = VolumePlan { number, of, files, length: 0, fingerprint, common };
            let tar = volume.tar()?;
            match tar.length <= wanted.limit {
                true => Ok(VolumePlan { length: tar.length, fingerprint: tar.fingerprint(), ..volume }),
                // Costs are never less than the real sizes.
                false => Err(Error::input(format!("volume {number} would have {} bytes", tar.length))),
            }
        });
        Ok(SetPlan { limit: wanted.limit, recovery: wanted.recovery, volumes: volumes.collect::<Result<_>>()? })
    }

    /// The content of each volume of such a set; `None` if there is no such set, or it exceeds `effort`, which is reduced by
    /// the work done.
    pub(super) fn held(wanted: &SetRequest, effort: &mut Effort) -> Option<Vec<Vec<Held>>> {
        draft(wanted, wanted.limit, effort).ok().flatten()
    }

    /// Equal for equal layouts: tells whether unfinished volumes were started for this set.
    pub fn fingerprint(&self) -> Digest {
        let each = self.volumes.iter().map(|volume| format!("{}\n", volume.fingerprint));
        Digest::sha256(format!("{} {}\n{}", self.limit, self.recovery, each.collect::<String>()).as_bytes())
    }

    /// Bytes of all volumes except recovery volumes.
    pub fn length(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.length).fold(0, u64::saturating_add)
    }
}

/// The content of each volume; `None` if they would be too small or too many.
fn draft(wanted: &SetRequest, limit: u64, effort: &mut Effort) -> Result<Option<Vec<Vec<Held>>>> {
    if wanted.recovery == 0 {
        return Filling::fill(wanted, limit, limit, effort);
    }
    // A recovery volume describes each volume, so the space in volumes depends on their number.
    let mut expected = 1;
    loop {
        let Some(room) = limit.checked_sub(recovery_overhead(expected, limit, wanted.recovery)?) else {
            return Ok(None);
        };
        let Some(drafts) = Filling::fill(wanted, room, limit, effort)? else { return Ok(None) };
        if drafts.len() <= expected {
            return Ok(Some(drafts));
        }
        expected = drafts.len();
    }
}

/// Maximum number of bytes that a recovery volume has in addition to its parity, in a set of this many volumes of at most
/// `limit` bytes.
fn recovery_overhead(volumes: usize, limit: u64, recovery: u32) -> Result<u64> {
    let largest = limit.saturating_sub(limit % BLOCK);
    Ok(recovery_length(&vec![largest; volumes], recovery, limit)?.saturating_sub(largest))
}

/// The smallest limit that works.
fn smallest(wanted: &SetRequest) -> Result<u64> {
    let common: Vec<(String, u64)> = wanted.metadata.iter().chain(&wanted.manifests).cloned().collect();
    let files = wanted.files.iter().map(|(path, size)| Cost::of_file(path, *size).length());
    let empty = Cost::of_empty(&common, u64::MAX)?.length();
    let all = files.fold(empty, u64::saturating_add);
    let overhead = recovery_overhead(1, all.saturating_mul(2).max(CHUNK), wanted.recovery.max(1))?;
    let mut enough = all.saturating_add(overhead);
    let mut too_small = wanted.limit.min(enough);
    while enough.saturating_sub(too_small) > 1 {
        let middle = too_small + (enough - too_small) / 2;
        if draft(wanted, middle, &mut Effort::any())?.is_some() { enough = middle } else { too_small = middle }
    }
    Ok(enough)
}

/// Volumes that are being filled.
struct Filling<'e> {
    effort: &'e mut Effort,
    empty: Room,
    rooms: Vec<Room>,
    held: Vec<Vec<Held>>,
    /// All earlier ones are full.
    first_open: usize,
}

/// There would be too many volumes, or nothing fits into one, or it takes too long.
struct Refused;

impl Filling<'_> {
    /// With volumes of at most `room` bytes, in a set whose limit is `limit`.
    fn fill(wanted: &SetRequest, room: u64, limit: u64, effort: &mut Effort) -> Result<Option<Vec<Vec<Held>>>> {
        let common: Vec<(String, u64)> = wanted.metadata.iter().chain(&wanted.manifests).cloned().collect();
        let empty = Room::new(Cost::of_empty(&common, limit)?, room);
        if !empty.fits(Cost::default()) {
            return Ok(None);
        }
        let mut filling = Filling { effort, empty, rooms: vec![empty], held: vec![Vec::new()], first_open: 0 };
        for (path, size) in &wanted.files {
            if filling.add(path, *size).is_err() {
                return Ok(None);
            }
        }
        Ok(Some(filling.held))
    }

    fn add(&mut self, path: &str, size: u64) -> std::result::Result<(), Refused> {
        let cost = Cost::of_file(path, size);
        if !self.empty.fits(cost) {
            return self.cut(path, size);
        }
        while self.rooms.get(self.first_open).is_some_and(Room::is_full) {
            self.first_open += 1;
        }
        let open = self.rooms.iter().skip(self.first_open);
        let found = open.clone().position(|room| room.fits(cost));
        self.spend(1 + found.unwrap_or_else(|| open.count()) as u64)?;
        let at = match found {
            Some(at) => self.first_open + at,
            None => self.begin()?,
        };
        self.rooms[at].take(cost);
        self.held[at].push(Held { path: path.to_owned(), size, cut: None });
        Ok(())
    }

    /// Starts another volume and returns its index.
    fn begin(&mut self) -> std::result::Result<usize, Refused> {
        if self.rooms.len() >= self.effort.volumes as usize {
            return Err(Refused);
        }
        self.spend(BEGINNING)?;
        self.rooms.push(self.empty);
        self.held.push(Vec::new());
        Ok(self.rooms.len() - 1)
    }

    fn spend(&mut self, steps: u64) -> std::result::Result<(), Refused> {
        self.effort.steps = self.effort.steps.checked_sub(steps).ok_or(Refused)?;
        Ok(())
    }

    fn cut(&mut self, path: &str, size: u64) -> std::result::Result<(), Refused> {
        let cost = Cost::of_segment(path, size);
        let worth_beginning = self.empty.most(cost, size) / LEAST_BEGINNING;
        let mut pieces: Vec<(usize, u64, u64)> = Vec::new();
        let (mut at, mut first) = (self.rooms.len() - 1, 0);
        while first < size {
            let mut most = self.rooms[at].most(cost, size - first);
            if most == 0 || first == 0 && most < worth_beginning {
                at = self.begin()?;
                most = self.rooms[at].most(cost, size - first);
            }
            if most == 0 {
                return Err(Refused);
            }
            self.rooms[at].take_segment(cost, most);
            pieces.push((at, first, most));
            first += most;
        }
        let of = u32::try_from(pieces.len()).map_err(|_| Refused)?;
        for ((at, first, size), number) in pieces.into_iter().zip(1..) {
            self.held[at].push(Held { path: path.to_owned(), size, cut: Some(Cut { number, of, first }) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
