//! Lists of signatures: which tags of an image are lists, and how those at the target relate to the bundle's.

use std::collections::HashSet;

use super::TagState;
use crate::base::error::{Kind, Reason, Result};
use crate::content::Sink;
use crate::oci::{Digest, Manifest, Reference, Tag};
use crate::pipeline::companion::{Joined, Merge, merge};
use crate::pipeline::graph::Image;

/// How a list of signatures at the target relates to the bundle's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListState {
    /// It contains all of ours.
    HasOurs,
    /// It has the same content, in other bytes or in another order.
    Equal,
    /// It has nothing that the bundle's lacks, and the bundle's has more.
    InOurs,
    /// Each has something that the other lacks.
    Differs { joined: Digest, kept: usize, added: usize },
    /// It can be neither joined nor replaced, with the reason.
    Unknown(String),
    /// This account may not read it: the reason, and whether a policy of the project forbids it for every account.
    Unreadable { why: String, policy: bool },
}

/// Reads the list that the target has under `tag` and compares it with `ours`. Also returns the joined list if one is
/// needed. `None` if the tag no longer exists.
///
/// # Errors
/// The target does not answer. An answer that is not a list is not an error.
pub async fn compare(sink: &dyn Sink, tag: &Reference, ours: &Manifest) -> Result<Option<(ListState, Option<Joined>)>> {
    let theirs = match sink.read_manifest(tag).await {
        Ok(Some(theirs)) => theirs,
        Ok(None) => return Ok(None),
        // The registry fails on this list, and delivers the rest.
        Err(error) if error.kind() == Kind::Network && error.is_of_object_alone() => {
            return Ok(Some((ListState::Unknown(error.chain()), None)));
        }
        Err(error) if matches!(error.kind(), Kind::Network | Kind::RateLimited | Kind::Interrupted) => {
            return Err(error);
        }
        Err(error) if matches!(error.kind(), Kind::Unauthorized | Kind::Refused) => {
            let policy = error.reason() == Some(&Reason::PullPolicy);
            return Ok(Some((ListState::Unreadable { why: error.chain(), policy }, None)));
        }
        Err(error) => return Ok(Some((ListState::Unknown(error.chain()), None))),
    };
    Ok(Some(match merge(&theirs, ours) {
        Ok(Merge::KeepTheirs) => (ListState::HasOurs, None),
        Ok(Merge::TakeOurs { added: 0 }) => (ListState::Equal, None),
        Ok(Merge::TakeOurs { .. }) => (ListState::InOurs, None),
        Ok(Merge::Join(list)) => {
            let (joined, kept, added) = (list.manifest.digest(), list.kept, list.added);
            (ListState::Differs { joined, kept, added }, Some(list))
        }
        Err(why) => (ListState::Unknown(why.to_string()), None),
    }))
}

/// Whether the image itself gets the tag of a list.
pub fn is_list(to: &Reference) -> bool {
    to.digest.is_none() && to.tag.as_ref().is_some_and(Tag::is_list)
}

/// Returns the tags of lists, of an image's companions or its own, and the bundle's manifest of each.
pub fn lists<'i>(image: &'i Image, to: &Reference) -> impl Iterator<Item = (Reference, &'i Manifest)> {
    let tagged = image.locked.companion_tags(&to.repository);
    let tagged = tagged.filter(|(tag, _)| is_list(tag)).chain(own(image, to));
    tagged.filter_map(|(tag, digest)| Some((tag, image.manifests.iter().find(|manifest| manifest.digest() == digest)?)))
}

/// Returns the image's own tag and digest, if that tag is one of a list.
pub fn own(image: &Image, to: &Reference) -> Option<(Reference, Digest)> {
    (is_list(to) && image.root().is_some()).then(|| (to.clone(), image.locked.digest))
}

/// Returns the configs of the bundle's lists of signatures that the target need not have: it has another list under
/// their tags, which keeps or gets its own config. Only lists whose config is in `wanted` are asked about.
///
/// # Errors
/// The target does not answer.
pub async fn made_unnecessary(
    sink: &dyn Sink,
    images: impl Iterator<Item = (&Image, &Reference)>,
    wanted: &HashSet<Digest>,
) -> Result<HashSet<Digest>> {
    let lists = images.flat_map(|(image, to)| lists(image, to));
    let (mut unnecessary, mut needed) = (HashSet::new(), HashSet::new());
    for (tag, ours) in lists {
        let Some(config) = ours.config().filter(|config| wanted.contains(&config.digest)) else { continue };
        let compared = match TagState::now(&sink.resolve(&tag).await?, &ours.digest()) {
            TagState::Other(_) => compare(sink, &tag, ours).await?,
            TagState::New | TagState::Same | TagState::Blocked => None,
        };
        match compared {
            Some((ListState::HasOurs | ListState::Differs { .. }, _)) => unnecessary.insert(config.digest),
            _ => needed.insert(config.digest),
        };
    }
    Ok(&unnecessary - &needed)
}
