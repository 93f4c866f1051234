//! Reads the blobs to their last byte.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{BlobClaim, ImageProver, Problem, ProofPlan, ProveState, Verdict};
use crate::base::error::{Error, Kind, Reason, Result};
use crate::base::progress::{Event, Phase};
use crate::content::{NamedBlob, Origin, Source};
use crate::oci::{Descriptor, Digest, Repository};
use crate::pipeline::transfer::Observed;

impl ImageProver<'_> {
    /// Reads what is not in `state`, and adds problems to the images of `plan`. Returns the number of bytes read.
    ///
    /// # Errors
    /// What ends the whole proof: the registry asks for a longer pause than is allowed, or the state cannot be written.
    /// What was proven is in the state.
    pub async fn read(&self, plan: &mut ProofPlan, state: &ProveState) -> Result<u64> {
        let bytes = plan.bytes(state, self.options).ahead;
        self.events.report(Event::Phase { phase: Phase::Verify, items: plan.blobs.len() as u64, bytes });
        let source = Observed::new(self.target, self.events.clone());
        let mut found: HashMap<usize, Vec<Problem>> = HashMap::new();
        {
            let reading = stream::iter(plan.blobs.iter().enumerate()).map(|(at, claim)| {
                let source = &source;
                async move { (at, self.read_one(source, claim, state).await) }
            });
            let mut reading = std::pin::pin!(reading.buffer_unordered(self.options.jobs.max(1)));
            while let Some((at, problems)) = reading.next().await {
                self.events.report(Event::ItemDone);
                found.insert(at, problems?);
            }
        }
        for image in &mut plan.images {
            let problems = image.blobs.iter().filter_map(|at| found.get(at)).flatten();
            let problems = problems.filter(|problem| problem.place == image.reference.repository);
            let problems: Vec<Problem> = problems.cloned().collect();
            problems.into_iter().for_each(|Problem { verdict, text, .. }| image.note(verdict, text));
        }
        Ok(source.read())
    }

    /// Reads each blob to its end in its repository. Returns those that are wrong or missing there, with the reason.
    ///
    /// # Errors
    /// One could not be read, so it is unknown.
    pub async fn broken(&self, blobs: Vec<(Repository, Descriptor)>) -> Result<Vec<(Digest, Error)>> {
        let bytes = blobs.iter().map(|(_, blob)| blob.size).fold(0, u64::saturating_add);
        self.events.report(Event::Phase { phase: Phase::Verify, items: blobs.len() as u64, bytes });
        let source = Observed::new(self.target, self.events.clone());
        let reading = stream::iter(blobs).map(|(place, blob)| {
            let source = &source;
            async move {
                let whole = read_whole(source, &place, &blob).await;
                source.close(&blob.digest);
                self.events.report(Event::ItemDone);
                match whole {
                    Ok(()) => Ok(None),
                    // A file that cannot be read is answered with 500.
                    Err(error) if is_damage(&error) || error.reason() == Some(&Reason::Undelivered) => {
                        Ok(Some((blob.digest, error)))
                    }
                    Err(error) => Err(error),
                }
            }
        });
        let found = reading.buffer_unordered(self.options.jobs.max(1));
        found.try_filter_map(|broken| async move { Ok(broken) }).try_collect().await
    }

    /// Reads one blob at each of its places.
    async fn read_one(&self, source: &Observed<'_>, claim: &BlobClaim, state: &ProveState) -> Result<Vec<Problem>> {
        let (mut problems, every) = (Vec::new(), self.options.every_repository);
        // Read to its end somewhere, and right.
        let mut is_known = !every && state.is_proven(&claim.blob.digest, None);
        for place in &claim.places {
            let outcome = match () {
                () if every && state.is_proven(&claim.blob.digest, Some(place)) => Ok(()),
                () if is_known && !every => read_end(self.target, place, &claim.blob).await,
                () => {
                    let whole = read_whole(source, place, &claim.blob).await;
                    source.close(&claim.blob.digest);
                    if whole.is_ok() {
                        is_known = true;
                        state.note(&claim.blob.digest, every.then_some(place))?;
                    }
                    whole
                }
            };
            if let Err(error) = outcome {
                let verdict = match error.kind() {
                    _ if is_damage(&error) => Verdict::Damaged,
                    Kind::RateLimited | Kind::Interrupted | Kind::Disk => return Err(error),
                    _ if error.stopped().is_some() => return Err(error),
                    _ => Verdict::Unread,
                };
                problems.push(Problem { place: place.clone(), verdict, text: error.chain() });
            }
        }
        Ok(problems)
    }
}

/// Whether the registry has answered and its content is wrong or missing.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), Kind::Damaged | Kind::NotFound)
}

async fn read_whole(source: &dyn Source, place: &Repository, blob: &Descriptor) -> Result<()> {
    let name = NamedBlob { digest: blob.digest, repository: place.clone() };
    let named = |error: Error| match name.is_named_by(&error) {
        true => error,
        false => error.while_doing(format!("proving blob {} of {place}", blob.digest)),
    };
    let mut reader = Origin { source, repository: place }.open(blob).await.map_err(named)?;
    while let Some(piece) = reader.next().await {
        piece.map_err(named)?;
    }
    Ok(())
}

/// Reads the last byte of a blob whose content is known to be right. A registry that does not support ranges sends
/// everything; the start of that is enough.
async fn read_end(source: &dyn Source, place: &Repository, blob: &Descriptor) -> Result<()> {
    let mut body = source.blob(place, blob, blob.size.saturating_sub(1)).await?;
    match body.stream.next().await {
        Some(piece) => piece.map(drop),
        None if blob.size == 0 => Ok(()),
        None => Err(Error::damaged(format!("reading blob {} of {place}: its last byte does not arrive", blob.digest))),
    }
}
