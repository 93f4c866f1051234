//! An import out of a pipe, in one pass.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::increment::From;
use super::{Import, ImportReport, NOTHING, has_config, of_bundle};
use crate::app::outcome::Outcome;
use crate::app::push::PushRequest;
use crate::app::stream::{Bytes, Stream};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::base::progress::units::{bytes, count};
use crate::bundle::Bundle;
use crate::bundle::stream::{self as streamed, Ending, Hand, Incoming};
use crate::bundle::volumes::Opened;
use crate::content::Source;
use crate::oci::{Descriptor, Digest, media_type};
use crate::pipeline::graph::Graph;
use crate::pipeline::plan::Plan;
use crate::pipeline::transfer::Arrivals;
use crate::signing::PublicKey;
use crate::verify::{self, Depth};

/// More problems of a stream are not reported one by one.
const MOST_SHOWN: usize = 10;

/// The part of a stream that stands before the layers.
struct Begun {
    incoming: Incoming<Bytes>,
    bundle: Bundle,
    signed_by: Option<PublicKey>,
}

impl Import<'_> {
    /// Pushes what comes, as it comes.
    pub(super) async fn stream(&self, stream: Stream) -> Result<ImportReport> {
        let path = stream.name.clone();
        let begun = self.begin(stream).map_err(|error| error.while_doing(NOTHING))?;
        let Begun { incoming, bundle, signed_by } = begun;
        let allowed = self.admit(&bundle)?;
        let pump = Pump::new(&path, incoming);
        let pushed = if bundle.json().is_increment() {
            self.increment(&bundle, From { arriving: None, pump: Some(&pump), allowed: &allowed }).await?
        } else {
            self.expects_nothing(&bundle)?;
            let graph = self.read_graph(&bundle, &allowed).await.map_err(|error| error.while_doing(NOTHING))?;
            pump.check(&graph)?;
            allowed.check_configs(bundle.layout(), &graph, has_config(&bundle)).await?;
            let coming = pump.arrived(bundle.layout());
            let push = PushRequest { arrivals: Some(&pump), ..of_bundle(&bundle, &coming, graph) };
            self.push.run(&push, self.started).await?
        };
        let mut report = ImportReport { push: pushed, signed_by, pruned: None };
        if report.push.failure().is_none()
            && let Some(ending) = pump.ending().await
        {
            self.conclude(&path, &mut report, &ending);
        }
        self.prune(&mut report, &bundle).await;
        Ok(report)
    }

    /// What the end of the stream says of it.
    fn conclude(&self, path: &Path, report: &mut ImportReport, ending: &Ending) {
        let (path, events) = (path.display(), &self.environment.events);
        for problem in ending.problems.iter().take(MOST_SHOWN) {
            events.report(Event::Warning(problem.clone()));
        }
        match (report.push.outcome(), ending.problems.len()) {
            (Outcome::Done, 0) => {}
            (Outcome::Done, problems) => {
                let problems = count(problems, "problem");
                let text = format!("{path} has {problems}; what was pushed is right, but this is not what was sent");
                report.push.fail(Error::damaged(text));
            }
            (outcome, _) => {
                events.report(Event::Status(format!("{path}: {} came", bytes(ending.length))));
                if ending.failed_here && outcome == Outcome::SomeImagesFailed {
                    report.push.conclude(Outcome::Failed(Kind::Disk));
                }
            }
        }
    }

    /// Reads what stands before the layers, and refuses what is not right as far as that goes.
    fn begin(&self, stream: Stream) -> Result<Begun> {
        let (path, events) = (stream.name, &self.environment.events);
        let mut signed = None;
        let (incoming, layout) = Incoming::open(&path, stream.bytes, &mut |layout| {
            signed = self.request.trust.check(layout, self.environment)?;
            Ok(())
        })?;
        let opened = Opened::Whole(Box::new(layout));
        let mut report = verify::check_proven(&opened, Depth::Structure, signed.as_ref(), events)?;
        report.ignore_chunks();
        if !report.is_clean() {
            return Err(verify::refuse(&path, &report));
        }
        if let Some(signed) = &signed {
            events.report(Event::Status(format!("signed by {}", signed.by)));
        }
        let signed_by = signed.as_ref().map(|signed| signed.by.clone());
        let bundle = Bundle::proven(opened.into_layout(), signed)?;
        Ok(Begun { incoming, bundle, signed_by })
    }
}

/// Reads the pipe on a thread of its own, from the moment the plan is known.
pub struct Pump {
    path: PathBuf,
    incoming: Mutex<Option<Incoming<Bytes>>>,
    hand: Arc<Hand>,
    ending: Mutex<Option<oneshot::Receiver<Ending>>>,
    /// What had not come when reading stopped.
    awaited: HashSet<Digest>,
}

impl Pump {
    fn new(path: &Path, mut incoming: Incoming<Bytes>) -> Pump {
        let (hand, ending, awaited) = (Arc::default(), Mutex::default(), incoming.take_awaited());
        Pump { path: path.to_owned(), incoming: Mutex::new(Some(incoming)), hand, ending, awaited }
    }

    /// What has come, and `rest`.
    pub fn arrived<'a>(&self, rest: &'a dyn Source) -> streamed::Arrived<'a> {
        streamed::Arrived { hand: self.hand.clone(), rest }
    }

    /// Whether all that an allowlist is asked about has come: the configs of images say what platform they are for.
    ///
    /// # Errors
    /// One stands behind other blobs.
    pub fn check(&self, graph: &Graph) -> Result<()> {
        let manifests = graph.images.iter().flat_map(|image| &image.manifests);
        let mut configs = manifests.filter_map(|manifest| manifest.config());
        let is_late = |config: &&Descriptor| {
            media_type::is_image_config(&config.media_type) && self.awaited.contains(&config.digest)
        };
        let Some(late) = configs.find(is_late) else { return Ok(()) };
        let (path, late) = (self.path.display(), late.digest);
        let text = format!("{NOTHING}: {path}: the config {late} stands behind other blobs, or is none");
        Err(Error::damaged(format!("{text}; save it to a file and import that")))
    }

    /// Reads what is still to come; `None`: nothing was read.
    async fn ending(&self) -> Option<Ending> {
        self.hand.close();
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        ending.await.ok()
    }
}

impl Arrivals for Pump {
    fn of<'p>(&'p self, plan: &'p Plan) -> BoxStream<'p, (Digest, Result<()>)> {
        let (came, coming) = mpsc::unbounded_channel();
        let wanted: HashSet<Digest> = plan.blobs.iter().map(|step| step.blob.digest).collect();
        if let Some(incoming) = self.incoming.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let (end, ending) = oneshot::channel();
            *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
            let hand = self.hand.clone();
            // It may wait for whoever sends, which must not keep the program from ending.
            std::thread::spawn(move || {
                let _ = end.send(incoming.read(wanted, &hand, &came));
            });
        }
        stream::unfold(coming, |mut coming| async move { Some((coming.recv().await?, coming)) }).boxed()
    }

    fn settled(&self, digest: &Digest) {
        self.hand.settle(digest);
    }
}
