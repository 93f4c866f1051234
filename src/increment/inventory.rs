//! Asks a target which images of an allowlist it has: a baseline without a receipt.
//!
//! Nothing is guessed. An image counts only if its tag leads to manifests that were read and verified, and the registry
//! confirmed each blob below them.

use std::collections::{BTreeSet, HashSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Events, Phase};
use crate::content::{Cached, Need, Sink, Source};
use crate::oci::{Digest, Manifest, Reference, Repository, Role};
use crate::pipeline::allowlist::{Rule, Select};
use crate::pipeline::graph::Image;
use crate::pipeline::naming::Naming;
use crate::pipeline::receipt::{ConfirmedManifest, ImageOutcome, ImageReceipt, companions_found, kept, platforms};
use crate::pipeline::resolve::without_companions;
use crate::pipeline::walk::{Options, Referrers, Walk, Wanted};

/// An image, with its names at its source and at the target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    pub source: Reference,
    pub target: Reference,
}

/// Makes the inventory of a target.
pub struct InventoryBuilder<'a> {
    pub source: &'a dyn Source,
    pub sink: &'a dyn Sink,
    /// Whether a repository is known to be empty.
    pub closed: &'a (dyn Fn(&Repository) -> bool + Sync),
    pub jobs: usize,
    pub events: &'a Events,
}

impl InventoryBuilder<'_> {
    /// Returns the images that the rules select at `registry`; a pattern selects from the tags there. Also returns the
    /// rules whose tags this account may not read.
    ///
    /// # Errors
    /// A name would be invalid, or the registry gave no clear answer.
    pub async fn expand(
        &self,
        rules: &[Rule],
        naming: &Naming,
        registry: &str,
    ) -> Result<(BTreeSet<Named>, Vec<UnreadableImage>)> {
        let (mut all, mut unreadable) = (BTreeSet::new(), Vec::new());
        for rule in rules {
            let from = rule.select.repository();
            let to = naming.repository(registry, from, rule.rename.as_ref())?;
            let note_none = || {
                let text = format!("{to} has no tag that matches ({})", rule.written);
                self.events.report(Event::Notice(text));
            };
            match &rule.select {
                Select::One(source) => {
                    let renamed = rule.rename.as_ref().and_then(|rename| rename.tag.clone());
                    let target = match (renamed.or(source.tag.clone()), source.digest) {
                        (Some(tag), _) => to.with_tag(tag),
                        (None, Some(digest)) => to.with_digest(digest),
                        (None, None) => continue,
                    };
                    all.insert(Named { source: source.clone(), target });
                }
                _ if (self.closed)(&to) => note_none(),
                select => {
                    let list = match absent_is_none(self.source.tags(&to, Need::Required).await.map(Some)) {
                        Err(error) if is_unreadable(&error) => {
                            unreadable.push(UnreadableImage { source: rule.written.clone(), error });
                            continue;
                        }
                        list => list?.unwrap_or_default(),
                    };
                    for doubt in list.doubts {
                        self.events.report(Event::Incomplete(doubt));
                    }
                    let named = |tag: crate::oci::Tag| {
                        let (source, target) = (from.with_tag(tag.clone()), to.with_tag(tag));
                        Named { source, target }
                    };
                    let matching = list.tags.into_iter().filter(|tag| select.matches(tag)).collect();
                    let images = without_companions(self.source, &to, matching, self.events).await?;
                    if images.is_empty() {
                        note_none();
                    }
                    all.extend(images.into_iter().map(named));
                }
            }
        }
        Ok((all, unreadable))
    }

    /// Finds out which of `images` the target has.
    ///
    /// # Errors
    /// The target cannot be reached. A missing or incomplete image is not an error.
    pub async fn ask(&self, images: &BTreeSet<Named>) -> Result<Holdings> {
        self.events.report(Event::Phase { phase: Phase::Inventory, items: images.len() as u64, bytes: 0 });
        let cached = Cached::new(self.source, None);
        let options =
            Options { index: None, available_platforms: false, referrers: Referrers::Look, foreign_layers: true };
        let walk = Walk::new(&cached, options, self.events.clone());
        let walk = walk.with_silent_effect("the inventory contains those that were found; there may be more");
        let found: Vec<(ImageReceipt, Found)> = stream::iter(images)
            .map(|named| async {
                let found = self.image(&walk, named).await;
                self.events.report(Event::ItemDone);
                match found {
                    // The other images are still worth looking up.
                    Err(error) if is_unreadable(&error) => {
                        let receipt = receipt_of(named, None, ImageOutcome::Failed, Some(error.chain()));
                        Ok((receipt, Found { error: Some(error), ..Found::default() }))
                    }
                    found => found,
                }
            })
            .buffered(self.jobs.max(1))
            .try_collect()
            .await?;
        walk.report_lost();
        let (images, found): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let manifests = kept(found.iter().flat_map(|found| &found.manifests));
        let confirmed = found.iter().flat_map(Found::digests).collect();
        let failed = images.iter().zip(found).filter_map(|(image, found)| Some((image, found.error?)));
        let unreadable = failed.map(|(image, error)| UnreadableImage { source: image.source.clone(), error }).collect();
        Ok(Holdings { images, confirmed, manifests, unreadable })
    }

    async fn image(&self, walk: &Walk<'_>, named: &Named) -> Result<(ImageReceipt, Found)> {
        let receipt = |digest, outcome, error| receipt_of(named, digest, outcome, error);
        let absent = || (receipt(None, ImageOutcome::Failed, Some("it does not exist".to_owned())), Found::default());
        if (self.closed)(&named.target.repository) {
            return Ok(absent());
        }
        let wanted =
            Wanted { reference: named.target.clone(), rename: None, platforms: Vec::new(), written: String::new() };
        let Some(image) = absent_is_none(walk.discover(&wanted).await.map(Some))? else { return Ok(absent()) };
        let digest = Some(image.locked.digest);
        let (blobs, lacking) = self.blobs(&named.target.repository, &image).await?;
        if lacking > 0 {
            // Content of an incomplete image may be garbage-collected at any time.
            let error = format!("{lacking} of its blobs do not exist");
            return Ok((receipt(digest, ImageOutcome::Failed, Some(error)), Found::default()));
        }
        let (platforms, companions) = (platforms(&image), companions_found(&image));
        let receipt = ImageReceipt { platforms, companions, ..receipt(digest, ImageOutcome::Present, None) };
        Ok((receipt, Found { manifests: image.manifests, blobs, error: None }))
    }

    /// Returns the blobs that exist, and how many required blobs do not.
    async fn blobs(&self, repository: &Repository, image: &Image) -> Result<(Vec<Digest>, usize)> {
        let children = image.manifests.iter().flat_map(Manifest::children);
        let needed: HashSet<Digest> =
            children.filter(|child| child.role != Role::ForeignLayer).map(|child| child.descriptor.digest).collect();
        let (mut there, mut lacking) = (Vec::new(), 0);
        for blob in &image.blobs {
            let digest = &blob.digest;
            if self.sink.has_blob(repository, blob).await? {
                there.push(*digest);
            } else if needed.contains(digest) {
                lacking += 1;
            }
        }
        Ok((there, lacking))
    }
}

/// What a target has.
pub struct Holdings {
    pub images: Vec<ImageReceipt>,
    /// All digests that were found.
    pub confirmed: BTreeSet<Digest>,
    /// The manifests among them.
    pub manifests: Vec<ConfirmedManifest>,
    /// Images that this account may not read; they count as failed.
    pub unreadable: Vec<UnreadableImage>,
}

/// An image or allowlist entry that this account may not read.
pub struct UnreadableImage {
    /// The image at its source, or the entry of the allowlist.
    pub source: String,
    pub error: Error,
}

fn receipt_of(named: &Named, digest: Option<Digest>, outcome: ImageOutcome, error: Option<String>) -> ImageReceipt {
    let (source, reference) = (named.source.to_string(), Some(named.target.clone()));
    ImageReceipt { reference, error, ..ImageReceipt::new(source, digest, outcome) }
}

/// Whether the registry denies access to this repository or image. It may still grant access to others.
fn is_unreadable(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unauthorized | Kind::Refused) && error.stopped().is_none()
}

/// The content of a complete image.
#[derive(Default)]
struct Found {
    /// Why it could not be read.
    error: Option<Error>,
    manifests: Vec<Manifest>,
    blobs: Vec<Digest>,
}

impl Found {
    fn digests(&self) -> impl Iterator<Item = Digest> {
        self.manifests.iter().map(Manifest::digest).chain(self.blobs.iter().copied())
    }
}

/// Turns the error of absent or damaged content into `None`.
fn absent_is_none<T>(found: Result<Option<T>, Error>) -> Result<Option<T>> {
    match found {
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Damaged) => Ok(None),
        other => other,
    }
}
