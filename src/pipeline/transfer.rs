//! The transfer: carries out a plan between any source and any sink.
//!
//! Each blob is read once and then mounted. As soon as the blobs of an image exist at the target, its manifests follow:
//! children first, companions after their subjects, and the tag last. Whenever a transfer is interrupted, every
//! existing tag can be pulled, and every complete image has its tag. A failure belongs to the images that it affects;
//! the others continue.

mod arrivals;
mod awaited;
mod blobs;
mod blocked;
mod companions;
mod denied;
mod immutable;
mod listed;
mod observed;
mod of_use;
mod outcome;
mod outcomes;
mod part;
mod publish;
mod publishing;
mod read_back;
mod refused;
mod resend;
mod stopped_parts;
mod tag_outcomes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::future::try_join;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::mpsc;

use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Events, Phase};
use crate::content::{Origin, Sink, Source};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use crate::pipeline::graph::{Graph, Image};
use crate::pipeline::plan::{Action, BlobStep, ImageStep, Plan};
pub use arrivals::Arrivals;
use awaited::Awaited;
pub use blobs::refuse_failed;
use listed::WrittenLists;
pub use listed::{Cause, Unlisted};
pub use observed::Observed;
pub use outcome::{Done, TransferOutcome, confirmed};
use outcomes::Outcomes;
pub use publishing::Publishing;
use resend::Resent;
use stopped_parts::StoppedParts;
pub use tag_outcomes::{CompanionOutcomes, TagOutcome};

/// How to run a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Number of blobs, then of images, at a time.
    pub jobs: usize,
    /// Whether to stop at the first failure instead of finishing the other images.
    pub fail_fast: bool,
}

/// A manifest or a tag of one repository: whether it was put there, and who may do so now.
type Turn = Arc<tokio::sync::Mutex<bool>>;

/// What is transferred, if images are known: they decide which blobs are worth sending when there is little space.
#[derive(Clone, Copy)]
struct Job<'j> {
    graph: &'j Graph,
    plan: &'j Plan,
}

/// A transfer under way.
pub struct Transfer<'a> {
    source: Observed<'a>,
    sink: &'a dyn Sink,
    options: Options,
    events: Events,
    mounted: AtomicU64,
    companions: Mutex<CompanionOutcomes>,
    failed: Mutex<HashMap<(Repository, Digest), Arc<Error>>>,
    failed_first: Mutex<HashMap<Digest, Arc<Error>>>,
    /// Each manifest is put once per repository, however many images share it, and tagged by one image at a time:
    /// distribution 2.8 rewrites its link in place, and a client that reads at that moment gets a 500.
    ///
    /// The tag of a companion has its own turn, taken before that of its manifest: two images may bring different lists
    /// for it, and the second has to see what the first has put there.
    published: Mutex<HashMap<Reference, Turn>>,
    resent: Resent,
    /// As in [`TransferOutcome::blocked`], as far as is known.
    blocked: Mutex<Vec<(Reference, String)>>,
    /// Manifests that are blocked in the same way.
    withheld: Mutex<HashSet<(Repository, Digest)>>,
    /// Immutable tags that may not be read. Their images exist.
    kept: Mutex<Vec<Reference>>,
    /// Registries that let this account push and not read, and for which that was reported.
    unread: Mutex<HashSet<String>>,
    /// As in [`TransferOutcome::unlisted`].
    unlisted: Mutex<BTreeMap<(Repository, Digest), Unlisted>>,
    written: Mutex<WrittenLists>,
    stopped: StoppedParts,
    outcomes: Outcomes,
    publishing: Publishing,
}

impl<'a> Transfer<'a> {
    pub fn new(source: &'a dyn Source, sink: &'a dyn Sink, options: Options, events: Events) -> Transfer<'a> {
        Transfer {
            source: Observed::new(source, events.clone()),
            sink,
            options,
            events,
            mounted: AtomicU64::new(0),
            companions: Mutex::default(),
            failed: Mutex::default(),
            failed_first: Mutex::default(),
            published: Mutex::default(),
            resent: Resent::default(),
            blocked: Mutex::default(),
            withheld: Mutex::default(),
            kept: Mutex::default(),
            unread: Mutex::default(),
            unlisted: Mutex::default(),
            written: Mutex::default(),
            stopped: StoppedParts::default(),
            outcomes: Outcomes::default(),
            publishing: Publishing::default(),
        }
    }

    /// Shares the tags that it sets with whatever may stop it.
    pub fn noting_tags(self, publishing: &Publishing) -> Transfer<'a> {
        Transfer { publishing: publishing.clone(), ..self }
    }

    /// Transfers blobs and manifests. The plan's images end as pushed, present, skipped or failed.
    ///
    /// With `fail_fast`, everything that was not finished at the first failure has failed too, and says so.
    pub async fn run(&self, graph: &Graph, plan: &Plan) -> TransferOutcome {
        self.run_with(graph, plan, None).await
    }

    /// Does the same with blobs in the order in which they arrive.
    pub async fn run_with(&self, graph: &Graph, plan: &Plan, arrivals: Option<&dyn Arrivals>) -> TransferOutcome {
        self.resent.set_streamed(arrivals.is_some());
        let (complete, to_publish) = mpsc::unbounded_channel();
        let awaited = Awaited::new(graph, plan, complete);
        let outcomes = &self.outcomes;
        let blobs = async {
            // It is dropped at the end: no further image is published then.
            let awaited = awaited;
            let done = |step: &BlobStep| {
                awaited.mark_done(step);
                arrivals.iter().for_each(|arrivals| arrivals.done_with(&step.blob.digest));
            };
            let moved = self.move_blobs(Some(graph), plan, arrivals::coming(plan, arrivals), done).await;
            let items = plan.images.len().saturating_sub(outcomes.begin_counting()) as u64;
            self.events.report(Event::Phase { phase: Phase::Publish, items, bytes: 0 });
            moved
        };
        // It ends early only with `fail_fast` or if the disk is full. Every failure is recorded where it belongs.
        let _ = try_join(blobs, self.images(graph, plan, received(to_publish), outcomes)).await;
        self.check_lists(graph, plan).await;
        self.report_all_lacking();
        self.sink.finish().await;
        self.so_far(graph, plan, "another failure ended the run")
    }

    /// Returns the results of the images so far. Images under way have failed, because of `why`.
    pub fn so_far(&self, graph: &Graph, plan: &Plan, why: &str) -> TransferOutcome {
        let mut outcomes = self.outcomes.known();
        let pairs = graph.images.iter().zip(&plan.images).enumerate();
        let images = pairs.map(|(at, (image, step))| {
            let outcome = outcomes.remove(&at).unwrap_or_else(|| self.untried(image, step, why));
            // A denial is reported in the same way whether the other images were pushed now or earlier.
            if matches!(outcome, Ok(Done::Pushed | Done::Present)) {
                self.stopped.note_accepted(&step.to.repository);
            }
            (step, outcome)
        });
        let images: Vec<_> = images.collect();
        let with_final_error = |(step, outcome): (&ImageStep, Result<Done, Arc<Error>>)| {
            outcome.map_err(|error| self.stopped.final_error(&step.to.repository, error))
        };
        let images: Vec<_> = images.into_iter().map(with_final_error).collect();
        let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let blocked = blocked::named(blocked, graph, plan, &images);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept.sort();
        let companions = self.companions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unlisted = self.unlisted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (mounted, set) = (self.mounted.load(Ordering::Relaxed), self.publishing.set());
        TransferOutcome { images, moved: self.moved(), mounted, blocked, withheld, kept, set, companions, unlisted }
    }

    /// Publishes the manifests and tags of the images in `complete`, given by index.
    ///
    /// # Errors
    /// Only with `fail_fast`: the first failure.
    async fn images(
        &self,
        graph: &Graph,
        plan: &Plan,
        complete: impl Stream<Item = usize>,
        outcomes: &Outcomes,
    ) -> Result<()> {
        let publish = |at: usize| async move {
            let (image, step) = graph.images.get(at).zip(plan.images.get(at))?;
            Some((at, self.image(image, step).await))
        };
        let mut published = pin!(complete.map(publish).buffer_unordered(self.options.jobs.max(1)));
        while let Some(image) = published.next().await {
            let Some((at, outcome)) = image else { continue };
            let failure = outcome.as_ref().err().cloned();
            if outcomes.note(at, outcome) {
                self.events.report(Event::ItemDone);
            }
            if let Some((error, (image, step))) = failure.zip(graph.images.get(at).zip(plan.images.get(at))) {
                let text = format!("image {} to {}: {}", image.locked.reference, step.to, error.chain());
                self.events.report(Event::Failure(text));
                if self.options.fail_fast {
                    return Err(Error::clone(&error));
                }
            }
        }
        Ok(())
    }

    /// Whether the target has answered that it set the image's own tag. For a list that others add to, that is not
    /// enough.
    fn has_set_tag(&self, step: &ImageStep) -> bool {
        step.to.digest.is_none() && step.own_list().is_none() && self.publishing.is_set(&step.to)
    }

    /// Returns what is known about an image that was not reached.
    fn untried(&self, image: &Image, step: &ImageStep, why: &str) -> Result<Done, Arc<Error>> {
        match step.action {
            Action::Nothing => return Ok(Done::Present),
            Action::Skip => return Ok(Done::Skipped),
            Action::Wait => return self.waiting(image, step),
            // Tags come last, so all of it exists.
            Action::Push if self.has_set_tag(step) => return Ok(Done::Pushed),
            Action::Refuse | Action::Immutable | Action::Push => {}
        }
        self.check_blobs(image, step)?;
        let text = format!("not finished, because {why}; run the same command again to continue");
        Err(Arc::new(Error::new(Kind::Interrupted, text)))
    }

    /// Bytes of blobs moved so far, including failed tries, but without blobs that failed in the end.
    pub fn moved(&self) -> u64 {
        self.source.read()
    }

    /// Sends a blob that the plan does not have, unless its part of the target is stopped.
    async fn send_blob(&self, repository: &Repository, blob: &Descriptor, origin: &Origin<'_>) -> Result<()> {
        self.stopped.check(repository, blob.size)?;
        let sent = self.sink.put_blob(repository, blob, origin).await;
        sent.map_err(|error| self.stopped.note(repository, blob.size, error))?;
        self.stopped.note_accepted(repository);
        Ok(())
    }

    /// Stores a manifest, unless its part of the target is stopped.
    async fn store(&self, reference: &Reference, manifest: &Manifest) -> Result<()> {
        let (repository, size, begun) = (&reference.repository, manifest.size(), Instant::now());
        self.stopped.check(repository, size)?;
        let stored = self.sink.put_manifest(reference, manifest).await;
        let stored = stored.map_err(|error| self.stopped.note(repository, size, error))?;
        self.stopped.note_accepted(repository);
        self.note_stored(repository, manifest, stored, begun);
        Ok(())
    }

    fn turn(&self, name: &Reference) -> Turn {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.entry(name.clone()).or_default().clone()
    }
}

fn received<T>(channel: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> {
    stream::unfold(channel, |mut channel| async move { Some((channel.recv().await?, channel)) })
}
