//! The space in a volume: for its content, and for the description of its content.

use super::format::{MOST_VOLUMES, Segment, VOLUME_VERSION, VolumeFile, VolumeJson};
use super::names::Part;
use crate::base::error::Result;
use crate::bundle::tar_plan::{BLOCK, END, header_length};
use crate::bundle::{is_signature, sums};
use crate::content::chunks::{CHAINED, values_of};
use crate::oci::{Blake3, Digest};

/// Bytes that something adds to each part of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    json: u64,
    chunks: u64,
    sums: u64,
    /// Headers, content and padding in whole blocks.
    blocks: u64,
}

impl Cost {
    fn and(self, other: Cost) -> Cost {
        Cost {
            json: self.json.saturating_add(other.json),
            chunks: self.chunks.saturating_add(other.chunks),
            sums: self.sums.saturating_add(other.sums),
            blocks: self.blocks.saturating_add(other.blocks),
        }
    }

    /// Bytes of the whole volume.
    pub fn length(self) -> u64 {
        let padded = |bytes: u64| bytes.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
        let own = padded(self.json).saturating_add(padded(self.chunks)).saturating_add(padded(self.sums));
        own.saturating_add(self.blocks)
    }

    /// A volume with only what all volumes contain: `common` files by path and size. Unknown numbers count with their maximum
    /// number of digits.
    pub fn of_empty(common: &[(String, u64)], limit: u64) -> Result<Cost> {
        let json = VolumeJson {
            gapferry_volume: VOLUME_VERSION,
            identity: Digest::sha256(b""),
            number: MOST_VOLUMES,
            of: MOST_VOLUMES,
            recovery: MOST_VOLUMES,
            limit,
            files: Vec::<VolumeFile>::new(),
        };
        let part = Part::Volume(MOST_VOLUMES);
        let own = [part.json(MOST_VOLUMES), part.chunks(MOST_VOLUMES)];
        // `[` and `]` of an empty list are on one line, otherwise on two.
        let mut cost = Cost { json: json.to_bytes()?.len() as u64 + 3, blocks: 3 * BLOCK + END, ..Cost::default() };
        cost.sums = own.iter().map(|path| sums::LINE + path.len() as u64).sum();
        for (path, size) in common {
            let sums = if is_signature(path) { 0 } else { sums::LINE + path.len() as u64 };
            cost = cost.and(Cost { sums, blocks: blocks(path, *size), ..Cost::default() });
        }
        Ok(cost)
    }

    /// A whole file of the bundle.
    pub fn of_file(path: &str, size: u64) -> Cost {
        Cost::of_entry(path, size, None)
    }

    /// A segment of a file of `size` bytes, without its bytes.
    pub fn of_segment(path: &str, size: u64) -> Cost {
        let sha256 = Digest::ZEROS;
        let widest = Segment { number: MOST_VOLUMES, of: MOST_VOLUMES, first: size, size, sha256 };
        Cost::of_entry(path, 0, Some(widest))
    }

    /// The same with this many bytes.
    fn holding(self, here: u64) -> Cost {
        let padded = here.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
        self.and(Cost { chunks: values_of(here) * CHAINED as u64, blocks: padded, ..Cost::default() })
    }

    fn of_entry(path: &str, here: u64, segment: Option<Segment>) -> Cost {
        let segment = segment.map(Box::new);
        let file = VolumeFile { path: path.to_owned(), blake3: Blake3::ZEROS, segment };
        let stored = file.stored_path();
        // Plain types and text cannot fail. If they did, the layout would reject the plan.
        let text = serde_json::to_string_pretty(&file).unwrap_or_default();
        // Each line is indented by four, and a comma and a line end follow the last one.
        let json = (text.len() + 4 * text.lines().count() + 2) as u64;
        let chunks = values_of(here) * CHAINED as u64;
        Cost { json, chunks, sums: sums::LINE + stored.len() as u64, blocks: blocks(&stored, here) }
    }
}

fn blocks(path: &str, size: u64) -> u64 {
    header_length(path).saturating_add(size.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX))
}

/// The remaining space of a volume that is being filled.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    limit: u64,
    taken: Cost,
}

impl Room {
    pub fn new(empty: Cost, limit: u64) -> Room {
        Room { limit, taken: empty }
    }

    pub fn fits(&self, cost: Cost) -> bool {
        self.taken.and(cost).length() <= self.limit
    }

    pub fn take(&mut self, cost: Cost) {
        self.taken = self.taken.and(cost);
    }

    /// Whether not even an empty file fits.
    pub fn is_full(&self) -> bool {
        self.taken.length().saturating_add(BLOCK) > self.limit
    }

    /// Maximum size of a segment, which costs this much without its bytes, of a file with `left` bytes to come: all of them,
    /// otherwise whole blocks; possibly 0.
    pub fn most(&self, segment: Cost, left: u64) -> u64 {
        let fits = |here| self.fits(segment.holding(here));
        if fits(left) {
            return left;
        }
        if !fits(0) {
            return 0;
        }
        let (mut most, mut too_many) = (0, left.div_ceil(BLOCK));
        while too_many - most > 1 {
            let middle = most + (too_many - most) / 2;
            if fits(middle * BLOCK) { most = middle } else { too_many = middle }
        }
        most * BLOCK
    }

    pub fn take_segment(&mut self, segment: Cost, here: u64) {
        self.take(segment.holding(here));
    }
}
