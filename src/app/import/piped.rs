//! Imports a bundle from a pipe, in one pass.

use std::path::Path;

use super::increment::From;
use super::pump::Pump;
use super::{Import, ImportReport, NOTHING, has_config, of_bundle};
use crate::app::outcome::Outcome;
use crate::app::push::PushRequest;
use crate::app::stream::{BundleStream, StreamReader};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::base::progress::units::{bytes, count};
use crate::bundle::Bundle;
use crate::bundle::volumes::Opened;
use crate::bundle::{Ending, StreamedBundle};
use crate::signing::PublicKey;
use crate::verify::{self, Depth};

/// The most problems of a stream that are reported one by one.
const MOST_SHOWN: usize = 10;

/// The part of a stream in front of the layers.
struct Begun {
    incoming: StreamedBundle<StreamReader>,
    bundle: Bundle,
    signed_by: Option<PublicKey>,
}

impl Import<'_> {
    /// Pushes a bundle while it arrives.
    pub(super) async fn stream(&self, stream: BundleStream) -> Result<ImportReport> {
        let path = stream.name.clone();
        let begun = self.begin(stream).map_err(|error| error.while_doing(NOTHING))?;
        let Begun { incoming, bundle, signed_by } = begun;
        let allowed = self.admit(&bundle)?;
        let pump = Pump::new(&path, incoming);
        let pushed = if bundle.json().is_increment() {
            self.increment(&bundle, From { runs: None, pump: Some(&pump), allowed: &allowed }).await?
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

    /// Reports what was found at the end of the stream.
    fn conclude(&self, path: &Path, report: &mut ImportReport, ending: &Ending) {
        let (path, events) = (path.display(), &self.environment.events);
        for problem in ending.problems.iter().take(MOST_SHOWN) {
            events.report(Event::Warning(problem.clone()));
        }
        match (report.push.outcome(), ending.problems.len()) {
            (Outcome::Done, 0) => {}
            (Outcome::Done, problems) => {
                let problems = count(problems, "problem");
                let text = format!("{path} has {problems}; everything pushed is intact, but this is not what was sent");
                report.push.fail(Error::damaged(text), events);
            }
            (outcome, _) => {
                events.report(Event::Status(format!("{path}: {} received", bytes(ending.length))));
                if ending.failed_here && outcome == Outcome::SomeImagesFailed {
                    report.push.conclude(Outcome::Failed(Kind::Disk));
                }
            }
        }
    }

    /// Reads the part in front of the layers, and refuses it if it has a problem.
    fn begin(&self, stream: BundleStream) -> Result<Begun> {
        let (path, events) = (stream.name, &self.environment.events);
        let mut signed = None;
        let (incoming, layout) = StreamedBundle::open(&path, stream.bytes, &mut |layout| {
            signed = self.request.trust.check(layout, self.environment)?;
            Ok(())
        })?;
        let opened = Opened::Whole(Box::new(layout));
        let mut report = verify::check_proven(&opened, Depth::Structure, signed.as_ref(), events)?;
        report.ignore_unneeded();
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
