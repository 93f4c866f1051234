//! Bytes of one blob from anywhere into their place: continued where an earlier run stopped, hashed while they pass, and
//! written while the next ones arrive.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use super::medium;
use super::place::{Place, Slot};
use crate::content::{Body, Origin, Prover, Slice};
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Hasher};

/// How much is gathered before it is written, in bytes: large enough that a hop to another thread costs nothing.
const BATCH: usize = 512 * 1024;
/// How often the journal hears of a blob under way, in bytes.
const CHECKPOINT: u64 = 1024 * 1024;
/// How much of a blob is handed to the medium at once, in bytes: few ways for the head of a disk.
const STRETCH: u64 = 8 * 1024 * 1024;

/// Fetches `blob` from `origin` into its place.
///
/// # Errors
/// The origin's, the disk's, or bytes that are not the blob's; what has arrived stays for the next run, unless it is
/// wrong.
pub async fn fetch(place: Arc<dyn Place>, blob: &Descriptor, origin: &Origin<'_>) -> Result<()> {
    let Begun::Missing(mut slot, mut hasher) = begin(place.clone(), blob.clone()).await? else {
        return blocking(move |digest| place.completed(&digest), blob).await;
    };
    loop {
        match fetch_into(&place, blob, origin, slot.clone(), hasher).await {
            Err(error) if error.kind() == Kind::Damaged => {
                tracing::debug!("{}: starting again: {}", blob.digest, error.chain());
                // What an interrupted run had left may have been wrong: then nobody is to blame yet.
                if slot.present == 0 {
                    origin.source.gave_wrong(origin.repository, blob, error)?;
                }
            }
            other => break other?,
        }
        (slot.present, hasher) = (0, Hasher::new(blob.digest.algorithm()));
    }
    blocking(move |digest| place.completed(&digest), blob).await
}

async fn fetch_into(
    place: &Arc<dyn Place>,
    blob: &Descriptor,
    origin: &Origin<'_>,
    slot: Slot,
    hasher: Hasher,
) -> Result<()> {
    let body = origin.source.blob(origin.repository, blob, slot.present).await?;
    let (slot, prover) = continued(blob, slot, hasher, &body, &**place)?;
    let written = write_all(place, blob, &slot, prover, body).await;
    if written.as_ref().is_err_and(|error| error.kind() == Kind::Damaged) {
        // Wrong bytes are of no use to anybody.
        place.restarted(&slot)?;
        place.advanced(&blob.digest, 0)?;
    }
    written
}

/// What an earlier run has left of a blob.
enum Begun {
    /// All of it, and right: only its name was missing.
    Whole,
    /// The first `present` bytes, hashed; perhaps none.
    Missing(Slot, Hasher),
}

/// Opens the place and hashes what is there already.
async fn begin(place: Arc<dyn Place>, blob: Descriptor) -> Result<Begun> {
    let open = move || {
        let mut slot = place.slot(&blob.digest, blob.size)?;
        let there = Slice::new(slot.file.clone(), &slot.path, slot.base, slot.present);
        let length = slot.present.min(blob.size);
        match there.hash_prefix(blob.digest.algorithm(), length, &|_| ()) {
            Ok(hasher) if slot.present < blob.size => return Ok(Begun::Missing(slot, hasher)),
            Ok(hasher) if slot.present == blob.size && hasher.clone().finish() == blob.digest => {
                return Ok(Begun::Whole);
            }
            // Too much, wrong, or not readable to where the journal says: from the start.
            _ => place.restarted(&slot)?,
        }
        slot.present = 0;
        Ok(Begun::Missing(slot, Hasher::new(blob.digest.algorithm())))
    };
    tokio::task::spawn_blocking(open).await.map_err(stopped)?
}

/// The body goes on where the place ends, or begins again.
fn continued(
    blob: &Descriptor,
    mut slot: Slot,
    hasher: Hasher,
    body: &Body,
    place: &dyn Place,
) -> Result<(Slot, Prover)> {
    if body.offset == slot.present {
        let prover = Prover::resume(blob, slot.present, hasher);
        return Ok((slot, prover));
    }
    if body.offset != 0 {
        let (at, asked) = (body.offset, slot.present);
        return Err(Error::damaged(format!("reading blob {}: it begins at byte {at}, not {asked}", blob.digest)));
    }
    place.restarted(&slot)?;
    slot.present = 0;
    Ok((slot, Prover::new(blob)))
}

/// Reads, proves and writes at the same time: while one batch is hashed and written on a thread of its own, the next is
/// gathered.
async fn write_all(
    place: &Arc<dyn Place>,
    blob: &Descriptor,
    slot: &Slot,
    prover: Prover,
    mut body: Body,
) -> Result<()> {
    let mut writing: Option<JoinHandle<Result<Prover>>> = None;
    let mut idle = Some(prover);
    let (mut at, mut told) = (slot.present, slot.present);
    let outcome = loop {
        let (batch, ended) = gather(&mut body).await;
        if let Some(job) = writing.take() {
            idle = Some(job.await.map_err(stopped)??);
            if at - told >= CHECKPOINT {
                place.advanced(&blob.digest, at)?;
                told = at;
            }
        }
        if let Some(prover) = idle.take_if(|_| !batch.is_empty()) {
            let (slot, from, size) = (slot.clone(), at, blob.size);
            at += batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
            writing = Some(tokio::task::spawn_blocking(move || {
                let prover = prove_and_write(prover, &slot, from, &batch)?;
                begin_writing_out(&slot, from, at, size);
                Ok(prover)
            }));
        }
        if let Some(end) = ended {
            break end;
        }
    };
    if let Some(job) = writing {
        idle = Some(job.await.map_err(stopped)??);
    }
    match (outcome, idle) {
        (Ok(()), Some(prover)) => prover.finish(),
        (outcome, _) => {
            place.advanced(&blob.digest, at)?;
            outcome
        }
    }
}

/// Pieces up to [`BATCH`] bytes, and how the reading ended, if it did.
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

/// A piece that is too much is not written: it would fall into the next blob's place.
fn prove_and_write(mut prover: Prover, slot: &Slot, mut at: u64, batch: &[Bytes]) -> Result<Prover> {
    for piece in batch {
        prover.absorb(piece)?;
        slot.file.write_all_at(piece, slot.base + at).map_err(|e| Error::disk("writing", &slot.path, e))?;
        at += piece.len() as u64;
    }
    Ok(prover)
}

/// The medium need not wait for the end of the export: each stretch that `from..to` completes is its business from now on,
/// while the next bytes arrive.
fn begin_writing_out(slot: &Slot, from: u64, to: u64, size: u64) {
    let begin = from - from % STRETCH;
    if to - begin >= STRETCH || to == size {
        medium::begin_writing_out(&slot.file, slot.base + begin, to - begin);
    }
}

async fn blocking(
    job: impl FnOnce(crate::oci::Digest) -> Result<()> + Send + 'static,
    blob: &Descriptor,
) -> Result<()> {
    let digest = blob.digest;
    tokio::task::spawn_blocking(move || job(digest)).await.map_err(stopped)?
}

/// The thread of a blocking job ended without an answer.
fn stopped(error: tokio::task::JoinError) -> Error {
    Error::new(Kind::Interrupted, "writing a blob").because(error)
}
