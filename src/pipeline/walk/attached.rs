//! What travels with an image: referrers, and the tags that cosign puts next to it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, PoisonError};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use super::tree::Tree;
use super::{Referrers, Walk};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::content::{Need, ReferrerList, Source};
use crate::oci::{COSIGN_SUFFIXES, Digest, Manifest, Repository, Tag};
use crate::pipeline::companion::Signatures;
use crate::pipeline::lock::Attached;

/// Maximum number of companions of one image, and of bytes in their manifests, more than any real image has. Limits
/// what a registry can make us read.
const MAX_ATTACHED: usize = 10_000;
const MOST_BYTES: u64 = 64 * 1024 * 1024;
const AT_ONCE: usize = 6;

/// The tags of a repository, `None` if the registry does not list them to us.
pub type KnownTags = Arc<OnceCell<Option<HashSet<Tag>>>>;

/// The companions that were found for an image.
#[derive(Debug, Default)]
pub struct FoundCompanions {
    /// `None` if nothing was found and it is unknown whether there is something.
    pub attached: Option<Vec<Attached>>,
    /// Whether there may be more, because a registry did not answer.
    pub unknown: bool,
    /// Whether a companion of the lock is lost and left out.
    pub lacks: bool,
}

/// Finds everything that refers to the manifests of `tree`, recursively, and adds it to the tree.
///
/// # Errors
/// A companion cannot be read, or the registry does not list them and [`Referrers::Require`] was requested.
pub async fn find(walk: &Walk<'_>, repository: &Repository, tree: &mut Tree) -> Result<FoundCompanions> {
    let mut subjects: VecDeque<Digest> = tree.digests().into();
    let (mut attached, mut unknown): (Vec<Attached>, bool) = Default::default();
    while !subjects.is_empty() {
        let round: Vec<Digest> = subjects.drain(..).collect();
        let round: Vec<Companions> = stream::iter(round)
            .map(|subject| companions(walk, repository, subject))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        unknown |= round.iter().any(|companions| companions.unknown);
        for Companion { subject, tag, manifest } in round.into_iter().flat_map(|companions| companions.found) {
            if attached.iter().any(|known| known.digest == manifest.digest() && known.tag == tag) {
                continue;
            }
            if attached.len() >= MAX_ATTACHED {
                return Err(Error::damaged(format!("more than {MAX_ATTACHED} manifests are attached to it")));
            }
            let entry = entry(subject, tag, &manifest);
            if !tree.holds(manifest.digest()) {
                let before = tree.digests().len();
                if let Err(error) = tree.add(walk.source, repository, manifest).await {
                    let error = error.while_doing(format!("reading {}, which is attached to it", entry.digest));
                    if walk.options.referrers == Referrers::Require || !is_refusal_to_say(&error) {
                        return Err(error);
                    }
                    walk.events.report(Event::Warning(format!("{repository}: {}; it is left out", error.chain())));
                    unknown = true;
                    continue;
                }
                subjects.extend(tree.digests().into_iter().skip(before));
            }
            attached.push(entry);
        }
    }
    let is_answer = !unknown || !attached.is_empty();
    Ok(FoundCompanions { attached: is_answer.then_some(attached), unknown, lacks: false })
}

/// The companions of one manifest.
#[derive(Default)]
pub struct Companions {
    pub found: Vec<Companion>,
    /// Whether there may be more, because the registry did not answer.
    pub unknown: bool,
}

/// A manifest that refers to `subject`.
pub struct Companion {
    pub subject: Digest,
    /// Set if a tag leads to it.
    pub tag: Option<Tag>,
    pub manifest: Manifest,
}

fn entry(subject: Digest, tag: Option<Tag>, manifest: &Manifest) -> Attached {
    let (media_type, artifact_type) = (manifest.media_type().to_owned(), manifest.artifact_type());
    Attached { digest: manifest.digest(), media_type, size: manifest.size(), subject, tag, artifact_type }
}

/// Returns what refers to `subject` itself.
///
/// # Errors
/// As for [`find`].
pub async fn companions(walk: &Walk<'_>, repository: &Repository, subject: Digest) -> Result<Companions> {
    let mut companions = Companions::default();
    // First what needs the list of tags: the source then knows which fallback lists of referrers cannot exist.
    for suffix in COSIGN_SUFFIXES {
        let found = by_tag(walk, repository, subject, Tag::cosign(&subject, suffix)).await;
        companions.take(walk, repository, found)?;
    }
    match by_subject(walk, repository, subject, &companions.found).await {
        Ok(Referring { found, doubt, lost }) => {
            companions.found.extend(found);
            if let Some(doubt) = doubt {
                companions.take(walk, repository, Err(doubt))?;
            }
            companions.note_lost(walk, repository, subject, &lost)?;
        }
        Err(error) => companions.take(walk, repository, Err(error))?,
    }
    Ok(companions)
}

impl Companions {
    /// Adds the result of one look-up. A failed look-up leaves the answer open, unless an answer is required.
    fn take(&mut self, walk: &Walk<'_>, repository: &Repository, found: Result<Vec<Companion>>) -> Result<()> {
        match found {
            Ok(found) => self.found.extend(found),
            Err(error) if is_refusal_to_say(&error) && walk.options.referrers != Referrers::Require => {
                report_silent(walk, repository, &error);
                self.unknown = true;
            }
            Err(error) => return Err(error.while_doing("looking for signatures and other referrers")),
        }
        Ok(())
    }

    /// Records companions that the registry names and does not deliver, unless all are required.
    fn note_lost(&mut self, walk: &Walk<'_>, repository: &Repository, subject: Digest, lost: &[Lost]) -> Result<()> {
        let Some(Lost { name, error }) = lost.first() else { return Ok(()) };
        let what = match lost.len() {
            1 => format!("attached to {subject} is {name}, which cannot be read"),
            several => format!("attached to {subject} are {several} manifests that cannot be read, {name} first"),
        };
        if walk.options.referrers == Referrers::Require {
            return Err(error.clone().while_doing(what));
        }
        walk.lost.note(repository, lost.len(), format!("{repository}: {what}: {}", error.chain()));
        self.unknown = true;
        Ok(())
    }
}

/// Whether the answer is optional for the image. A limit that was reached passes by itself; a problem on this side does
/// not. A registry that was given up delivers no image at all.
pub fn is_refusal_to_say(error: &Error) -> bool {
    match error.kind() {
        _ if error.stopped().is_some() => false,
        Kind::Unauthorized | Kind::Refused | Kind::NotFound | Kind::Network | Kind::Damaged | Kind::Input => true,
        Kind::RateLimited | Kind::Disk | Kind::Lacking | Kind::Interrupted => false,
    }
}

/// Once for each registry.
fn report_silent(walk: &Walk<'_>, repository: &Repository, error: &Error) {
    let registry = repository.registry().to_owned();
    if walk.silent.lock().unwrap_or_else(PoisonError::into_inner).insert(registry) {
        walk.events.report(Event::Warning(format!(
            "{}: signatures, SBOMs and other artifacts attached to its images could not be looked up: {}; {}",
            repository.registry(),
            error.chain(),
            walk.silent_effect,
        )));
    }
}

/// What refers to a subject.
struct Referring {
    found: Vec<Companion>,
    /// Why there may be more.
    doubt: Option<Error>,
    lost: Vec<Lost>,
}

/// A companion that a list names and that cannot be read, with the reason.
struct Lost {
    name: String,
    error: Error,
}

async fn by_subject(
    walk: &Walk<'_>,
    repository: &Repository,
    subject: Digest,
    by_tag: &[Companion],
) -> Result<Referring> {
    let attempt = |error: Error| error.while_doing(format!("reading the referrers of {subject}"));
    let ReferrerList { found: listed, doubt } = walk.source.referrers(repository, &subject).await.map_err(attempt)?;
    let (mut found, mut lost, mut foreign, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let current: Vec<Signatures> = by_tag.iter().filter_map(|own| Signatures::of(&own.manifest)).collect();
    for digest in listed.into_iter().map(|listed| listed.digest) {
        let answer = walk.source.manifest(&repository.with_digest(digest), Need::Optional).await;
        bytes += answer.as_ref().ok().and_then(Option::as_ref).map_or(0, Manifest::size);
        if bytes > MOST_BYTES {
            let text = format!("the manifests that refer to it have more than {} MiB", MOST_BYTES >> 20);
            return Err(attempt(Error::damaged(text)));
        }
        match answer {
            Ok(Some(manifest)) if manifest.subject().is_some_and(|named| named.digest == subject) => {
                found.push(Companion { subject, tag: None, manifest });
            }
            // Harbor also lists cosign's signatures: what the tags mean, and what they meant before the last signing.
            Ok(Some(_)) if by_tag.iter().any(|companion| companion.manifest.digest() == digest) => {}
            Ok(Some(manifest)) if is_superseded(&current, &manifest) => {}
            Ok(Some(_)) => foreign.push(digest),
            Ok(None) => {
                let error = Error::new(Kind::NotFound, "the registry lists it and does not have it");
                lost.push(Lost { name: digest.to_string(), error });
            }
            Err(error) if is_refusal_to_say(&error) => lost.push(Lost { name: digest.to_string(), error }),
            Err(error) => return Err(attempt(error)),
        }
    }
    report_foreign(walk, repository, &subject, &foreign);
    found.sort_by_key(|companion| companion.manifest.digest());
    Ok(Referring { found, doubt: doubt.map(attempt), lost })
}

/// Whether one of the `current` lists of signatures contains everything in `manifest`, an earlier one.
fn is_superseded(current: &[Signatures], manifest: &Manifest) -> bool {
    let earlier = if current.is_empty() { None } else { Signatures::of(manifest) };
    earlier.is_some_and(|earlier| current.iter().any(|list| list.contain(&earlier)))
}

/// Once for each repository: a registry may list thousands.
fn report_foreign(walk: &Walk<'_>, repository: &Repository, subject: &Digest, listed: &[Digest]) {
    let Some(first) = listed.first() else { return };
    if !walk.foreign.lock().unwrap_or_else(PoisonError::into_inner).insert(repository.clone()) {
        return;
    }
    let more = match listed.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more in its list are like it"),
    };
    let text = format!("{first} is listed as a referrer of {subject}, but does not name it: not carried{more}");
    walk.events.report(Event::Warning(format!("{repository}: {text} (reported once per repository)")));
}

/// Returns the manifest that cosign has put under `tag`.
async fn by_tag(walk: &Walk<'_>, repository: &Repository, subject: Digest, tag: Tag) -> Result<Vec<Companion>> {
    let is_listed = is_listed(walk, repository, &tag).await;
    if is_listed == Some(false) {
        return Ok(Vec::new());
    }
    let attempt = |error: Error| error.while_doing(format!("reading the tag {tag}"));
    let Some(manifest) =
        walk.source.manifest(&repository.with_tag(tag.clone()), Need::Optional).await.map_err(attempt)?
    else {
        return match is_listed {
            Some(true) => Err(attempt(Error::new(Kind::NotFound, "the registry lists it and does not have it"))),
            _ => Ok(Vec::new()),
        };
    };
    if let Some(named) = manifest.subject().filter(|named| named.digest != subject) {
        let text = format!("{repository}: the tag {tag} leads to an artifact of {}: not carried", named.digest);
        walk.events.report(Event::Warning(text));
        return Ok(Vec::new());
    }
    Ok(vec![Companion { subject, tag: Some(tag), manifest }])
}

/// Whether the list of tags has `tag`. One list answers for all images of a repository. `None` if there is no list, or
/// it may be incomplete: the tag itself must be requested.
async fn is_listed(walk: &Walk<'_>, repository: &Repository, tag: &Tag) -> Option<bool> {
    let known = {
        let mut all = walk.tags.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(repository.clone()).or_default().clone()
    };
    let tags = known.get_or_init(|| async {
        match walk.source.tags(repository, Need::Optional).await {
            // An incomplete list shows nothing.
            Ok(list) if !list.doubts.is_empty() => {
                tracing::debug!("{repository}: the list of tags is incomplete, asking one by one: {:?}", list.doubts);
                None
            }
            Ok(list) => {
                // Only these are asked about.
                let named_after_digests = list.tags.into_iter().filter(|tag| tag.as_str().starts_with("sha"));
                Some(named_after_digests.collect::<HashSet<Tag>>())
            }
            Err(error) => {
                tracing::debug!("{repository}: no list of tags, asking one by one: {}", error.chain());
                None
            }
        }
    });
    tags.await.as_ref().map(|tags| tags.contains(tag))
}
