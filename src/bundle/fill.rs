//! Brings the blobs of a bundle into their places, as far as they are on this machine: what an interrupted run has left, then
//! what other bundles have. Every byte is hashed before it counts, in its place or while it is copied there.

use std::collections::{HashMap, HashSet};

use super::links::{Links, Offered};
use super::output::{Claim, Placement, Wanted};
use crate::base::error::{Kind, Result};
use crate::base::progress::{Event, Events, Phase};
use crate::content::chunks::Chunks;
use crate::content::in_parallel;
use crate::content::proof::{Hashing, prove_chunks};
use crate::files::Layout;
use crate::oci::Digest;

/// How much is copied at a time, in bytes.
const PIECE: usize = 1024 * 1024;

/// A bundle that may have some of the blobs; it is not believed.
#[derive(Clone, Copy)]
pub struct Supply<'a> {
    pub layout: &'a Layout,
    /// How its blobs come without being copied.
    pub links: &'a Links,
    /// What is reported while they are brought.
    pub phase: Phase,
}

/// A claim, and how it may be had without a copy.
struct Found<'a> {
    claim: Claim,
    links: Option<(&'a Links, Offered)>,
}

/// Proves what is in `place` already, and brings the rest of the `wanted` blobs from the first of `supplies` that says to have
/// each. Gives what is in place then; what turned out wrong, or cannot be read, is not.
///
/// # Errors
/// The disk that is written to.
pub fn fill(
    place: &dyn Placement,
    wanted: &HashMap<Digest, u64>,
    supplies: &[Supply<'_>],
    events: &Events,
) -> Result<HashMap<Digest, Chunks>> {
    let mut present = HashMap::new();
    let mut known: HashSet<Digest> = HashSet::new();
    let claims = place.claims(wanted)?.into_iter().filter(|claim| known.insert(claim.digest));
    bring(Phase::Recheck, claims.map(|claim| Found { claim, links: None }).collect(), place, &mut present, events)?;
    // Each is asked only for what none before it has.
    for supply in supplies {
        let missing = wanted.iter().filter(|(digest, _)| !present.contains_key(*digest));
        let found = missing.map(|(digest, size)| found_in(supply, Wanted { digest: *digest, size: *size }));
        let found: Vec<Option<Found<'_>>> = found.collect::<Result<_>>()?;
        bring(supply.phase, found.into_iter().flatten().collect(), place, &mut present, events)?;
    }
    place.adopted(&present, events);
    Ok(present)
}

/// Brings what was found, and notes what proved good.
fn bring(
    phase: Phase,
    found: Vec<Found<'_>>,
    place: &dyn Placement,
    present: &mut HashMap<Digest, Chunks>,
    events: &Events,
) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let bytes = found.iter().map(|found| found.claim.slice.size()).fold(0, u64::saturating_add);
    events.report(Event::Phase { phase, items: found.len() as u64, bytes });
    let adopted = in_parallel(&found, |found| {
        let digest = found.claim.digest;
        events.report(Event::BlobStarted { digest, size: found.claim.slice.size(), present: 0 });
        let adopted = adopt(found, place, events);
        events.report(Event::BlobFinished { digest });
        events.report(Event::ItemDone);
        adopted
    });
    for (found, adopted) in found.iter().zip(adopted) {
        if let Some(chunks) = adopted? {
            present.insert(found.claim.digest, chunks);
        }
    }
    Ok(())
}

fn found_in<'a>(supply: &Supply<'a>, Wanted { digest, size }: Wanted) -> Result<Option<Found<'a>>> {
    let (path, Supply { layout, links, .. }) = (digest.blob_path(), supply);
    if layout.size_of(&path) != Some(size) {
        return Ok(None);
    }
    let Some(slice) = layout.slice(&path)? else { return Ok(None) };
    let is_wanted = links.takes_names() || links.shares_bytes();
    let offered = if is_wanted { layout.linkable(&path)? } else { None };
    let offered = offered.map(|file| {
        let bytes = links.shares_bytes().then(|| slice.clone());
        (*links, Offered { file: links.takes_names().then_some(file), bytes })
    });
    Ok(Some(Found { claim: Claim { digest, slice, in_place: false }, links: offered }))
}

/// `None`: it is not what it was said to be, and has to come from elsewhere.
fn adopt(found: &Found<'_>, place: &dyn Placement, events: &Events) -> Result<Option<Chunks>> {
    let Claim { digest, slice, in_place } = &found.claim;
    let progress = |bytes| events.report(Event::BlobAdvanced { digest: *digest, bytes });
    if *in_place {
        let proven = prove_chunks(slice, digest, &progress);
        if let Err(unproven) = &proven {
            tracing::debug!("{digest}: what an earlier run left is wrong, and is fetched again: {unproven}");
            place.refute(digest)?;
        }
        return Ok(proven.ok());
    }
    if let Some((links, offered)) = &found.links {
        match links.take(place, Wanted { digest: *digest, size: slice.size() }, offered, &progress) {
            Ok(None) => {}
            Err(error) if error.kind() == Kind::Damaged => return Ok(None),
            taken => return taken,
        }
    }
    copy(&found.claim, place, &progress)
}

/// Copies and hashes in one pass.
fn copy(claim: &Claim, place: &dyn Placement, progress: &dyn Fn(u64)) -> Result<Option<Chunks>> {
    let Claim { digest, slice, .. } = claim;
    let slot = place.slot(digest, slice.size())?;
    let mut hashing = Hashing::new(digest.algorithm());
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < slice.size() {
        let Ok(read) = slice.read_at(at, &mut buffer) else { return Ok(None) };
        hashing.update(&buffer[..read]);
        slot.write_all_at(&buffer[..read], at)?;
        slot.write_out(at, at + read as u64, slice.size());
        at += read as u64;
        progress(read as u64);
    }
    let Ok(chunks) = hashing.finish(digest) else {
        place.restarted(&slot)?;
        return Ok(None);
    };
    place.completed(digest)?;
    Ok(Some(chunks))
}
