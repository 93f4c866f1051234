//! Parts of a target that take nothing more in this run: a registry in read-only mode, a project whose quota is used up, that
//! became a proxy cache, or where the account lost its right to push. One answer speaks for all that would meet it: the rest of
//! that part is not tried, and what goes elsewhere goes on.
//!
//! A full quota still has room for what is smaller. What is larger than the room that is left is not sent, and neither is the
//! rest of an image that cannot be completed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Reach, Reason, Result, Stopped};
use crate::graph::Graph;
use crate::oci::{Digest, Repository};
use crate::plan::{BlobStep, Plan};

/// A part of a target: a registry, or the project in it.
type Part = (String, Option<String>);

/// The part that `reason` closes, which came up in `repository`; `None`: it is about one thing alone.
fn part(reason: &Reason, repository: &Repository) -> Option<Part> {
    match reason.reach() {
        Reach::Object => None,
        Reach::Project => Some(project(repository)),
        Reach::Registry => Some((repository.registry().to_owned(), None)),
    }
}

fn project(repository: &Repository) -> Part {
    (repository.registry().to_owned(), Some(repository.project().to_owned()))
}

/// `error`, as what ends everything in that part.
fn stopped((registry, project): &Part, reason: &Reason, error: &Error) -> Error {
    let place = project.as_ref().map_or_else(|| registry.clone(), |project| format!("{registry}/{project}"));
    let state = match reason {
        Reason::Quota { .. } => "has no room left",
        Reason::ReadOnly => "is in read-only mode",
        Reason::NoPushes => "takes no uploads",
        Reason::ProxyCache => "is a proxy cache, which takes no pushes",
        _ => "takes nothing more from this account",
    };
    let why = format!("{state} ({})", error.chain());
    Error::new(error.kind(), "not everything was sent").because(Stopped { place, why }).with_reason(reason.clone())
}

/// What is closed so far.
#[derive(Clone, Default)]
pub struct Closed(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    parts: HashMap<Part, Closure>,
    /// Images that cannot be completed, by their place in the plan.
    doomed: HashSet<usize>,
    /// Blobs that no other image wants there.
    useless: HashSet<(Repository, Digest)>,
    /// Which images want a blob; made when it is first asked for.
    wanting: Option<HashMap<Digest, Vec<usize>>>,
}

struct Closure {
    error: Error,
    /// Bytes that still fit; 0: nothing does.
    left: u64,
}

impl Closed {
    /// Whether `size` more bytes may be sent to `repository`.
    ///
    /// # Errors
    /// The refusal that closed it.
    pub fn check(&self, repository: &Repository, size: u64) -> Result<()> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .closure(repository)
            .filter(|closure| closure.left < size.max(1))
            .map_or(Ok(()), |it| Err(it.error.clone()))
    }

    /// The same for a blob: where little room is left, it is for images that can be completed with it.
    ///
    /// # Errors
    /// The refusal that closed it.
    pub fn admit(&self, step: &BlobStep, repository: &Repository, (graph, plan): (&Graph, &Plan)) -> Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(closure) = state.closure(repository) else { return Ok(()) };
        let (error, left) = (closure.error.clone(), closure.left);
        let images = state.wanting(&step.blob.digest, repository, (graph, plan));
        if left < step.blob.size.max(1) || images.iter().all(|at| state.doomed.contains(at)) {
            state.doom(images, (graph, plan));
            return Err(error);
        }
        state.take(repository, step.blob.size);
        Ok(())
    }

    /// Notes what a failure closes; gives the failure that is to be reported.
    pub fn note(&self, repository: &Repository, size: u64, error: Error) -> Error {
        // Of what was stopped for a refusal nothing more is learned.
        let Some(reason) = error.reason().filter(|_| error.stopped().is_none()) else { return error };
        let Some(part) = part(reason, repository) else { return error };
        let left = match reason {
            // What was refused does not fit, whatever the registry's rounded figures say.
            Reason::Quota { left } => (*left).min(size.saturating_sub(1)),
            _ => 0,
        };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let error = stopped(&part, reason, &error);
        let closure = state.parts.entry(part).or_insert_with(|| Closure { error, left });
        closure.left = closure.left.min(left);
        // Several were on their way: all of them have failed for the one that came first.
        closure.error.clone()
    }

    /// The same for a blob of the plan.
    pub fn note_blob(&self, step: &BlobStep, repository: &Repository, error: Error, job: (&Graph, &Plan)) -> Error {
        let error = self.note(repository, step.blob.size, error);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closure(repository).is_some() {
            let images = state.wanting(&step.blob.digest, repository, job);
            state.doom(images, job);
        }
        error
    }

    /// Whether a blob that is on its way is still of use there.
    ///
    /// # Errors
    /// The refusal that has cost the images that want it.
    pub fn check_use(&self, repository: &Repository, blob: Digest) -> Result<()> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.closure(repository).filter(|_| state.useless.contains(&(repository.clone(), blob))) {
            Some(closure) => Err(closure.error.clone()),
            None => Ok(()),
        }
    }
}

impl State {
    fn closure(&self, repository: &Repository) -> Option<&Closure> {
        let registry = (repository.registry().to_owned(), None);
        self.parts.get(&registry).or_else(|| self.parts.get(&project(repository)))
    }

    fn take(&mut self, repository: &Repository, size: u64) {
        if let Some(closure) = self.parts.get_mut(&project(repository)) {
            closure.left = closure.left.saturating_sub(size);
        }
    }

    /// These images cannot be completed.
    fn doom(&mut self, images: Vec<usize>, (graph, plan): (&Graph, &Plan)) {
        for at in images {
            let Some((image, step)) = graph.images.get(at).zip(plan.images.get(at)) else { continue };
            if !self.doomed.insert(at) {
                continue;
            }
            let repository = &step.to.repository;
            for blob in &image.blobs {
                let wanting = self.wanting(&blob.digest, repository, (graph, plan));
                if wanting.iter().all(|at| self.doomed.contains(at)) {
                    self.useless.insert((repository.clone(), blob.digest));
                }
            }
        }
    }

    /// The images of the plan that want `blob` in `repository`.
    fn wanting(&mut self, blob: &Digest, repository: &Repository, (graph, plan): (&Graph, &Plan)) -> Vec<usize> {
        let wanting = self.wanting.get_or_insert_with(|| {
            let mut wanting: HashMap<Digest, Vec<usize>> = HashMap::new();
            for (at, image) in graph.images.iter().enumerate() {
                image.blobs.iter().for_each(|blob| wanting.entry(blob.digest).or_default().push(at));
            }
            wanting
        });
        let images = wanting.get(blob).into_iter().flatten().copied();
        images.filter(|at| plan.images.get(*at).is_some_and(|step| step.to.repository == *repository)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn refused(reason: Reason) -> Error {
        Error::new(Kind::Refused, "no").with_reason(reason)
    }

    #[test]
    fn a_refusal_closes_what_it_is_about_and_nothing_else() {
        let [one, two] = ["base/a", "apps/a"].map(|path| Repository::new("h", path).unwrap());
        let elsewhere = Repository::new("i", "base/a").unwrap();
        let open = |closed: &Closed, repository: &Repository, size| closed.check(repository, size).is_ok();
        for (reason, others) in [(Reason::ProxyCache, true), (Reason::NoPushRight, true), (Reason::ReadOnly, false)] {
            let closed = Closed::default();
            closed.note(&one, 10, refused(reason));
            assert!(!open(&closed, &one, 0) && open(&closed, &elsewhere, 1));
            assert_eq!(open(&closed, &two, 1), others);
        }
        let closed = Closed::default();
        closed.note(&one, 10, refused(Reason::ImmutableTag));
        closed.note(&one, 10, Error::new(Kind::Refused, "403"));
        assert!(open(&closed, &one, 10), "it is about one tag");
    }

    #[test]
    fn a_full_quota_takes_what_is_smaller_than_the_room_that_is_left() {
        let one = Repository::new("h", "base/a").unwrap();
        let closed = Closed::default();
        closed.note(&one, 1000, refused(Reason::Quota { left: 100 }));
        assert!(closed.check(&one, 100).is_ok() && closed.check(&one, 101).is_err());
        closed.note(&one, 50, refused(Reason::Quota { left: 100 }));
        assert!(closed.check(&one, 49).is_ok() && closed.check(&one, 50).is_err(), "50 bytes did not fit");
        closed.note(&one, 5, refused(Reason::Quota { left: 0 }));
        assert!(closed.check(&one, 0).is_err());
    }
}
