//! `import -`: out of a pipe, in one pass.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::allowed::Allowed;
use super::increment::{self, From};
use super::prune::Arrived;
use super::{Args, NOTHING, cargo, check_newer, has_config, prune, read_graph, refusal, report_missing};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::base::progress::units::{bytes, count};
use crate::bundle::Bundle;
use crate::bundle::stream::{self as streamed, Ending, Hand, Incoming};
use crate::bundle::volumes::Opened;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::piped::{Input, Piped};
use crate::cli::push::{Cargo, Push};
use crate::cli::signing::signed_by;
use crate::content::Source;
use crate::oci::{Descriptor, Digest, media_type};
use crate::pipeline::graph::Graph;
use crate::pipeline::plan::Plan;
use crate::pipeline::transfer::Arrivals;
use crate::verify::{self, Depth};

/// So many problems of a stream are told.
const TOLD: usize = 10;

/// Pushes what comes, as it comes.
pub async fn run(
    args: &Args,
    piped: Piped,
    push: &Push<'_>,
    arrived: &Arrived,
    started: Instant,
    context: &Context,
) -> Result<Outcome> {
    if args.verify_first {
        let text = "a pipe can be read once, so --verify-first cannot: save it to a file, or leave that out";
        return Err(Error::input(format!("{}: {text}", piped.path.display())));
    }
    if args.state.is_some() {
        return Err(Error::input("--state is for volumes, one after the other; a pipe is read to its end"));
    }
    let path = piped.path.clone();
    let (incoming, bundle) = begin(args, piped, context).map_err(|error| error.while_doing(NOTHING))?;
    let allowed = Allowed::read(args)?;
    allowed.check(bundle.lock())?;
    check_newer(args, &bundle)?;
    report_missing(&bundle, context);
    let pump = Pump::new(&path, incoming);
    let outcome = if bundle.json().is_increment() {
        let from = From { arriving: None, pump: Some(&pump), allowed: &allowed };
        increment::run(args, push, &bundle, from, started, context).await?
    } else {
        increment::not_needed(args, &bundle, context)?;
        let graph = read_graph(bundle.layout(), bundle.lock(), &allowed, context).await;
        let graph = graph.map_err(|error| error.while_doing(NOTHING))?;
        pump.check(&graph)?;
        allowed.check_configs(bundle.layout(), &graph, has_config(&bundle)).await?;
        let coming = pump.arrived(bundle.layout());
        let cargo = Cargo { arrivals: Some(&pump), ..cargo(&bundle, &coming, graph, None) };
        push.run(&cargo, started, context).await?
    };
    let Some(ending) = pump.ending().await else {
        return prune::after(outcome, args, push, &bundle, arrived, context).await;
    };
    for problem in ending.problems.iter().take(TOLD) {
        context.events.report(Event::Warning(problem.clone()));
    }
    match (outcome, ending.problems.len()) {
        (Outcome::Done, 0) => prune::after(outcome, args, push, &bundle, arrived, context).await,
        (Outcome::Done, problems) => {
            let (path, problems) = (path.display(), count(problems, "problem"));
            let text = format!("{path} has {problems}; what was pushed is right, but this is not what was sent");
            Err(Error::damaged(text))
        }
        (outcome, _) => {
            context.say(&format!("{}: {} came", path.display(), bytes(ending.length)));
            let is_ours = ending.failed_here && outcome == Outcome::SomeImagesFailed;
            Ok(if is_ours { Outcome::Failed(Kind::Disk) } else { outcome })
        }
    }
}

/// Reads what stands before the layers, and refuses what is not right as far as that goes.
fn begin(args: &Args, piped: Piped, context: &Context) -> Result<(Incoming<Input>, Bundle)> {
    let mut signed = None;
    let (incoming, layout) = Incoming::open(&piped.path, piped.input, &mut |layout| {
        signed = args.keys.check_layout(layout, context)?;
        Ok(())
    })?;
    let opened = Opened::Whole(Box::new(layout));
    let mut report = verify::check_proven(&opened, Depth::Structure, signed.as_ref(), &context.events)?;
    report.ignore_chunks();
    if !report.is_clean() {
        context.end();
        return Err(refusal(&piped.path, &report, context));
    }
    if let Some(signed) = &signed {
        context.say(&signed_by(&signed.by));
    }
    let bundle = Bundle::proven(opened.into_layout(), signed)?;
    Ok((incoming, bundle))
}

/// Reads the pipe on a thread of its own, from the moment the plan is known.
pub struct Pump {
    path: PathBuf,
    incoming: Mutex<Option<Incoming<Input>>>,
    hand: Arc<Hand>,
    ending: Mutex<Option<oneshot::Receiver<Ending>>>,
    /// What had not come when reading stopped.
    awaited: HashSet<Digest>,
}

impl Pump {
    fn new(path: &Path, mut incoming: Incoming<Input>) -> Pump {
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
