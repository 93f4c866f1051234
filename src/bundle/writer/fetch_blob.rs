//! Fetches one blob into its place: continues where an earlier run stopped, hashes the bytes as they pass, and writes them
//! while the next ones arrive.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use crate::base::blocking::{blocking, joined};
use crate::base::error::{Error, Kind, Result};
use crate::bundle::output::{Placement, Resuming, Slot};
use crate::content::chunks::{ChunkHasher, Chunks};
use crate::content::proof::Hashing;
use crate::content::{Body, Origin, Prover};
use crate::oci::{Descriptor, Digest};

/// Bytes to collect before they are written: enough to make a switch to another thread cheap.
const BATCH: usize = 512 * 1024;
/// The attempt in errors.
const WRITING: &str = "writing a blob";
/// Interval between journal entries for a blob in bytes.
const CHECKPOINT: u64 = 1024 * 1024;

/// Fetches `blob` from `origin` into its place.
///
/// # Errors
/// The origin or the disk fails, or the bytes are wrong. What has arrived is kept for the next run, unless it is wrong.
pub async fn fetch(place: Arc<dyn Placement>, blob: &Descriptor, origin: &Origin<'_>) -> Result<Chunks> {
    let (mut slot, mut hashing) = match begin(place.clone(), blob.clone()).await? {
        Begun::Missing(slot, hashing) => (slot, *hashing),
        Begun::Whole(chunks) => {
            completed(place, blob.digest).await?;
            return Ok(chunks);
        }
    };
    let chunks = loop {
        match fetch_into(&place, blob, origin, slot.clone(), hashing).await {
            Err(error) if error.kind() == Kind::Damaged => {
                tracing::debug!("{}: starting again: {}", blob.digest, error.chain());
                // What an interrupted run left may have been wrong; then the origin is not to blame yet.
                if slot.present == 0 {
                    origin.source.gave_wrong(origin.repository, blob, error).await?;
                }
            }
            other => break other?,
        }
        (slot.present, hashing) = (0, Hashing::new(blob.digest.algorithm()));
    };
    completed(place, blob.digest).await?;
    Ok(chunks)
}

async fn fetch_into(
    place: &Arc<dyn Placement>,
    blob: &Descriptor,
    origin: &Origin<'_>,
    slot: Slot,
    hashing: Hashing,
) -> Result<Chunks> {
    let body = origin.source.blob(origin.repository, blob, slot.present).await?;
    let (slot, passing) = continued(blob, slot, hashing, &body, &**place)?;
    let written = write_all(place, blob, &slot, passing, body).await;
    if written.as_ref().is_err_and(|error| error.kind() == Kind::Damaged) {
        // Wrong bytes are useless.
        place.restarted(&blob.digest, &slot)?;
    }
    written
}

/// What an earlier run has left of a blob.
enum Begun {
    /// All of it, and it is right; only its name was missing.
    Whole(Chunks),
    /// The first `present` bytes, hashed; possibly none.
    Missing(Slot, Box<Hashing>),
}

/// Bytes in transfer.
struct Passing {
    prover: Prover,
    chunks: ChunkHasher,
}

/// Opens the place and hashes what is there already.
async fn begin(place: Arc<dyn Placement>, blob: Descriptor) -> Result<Begun> {
    let open = move || {
        let mut slot = place.slot(&blob.digest, blob.size)?;
        let length = slot.present.min(blob.size);
        let hashed =
            slot.slice(length).map(|there| Hashing::of_prefix(blob.digest.algorithm(), &there, length, &|_| ()));
        match hashed {
            Some(Ok(hashing)) if slot.present < blob.size => return Ok(Begun::Missing(slot, Box::new(hashing))),
            Some(Ok(hashing)) if slot.present == blob.size => {
                if let Ok(chunks) = hashing.finish(&blob.digest) {
                    return Ok(Begun::Whole(chunks));
                }
            }
            // Too much, or not readable up to where the journal says.
            _ => {}
        }
        // From the start.
        place.restarted(&blob.digest, &slot)?;
        slot.present = 0;
        Ok(Begun::Missing(slot, Box::new(Hashing::new(blob.digest.algorithm()))))
    };
    blocking(WRITING, open).await
}

/// The body continues where the place ends, or starts again.
fn continued(
    blob: &Descriptor,
    mut slot: Slot,
    hashing: Hashing,
    body: &Body,
    place: &dyn Placement,
) -> Result<(Slot, Passing)> {
    if body.offset == slot.present {
        let prover = Prover::resume(blob, slot.present, hashing.digest);
        return Ok((slot, Passing { prover, chunks: hashing.chunks }));
    }
    if body.offset != 0 {
        let (at, asked) = (body.offset, slot.present);
        return Err(Error::damaged(format!("reading blob {}: it starts at byte {at}, not at {asked}", blob.digest)));
    }
    place.restarted(&blob.digest, &slot)?;
    slot.present = 0;
    Ok((slot, Passing { prover: Prover::new(blob), chunks: ChunkHasher::new() }))
}

/// Reads, proves and writes in parallel: while one batch is hashed and written on a thread of its own, the next one is
/// collected.
async fn write_all(
    place: &Arc<dyn Placement>,
    blob: &Descriptor,
    slot: &Slot,
    passing: Passing,
    mut body: Body,
) -> Result<Chunks> {
    let mut writing: Option<JoinHandle<Result<Passing>>> = None;
    let mut idle = Some(passing);
    let (mut at, mut reported) = (slot.present, slot.present);
    let outcome = loop {
        let (batch, ended) = gather(&mut body).await;
        if let Some(job) = writing.take() {
            idle = Some(joined(WRITING, job.await)?);
            if at - reported >= CHECKPOINT {
                note(&**place, blob, at)?;
                reported = at;
            }
        }
        if let Some(passing) = idle.take_if(|_| !batch.is_empty()) {
            let (slot, from, size) = (slot.clone(), at, blob.size);
            at += batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
            writing = Some(tokio::task::spawn_blocking(move || {
                let passing = prove_and_write(passing, &slot, from, &batch)?;
                slot.write_out(from, at, size);
                Ok(passing)
            }));
        }
        if let Some(end) = ended {
            break end;
        }
    };
    if let Some(job) = writing {
        idle = Some(joined(WRITING, job.await)?);
    }
    match (outcome, idle) {
        (Ok(()), Some(Passing { prover, chunks })) => prover.finish().map(|()| chunks.finish()),
        (outcome, _) => {
            note(&**place, blob, at)?;
            Err(outcome.err().unwrap_or_else(|| Error::new(Kind::Interrupted, format!("writing blob {}", blob.digest))))
        }
    }
}

/// Records that the next run can continue after the first `written` bytes.
fn note(place: &dyn Placement, blob: &Descriptor, written: u64) -> Result<()> {
    let journal = place.resuming().and_then(Resuming::journal);
    journal.map_or(Ok(()), |journal| journal.part(&blob.digest, written))
}

/// Collects pieces up to [`BATCH`] bytes, and returns how reading ended, if it did.
async fn gather(body: &mut Body) -> (Vec<Bytes>, Option<Result<()>>) {
    let (mut batch, mut length) = (Vec::new(), 0);
    while length < BATCH {
        match body.stream.next().await {
            Some(Ok(piece)) => {
                length += piece.len();
                batch.push(piece);
            }
            Some(Err(error)) => return (batch, Some(Err(error))),
            None => return (batch, Some(Ok(()))),
        }
    }
    (batch, None)
}

/// A surplus piece is not written, because it would fall into the next blob's place.
fn prove_and_write(mut passing: Passing, slot: &Slot, mut at: u64, batch: &[Bytes]) -> Result<Passing> {
    for piece in batch {
        passing.prover.absorb(piece)?;
        passing.chunks.update(piece);
        slot.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(passing)
}

async fn completed(place: Arc<dyn Placement>, digest: Digest) -> Result<()> {
    blocking(WRITING, move || place.completed(&digest)).await
}
