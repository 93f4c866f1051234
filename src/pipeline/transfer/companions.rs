//! The tags of companions. The content of such a tag at the target is read again before it is changed: between the plan
//! and this moment, which may be hours, someone there may have signed the image.

use std::sync::PoisonError;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::listed::{BUSY, MOST_JOINS};
use super::publish::manifest_of;
use super::{TagOutcome, Transfer};
use crate::base::error::{Error, Kind, Reason, Result};
use crate::content::{Body, Files, Need, Origin, ReferrerList, Source, TagList};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository, Role, Tag};
use crate::pipeline::companion::Joined;
use crate::pipeline::graph::Image;
use crate::pipeline::plan::{
    CompanionAction, CompanionStep, ImageStep, ListState, OnExisting, TagState, compare, decide,
};

impl Transfer<'_> {
    /// Sets the tag of a companion, whose manifest and blobs exist. If the image is doubtful, the target's statement
    /// about a tag is not believed unless it delivers the manifest.
    pub(super) async fn companion(&self, image: &Image, of: &ImageStep, step: &CompanionStep) -> Result<()> {
        let (doubtful, is_own) = (of.doubtful, step.tag == of.to);
        // For a tag that means another list, the list was read.
        let is_proven = step.action == CompanionAction::Nothing && !(doubtful && step.state == TagState::Same);
        if is_proven || step.action.leaves_tag() {
            return Ok(());
        }
        let ours = manifest_of(image, &step.digest)?;
        let turn = self.turn(&step.tag);
        let _mine = turn.lock().await;
        let outcome = match self.set(image, step, ours, doubtful).await {
            Ok(TagOutcome { action: CompanionAction::Refuse { reason }, .. }) => {
                return Err(Error::new(Kind::Refused, reason));
            }
            Ok(outcome) => outcome,
            // The image does not need it, unless it is the list itself.
            Err(error) if !is_own && is_of_companion_alone(&error, &step.tag) => {
                TagOutcome { action: CompanionAction::Obstructed { reason: error.chain() }, state: step.state }
            }
            Err(error) => return Err(error),
        };
        let mut companions = self.companions.lock().unwrap_or_else(PoisonError::into_inner);
        companions.record(&step.tag, step.digest, outcome);
        Ok(())
    }

    /// Decides according to what the tag means now, and sets it.
    async fn set(&self, image: &Image, step: &CompanionStep, ours: &Manifest, doubtful: bool) -> Result<TagOutcome> {
        let begun = Instant::now();
        let (outcome, joined) = self.prepare(image, step, ours, doubtful).await?;
        let written = match (&outcome.action, &joined) {
            // An immutable tag would refuse even the same digest.
            (CompanionAction::Nothing | CompanionAction::Refuse { .. }, _) => return Ok(outcome),
            (left, _) if left.leaves_tag() => return Ok(outcome),
            (CompanionAction::Join { .. }, Some(joined)) => &joined.manifest,
            (_, _) => ours,
        };
        self.tag(image, &step.tag, written).await?;
        self.note_written(&step.tag, written, begun);
        Ok(outcome)
    }

    /// Decides, and sends the blobs that only this decision needs. During that moment another program may add its own
    /// signature; it is then decided again. No registry supports changing a tag only if it still means what was read.
    async fn prepare(
        &self,
        image: &Image,
        step: &CompanionStep,
        ours: &Manifest,
        doubtful: bool,
    ) -> Result<(TagOutcome, Option<Joined>)> {
        let mut tries = 0..MOST_JOINS;
        loop {
            let decided = self.decide(step, ours, doubtful).await?;
            match (&decided.0.action, &decided.1) {
                (CompanionAction::Join { .. }, Some(list)) => self.send_config(&step.tag, list).await?,
                (CompanionAction::Push, _) if step.action != CompanionAction::Push => {
                    self.blobs_after_all(image, &step.tag.repository, ours).await?;
                }
                _ => return Ok(decided),
            }
            let now = TagState::now(&self.sink.resolve(&step.tag).await?, &step.digest);
            // For a doubtful image, a statement that it exists already is not believed.
            if now == decided.0.state || doubtful && now == TagState::Same {
                return Ok(decided);
            }
            // The list joined so far would replace what another program has just written.
            if tries.next().is_none() {
                let action = CompanionAction::Obstructed { reason: BUSY.to_owned() };
                return Ok((TagOutcome { action, state: now }, None));
            }
        }
    }

    /// Compares the list under a tag that means another one with `ours`. `None` if it is gone. A list that is named and
    /// not delivered is not gone: several servers may answer for one registry, some later than others.
    pub(super) async fn compared(
        &self,
        tag: &Reference,
        ours: &Manifest,
    ) -> Result<Option<(ListState, Option<Joined>)>> {
        let compared = compare(self.sink, tag, ours).await?;
        if compared.is_some()
            || matches!(TagState::now(&self.sink.resolve(tag).await?, &ours.digest()), TagState::New | TagState::Same)
        {
            return Ok(compared);
        }
        Ok(Some((ListState::Unknown("the registry lists it but does not deliver it".to_owned()), None)))
    }

    /// As in the plan, according to what the tag means now.
    async fn decide(
        &self,
        step: &CompanionStep,
        ours: &Manifest,
        doubtful: bool,
    ) -> Result<(TagOutcome, Option<Joined>)> {
        let found = self.sink.resolve(&step.tag).await?;
        let mut state = TagState::now(&found, &step.digest);
        if doubtful && state == TagState::Same && !self.is_there(&step.tag).await? {
            state = TagState::New;
        }
        let (mut list, mut joined) = (None, None);
        let is_list = step.tag.tag.as_ref().is_some_and(Tag::is_list);
        if matches!(state, TagState::Other(_) | TagState::Blocked) && is_list {
            match self.compared(&step.tag, ours).await? {
                Some((now, both)) => (list, joined) = (Some(now), both),
                None => state = TagState::New,
            }
        }
        // A list of referrers that did not exist before may be one that the registry made of what was just pushed.
        let is_made = step.state == TagState::New && step.tag.tag.as_ref().is_some_and(Tag::is_referrers_list);
        // What this run has written there for another image did not exist before the run.
        let is_ours = step.state == TagState::New && self.has_written(&step.tag, state);
        let on_existing = if is_made || is_ours { OnExisting::Overwrite } else { step.on_existing };
        let action = decide(&step.tag, state, list.as_ref(), on_existing);
        Ok((TagOutcome { action, state }, joined))
    }

    /// Sends the blobs that were not needed as long as the tag had another list.
    async fn blobs_after_all(&self, image: &Image, to: &Repository, ours: &Manifest) -> Result<()> {
        let origin = Origin { source: &self.source, repository: &image.locked.reference.repository };
        for child in ours.children().into_iter().filter(|child| matches!(child.role, Role::Config | Role::Layer)) {
            if !self.sink.has_blob(to, &child.descriptor).await? {
                self.send_blob(to, &child.descriptor, &origin).await?;
            }
        }
        Ok(())
    }

    /// Sends the config of a joined list, which is new. The blobs of their signatures exist, and ours do by now. A list
    /// of referrers has none.
    pub(super) async fn send_config(&self, tag: &Reference, joined: &Joined) -> Result<()> {
        let Some(config) = joined.manifest.config() else { return Ok(()) };
        let source = InMemory(joined.config.clone());
        let origin = Origin { source: &source, repository: &tag.repository };
        self.send_blob(&tag.repository, config, &origin).await
    }
}

/// Whether setting the tag of a companion failed because of a rule that could not be read before, or because of a list
/// that the registry fails on, refuses, or does not have after it accepted it.
fn is_of_companion_alone(error: &Error, tag: &Reference) -> bool {
    let is_list = tag.tag.as_ref().is_some_and(Tag::is_list);
    error.reason() == Some(&Reason::ImmutableTag) || is_list && (error.is_of_object_alone() || is_swallowed(error))
}

/// Whether the registry accepted it and does not have it.
fn is_swallowed(error: &Error) -> bool {
    error.reason() == Some(&Reason::DamagedTarget) && error.stopped().is_none()
}

/// A blob that was created here.
struct InMemory(Bytes);

#[async_trait]
impl Source for InMemory {
    async fn tags(&self, _: &Repository, _: Need) -> Result<TagList> {
        Ok(TagList::default())
    }

    async fn resolve(&self, _: &Reference, _: Need) -> Result<Option<Descriptor>> {
        Ok(None)
    }

    async fn manifest(&self, _: &Reference, _: Need) -> Result<Option<Manifest>> {
        Ok(None)
    }

    async fn referrers(&self, _: &Repository, _: &Digest) -> Result<ReferrerList> {
        Ok(ReferrerList::default())
    }

    async fn blob(&self, _: &Repository, _: &Descriptor, _: u64) -> Result<Body> {
        let bytes = self.0.clone();
        Ok(Body::new(0, stream::once(async move { Ok(bytes) }).boxed()))
    }

    async fn gave_wrong(&self, _: &Repository, _: &Descriptor, error: Error) -> Result<()> {
        Err(error)
    }

    fn counts_pulls(&self, _: &Repository) -> bool {
        false
    }

    fn files(&self) -> Option<&dyn Files> {
        None
    }
}
