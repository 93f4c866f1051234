//! Blobs that their source keeps as files: the directory form takes another name of the file, or shares its bytes, where it
//! can. What is taken is hashed in its place before it counts; the file is the source's too, and is never written to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::place::Place;
use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::{Linkable, Linked};
use crate::base::progress::{Event, Events};
use crate::content::chunks::Chunks;
use crate::content::{LinkMode, Origin, Reasons, Slice, why_not_linked};
use crate::oci::{Described, Descriptor};

/// How blobs come without being copied, and how many have.
pub struct Links {
    mode: LinkMode,
    events: Events,
    reasons: Reasons,
    linked: AtomicU64,
}

/// A blob in the hands of its source.
struct Offered {
    file: Option<Linkable>,
    /// For sharing its bytes.
    bytes: Option<Slice>,
}

impl Links {
    pub fn new(mode: LinkMode, events: Events) -> Links {
        Links { mode, reasons: Reasons::new(events.clone()), events, linked: AtomicU64::new(0) }
    }

    /// Blobs that take no room of their own.
    pub fn linked(&self) -> u64 {
        self.linked.load(Ordering::Relaxed)
    }

    /// `None`: it has to be copied.
    ///
    /// # Errors
    /// The source's or the disk's, wrong bytes, or no link where nothing else will do.
    pub async fn bring(
        &self,
        place: &Arc<dyn Place>,
        blob: &Descriptor,
        origin: &Origin<'_>,
    ) -> Result<Option<Chunks>> {
        let (hard, reflink) = match self.mode {
            LinkMode::Auto => (true, true),
            LinkMode::Hard => (true, false),
            LinkMode::Reflink => (false, true),
            LinkMode::Copy => return Ok(None),
        };
        let Some(files) = origin.source.files() else { return Ok(None) };
        let file = if hard { files.linkable(origin.repository, &blob.digest)? } else { None };
        let bytes = if reflink { Some(files.file(origin.repository, &blob.digest)?) } else { None };
        let (place, wanted, events) = (place.clone(), blob.clone(), self.events.clone());
        let offered = Offered { file, bytes };
        let task = tokio::task::spawn_blocking(move || take(&*place, &wanted, &offered, &events));
        match task.await.map_err(|e| Error::new(Kind::Interrupted, "linking").because(e))?? {
            Ok(chunks) => {
                self.linked.fetch_add(1, Ordering::Relaxed);
                Ok(Some(chunks))
            }
            Err(why) if self.mode == LinkMode::Auto => {
                self.reasons.tell(why, "these are copied");
                Ok(None)
            }
            Err(why) => Err(Error::new(Kind::Disk, format!("blob {} cannot be linked: {why}", blob.digest))),
        }
    }
}

/// Takes the file, or its bytes, and proves them; else says why that is not possible.
fn take(
    place: &dyn Place,
    blob: &Descriptor,
    offered: &Offered,
    events: &Events,
) -> Result<std::result::Result<Chunks, &'static str>> {
    let mut why = "it is in a tar";
    let mut is_there = false;
    if let Some(file) = &offered.file {
        match place.link(&blob.digest, file)? {
            Linked::Done => is_there = true,
            Linked::Refused(errno) => why = why_not_linked(errno),
            Linked::Changed => return Err(file.changed()),
        }
    }
    if !is_there && let Some(bytes) = &offered.bytes {
        match place.reflink(&blob.digest, bytes)? {
            true => is_there = true,
            false if offered.file.is_none() => why = "the file system cannot share the bytes of files",
            false => {}
        }
    }
    if !is_there {
        return Ok(Err(why));
    }
    let Described { digest, size, .. } = **blob;
    events.report(Event::BlobStarted { digest, size, present: 0 });
    let proven = place.prove(blob, &|bytes| events.report(Event::BlobAdvanced { digest, bytes }));
    events.report(Event::BlobFinished { digest });
    proven.map(Ok)
}
