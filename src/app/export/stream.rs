//! In one pass: into a pipe, or compressed into a file.

use std::path::{Path, PathBuf};

use super::job::{Export, Planned, Resolved};
use super::report::ExportReport;
use super::request::OneOutlet;
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::base::progress::units::bytes;
use crate::bundle::stream::{Compressed, Kind, Outlet, Stream, Streamed};
use crate::bundle::{Contents, Finished, Options, Writer, check_signature};
use crate::files::Layout;
use crate::pipeline::lock::MissingReason;
use crate::signing::PrivateKey;

impl Export<'_> {
    /// Into a file that compresses it.
    pub(super) async fn compressed(&self, path: &Path, resolved: Resolved<'_>) -> Result<ExportReport> {
        let options = self.options();
        let pass = self.pass(&resolved, &options);
        let total = pass.length()?;
        let there = self.up_to_date(path, &resolved.contents, options.key.as_deref());
        if self.request.dry_run {
            return self.plan_pass(&resolved, total, there.is_some());
        }
        let (finished, moved) = match there {
            Some(finished) => (finished, 0),
            None => {
                self.report_length(path, total);
                let streamed = pass.write(Compressed::create(path)?).await;
                let Streamed { identity, .. } = streamed.map_err(|error| self.unfinished(error))?;
                let size = path.metadata().map_or(0, |file| file.len());
                (Finished { path: path.to_owned(), identity, size, unchanged: false }, moved(&resolved.contents))
            }
        };
        let locked = self.write_lock(&resolved.contents.lock);
        self.read_back([finished.path.clone()]).await?;
        let mut exported = self.exported(&resolved.contents.lock, resolved.graph, finished, moved);
        exported.failure = locked.err();
        Ok(ExportReport::Written(Box::new(exported)))
    }

    /// Into whatever takes bytes in their order.
    pub(super) async fn stream(&self, name: &Path, outlet: &OneOutlet, resolved: Resolved<'_>) -> Result<ExportReport> {
        let options = self.options();
        let pass = self.pass(&resolved, &options);
        let total = pass.length()?;
        if self.request.dry_run {
            return self.plan_pass(&resolved, total, false);
        }
        self.report_length(name, total);
        let outlet = outlet.take().ok_or_else(|| Error::input(format!("{} was written already", name.display())))?;
        let streamed = pass.write(Boxed(outlet)).await;
        let Streamed { identity, size } = streamed.map_err(|error| self.unfinished(error))?;
        let finished = Finished { path: PathBuf::from(name), identity, size, unchanged: false };
        let locked = self.write_lock(&resolved.contents.lock);
        let moved = moved(&resolved.contents);
        let mut exported = self.exported(&resolved.contents.lock, resolved.graph, finished, moved);
        exported.failure = locked.err();
        Ok(ExportReport::Written(Box::new(exported)))
    }

    fn pass<'p>(&'p self, resolved: &'p Resolved<'_>, options: &'p Options) -> Stream<'p> {
        let Resolved { contents, graph, source, .. } = resolved;
        let (jobs, events) = (self.request.registry.jobs, &self.environment.events);
        Stream { contents, options, graph, source: *source, jobs, events }
    }

    fn report_length(&self, path: &Path, total: u64) {
        let text = format!("{}: {} in all", path.display(), bytes(total));
        self.environment.events.report(Event::Status(text));
    }

    fn plan_pass(&self, resolved: &Resolved<'_>, total: u64, up_to_date: bool) -> Result<ExportReport> {
        let identity = resolved.contents.identity()?;
        let planned = Planned { identity, total, survey: None, up_to_date, volumes: None };
        Ok(self.plan(&resolved.contents.lock, resolved.graph, planned))
    }

    /// What has gone out names the image; nothing can be taken back.
    fn unfinished(&self, error: Error) -> Error {
        match self.request.resolve.keep_going && MissingReason::of(&error).is_some() {
            true => error.while_doing(
                "one pass cannot leave an image out any more: the output ends without its end mark, unfinished",
            ),
            false => error,
        }
    }

    /// The file, if it is already what is wanted, with the signature that is wanted: it cannot be added.
    fn up_to_date(&self, path: &Path, contents: &Contents, key: Option<&PrivateKey>) -> Option<Finished> {
        let finished = Writer::up_to_date(path, contents, self.proof());
        let is_signed = |key: &PrivateKey| {
            let layout = Layout::open(path);
            layout.and_then(|layout| check_signature(&layout, std::slice::from_ref(key.public()))).is_ok()
        };
        finished.filter(|_| key.is_none_or(is_signed))
    }
}

/// Every blob of the bundle.
fn moved(contents: &Contents) -> u64 {
    contents.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add)
}

struct Boxed(Box<dyn Outlet>);

impl Outlet for Boxed {
    fn begin(&mut self, kind: Kind) -> Result<()> {
        self.0.begin(kind)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write(bytes)
    }

    fn finish(&mut self) -> Result<()> {
        self.0.finish()
    }
}
