//! Content that the target claimed to have but lacks when a manifest is pushed, because a cache outlived a garbage
//! collection or a mount created nothing. gapferry sends it again, each digest once per repository, and pushes the
//! manifest again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use super::Transfer;
use crate::base::error::{Error, Kind, Reason, Result};
use crate::base::progress::Event;
use crate::content::{Origin, Readable};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use crate::pipeline::graph::Image;

type Sending = Arc<OnceCell<Result<(), Arc<Error>>>>;

/// Content sent again in this run, with the outcome.
#[derive(Default)]
pub struct Resent {
    content: Mutex<HashMap<(Repository, Digest), Sending>>,
    /// Blobs that were read because the target lacked others that it had claimed.
    checked: Mutex<HashSet<(Repository, Digest)>>,
    /// By registry: how many blobs each repository lacked.
    lacking: Mutex<BTreeMap<String, BTreeMap<Repository, usize>>>,
    /// Whether the source is a stream: what has passed cannot be sent again.
    streamed: AtomicBool,
}

/// One object that can be sent again.
#[derive(Clone, Copy)]
enum Content<'i> {
    Blob(&'i Descriptor),
    Manifest(&'i Manifest),
}

impl Resent {
    pub fn set_streamed(&self, streamed: bool) {
        self.streamed.store(streamed, Ordering::Relaxed);
    }

    /// Whether a blob was neither checked nor sent again so far. From now on it counts as checked.
    fn is_unchecked(&self, repository: &Repository, digest: Digest) -> bool {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_new(repository, digest) && checked.insert((repository.clone(), digest))
    }

    /// Whether no image has started to send it again.
    fn is_new(&self, repository: &Repository, digest: Digest) -> bool {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        !content.contains_key(&(repository.clone(), digest))
    }

    fn sending(&self, repository: &Repository, digest: Digest) -> Sending {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.entry((repository.clone(), digest)).or_default().clone()
    }
}

impl Content<'_> {
    fn digest(&self) -> Digest {
        match self {
            Content::Blob(blob) => blob.digest,
            Content::Manifest(manifest) => manifest.digest(),
        }
    }
}

impl Transfer<'_> {
    /// Stores a manifest of `image`. If the target lacks content, sends that again and repeats the manifest, until the
    /// target names nothing that was not already sent again.
    ///
    /// # Errors
    /// Besides those of [`Sink::put_manifest`](crate::content::Sink::put_manifest): the target lacks content that was
    /// sent again ([`Reason::DamagedTarget`]), refuses foreign layers ([`Reason::ForeignLayer`]), or lacks content that
    /// can no longer be sent ([`Reason::Passed`]).
    pub(super) fn put_manifest<'f>(
        &'f self,
        image: &'f Image,
        reference: &'f Reference,
        manifest: &'f Manifest,
    ) -> BoxFuture<'f, Result<()>> {
        // Recursive: a child that is sent again may itself lack something.
        Box::pin(async move {
            let (mut sent, mut is_again) = (HashSet::new(), false);
            loop {
                let Err(refusal) = self.store(reference, manifest).await else { return Ok(()) };
                let Some(Reason::UnknownContent(named)) = refusal.reason() else { return Err(refusal) };
                let is_own = |digest: &Digest| *digest == manifest.digest();
                // The registry reports only the manifest itself as unknown, so there is nothing else to send. Try once
                // more.
                if !named.is_empty() && named.iter().all(is_own) {
                    if std::mem::replace(&mut is_again, true) {
                        return Err(refusal);
                    }
                    continue;
                }
                let lacking = lacking(image, manifest, named);
                let mut new: Vec<Content<'_>> = lacking.into_iter().filter(|it| !sent.contains(&it.digest())).collect();
                new.extend(self.lost_too(image, &reference.repository, &new).await?);
                if new.is_empty() {
                    return Err(no_help(&reference.repository, manifest, named.clone(), &sent, refusal));
                }
                self.report_lacking(&reference.repository, &new);
                for content in new {
                    sent.insert(content.digest());
                    self.send_again(image, &reference.repository, content).await?;
                }
            }
        })
    }

    /// Returns the image's other blobs that cannot be read either, if the target claimed blobs of `lacking` that it
    /// does not have. Checking all of them at once saves tries: each refusal of a manifest uses some up.
    async fn lost_too<'i>(
        &self,
        image: &'i Image,
        repository: &Repository,
        lacking: &[Content<'i>],
    ) -> Result<Vec<Content<'i>>> {
        let is_lacking = |blob: &Descriptor| lacking.iter().any(|content| content.digest() == blob.digest);
        if !image.blobs.iter().any(is_lacking) {
            return Ok(Vec::new());
        }
        let others = image.blobs.iter().filter(|blob| !is_lacking(blob));
        let others: Vec<_> = others.filter(|blob| self.resent.is_unchecked(repository, blob.digest)).collect();
        let reads: Vec<_> = others.iter().map(|blob| self.sink.can_read(repository, blob)).collect();
        let reads: Vec<Readable> = stream::iter(reads).buffered(self.options.jobs.max(1)).try_collect().await?;
        let lost = others.into_iter().zip(reads).filter(|(_, found)| is_lost(found));
        Ok(lost.map(|(blob, _)| Content::Blob(blob)).collect())
    }

    /// Warns about everything that the registry's first refused manifest lacks; later ones are only counted for the
    /// end. Leaves out what is already being sent for another manifest.
    fn report_lacking(&self, repository: &Repository, lacking: &[Content<'_>]) {
        let blobs = lacking.iter().filter(|content| matches!(content, Content::Blob(_))).map(Content::digest);
        let blobs: Vec<Digest> = blobs.filter(|blob| self.resent.is_new(repository, *blob)).collect();
        let named: Vec<String> = blobs.iter().map(Digest::to_string).collect();
        let text = match &named[..] {
            [] => return,
            [blob] => format!("{repository} claimed to have blob {blob} and lacks it; uploading it again"),
            several => {
                let (number, named) = (several.len(), several.join(", "));
                format!("{repository} claimed to have {number} blobs and lacks them; uploading them again: {named}")
            }
        };
        let mut lacking = self.resent.lacking.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = lacking.entry(repository.registry().to_owned()).or_default();
        let is_first = counted.is_empty();
        *counted.entry(repository.clone()).or_default() += blobs.len();
        match is_first {
            true => self.events.report(Event::Warning(text)),
            false => tracing::info!("{text}"),
        }
    }

    /// Warns once for each registry that lacked blobs in several repositories.
    pub(super) fn report_all_lacking(&self) {
        let lacking = std::mem::take(&mut *self.resent.lacking.lock().unwrap_or_else(PoisonError::into_inner));
        for (registry, counted) in lacking.iter().filter(|(_, counted)| counted.len() > 1) {
            let (blobs, repositories) = (counted.values().sum::<usize>(), counted.len());
            let text = format!(
                "{registry} claimed to have {blobs} blobs in {repositories} repositories and lacked them; they were sent again"
            );
            self.events.report(Event::Warning(text));
        }
    }

    /// Sends content again. Other images that need it at the same time wait and share the outcome.
    async fn send_again(&self, image: &Image, repository: &Repository, content: Content<'_>) -> Result<()> {
        let sending = self.resent.sending(repository, content.digest());
        let outcome = sending.get_or_init(|| async {
            let sent = match content {
                Content::Blob(blob) => self.send_blob_again(image, repository, blob).await,
                Content::Manifest(manifest) => {
                    let name = repository.with_digest(manifest.digest());
                    match self.put_manifest(image, &name, manifest).await {
                        Ok(()) => self.check_stored(&name, manifest.digest()).await.map(drop),
                        Err(error) => Err(error),
                    }
                }
            };
            sent.map_err(Arc::new)
        });
        outcome.await.clone().map_err(|error| Error::clone(&error))
    }

    async fn send_blob_again(&self, image: &Image, repository: &Repository, blob: &Descriptor) -> Result<()> {
        let origin = Origin { source: &self.source, repository: &image.locked.reference.repository };
        let sent = self.send_blob(repository, blob, &origin).await;
        self.source.close(&blob.digest);
        let sent = sent.map_err(|error| match self.resent.streamed.load(Ordering::Relaxed) {
            true => {
                let text = format!("{repository} lacks blob {}, whose bytes have passed in the stream", blob.digest);
                error.while_doing(text).with_reason(Reason::Passed)
            }
            false => error,
        });
        sent?;
        // The target reported the blob as unknown, so an earlier read in this run proves nothing.
        self.check_sent(repository, blob).await
    }

    /// Checks that a blob that the target just accepted can be read. If this account may not read it, the next push of
    /// the manifest is the proof.
    async fn check_sent(&self, repository: &Repository, blob: &Descriptor) -> Result<()> {
        let (Readable::No(why) | Readable::Failed(why)) = self.sink.can_read(repository, blob).await? else {
            return Ok(());
        };
        let text = format!("{repository} accepted blob {} and has a damaged copy: {why}", blob.digest);
        Err(Error::damaged(text).with_reason(Reason::DamagedTarget))
    }
}

/// Whether a blob that the target claims to have is lost or damaged.
fn is_lost(found: &Readable) -> bool {
    matches!(found, Readable::No(_) | Readable::Failed(_))
}

/// Returns what `manifest` needs of the content that the target `named`. If the target named nothing but the manifest,
/// returns everything that may be missing: the image's blobs and the children of `manifest`.
///
/// Includes only manifests that `manifest` refers to directly. Digests cannot form a cycle, so sending again ends.
fn lacking<'i>(image: &'i Image, manifest: &Manifest, named: &[Digest]) -> Vec<Content<'i>> {
    let children: HashSet<Digest> = manifest.children().iter().map(|child| child.descriptor.digest).collect();
    let is_named = |digest: &Digest| named.contains(digest);
    let is_child = |child: &&Manifest| children.contains(&child.digest());
    let blobs = image.blobs.iter();
    let manifests = image.manifests.iter().filter(|other| other.digest() != manifest.digest());
    if named.iter().any(|digest| *digest != manifest.digest()) {
        let blobs = blobs.filter(|blob| is_named(&blob.digest)).map(Content::Blob);
        let subject = manifest.subject().map(|subject| subject.digest);
        let is_below = |other: &&Manifest| is_child(other) || subject == Some(other.digest());
        let manifests = manifests.filter(|other| is_named(&other.digest()) && is_below(other)).map(Content::Manifest);
        return blobs.chain(manifests).collect();
    }
    blobs.map(Content::Blob).chain(manifests.filter(is_child).map(Content::Manifest)).collect()
}

/// The error if nothing more can be sent.
fn no_help(
    repository: &Repository,
    manifest: &Manifest,
    named: Vec<Digest>,
    sent: &HashSet<Digest>,
    refusal: Error,
) -> Error {
    let foreign = |digest: &Digest| {
        let children = manifest.children();
        children.iter().any(|child| child.descriptor.digest == *digest && !child.descriptor.urls().is_empty())
    };
    if let Some(layer) = named.iter().find(|digest| foreign(digest)) {
        let text = format!("{repository} refuses layer {layer}, which clients fetch from the `urls` of its descriptor");
        return Error::new(Kind::Refused, text).because(refusal).with_reason(Reason::ForeignLayer);
    }
    if sent.is_empty() {
        return refusal;
    }
    let what = named.iter().find(|digest| sent.contains(digest)).map_or("content".to_owned(), Digest::to_string);
    let text = format!(
        "{repository} has a damaged or stale copy of {what}: it was sent again and is still reported as \
                 unknown"
    );
    Error::damaged(text).because(refusal).with_reason(Reason::DamagedTarget)
}
