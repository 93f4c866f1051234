//! The receipt of a push: what arrived where, for the connected side to build on and for the records.
//!
//! An inventory has the same form: what a target was found to have, whoever brought it.
//!
//! # Threats
//! A receipt comes back over the gap and may say anything at any length. It is bounded, and what an increment leaves out because
//! of it is asked for at the target before anything is pushed: a false one costs a journey, never an image.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::oci::{Digest, Reference, has_at_most_values};
use crate::plan::Plan;
use crate::transfer::{Done, Outcome, confirmed};

/// The version of the receipt's JSON.
pub const RECEIPT_VERSION: u32 = 1;
/// The largest receipt that is read, in bytes: room for a million digests and their images.
pub const MAX_RECEIPT: u64 = 256 * 1024 * 1024;
/// The most values in one.
const MOST_VALUES: usize = 8_000_000;

/// See the module documentation. Field order is the order in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    pub version: u32,
    #[serde(default, skip_serializing_if = "ReceiptKind::is_receipt")]
    pub kind: ReceiptKind,
    /// The bundle's identity: the digest of its `bundle.json`. `None`: the images did not come from a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest>,
    /// When that bundle was made: what comes later has a later time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// `HOST[:PORT][/PREFIX]`, as it was given.
    pub target: String,
    pub finished: Timestamp,
    /// Those that were pushed or should have been, then those that the source could not give.
    pub images: Vec<ImageReceipt>,
    /// Digests of blobs and manifests that are at the target now, because they arrived or were there already; of images that
    /// are not there as a whole, none.
    pub confirmed: BTreeSet<Digest>,
    /// Volumes of the bundle that are still wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<u32>,
}

/// How it came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptKind {
    /// Something was pushed.
    #[default]
    Receipt,
    /// The target was asked what it has.
    Inventory,
}

impl ReceiptKind {
    fn is_receipt(&self) -> bool {
        *self == ReceiptKind::Receipt
    }
}

/// What became of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageReceipt {
    /// Where it came from, a reference if it can be one.
    pub source: String,
    /// Where it went, or should have gone. `None`: the source could not give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// `None`: nobody knows, since its tag means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    pub outcome: ImageOutcome,
    /// Why, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageOutcome {
    Pushed,
    Present,
    Skipped,
    Failed,
    /// Its tag comes with volumes that are still to come.
    Waiting,
}

impl ImageReceipt {
    /// Of an image that was wanted, and that its source cannot give.
    pub fn lost(source: String, digest: Option<Digest>, error: String) -> ImageReceipt {
        ImageReceipt { source, reference: None, digest, outcome: ImageOutcome::Failed, error: Some(error) }
    }
}

impl Receipt {
    pub fn new(
        (bundle, created): (Option<Digest>, Option<Timestamp>),
        target: &str,
        graph: &Graph,
        plan: &Plan,
        outcome: &Outcome,
        finished: Timestamp,
    ) -> Receipt {
        let images = graph.images.iter().zip(&plan.images).zip(&outcome.images).map(|((image, step), result)| {
            let (outcome, error) = match result {
                Ok(Done::Pushed) => (ImageOutcome::Pushed, None),
                Ok(Done::Present) => (ImageOutcome::Present, None),
                Ok(Done::Skipped) => (ImageOutcome::Skipped, None),
                Ok(Done::Waiting) => (ImageOutcome::Waiting, None),
                Err(error) => (ImageOutcome::Failed, Some(error.chain())),
            };
            let (source, reference) = (image.locked.reference.to_string(), Some(step.to.clone()));
            ImageReceipt { source, reference, digest: Some(image.locked.digest), outcome, error }
        });
        Receipt {
            version: RECEIPT_VERSION,
            kind: ReceiptKind::Receipt,
            bundle,
            created,
            target: target.to_owned(),
            finished,
            images: images.collect(),
            confirmed: confirmed(graph, outcome).into_iter().collect(),
            wanted: Vec::new(),
        }
    }

    /// Reads one; `shown` is what errors call the file.
    ///
    /// # Errors
    /// It is none, of another version, or longer than any ([`MAX_RECEIPT`]) (`Input`).
    pub fn parse(bytes: &[u8], shown: &str) -> Result<Receipt> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        if bytes.len() as u64 > MAX_RECEIPT || !has_at_most_values(bytes, MOST_VALUES) {
            return Err(Error::input(format!("reading {shown}: it is longer than any receipt")));
        }
        let fail = |e: serde_json::Error| Error::input(format!("reading the receipt {shown}")).because(e);
        let Version { version } = serde_json::from_slice(bytes).map_err(fail)?;
        if version != RECEIPT_VERSION {
            let text = format!("reading the receipt {shown}: version {version}; this program reads {RECEIPT_VERSION}");
            return Err(Error::input(text));
        }
        serde_json::from_slice(bytes).map_err(fail)
    }

    /// The file's content: indented JSON and a final newline.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
