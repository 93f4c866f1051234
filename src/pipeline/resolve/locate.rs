//! Finds single digests of a lock for a repair, which needs these and, as far as possible, nothing else.
//!
//! A lock names images and their companions, not what is below them. The repositories of the lock are therefore asked
//! for the rest, one after the other. Only if that would take more requests than reading the images, or finds nothing,
//! their manifests are read. An image that cannot be read then hides only what it alone would have shown.
//!
//! # Threats
//! The requested digests come from a file of the other side and may be anything, in any number. Only the repositories
//! of the lock are asked for them, and at most [`MOST_ASKED`] times. What is found is proven by its digest when it is
//! read.

use std::collections::{HashMap, HashSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::walk_all;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Events;
use crate::content::{Cached, Need, Source};
use crate::oci::{Descriptor, Digest, MAX_MANIFEST_SIZE, Manifest, Repository};
use crate::pipeline::graph::{Image, Located, PlacedBlob};
use crate::pipeline::lock::Lock;
use crate::pipeline::walk::{LockOrigin, Walk};

/// Maximum number of questions to repositories in all.
const MOST_ASKED: usize = 2_000;
/// Maximum number of digests in a message about what was not found.
const MOST_NAMED: usize = 20;

/// What was found.
pub struct Search {
    pub located: Located,
    /// What no repository of the lock has any more, sorted.
    pub lost: Vec<Digest>,
    /// The reason, if there is any: it lists these digests.
    pub why: Option<Error>,
}

/// Finds `wanted`: digests and, if known, their sizes. `images` of the lock were read before. Content that the source
/// has lost too is not an error.
///
/// # Errors
/// Something does not belong to this lock, or a registry gives no clear answer.
pub async fn locate(
    walk: &Walk<'_>,
    lock: &Lock,
    images: &[Image],
    wanted: HashMap<Digest, Option<u64>>,
    jobs: usize,
    events: &Events,
) -> Result<Search> {
    let (found, unread, gone, silent) = Default::default();
    let mut search = Searching { walk, lock, wanted, found, unread, gone, silent };
    images.iter().try_for_each(|image| search.take(image))?;
    search.by_name().await?;
    let asked = search.is_cheap_to_ask();
    if asked {
        search.ask(jobs).await?;
    }
    if images.is_empty() && !search.wanted.is_empty() {
        let walked = walk_all(&lock.images, jobs, events, |locked| walk.assemble(locked, LockOrigin::Registry)).await;
        for image in walked {
            match image {
                Ok(image) => search.take(&image)?,
                Err(error) => search.unread.push(passed_over(error)?),
            }
        }
        if !asked && search.is_cheap_to_ask() {
            search.ask(jobs).await?;
        }
    }
    search.look_for_companions().await;
    search.end()
}

struct Searching<'a> {
    walk: &'a Walk<'a>,
    lock: &'a Lock,
    /// What is still to be found.
    wanted: HashMap<Digest, Option<u64>>,
    found: Located,
    /// Why images could not be read.
    unread: Vec<Error>,
    /// Why companions could not be read.
    gone: HashMap<Digest, Error>,
    /// Why a registry that may have some of it did not answer.
    silent: Option<Error>,
}

impl Searching<'_> {
    fn source(&self) -> &Cached<'_> {
        self.walk.source()
    }

    /// Takes what the lock itself names: images and companions.
    async fn by_name(&mut self) -> Result<()> {
        for locked in &self.lock.images {
            if self.wanted.contains_key(&locked.digest) {
                match self.walk.root(locked, LockOrigin::Registry).await {
                    Ok(root) => self.add_manifest(root)?,
                    Err(error) => self.unread.push(passed_over(
                        error.while_doing(format!("image {}", self.walk.written().shown(&locked.reference))),
                    )?),
                }
            }
            for companion in locked.companions() {
                if !self.wanted.contains_key(&companion.digest) {
                    continue;
                }
                match self.walk.companion(locked, companion).await {
                    Ok(manifest) => self.add_manifest(manifest)?,
                    Err(error) => _ = self.gone.insert(companion.digest, passed_over(error)?),
                }
            }
        }
        Ok(())
    }

    /// Finds out whether companions are gone that may have had what is still wanted: images are read without them. That
    /// explains what was not found, and its failure does not affect what was found.
    async fn look_for_companions(&mut self) {
        if self.wanted.is_empty() {
            return;
        }
        for locked in &self.lock.images {
            for companion in locked.companions() {
                match self.walk.companion(locked, companion).await {
                    Err(error) if error.stopped().is_some() || passed_over(error.clone()).is_err() => return,
                    Err(error) if error.kind() != Kind::Network => _ = self.gone.insert(companion.digest, error),
                    Ok(_) | Err(_) => {}
                }
            }
        }
    }

    /// Takes what an image that was read leads to.
    fn take(&mut self, image: &Image) -> Result<()> {
        let repository = &image.locked.reference.repository;
        image.manifests.iter().try_for_each(|manifest| self.add_manifest(manifest.clone()))?;
        image.blobs.iter().try_for_each(|blob| self.add_blob(blob.clone(), repository.clone()))
    }

    fn repositories(&self) -> Vec<&Repository> {
        let mut seen = HashSet::new();
        let all = self.lock.images.iter().map(|image| &image.reference.repository);
        all.filter(|repository| seen.insert(*repository)).collect()
    }

    fn is_cheap_to_ask(&self) -> bool {
        self.wanted.len().saturating_mul(self.repositories().len()) <= MOST_ASKED
    }

    /// Asks the repositories of the lock. A blob of unknown size cannot be asked for.
    async fn ask(&mut self, jobs: usize) -> Result<()> {
        let (source, repositories) = (self.source(), self.repositories());
        let sized = self.wanted.iter().filter_map(|(digest, size)| Some(Descriptor::new("", *digest, (*size)?)));
        let found: Vec<(Option<Found>, Option<Error>)> = stream::iter(sized.collect::<Vec<_>>())
            .map(|blob| ask_all(source, &repositories, blob))
            .buffered(jobs.max(1))
            .try_collect()
            .await?;
        for (found, silent) in found {
            match found {
                Some(Found::Manifest(manifest)) => self.add_manifest(manifest)?,
                Some(Found::Blob(blob, repository)) => self.add_blob(*blob, repository)?,
                None => self.silent = self.silent.take().or(silent),
            }
        }
        Ok(())
    }

    fn add_manifest(&mut self, manifest: Manifest) -> Result<()> {
        if self.strike(&manifest.digest(), manifest.size())? {
            self.found.manifests.push(manifest);
        }
        Ok(())
    }

    fn add_blob(&mut self, blob: Descriptor, repository: Repository) -> Result<()> {
        if self.strike(&blob.digest, blob.size)? {
            self.found.blobs.push(PlacedBlob { blob, repository });
        }
        Ok(())
    }

    /// Removes a digest that was found. Returns whether it was wanted.
    fn strike(&mut self, digest: &Digest, size: u64) -> Result<bool> {
        match self.wanted.remove(digest) {
            Some(Some(other)) if other != size => Err(not_of_this_lock(digest)),
            wanted => Ok(wanted.is_some()),
        }
    }

    fn end(mut self) -> Result<Search> {
        let mut lost: Vec<Digest> = self.wanted.keys().copied().collect();
        lost.sort();
        self.found.manifests.sort_by_key(Manifest::digest);
        self.found.blobs.sort_by_key(|placed| placed.blob.digest);
        let why = self.why(&lost)?;
        Ok(Search { located: self.found, lost, why })
    }

    /// Returns why the `lost` digests cannot be fetched.
    ///
    /// # Errors
    /// Nothing that the lock names explains it, or a registry that may have it does not answer.
    fn why(&self, lost: &[Digest]) -> Result<Option<Error>> {
        let Some(first) = lost.first() else { return Ok(None) };
        let is_silent = |error: &&Error| error.kind() == Kind::Network;
        let unread = || self.unread.iter().chain(self.gone.values());
        if let Some(error) = self.silent.as_ref().or_else(|| unread().find(is_silent)) {
            let text = format!(
                "the missing content was found nowhere else, and a registry of this lock does not answer: \
                         {first}"
            );
            return Err(Error::new(Kind::Network, text).because(error.clone()));
        }
        if unread().next().is_none() {
            return Err(not_of_this_lock(first));
        }
        let images = self.unread.first().map(|error| {
            let number = self.unread.len();
            format!(" ({number} of its images can no longer be read there: {})", error.chain())
        });
        let text = format!("no repository of this lock has the missing content{}:", images.unwrap_or_default());
        let more = lost.len().checked_sub(MOST_NAMED).filter(|more| *more > 0).map(|more| format!("  and {more} more"));
        let named = |digest: &Digest| match self.gone.get(digest) {
            Some(error) => format!("  {digest}: {}", error.chain()),
            None => format!("  {digest}"),
        };
        let list = lost.iter().take(MOST_NAMED).map(named).chain(more);
        let error = Error::new(Kind::NotFound, text).listing(list);
        Ok(Some(self.unread.first().cloned().into_iter().fold(error, Error::speaking_for)))
    }
}

fn not_of_this_lock(digest: &Digest) -> Error {
    let text = "does not belong to this lock: the bundle was made from another lock, or with other options";
    Error::input(format!("the missing content {digest} {text}"))
}

enum Found {
    Manifest(Manifest),
    Blob(Box<Descriptor>, Repository),
}

/// Returns where it is, or why a repository that may have it did not answer.
async fn ask_all(
    source: &Cached<'_>,
    repositories: &[&Repository],
    blob: Descriptor,
) -> Result<(Option<Found>, Option<Error>)> {
    let mut silent = None;
    let mut pass_over = |error| -> Result<()> {
        let error = passed_over(error)?;
        silent = silent.take().or((error.kind() == Kind::Network).then_some(error));
        Ok(())
    };
    for repository in repositories {
        // The last byte shows that it exists, and costs no more.
        match source.blob(repository, &blob, blob.size.saturating_sub(1)).await {
            Ok(_) => return Ok((Some(Found::Blob(Box::new(blob), (*repository).clone())), None)),
            Err(error) => pass_over(error)?,
        }
    }
    if blob.size > MAX_MANIFEST_SIZE {
        return Ok((None, silent));
    }
    for repository in repositories {
        match source.manifest(&repository.with_digest(blob.digest), Need::Required).await {
            Ok(Some(manifest)) => return Ok((Some(Found::Manifest(manifest)), None)),
            Ok(None) => {}
            Err(error) => pass_over(error)?,
        }
    }
    Ok((None, silent))
}

/// One place does not have something, or does not deliver it; another may.
///
/// # Errors
/// `error`, if it says nothing about the requested content.
fn passed_over(error: Error) -> Result<Error> {
    match error.kind() {
        Kind::NotFound | Kind::Unauthorized | Kind::Refused | Kind::Damaged | Kind::Input | Kind::Network => Ok(error),
        Kind::RateLimited | Kind::Disk | Kind::Lacking | Kind::Interrupted => Err(error),
    }
}
