//! What the target already has of a job.
//!
//! Every node is asked about. A parent that exists says nothing about what is below it (an interrupted push, a garbage
//! collection), and a blob in one repository nothing about another, whose link to it may be lost. An unchanged import
//! therefore costs one HEAD for each tag, each child of an index, and each blob of each repository; a registry answers
//! them no faster to a program that does nothing else (`scripts/bench again`). Putting the manifests again would prove
//! the same with fewer requests, but it would change the target: times of the last push, webhooks, immutable tags. Only
//! a repository without any tag is asked less: it is new, or was left by an interrupted push.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::lists::{self, ListState};
use super::{Targets, put_by_tag};
use crate::base::error::{Error, Kind, Reach, Result};
use crate::base::progress::{Event, Events, Phase};
use crate::content::{Lookup, Sink};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use crate::pipeline::graph::Graph;
use crate::pipeline::resolve::Failures;

/// Size of a blob in bytes from which it is asked for even in a repository that seems to be new: sending it is far more
/// work than asking.
const LARGE: u64 = 8 * 1024 * 1024;

/// Number of denials after which no more is asked if nothing was answered yet: the password may be wrong, and too many
/// attempts lock an account.
const MOST_DENIED: usize = 5;

/// What the target has of the content of a job.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    pub blobs: HashSet<(Repository, Digest)>,
    pub manifests: HashSet<(Repository, Digest)>,
    /// Manifests that exist and that a policy of the target forbids pulling, with the target's words.
    pub withheld: HashMap<(Repository, Digest), String>,
    /// What each tag means there now. Tags that do not exist are missing.
    pub tags: HashMap<Reference, Digest>,
    /// Tags that exist or may exist, and whose meaning this account may not read, for lack of a right or because of a
    /// policy, with the target's words.
    pub blocked: HashMap<Reference, String>,
    /// Immutable tags among those that mean something else.
    pub immutable: HashSet<Reference>,
    /// How lists of signatures there relate to those of the job, if their tags mean something else. Two images may
    /// bring different lists for one tag, so each list of the job is identified by its tag and its digest.
    pub lists: HashMap<(Reference, Digest), ListState>,
    /// Blobs that some other repository of the target has, from which they can be mounted.
    pub elsewhere: HashMap<Digest, Repository>,
}

impl Inventory {
    /// Records that the tag or digest means the existing manifest `digest`.
    pub fn note(&mut self, reference: Reference, digest: Digest) {
        self.blocked.remove(&reference);
        self.manifests.insert((reference.repository.clone(), digest));
        self.tags.insert(reference, digest);
    }

    /// Records that the target has these blobs, each in a repository from which it can be mounted.
    pub fn rely_on(&mut self, places: &HashMap<Digest, Repository>) {
        self.blobs.extend(places.iter().map(|(digest, repository)| (repository.clone(), *digest)));
        self.elsewhere.extend(places.iter().map(|(digest, repository)| (*digest, repository.clone())));
    }

    /// Returns the tags of images and their companions that mean something else there and may get another meaning. A
    /// list that contains all of ours gets none.
    pub fn moved(&self, graph: &Graph, targets: &Targets) -> BTreeSet<Reference> {
        let named = graph.images.iter().zip(targets).flat_map(|(image, to)| {
            let own = std::iter::once((to.clone(), image.locked.digest));
            own.chain(image.locked.companion_tags(&to.repository))
        });
        let is_other = |tag: &Reference, wanted: &Digest| self.tags.get(tag).is_some_and(|found| found != wanted);
        let moved =
            named.filter(|name| is_other(&name.0, &name.1) && self.lists.get(name) != Some(&ListState::HasOurs));
        moved.map(|(tag, _)| tag).collect()
    }
}

/// What is known before the target is asked.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    /// Whether the job brings its blobs in several runs: any of them may exist without a tag.
    pub may_be_half: bool,
    /// Where blobs were found a moment ago.
    pub places: &'a HashMap<Digest, Repository>,
}

/// Asks the target about tags, manifests and blobs, `jobs` questions at a time. Repositories in `closed` are not asked
/// about: they have nothing.
///
/// In a repository without any tag, no manifest is asked for. A blob is first pushed to the first repository of the
/// graph that needs it, and is asked for there. The other new repositories get it by a mount, which moves nothing even
/// if it already exists. Small blobs, except the largest of each repository, are asked for in new repositories only if
/// another blob was found in one: an interrupted import sends the large ones first. If any blob may exist without a tag
/// ([`Before::may_be_half`]), everything is asked for, except blobs that were already found.
///
/// # Errors
/// A question without a clear answer.
pub async fn take_inventory(
    sink: &dyn Sink,
    graph: &Graph,
    targets: &Targets,
    closed: &(dyn Fn(&Repository) -> bool + Sync),
    jobs: usize,
    before: Before<'_>,
    events: &Events,
) -> Result<Inventory> {
    let Questions { mut tags, mut manifests, blobs } = questions(graph, targets, closed, before.places);
    let items = (tags.len() + manifests.len() + blobs.len()) as u64;
    events.report(Event::Phase { phase: Phase::Inventory, items, bytes: 0 });
    let queries = TargetQueries { sink, jobs: jobs.max(1), events };

    let mut references = queries.resolve_all(one_of_each_repository(&mut tags)).await?;
    let new = if before.may_be_half { HashSet::new() } else { queries.untagged(&references).await? };
    let asked = tags.len() + manifests.len();
    tags.retain(|tag| !new.contains(&tag.repository));
    manifests.retain(|manifest| !new.contains(&manifest.repository));
    queries.skip(asked - tags.len() - manifests.len());
    references.extend(queries.resolve_all(tags).await?);
    references.extend(queries.resolve_all(manifests).await?);

    let scouts = largest_of_each_repository(&blobs);
    let (mut likely, mut unlikely) = (Vec::new(), Vec::new());
    for (place, question) in blobs {
        let worth_it = question.blob.size >= LARGE || scouts.contains(&place);
        if !new.contains(&place.0) || question.first && worth_it {
            likely.push((place, question.blob));
        } else if question.first {
            unlikely.push((place, question.blob));
        } else {
            queries.skip(1);
        }
    }
    let mut inventory = Inventory { blobs: queries.find_blobs(likely).await?, ..Inventory::default() };
    if inventory.blobs.iter().any(|(repository, _)| new.contains(repository)) {
        inventory.blobs.extend(queries.find_blobs(unlikely).await?);
    } else {
        queries.skip(unlikely.len());
    }
    inventory.rely_on(before.places);
    let unlisted = queries.unlisted(graph, targets, &references).await?;
    for (reference, found) in references {
        match (reference.digest, found) {
            (_, Lookup::Absent) => {}
            (Some(_), _) if unlisted.contains(&reference) => {}
            (Some(digest), found) => {
                if let Lookup::Blocked(why) = found {
                    inventory.withheld.insert((reference.repository.clone(), digest), why);
                }
                inventory.note(reference, digest);
            }
            (None, Lookup::Found(found)) => inventory.note(reference, found.digest),
            (None, Lookup::Blocked(why)) => _ = inventory.blocked.insert(reference, why),
        }
    }
    inventory.withheld.extend(queries.withheld_roots(graph, targets, &inventory.blocked).await?);
    inventory.lists = queries.lists(graph, targets, &inventory).await?;
    Ok(inventory)
}

/// Asks only what the tags mean there, for a push that relies on nothing else. Everything has to be sent then.
///
/// # Errors
/// A question without a clear answer.
pub async fn take_tags(
    sink: &dyn Sink,
    graph: &Graph,
    targets: &Targets,
    closed: &(dyn Fn(&Repository) -> bool + Sync),
    jobs: usize,
    events: &Events,
) -> Result<Inventory> {
    let Questions { tags, .. } = questions(graph, targets, closed, &HashMap::new());
    events.report(Event::Phase { phase: Phase::Inventory, items: tags.len() as u64, bytes: 0 });
    let queries = TargetQueries { sink, jobs: jobs.max(1), events };
    let found = queries.resolve_all(tags).await?;
    let mut inventory = Inventory::default();
    for (tag, found) in found {
        match found {
            Lookup::Absent => {}
            Lookup::Found(found) => _ = inventory.tags.insert(tag, found.digest),
            Lookup::Blocked(why) => _ = inventory.blocked.insert(tag, why),
        }
    }
    inventory.withheld = queries.withheld_roots(graph, targets, &inventory.blocked).await?;
    inventory.lists = queries.lists(graph, targets, &inventory).await?;
    Ok(inventory)
}

/// What the target may be asked.
#[derive(Default)]
struct Questions {
    tags: BTreeSet<Reference>,
    manifests: BTreeSet<Reference>,
    blobs: HashMap<(Repository, Digest), BlobQuestion>,
}

struct BlobQuestion {
    blob: Descriptor,
    /// Whether no earlier image needs the blob in another repository.
    first: bool,
}

fn questions(
    graph: &Graph,
    targets: &Targets,
    closed: &(dyn Fn(&Repository) -> bool + Sync),
    places: &HashMap<Digest, Repository>,
) -> Questions {
    let mut questions = Questions::default();
    let mut wanted = HashSet::new();
    for (image, to) in graph.images.iter().zip(targets).filter(|(_, to)| !closed(&to.repository)) {
        let repository = &to.repository;
        let named = if to.digest.is_none() { &mut questions.tags } else { &mut questions.manifests };
        named.insert(to.clone());
        questions.tags.extend(image.locked.companion_tags(repository).map(|(tag, _)| tag));
        // A tag that means the root shows that the root exists. Any other tag is put again, and the root with it.
        let asked =
            image.manifests.iter().map(Manifest::digest).filter(|digest| put_by_tag(image, to) != Some(*digest));
        questions.manifests.extend(asked.map(|digest| repository.with_digest(digest)));
        for blob in &image.blobs {
            if places.get(&blob.digest) == Some(repository) {
                wanted.insert(blob.digest);
                continue;
            }
            let question = questions.blobs.entry((repository.clone(), blob.digest));
            question.or_insert_with(|| BlobQuestion { blob: blob.clone(), first: wanted.insert(blob.digest) });
        }
    }
    questions
}

/// Whether an error says nothing about other repositories.
fn is_of_repository(error: &Error) -> bool {
    let reaches = error.reason().is_some_and(|reason| reason.reach() == Reach::Registry);
    let is_denied = matches!(error.kind(), Kind::NotFound | Kind::Unauthorized | Kind::Refused);
    is_denied && !reaches && error.stopped().is_none()
}

/// Removes them from `tags`.
fn one_of_each_repository(tags: &mut BTreeSet<Reference>) -> BTreeSet<Reference> {
    let mut seen = HashSet::new();
    let ones: BTreeSet<Reference> = tags.iter().filter(|tag| seen.insert(tag.repository.clone())).cloned().collect();
    tags.retain(|tag| !ones.contains(tag));
    ones
}

/// Returns, of the blobs that are first pushed to each repository, the one that an interrupted import would have sent
/// first.
fn largest_of_each_repository(blobs: &HashMap<(Repository, Digest), BlobQuestion>) -> HashSet<(Repository, Digest)> {
    let mut largest: HashMap<&Repository, (u64, Digest)> = HashMap::new();
    for ((repository, digest), question) in blobs.iter().filter(|(_, question)| question.first) {
        let this = (question.blob.size, *digest);
        largest.entry(repository).and_modify(|known| *known = this.max(*known)).or_insert(this);
    }
    largest.into_iter().map(|(repository, (_, digest))| (repository.clone(), digest)).collect()
}

/// Asks several questions at a time.
struct TargetQueries<'a> {
    sink: &'a dyn Sink,
    jobs: usize,
    events: &'a Events,
}

impl TargetQueries<'_> {
    /// Counts questions that need not be asked.
    fn skip(&self, questions: usize) {
        (0..questions).for_each(|_| self.events.report(Event::ItemDone));
    }

    /// # Errors
    /// All errors that concern single repositories, at once: each may need a right of its own.
    async fn resolve_all(&self, references: BTreeSet<Reference>) -> Result<Vec<(Reference, Lookup)>> {
        let questions = stream::iter(references).map(|reference| async move {
            let found = self.sink.resolve(&reference).await?;
            self.events.report(Event::ItemDone);
            Ok((reference, found))
        });
        let mut answers = questions.buffer_unordered(self.jobs);
        let (mut found, mut denied) = (Vec::new(), Vec::new());
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => found.push(answer),
                Err(error) if is_of_repository(&error) => {
                    denied.push(error);
                    if found.is_empty() && denied.len() >= MOST_DENIED {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        denied.sort_by_cached_key(Error::chain);
        if denied.is_empty() { Ok(found) } else { Err(Failures(denied).into_error("asking what the target has")) }
    }

    /// Returns those of the repositories in which a tag was not found that have no tags at all.
    async fn untagged(&self, tags: &[(Reference, Lookup)]) -> Result<HashSet<Repository>> {
        let missing = tags.iter().filter(|(_, found)| found.is_absent()).map(|(tag, _)| tag.repository.clone());
        stream::iter(missing)
            .map(|repository| async move { Ok(self.sink.has_no_tags(&repository).await?.then_some(repository)) })
            .buffer_unordered(self.jobs)
            .try_filter_map(|repository| async move { Ok(repository) })
            .try_collect()
            .await
    }

    async fn find_blobs(
        &self,
        blobs: Vec<((Repository, Digest), Descriptor)>,
    ) -> Result<HashSet<(Repository, Digest)>> {
        stream::iter(blobs)
            .map(|(place, blob)| async move {
                let has = self.sink.has_blob(&place.0, &blob).await?;
                self.events.report(Event::ItemDone);
                Ok(has.then_some(place))
            })
            .buffer_unordered(self.jobs)
            .try_filter_map(|place| async move { Ok(place) })
            .try_collect()
            .await
    }

    /// Returns the images with `blocked` tags whose own manifest exists and is blocked as well: a tag cannot mean what
    /// does not exist.
    async fn withheld_roots(
        &self,
        graph: &Graph,
        targets: &Targets,
        blocked: &HashMap<Reference, String>,
    ) -> Result<HashMap<(Repository, Digest), String>> {
        let images = graph.images.iter().zip(targets).filter(|(_, to)| blocked.contains_key(*to));
        let roots: BTreeSet<Reference> =
            images.map(|(image, to)| to.repository.with_digest(image.locked.digest)).collect();
        stream::iter(roots)
            .map(|root| async move {
                let Lookup::Blocked(why) = self.sink.resolve(&root).await? else { return Ok(None) };
                Ok(root.digest.map(|digest| ((root.repository, digest), why)))
            })
            .buffer_unordered(self.jobs)
            .try_filter_map(|place| async move { Ok(place) })
            .try_collect()
            .await
    }

    /// Reads the lists of signatures whose tags mean something else at the target.
    async fn lists(
        &self,
        graph: &Graph,
        targets: &Targets,
        inventory: &Inventory,
    ) -> Result<HashMap<(Reference, Digest), ListState>> {
        let is_other = |tag: &Reference, ours: &Manifest| {
            inventory.blocked.contains_key(tag) || inventory.tags.get(tag).is_some_and(|found| *found != ours.digest())
        };
        let all = graph.images.iter().zip(targets).flat_map(|(image, to)| lists::lists(image, to));
        let others = all.filter(|(tag, ours)| is_other(tag, ours));
        let others: HashMap<_, _> = others.map(|(tag, ours)| ((tag, ours.digest()), ours)).collect();
        stream::iter(others)
            .map(|(list, ours)| async move {
                let compared = lists::compare(self.sink, &list.0, ours).await?;
                Ok(compared.map(|(state, _)| (list, state)))
            })
            .buffer_unordered(self.jobs)
            .try_filter_map(|list| async move { Ok(list) })
            .try_collect()
            .await
    }

    /// Returns manifests that exist but are not found through their subject. They are put again, which enters them in
    /// the list.
    async fn unlisted(
        &self,
        graph: &Graph,
        targets: &Targets,
        references: &[(Reference, Lookup)],
    ) -> Result<HashSet<Reference>> {
        let there: HashSet<&Reference> =
            references.iter().filter(|(_, found)| !found.is_absent()).map(|(r, _)| r).collect();
        let mut speaking: HashMap<Reference, &Manifest> = HashMap::new();
        for (image, to) in graph.images.iter().zip(targets) {
            for manifest in image.manifests.iter().filter(|manifest| manifest.subject().is_some()) {
                speaking.insert(to.repository.with_digest(manifest.digest()), manifest);
            }
        }
        speaking.retain(|reference, _| there.contains(reference));
        stream::iter(speaking)
            .map(|(reference, manifest)| async move {
                let listed = self.sink.is_listed(&reference.repository, manifest).await?;
                Ok((!listed).then_some(reference))
            })
            .buffer_unordered(self.jobs)
            .try_filter_map(|reference| async move { Ok(reference) })
            .try_collect()
            .await
    }
}
