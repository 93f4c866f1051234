//! How a run ends that wrote directories, a bundle or a storage: its exit code and, where asked for, the same JSON document for
//! all three.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::collect::Collected;
use super::entry::{faulty, known, merged};
use super::faults;
use crate::base::error::Result;
use crate::bundle::Finished;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;

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
                merged(document, json!({ "identity": identity, "bytes": size, "unchanged": unchanged }))
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
        merged(known(found), more)
    });
    let faulty = faulty(collected)
        .into_iter()
        .map(|faulty| merged(faulty.known(), json!({ "state": "failed", "reasons": faulty.reasons })));
    whole.chain(faulty).collect()
}
