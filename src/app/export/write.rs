//! Writes a bundle from a graph and its source, whatever the source is.

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

/// The attempted action in error messages.
pub const WRITING: &str = "writing the bundle";

/// A bundle to write.
pub struct WriteRequest<'a> {
    pub output: &'a Path,
    /// The files of the bundle that `graph` describes.
    pub files: FileSet,
    pub options: Options,
    pub graph: &'a Graph,
    pub source: &'a dyn Source,
    /// Number of blobs to transfer at the same time.
    pub jobs: usize,
    /// Receives the blobs that could not be fetched.
    pub lost: &'a LostBlobs,
}

/// Blobs that could not be fetched, and the reason.
#[derive(Default)]
pub struct LostBlobs(Mutex<HashMap<Digest, Error>>);

impl LostBlobs {
    fn set(&self, blobs: HashMap<Digest, Error>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = blobs;
    }

    /// Returns the blobs lost since the last call.
    pub fn take(&self) -> HashMap<Digest, Error> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A bundle that was written.
pub struct WrittenBundle {
    pub finished: Finished,
    /// Bytes of blobs that were read and written.
    pub moved: u64,
    /// Number of blobs that were linked instead of copied.
    pub linked: u64,
    /// Held so that no other run writes before the recovery volumes are computed. `None` if nothing was written.
    pub lock: Option<Arc<WriteLock>>,
    /// Numbers of the volumes that already existed unchanged.
    pub unchanged_volumes: BTreeSet<u32>,
}

/// A bundle in one piece. It exists even if it could not be signed.
pub struct WrittenWhole {
    pub finished: Finished,
    /// Bytes of blobs that were read and written.
    pub moved: u64,
    /// Number of blobs that were linked instead of copied.
    pub linked: u64,
    /// The key that signed the bundle, or why it could not be signed.
    pub signed: Result<Option<PublicKey>>,
}

/// Writes a directory or a tar unless it already exists, and adds its signature if that is missing. The output is not
/// locked afterwards.
///
/// # Errors
/// As for [`write`].
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

/// Fetches missing blobs and finishes the bundle.
///
/// # Errors
/// Lists every blob that failed, or is an error of the disk. What is done stays for the next run.
pub async fn write(request: WriteRequest<'_>, events: &Events) -> Result<WrittenBundle> {
    let survey = preflight::survey(request.output, &request.files, &request.options)?;
    events.report(Event::Status(format!(
        "{}: {} in total, {} still to write, {} free",
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

/// Adds the name of an image that needs the blob: users know the image, but not the digest.
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
