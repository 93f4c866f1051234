//! How a run ends that wrote directories, a bundle or a storage: its exit code and, where asked for, the same JSON document for
//! all three.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::collect::Collected;
use super::{faults, list};
use crate::bundle::Finished;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::error::Result;
use crate::graph::Image;

/// What was asked for.
pub struct Asked<'a> {
    /// As it was given.
    pub storage: &'a Path,
    /// Where the images go.
    pub to: &'a Path,
    /// Whether the document is wanted.
    pub json: bool,
    pub started: Instant,
}

/// What became of an image that was whole in the storage.
pub enum Fate {
    Written,
    /// It was there already.
    Present,
    /// With the reason.
    Failed(String),
}

/// What a run came to.
#[derive(Default)]
pub struct Ended {
    /// Those of [`Collected::whole`], in its order.
    pub fates: Vec<Fate>,
    /// Blobs that are links.
    pub linked: u64,
    /// Bytes of blobs that were written.
    pub copied: u64,
    /// If it is a bundle.
    pub bundle: Option<Finished>,
}

impl Ended {
    /// How many images did not get there, for whatever reason.
    pub fn failed(&self, collected: &Collected) -> usize {
        collected.failed() + self.fates.iter().filter(|fate| matches!(fate, Fate::Failed(_))).count()
    }

    /// Prints the document if it is wanted.
    ///
    /// # Errors
    /// Standard output's.
    pub fn finish(self, collected: &Collected, asked: &Asked<'_>, context: &Context) -> Result<Outcome> {
        let failed = self.failed(collected);
        if asked.json {
            context.print_json(&self.document(collected, asked))?;
        }
        Ok(if failed > 0 { Outcome::SomeImagesFailed } else { Outcome::Done })
    }

    fn document(self, collected: &Collected, asked: &Asked<'_>) -> Value {
        let failed = self.failed(collected);
        let written = self.fates.iter().filter(|fate| matches!(fate, Fate::Written)).count();
        let present = self.fates.iter().filter(|fate| matches!(fate, Fate::Present)).count();
        let document = json!({
            "storage": asked.storage, "output": asked.to, "images": images(self.fates, collected),
            "written": written, "present": present, "failed": failed,
            "blobsLinked": self.linked, "bytesCopied": self.copied,
            "faults": collected.faults, "counts": faults::counts(&collected.faults),
            "seconds": asked.started.elapsed().as_secs_f64(),
        });
        match self.bundle {
            Some(Finished { identity, size, unchanged, .. }) => {
                list::merged(document, json!({ "identity": identity, "bytes": size, "unchanged": unchanged }))
            }
            None => document,
        }
    }
}

/// Every image that was wanted, and what became of it.
fn images(fates: Vec<Fate>, collected: &Collected) -> Vec<Value> {
    let mut reasons = faults::reasons(&collected.faults);
    let mut reasons_of = |name: &str| reasons.remove(name).unwrap_or_default();
    let mut fates = fates.into_iter();
    let mut images = Vec::with_capacity(collected.images.len());
    for (found, image) in &collected.images {
        let fate = image.as_ref().and_then(|_| fates.next());
        let size = image.as_ref().map(Image::total_size);
        let more = match fate {
            Some(Fate::Written) => json!({ "size": size, "state": "written" }),
            Some(Fate::Present) => json!({ "size": size, "state": "present" }),
            Some(Fate::Failed(reason)) => json!({ "size": size, "state": "failed", "reasons": [reason] }),
            None => json!({ "state": "failed", "reasons": reasons_of(&found.name()) }),
        };
        images.push(list::merged(list::known(found), more));
    }
    let lost = collected.lost_names().into_iter();
    images.extend(lost.map(|name| json!({ "name": name, "state": "failed", "reasons": reasons_of(name) })));
    images
}
