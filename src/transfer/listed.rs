//! Lists that other programs may write at the same time: those of signatures under cosign's tags, and those of referrers under a
//! fallback tag. No registry can be asked to change a tag only if it means what was read, so of two that write at once one may lose
//! what it wrote. What this run has written is therefore looked at once more at its end, and written again if it is lost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::PoisonError;

use futures_util::stream::{self, StreamExt};

use super::{Settled, Transfer};
use crate::content::Stored;
use crate::error::{Error, Kind, Reason, Result};
use crate::graph::{Graph, Image};
use crate::oci::{Digest, Manifest, Reference, Repository, Tag};
use crate::plan::{CompanionAction, ListState, Plan, TagState, compare};

/// How often a list is joined again that another writer changes at the same moment.
pub const MOST_JOINS: u32 = 3;

/// A list that was left alone, so that it does not name a manifest that is there.
#[derive(Clone, Debug)]
pub struct Unlisted {
    /// The tag of the list.
    pub list: Reference,
    pub why: String,
    /// This account may not read it.
    pub is_denied: bool,
}

/// What this run has written into lists.
#[derive(Default)]
pub struct Written {
    /// By their tags: what they were last given to mean.
    lists: BTreeMap<Reference, Manifest>,
    /// Manifests that were entered in the list of their subject.
    entries: HashSet<(Repository, Digest)>,
}

impl Transfer<'_> {
    /// Notes what came of storing a manifest.
    pub(super) fn note_stored(&self, repository: &Repository, manifest: &Manifest, stored: Stored) {
        let here = (repository.clone(), manifest.digest());
        match stored {
            Stored::Listed => {}
            Stored::Entered => _ = self.written.lock().unwrap_or_else(PoisonError::into_inner).entries.insert(here),
            Stored::Unlisted { list, why } => self.note_unlisted(here, list, &why),
        }
    }

    fn note_unlisted(&self, manifest: (Repository, Digest), list: Reference, why: &Error) {
        let is_denied = why.reason() == Some(&Reason::NoPullRight);
        let unlisted = Unlisted { list, why: why.chain(), is_denied };
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner).insert(manifest, unlisted);
    }

    /// Notes what the tag of a companion was given to mean, if it is one of a list.
    pub(super) fn note_written(&self, tag: &Reference, list: &Manifest) {
        if tag.tag.as_ref().is_some_and(Tag::is_list) {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.lists.insert(tag.clone(), list.clone());
        }
    }

    /// Whether this run has given the tag the meaning that it has.
    pub(super) fn has_written(&self, tag: &Reference, state: TagState) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(state, TagState::Other(found) if written.lists.get(tag).is_some_and(|list| list.digest() == found))
    }

    /// Looks at the lists that were written once more. What is missing is written again; where that does not help, the companion has
    /// failed.
    pub(super) async fn check_lists(&self, graph: &Graph, plan: &Plan) {
        let Written { lists, entries } =
            std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        let mut images: HashMap<&Reference, &Image> = HashMap::new();
        let mut manifests: HashMap<(&Repository, Digest), &Manifest> = HashMap::new();
        for (image, step) in graph.images.iter().zip(&plan.images) {
            step.companions.iter().for_each(|own| _ = images.insert(&own.tag, image));
            let speaking = image.manifests.iter().filter(|manifest| manifest.subject().is_some());
            manifests.extend(speaking.map(|manifest| ((&step.to.repository, manifest.digest()), manifest)));
        }
        let lists = lists.iter().filter_map(|(tag, list)| Some((tag, list, *images.get(tag)?)));
        let lists = lists.map(|(tag, list, image)| self.check_list(image, tag, list));
        stream::iter(lists).buffer_unordered(self.options.jobs.max(1)).collect::<()>().await;
        let entries = entries.iter().filter_map(|(at, digest)| Some((at, *manifests.get(&(at, *digest))?)));
        let entries = entries.map(|(at, manifest)| self.check_entry(at, manifest));
        stream::iter(entries).buffer_unordered(self.options.jobs.max(1)).collect::<()>().await;
    }

    async fn check_list(&self, image: &Image, tag: &Reference, list: &Manifest) {
        let why = match self.restore(image, tag, list).await {
            Ok(None) => return,
            Ok(Some(settled)) => return self.resettle(tag, settled),
            // It was there a moment ago, and what ended the run is reported for all that it concerns.
            Err(error) if error.stopped().is_some() => return,
            Err(error) => error,
        };
        let reason = format!("the list was written, and what became of it is not known: {}", why.chain());
        let state = TagState::Other(list.digest());
        self.resettle(tag, Settled { action: CompanionAction::Obstructed { reason }, state });
    }

    /// What the tag meant before stays what it was found to mean first.
    fn resettle(&self, tag: &Reference, settled: Settled) {
        let mut companions = self.companions.lock().unwrap_or_else(PoisonError::into_inner);
        let state = companions.get(tag).map_or(settled.state, |known| known.state);
        companions.insert(tag.clone(), Settled { state, ..settled });
    }

    /// Sees to it that the tag has all of `list`. `None`: it has, and nothing was changed.
    async fn restore(&self, image: &Image, tag: &Reference, list: &Manifest) -> Result<Option<Settled>> {
        let turn = self.turn(tag);
        let _mine = turn.lock().await;
        let mut settled = None;
        for _ in 0..=MOST_JOINS {
            let found = TagState::now(&self.sink.resolve(tag).await?, &list.digest());
            let compared = match found {
                TagState::Same | TagState::Blocked => return Ok(settled),
                TagState::New => None,
                TagState::Other(_) => compare(self.sink, tag, list).await?,
            };
            let action = match compared {
                Some((ListState::HasOurs | ListState::Equal | ListState::Unreadable { .. }, _)) => return Ok(settled),
                Some((ListState::Unknown(why), _)) => {
                    let reason = format!("something else has replaced the list that was written: {why}");
                    return Ok(Some(Settled { action: CompanionAction::Obstructed { reason }, state: found }));
                }
                Some((ListState::Differs { joined, kept, added }, Some(both))) => {
                    self.send_config(tag, &both).await?;
                    self.tag(image, tag, &both.manifest).await?;
                    CompanionAction::Join { joined, kept, added }
                }
                // Then what was settled when it was first written is true again.
                _ => {
                    self.tag(image, tag, list).await?;
                    settled = None;
                    continue;
                }
            };
            settled = Some(Settled { action, state: found });
        }
        let reason = "other programs write the list at the same time, and what was added to it was lost each time; run the same \
                      command again when they have ended";
        let action = CompanionAction::Obstructed { reason: reason.to_owned() };
        Ok(Some(Settled { action, state: TagState::Other(list.digest()) }))
    }

    async fn check_entry(&self, repository: &Repository, manifest: &Manifest) {
        let Some(subject) = manifest.subject() else { return };
        if let Err(why) = self.restore_entry(repository, manifest).await
            && why.stopped().is_none()
        {
            let list = repository.with_tag(Tag::referrers(&subject.digest));
            self.note_unlisted((repository.clone(), manifest.digest()), list, &why);
        }
    }

    async fn restore_entry(&self, repository: &Repository, manifest: &Manifest) -> Result<()> {
        let name = repository.with_digest(manifest.digest());
        for _ in 0..=MOST_JOINS {
            if self.sink.is_listed(repository, manifest).await? {
                return Ok(());
            }
            // To put it again enters it.
            match self.sink.put_manifest(&name, manifest).await? {
                Stored::Unlisted { list, why } => {
                    self.note_unlisted((repository.clone(), manifest.digest()), list, &why);
                    return Ok(());
                }
                // It was found in the list a moment ago.
                Stored::Listed => return Ok(()),
                Stored::Entered => {}
            }
        }
        let text = "other programs write the list at the same time, and the entry was lost each time; run the same command again when \
                    they have ended";
        Err(Error::new(Kind::Refused, text))
    }
}
