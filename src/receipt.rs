//! The receipt of a push: what arrived where, for the connected side to build on and for the records.
//!
//! An inventory has the same form: what a target was found to have, whoever brought it.
//!
//! # Threats
//! A receipt comes back over the gap and may say anything at any length. It is bounded, and what an increment leaves out because
//! of it is asked for at the target before anything is pushed: a false one costs a journey, never an image. A manifest in it is
//! what its digest says, or the receipt is none. What platforms an image is for is believed, and nothing depends on it: such an
//! image is not carried.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::companion;
use crate::error::{Error, Result};
use crate::graph::{Graph, Image};
use crate::lock::{Attached, Lock, MissingImage, MissingReason};
use crate::oci::{Digest, Manifest, Platform, Reference, Repository, Tag, has_at_most_values, media_type, values_in};
use crate::plan::{CompanionAction, CompanionStep, ImageStep, Plan, TagState};
use crate::transfer::{Done, Outcome, confirmed};

/// The version of the receipt's JSON.
pub const RECEIPT_VERSION: u32 = 1;
/// The largest receipt that is read, in bytes: room for a million digests and their images.
pub const MAX_RECEIPT: u64 = 256 * 1024 * 1024;
/// The most values in one.
const MOST_VALUES: usize = 8_000_000;
/// Bytes of manifests that one keeps, and values in them: those of some thousand images, which whoever reads it has in memory.
const KEPT_BYTES: usize = 16 * 1024 * 1024;
const KEPT_VALUES: usize = 1_000_000;

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
    pub manifests: Vec<Kept>,
}

/// A manifest as it stands in a receipt: its text, with the digest that proves it.
#[derive(Clone, Debug)]
pub struct Kept(pub Manifest);

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
    /// It was not pushed, and an earlier receipt of this side says that gapferry pushed it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brought: bool,
    /// As in [`CompanionReceipt::found`], where its own tag is one of a list to which others may add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Digest>,
    /// As in [`CompanionReceipt::joined`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<Digest>,
    /// What it is for, where it is at the target and its index does not say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// What accompanies it, where it is at the target. Receipts of older versions have none.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrunedOutcome {
    Deleted,
    /// It would be: nothing is deleted without being asked for.
    Listed,
    /// The registry did not delete it.
    Left,
}

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
    /// The same, because what is there can neither be joined nor replaced.
    Failed,
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

/// What receipts of this side say that gapferry pushed: each name, with what it meant then.
#[derive(Clone, Debug, Default)]
pub struct Brought {
    images: HashSet<(Reference, Digest)>,
    companions: HashSet<(Repository, Option<Tag>, Digest)>,
}

impl Brought {
    /// What a run that only found it there says is no proof: somebody else may have pushed it.
    pub fn add(&mut self, receipt: &Receipt) {
        if receipt.kind == ReceiptKind::Inventory {
            return;
        }
        for image in &receipt.images {
            let Some(reference) = &image.reference else { continue };
            let is_brought = image.brought || image.outcome == ImageOutcome::Pushed;
            self.images.extend(image.digest.filter(|_| is_brought).map(|digest| (reference.clone(), digest)));
            let companions = image.companions.iter().filter(|one| one.is_brought());
            self.companions.extend(companions.map(|one| (reference.repository.clone(), one.tag.clone(), one.digest)));
        }
    }

    pub fn has_image(&self, image: &ImageReceipt) -> bool {
        let name = image.reference.clone().zip(image.digest);
        name.is_some_and(|name| self.images.contains(&name))
    }

    fn has_companion(&self, repository: &Repository, companion: &CompanionReceipt) -> bool {
        self.companions.contains(&(repository.clone(), companion.tag.clone(), companion.digest))
    }

    /// Says of what `receipt` did not push itself that it was pushed before.
    pub fn mark(&self, receipt: &mut Receipt) {
        for image in &mut receipt.images {
            image.brought = image.outcome != ImageOutcome::Pushed && self.has_image(image);
            let Some(reference) = &image.reference else { continue };
            for companion in &mut image.companions {
                let is_other = companion.outcome != CompanionOutcome::Pushed;
                companion.brought = is_other && self.has_companion(&reference.repository, companion);
            }
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
            incomplete.get(&*source).map_or_else(was_missing, |told| {
                let is_new = |own: &Attached| told.companions.iter().all(|known| known.digest != own.digest);
                !image.attached_unknown || image.companions().iter().any(is_new)
            })
        })
    }

    pub fn new(
        (bundle, created): (Option<Digest>, Option<Timestamp>),
        target: &str,
        graph: &Graph,
        plan: &Plan,
        outcome: &Outcome,
        finished: Timestamp,
    ) -> Receipt {
        let done = outcome;
        let images = graph.images.iter().zip(&plan.images).zip(&outcome.images).map(|((image, step), result)| {
            let (outcome, error) = match result {
                Ok(Done::Pushed) => (ImageOutcome::Pushed, None),
                Ok(Done::Present) => (ImageOutcome::Present, None),
                Ok(Done::Skipped) => (ImageOutcome::Skipped, None),
                Ok(Done::Waiting) => (ImageOutcome::Waiting, None),
                Err(error) => (ImageOutcome::Failed, Some(error.chain())),
            };
            let (source, reference) = (image.locked.reference.to_string(), Some(step.to.clone()));
            let (platforms, companions) = match is_there(result) {
                true => (platforms(image), companions(image, step, done)),
                false => Default::default(),
            };
            let own = step.own_list().filter(|_| is_there(result));
            let (found, joined) = own.map_or((None, None), |own| {
                let (_, found, joined) = outcome_of(own, done);
                (found, joined)
            });
            let told = ImageReceipt::new(source, Some(image.locked.digest), outcome);
            let attached_unknown = image.locked.attached_unknown;
            ImageReceipt { reference, found, joined, platforms, companions, attached_unknown, error, ..told }
        });
        let good = graph.images.iter().zip(&outcome.images).filter(|(_, result)| is_there(result));
        Receipt {
            version: RECEIPT_VERSION,
            kind: ReceiptKind::Receipt,
            bundle,
            created,
            target: target.to_owned(),
            finished,
            images: images.collect(),
            missing: Vec::new(),
            confirmed: confirmed(graph, plan, outcome).into_iter().collect(),
            pruned: Vec::new(),
            wanted: Vec::new(),
            manifests: kept(good.flat_map(|(image, _)| &image.manifests)),
        }
    }

    /// Reads one; `shown` is what errors call the file.
    ///
    /// # Errors
    /// It is none, of another version, or longer than any ([`MAX_RECEIPT`]) (`Input`); a manifest in it is not what its digest
    /// says.
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

fn is_there<E>(result: &Result<Done, E>) -> bool {
    matches!(result, Ok(Done::Pushed | Done::Present))
}

/// What became of the companions of an image that is at the target.
fn companions(image: &Image, step: &ImageStep, done: &Outcome) -> Vec<CompanionReceipt> {
    let outcome = |attached: &Attached| {
        let own = |companion: &&CompanionStep| companion.tag.tag == attached.tag && companion.digest == attached.digest;
        let Some(own) = step.companions.iter().find(own) else {
            let is_there = step.present.contains(&attached.digest);
            return (if is_there { CompanionOutcome::Present } else { CompanionOutcome::Pushed }, None, None);
        };
        outcome_of(own, done)
    };
    let receipt = |attached: &Attached| {
        let (outcome, found, joined) = outcome(attached);
        let Attached { digest, subject, tag, .. } = attached.clone();
        let (kind, brought) = (kind_of(image, attached), false);
        CompanionReceipt { kind, digest, subject, tag, outcome, brought, found, joined }
    };
    image.locked.companions().iter().map(receipt).collect()
}

/// What became of a tag; what it meant before, and what it means now, where that is not the bundle's.
fn outcome_of(own: &CompanionStep, done: &Outcome) -> (CompanionOutcome, Option<Digest>, Option<Digest>) {
    let found = match done.state(own) {
        TagState::Other(digest) => Some(digest),
        TagState::New | TagState::Same | TagState::Blocked => None,
    };
    match done.action(own) {
        CompanionAction::Push => (CompanionOutcome::Pushed, found, None),
        CompanionAction::Join { joined, .. } => (CompanionOutcome::Joined, found, Some(*joined)),
        CompanionAction::Skip | CompanionAction::Unreadable { .. } => (CompanionOutcome::Skipped, found, None),
        CompanionAction::Obstructed { .. } => (CompanionOutcome::Failed, found, None),
        CompanionAction::Nothing | CompanionAction::Refuse { .. } => (CompanionOutcome::Present, found, None),
    }
}

/// Of an image that was found at the target, with what accompanies it there.
pub fn companions_found(image: &Image) -> Vec<CompanionReceipt> {
    let receipt = |attached: &Attached| {
        let Attached { digest, subject, tag, .. } = attached.clone();
        let (outcome, found, joined) = (CompanionOutcome::Present, None, None);
        let (kind, brought) = (kind_of(image, attached), false);
        CompanionReceipt { kind, digest, subject, tag, outcome, brought, found, joined }
    };
    image.locked.companions().iter().map(receipt).collect()
}

/// What a companion of `image` is.
pub fn kind_of(image: &Image, attached: &Attached) -> companion::Kind {
    let manifest = image.manifests.iter().find(|manifest| manifest.digest() == attached.digest);
    companion::Kind::of(attached.tag.as_ref(), attached.artifact_type.as_deref(), manifest)
}

/// Where the signature of a receipt stands.
pub fn signature_beside(receipt: &Path) -> PathBuf {
    let mut beside = receipt.as_os_str().to_owned();
    beside.push(".sig");
    beside.into()
}

/// What only the config of a single image says.
pub fn platforms(image: &Image) -> Vec<Platform> {
    if media_type::is_index(&image.locked.media_type) { Vec::new() } else { image.locked.platforms.clone() }
}

/// Each of them once, as far as there is room.
pub fn kept<'m>(manifests: impl Iterator<Item = &'m Manifest>) -> Vec<Kept> {
    let (mut seen, mut bytes, mut values) = (HashSet::new(), 0, 0);
    let mut fits = |text: &[u8]| {
        bytes += text.len();
        values += values_in(text);
        bytes <= KEPT_BYTES && values <= KEPT_VALUES
    };
    let mut kept = Vec::new();
    for manifest in manifests.filter(|manifest| seen.insert(manifest.digest())) {
        // What nobody looks at in a manifest may be no text. What is not at hand any more is not repeated.
        let Ok(text) = manifest.bytes() else { continue };
        if std::str::from_utf8(&text).is_ok() {
            if !fits(&text) {
                break;
            }
            kept.push(Kept(manifest.clone()));
        }
    }
    kept
}

/// As it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptJson<Text> {
    digest: Digest,
    media_type: Text,
    text: Text,
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.bytes().map_err(serde::ser::Error::custom)?;
        let text = std::str::from_utf8(&bytes).map_err(serde::ser::Error::custom)?;
        KeptJson { digest: self.0.digest(), media_type: self.0.media_type(), text }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kept, D::Error> {
        let KeptJson::<String> { digest, media_type, text } = Deserialize::deserialize(deserializer)?;
        let manifest = Manifest::parse(Bytes::from(text), Some(&media_type), Some(&digest));
        manifest.map(Kept).map_err(|e| serde::de::Error::custom(format!("the manifest {digest}: {e}")))
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        (self.0.digest(), self.0.media_type()) == (other.0.digest(), other.0.media_type())
    }
}

impl Eq for Kept {}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(more: &[u8]) -> Manifest {
        let start = format!(r#"{{"config":{{"mediaType":"x","digest":"{}","size":1}},"more":""#, Digest::sha256(b""));
        let bytes = [start.as_bytes(), more, b"\"}"].concat();
        Manifest::parse(bytes.into(), Some(media_type::OCI_MANIFEST), None).unwrap()
    }

    #[test]
    fn what_is_kept_is_text_once_and_never_more_than_a_receipt_may_have() {
        let (one, binary) = (manifest(b"\\u00e4 \xc3\xa4"), manifest(b"\xff"));
        let all = kept([&one, &binary, &one].into_iter());
        assert_eq!(all.iter().map(|kept| kept.0.digest()).collect::<Vec<_>>(), [one.digest()]);
        let json = serde_json::to_string(&all).unwrap();
        let read: Vec<Kept> = serde_json::from_str(&json).unwrap();
        assert_eq!(read[0].0.bytes().unwrap(), one.bytes().unwrap());
        let large: Vec<Manifest> =
            (0..20).map(|n: u8| manifest(&[vec![b'x'; 3_500_000], vec![b'0' + n]].concat())).collect();
        assert!(kept(large.iter()).len() < 20);
        let many: Vec<Manifest> =
            (0..3).map(|n: u8| manifest(&[vec![b','; 400_000], vec![b'0' + n]].concat())).collect();
        assert_eq!(kept(many.iter()).len(), 2);
    }
}
