//! The tags of companions. What the target has under one is looked at again before it is changed: between the plan and this
//! moment, which may be hours, somebody there may have signed the image.

use std::sync::PoisonError;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::publish::manifest_of;
use super::{Settled, Transfer};
use crate::companion::Joined;
use crate::content::{Body, Origin, ReferrerList, Source, TagList};
use crate::error::{Error, Kind, Result};
use crate::graph::Image;
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository, Role, Tag};
use crate::plan::{CompanionAction, CompanionStep, OnExisting, TagState, compare, decide};

impl Transfer<'_> {
    /// Gives the tag of a companion its meaning; its manifest and all blobs are there. `doubtful`: what the target says of a tag
    /// without giving its manifest is not believed.
    pub(super) async fn companion(&self, image: &Image, step: &CompanionStep, doubtful: bool) -> Result<()> {
        // Of a tag that means another list the list was read.
        let is_proven = step.action == CompanionAction::Nothing && !(doubtful && step.state == TagState::Same);
        if is_proven || step.action.leaves_tag() {
            return Ok(());
        }
        let ours = manifest_of(image, &step.digest)?;
        let turn = self.turn(&step.tag);
        let _mine = turn.lock().await;
        let (settled, joined) = self.decide(step, ours, doubtful).await?;
        match (&settled.action, joined) {
            // An immutable tag would refuse even the same digest.
            (CompanionAction::Nothing, _) => {}
            (left, _) if left.leaves_tag() => {}
            (CompanionAction::Refuse { reason }, _) => return Err(Error::new(Kind::Refused, reason.clone())),
            (CompanionAction::Join { .. }, Some(joined)) => self.join(image, &step.tag, &joined).await?,
            (_, _) => {
                if step.action != CompanionAction::Push {
                    self.blobs_after_all(image, &step.tag.repository, ours).await?;
                }
                self.tag(image, &step.tag, ours).await?;
            }
        }
        self.note_settled(&step.tag, settled);
        Ok(())
    }

    /// Another image may bring the same list: that nothing was left to do for it is no news.
    fn note_settled(&self, tag: &Reference, settled: Settled) {
        let mut companions = self.companions.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = companions.get(tag).is_some_and(|known| match (&known.action, settled.state) {
            (CompanionAction::Join { joined, .. }, TagState::Other(found)) => *joined == found,
            (_, state) => state == TagState::Same,
        });
        if !is_known {
            companions.insert(tag.clone(), settled);
        }
    }

    /// As in the plan, by what the tag means now.
    async fn decide(&self, step: &CompanionStep, ours: &Manifest, doubtful: bool) -> Result<(Settled, Option<Joined>)> {
        let found = self.sink.resolve(&step.tag).await?;
        let mut state = TagState::now(&found, &step.digest);
        if doubtful && state == TagState::Same && !self.is_there(&step.tag).await? {
            state = TagState::New;
        }
        let (mut list, mut joined) = (None, None);
        let is_list = step.tag.tag.as_ref().is_some_and(Tag::is_list);
        if matches!(state, TagState::Other(_) | TagState::Blocked) && is_list {
            match compare(self.sink, &step.tag, ours).await? {
                Some((now, both)) => (list, joined) = (Some(now), both),
                None => state = TagState::New,
            }
        }
        // A list of referrers that was not there may be one that the registry has made of what was just pushed.
        let is_made = step.state == TagState::New && step.tag.tag.as_ref().is_some_and(Tag::is_referrers_list);
        let on_existing = if is_made { OnExisting::Overwrite } else { step.on_existing };
        let action = decide(&step.tag, state, list.as_ref(), on_existing);
        Ok((Settled { action, state }, joined))
    }

    /// Brings the blobs that were not needed as long as the tag had another list.
    async fn blobs_after_all(&self, image: &Image, to: &Repository, ours: &Manifest) -> Result<()> {
        let origin = Origin { source: &self.source, repository: &image.locked.reference.repository };
        for child in ours.children().into_iter().filter(|child| matches!(child.role, Role::Config | Role::Layer)) {
            if !self.sink.has_blob(to, &child.descriptor).await? {
                self.send_blob(to, &child.descriptor, &origin).await?;
            }
        }
        Ok(())
    }

    /// Their signatures' blobs are there, and so are ours by now; the config is new. A list of referrers has none.
    async fn join(&self, image: &Image, tag: &Reference, joined: &Joined) -> Result<()> {
        if let Some(config) = joined.manifest.config() {
            let source = InMemory(joined.config.clone());
            let origin = Origin { source: &source, repository: &tag.repository };
            self.send_blob(&tag.repository, config, &origin).await?;
        }
        self.tag(image, tag, &joined.manifest).await
    }
}

/// A blob that was made here.
struct InMemory(Bytes);

#[async_trait]
impl Source for InMemory {
    async fn tags(&self, _: &Repository) -> Result<TagList> {
        Ok(TagList::default())
    }

    async fn resolve(&self, _: &Reference) -> Result<Option<Descriptor>> {
        Ok(None)
    }

    async fn manifest(&self, _: &Reference) -> Result<Option<Manifest>> {
        Ok(None)
    }

    async fn referrers(&self, _: &Repository, _: &Digest) -> Result<ReferrerList> {
        Ok(ReferrerList::default())
    }

    async fn blob(&self, _: &Repository, _: &Descriptor, _: u64) -> Result<Body> {
        let bytes = self.0.clone();
        Ok(Body::new(0, stream::once(async move { Ok(bytes) }).boxed()))
    }
}
