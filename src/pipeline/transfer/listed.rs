//! Lists that other programs may write at the same time: lists of signatures under cosign's tags, and lists of
//! referrers under a fallback tag. No registry supports changing a tag only if it still means what was read, so if two
//! programs write at once, one may lose its entries. Lists that this run has written are therefore read once more at
//! its end, and written again if entries are lost.
//!
//! A program that has read a list before this run wrote it may write it afterwards, for as long as that takes it. The
//! check therefore waits until such programs have had twice the time that this run needed itself, and is repeated as
//! long as it finds that another program writes there. A much slower program that does not check itself can still lose
//! what was written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};

use super::Transfer;
use crate::base::error::{Error, Kind, Reason, Result};
use crate::content::Stored;
use crate::oci::{Digest, Manifest, Reference, Repository, Tag};
use crate::pipeline::graph::{Graph, Image};
use crate::pipeline::plan::{CompanionAction, ListState, Plan, TagState};

/// How often a list is joined again if another program changes it at the same time.
pub const MOST_JOINS: u32 = 3;

pub(super) const BUSY: &str = "other programs write the list at the same time, and our entries were lost each time; \
                               run the same command again when they have ended";

/// How often a list is read at the end if others write it.
const MOST_LOOKS: u32 = 4;
/// Maximum wait before a list is read again, and the minimum if others were seen.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const WAIT_FOR_OTHERS: Duration = Duration::from_millis(500);

/// Why a companion is not found through its subject.
#[derive(Clone, Debug)]
pub struct Unlisted {
    /// The tag of the list that should name it or, if the target refuses the companion itself, the companion.
    pub what: Reference,
    pub why: String,
    pub cause: Cause,
}

/// What prevents a companion from being pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The list was left alone.
    List,
    /// This account may not read the list.
    Denied,
    /// The target does not accept the companion.
    Refused,
}

/// What this run has written into lists.
#[derive(Default)]
pub struct WrittenLists {
    /// By tag: the list that the tag was last set to.
    lists: BTreeMap<Reference, Manifest>,
    /// Manifests that were entered in the list of their subject.
    entries: HashSet<(Repository, Digest)>,
    pace: Pace,
}

/// When lists are written.
#[derive(Clone, Copy, Default)]
struct Pace {
    /// When the last list was written.
    last: Option<Instant>,
    /// Longest time from reading a list to the answer that it is written.
    slowest: Duration,
}

impl Pace {
    fn note(&mut self, begun: Instant) {
        self.last = Some(Instant::now());
        self.slowest = self.slowest.max(begun.elapsed());
    }

    /// Returns the time after which a program that is no slower has written its list.
    fn wait(&self) -> Duration {
        (self.slowest * 2).min(LONGEST_WAIT)
    }

    /// Returns the rest of that time.
    fn rest(&self) -> Duration {
        self.last.map_or(Duration::ZERO, |last| self.wait().saturating_sub(last.elapsed()))
    }
}

/// A written list that is checked at the end.
#[derive(Clone)]
struct Watched<'t> {
    image: &'t Image,
    tag: &'t Reference,
    /// What this run last wrote there.
    list: Manifest,
    /// What the tag was last seen to mean.
    means: Digest,
}

impl Transfer<'_> {
    /// Records the result of storing a manifest.
    pub(super) fn note_stored(&self, repository: &Repository, manifest: &Manifest, stored: Stored, begun: Instant) {
        let here = (repository.clone(), manifest.digest());
        match stored {
            Stored::Listed => {}
            Stored::Entered => {
                let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                written.entries.insert(here);
                written.pace.note(begun);
            }
            Stored::Unlisted { list, why } => self.note_unlisted(here, list, &why),
        }
    }

    fn note_unlisted(&self, manifest: (Repository, Digest), list: Reference, why: &Error) {
        let cause = if why.reason() == Some(&Reason::NoPullRight) { Cause::Denied } else { Cause::List };
        let unlisted = Unlisted { what: list, why: why.chain(), cause };
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner).insert(manifest, unlisted);
    }

    /// Records what the tag of a companion was set to, if it is that of a list.
    pub(super) fn note_written(&self, tag: &Reference, list: &Manifest, begun: Instant) {
        if tag.tag.as_ref().is_some_and(Tag::is_list) {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.lists.insert(tag.clone(), list.clone());
            written.pace.note(begun);
        }
    }

    /// Whether this run has given the tag its current meaning.
    pub(super) fn has_written(&self, tag: &Reference, state: TagState) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(state, TagState::Other(found) if written.lists.get(tag).is_some_and(|list| list.digest() == found))
    }

    /// Reads the written lists once more. Missing entries are written again; if that does not help, the companion has
    /// failed.
    pub(super) async fn check_lists(&self, graph: &Graph, plan: &Plan) {
        let (lists, entries) = {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut written.lists), std::mem::take(&mut written.entries))
        };
        let mut images: HashMap<&Reference, &Image> = HashMap::new();
        let mut manifests: HashMap<(&Repository, Digest), &Manifest> = HashMap::new();
        for (image, step) in graph.images.iter().zip(&plan.images) {
            step.companions.iter().for_each(|own| _ = images.insert(&own.tag, image));
            let speaking = image.manifests.iter().filter(|manifest| manifest.subject().is_some());
            manifests.extend(speaking.map(|manifest| ((&step.to.repository, manifest.digest()), manifest)));
        }
        let watched = lists.iter().filter_map(|(tag, list)| {
            let image = *images.get(tag)?;
            Some(Watched { image, tag, list: list.clone(), means: list.digest() })
        });
        let mut watched: Vec<Watched> = watched.collect();
        let entries = entries.iter().filter_map(|(at, digest)| Some((at, *manifests.get(&(at, *digest))?)));
        let mut entries: Vec<(&Repository, &Manifest)> = entries.collect();
        let jobs = self.options.jobs.max(1);
        for look in 0..MOST_LOOKS {
            if watched.is_empty() && entries.is_empty() {
                break;
            }
            let pace = self.written.lock().unwrap_or_else(PoisonError::into_inner).pace;
            let pause = if look == 0 { pace.rest() } else { pace.wait().max(WAIT_FOR_OTHERS) };
            tokio::time::sleep(pause).await;
            let looks = stream::iter(watched).map(|list| self.check_list(list)).buffer_unordered(jobs);
            watched = looks.filter_map(std::future::ready).collect().await;
            let looks = entries.iter().map(|(at, manifest)| async {
                let is_others = self.check_entry(at, manifest).await;
                is_others.then_some((*at, *manifest))
            });
            entries = stream::iter(looks).buffer_unordered(jobs).filter_map(std::future::ready).collect().await;
        }
    }

    /// Returns the list if another program writes it as well: it must then be checked again.
    async fn check_list<'t>(&self, mut list: Watched<'t>) -> Option<Watched<'t>> {
        let why = match self.restore(&mut list).await {
            Ok((restored, is_others)) => {
                restored.into_iter().for_each(|action| self.record_again(list.tag, &action));
                return is_others.then_some(list);
            }
            // It existed a moment ago, and what ended the run is reported for everything that it affects.
            Err(error) if error.stopped().is_some() => return None,
            Err(error) => error,
        };
        let reason = format!("the list was written, but it could not be read back: {}", why.chain());
        self.record_again(list.tag, &CompanionAction::Obstructed { reason });
        None
    }

    fn record_again(&self, tag: &Reference, action: &CompanionAction) {
        self.companions.lock().unwrap_or_else(PoisonError::into_inner).record_again(tag, action);
    }

    /// Makes sure that the tag contains the whole list. `None` if it did and nothing was changed. Also returns whether
    /// another program writes it.
    async fn restore(&self, watched: &mut Watched<'_>) -> Result<(Option<CompanionAction>, bool)> {
        let Watched { image, tag, list, means: before } = watched.clone();
        let turn = self.turn(tag);
        let _mine = turn.lock().await;
        let (mut restored, mut is_others) = (None, false);
        for _ in 0..=MOST_JOINS {
            let begun = Instant::now();
            let found = TagState::now(&self.sink.resolve(tag).await?, &list.digest());
            let compared = match found {
                TagState::Same | TagState::Blocked => return Ok((restored, is_others)),
                TagState::New => None,
                TagState::Other(means) => {
                    is_others |= means != before;
                    watched.means = means;
                    self.compared(tag, &list).await?
                }
            };
            let (action, written) = match compared {
                Some((ListState::HasOurs | ListState::Equal | ListState::Unreadable { .. }, _)) => {
                    return Ok((restored, is_others));
                }
                Some((ListState::Unknown(why), _)) => {
                    let reason = format!("something else has replaced the list that was written: {why}");
                    return Ok((Some(CompanionAction::Obstructed { reason }), false));
                }
                Some((ListState::Differs { joined, kept, added }, Some(both))) => {
                    self.send_config(tag, &both).await?;
                    (Some(CompanionAction::Join { joined, kept, added }), both.manifest)
                }
                // Then the decision of the first time is right again.
                _ => (None, list.clone()),
            };
            self.tag(image, tag, &written).await?;
            self.written.lock().unwrap_or_else(PoisonError::into_inner).pace.note(begun);
            (watched.means, is_others) = (written.digest(), true);
            watched.list = written;
            restored = action;
        }
        Ok((Some(CompanionAction::Obstructed { reason: BUSY.to_owned() }), false))
    }

    /// Whether another program writes the list as well, so that it has to be checked again.
    async fn check_entry(&self, repository: &Repository, manifest: &Manifest) -> bool {
        let Some(subject) = manifest.subject() else { return false };
        match self.restore_entry(repository, manifest).await {
            Ok(is_others) => return is_others,
            Err(why) if why.stopped().is_some() => {}
            Err(why) => {
                let list = repository.with_tag(Tag::referrers(&subject.digest));
                self.note_unlisted((repository.clone(), manifest.digest()), list, &why);
            }
        }
        false
    }

    async fn restore_entry(&self, repository: &Repository, manifest: &Manifest) -> Result<bool> {
        let name = repository.with_digest(manifest.digest());
        let mut is_others = false;
        for _ in 0..=MOST_JOINS {
            let begun = Instant::now();
            if self.sink.is_listed(repository, manifest).await? {
                return Ok(is_others);
            }
            // Putting it again enters it.
            match self.sink.put_manifest(&name, manifest).await? {
                Stored::Unlisted { list, why } => {
                    self.note_unlisted((repository.clone(), manifest.digest()), list, &why);
                    return Ok(false);
                }
                // It was found in the list a moment ago.
                Stored::Listed => return Ok(is_others),
                Stored::Entered => {
                    is_others = true;
                    self.written.lock().unwrap_or_else(PoisonError::into_inner).pace.note(begun);
                }
            }
        }
        let text = "other programs write the list at the same time, and our entry was lost each time; run the same \
                    command again when they have ended";
        Err(Error::new(Kind::Refused, text))
    }
}
