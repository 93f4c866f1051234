//! Imports a bundle whose volumes arrive one by one.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::app::push::SeveralRuns;
use crate::base::error::{Error, Result};
use crate::bundle::Bundle;
use crate::bundle::volumes::{ImportState, Opened, Volume};
use crate::files::Layout;
use crate::oci::Digest;
use crate::pipeline::plan::Plan;
use crate::pipeline::transfer::TransferOutcome;

/// The volumes of this run, and the state of earlier runs.
pub struct VolumeRun<'l> {
    state: RefCell<ImportState>,
    volumes: Vec<Volume>,
    layout: &'l Layout,
    /// Content that no volume contains, because it is expected at the target.
    assumed: BTreeSet<Digest>,
}

/// Checks the state against the volumes that were given.
///
/// # Errors
/// The state belongs to another set, or the input is not a volume.
pub fn bind(state: &mut ImportState, opened: &Opened) -> Result<()> {
    match opened.volumes() {
        Some(volumes) => state.bind(volumes.set),
        None => {
            let path = opened.layout().path().display();
            Err(Error::input(format!("{path} is not a volume: --state only works with a bundle that was split")))
        }
    }
}

impl<'l> VolumeRun<'l> {
    pub fn new(state: ImportState, volumes: Vec<Volume>, bundle: &'l Bundle) -> VolumeRun<'l> {
        let assumed = bundle.json().assumed.iter().map(|assumed| assumed.digest).collect();
        VolumeRun { state: RefCell::new(state), volumes, layout: bundle.layout(), assumed }
    }
}

impl SeveralRuns for VolumeRun<'_> {
    fn is_available(&self, blob: &Digest) -> bool {
        self.assumed.contains(blob) || self.layout.size_of(&blob.blob_path()).is_some()
    }

    fn before_push(&self, plan: &Plan, waiting: &BTreeSet<Digest>) -> Result<()> {
        let pushed: BTreeSet<Digest> = plan.blobs.iter().map(|step| step.blob.digest).collect();
        let mut state = self.state.borrow_mut();
        state.prove_kept(self.layout, &self.volumes, |blob| pushed.contains(blob))?;
        state.store(self.layout, &self.volumes, |blob| waiting.contains(blob))
    }

    fn after_push(&self, waiting: &BTreeSet<Digest>, outcome: &TransferOutcome) -> Result<Vec<u32>> {
        let went_well = outcome.images.iter().all(Result::is_ok);
        let mut state = self.state.borrow_mut();
        state.commit(&self.volumes, went_well, |blob| waiting.contains(blob))?;
        if waiting.is_empty() { Ok(Vec::new()) } else { state.wanted(waiting) }
    }
}
