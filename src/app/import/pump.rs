//! Reads a stream while its contents are pushed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::NOTHING;
use crate::app::stream::StreamReader;
use crate::base::error::{Error, Result};
use crate::bundle::{Ending, StreamBuffer, StreamSource, StreamedBundle};
use crate::content::Source;
use crate::oci::{Descriptor, Digest, media_type};
use crate::pipeline::graph::Graph;
use crate::pipeline::plan::Plan;
use crate::pipeline::transfer::Arrivals;

/// Reads the pipe on a thread of its own once the plan is known.
pub struct Pump {
    path: PathBuf,
    incoming: Mutex<Option<StreamedBundle<StreamReader>>>,
    buffer: Arc<StreamBuffer>,
    ending: Mutex<Option<oneshot::Receiver<Ending>>>,
    /// Blobs that had not arrived when reading paused.
    awaited: HashSet<Digest>,
}

impl Pump {
    pub fn new(path: &Path, mut incoming: StreamedBundle<StreamReader>) -> Pump {
        let (buffer, ending, awaited) = (Arc::default(), Mutex::default(), incoming.take_awaited());
        Pump { path: path.to_owned(), incoming: Mutex::new(Some(incoming)), buffer, ending, awaited }
    }

    /// Returns a source of the blobs that have arrived, and of `rest`.
    pub fn arrived<'a>(&self, rest: &'a dyn Source) -> StreamSource<'a> {
        StreamSource { buffer: self.buffer.clone(), rest }
    }

    /// Checks that everything an allowlist needs has arrived: the configs of images contain their platforms.
    ///
    /// # Errors
    /// A config comes after other blobs.
    pub fn check(&self, graph: &Graph) -> Result<()> {
        let manifests = graph.images.iter().flat_map(|image| &image.manifests);
        let mut configs = manifests.filter_map(|manifest| manifest.config());
        let is_late = |config: &&Descriptor| {
            media_type::is_image_config(&config.media_type) && self.awaited.contains(&config.digest)
        };
        let Some(late) = configs.find(is_late) else { return Ok(()) };
        let (path, late) = (self.path.display(), late.digest);
        let text = format!("{NOTHING}: {path}: the config {late} comes after other blobs, or is not a config");
        Err(Error::damaged(format!("{text}; save the bundle to a file and import the file")))
    }

    /// Reads the rest of the stream. `None` if nothing was read.
    pub async fn ending(&self) -> Option<Ending> {
        self.buffer.close();
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let died = |_| Ending { problems: vec!["the stream was not read to its end".to_owned()], ..Ending::default() };
        Some(ending.await.unwrap_or_else(died))
    }
}

impl Arrivals for Pump {
    fn of<'p>(&'p self, plan: &'p Plan) -> BoxStream<'p, (Digest, Result<()>)> {
        let (came, coming) = mpsc::unbounded_channel();
        let wanted: HashSet<Digest> = plan.blobs.iter().map(|step| step.blob.digest).collect();
        if let Some(incoming) = self.incoming.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let (end, ending) = oneshot::channel();
            *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
            let buffer = self.buffer.clone();
            // The thread may wait for the sender, which must not keep the program from ending.
            std::thread::spawn(move || {
                let _ = end.send(incoming.read(wanted, &buffer, &came));
            });
        }
        stream::unfold(coming, |mut coming| async move { Some((coming.recv().await?, coming)) }).boxed()
    }

    fn done_with(&self, digest: &Digest) {
        self.buffer.forget(digest);
    }
}
