//! The blobs of a plan: each is read once, sent to the first repository that accepts it, and mounted into the others.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use futures_util::future::try_join;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::mpsc;

use super::arrivals::{self, Coming};
use super::of_use::OfUse;
use super::{Job, Transfer, received};
use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Phase};
use crate::content::{NamedBlob, Origin};
use crate::oci::{Digest, Repository};
use crate::pipeline::graph::Graph;
use crate::pipeline::plan::{BlobStep, Plan};
use crate::pipeline::resolve::Failures;

const FETCHING: &str = "fetching blobs (run again to fetch only what is missing)";

/// A blob of the plan that one repository of the target has.
struct Landed<'p> {
    step: &'p BlobStep,
    /// The repository that has it; `None` if all have refused it.
    at: Option<&'p Repository>,
    /// The repositories that still lack it.
    lacking: &'p [Repository],
    failed: Option<Arc<Error>>,
}

impl Transfer<'_> {
    /// Transfers only the blobs.
    ///
    /// # Errors
    /// With `fail_fast`, the first blob that failed; without it, a blob that the disk had no space for.
    pub async fn blobs(&self, plan: &Plan) -> Result<()> {
        self.move_blobs(None, plan, arrivals::coming(plan, None), |_| ()).await
    }

    /// Calls `done` for every blob that has arrived everywhere or has failed.
    pub(super) async fn move_blobs<'p>(
        &self,
        graph: Option<&Graph>,
        plan: &'p Plan,
        coming: impl Stream<Item = Coming<'p>>,
        done: impl Fn(&BlobStep),
    ) -> Result<()> {
        let items = plan.blobs.len() as u64;
        self.events.report(Event::Phase { phase: Phase::Transfer, items, bytes: plan.new_bytes() });
        let jobs = self.options.jobs.max(1);
        let (landed, to_spread) = mpsc::unbounded_channel();
        let job = graph.map(|graph| Job { graph, plan });
        let moving = async move {
            let mut moved = pin!(coming.map(|coming| self.land(coming, job)).buffer_unordered(jobs));
            while let Some(blob) = moved.next().await {
                // The next ones would be fetched for nothing.
                if let Some(error) = blob.failed.as_ref().filter(|error| error.is_disk_full()) {
                    return Err(Error::clone(error));
                }
                // The receiver is gone only if the other side has failed.
                let _ = landed.send(blob);
            }
            Ok(())
        };
        let spreading = async {
            let mut spread = pin!(received(to_spread).map(|blob| self.finish(blob, job)).buffer_unordered(jobs));
            while let Some((step, outcome)) = spread.next().await {
                self.events.report(Event::ItemDone);
                done(step);
                if let (Err(error), true) = (outcome, self.options.fail_fast) {
                    return Err(Error::clone(&error));
                }
            }
            Ok(())
        };
        // Mounting is many small requests: run them alongside the uploads.
        try_join(moving, spreading).await.map(|_| ())
    }

    /// Returns every blob that has failed so far and arrived nowhere, with its first failure.
    pub fn failures(&self) -> Vec<(Digest, Error)> {
        let failed = self.failed_first.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<(&Digest, &Arc<Error>)> = failed.iter().collect();
        all.sort_by_key(|(_, error)| error.to_string());
        all.into_iter().map(|(blob, error)| (*blob, Error::clone(error))).collect()
    }

    /// Sends one blob to the first repository that accepts it, unless a repository already has it.
    async fn land<'p>(&self, (step, lost): Coming<'p>, job: Option<Job<'_>>) -> Landed<'p> {
        let mut landed = Landed { step, at: step.present.first(), lacking: &step.missing, failed: None };
        if let Some(error) = lost.filter(|_| landed.at.is_none()) {
            for repository in &step.missing {
                landed.failed = Some(self.note_failure(step, repository, Error::clone(&error)));
            }
            return landed;
        }
        while let (None, [repository, others @ ..]) = (landed.at, landed.lacking) {
            landed.lacking = others;
            match self.upload(step, repository, job).await {
                Ok(()) => {
                    self.failed_first.lock().unwrap_or_else(PoisonError::into_inner).remove(&step.blob.digest);
                    landed.at = Some(repository);
                }
                Err(error) => landed.failed = Some(self.note_failure(step, repository, error)),
            }
        }
        landed
    }

    async fn finish<'p>(&self, landed: Landed<'p>, job: Option<Job<'_>>) -> (&'p BlobStep, Result<(), Arc<Error>>) {
        (landed.step, self.spread(landed, job).await)
    }

    /// Mounts a blob into the other repositories. If that is not possible, the blob is transferred again.
    async fn spread(&self, landed: Landed<'_>, job: Option<Job<'_>>) -> Result<(), Arc<Error>> {
        let Landed { step, at, lacking, mut failed } = landed;
        let Some(from) = at else { return failed.map_or(Ok(()), Err) };
        let mounts = stream::iter(lacking).map(|to| async move { (to, self.mount(step, to, from, job).await) });
        let mounts: Vec<_> = mounts.buffered(self.options.jobs.max(1)).collect().await;
        for (repository, mounted) in mounts {
            let outcome = match mounted {
                Ok(true) => {
                    self.mounted.fetch_add(step.blob.size, Ordering::Relaxed);
                    Ok(())
                }
                Ok(false) => self.upload(step, repository, job).await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                failed = Some(self.note_failure(step, repository, error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn upload(&self, step: &BlobStep, repository: &Repository, job: Option<Job<'_>>) -> Result<()> {
        let room = job.map_or(Ok(0), |job| self.stopped.admit(step, repository, job))?;
        let source = OfUse { inner: &self.source, stopped: &self.stopped, to: repository };
        let origin = Origin { source: &source, repository: &step.from };
        let put = self.sink.put_blob(repository, &step.blob, &origin).await;
        if put.is_err() {
            self.stopped.give_back(repository, room);
            self.source.take_back(&step.blob.digest);
        }
        self.source.close(&step.blob.digest);
        put.map_err(|error| self.refused(step, repository, error, job))?;
        self.stopped.note_accepted(repository);
        Ok(())
    }

    async fn mount(&self, step: &BlobStep, to: &Repository, from: &Repository, job: Option<Job<'_>>) -> Result<bool> {
        let room = job.map_or(Ok(0), |job| self.stopped.admit(step, to, job))?;
        let mounted = self.sink.mount(to, &step.blob, from).await;
        if !matches!(mounted, Ok(true)) {
            self.stopped.give_back(to, room);
        }
        let mounted = mounted.map_err(|error| self.refused(step, to, error, job))?;
        if mounted {
            self.stopped.note_accepted(to);
        }
        Ok(mounted)
    }

    fn refused(&self, step: &BlobStep, repository: &Repository, error: Error, job: Option<Job<'_>>) -> Error {
        match job {
            Some(job) => self.stopped.note_blob(step, repository, error, job),
            None => error,
        }
    }

    fn note_failure(&self, step: &BlobStep, repository: &Repository, error: Error) -> Arc<Error> {
        // A bundle has no repositories: its blobs have the name that they came from.
        let way = if *repository == step.from { "of" } else { "to" };
        let blob = format!("blob {} {way} {repository}", step.blob.digest);
        let name = NamedBlob { digest: step.blob.digest, repository: repository.clone() };
        let error = Arc::new(if name.is_named_by(&error) { error } else { error.while_doing(blob) });
        let mut first = self.failed_first.lock().unwrap_or_else(PoisonError::into_inner);
        first.entry(step.blob.digest).or_insert_with(|| error.clone());
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.insert((repository.clone(), step.blob.digest), error.clone());
        error
    }
}

/// Returns one error for all blobs that failed. It has the kind of the one that ended the transfer, if one did.
///
/// # Errors
/// A blob has failed.
pub fn refuse_failed(ended: Result<()>, failures: Vec<Error>) -> Result<()> {
    match ended {
        Ok(()) if failures.is_empty() => Ok(()),
        Ok(()) => Err(Failures(failures).into_error(FETCHING)),
        Err(error) if failures.len() < 2 => Err(failures.into_iter().next().unwrap_or(error)),
        Err(error) => Err(Failures(failures).into_error_of(error, FETCHING)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::error::Kind;

    /// Otherwise the exit code and hint would depend on the alphabet, and give advice about a registry when the disk is
    /// full.
    #[test]
    fn what_ended_the_transfer_decides_what_the_error_is() {
        let registry = Error::new(Kind::NotFound, "blob a");
        let full = std::io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        let disk = Error::disk("writing", Path::new("z"), full);
        let failures = || vec![registry.clone(), disk.clone()];
        let error = refuse_failed(Err(disk.clone()), failures()).unwrap_err();
        assert_eq!(error.kind(), Kind::Disk);
        assert!(error.first().is_some_and(Error::is_disk_full), "{}", error.chain());
        assert_eq!(refuse_failed(Ok(()), failures()).unwrap_err().kind(), Kind::NotFound);
        refuse_failed(Ok(()), Vec::new()).unwrap();
    }
}
