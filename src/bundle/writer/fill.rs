//! Puts the blobs of a bundle into their places, as far as they exist on this machine: first from an interrupted run, then
//! from other bundles. Every byte is hashed before it counts, in its place or while it is copied.

use std::collections::HashMap;

use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::output::{ClaimedBlob, Placement, WantedBlob};
use crate::bundle::writer::links::Offered;
use crate::bundle::writer::supply::Supply;
use crate::content::chunks::Chunks;
use crate::content::proof::{Uncopied, copy_chunks, prove_chunks};
use crate::content::{Slice, in_parallel};
use crate::oci::Digest;

/// A claim, and its supply, unless it is from the place itself.
struct Found<'a> {
    claim: ClaimedBlob<'a>,
    supply: Option<Supply<'a>>,
}

/// Proves what is in `place` already, and gets the other `wanted` blobs, each from the first supply that has it. Returns what
/// is in place then. Wrong or unreadable blobs are not.
///
/// # Errors
/// The output disk fails.
pub fn fill(
    place: &dyn Placement,
    wanted: &HashMap<Digest, u64>,
    supplies: &[Supply<'_>],
    events: &Events,
) -> Result<HashMap<Digest, Chunks>> {
    let mut present = HashMap::new();
    let claims = place.resuming().map_or(Ok(Vec::new()), |resuming| resuming.claims(wanted))?;
    let (in_place, aside): (Vec<ClaimedBlob<'_>>, Vec<ClaimedBlob<'_>>) =
        claims.into_iter().partition(|claim| claim.in_place);
    for claims in [in_place, aside] {
        let missing = claims.into_iter().filter(|claim| !present.contains_key(&claim.blob.digest));
        let found = missing.map(|claim| Found { claim, supply: None }).collect();
        bring(Phase::Recheck, found, place, &mut present, events)?;
    }
    // Each supply is asked only for what no earlier one has.
    for supply in supplies {
        let missing = wanted.iter().filter(|(digest, _)| !present.contains_key(*digest));
        let missing = missing.map(|(digest, size)| WantedBlob { digest: *digest, size: *size });
        let found = missing.filter(|blob| supply.blobs.has(blob)).map(|blob| found_in(*supply, blob));
        bring(supply.phase, found.collect(), place, &mut present, events)?;
    }
    if let Some(resuming) = place.resuming() {
        resuming.adopted(&present, events);
    }
    Ok(present)
}

/// Gets what was found, and records what proved good.
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
    let bytes = found.iter().map(|found| found.claim.blob.size).fold(0, u64::saturating_add);
    events.report(Event::Phase { phase, items: found.len() as u64, bytes });
    let adopted = in_parallel(&found, |found| {
        let WantedBlob { digest, size } = found.claim.blob;
        events.report(Event::BlobStarted { digest, size, present: 0 });
        let adopted = adopt(found, place, events);
        events.report(Event::BlobFinished { digest });
        events.report(Event::ItemDone);
        adopted
    });
    for (found, adopted) in found.iter().zip(adopted) {
        if let Some(chunks) = adopted? {
            present.insert(found.claim.blob.digest, chunks);
        }
    }
    Ok(())
}

fn found_in(supply: Supply<'_>, blob: WantedBlob) -> Found<'_> {
    let open = move || {
        let missing = || Error::damaged(format!("{} is missing", blob.digest.blob_path()));
        supply.blobs.open(&blob.digest)?.ok_or_else(missing)
    };
    Found { claim: ClaimedBlob { blob, in_place: false, open: Box::new(open) }, supply: Some(supply) }
}

/// Returns `None` if the blob is not what it was said to be and must come from elsewhere.
fn adopt(found: &Found<'_>, place: &dyn Placement, events: &Events) -> Result<Option<Chunks>> {
    let ClaimedBlob { blob, in_place, open } = &found.claim;
    let WantedBlob { digest, size } = *blob;
    let progress = |bytes| events.report(Event::BlobAdvanced { digest, bytes });
    let slice = open().map_err(|error| tracing::debug!("{digest} cannot be read: {}", error.chain())).ok();
    let slice = slice.filter(|slice| slice.size() == size);
    if *in_place {
        let proven = slice.and_then(|slice| {
            let unproven = |why| {
                tracing::debug!(
                    "{digest}: the part kept from an earlier run is wrong and is fetched again: \
                                       {why}"
                )
            };
            prove_chunks(&slice, &digest, &progress).map_err(unproven).ok()
        });
        if let (None, Some(resuming)) = (&proven, place.resuming()) {
            resuming.refute(&digest)?;
        }
        return Ok(proven);
    }
    let Some(slice) = slice else { return Ok(None) };
    if let (Some(supply), Some(linking)) = (&found.supply, place.linking()) {
        let file = if supply.links.takes_names() { supply.blobs.linkable(&digest).ok().flatten() } else { None };
        let offered = Offered { file, bytes: supply.links.shares_bytes().then(|| slice.clone()) };
        match supply.links.take(linking, *blob, &offered, &progress) {
            Ok(None) => {}
            Err(error) if error.kind() == Kind::Damaged => return Ok(None),
            // If the output disk is to blame, the copy reports it.
            Err(error) if error.kind() == Kind::Disk && !error.is_disk_closed() && !supply.links.is_demanded() => {
                tracing::debug!("{digest} cannot be linked and is copied: {}", error.chain());
            }
            taken => return taken,
        }
    }
    copy(&digest, &slice, place, &progress)
}

/// Copies and hashes in one pass.
fn copy(digest: &Digest, slice: &Slice, place: &dyn Placement, progress: &dyn Fn(u64)) -> Result<Option<Chunks>> {
    let slot = place.slot(digest, slice.size())?;
    if slot.present > 0 {
        // It may be longer than the blob.
        place.restarted(digest, &slot)?;
    }
    let copied = copy_chunks(slice, digest, &mut |piece, at| {
        let read = piece.len() as u64;
        slot.write_all_at(piece, at)?;
        slot.write_out(at, at + read, slice.size());
        progress(read);
        Ok(())
    });
    match copied {
        Ok(chunks) => {
            place.completed(digest)?;
            Ok(Some(chunks))
        }
        Err(Uncopied::Unreadable(_)) => Ok(None),
        Err(Uncopied::Wrong(_)) => {
            place.restarted(digest, &slot)?;
            Ok(None)
        }
        Err(Uncopied::Unwritten(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fsops::{Entry, Linkable, Linked};
    use crate::base::progress::Silent;
    use crate::bundle::fileset::{FileSet, KnownFile};
    use crate::bundle::output::directory::DirectoryOutput;
    use crate::bundle::output::{Linking, Resuming, Slot};
    use crate::bundle::writer::links::Links;
    use crate::oci::Descriptor;

    /// A directory in which a file can be linked but not read.
    struct Unreadable(DirectoryOutput);

    impl Placement for Unreadable {
        fn slot(&self, digest: &Digest, size: u64) -> Result<Slot> {
            self.0.slot(digest, size)
        }

        fn restarted(&self, digest: &Digest, slot: &Slot) -> Result<()> {
            self.0.restarted(digest, slot)
        }

        fn completed(&self, digest: &Digest) -> Result<()> {
            self.0.completed(digest)
        }

        fn linking(&self) -> Option<&dyn Linking> {
            Some(self)
        }

        fn resuming(&self) -> Option<&dyn Resuming> {
            None
        }

        fn seal(&self, files: &FileSet, trailer: &[KnownFile], chunks: &HashMap<Digest, Chunks>) -> Result<()> {
            self.0.seal(files, trailer, chunks)
        }
    }

    impl Linking for Unreadable {
        fn link(&self, _: &Digest, _: &Linkable) -> Result<Linked> {
            Ok(Linked::Done)
        }

        fn reflink(&self, _: &Digest, _: &Slice) -> Result<bool> {
            Ok(true)
        }

        fn prove_linked(&self, blob: WantedBlob, _: &dyn Fn(u64)) -> Result<Chunks> {
            Err(Error::disk("reading", blob.digest.blob_path().as_ref(), std::io::Error::from_raw_os_error(5)))
        }
    }

    /// An export onto a bundle on a failing disk must get the blob elsewhere, not fail every night.
    #[test]
    fn a_link_that_cannot_be_read_does_not_stop_the_run() {
        let directory = tempfile::tempdir().unwrap();
        let (digest, events) = (Digest::sha256(b"layer"), std::sync::Arc::new(Silent) as Events);
        let blob = directory.path().join("former").join(digest.blob_path());
        std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
        std::fs::write(&blob, "layer").unwrap();
        let former = crate::files::Layout::open(&directory.path().join("former")).unwrap();
        let mut files = FileSet::of_known(Digest::sha256(b"bundle"), 0, Vec::new());
        files.blobs.push(Descriptor::new("application/octet-stream", digest, 5));
        let out = Entry::of(&directory.path().join("out")).unwrap();
        let place = Unreadable(DirectoryOutput::create(&out, &files, &events).unwrap());
        let links = Links::of_former();
        let supply = Supply { blobs: &former, links: &links, phase: Phase::Recheck };
        let present = fill(&place, &files.wanted(), &[supply], &events).unwrap();
        assert!(present.contains_key(&digest), "it was copied");
    }
}
