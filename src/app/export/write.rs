//! From a graph and its source to a bundle that has its name, wherever the images come from.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::app::signed::add_signature;
use crate::base::blocking::blocking;
use crate::base::error::{Error, Result};
use crate::base::fsops::WriteLock;
use crate::base::progress::units::bytes;
use crate::base::progress::{Event, Events};
use crate::bundle::preflight::{self, Whole};
use crate::bundle::{FileSet, Finished, Options, Writer};
use crate::content::Source;
use crate::oci::Digest;
use crate::pipeline::graph::Graph;
use crate::pipeline::plan::{Inventory, OnExisting, Plan};
use crate::pipeline::transfer::{self, Transfer};
use crate::signing::{PrivateKey, PublicKey};

/// What errors call it.
pub const WRITING: &str = "writing the bundle";

/// A bundle to write.
pub struct WriteRequest<'a> {
    pub output: &'a Path,
    /// Of `graph`.
    pub files: FileSet,
    pub options: Options,
    pub graph: &'a Graph,
    pub source: &'a dyn Source,
    /// Blobs at a time.
    pub jobs: usize,
    /// Takes the blobs that could not be fetched.
    pub lost: &'a LostBlobs,
}

/// Blobs that could not be fetched, and why.
#[derive(Default)]
pub struct LostBlobs(Mutex<HashMap<Digest, Error>>);

impl LostBlobs {
    fn set(&self, blobs: HashMap<Digest, Error>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = blobs;
    }

    /// What was lost since the last call.
    pub fn take(&self) -> HashMap<Digest, Error> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A bundle that was written.
pub struct WrittenBundle {
    pub finished: Finished,
    /// Bytes of blobs that were read and written.
    pub moved: u64,
    /// Blobs that were linked instead.
    pub linked: u64,
    /// Held, so that no other run writes before recovery volumes are made of this one. `None`: nothing was written.
    pub lock: Option<Arc<WriteLock>>,
    /// The numbers of the volumes that were there already, the same.
    pub unchanged_volumes: BTreeSet<u32>,
}

/// A bundle in one piece. It is there, whatever became of its signature.
pub struct WrittenWhole {
    pub finished: Finished,
    /// Bytes of blobs that were read and written.
    pub moved: u64,
    /// Blobs that were linked instead.
    pub linked: u64,
    /// Whose signature it has.
    pub signed: Result<Option<PublicKey>>,
}

/// Writes a directory or a tar, unless it is there already, and gives it the signature that it may lack. Nothing holds the output
/// afterwards.
///
/// # Errors
/// As [`write`].
pub async fn write_whole(request: WriteRequest<'_>, key: Option<&PrivateKey>, events: &Events) -> Result<WrittenWhole> {
    let (finished, moved, linked) =
        match preflight::up_to_date(request.output, request.files.identity, Whole::Proven(events)) {
            Some(finished) => (finished, 0, 0),
            None => {
                let WrittenBundle { finished, moved, linked, .. } = write(request, events).await?;
                (finished, moved, linked)
            }
        };
    let signed = add_signature(&finished, key, events);
    Ok(WrittenWhole { finished, moved, linked, signed })
}

/// Fetches what is missing and seals the bundle.
///
/// # Errors
/// Every blob that failed, or what the disk says; what is done stays for the next run.
pub async fn write(request: WriteRequest<'_>, events: &Events) -> Result<WrittenBundle> {
    let survey = preflight::survey(request.output, &request.files, &request.options)?;
    events.report(Event::Status(format!(
        "{}: {} in all, takes {} more, {} free",
        request.output.display(),
        bytes(survey.total),
        bytes(survey.needed),
        bytes(survey.free),
    )));
    let (out, files, options) = (request.output.to_owned(), request.files, request.options);
    let own = events.clone();
    let create = move || Writer::create(&out, files, options, own);
    let writer = blocking(WRITING, create).await?;
    let options = transfer::Options { jobs: request.jobs, fail_fast: false };
    let moved = {
        let plan = plan_for(request.graph, &writer);
        let transfer = Transfer::new(request.source, &writer, options, events.clone());
        let ended = transfer.blobs(&plan).await;
        let failures = transfer.failures();
        if !failures.is_empty() {
            request.lost.set(failures.iter().cloned().collect());
        }
        let failures = failures.into_iter().map(|(blob, error)| of_image(request.graph, &blob, error)).collect();
        transfer::refuse_failed(ended, failures)?;
        transfer.moved()
    };
    let (linked, lock) = (writer.linked(), Some(writer.lock()));
    let unchanged_volumes = writer.whole_volumes().clone();
    let finished = blocking(WRITING, move || writer.finish()).await?;
    Ok(WrittenBundle { finished, moved, linked, lock, unchanged_volumes })
}

/// The error with an image that needs the blob: what the operator asked for says more than a digest.
fn of_image(graph: &Graph, blob: &Digest, error: Error) -> Error {
    let mut needing = graph.images.iter().filter(|image| image.blobs.iter().any(|needed| needed.digest == *blob));
    let Some(first) = needing.next() else { return error };
    let more = needing.count();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    error.while_doing(format!("image {}{more}", graph.shown(&first.locked.reference)))
}

fn plan_for(graph: &Graph, writer: &Writer) -> Plan {
    let targets = graph.images.iter().map(|image| image.locked.reference.clone()).collect();
    let held = graph.images.iter().flat_map(|image| {
        let repository = &image.locked.reference.repository;
        let held = image.blobs.iter().filter(|blob| writer.holds(&blob.digest));
        held.map(|blob| (repository.clone(), blob.digest))
    });
    let inventory = Inventory { blobs: held.collect(), ..Inventory::default() };
    Plan::new(graph, &targets, &inventory, OnExisting::Overwrite)
}
