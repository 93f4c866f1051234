//! What is at hand already: blobs of an interrupted run, and of the bundle that is to be replaced. Everything is hashed
//! before it counts.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::Contents;
use super::directory::Directory;
use super::hashers::Hashers;
use super::journal::Claims;
use super::open::Bundle;
use super::place::Place;
use super::tarfile;
use crate::base::error::Result;
use crate::base::fsops::{Entry, Open};
use crate::base::progress::units::bytes;
use crate::base::progress::{Event, Events, Phase};
use crate::content::chunks::Chunks;
use crate::content::{Slice, in_parallel};
use crate::files::Layout;
use crate::oci::{Digest, Manifest};

/// A blob that is said to be somewhere.
struct Claim {
    digest: Digest,
    slice: Slice,
    from: From,
}

enum From {
    /// It stands where it belongs.
    Here,
    /// It has to be brought: by a link from this file if possible, else by copying.
    Elsewhere { whole_file: bool },
}

/// The forms, while they are written.
pub enum Target<'a> {
    Directory(&'a Directory),
    Tar,
    /// With the former volumes of that name, as far as they are there.
    Volumes(Option<&'a Layout>),
}

/// Proves and adopts what is at hand; gives what is in place then.
pub fn adopt(
    out: &Entry,
    target: &Target<'_>,
    place: &dyn Place,
    contents: &Contents,
    events: &Events,
) -> Result<HashMap<Digest, Chunks>> {
    let wanted: HashMap<Digest, u64> = contents.blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
    if let Target::Directory(directory) = target {
        // Manifests are written again when the bundle is sealed.
        let own: HashSet<Digest> = contents.manifests.iter().map(Manifest::digest).collect();
        let removed = directory.remove_unwanted(|digest| wanted.contains_key(digest))?;
        let lost = removed.iter().filter(|(digest, _)| !own.contains(digest)).map(|(_, size)| *size);
        tell_lost(out.path(), lost.fold(0, u64::saturating_add), events);
    }
    let mut claims = claims_here(target, place, &wanted)?;
    let mut known: HashSet<Digest> = claims.iter().map(|claim| claim.digest).collect();
    let elsewhere = match target {
        Target::Volumes(former) => former.map_or(Ok(Vec::new()), |former| claims_in(former, &wanted))?,
        Target::Directory(_) | Target::Tar => claims_elsewhere(out, &wanted)?,
    };
    for claim in elsewhere {
        if known.insert(claim.digest) {
            claims.push(claim);
        }
    }
    let bytes = claims.iter().map(|claim| claim.slice.size()).fold(0, u64::saturating_add);
    if !claims.is_empty() {
        events.report(Event::Phase { phase: Phase::Recheck, items: claims.len() as u64, bytes });
    }
    let adopted = in_parallel(&claims, |claim| {
        let adopted = adopt_one(claim, target, place, events);
        events.report(Event::ItemDone);
        adopted
    });
    let mut present = HashMap::new();
    for (claim, adopted) in claims.iter().zip(adopted) {
        if let Some(chunks) = adopted? {
            present.insert(claim.digest, chunks);
        }
    }
    Ok(present)
}

/// Says what is not there any more of what an unfinished run had fetched: nobody should wonder why it is fetched again.
pub fn tell_lost(out: &Path, lost: u64, events: &Events) {
    if lost > 0 {
        let text = format!(
            "{}: {} that an unfinished export of other images had fetched were removed",
            out.display(),
            bytes(lost)
        );
        events.report(Event::Notice(text));
    }
}

fn claims_here(target: &Target<'_>, place: &dyn Place, wanted: &HashMap<Digest, u64>) -> Result<Vec<Claim>> {
    let found: Vec<(Digest, Slice)> = match target {
        Target::Tar | Target::Volumes(_) => place.claimed(),
        Target::Directory(directory) => {
            let slice = |(digest, size): (&Digest, &u64)| {
                let blob = directory.blob(digest);
                blob.is_file_of(*size)
                    .then(|| Ok((*digest, Slice::new(Arc::new(blob.open(Open::Read)?), blob.path(), 0, *size))))
            };
            wanted.iter().filter_map(slice).collect::<Result<_>>()?
        }
    };
    Ok(found.into_iter().map(|(digest, slice)| Claim { digest, slice, from: From::Here }).collect())
}

fn claims_in(layout: &Layout, wanted: &HashMap<Digest, u64>) -> Result<Vec<Claim>> {
    let whole_file = !layout.is_tar() && layout.parts().is_empty();
    let mut claims = Vec::new();
    for (digest, size) in wanted {
        if layout.size_of(&digest.blob_path()) == Some(*size)
            && let Some(slice) = layout.slice(&digest.blob_path())?
        {
            claims.push(Claim { digest: *digest, slice, from: From::Elsewhere { whole_file } });
        }
    }
    Ok(claims)
}

/// The finished bundle of this name, and an unfinished tar of another layout.
fn claims_elsewhere(out: &Entry, wanted: &HashMap<Digest, u64>) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    if let Ok(bundle) = Bundle::open(out.path()) {
        claims = claims_in(bundle.layout(), wanted)?;
    }
    let (old, journal) = tarfile::former(out);
    if let (Ok(file), Some(journal)) = (old.open(Open::Read), Claims::read(&journal)) {
        let file = Arc::new(file);
        for digest in &journal.done {
            if let Some((offset, size)) = journal.places.get(digest)
                && wanted.get(digest) == Some(size)
            {
                let slice = Slice::new(file.clone(), old.path(), *offset, *size);
                claims.push(Claim { digest: *digest, slice, from: From::Elsewhere { whole_file: false } });
            }
        }
    }
    Ok(claims)
}

/// `None`: it is not what it was said to be, and has to be fetched.
fn adopt_one(claim: &Claim, target: &Target<'_>, place: &dyn Place, events: &Events) -> Result<Option<Chunks>> {
    let Claim { digest, slice, from } = claim;
    events.report(Event::BlobStarted { digest: *digest, size: slice.size(), present: 0 });
    let adopted = match (from, target) {
        (From::Here, _) => match proven(claim, events) {
            None => discard(claim, target).map(|()| None),
            chunks => Ok(chunks),
        },
        (From::Elsewhere { whole_file: true }, Target::Directory(directory)) => match proven(claim, events) {
            Some(chunks) if directory.link(slice.path(), digest) => Ok(Some(chunks)),
            Some(_) => copy(claim, place, &|_| ()),
            None => Ok(None),
        },
        _ => copy(claim, place, &|bytes| events.report(Event::BlobAdvanced { digest: *digest, bytes })),
    };
    events.report(Event::BlobFinished { digest: *digest });
    adopted
}

fn proven(claim: &Claim, events: &Events) -> Option<Chunks> {
    let Claim { digest, slice, .. } = claim;
    let progress = |bytes| events.report(Event::BlobAdvanced { digest: *digest, bytes });
    // What cannot be read is fetched again.
    Hashers::of_prefix(digest.algorithm(), slice, slice.size(), &progress).ok()?.finish(digest).ok()
}

fn discard(claim: &Claim, target: &Target<'_>) -> Result<()> {
    tracing::debug!("{}: what an earlier run left is wrong; it is fetched again", claim.digest);
    if let Target::Directory(directory) = target {
        directory.blob(&claim.digest).remove()?;
    }
    Ok(())
}

/// Copies and hashes in one pass.
fn copy(claim: &Claim, place: &dyn Place, progress: &dyn Fn(u64)) -> Result<Option<Chunks>> {
    let Claim { digest, slice, .. } = claim;
    let slot = place.slot(digest, slice.size())?;
    let mut hashers = Hashers::new(digest.algorithm());
    let mut buffer = vec![0; 1024 * 1024];
    let mut at = 0;
    while at < slice.size() {
        let Ok(read) = slice.read_at(at, &mut buffer) else { return Ok(None) };
        hashers.update(&buffer[..read]);
        slot.write_all_at(&buffer[..read], at)?;
        at += read as u64;
        progress(read as u64);
    }
    let Ok(chunks) = hashers.finish(digest) else {
        place.restarted(&slot)?;
        return Ok(None);
    };
    place.completed(digest)?;
    Ok(Some(chunks))
}
