//! Proves existing files by their declared digests, and computes `chunks.b3` in the same pass.

use std::collections::HashMap;

use super::chunks::ChunksWriter;
use super::format::{BundleJson, CHUNKS, FileEntry};
use super::open::Bundle;
use crate::base::error::Result;
use crate::base::progress::{Event, Events, Phase};
use crate::content::chunks::Chunks;
use crate::content::in_parallel;
use crate::content::proof::prove_chunks;
use crate::files::Layout;
use crate::oci::Digest;

/// Reads files with their expected digests. Returns the chunks of each, or `None` if its bytes are wrong.
///
/// # Errors
/// The machine lacks the resources to open a file, which says nothing about its bytes.
pub fn prove_all(layout: &Layout, named: &[(&str, Digest)], events: &Events) -> Result<Vec<Option<Chunks>>> {
    let sizes = named.iter().filter_map(|(path, _)| layout.size_of(path));
    let (items, bytes) = (named.len() as u64, sizes.fold(0, u64::saturating_add));
    events.report(Event::Phase { phase: Phase::Recheck, items, bytes });
    let proven = in_parallel(named, |(path, digest)| {
        let slice = match layout.slice(path) {
            Ok(Some(slice)) => slice,
            Err(error) if error.is_shortage() => return Err(error),
            Ok(None) | Err(_) => return Ok(None),
        };
        events.report(Event::BlobStarted { digest: *digest, size: slice.size(), present: 0 });
        let progress = |bytes| events.report(Event::BlobAdvanced { digest: *digest, bytes });
        let proven = prove_chunks(&slice, digest, &progress).ok();
        events.report(Event::BlobFinished { digest: *digest });
        events.report(Event::ItemDone);
        Ok(proven)
    });
    proven.into_iter().collect()
}

/// `chunks.b3` of a bundle whose declared files are all proven now; `None` if one of them is wrong.
pub fn chunks_of(layout: &Layout, json: &BundleJson, identity: Digest, events: &Events) -> Option<Vec<u8>> {
    chunks_from(&HashMap::new(), json.files.iter(), layout, json, identity, events)
}

/// `chunks.b3` if the chunks of some blobs are `known`; only the others are proven now.
pub fn chunks_with(
    known: &HashMap<Digest, Chunks>,
    layout: &Layout,
    json: &BundleJson,
    identity: Digest,
    events: &Events,
) -> Option<Vec<u8>> {
    let is_unknown_blob = |file: &&FileEntry| file.path.starts_with("blobs/") && !known.contains_key(&file.digest);
    chunks_from(known, json.files.iter().filter(is_unknown_blob), layout, json, identity, events)
}

fn chunks_from<'a>(
    known: &HashMap<Digest, Chunks>,
    unknown: impl Iterator<Item = &'a FileEntry>,
    layout: &Layout,
    json: &BundleJson,
    identity: Digest,
    events: &Events,
) -> Option<Vec<u8>> {
    let named: Vec<(&str, Digest)> = unknown.map(|file| (file.path.as_str(), file.digest)).collect();
    let proven = prove_all(layout, &named, events).ok()?.into_iter().collect::<Option<Vec<Chunks>>>()?;
    let proven: HashMap<Digest, &Chunks> = named.iter().map(|(_, digest)| *digest).zip(&proven).collect();
    let mut writer = ChunksWriter::new(identity);
    for file in json.files.iter().filter(|file| file.path.starts_with("blobs/")) {
        writer.add(proven.get(&file.digest).copied().or_else(|| known.get(&file.digest))?);
    }
    Some(writer.finish())
}

/// Whether every byte of a finished bundle is what `bundle.json` states, and `chunks.b3` too, if it exists.
pub fn is_proven(bundle: &Bundle, events: &Events) -> bool {
    let layout = bundle.layout();
    let made = || chunks_of(layout, bundle.json(), bundle.identity(), events);
    bundle.sums_agree()
        && made().is_some_and(|made| {
            let there = layout.size_of(CHUNKS).map(|_| layout.read(CHUNKS, made.len() as u64));
            there.is_none_or(|there| matches!(there, Ok(Some(there)) if there == made))
        })
}
