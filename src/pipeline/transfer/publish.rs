//! Publishes one image: its manifests children first, its companions after their subjects, its tag last.

use std::sync::{Arc, PoisonError};

use super::Transfer;
use super::outcome::Done;
use super::refused::Refused;
use super::tag_outcomes::TagOutcome;
use crate::base::error::{Error, Kind, Reason, Result};
use crate::base::progress::Event;
use crate::content::Lookup;
use crate::oci::{Digest, Manifest, Reference, Repository};
use crate::pipeline::graph::Image;
use crate::pipeline::plan::{Action, CompanionAction, ImageStep, TagState, WITHHELD_REMEDY, put_by_tag};

impl Transfer<'_> {
    pub(super) async fn image(&self, image: &Image, step: &ImageStep) -> Result<Done, Arc<Error>> {
        match step.action {
            Action::Nothing => return Ok(Done::Present),
            Action::Skip => return Ok(Done::Skipped),
            Action::Refuse => {
                return Err(Arc::new(Error::new(Kind::Refused, step.refusal())));
            }
            Action::Immutable => {
                let text = "the tag already means another image, and a rule of the project makes it immutable";
                return Err(Arc::new(Error::new(Kind::Refused, text).with_reason(Reason::ImmutableTag)));
            }
            Action::Wait => return self.waiting(image, step),
            Action::Push => {}
        }
        self.check_blobs(image, step)?;
        let done = self.publish(image, step).await?;
        let companions = self.companions.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match step.own_list().and_then(|own| companions.get(&own.tag, &own.digest)) {
            Some(outcome) if outcome.action.leaves_tag() => Done::Skipped,
            // Its list contains all of ours by now.
            Some(TagOutcome { action: CompanionAction::Nothing, state: TagState::Other(_) }) => Done::Present,
            _ => done,
        })
    }

    /// Returns the result for an image that waits for others. The blobs that the bundle has for it must have arrived.
    pub(super) fn waiting(&self, image: &Image, step: &ImageStep) -> Result<Done, Arc<Error>> {
        self.check_blobs(image, step)?;
        Ok(Done::Waiting)
    }

    pub(super) fn check_blobs(&self, image: &Image, step: &ImageStep) -> Result<(), Arc<Error>> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = || step.blobs(image).filter_map(|blob| failed.get(&(step.to.repository.clone(), blob.digest)));
        // An error that ended everything else says more than that one blob failed.
        let error = errors().find(|error| error.stopped().is_some()).or_else(|| errors().next());
        error.cloned().map_or(Ok(()), Err)
    }

    /// Puts manifests children first, companions after their subjects, and tags when everything exists.
    async fn publish(&self, image: &Image, step: &ImageStep) -> Result<Done> {
        let repository = &step.to.repository;
        // A list's own tag is among those of the companions.
        let is_same = step.tag == TagState::Same && (!step.doubtful || self.is_there(&step.to).await?);
        let gets_tag = step.to.digest.is_none() && !is_same && step.own_list().is_none();
        let by_tag = put_by_tag(image, &step.to).filter(|_| !is_same);
        let mut refused = Refused::default();
        for manifest in step.manifests(image) {
            let digest = manifest.digest();
            if refused.manifests.contains_key(&digest) {
                continue;
            }
            let is_present = step.present.contains(&digest)
                && (!step.doubtful || self.is_there(&repository.with_digest(digest)).await?);
            if !is_present && by_tag != Some(digest) {
                let put = self.put_once(image, repository, manifest).await;
                put.or_else(|error| refused.add(image, repository.with_digest(digest), error))?;
            }
        }
        self.note_refused(step, &refused);
        for companion in step.companions.iter().filter(|own| !refused.companions.contains_key(&own.digest)) {
            self.companion(image, step, companion).await?;
        }
        if step.is_unreadable {
            return self.unread(image, step).await;
        }
        if gets_tag {
            let tagged = self.tag(image, &step.to, manifest_of(image, &image.locked.digest)?).await;
            if let Some(before) = step.replaced().filter(|_| self.publishing.is_set(&step.to)) {
                self.events.report(Event::Notice(format!("{} is overwritten; it was {before}", step.to)));
            }
            return match tagged {
                Err(error) => self.keep_immutable(image, step, error).await,
                Ok(()) => Ok(Done::Pushed),
            };
        }
        Ok(Done::Pushed)
    }

    /// Returns the result for an image whose own manifest the target has and withholds. What was pushed with it may be
    /// under the same policy.
    ///
    /// # Errors
    /// It is not known that the tag means the image, and the tag cannot be set without its manifest.
    async fn unread(&self, image: &Image, step: &ImageStep) -> Result<Done> {
        let found = self.sink.resolve(&step.to).await?;
        if found.means(&image.locked.digest) {
            return Ok(Done::Present);
        }
        let (why, state) = match found {
            Lookup::Blocked(why) => {
                (format!(" ({why})"), "an account that may read artifacts there knows whether the tag means it")
            }
            Lookup::Found(_) => (String::new(), "the tag means another image"),
            Lookup::Absent => (String::new(), "the tag is new"),
        };
        let text = format!(
            "the bundle leaves manifest {} to the target, where a policy of the project forbids reading it{why}; {state}; \
             {WITHHELD_REMEDY}",
            image.locked.digest
        );
        Err(Error::new(Kind::Refused, text).with_reason(Reason::PullPolicy))
    }

    pub(super) async fn put_once(&self, image: &Image, repository: &Repository, manifest: &Manifest) -> Result<()> {
        let name = repository.with_digest(manifest.digest());
        let turn = self.turn(&name);
        let mut is_there = turn.lock().await;
        if !*is_there {
            self.put_manifest(image, &name, manifest).await?;
            self.publishing.note(&name, manifest.digest());
            let why = self.check_stored(&name, manifest.digest()).await?;
            *is_there = true;
            self.note_blocked(&name, why);
        }
        Ok(())
    }

    /// Sets `tag` and reads it back.
    pub(super) async fn tag(&self, image: &Image, tag: &Reference, manifest: &Manifest) -> Result<()> {
        let digest = manifest.digest();
        let turn = self.turn(&tag.repository.with_digest(digest));
        let mut is_there = turn.lock().await;
        {
            let _begun = self.publishing.begin().await;
            self.put_manifest(image, tag, manifest).await?;
            self.publishing.note(tag, digest);
        }
        // The registry has said that it stored these bytes. A policy may forbid reading them.
        let why = self.check_stored(tag, digest).await?;
        *is_there = true;
        self.note_blocked(tag, why);
        Ok(())
    }

    fn note_blocked(&self, name: &Reference, why: Option<String>) {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.extend(why.map(|why| (name.clone(), why)));
    }
}

pub(super) fn manifest_of<'i>(image: &'i Image, digest: &Digest) -> Result<&'i Manifest> {
    let found = image.manifests.iter().find(|manifest| manifest.digest() == *digest);
    found.ok_or_else(|| Error::damaged(format!("{digest} is not among the image's manifests")))
}
