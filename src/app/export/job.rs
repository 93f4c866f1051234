//! A running export.

use std::path::PathBuf;
use std::time::Instant;

use super::keep_going::{BrokenContent, May};
use super::loaders::report_loaders;
use super::report::{
    ExportPlan, ExportReport, Exported, PlannedVolumes, blob_bytes, listed, read_from, saved_by_sharing,
};
use super::request::{ExportRequest, Images};
use super::write::{LostBlobs, WriteRequest, WrittenWhole, write_whole};
use crate::app::environment::Environment;
use crate::app::local::write_file;
use crate::app::outcome::{Outcome, REPORT_VERSION};
use crate::app::output::Output;
use crate::app::read_back::read_back;
use crate::app::resolve::{Resolver, WrittenLock};
use crate::app::since;
use crate::base::document::Document;
use crate::base::error::Result;
use crate::base::progress::Event;
use crate::bundle::preflight::{self, Whole};
use crate::bundle::{Bundle, Contents, FileSet, Finished, Form, FormerBundle, Options, SpaceNeeds, Tool};
use crate::content::{Cached, Checkpoint, Source};
use crate::increment::Baseline;
use crate::oci::Digest;
use crate::pipeline::allowlist::Allowlist;
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::Lock;
use crate::pipeline::walk::{LockedCompanions, Referrers};
use crate::signing::{FingerprintWords, PublicKey};
use crate::transport::registry::Registries;

/// The images to export.
pub enum ExportedImages {
    Listed(Allowlist),
    Locked { lock: Box<WrittenLock>, companions: LockedCompanions },
}

/// Existing content that the export builds on.
pub struct ExportBasis {
    pub since: Option<Baseline>,
    pub tools: Vec<Tool>,
    /// The bundle to be replaced.
    pub former: Option<Bundle>,
}

/// See the module documentation.
pub struct ExportJob<'a> {
    pub request: &'a ExportRequest,
    pub registries: &'a Registries,
    pub environment: &'a Environment,
    /// Start of the command.
    pub started: Instant,
}

/// What an export reads from.
struct From<'a> {
    source: &'a dyn Source,
    baseline: Option<&'a Baseline>,
    tools: &'a [Tool],
    /// The bundle to be replaced.
    former: Option<FormerBundle>,
    lost: &'a LostBlobs,
}

/// The resolved contents, and where their blobs are.
pub struct Resolved<'a> {
    pub contents: Contents,
    pub graph: &'a Graph,
    pub source: &'a dyn Source,
    pub lost: &'a LostBlobs,
}

/// A bundle that would be written.
pub struct Planned {
    pub identity: Digest,
    /// Size of the bundle in bytes.
    pub total: u64,
    /// `None` if the bundle is written in one pass.
    pub survey: Option<SpaceNeeds>,
    /// Whether the bundle already exists.
    pub up_to_date: bool,
    pub volumes: Option<PlannedVolumes>,
}

impl ExportJob<'_> {
    /// Runs the export.
    ///
    /// # Errors
    /// As for [`export`](super::export).
    pub async fn run(&self, wanted: ExportedImages, given: ExportBasis, kept: &Checkpoint<'_>) -> Result<ExportReport> {
        let ExportBasis { since: mut baseline, tools, former } = given;
        let replaced = former.as_ref().map(Bundle::former);
        let (former_lock, former_layout) = former.map(Bundle::into_lock_and_layout).unzip();
        let platforms = baseline.as_ref().map(Baseline::platforms).unwrap_or_default();
        let modes = baseline.as_mut().map(Baseline::take_modes).unwrap_or_default();
        let local = baseline.as_mut().map(Baseline::take_at_hand).unwrap_or_default();
        let source = Cached::new(kept, former_layout.map(|layout| Box::new(layout) as Box<dyn Source>));
        let mut source = source.with_local(local);
        let resolver = self.resolver();
        let (mut prescribed, mut promised, is_locked) =
            (Vec::new(), 0, matches!(wanted, ExportedImages::Locked { .. }));
        let (mut lock, mut graph) = match wanted {
            ExportedImages::Locked { lock, companions } => {
                let given = lock.lock.clone();
                prescribed.clone_from(&given.missing);
                if companions == LockedCompanions::Locked {
                    promised = companions_in(&given);
                }
                let followed = resolver.follow(*lock, companions, &source).await?;
                self.check_same_set(&given, &followed.0)?;
                followed
            }
            ExportedImages::Listed(list) => {
                let earlier = resolver.earlier(self.request.lock.as_deref(), former_lock, modes)?;
                resolver.resolve(&list, earlier.with_platforms(platforms), &source).await?
            }
        };
        source.forget_local();
        resolver.refuse_empty(&lock)?;
        let lost = LostBlobs::default();
        let may = self.may_leave_out(is_locked);
        let events = &self.environment.events;
        if may.images {
            BrokenContent::of_sizes(&graph, &source).await?.leave_out(&mut lock, &mut graph, may, events)?;
        }
        let (baseline, tools) = (baseline.as_ref(), &tools[..]);
        let from = From { source: &source, baseline, tools, former: replaced, lost: &lost };
        loop {
            let kept = (may.images || may.companions && companions_in(&lock) > 0).then(|| graph.clone());
            let error = match self.produce(&lock, graph, &from, is_locked).await {
                Ok(mut report) => {
                    let missing = lock.missing.get(prescribed.len()..).unwrap_or_default();
                    report.conclude(match companions_in(&lock) < promised {
                        true => Outcome::SomeImagesFailed,
                        false => resolver.outcome(missing),
                    });
                    return Ok(report);
                }
                Err(error) => error,
            };
            graph = kept.ok_or(error.clone())?;
            let lost = BrokenContent::of_lost(lost.take());
            // If nothing could be left out, the error of the transfer gives the reason.
            if !lost.leave_out(&mut lock, &mut graph, may, events).unwrap_or_default() {
                return Err(error);
            }
        }
    }

    fn resolver(&self) -> Resolver<'_> {
        let ExportRequest { resolve, registry, .. } = self.request;
        Resolver { options: resolve, jobs: registry.jobs, environment: self.environment }
    }

    /// A single volume must fit the set of its lock, so it leaves out nothing. A lock promises every companion that it
    /// lists.
    fn may_leave_out(&self, is_locked: bool) -> May {
        let options = &self.request.resolve;
        let is_one_again = self.request.output.only_volume().is_some();
        let images = options.keep_going && !is_one_again;
        let optional = options.referrers != Referrers::Require && !is_one_again;
        May { images, companions: optional && (images || !is_locked) }
    }

    /// Writes the resolved contents in the requested form.
    async fn produce(&self, lock: &Lock, graph: Graph, from: &From<'_>, is_locked: bool) -> Result<ExportReport> {
        let From { source, lost, .. } = *from;
        if self.request.lock.is_some() {
            // Fails before anything is fetched.
            lock.to_file()?;
        }
        let contents = Contents::new(lock.clone(), &graph)?.carrying(from.tools.to_vec());
        let basis = from.baseline.map(|baseline| baseline.basis(&contents)).unwrap_or_default();
        since::report_basis(&basis, &self.environment.events);
        report_loaders(lock, &self.environment.events);
        let (graph, mut contents) = (basis.left_of(graph), contents.building_on(basis));
        // A prescribed time must be in the bundle. Otherwise, a new time of resolution alone is no reason to write a new
        // bundle.
        if !is_locked && !self.environment.bundle_time()?.is_prescribed {
            contents = contents.continuing(from.former)?;
        }
        let resolved = Resolved { contents, graph: &graph, source, lost };
        match &self.request.output {
            Output::Path(path) if Form::named(path) == Form::Compressed => self.compressed(path, resolved).await,
            Output::Path(path) => self.whole(path, resolved).await,
            Output::Volumes { path, volumes } => self.volumes(path, volumes, resolved).await,
            Output::Stream { name, sink } => self.stream(name, sink, resolved).await,
        }
    }

    /// Writes a directory or a tar.
    async fn whole(&self, path: &std::path::Path, resolved: Resolved<'_>) -> Result<ExportReport> {
        let Resolved { contents, graph, source, lost } = resolved;
        let lock = contents.lock.clone();
        let files = self.files(&contents)?;
        let options = Options::copying(Form::named(path));
        if self.request.dry_run {
            let up_to_date = preflight::up_to_date(path, files.identity, self.proof()).is_some();
            let survey = preflight::survey(path, &files, &options)?;
            let (identity, total) = (files.identity, survey.total);
            let planned = Planned { identity, total, survey: Some(survey), up_to_date, volumes: None };
            return Ok(self.plan(&lock, graph, planned));
        }
        let jobs = self.request.registry.jobs;
        let job = WriteRequest { output: path, files, options, graph, source, jobs, lost };
        let key = self.request.sign_key.as_deref();
        let WrittenWhole { finished, moved, signed, .. } = write_whole(job, key, &self.environment.events).await?;
        let locked = self.write_lock(&lock);
        self.read_back(vec![finished.path.clone()], finished.identity, &locked).await?;
        let mut exported = self.exported(&lock, graph, finished, moved);
        // The bundle exists even if its lock could not be written.
        (exported.signed_by, exported.failure) = match signed {
            Ok(signed_by) => (signed_by, locked.err()),
            Err(error) => (None, Some(error)),
        };
        Ok(ExportReport::Written(Box::new(exported)))
    }

    /// How to check whether an existing output is complete.
    pub(super) fn proof(&self) -> Whole<'_> {
        if self.request.dry_run { Whole::BySizes } else { Whole::Proven(&self.environment.events) }
    }

    /// Returns the files of the bundle, with a signature if one is requested.
    pub(super) fn files(&self, contents: &Contents) -> Result<FileSet> {
        FileSet::new(contents, self.request.sign_key.clone())
    }

    /// The key that signs the bundle while it is written.
    pub(super) fn signer(&self) -> Option<PublicKey> {
        self.request.sign_key.as_ref().map(|key| key.public().clone())
    }

    pub(super) fn write_lock(&self, lock: &Lock) -> Result<()> {
        let Some(path) = &self.request.lock else { return Ok(()) };
        write_file(path, lock.to_file()?.as_bytes())
    }

    /// Reads the output back if that is requested. If it fails, an error in `locked` is reported as well.
    pub(super) async fn read_back(&self, paths: Vec<PathBuf>, identity: Digest, locked: &Result<()>) -> Result<()> {
        let events = &self.environment.events;
        let read = match self.request.read_back {
            true => read_back(paths, identity, events).await,
            false => Ok(()),
        };
        if let (Err(_), Err(error)) = (&read, locked) {
            events.report(Event::Warning(error.chain()));
        }
        read
    }

    pub(super) fn plan(&self, lock: &Lock, graph: &Graph, planned: Planned) -> ExportReport {
        let Planned { identity, total, survey, up_to_date, volumes } = planned;
        let present = survey.as_ref().map_or(0, |survey| survey.present);
        let needed = survey.as_ref().map(|survey| if up_to_date { 0 } else { survey.needed });
        ExportReport::Planned(Box::new(ExportPlan {
            version: REPORT_VERSION,
            ok: true,
            output: self.request.output.path().to_owned(),
            identity,
            fingerprint: FingerprintWords::of(&identity).to_string(),
            identity_is_final: up_to_date || self.has_known_time(),
            created: lock.created,
            up_to_date,
            images: listed(lock, graph),
            missing: lock.missing.clone(),
            bytes: total,
            bytes_to_fetch: if up_to_date { 0 } else { blob_bytes(graph).saturating_sub(present) },
            bytes_saved_by_sharing: saved_by_sharing(graph),
            bytes_needed: needed,
            bytes_free: survey.map(|survey| survey.free),
            left_behind: graph.left_behind.clone(),
            read_from: read_from(lock, self.registries),
            volumes,
            outcome: Outcome::Done,
        }))
    }

    /// Whether every run of this export gives the lock the same time, which is part of the identity.
    fn has_known_time(&self) -> bool {
        matches!(self.request.images, Images::Locked { companions: LockedCompanions::Locked, .. })
            || self.environment.bundle_time().is_ok_and(|time| time.is_prescribed)
    }

    pub(super) fn exported(&self, lock: &Lock, graph: &Graph, finished: Finished, moved: u64) -> Exported {
        Exported {
            version: REPORT_VERSION,
            ok: true,
            output: finished.path,
            identity: finished.identity,
            bytes: finished.size,
            unchanged: finished.unchanged,
            image_count: graph.images.len(),
            missing: lock.missing.clone(),
            bytes_moved: moved,
            bytes_saved_by_sharing: saved_by_sharing(graph),
            left_behind: graph.left_behind.clone(),
            elapsed: self.started.elapsed(),
            mirrors: self.registries.served(),
            volumes: None,
            signed_by: None,
            outcome: Outcome::Done,
            failure: None,
        }
    }
}

/// Returns the number of companions of the images in a lock.
fn companions_in(lock: &Lock) -> usize {
    lock.images.iter().map(|image| image.companions().len()).sum()
}
