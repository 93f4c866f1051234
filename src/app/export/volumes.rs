//! Exports directly to volumes.

use std::path::Path;
use std::sync::Arc;

use super::job::{ExportJob, Planned, Resolved};
use super::report::{ExportReport, ExportedVolume, ExportedVolumes, PlannedVolume, PlannedVolumes};
use super::write::{WRITING, WriteRequest, WrittenBundle, write};
use crate::base::blocking::blocking;
use crate::base::error::{Error, Result};
use crate::base::fsops::WriteLock;
use crate::bundle::volumes::{RecoveryOf, Set, Shape, VolumeOptions, VolumePlan, WrittenVolume, write_recovery};
use crate::bundle::{Finished, Form, Options, plan_volumes, preflight};
use crate::pipeline::lock::Lock;

impl ExportJob<'_> {
    /// Checks that a single volume still fits its set: each volume repeats the lock and all manifests. `given` is the lock
    /// of the set, `followed` the lock after the registries were asked.
    ///
    /// # Errors
    /// The images or companions differ, so the volume would belong to another set.
    pub(super) fn check_same_set(&self, given: &Lock, followed: &Lock) -> Result<()> {
        match self.request.output.only_volume() {
            Some(_) if given != followed => Err(Error::input(
                "--only-volume writes a volume of an existing set, and every volume repeats the images and companions of its \
                 lock: with others it would be a volume of another set; write all volumes, without --only-volume",
            )),
            _ => Ok(()),
        }
    }

    /// Writes the volumes, unless they already exist.
    pub(super) async fn volumes(
        &self,
        path: &Path,
        volumes: &VolumeOptions,
        resolved: Resolved<'_>,
    ) -> Result<ExportReport> {
        let Resolved { contents, graph, source, lost } = resolved;
        let events = &self.environment.events;
        let images = contents.lock.clone();
        let mut files = self.files(&contents)?;
        let set = plan_volumes::prepare(path, &mut files, volumes)?;
        let there = plan_volumes::up_to_date(&set, &files, volumes, !self.request.dry_run, events);
        let options = Options::copying(Form::Volumes(volumes.clone()));
        let of = set.plan.volumes.len();
        let wanted: Vec<&VolumePlan> = set.wanted(&volumes.selection).collect();
        if self.request.dry_run {
            let survey = preflight::survey(path, &files, &options)?;
            let recovery = volumes.shape.recovery;
            let volumes = wanted.iter().map(|volume| PlannedVolume::new(&set, volume)).collect();
            let volumes = Some(PlannedVolumes { volumes, of, recovery_count: recovery });
            let (identity, total, up_to_date) = (set.identity, survey.total, there.is_some());
            let planned = Planned { identity, total, survey: Some(survey), up_to_date, volumes };
            return Ok(self.plan(&images, graph, planned));
        }
        let (finished, moved, unchanged, lock) = match there {
            Some(finished) => (finished, 0, wanted.iter().map(|volume| volume.number).collect(), None),
            None => {
                let jobs = self.request.registry.jobs;
                let job = WriteRequest { output: path, files, options, graph, source, jobs, lost };
                let WrittenBundle { finished, moved, unchanged_volumes, lock, .. } = write(job, events).await?;
                (finished, moved, unchanged_volumes, lock)
            }
        };
        let recovery = self.recover(&set, volumes, &finished, images.created, lock).await?;
        let locked = self.write_lock(&images);
        let paths = wanted.iter().map(|volume| set.path_of(volume));
        let paths = paths.chain(recovery.iter().map(|volume| volume.path.clone()));
        self.read_back(paths.collect(), finished.identity, &locked).await?;
        let recovery = recovery.iter().map(ExportedVolume::from).collect();
        let mut exported = self.exported(&images, graph, finished, moved);
        exported.output = path.to_owned();
        let volumes = wanted.iter().map(|volume| ExportedVolume::new(&set, volume, &unchanged)).collect();
        exported.volumes = Some(ExportedVolumes { volumes, of, recovery });
        exported.signed_by = self.signer();
        exported.failure = locked.err();
        Ok(ExportReport::Written(Box::new(exported)))
    }

    /// Writes the recovery volumes of existing volumes. A `lock` held by this run stays held.
    async fn recover(
        &self,
        set: &Set,
        volumes: &VolumeOptions,
        finished: &Finished,
        created: jiff::Timestamp,
        lock: Option<Arc<WriteLock>>,
    ) -> Result<Vec<WrittenVolume>> {
        let Shape { limit, recovery } = volumes.shape;
        if recovery == 0 || !volumes.selection.is_all() {
            return Ok(Vec::new());
        }
        let number = u32::try_from(set.plan.volumes.len()).unwrap_or(u32::MAX);
        let of = RecoveryOf { identity: finished.identity, created, limit, volumes: number, recovery };
        let (name, unchanged, events) = (set.name.clone(), finished.unchanged, self.environment.events.clone());
        blocking(WRITING, move || write_recovery(&name, &of, lock, unchanged, &events)).await
    }
}
