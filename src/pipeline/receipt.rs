//! The receipt of a push: what arrived where, as a basis for the connected side and for the records.
//!
//! An inventory has the same form. It lists what a target has, no matter who pushed it.
//!
//! # Threats
//! A receipt comes back over the gap and may say anything at any length. Its size is limited, and what an increment
//! leaves out because of it is asked for at the target before anything is pushed: a false receipt costs a journey,
//! never an image. A manifest in it must match its digest, or the receipt is invalid. The platforms of an image are
//! believed, and nothing depends on them: such an image is not carried.

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

/// Maximum size of a receipt in bytes: space for a million digests and their images.
pub const MAX_RECEIPT: u64 = MOST_MEMORY;
/// Memory of a confirmed digest in bytes.
const MEMORY_OF_DIGEST: u64 = 72;
/// Memory of a kept manifest in bytes, besides its text.
const MEMORY_OF_KEPT: u64 = 512;

/// See the module documentation. The order of the fields is that in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    pub version: u32,
    #[serde(default, skip_serializing_if = "ReceiptKind::is_receipt")]
    pub kind: ReceiptKind,
    /// The identity of the bundle: the digest of its `bundle.json`. `None` if the images did not come from a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest>,
    /// When that bundle was made. Later bundles have later times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// `HOST[:PORT][/PREFIX]`, as in the request.
    pub target: String,
    /// When the push ended.
    pub finished: Timestamp,
    /// Images that were pushed or should have been, then those that the source could not deliver.
    pub images: Vec<ImageReceipt>,
    /// Images that the bundle lacks although its allowlist names them, as in its lock. This push did not bring them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingImage>,
    /// Digests of blobs and manifests that the target has now, because they arrived or existed already. None of images
    /// that are incomplete there.
    pub confirmed: BTreeSet<Digest>,
    /// What was deleted afterwards, or should have been.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pruned: Vec<PrunedReceipt>,
    /// Volumes of the bundle that are still needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<u32>,
    /// Confirmed manifests, so that the next export need not read them again. Any of them may be left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<ConfirmedManifest>,
}

/// How it was made.
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

/// The result for one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageReceipt {
    /// Where it came from, as a reference if it can be one.
    pub source: String,
    /// Where it went, or should have gone. `None` if the source could not deliver it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// `None` if it is unknown because its tag does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    pub outcome: ImageOutcome,
    /// It was not pushed now, and an earlier receipt of this side says that gapferry pushed it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brought: bool,
    /// What its tag meant at the target before, if that was replaced. If its own tag is that of a list that others may
    /// add to, as in [`CompanionReceipt::found`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Digest>,
    /// As in [`CompanionReceipt::joined`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<Digest>,
    /// Its platforms, if it is at the target and its index does not state them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// Its companions, if it is at the target. For an image that failed, those that are there anyway. Receipts of older
    /// versions have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub companions: Vec<CompanionReceipt>,
    /// As in the lock: there may be more companions than its bundle brought.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attached_unknown: bool,
    /// Whether all of it was read back and is right. `None` if that was not requested, or it is not at the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<bool>,
    /// The reason, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The result for one companion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompanionReceipt {
    pub kind: companion::Kind,
    /// As at the source.
    pub digest: Digest,
    /// The manifest that it refers to.
    pub subject: Digest,
    /// The tag under which it is found. Without one, it is found as a referrer of `subject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    pub outcome: CompanionOutcome,
    /// As in [`ImageReceipt::brought`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brought: bool,
    /// What the tag meant at the target before, if that was replaced or joined, or what it still means, if that is not
    /// `digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Digest>,
    /// What the tag means at the target now, if that is not `digest`: a list with the signatures of both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<Digest>,
}

/// The result for a tag that is no longer wanted, or a companion whose subject is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunedReceipt {
    /// The tag, or for a companion without one its digest.
    pub reference: Reference,
    /// What it meant.
    pub digest: Digest,
    /// The manifest that it referred to, if it is a companion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    pub outcome: PrunedOutcome,
}

/// What was done with something that is no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrunedOutcome {
    Deleted,
    /// It would be deleted: nothing is deleted unless that is requested.
    Listed,
    /// The registry did not delete it.
    Left,
}

/// The result for a companion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompanionOutcome {
    Pushed,
    /// It existed, or the list of signatures there contains all of it.
    Present,
    /// The signatures of both sides are in one list now.
    Joined,
    /// The tag means something else there and was left alone.
    Skipped,
    /// It was left alone because the existing content can be neither joined nor replaced. For a referrer, the list of
    /// its subject was left alone.
    Failed,
}

/// The result for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageOutcome {
    Pushed,
    Present,
    Skipped,
    Failed,
    /// Its tag is set when the remaining volumes arrive.
    Waiting,
}

impl ImageReceipt {
    /// The result for an image, without the fields that few of them have.
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

    /// An image that was requested and that its source cannot deliver.
    pub fn lost(source: String, digest: Option<Digest>, error: String) -> ImageReceipt {
        ImageReceipt { error: Some(error), ..ImageReceipt::new(source, digest, ImageOutcome::Failed) }
    }

    /// What its tag means in the end. For a list that others add to, that is not always `digest`.
    pub fn meant(&self) -> Option<Digest> {
        self.joined.or(self.found.filter(|_| self.outcome == ImageOutcome::Present)).or(self.digest)
    }
}

impl CompanionReceipt {
    /// Whether gapferry has pushed it, in that run or in an earlier one.
    pub fn is_brought(&self) -> bool {
        self.brought || matches!(self.outcome, CompanionOutcome::Pushed | CompanionOutcome::Joined)
    }

    /// What its tag means in the end, or its digest if it has no tag. `None` if something else has its tag.
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
            // A list that may have been incomplete lacked nothing that is here.
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

    /// Parses a receipt; `shown` is its name in errors.
    ///
    /// # Errors
    /// As for [`Document::read`], or a manifest in it does not match its digest.
    pub fn parse(bytes: &[u8], shown: &str) -> Result<Receipt> {
        Receipt::read(bytes, shown)
    }

    /// Returns the text of [`Document::to_file`], without `manifests` if the file would be too large with them: the
    /// next export then asks the source for them.
    ///
    /// # Errors
    /// It is larger than a receipt that can be read, even without manifests (`Input`).
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

/// How much a receipt contains.
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
                "{} images with {} confirmed digests and {} manifests are too many for a receipt or an inventory; \
                 make one for fewer images",
                images.number, confirmed.number, manifests.number
            )),
        }
    }
}

/// Returns the path of a receipt's signature.
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

    /// A receipt comes back over the gap: a forged one must not take all the memory of the machine that reads it.
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

    /// `prove`, `--arrived` and the next export must be able to read what an import writes today.
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

    /// A bundle that brings only what the last one brought must not count as complete because a list of tags may have
    /// been incomplete.
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
