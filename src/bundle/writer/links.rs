//! Blobs that are files at their source: the directory form hard-links the file or shares its bytes, if possible. The result
//! is hashed in its place before it counts; the file belongs to the source too, and is never written to.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::{Linkable, Linked};
use crate::base::progress::Events;
use crate::bundle::output::{Linking, WantedBlob};
use crate::content::chunks::Chunks;
use crate::content::{LinkMode, Origin, Reasons, Slice, why_not_linked};
use crate::oci::Descriptor;

/// How blobs are placed without copying, and how many have been.
pub struct Links {
    mode: LinkMode,
    /// Where to report why a blob is copied after all; `None` if that does not matter.
    reasons: Option<Reasons>,
    linked: AtomicU64,
}

/// A blob as its source offers it.
#[derive(Default)]
pub struct Offered {
    /// To hard-link it.
    pub file: Option<Linkable>,
    /// To share its bytes.
    pub bytes: Option<Slice>,
}

impl Links {
    pub fn new(mode: LinkMode, events: Events) -> Links {
        Links { mode, reasons: Some(Reasons::new(events)), linked: AtomicU64::new(0) }
    }

    /// Whether a blob that cannot be linked is an error.
    pub fn is_demanded(&self) -> bool {
        matches!(self.mode, LinkMode::Hard | LinkMode::Reflink)
    }

    /// Blobs are copied.
    pub fn copying() -> Links {
        Links { mode: LinkMode::Copy, reasons: None, linked: AtomicU64::new(0) }
    }

    /// For a bundle that is about to be replaced: what cannot be linked is copied, without a report.
    pub fn of_former() -> Links {
        Links { mode: LinkMode::Auto, reasons: None, linked: AtomicU64::new(0) }
    }

    /// Number of blobs that take no space of their own.
    pub fn linked(&self) -> u64 {
        self.linked.load(Ordering::Relaxed)
    }

    /// Whether a blob may be a hard link.
    pub fn takes_names(&self) -> bool {
        matches!(self.mode, LinkMode::Auto | LinkMode::Hard)
    }

    /// Whether a blob may share the bytes of a file.
    pub fn shares_bytes(&self) -> bool {
        matches!(self.mode, LinkMode::Auto | LinkMode::Reflink)
    }

    /// What `origin` offers of a blob; `None` if no file of it can or should be linked.
    ///
    /// # Errors
    /// The source fails.
    pub fn offered(&self, blob: &Descriptor, origin: &Origin<'_>) -> Result<Option<Offered>> {
        let Some(files) = origin.source.files().filter(|_| self.mode != LinkMode::Copy) else { return Ok(None) };
        let repository = origin.repository;
        let file = if self.takes_names() { files.linkable(repository, &blob.digest)? } else { None };
        let bytes = if self.shares_bytes() { Some(files.file(repository, &blob.digest)?) } else { None };
        Ok(Some(Offered { file, bytes }))
    }

    /// Takes the file or its bytes, and proves them in their place. Returns `None` if the blob must be copied.
    ///
    /// # Errors
    /// The disk fails, the bytes are wrong (`Damaged`), or a link is required and impossible.
    pub fn take(
        &self,
        place: &dyn Linking,
        blob: WantedBlob,
        offered: &Offered,
        progress: &dyn Fn(u64),
    ) -> Result<Option<Chunks>> {
        if self.mode == LinkMode::Copy {
            return Ok(None);
        }
        match link(place, blob, offered)? {
            None => {
                let chunks = place.prove_linked(blob, progress)?;
                self.linked.fetch_add(1, Ordering::Relaxed);
                Ok(Some(chunks))
            }
            Some(why) if self.mode == LinkMode::Auto => {
                self.reasons.iter().for_each(|reasons| reasons.report(why, "they are copied"));
                Ok(None)
            }
            Some(why) => Err(Error::new(Kind::Disk, format!("blob {} cannot be linked: {why}", blob.digest))),
        }
    }
}

/// Links the file or shares its bytes. Returns the reason if that is not possible.
fn link(place: &dyn Linking, blob: WantedBlob, offered: &Offered) -> Result<Option<&'static str>> {
    let mut why = "it is in a tar";
    if let Some(file) = &offered.file {
        match place.link(&blob.digest, file)? {
            Linked::Done => return Ok(None),
            Linked::Refused(errno) => why = why_not_linked(errno),
            Linked::Changed => return Err(file.changed()),
        }
    }
    if let Some(bytes) = &offered.bytes {
        match place.reflink(&blob.digest, bytes)? {
            true => return Ok(None),
            false if offered.file.is_none() => why = "the file system cannot share data between files",
            false => {}
        }
    }
    Ok(Some(why))
}
