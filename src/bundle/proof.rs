//! Every byte of files that are there, proven by the digests they are declared with; `chunks.b3` comes of the same pass.

use super::chunks::Writer;
use super::format::{BundleJson, CHUNKS};
use super::open::Bundle;
use crate::base::progress::{Event, Events, Phase};
use crate::content::chunks::Chunks;
use crate::content::in_parallel;
use crate::content::proof::prove_chunks;
use crate::files::Layout;
use crate::oci::Digest;

/// Reads files, each with the digest it should have; gives what each consists of, `None` where it has other bytes.
pub fn prove(layout: &Layout, named: &[(&str, Digest)], events: &Events) -> Vec<Option<Chunks>> {
    let sizes = named.iter().filter_map(|(path, _)| layout.size_of(path));
    let (items, bytes) = (named.len() as u64, sizes.fold(0, u64::saturating_add));
    events.report(Event::Phase { phase: Phase::Recheck, items, bytes });
    in_parallel(named, |(path, digest)| {
        let slice = layout.slice(path).ok().flatten()?;
        events.report(Event::BlobStarted { digest: *digest, size: slice.size(), present: 0 });
        let progress = |bytes| events.report(Event::BlobAdvanced { digest: *digest, bytes });
        let proven = prove_chunks(&slice, digest, &progress).ok();
        events.report(Event::BlobFinished { digest: *digest });
        events.report(Event::ItemDone);
        proven
    })
}

/// `chunks.b3` of a bundle all of whose declared files are proven here and now; `None`: one is not what it was declared to be.
pub fn chunks_of(layout: &Layout, json: &BundleJson, identity: Digest, events: &Events) -> Option<Vec<u8>> {
    let named: Vec<(&str, Digest)> = json.files.iter().map(|file| (file.path.as_str(), file.digest)).collect();
    let proven = prove(layout, &named, events).into_iter().collect::<Option<Vec<Chunks>>>()?;
    let mut writer = Writer::new(identity);
    let blobs = json.files.iter().zip(&proven).filter(|(file, _)| file.path.starts_with("blobs/"));
    blobs.for_each(|(_, chunks)| writer.add(chunks));
    Some(writer.finish())
}

/// Whether every byte of a finished bundle is what `bundle.json` says; so is `chunks.b3`, if there is one.
pub fn is_proven(bundle: &Bundle, events: &Events) -> bool {
    let layout = bundle.layout();
    let made = || chunks_of(layout, bundle.json(), bundle.identity(), events);
    bundle.sums_agree()
        && made().is_some_and(|made| {
            let there = layout.size_of(CHUNKS).map(|_| layout.read(CHUNKS, made.len() as u64));
            there.is_none_or(|there| matches!(there, Ok(Some(there)) if there == made))
        })
}
