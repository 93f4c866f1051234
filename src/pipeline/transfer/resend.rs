//! Content that the target claimed to have and lacks when a manifest is put, because a cache outlived a garbage
//! collection or a mount created nothing. It is sent again, each digest once per repository, and the manifest is put
//! again.

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

/// What was sent again in this run, and how that ended.
#[derive(Default)]
pub struct Resent {
    content: Mutex<HashMap<(Repository, Digest), Sending>>,
    /// Blobs that were read because the target had claimed others that it lacks.
    checked: Mutex<HashSet<(Repository, Digest)>>,
    /// By registry: the number of blobs that each repository turned out to lack.
    lacking: Mutex<BTreeMap<String, BTreeMap<Repository, usize>>>,
    /// Whether the source is read only once: what has passed cannot be sent again.
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

    /// Whether it has neither been checked nor been sent again so far. It counts as checked from now on.
    fn is_unchecked(&self, repository: &Repository, digest: Digest) -> bool {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_new(repository, digest) && checked.insert((repository.clone(), digest))
    }

    /// Whether it has not been sent again so far.
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
    /// Stores a manifest of `image`. What the target turns out to lack is sent again, and the manifest is put again,
    /// until the target names nothing that was not sent before.
    ///
    /// # Errors
    /// Besides those of [`Sink::put_manifest`](crate::content::Sink::put_manifest): the target lacks content that was
    /// sent again ([`Reason::DamagedTarget`]), refuses foreign layers ([`Reason::ForeignLayer`]), or the content can no
    /// longer be sent.
    pub(super) fn put_manifest<'f>(
        &'f self,
        image: &'f Image,
        reference: &'f Reference,
        manifest: &'f Manifest,
    ) -> BoxFuture<'f, Result<()>> {
        // A child that is sent again may itself lack something.
        Box::pin(async move {
            let (mut sent, mut is_again) = (HashSet::new(), false);
            loop {
                let Err(refusal) = self.store(reference, manifest).await else { return Ok(()) };
                let Some(Reason::UnknownContent(named)) = refusal.reason() else { return Err(refusal) };
                let is_own = |digest: &Digest| *digest == manifest.digest();
                // It reports only the manifest as unknown that it was just sent: nothing more can be sent to it.
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

    /// The target has claimed the blobs of `lacking` and lacks them. Returns other blobs of the image that cannot be
    /// read either. They are looked for at once, since each refusal of a manifest uses up tries.
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

    /// Reports everything that the first manifest turns out to lack in one warning; what others lack is counted for the
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

    /// Reports one warning for each registry that lacked blobs in several repositories.
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

    /// Other images that need the same content wait meanwhile, and share the result.
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
        // The target has reported it as unknown, so an earlier read in this run proves nothing.
        self.check_sent(repository, blob).await
    }

    /// Checks whether what the target has accepted can be read. If it may not be read, the manifest that is put next is
    /// the proof.
    async fn check_sent(&self, repository: &Repository, blob: &Descriptor) -> Result<()> {
        let (Readable::No(why) | Readable::Failed(why)) = self.sink.can_read(repository, blob).await? else {
            return Ok(());
        };
        let text = format!("{repository} accepted blob {} and has a damaged copy: {why}", blob.digest);
        Err(Error::damaged(text).with_reason(Reason::DamagedTarget))
    }
}

/// Whether a blob that the target claims to have is missing or damaged.
fn is_lost(found: &Readable) -> bool {
    matches!(found, Readable::No(_) | Readable::Failed(_))
}

/// Returns what `manifest` needs of the content that the target `named`. If it named nothing but the manifest, returns
/// everything that it may mean.
///
/// Only manifests that it names directly: a digest cannot be part of the content that it names, so sending them again
/// ends.
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

/// Nothing more can be sent; says why.
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
