//! Hashes a bundle while it streams past, so that the result can be checked like any other bundle.

use std::io::Read;
use std::path::Path;

use crate::base::error::Result;
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::{is_tool, refuse_part};
use crate::files::{Layout, Passing};
use crate::oci::Digest;

/// Reads a tar to its end. `before_blobs` sees the files that precede the blobs, and can stop the reading with an error.
///
/// # Errors
/// The input could not be read, or `before_blobs` returned an error. Problems of the tar itself are in the layout.
pub fn pass(
    path: &Path,
    input: impl Read,
    before_blobs: &mut dyn FnMut(&Layout) -> Result<()>,
    events: &Events,
) -> Result<Layout> {
    let mut passing = Passing::new(path, input)?.locating();
    let mut is_before = true;
    let mut stands = |layout: &Layout| refuse_part(layout).and_then(|()| before_blobs(layout));
    events.report(Event::Phase { phase: Phase::Verify, items: 0, bytes: 0 });
    while let Some(entry) = passing.advance()? {
        if is_before && (is_tool(&entry.path) || entry.path.starts_with("blobs/")) {
            is_before = false;
            stands(&passing.so_far([]))?;
        }
        let digest = Digest::of_blob_path(&entry.path).unwrap_or(Digest::ZEROS);
        events.report(Event::BlobStarted { digest, size: entry.size, present: 0 });
        passing.read(&entry, &mut |piece| {
            events.report(Event::BlobAdvanced { digest, bytes: piece.len() as u64 });
            Ok(())
        })?;
        events.report(Event::BlobFinished { digest });
        events.report(Event::ItemDone);
    }
    if is_before {
        stands(&passing.so_far([]))?;
    }
    Ok(passing.into_layout())
}
