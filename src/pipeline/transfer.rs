//! Carries out a plan between any source and any sink.
//!
//! Each blob is read once and mounted into further repositories. As soon as an image's blobs are at the target, its
//! manifests follow: children first, companions after their subjects, the tag last. An interruption at any moment
//! therefore leaves only tags that can be pulled, and every complete image has its tag. A failure affects only the
//! images that need the failed content; the others continue.

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
    /// Number of blobs, and later of images, handled at a time.
    pub jobs: usize,
    /// Whether to stop at the first failure instead of finishing the other images.
    pub fail_fast: bool,
}

/// A mutex for one manifest or tag of a repository. Its value says whether it was already pushed.
type Turn = Arc<tokio::sync::Mutex<bool>>;

/// The graph and plan of a transfer whose images are known. They decide which blobs are worth sending when the target
/// has little space left.
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
    /// Each manifest is pushed once per repository, however many images share it, and only one image at a time tags it:
    /// distribution 2.8 rewrites the link in place, and a client that reads at that moment gets a 500.
    ///
    /// A companion's tag has its own mutex, taken before that of its manifest: two images may bring different lists for
    /// the tag, and the second must see what the first wrote.
    published: Mutex<HashMap<Reference, Turn>>,
    resent: Resent,
    /// [`TransferOutcome::blocked`] so far.
    blocked: Mutex<Vec<(Reference, String)>>,
    /// [`TransferOutcome::withheld`] so far.
    withheld: Mutex<HashSet<(Repository, Digest)>>,
    /// [`TransferOutcome::kept`] so far.
    kept: Mutex<Vec<Reference>>,
    /// Registries for which the notice that this account may push but not read was already shown.
    unread: Mutex<HashSet<String>>,
    /// [`TransferOutcome::unlisted`] so far.
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

    /// Shares the record of pushed tags with the code that may stop the transfer.
    pub fn noting_tags(self, publishing: &Publishing) -> Transfer<'a> {
        Transfer { publishing: publishing.clone(), ..self }
    }

    /// Transfers blobs and manifests. Each image of the plan ends as pushed, present, skipped, waiting or failed.
    ///
    /// With `fail_fast`, images that were unfinished at the first failure also fail, and their error says so.
    pub async fn run(&self, graph: &Graph, plan: &Plan) -> TransferOutcome {
        self.run_with(graph, plan, None).await
    }

    /// Like [`Transfer::run`], but moves blobs in the order in which they arrive.
    pub async fn run_with(&self, graph: &Graph, plan: &Plan, arrivals: Option<&dyn Arrivals>) -> TransferOutcome {
        self.resent.set_streamed(arrivals.is_some());
        let (complete, to_publish) = mpsc::unbounded_channel();
        let awaited = Awaited::new(graph, plan, complete);
        let outcomes = &self.outcomes;
        let blobs = async {
            // Dropping this at the end of the block ends the stream of images to publish.
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
        // Ends early only with `fail_fast` or on a full disk. Every failure is already recorded with its blob or image.
        let _ = try_join(blobs, self.images(graph, plan, received(to_publish), outcomes)).await;
        self.check_lists(graph, plan).await;
        self.report_all_lacking();
        self.sink.finish().await;
        self.so_far(graph, plan, "another failure ended the run")
    }

    /// Returns the outcome so far. Images still under way count as failed, with `why` as the reason.
    pub fn so_far(&self, graph: &Graph, plan: &Plan, why: &str) -> TransferOutcome {
        let mut outcomes = self.outcomes.known();
        let pairs = graph.images.iter().zip(&plan.images).enumerate();
        let images = pairs.map(|(at, (image, step))| {
            let outcome = outcomes.remove(&at).unwrap_or_else(|| self.untried(image, step, why));
            // A denial must be reported the same way whether the other images were pushed in this run or earlier.
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

    /// Publishes the images whose index in the plan `complete` yields.
    ///
    /// # Errors
    /// With `fail_fast`, the first failure; otherwise none.
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

    /// Whether the target confirmed that it set the image's own tag. For a list that others add to, that confirmation
    /// is not enough.
    fn has_set_tag(&self, step: &ImageStep) -> bool {
        step.to.digest.is_none() && step.own_list().is_none() && self.publishing.is_set(&step.to)
    }

    /// Returns the outcome of an image that the run did not reach.
    fn untried(&self, image: &Image, step: &ImageStep, why: &str) -> Result<Done, Arc<Error>> {
        match step.action {
            Action::Nothing => return Ok(Done::Present),
            Action::Skip => return Ok(Done::Skipped),
            Action::Wait => return self.waiting(image, step),
            // The tag is set last, so the whole image is at the target.
            Action::Push if self.has_set_tag(step) => return Ok(Done::Pushed),
            Action::Refuse | Action::Immutable | Action::Push => {}
        }
        self.check_blobs(image, step)?;
        let text = format!("not finished, because {why}; run the same command again to continue");
        Err(Arc::new(Error::new(Kind::Interrupted, text)))
    }

    /// Bytes of blobs moved so far, including retries, but without blobs that failed in the end.
    pub fn moved(&self) -> u64 {
        self.source.read()
    }

    /// Sends a blob that is not in the plan, unless its part of the target is stopped.
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
