//! Writes the images of a storage as a bundle, in the same way as an export.

use std::collections::HashSet;

use super::Migration;
use super::collect::{Collected, collect};
use super::inside::refuse_inside;
use super::report::{Ended, MigrateOutcome};
use super::request::BundleOutput;
use crate::app::environment::BundleTime;
use crate::app::export::{self, LostBlobs, WrittenWhole};
use crate::app::output::Output;
use crate::app::read_back::read_back;
use crate::app::signed::warn_if_unsigned;
use crate::base::document::Document;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::bundle::preflight;
use crate::bundle::{Bundle, Contents, FileSet, Form, Options, Writer, is_tar};
use crate::content::{Files, LinkMode};
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::Lock;
use crate::transport::storage::{AuditDepth, Storage};

impl BundleOutput {
    /// Checks the output before the storage is read.
    ///
    /// # Errors
    /// Another file is in the way, another run writes the output, the output is inside the storage, or it cannot contain
    /// links.
    pub(super) fn check(&self, storage: &Storage) -> Result<()> {
        if matches!(self.link, LinkMode::Hard | LinkMode::Reflink) && is_tar(&self.path) {
            return Err(Error::input("a tar cannot contain links: omit --link, or name a directory"));
        }
        refuse_inside(storage, &self.path)?;
        preflight::refuse_one_pass(&self.path, &Form::named(&self.path))?;
        self.output().check_free()
    }

    fn output(&self) -> Output {
        Output::Path(self.path.clone())
    }
}

impl Migration<'_> {
    /// Writes every complete image of `collected`. Blobs are proven while they are linked or copied. If one of them is
    /// wrong, the digests of the whole storage are checked to find every damaged image, and the other images are written.
    ///
    /// # Errors
    /// An error of the disk, or there is nothing to write.
    pub(super) async fn to_bundle(&self, collected: &mut Collected, output: &BundleOutput) -> Result<Ended> {
        let events = &self.environment.events;
        let out = output.output();
        let was_signed = out.former()?.as_ref().is_some_and(Bundle::has_signature);
        let mut tried = self.attempt(collected, output).await;
        if let Err(error) = &tried
            && matches!(error.kind(), Kind::Damaged | Kind::Disk)
            && !error.first().unwrap_or(error).is_disk_full()
            && !self.request.strict
        {
            let again = collect(self.storage, &self.of(AuditDepth::Digest), events)?;
            if whole(&again) != whole(collected) {
                let text = "The storage is damaged. Every byte was checked, and the complete images are written.";
                events.report(Event::Status(text.to_owned()));
                *collected = again;
                tried = self.attempt(collected, output).await;
                let is_unchanged =
                    |done: &Option<WrittenWhole>| done.as_ref().is_some_and(|done| done.finished.unchanged);
                if tried.as_ref().is_ok_and(is_unchanged) {
                    Writer::abandon(&output.path)?;
                }
            }
        }
        let WrittenWhole { finished, moved, linked, signed } = match tried {
            Ok(Some(written)) => written,
            Ok(None) => return Ok(Ended::default()),
            Err(error) => return Ok(Ended { failure: Some(error), ..Ended::default() }),
        };
        if output.read_back
            && let Err(error) = read_back([finished.path.clone()], finished.identity, events).await
        {
            return Ok(Ended { failure: Some(error), ..Ended::default() });
        }
        let (signed_by, failure) = match signed {
            Ok(signed_by) => (signed_by, None),
            Err(error) => (None, Some(error)),
        };
        warn_if_unsigned(was_signed, &out, events);
        let outcome = || if finished.unchanged { MigrateOutcome::Present } else { MigrateOutcome::Written };
        let outcomes = collected.whole().map(|_| outcome()).collect();
        Ok(Ended { outcomes, linked, copied: moved, bundle: Some(finished), signed_by, failure, ..Ended::default() })
    }

    /// `None` if no image can be written.
    async fn attempt(&self, collected: &Collected, output: &BundleOutput) -> Result<Option<WrittenWhole>> {
        let BundleOutput { path, link, sign_key, tools, .. } = output;
        let images: Vec<_> = collected.whole().map(|(_, image)| image.clone()).collect();
        if images.is_empty() {
            let is_empty = collected.images.is_empty() && collected.lost() == 0;
            let nothing = Error::input(format!("{} has no images", self.storage.shown("").display()));
            return if is_empty { Err(nothing) } else { Ok(None) };
        }
        let BundleTime { time: created, is_prescribed } = self.environment.bundle_time()?;
        let locked = images.iter().map(|image| image.locked.clone()).collect();
        let lock = Lock { version: Lock::VERSION, created, load_platform: None, images: locked, missing: Vec::new() };
        let graph = Graph { images, ..Graph::default() };
        let mut contents = Contents::new(lock, &graph)?.carrying(tools.clone());
        if !is_prescribed {
            contents = contents.continuing(output.output().former()?.as_ref().map(Bundle::former))?;
        }
        let events = &self.environment.events;
        let files = FileSet::new(&contents, sign_key.clone())?;
        let job = export::WriteRequest {
            output: path,
            files,
            options: Options { link: *link, device: self.storage.device(), ..Options::copying(Form::named(path)) },
            graph: &graph,
            source: self.storage,
            jobs: self.request.jobs,
            lost: &LostBlobs::default(),
        };
        export::write_whole(job, sign_key.as_deref(), events).await.map(Some)
    }
}

/// The names of the images that can be written.
fn whole(collected: &Collected) -> HashSet<String> {
    collected.whole().map(|(found, _)| found.name()).collect()
}
