//! The transfer: carries out a plan between any source and any sink.
//!
//! Each blob is read once and then mounted. As soon as the blobs of an image are there, its manifests follow, children
//! first, companions after what they speak of, and the tag last. Whatever the moment of an interruption, a tag that exists
//! can be pulled, and what was complete has its tag. A failure belongs to the images it touches; the others go on.

mod arrivals;
mod awaited;
mod blocked;
mod closed;
mod companions;
mod immutable;
mod observed;
mod of_use;
mod outcome;
mod outcomes;
mod read_back;
mod resend;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::mpsc;

use crate::content::{Lookup, Origin, Sink, Source};
use crate::error::{Error, Kind, Reason, Result};
use crate::graph::{Graph, Image};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use crate::plan::{Action, BlobStep, CompanionAction, ImageStep, Plan, TagState, WITHHELD_REMEDY, put_by_tag};
use crate::progress::{Event, Events, Phase};
pub use arrivals::Arrivals;
use arrivals::Coming;
use awaited::Awaited;
use closed::Closed;
pub use observed::Observed;
use of_use::OfUse;
pub use outcome::{Done, Outcome, Settled, confirmed};
use outcomes::Outcomes;
use resend::Resent;

/// How to run a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Blobs, then images, at a time.
    pub jobs: usize,
    /// Stop at the first failure instead of finishing the other images.
    pub fail_fast: bool,
    /// Read the last byte of every blob that was uploaded: the target may keep a damaged file that it has.
    pub check_uploads: bool,
}

/// A manifest or a tag of one repository: whether it was put there, and who may do so now.
type Turn = Arc<tokio::sync::Mutex<bool>>;

/// What is transferred, where images are: they say which blobs are worth sending when there is little room.
type Job<'j> = Option<(&'j Graph, &'j Plan)>;

/// A blob of the plan that one repository of the target has.
struct Landed<'p> {
    step: &'p BlobStep,
    /// The repository that has it; `None` when all have refused it.
    at: Option<&'p Repository>,
    /// Those that still lack it.
    lacking: &'p [Repository],
    failed: Option<Arc<Error>>,
}

/// A transfer under way.
pub struct Transfer<'a> {
    source: Observed<'a>,
    sink: &'a dyn Sink,
    options: Options,
    events: Events,
    mounted: AtomicU64,
    companions: Mutex<HashMap<Reference, Settled>>,
    failed: Mutex<HashMap<(Repository, Digest), Arc<Error>>>,
    /// Each manifest is put once per repository, however many images share it, and tagged by one image at a time:
    /// distribution 2.8 rewrites its link in place, and whoever reads that moment gets a 500.
    ///
    /// The tag of a companion has a turn of its own, taken before that of its manifest: two images may bring different lists for
    /// it, and the second has to see what the first has put there.
    published: Mutex<HashMap<Reference, Turn>>,
    resent: Resent,
    /// As in [`Outcome::blocked`], as far as is known.
    blocked: Mutex<Vec<(Reference, String)>>,
    /// Manifests of which the same is so.
    withheld: Mutex<HashSet<(Repository, Digest)>>,
    /// Immutable tags that may not be read. Their images are there.
    kept: Mutex<Vec<Reference>>,
    /// Registries that let this account push and not read, as was said.
    unread: Mutex<HashSet<String>>,
    closed: Closed,
    outcomes: Outcomes,
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
            published: Mutex::default(),
            resent: Resent::default(),
            blocked: Mutex::default(),
            withheld: Mutex::default(),
            kept: Mutex::default(),
            unread: Mutex::default(),
            closed: Closed::default(),
            outcomes: Outcomes::default(),
        }
    }

    /// Blobs and manifests; the plan's images end pushed, present, skipped or failed.
    ///
    /// With `fail_fast`, what was not finished at the first failure has failed too, and says so.
    pub async fn run(&self, graph: &Graph, plan: &Plan) -> Outcome {
        self.run_with(graph, plan, None).await
    }

    /// The same, blobs in the order in which they come to hand.
    pub async fn run_with(&self, graph: &Graph, plan: &Plan, arrivals: Option<&dyn Arrivals>) -> Outcome {
        self.resent.set_streamed(arrivals.is_some());
        let (complete, to_publish) = mpsc::unbounded_channel();
        let awaited = Awaited::new(graph, plan, complete);
        let outcomes = &self.outcomes;
        let blobs = async {
            // It is dropped at the end: then no further image is to be published.
            let awaited = awaited;
            let settled = |step: &BlobStep| {
                awaited.settle(step);
                arrivals.iter().for_each(|arrivals| arrivals.settled(&step.blob.digest));
            };
            let moved = self.move_blobs(Some(graph), plan, arrivals::coming(plan, arrivals), settled).await;
            let items = plan.images.len().saturating_sub(outcomes.begin_counting()) as u64;
            self.events.report(Event::Phase { phase: Phase::Publish, items, bytes: 0 });
            moved
        };
        // It ends early only with `fail_fast`; every failure is noted where it belongs.
        let _ = try_join(blobs, self.images(graph, plan, received(to_publish), outcomes)).await;
        self.sink.finish().await;
        self.so_far(graph, plan, "another failure ended the run")
    }

    /// What has become of the images until now; what is still under way has failed, for the reason `why`.
    pub fn so_far(&self, graph: &Graph, plan: &Plan, why: &str) -> Outcome {
        let mut outcomes = self.outcomes.known();
        let pairs = graph.images.iter().zip(&plan.images).enumerate();
        let images =
            pairs.map(|(at, (image, step))| outcomes.remove(&at).unwrap_or_else(|| self.untried(image, step, why)));
        let images: Vec<_> = images.collect();
        let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let blocked = blocked::named(blocked, graph, plan, &images);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept.sort();
        let companions = self.companions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mounted = self.mounted.load(Ordering::Relaxed);
        Outcome { images, moved: self.moved(), mounted, blocked, withheld, kept, companions }
    }

    /// Manifests and tags of the images that `complete` names by their place.
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

    /// What is known of an image that was not reached.
    fn untried(&self, image: &Image, step: &ImageStep, why: &str) -> Result<Done, Arc<Error>> {
        match step.action {
            Action::Nothing => return Ok(Done::Present),
            Action::Skip => return Ok(Done::Skipped),
            Action::Wait => return self.waiting(image, step),
            Action::Refuse | Action::Immutable | Action::Push => {}
        }
        self.check_blobs(image, step)?;
        let text = format!("it was not finished, because {why}; running again continues");
        Err(Arc::new(Error::new(Kind::Interrupted, text)))
    }

    /// Only the blobs.
    ///
    /// # Errors
    /// With `fail_fast` the first blob that failed; without, one for which the disk had no room.
    pub async fn blobs(&self, plan: &Plan) -> Result<()> {
        self.move_blobs(None, plan, arrivals::coming(plan, None), |_| ()).await
    }

    /// `settled` hears of every blob that is where it was to go or has failed.
    async fn move_blobs<'p>(
        &self,
        graph: Option<&Graph>,
        plan: &'p Plan,
        coming: impl Stream<Item = Coming<'p>>,
        settled: impl Fn(&BlobStep),
    ) -> Result<()> {
        let items = plan.blobs.len() as u64;
        self.events.report(Event::Phase { phase: Phase::Transfer, items, bytes: plan.new_bytes() });
        let jobs = self.options.jobs.max(1);
        let (landed, to_spread) = mpsc::unbounded_channel();
        let job = graph.map(|graph| (graph, plan));
        let moving = async move {
            let mut moved = pin!(coming.map(|coming| self.land(coming, job)).buffer_unordered(jobs));
            while let Some(blob) = moved.next().await {
                // The next ones would be fetched for nothing.
                if let Some(error) = blob.failed.as_ref().filter(|error| error.is_disk_full()) {
                    return Err(Error::clone(error));
                }
                // Nobody hears any more only when the other side has failed.
                let _ = landed.send(blob);
            }
            Ok(())
        };
        let spreading = async {
            let mut spread = pin!(received(to_spread).map(|blob| self.settle(blob, job)).buffer_unordered(jobs));
            while let Some((step, outcome)) = spread.next().await {
                self.events.report(Event::ItemDone);
                settled(step);
                if let (Err(error), true) = (outcome, self.options.fail_fast) {
                    return Err(Error::clone(&error));
                }
            }
            Ok(())
        };
        // Mounting is many small requests: beside the uploads, not in their way.
        try_join(moving, spreading).await.map(|_| ())
    }

    /// Every blob that failed so far.
    pub fn failures(&self) -> Vec<(Digest, Error)> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<(&Digest, &Arc<Error>)> = failed.iter().map(|((_, blob), error)| (blob, error)).collect();
        all.sort_by_key(|(_, error)| error.to_string());
        all.into_iter().map(|(blob, error)| (*blob, Error::clone(error))).collect()
    }

    /// Bytes of blobs that moved so far, those of failed tries included, but not those of blobs that failed in the end.
    pub fn moved(&self) -> u64 {
        self.source.read()
    }

    /// Brings one blob to the first repository that takes it, unless one has it already.
    async fn land<'p>(&self, (step, lost): Coming<'p>, job: Job<'_>) -> Landed<'p> {
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
                Ok(()) => landed.at = Some(repository),
                Err(error) => landed.failed = Some(self.note_failure(step, repository, error)),
            }
        }
        landed
    }

    async fn settle<'p>(&self, landed: Landed<'p>, job: Job<'_>) -> (&'p BlobStep, Result<(), Arc<Error>>) {
        (landed.step, self.spread(landed, job).await)
    }

    /// Mounts what has landed into the other repositories; where that is not possible, it is moved again.
    async fn spread(&self, landed: Landed<'_>, job: Job<'_>) -> Result<(), Arc<Error>> {
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

    async fn upload(&self, step: &BlobStep, repository: &Repository, job: Job<'_>) -> Result<()> {
        job.map_or(Ok(()), |job| self.closed.admit(step, repository, job))?;
        let source = OfUse { inner: &self.source, closed: &self.closed, to: repository };
        let origin = Origin { source: &source, repository: &step.from };
        let put = self.sink.put_blob(repository, &step.blob, &origin).await;
        if put.is_err() {
            self.source.take_back(&step.blob.digest);
        }
        self.source.close(&step.blob.digest);
        put.map_err(|error| self.refused(step, repository, error, job))?;
        if self.options.check_uploads { self.check_sent(repository, &step.blob).await } else { Ok(()) }
    }

    async fn mount(&self, step: &BlobStep, to: &Repository, from: &Repository, job: Job<'_>) -> Result<bool> {
        job.map_or(Ok(()), |job| self.closed.admit(step, to, job))?;
        let mounted = self.sink.mount(to, &step.blob, from).await;
        mounted.map_err(|error| self.refused(step, to, error, job))
    }

    fn refused(&self, step: &BlobStep, repository: &Repository, error: Error, job: Job<'_>) -> Error {
        match job {
            Some(job) => self.closed.note_blob(step, repository, error, job),
            None => error,
        }
    }

    /// Sends a blob that the plan does not have, unless its part of the target is closed.
    async fn send_blob(&self, repository: &Repository, blob: &Descriptor, origin: &Origin<'_>) -> Result<()> {
        self.closed.check(repository, blob.size)?;
        let sent = self.sink.put_blob(repository, blob, origin).await;
        sent.map_err(|error| self.closed.note(repository, blob.size, error))
    }

    /// Stores a manifest, unless its part of the target is closed.
    async fn store(&self, reference: &Reference, manifest: &Manifest) -> Result<()> {
        let (repository, size) = (&reference.repository, manifest.size());
        self.closed.check(repository, size)?;
        let stored = self.sink.put_manifest(reference, manifest).await;
        stored.map_err(|error| self.closed.note(repository, size, error))
    }

    fn note_failure(&self, step: &BlobStep, repository: &Repository, error: Error) -> Arc<Error> {
        // A bundle has no repositories of its own: there the blob goes under the name it came from.
        let way = if *repository == step.from { "of" } else { "to" };
        let blob = format!("blob {} {way} {repository}", step.blob.digest);
        // Most say that themselves.
        let is_named = error.to_string().contains(&blob);
        let error = Arc::new(if is_named { error } else { error.while_doing(blob) });
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.insert((repository.clone(), step.blob.digest), error.clone());
        error
    }

    async fn image(&self, image: &Image, step: &ImageStep) -> Result<Done, Arc<Error>> {
        match step.action {
            Action::Nothing => return Ok(Done::Present),
            Action::Skip => return Ok(Done::Skipped),
            Action::Refuse => {
                return Err(Arc::new(Error::new(Kind::Refused, step.refusal())));
            }
            Action::Immutable => {
                let text = "the tag already means another image, and a rule of the project makes it immutable";
                return Err(Arc::new(Error::new(Kind::Refused, text).with_reason(Reason::ImmutableTag)));
            }
            Action::Wait => return self.waiting(image, step),
            Action::Push => {}
        }
        self.check_blobs(image, step)?;
        let done = self.publish(image, step).await?;
        let companions = self.companions.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match step.own_list().and_then(|own| companions.get(&own.tag)) {
            Some(settled) if settled.action.leaves_tag() => Done::Skipped,
            // Its list has all of ours by now.
            Some(Settled { action: CompanionAction::Nothing, state: TagState::Other(_) }) => Done::Present,
            _ => done,
        })
    }

    /// What is at hand of it has to have arrived all the same.
    fn waiting(&self, image: &Image, step: &ImageStep) -> Result<Done, Arc<Error>> {
        self.check_blobs(image, step)?;
        Ok(Done::Waiting)
    }

    fn check_blobs(&self, image: &Image, step: &ImageStep) -> Result<(), Arc<Error>> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = || step.blobs(image).filter_map(|blob| failed.get(&(step.to.repository.clone(), blob.digest)));
        // What ended everything else too says more than that one blob failed.
        let error = errors().find(|error| error.stopped().is_some()).or_else(|| errors().next());
        error.cloned().map_or(Ok(()), Err)
    }

    /// Manifests children first, companions after their subjects; tags when everything is there.
    async fn publish(&self, image: &Image, step: &ImageStep) -> Result<Done> {
        let repository = &step.to.repository;
        // A list's own tag is among those of the companions.
        let is_same = step.tag == TagState::Same && (!step.doubtful || self.is_there(&step.to).await?);
        let gets_tag = step.to.digest.is_none() && !is_same && step.own_list().is_none();
        let by_tag = put_by_tag(image, &step.to).filter(|_| !is_same);
        for manifest in step.manifests(image) {
            let digest = manifest.digest();
            let is_present = step.present.contains(&digest)
                && (!step.doubtful || self.is_there(&repository.with_digest(digest)).await?);
            if !is_present && by_tag != Some(digest) {
                self.put_once(image, repository, manifest).await?;
            }
        }
        for companion in &step.companions {
            self.companion(image, companion, step.doubtful).await?;
        }
        if step.is_unreadable {
            return self.unread(image, step).await;
        }
        if gets_tag {
            return match self.tag(image, &step.to, manifest_of(image, &image.locked.digest)?).await {
                Err(error) => self.keep_immutable(image, step, error).await,
                Ok(()) => Ok(Done::Pushed),
            };
        }
        Ok(Done::Pushed)
    }

    /// What an image came to whose own manifest the target has and does not give. What was pushed beside it may have met the policy.
    ///
    /// # Errors
    /// The tag is not known to mean the image, and cannot be set without its manifest.
    async fn unread(&self, image: &Image, step: &ImageStep) -> Result<Done> {
        let found = self.sink.resolve(&step.to).await?;
        if found.means(&image.locked.digest) {
            return Ok(Done::Present);
        }
        let (why, state) = match found {
            Lookup::Blocked(why) => {
                (format!(" ({why})"), "an account that may read artifacts there knows whether the tag means it")
            }
            Lookup::Found(_) => (String::new(), "the tag means another image"),
            Lookup::Absent => (String::new(), "the tag is new"),
        };
        let text = format!(
            "the bundle leaves manifest {} to the target, where a policy of the project forbids reading it{why}; {state}; \
             {WITHHELD_REMEDY}",
            image.locked.digest
        );
        Err(Error::new(Kind::Refused, text).with_reason(Reason::PullPolicy))
    }

    fn turn(&self, name: &Reference) -> Turn {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.entry(name.clone()).or_default().clone()
    }

    async fn put_once(&self, image: &Image, repository: &Repository, manifest: &Manifest) -> Result<()> {
        let name = repository.with_digest(manifest.digest());
        let turn = self.turn(&name);
        let mut is_there = turn.lock().await;
        if !*is_there {
            self.put_manifest(image, &name, manifest).await?;
            let why = self.check_stored(&name, manifest.digest()).await?;
            *is_there = true;
            self.note_blocked(&name, why);
        }
        Ok(())
    }

    /// Gives `tag` its meaning and reads it back.
    async fn tag(&self, image: &Image, tag: &Reference, manifest: &Manifest) -> Result<()> {
        let digest = manifest.digest();
        let turn = self.turn(&tag.repository.with_digest(digest));
        let mut is_there = turn.lock().await;
        self.put_manifest(image, tag, manifest).await?;
        *is_there = true;
        // The registry has said that it stored these bytes. A policy may forbid reading them.
        let why = self.check_stored(tag, digest).await?;
        self.note_blocked(tag, why);
        Ok(())
    }

    fn note_blocked(&self, name: &Reference, why: Option<String>) {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.extend(why.map(|why| (name.clone(), why)));
    }
}

fn manifest_of<'i>(image: &'i Image, digest: &Digest) -> Result<&'i Manifest> {
    let found = image.manifests.iter().find(|manifest| manifest.digest() == *digest);
    found.ok_or_else(|| Error::damaged(format!("{digest} is not among the image's manifests")))
}

fn received<T>(channel: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> {
    stream::unfold(channel, |mut channel| async move { Some((channel.recv().await?, channel)) })
}
