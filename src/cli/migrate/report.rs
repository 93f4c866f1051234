//! How a run ends that wrote directories, a bundle or a storage: its exit code and, where asked for, the same JSON document for
//! all three.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::collect::Collected;
use super::{faults, list};
use crate::base::error::Result;
use crate::bundle::Finished;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::oci::Manifest;
use crate::transport::storage::Tagged;

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

/// Every image that was wanted, and what became of it: first those that were whole.
fn images(fates: Vec<Fate>, collected: &Collected) -> Vec<Value> {
    let whole = collected.whole().zip(fates).map(|((found, image), fate)| {
        let size = image.total_size();
        let more = match fate {
            Fate::Written => json!({ "size": size, "state": "written" }),
            Fate::Present => json!({ "size": size, "state": "present" }),
            Fate::Failed(reason) => json!({ "size": size, "state": "failed", "reasons": [reason] }),
        };
        list::merged(list::known(found), more)
    });
    let faulty = faulty(collected).into_iter().map(|faulty| {
        let known = faulty.known();
        list::merged(known, json!({ "state": "failed", "reasons": faulty.reasons }))
    });
    whole.chain(faulty).collect()
}

/// An image that cannot be carried.
pub struct Faulty<'a> {
    pub name: String,
    /// `None`: its faults are all that is known of it.
    pub found: Option<&'a Tagged>,
    pub reasons: Vec<String>,
}

impl Faulty<'_> {
    /// What is known of it without its manifest.
    pub fn known(&self) -> Value {
        let by_name = || match self.name.rsplit_once(':') {
            Some((repository, tag)) if !repository.contains('@') => {
                json!({ "name": self.name, "repository": repository, "tag": tag })
            }
            _ => json!({ "name": self.name }),
        };
        self.found.map_or_else(by_name, list::known)
    }

    /// Its manifest, where that could be read.
    pub fn manifest<'c>(&self, collected: &'c Collected) -> Option<&'c Manifest> {
        collected.broken.get(&self.found?.digest)
    }
}

/// Every image that was wanted and is not whole.
pub fn faulty(collected: &Collected) -> Vec<Faulty<'_>> {
    let mut reasons = faults::reasons(&collected.faults);
    let mut of = |name: String, found| Faulty { reasons: reasons.remove(&*name).unwrap_or_default(), name, found };
    let faulty = collected.images.iter().filter(|(_, image)| image.is_none());
    let mut all: Vec<Faulty> = faulty.map(|(found, _)| of(found.name(), Some(found))).collect();
    all.extend(collected.lost_names().into_iter().map(|name| of(name.to_owned(), None)));
    all
}
