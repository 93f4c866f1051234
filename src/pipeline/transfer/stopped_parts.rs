//! Parts of a target that accept nothing more in this run: a registry in read-only mode, or a project whose quota is
//! used up, that became a proxy cache, or where the account lost its right to push. One answer counts for everything
//! that would get the same: the rest of that part is not tried, and other parts continue.
//!
//! If a registry denies uploads without saying how far that reaches, see [`denied`](super::denied).
//!
//! A full quota still has space for smaller content. Anything larger than the space left is not sent, and neither is
//! the rest of an image that cannot be completed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::Job;
use super::denied::Denied;
use super::part::TargetPart;
use crate::base::error::{Error, Reach, Reason, Result, Stopped};
use crate::oci::{Digest, Repository};
use crate::pipeline::plan::BlobStep;

/// Returns the part that `reason`, which occurred in `repository`, stops. `None` if it concerns one object alone.
fn part(reason: &Reason, repository: &Repository) -> Option<TargetPart> {
    match reason.reach() {
        Reach::Object => None,
        Reach::Project => Some(TargetPart::project(repository)),
        Reach::Registry => Some(TargetPart::registry(repository)),
    }
}

/// Whether nothing says how far a refusal reaches ([`denied`](super::denied)).
fn is_denial(reason: &Reason) -> bool {
    matches!(reason, Reason::UploadDenied | Reason::WebPage)
}

/// Returns `error` as the one that ends everything in that part.
fn stopped(part: &TargetPart, reason: &Reason, error: &Error) -> Error {
    let state = match reason {
        Reason::Quota { .. } | Reason::Full { .. } => "has no space left",
        Reason::ReadOnly => "is in read-only mode",
        Reason::NoPushes => "accepts no uploads",
        Reason::WebPage => "answers uploads with a web page",
        Reason::UnknownUploadHost => "sends uploads to a host name that cannot be resolved here",
        Reason::ProxyCache => "is a proxy cache, which accepts no pushes",
        Reason::UploadDenied => "denies uploads",
        _ => "accepts nothing more from this account",
    };
    let (why, is_full) = (format!("{state} ({})", error.chain()), matches!(reason, Reason::Full { .. }));
    Error::new(error.kind(), "not everything was sent")
        .because(Stopped { place: part.to_string(), why, is_full })
        .with_reason(reason.clone())
}

/// The parts that are stopped so far.
#[derive(Clone, Default)]
pub struct StoppedParts(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    parts: HashMap<TargetPart, StoppedPart>,
    denied: Denied,
    /// Images that cannot be completed, by their index in the plan.
    incompletable: HashSet<usize>,
    /// Blobs that no other image needs there.
    useless: HashSet<(Repository, Digest)>,
    /// Which images need a blob; computed when it is first needed.
    wanting: Option<HashMap<Digest, Vec<usize>>>,
}

struct StoppedPart {
    error: Error,
    /// Bytes that still fit; 0 if nothing does.
    left: u64,
}

impl StoppedParts {
    /// Whether `size` more bytes may be sent to `repository`.
    ///
    /// # Errors
    /// The refusal that stopped it.
    pub fn check(&self, repository: &Repository, size: u64) -> Result<()> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.limit(repository) {
            Some((error, left)) if left < size.max(1) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Does the same for a blob: if little space is left, it is kept for images that can be completed with it. Returns
    /// the bytes of that space that are reserved for the blob. What does not arrive must be [given
    /// back](StoppedParts::give_back).
    ///
    /// # Errors
    /// The refusal that stopped it.
    pub fn admit(&self, step: &BlobStep, repository: &Repository, job: Job<'_>) -> Result<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((error, left)) = state.limit(repository) else { return Ok(0) };
        let error = error.clone();
        let images = state.wanting(&step.blob.digest, repository, job);
        if left < step.blob.size.max(1) || images.iter().all(|at| state.incompletable.contains(at)) {
            state.give_up_images(images, job);
            return Err(error);
        }
        state.take(repository, step.blob.size);
        Ok(step.blob.size)
    }

    /// Records that the blob for which these bytes were reserved did not arrive.
    pub fn give_back(&self, repository: &Repository, taken: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.parts_of(repository, |part| part.left = part.left.saturating_add(taken));
    }

    /// Records what a failure stops. Returns the failure to report.
    pub fn note(&self, repository: &Repository, size: u64, error: Error) -> Error {
        // Content that was stopped because of a refusal shows nothing new.
        let Some(reason) = error.reason().filter(|_| error.stopped().is_none()) else { return error };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let part = match reason {
            denial if is_denial(denial) => {
                state.denied.note(repository, &error);
                None
            }
            _ => part(reason, repository),
        };
        let Some(part) = part else { return error };
        let left = match reason {
            // What was refused does not fit, whatever the registry's rounded numbers say.
            Reason::Quota { left } | Reason::Full { left } => (*left).min(size.saturating_sub(1)),
            _ => 0,
        };
        let error = stopped(&part, reason, &error);
        let part = state.parts.entry(part).or_insert_with(|| StoppedPart { error, left });
        part.left = part.left.min(left);
        // Several were under way: all of them have failed because of the first.
        part.error.clone()
    }

    /// Records that something was accepted there.
    pub fn note_accepted(&self, repository: &Repository) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).denied.note_accepted(repository);
    }

    /// Returns the failure to report at the end of the transfer: a single one if a part has denied everything that was
    /// sent.
    pub fn final_error(&self, repository: &Repository, error: Arc<Error>) -> Arc<Error> {
        let Some(denial) = error.reason().filter(|reason| is_denial(reason)) else { return error };
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((part, first)) = state.denied.whole(repository) else { return error };
        Arc::new(stopped(&part, first.reason().unwrap_or(denial), &first))
    }

    /// Does the same as [`StoppedParts::note`] for a blob of the plan.
    pub fn note_blob(&self, step: &BlobStep, repository: &Repository, error: Error, job: Job<'_>) -> Error {
        let error = self.note(repository, step.blob.size, error);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.limit(repository).is_some() {
            let images = state.wanting(&step.blob.digest, repository, job);
            state.give_up_images(images, job);
        }
        error
    }

    /// Whether a blob under way is still useful there.
    ///
    /// # Errors
    /// The refusal that made the images that need it fail.
    pub fn check_use(&self, repository: &Repository, blob: Digest) -> Result<()> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.limit(repository).filter(|_| state.useless.contains(&(repository.clone(), blob))) {
            Some((error, _)) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

impl State {
    /// Returns why nothing larger than that number of bytes may be sent there.
    fn limit(&self, repository: &Repository) -> Option<(&Error, u64)> {
        let parts = [TargetPart::registry(repository), TargetPart::project(repository)];
        let stopped = parts.iter().filter_map(|part| self.parts.get(part)).map(|part| (&part.error, part.left));
        stopped.chain(self.denied.of(repository).map(|error| (error, 0))).min_by_key(|(_, left)| *left)
    }

    fn take(&mut self, repository: &Repository, size: u64) {
        self.parts_of(repository, |part| part.left = part.left.saturating_sub(size));
    }

    fn parts_of(&mut self, repository: &Repository, change: impl Fn(&mut StoppedPart)) {
        for part in [TargetPart::registry(repository), TargetPart::project(repository)] {
            self.parts.get_mut(&part).into_iter().for_each(&change);
        }
    }

    /// Records that these images cannot be completed.
    fn give_up_images(&mut self, images: Vec<usize>, job: Job<'_>) {
        for at in images {
            let Some((image, step)) = job.graph.images.get(at).zip(job.plan.images.get(at)) else { continue };
            if !self.incompletable.insert(at) {
                continue;
            }
            let repository = &step.to.repository;
            for blob in &image.blobs {
                let wanting = self.wanting(&blob.digest, repository, job);
                if wanting.iter().all(|at| self.incompletable.contains(at)) {
                    self.useless.insert((repository.clone(), blob.digest));
                }
            }
        }
    }

    /// Returns the images of the plan that need `blob` in `repository`.
    fn wanting(&mut self, blob: &Digest, repository: &Repository, job: Job<'_>) -> Vec<usize> {
        let wanting = self.wanting.get_or_insert_with(|| {
            let mut wanting: HashMap<Digest, Vec<usize>> = HashMap::new();
            for (at, image) in job.graph.images.iter().enumerate() {
                image.blobs.iter().for_each(|blob| wanting.entry(blob.digest).or_default().push(at));
            }
            wanting
        });
        let images = wanting.get(blob).into_iter().flatten().copied();
        images.filter(|at| job.plan.images.get(*at).is_some_and(|step| step.to.repository == *repository)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Kind;

    fn refused(reason: Reason) -> Error {
        Error::new(Kind::Refused, "no").with_reason(reason)
    }

    #[test]
    fn a_refusal_stops_what_it_is_about_and_nothing_else() {
        let [one, two] = ["base/a", "apps/a"].map(|path| Repository::new("h", path).unwrap());
        let elsewhere = Repository::new("i", "base/a").unwrap();
        let open = |stopped: &StoppedParts, repository: &Repository, size| stopped.check(repository, size).is_ok();
        for (reason, others) in [(Reason::ProxyCache, true), (Reason::NoPushRight, true), (Reason::ReadOnly, false)] {
            let stopped = StoppedParts::default();
            stopped.note(&one, 10, refused(reason));
            assert!(!open(&stopped, &one, 0) && open(&stopped, &elsewhere, 1));
            assert_eq!(open(&stopped, &two, 1), others);
        }
        let stopped = StoppedParts::default();
        stopped.note(&one, 10, refused(Reason::ImmutableTag));
        stopped.note(&one, 10, Error::new(Kind::Refused, "403"));
        assert!(open(&stopped, &one, 10), "it is about one tag");
    }

    #[test]
    fn a_full_quota_takes_what_is_smaller_than_the_room_that_is_left() {
        let one = Repository::new("h", "base/a").unwrap();
        let stopped = StoppedParts::default();
        stopped.note(&one, 1000, refused(Reason::Quota { left: 100 }));
        assert!(stopped.check(&one, 100).is_ok() && stopped.check(&one, 101).is_err());
        stopped.note(&one, 50, refused(Reason::Quota { left: 100 }));
        assert!(stopped.check(&one, 49).is_ok() && stopped.check(&one, 50).is_err(), "50 bytes did not fit");
        stopped.note(&one, 5, refused(Reason::Quota { left: 0 }));
        assert!(stopped.check(&one, 0).is_err());
    }

    #[test]
    fn a_full_registry_has_no_room_in_any_project() {
        let [one, two] = ["base/a", "apps/a"].map(|path| Repository::new("h", path).unwrap());
        let stopped = StoppedParts::default();
        stopped.note(&one, 1000, refused(Reason::Full { left: 100 }));
        assert!(stopped.check(&two, 100).is_ok() && stopped.check(&two, 101).is_err());
        stopped.note(&two, 1000, refused(Reason::Quota { left: 10 }));
        assert!(stopped.check(&one, 100).is_ok() && stopped.check(&two, 11).is_err(), "the project has less");
    }

    /// Otherwise a mount without effect and the upload after it would be charged twice, and images that fit would be
    /// refused.
    #[test]
    fn room_that_was_set_aside_for_nothing_is_given_back() {
        let one = Repository::new("h", "base/a").unwrap();
        let stopped = StoppedParts::default();
        stopped.note(&one, 1000, refused(Reason::Quota { left: 100 }));
        stopped.0.lock().unwrap().take(&one, 60);
        assert!(stopped.check(&one, 41).is_err());
        stopped.give_back(&one, 60);
        assert!(stopped.check(&one, 100).is_ok() && stopped.check(&one, 101).is_err());
    }

    #[test]
    fn a_denied_repository_gets_nothing_more_and_one_failure_stands_for_all_that_was_denied() {
        let [one, two] = ["base/a", "base/b"].map(|path| Repository::new("h", path).unwrap());
        let stopped = StoppedParts::default();
        let message = stopped.note(&one, 10, refused(Reason::UploadDenied));
        assert!(message.stopped().is_none() && stopped.check(&one, 1).is_err() && stopped.check(&two, 1).is_ok());
        let other = stopped.note(&two, 10, Error::new(Kind::Refused, "other").with_reason(Reason::UploadDenied));
        let text =
            |repository: &Repository, error: &Error| stopped.final_error(repository, Arc::new(error.clone())).chain();
        assert_eq!(text(&one, &message), text(&two, &other));
        assert!(text(&one, &message).contains("h/base denies uploads"), "{}", text(&one, &message));
        // Not if the registry accepts others.
        let stopped = StoppedParts::default();
        stopped.note_accepted(&two);
        stopped.note(&one, 10, refused(Reason::UploadDenied));
        assert!(stopped.final_error(&one, Arc::new(refused(Reason::UploadDenied))).stopped().is_none());
    }
}
