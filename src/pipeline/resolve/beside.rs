//! Tags next to an image: cosign's, and the fallback lists of referrers. If their subject is in the same repository,
//! the walk finds them from there, so a list of tags does not treat them as images.

use std::collections::HashSet;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Events};
use crate::content::{Need, Source};
use crate::oci::{Digest, Repository, Tag, media_type};

/// Number of questions about one repository at a time.
const AT_ONCE: usize = 6;

/// Returns those of `tags` that are images: all except the companions of what is in `repository`. An orphan, whose
/// subject is elsewhere, counts as an image, because nothing else would carry it (cosign's `COSIGN_REPOSITORY`).
///
/// # Errors
/// The registry cannot be reached. If it does not say whether the subject exists, the tag counts as an image, with a
/// warning.
pub async fn without_companions(
    source: &dyn Source,
    repository: &Repository,
    tags: Vec<Tag>,
    events: &Events,
) -> Result<Vec<Tag>> {
    let subjects: HashSet<Digest> = tags.iter().filter_map(Tag::companion_subject).collect();
    if subjects.is_empty() {
        return Ok(tags);
    }
    let asked: Vec<Option<Digest>> = stream::iter(subjects)
        .map(|subject| find_subject(source, repository, subject, events))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let here: HashSet<Digest> = asked.into_iter().flatten().collect();
    let here = &here;
    let checked: Vec<(Tag, bool)> = stream::iter(tags)
        .map(|tag| async move {
            let subject = tag.companion_subject().filter(|subject| here.contains(subject));
            let is_image = match subject {
                Some(subject) => is_image_all_the_same(source, repository, &tag, subject, events).await?,
                None => true,
            };
            Ok::<_, Error>((tag, is_image))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(checked.into_iter().filter_map(|(tag, is_image)| is_image.then_some(tag)).collect())
}

/// Returns `subject`, if it is in `repository`.
async fn find_subject(
    source: &dyn Source,
    repository: &Repository,
    subject: Digest,
    events: &Events,
) -> Result<Option<Digest>> {
    match source.resolve(&repository.with_digest(subject), Need::Required).await {
        Ok(found) => Ok(found.map(|_| subject)),
        Err(error) => report_unknown(error, &format!("{repository} has {subject}, the subject of a tag"), events),
    }
}

/// An image may have the tag of a fallback list: some builds name an image after its own digest, to keep it. A list of
/// referrers is an index and not its own subject.
async fn is_image_all_the_same(
    source: &dyn Source,
    repository: &Repository,
    tag: &Tag,
    subject: Digest,
    events: &Events,
) -> Result<bool> {
    if tag.referrers_subject().is_none() {
        return Ok(false);
    }
    let is_list = |media_type: &str, digest| digest != subject && media_type::is_index(media_type);
    match source.resolve(&repository.with_tag(tag.clone()), Need::Required).await {
        Ok(found) => Ok(!found.is_some_and(|found| is_list(&found.media_type, found.digest))),
        Err(error) => {
            report_unknown(error, &format!("{repository}:{tag} is a list of referrers"), events).map(|()| true)
        }
    }
}

/// A registry that cannot be reached ends the job; a refusal affects only this question.
fn report_unknown<T: Default>(error: Error, what: &str, events: &Events) -> Result<T> {
    if matches!(error.kind(), Kind::Network | Kind::RateLimited | Kind::Disk | Kind::Interrupted) {
        return Err(error.while_doing(format!("finding out whether {what}")));
    }
    let text = format!("it is unknown whether {what}: {}; such tags are carried as images", error.chain());
    events.report(Event::Warning(text));
    Ok(T::default())
}
