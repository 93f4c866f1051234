//! Where each file of a bundle is among its volumes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::format::{Segment, VolumeJson};
use super::names::{SegmentNumber, stored_path};
use crate::bundle::open::json_of;
use crate::bundle::sums::{self, MAX_SUMS};
use crate::bundle::{CHUNKS, SUMS, is_metadata, is_tool};
use crate::files::{Layout, Piece};
use crate::oci::Digest;

/// A piece of a file that is kept outside of the volumes, with its place in the layout that contains it.
#[derive(Clone, Debug)]
pub struct KeptPiece {
    /// The path of the file in `bundle.json`.
    pub path: String,
    pub segment: Segment,
    pub stored: String,
}

impl KeptPiece {
    /// Its entry in its original volume.
    pub(super) fn stored_path(&self) -> String {
        let Segment { number, of, .. } = self.segment;
        stored_path(&self.path, Some(SegmentNumber { number, of }))
    }
}

/// The files of a bundle: metadata from a volume with the right `bundle.json`, blobs from any volume. `volumes` are those of
/// the `layouts`, in the same order.
pub(super) fn assemble(
    identity: Digest,
    volumes: &[&VolumeJson],
    mut layouts: Vec<Layout>,
    kept: Option<(Layout, Vec<KeptPiece>)>,
    shown: PathBuf,
) -> Layout {
    let is_right = |layout: &Layout| json_of(layout, identity).is_some();
    let is_summed = |layout: &Layout| {
        let sums = layout.read(SUMS, MAX_SUMS).ok().flatten();
        is_right(layout) && sums.is_some_and(|bytes| sums::identity(&bytes) == Some(identity))
    };
    let first = layouts.iter().position(is_summed).or_else(|| layouts.iter().position(is_right));
    let first = first.unwrap_or_default();
    let order = std::iter::once(first).chain((0..layouts.len()).filter(|at| *at != first));
    let mut files: BTreeMap<String, Vec<Piece>> = BTreeMap::new();
    for at in order {
        for (path, _) in layouts.get(at).into_iter().flat_map(Layout::entries) {
            if !files.contains_key(path) && is_of_bundle(path) {
                files.insert(path.to_owned(), vec![Piece { part: at, path: path.to_owned() }]);
            }
        }
    }
    let mut cut: BTreeMap<String, BTreeMap<u32, (Piece, Segment)>> = BTreeMap::new();
    for (at, volume) in volumes.iter().enumerate() {
        for file in &volume.files {
            let Some(segment) = file.segment.as_deref() else { continue };
            let piece = (Piece { part: at, path: file.stored_path() }, segment.clone());
            cut.entry(file.path.clone()).or_default().entry(segment.number).or_insert(piece);
        }
    }
    if let Some((layout, pieces)) = kept {
        for KeptPiece { path, segment, stored } in pieces {
            let piece = (Piece { part: layouts.len(), path: stored }, segment.clone());
            cut.entry(path).or_default().entry(segment.number).or_insert(piece);
        }
        layouts.push(layout);
    }
    for (path, segments) in cut {
        if let Some(pieces) = pieces_of(segments, &layouts) {
            files.entry(path).or_insert(pieces);
        }
    }
    Layout::joined(shown, layouts, files)
}

/// Volumes do not contain `chunks.b3`.
fn is_of_bundle(path: &str) -> bool {
    path != CHUNKS && (is_metadata(path) || is_tool(path) || path.starts_with("blobs/"))
}

/// All pieces of a file in order, if they exist and fit.
pub(super) fn pieces_of(segments: BTreeMap<u32, (Piece, Segment)>, layouts: &[Layout]) -> Option<Vec<Piece>> {
    let of = segments.values().next().map(|(_, segment)| segment.of)?;
    let mut at = 0_u64;
    let mut pieces = Vec::new();
    for (expected, (number, (piece, segment))) in (1..=of).zip(segments) {
        let size = layouts.get(piece.part)?.size_of(&piece.path)?;
        if number != expected || segment.of != of || segment.first != at || segment.size != size {
            return None;
        }
        at = at.checked_add(size)?;
        pieces.push(piece);
    }
    (pieces.len() == of as usize).then_some(pieces)
}
