//! The receipt of a push: what arrived where, for the connected side to build on and for the records.
//!
//! An inventory has the same form. It lists what a target has, no matter who pushed it.
//!
//! # Threats
//! A receipt comes back over the gap and may say anything at any length. It is bounded, and what an increment leaves out because
//! of it is asked for at the target before anything is pushed: a false one costs a journey, never an image. A manifest in it is
//! what its digest says, or the receipt is invalid. What platforms an image is for is believed, and nothing depends on it: such an
//! image is not carried.

mod brought;
mod kept;
mod made;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::document::{Document, Outline};
use crate::base::error::{Kind, Result};
use crate::oci::{Amount, Count, Digest, MOST_MEMORY, Platform, Reference, Repository, Tag, Totals, fits_in_memory};
use crate::pipeline::companion;
use crate::pipeline::lock::{Attached, Lock, MissingImage, MissingReason};
pub use brought::Brought;
pub use kept::{ConfirmedManifest, kept};
pub use made::{FromBundle, companions_found, kind_of, platforms};

/// The largest receipt that is read, in bytes: room for a million digests and their images.
pub const MAX_RECEIPT: u64 = MOST_MEMORY;
/// Bytes that a confirmed digest takes.
const MEMORY_OF_DIGEST: u64 = 72;
/// Bytes that a manifest takes that is kept, beside its text.
const MEMORY_OF_KEPT: u64 = 512;

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
    /// When it was finished.
    pub finished: Timestamp,
    /// Those that were pushed or should have been, then those that the source could not give.
    pub images: Vec<ImageReceipt>,
    /// Images that the bundle lacks although its allowlist names them, as in its lock: this push brought nothing of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingImage>,
    /// Digests of blobs and manifests that are at the target now, because they arrived or were there already; of images that
    /// are not there as a whole, none.
    pub confirmed: BTreeSet<Digest>,
    /// What was deleted afterwards, or should have been.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pruned: Vec<PrunedReceipt>,
    /// Volumes of the bundle that are still wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<u32>,
    /// Confirmed manifests, so that the next export need not read them again. May lack any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<ConfirmedManifest>,
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
    /// `None`: unknown, because its tag means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    pub outcome: ImageOutcome,
    /// It was not pushed, and an earlier receipt of this side says that gapferry pushed it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brought: bool,
    /// What its tag meant at the target before and was replaced. Where its own tag is one of a list to which others may add, as in
    /// [`CompanionReceipt::found`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Digest>,
    /// As in [`CompanionReceipt::joined`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<Digest>,
    /// What it is for, where it is at the target and its index does not say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// What accompanies it, where it is at the target; of an image that failed, what is there all the same. Receipts of older versions
    /// have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub companions: Vec<CompanionReceipt>,
    /// As in the lock: more may be attached to it than its bundle brought.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attached_unknown: bool,
    /// Whether everything of it was read back and is right. `None`: that was not asked for, or it is not at the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<bool>,
    /// Why, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of one companion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompanionReceipt {
    pub kind: companion::Kind,
    /// As the source has it.
    pub digest: Digest,
    /// What it speaks of.
    pub subject: Digest,
    /// The tag it is found by; without one it is found as a referrer of `subject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    pub outcome: CompanionOutcome,
    /// As in [`ImageReceipt::brought`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brought: bool,
    /// What the tag meant at the target before and was replaced or joined, or means there still, where that is not `digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Digest>,
    /// What the tag means at the target now, where that is not `digest`: a list of the signatures of both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<Digest>,
}

/// What became of a tag that was not wanted any more, or of a companion whose subject is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunedReceipt {
    /// The tag; of a companion without one its digest.
    pub reference: Reference,
    /// What it meant.
    pub digest: Digest,
    /// What it spoke of, if it is a companion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    pub outcome: PrunedOutcome,
}

/// What became of what is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrunedOutcome {
    Deleted,
    /// It would be: nothing is deleted without being asked for.
    Listed,
    /// The registry did not delete it.
    Left,
}

/// What became of a companion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompanionOutcome {
    Pushed,
    /// It was there, or the list of signatures there has all that it has.
    Present,
    /// The signatures of both sides are in one list now.
    Joined,
    /// The tag means something else there and was left alone.
    Skipped,
    /// The same, because what is there can neither be joined nor replaced. Of a referrer: the list of its subject was left alone.
    Failed,
}

/// What became of an image.
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
    /// What became of an image, without what few of them have.
    pub fn new(source: String, digest: Option<Digest>, outcome: ImageOutcome) -> ImageReceipt {
        let (reference, found, joined, proven, error) = Default::default();
        let (brought, platforms, companions, attached_unknown) = Default::default();
        ImageReceipt {
            source,
            reference,
            digest,
            outcome,
            brought,
            found,
            joined,
            platforms,
            companions,
            attached_unknown,
            proven,
            error,
        }
    }

    /// Of an image that was wanted, and that its source cannot give.
    pub fn lost(source: String, digest: Option<Digest>, error: String) -> ImageReceipt {
        ImageReceipt { error: Some(error), ..ImageReceipt::new(source, digest, ImageOutcome::Failed) }
    }

    /// What its tag was left to mean: of a list to which others add, not always `digest`.
    pub fn meant(&self) -> Option<Digest> {
        self.joined.or(self.found.filter(|_| self.outcome == ImageOutcome::Present)).or(self.digest)
    }
}

impl CompanionReceipt {
    /// Whether gapferry has pushed it, in that run or in an earlier one.
    pub fn is_brought(&self) -> bool {
        self.brought || matches!(self.outcome, CompanionOutcome::Pushed | CompanionOutcome::Joined)
    }

    /// What its tag was left to mean, or its digest where it has none. `None`: something else has its tag.
    pub fn meant(&self) -> Option<Digest> {
        match self.outcome {
            CompanionOutcome::Pushed => Some(self.digest),
            CompanionOutcome::Present => self.found.or(Some(self.digest)),
            CompanionOutcome::Joined => self.joined.or(Some(self.digest)),
            CompanionOutcome::Skipped | CompanionOutcome::Failed => None,
        }
    }
}

impl Receipt {
    /// Whether a bundle of `lock` brings something that the bundle of this receipt should have brought and lacked.
    pub fn is_completed_by(&self, lock: &Lock) -> bool {
        let incomplete = self.images.iter().filter(|image| image.attached_unknown);
        let incomplete: HashMap<&str, &ImageReceipt> = incomplete.map(|image| (&*image.source, image)).collect();
        let known: HashSet<&str> = self.images.iter().map(|image| &*image.source).collect();
        let mut missing: HashMap<&Repository, Vec<&MissingImage>> = HashMap::new();
        self.missing.iter().for_each(|one| missing.entry(&one.reference.repository).or_default().push(one));
        lock.images.iter().any(|image| {
            let in_repository = || missing.get(&image.reference.repository).into_iter().flatten();
            let source = image.reference.to_string();
            // A list that may have been short lacked nothing that is here.
            let is_lacking = |missing: &MissingImage| {
                missing.reason != MissingReason::TagsIncomplete || !known.contains(source.as_str())
            };
            let was_missing = || in_repository().any(|missing| missing.covers(&image.reference) && is_lacking(missing));
            incomplete.get(&*source).map_or_else(was_missing, |known_image| {
                let is_new = |own: &Attached| known_image.companions.iter().all(|known| known.digest != own.digest);
                !image.attached_unknown || image.companions().iter().any(is_new)
            })
        })
    }

    /// Reads one; `shown` is what errors call the file.
    ///
    /// # Errors
    /// As [`Document::read`]; a manifest in it is not what its digest says.
    pub fn parse(bytes: &[u8], shown: &str) -> Result<Receipt> {
        Receipt::read(bytes, shown)
    }

    /// What [`Document::to_file`] gives, without `manifests` if the file is too large with them: the next export then asks the
    /// source for them.
    ///
    /// # Errors
    /// It holds more than a receipt that is read, even without manifests (`Input`).
    pub fn to_file_that_fits(&self) -> Result<String> {
        self.to_file_that_fits_in(MAX_RECEIPT)
    }

    fn to_file_that_fits_in(&self, most: u64) -> Result<String> {
        let whole = self.to_file_within(most);
        whole.or_else(|_| Receipt { manifests: Vec::new(), ..self.clone() }.to_file_within(most))
    }
}

impl Document for Receipt {
    const NAME: &'static str = "the receipt";
    const VERSION_KEY: &'static str = "version";
    const VERSION: u32 = 1;
    const MAX_BYTES: u64 = MAX_RECEIPT;
    const MAX_VALUES: usize = 8_000_000;
    const KIND: Kind = Kind::Input;
    const TOO_LARGE: &'static str = "import fewer images at once";
    type Outline = ReceiptOutline;
}

/// How much a receipt holds.
#[derive(Deserialize)]
pub struct ReceiptOutline {
    images: Totals<OutlinedImage>,
    #[serde(default)]
    missing: Count,
    confirmed: Count,
    #[serde(default)]
    pruned: Count,
    #[serde(default)]
    manifests: Count,
}

#[derive(Deserialize)]
struct OutlinedImage {
    #[serde(default)]
    platforms: Count,
    #[serde(default)]
    companions: Count,
}

impl Amount for OutlinedImage {
    fn amount(&self) -> u64 {
        self.platforms.memory::<Platform>() + self.companions.memory::<CompanionReceipt>()
    }
}

impl Outline for ReceiptOutline {
    fn check(&self, texts: u64) -> std::result::Result<(), String> {
        let ReceiptOutline { images, missing, confirmed, pruned, manifests } = self;
        let lists = [
            images.memory::<ImageReceipt>(),
            missing.memory::<MissingImage>(),
            pruned.memory::<PrunedReceipt>(),
            confirmed.number as u64 * MEMORY_OF_DIGEST,
            manifests.number as u64 * MEMORY_OF_KEPT,
        ];
        match fits_in_memory(texts, &lists) {
            true => Ok(()),
            false => Err(format!(
                "{} images with {} confirmed digests and {} manifests are more than a receipt or an inventory holds; make one for \
                 fewer images",
                images.number, confirmed.number, manifests.number
            )),
        }
    }
}

/// Where the signature of a receipt stands.
pub fn signature_beside(receipt: &Path) -> PathBuf {
    let mut beside = receipt.as_os_str().to_owned();
    beside.push(".sig");
    beside.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Manifest, media_type};

    fn totals<T>(number: usize, amount: u64) -> Totals<T> {
        let mut totals = Totals::default();
        (totals.number, totals.amount) = (number, amount);
        totals
    }

    /// It comes back over the gap: a forged one must not cost the machine that reads it all its memory.
    #[test]
    fn a_receipt_that_would_take_too_much_memory_is_refused_before_it_is_read() {
        let check = |images, nested, confirmed, length| {
            let (images, confirmed) = (totals(images, nested), totals(confirmed, 0));
            let (missing, pruned, manifests) = Default::default();
            ReceiptOutline { images, missing, confirmed, pruned, manifests }.check(length)
        };
        let mib = 1 << 20;
        assert_eq!(check(5_000, 2 * mib, 150_000, 30 * mib), Ok(()));
        assert_eq!(check(5_000, 0, 1_000_000, 80 * mib), Ok(()), "as many files as a bundle may have");
        assert_eq!(check(80_000, 0, 400_000, 60 * mib), Ok(()), "a large registry");
        let message = check(2_600_000, 0, 0, 90 * mib).unwrap_err();
        assert!(message.contains("2600000 images with 0"), "{message}");
        let message = check(5_000, 0, 2_000_000, 150 * mib).unwrap_err();
        assert!(message.contains("5000 images with 2000000 confirmed digests"), "{message}");
        assert!(check(5_000, 100 * mib, 0, 150 * mib).is_err());
        let json = format!(r#"{{"images":[],"confirmed":[],"manifests":[{}1]}}"#, "1,".repeat(400_000));
        let outline: ReceiptOutline = serde_json::from_str(&json).unwrap();
        assert!(outline.check(json.len() as u64).unwrap_err().contains("400001 manifests"));
    }

    #[test]
    fn what_is_nested_in_the_images_of_a_receipt_is_counted() {
        let json = r#"{"images":[{"source":"a","platforms":[1,2],"companions":[{"x":[]}]},{}],"confirmed":["a","b"]}"#;
        let outline: ReceiptOutline = serde_json::from_str(json).unwrap();
        assert_eq!((outline.images.number, outline.confirmed.number), (2, 2));
        let nested = 2 * size_of::<Platform>() + size_of::<CompanionReceipt>();
        assert_eq!(outline.images.amount, nested as u64);
    }

    /// `prove`, `--arrived` and the next export have to read what an import of today writes.
    #[test]
    fn a_receipt_that_could_not_be_read_again_lacks_its_manifests_or_is_not_written() {
        let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX);
        let kept = ConfirmedManifest(Manifest::parse(manifest.into(), None, None).unwrap());
        let json = r#"{"version":1,"target":"h/x","finished":"2026-01-01T00:00:00Z","images":[],"confirmed":[]}"#;
        let plain = Receipt::parse(json.as_bytes(), "r.json").unwrap();
        let receipt = Receipt { manifests: vec![kept], ..plain.clone() };
        let (whole, least) = (receipt.to_json(), plain.to_json());
        assert_eq!(receipt.to_file_that_fits().unwrap(), whole);
        assert_eq!(receipt.to_file_that_fits_in(whole.len() as u64 - 1).unwrap(), least);
        assert_eq!(receipt.to_file_that_fits_in(least.len() as u64).unwrap(), least);
        let message = receipt.to_file_that_fits_in(least.len() as u64 - 1).unwrap_err().to_string();
        assert!(message.contains("writing the receipt: it has") && message.contains("fewer images"), "{message}");
    }

    /// A list of tags that may have been short makes no bundle complete again that brings only what the last one brought.
    #[test]
    fn a_list_of_tags_that_may_be_short_lacked_only_images_that_did_not_arrive() {
        let digest = Digest::sha256(b"image");
        let receipt = |reason: &str| {
            let json = format!(
                r#"{{"version":1,"target":"h/x","finished":"2026-01-01T00:00:00Z","confirmed":[],
                    "images":[{{"source":"r.io/team/app:1","digest":"{digest}","outcome":"pushed"}}],
                    "missing":[{{"reference":"r.io/team/app","reason":"{reason}"}}]}}"#
            );
            Receipt::parse(json.as_bytes(), "r.json").unwrap()
        };
        let lock = |tag: &str| {
            let json = format!(
                r#"{{"version":1,"created":"2026-01-01T00:00:00Z","images":[{{"reference":"r.io/team/app:{tag}",
                    "source":"r.io","digest":"{digest}","mediaType":"m","size":1,"totalSize":1}}]}}"#
            );
            Lock::parse(json.as_bytes(), "l.json").unwrap()
        };
        let is_completed = |reason: &str, tag: &str| receipt(reason).is_completed_by(&lock(tag));
        assert!(!is_completed("tags-incomplete", "1"), "it arrived");
        assert!(is_completed("tags-incomplete", "2"), "a tag that the list did not have");
        assert!(is_completed("not-found", "1"), "the repository could not be read: anything of it may be new");
    }
}
