//! Exports in one pass: into a pipe, or into a compressed file.

use std::path::{Path, PathBuf};

use super::job::{ExportJob, Planned, Resolved};
use super::report::ExportReport;
use crate::app::output::OneStreamSink;
use crate::app::signed::is_signed;
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::base::progress::units::bytes;
use crate::bundle::{Compressed, StreamWriter, Streamed, places};
use crate::bundle::{Contents, FileSet, Finished, preflight};
use crate::oci::Digest;
use crate::pipeline::lock::MissingReason;

impl ExportJob<'_> {
    /// Writes a compressed file.
    pub(super) async fn compressed(&self, path: &Path, resolved: Resolved<'_>) -> Result<ExportReport> {
        let files = self.files(&resolved.contents)?;
        let pass = self.pass(&resolved, &files);
        let total = pass.length()?;
        let there = self.up_to_date(path, files.identity);
        if self.request.dry_run {
            return self.plan_pass(&resolved, files.identity, total, there.is_some());
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
        self.read_back(vec![finished.path.clone()], finished.identity, &locked).await?;
        let mut exported = self.exported(&resolved.contents.lock, resolved.graph, finished, moved);
        exported.signed_by = self.signer();
        exported.failure = locked.err();
        Ok(ExportReport::Written(Box::new(exported)))
    }

    /// Writes to a sink that accepts bytes only in order.
    pub(super) async fn stream(
        &self,
        name: &Path,
        sink: &OneStreamSink,
        resolved: Resolved<'_>,
    ) -> Result<ExportReport> {
        let files = self.files(&resolved.contents)?;
        let pass = self.pass(&resolved, &files);
        let total = pass.length()?;
        if self.request.dry_run {
            return self.plan_pass(&resolved, files.identity, total, false);
        }
        self.report_length(name, total);
        let sink = sink.take().ok_or_else(|| Error::input(format!("{} was written already", name.display())))?;
        let streamed = pass.write(sink).await;
        let Streamed { identity, size } = streamed.map_err(|error| self.unfinished(error))?;
        let finished = Finished { path: PathBuf::from(name), identity, size, unchanged: false };
        let locked = self.write_lock(&resolved.contents.lock);
        let moved = moved(&resolved.contents);
        let mut exported = self.exported(&resolved.contents.lock, resolved.graph, finished, moved);
        exported.signed_by = self.signer();
        exported.failure = locked.err();
        Ok(ExportReport::Written(Box::new(exported)))
    }

    fn pass<'p>(&'p self, resolved: &'p Resolved<'_>, files: &'p FileSet) -> StreamWriter<'p> {
        let (jobs, events) = (self.request.registry.jobs, &self.environment.events);
        StreamWriter { files, source: resolved.source, places: places(resolved.graph), jobs, events }
    }

    fn report_length(&self, path: &Path, total: u64) {
        let text = format!("{}: {} in total", path.display(), bytes(total));
        self.environment.events.report(Event::Status(text));
    }

    fn plan_pass(
        &self,
        resolved: &Resolved<'_>,
        identity: Digest,
        total: u64,
        up_to_date: bool,
    ) -> Result<ExportReport> {
        let planned = Planned { identity, total, survey: None, up_to_date, volumes: None };
        Ok(self.plan(&resolved.contents.lock, resolved.graph, planned))
    }

    /// Explains an error: the part already written includes the image, and cannot be taken back.
    fn unfinished(&self, error: Error) -> Error {
        match self.request.resolve.keep_going && MissingReason::of(&error).is_some() {
            true => error.while_doing(
                "an export in one pass cannot leave an image out after its start: the output is unfinished and has no end mark",
            ),
            false => error,
        }
    }

    /// Returns the file if it is already what the request wants, including the signature: a compressed file cannot get one
    /// later.
    fn up_to_date(&self, path: &Path, identity: Digest) -> Option<Finished> {
        let finished = preflight::up_to_date(path, identity, self.proof());
        finished.filter(|_| self.request.sign_key.as_ref().is_none_or(|key| is_signed(path, key.public())))
    }
}

/// Returns the size of every blob in the bundle.
fn moved(contents: &Contents) -> u64 {
    contents.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add)
}
