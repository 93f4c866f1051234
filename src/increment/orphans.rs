//! Companions whose subject is gone: artifacts that refer to an image which no tag of its repository leads to any more.
//!
//! # Threats
//! Signatures of the isolated side are never deleted. Only what a receipt of this side names is a candidate, by its
//! digest: a tag that means anything else by now, such as the joined list of both sides' signatures, stays. So does a
//! companion that someone here has signed or described in turn.

use std::collections::{BTreeSet, HashMap, HashSet};

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::base::error::{Error, Kind, Reason, Result};
use crate::content::{Need, Source};
use crate::oci::{Descriptor, Digest, Reference, Repository, Tag, media_type};
use crate::pipeline::receipt::CompanionReceipt;

/// Number of questions about one repository at a time.
const AT_ONCE: usize = 6;

/// A companion that can be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The tag under which it is found, if it has one.
    pub tag: Option<Tag>,
    pub digest: Digest,
    pub subject: Digest,
    /// `signature`, `SBOM`, …
    pub what: String,
}

/// What can be deleted from a repository, each before its subject.
#[derive(Debug, Default)]
pub struct Orphans {
    pub removable: Vec<Orphan>,
    /// What stays although its subject is gone. Each entry continues a sentence that starts with the name of the
    /// repository.
    pub kept: Vec<String>,
}

/// Returns information about manifests that a policy of the target forbids pulling.
#[async_trait]
pub trait Disclose: Send + Sync {
    /// Returns what the tag or digest means. `None` if this account may not know.
    ///
    /// # Errors
    /// There was no answer.
    async fn disclose(&self, reference: &Reference) -> Result<Option<Disclosed>>;
}

/// A manifest that may not be pulled.
#[derive(Clone, Debug)]
pub struct Disclosed {
    pub descriptor: Descriptor,
    /// For an index, the manifests that it names.
    pub children: Vec<Digest>,
}

/// What is known about a repository.
struct Repo<'a> {
    source: &'a dyn Source,
    withheld: &'a dyn Disclose,
    repository: &'a Repository,
    tags: HashMap<Tag, Descriptor>,
    /// Tags of companions that may not be read. They mean manifests that a policy withholds, none that can be read.
    hidden: HashSet<Tag>,
    /// Everything that an image leads to.
    in_use: HashSet<Digest>,
    /// Digests of all companions that were pushed, whatever happens to them.
    came: HashSet<Digest>,
}

/// Finds which of the companions in `came` can be deleted: those that were pushed into `repository` with images whose
/// tags are gone or `leaving`. What is `wanted` stays, and so does what refers to it. `withheld` is asked about what
/// may not be pulled there.
///
/// # Errors
/// The registry does not say clearly what exists: then nothing can be deleted.
pub async fn orphans(
    source: &dyn Source,
    withheld: &dyn Disclose,
    repository: &Repository,
    came: &[CompanionReceipt],
    leaving: &BTreeSet<Tag>,
    wanted: &[Descriptor],
) -> Result<Orphans> {
    let mut repo = Repo::look(source, withheld, repository, leaving, wanted).await?;
    repo.came = came.iter().map(|companion| companion.digest).collect();
    let (mut found, mut gone) = (Orphans::default(), HashSet::new());
    let mut seen = HashSet::new();
    let came = came.iter().filter(|companion| companion.meant().is_some());
    let mut open: Vec<&CompanionReceipt> =
        came.filter(|companion| seen.insert((companion.digest, companion.tag.clone()))).collect();
    loop {
        // A companion of another companion waits until that one is decided.
        let waits = |companion: &&CompanionReceipt| open.iter().any(|other| other.digest == companion.subject);
        let (later, now): (Vec<_>, Vec<_>) = open.iter().copied().partition(waits);
        if now.is_empty() {
            break;
        }
        for companion in now {
            let subject_stays = repo.came.contains(&companion.subject) && !gone.contains(&companion.subject);
            if subject_stays || repo.in_use.contains(&companion.subject) {
                continue;
            }
            match repo.decide(companion).await? {
                CompanionDecision::Goes => {
                    gone.insert(companion.digest);
                    let CompanionReceipt { kind, digest, subject, tag, .. } = companion.clone();
                    found.removable.push(Orphan { tag, digest, subject, what: kind.to_string() });
                }
                CompanionDecision::Stays(why) => found.kept.push(why),
                CompanionDecision::NotThere => {}
            }
        }
        open = later;
    }
    found.removable.reverse();
    let lists = repo.lists(&gone, &mut found).await?;
    found.removable.extend(lists);
    Ok(found)
}

/// What a tag or digest means.
enum Meaning {
    Known(Descriptor),
    /// A policy forbids reading it, and it cannot be found out in another way.
    Withheld(Error),
}

enum CompanionDecision {
    Goes,
    Stays(String),
    NotThere,
}

impl<'a> Repo<'a> {
    async fn look(
        source: &'a dyn Source,
        withheld: &'a dyn Disclose,
        repository: &'a Repository,
        leaving: &BTreeSet<Tag>,
        wanted: &[Descriptor],
    ) -> Result<Repo<'a>> {
        let list = source.tags(repository, Need::Required).await?;
        if let Some(doubt) = list.doubts.into_iter().next() {
            return Err(Error::new(Kind::Refused, doubt));
        }
        let (tags, hidden, in_use, came) = Default::default();
        let mut repo = Repo { source, withheld, repository, tags, hidden, in_use, came };
        let found: Vec<(Tag, Meaning)> = stream::iter(list.tags)
            .map(|tag| async {
                let found = repo.meaning(&repository.with_tag(tag.clone())).await?;
                Ok::<_, Error>(found.map(|found| (tag, found)))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await?;
        for (tag, found) in found {
            match (found, tag.companion_subject()) {
                (Meaning::Known(found), _) => _ = repo.tags.insert(tag, found),
                // An image may lead to anything.
                (Meaning::Withheld(why), None) => return Err(why),
                (Meaning::Withheld(_), Some(subject)) => {
                    // It may be that image itself.
                    repo.in_use.extend(Some(subject).filter(|_| tag.is_referrers_list()));
                    repo.hidden.insert(tag);
                }
            }
        }
        // A tag that is named after a digest is a companion's, unless it means that very digest.
        let is_image = |tag: &Tag, found: &Descriptor| tag.companion_subject().is_none_or(|own| own == found.digest);
        let images = repo.tags.iter().filter(|(tag, found)| is_image(tag, found) && !leaving.contains(tag));
        let roots = images.map(|(_, found)| found).chain(wanted).cloned().collect();
        repo.use_all(roots).await?;
        Ok(repo)
    }

    /// Records all manifests that `roots` lead to.
    async fn use_all(&mut self, mut open: Vec<Descriptor>) -> Result<()> {
        let mut seen = HashSet::new();
        while let Some(next) = open.pop() {
            self.in_use.insert(next.digest);
            if !seen.insert(next.digest) || !media_type::is_index(&next.media_type) {
                continue;
            }
            open.extend(self.children(next.digest).await?);
        }
        Ok(())
    }

    /// Returns what an index names.
    async fn children(&self, index: Digest) -> Result<Vec<Descriptor>> {
        let name = self.repository.with_digest(index);
        let why = match self.source.manifest(&name, Need::Required).await {
            Err(why) if why.reason() == Some(&Reason::PullPolicy) => why,
            index => {
                return Ok(index?.iter().flat_map(|index| index.children()).map(|child| child.descriptor).collect());
            }
        };
        let Some(Disclosed { children, .. }) = self.withheld.disclose(&name).await? else { return Err(why) };
        let mut known = Vec::new();
        for child in children {
            match self.meaning(&self.repository.with_digest(child)).await? {
                Some(Meaning::Known(child)) => known.push(child),
                Some(Meaning::Withheld(why)) => return Err(why),
                None => {}
            }
        }
        Ok(known)
    }

    async fn meaning(&self, reference: &Reference) -> Result<Option<Meaning>> {
        match self.source.resolve(reference, Need::Required).await {
            Err(why) if why.reason() == Some(&Reason::PullPolicy) => {
                let disclosed = self.withheld.disclose(reference).await?;
                Ok(Some(disclosed.map_or(Meaning::Withheld(why), |disclosed| Meaning::Known(disclosed.descriptor))))
            }
            found => Ok(found?.map(Meaning::Known)),
        }
    }

    /// Decides about a companion whose subject is gone.
    async fn decide(&self, companion: &CompanionReceipt) -> Result<CompanionDecision> {
        let CompanionReceipt { digest, tag, .. } = companion;
        match tag {
            Some(tag) => match self.tags.get(tag) {
                None if self.hidden.contains(tag) => {
                    let text = "a policy of the project forbids reading it; an account that may read artifacts there can prune it";
                    return Ok(CompanionDecision::Stays(format!(":{tag} stays: {text}")));
                }
                None => return Ok(CompanionDecision::NotThere),
                Some(found) if found.digest != *digest => {
                    let now = found.digest.short();
                    return Ok(CompanionDecision::Stays(format!(
                        ":{tag} stays: it means {now} now, and gapferry pushed {}",
                        digest.short()
                    )));
                }
                Some(_) => {}
            },
            None => match self.meaning(&self.repository.with_digest(*digest)).await? {
                None => return Ok(CompanionDecision::NotThere),
                // It exists, and any tag that may not be read may mean it.
                Some(Meaning::Withheld(_)) if !self.hidden.is_empty() => {
                    let text = "a policy of the project forbids reading it, and a tag that may mean it; an account that may read \
                                artifacts there can prune it";
                    return Ok(CompanionDecision::Stays(format!("@{digest} stays: {text}")));
                }
                Some(_) => {}
            },
        }
        let stays = |why: &str| Ok(CompanionDecision::Stays(format!("@{digest} stays: {why}")));
        if self.in_use.contains(digest) {
            return stays("an image has the same manifest");
        }
        if self.tags.iter().any(|(other, found)| found.digest == *digest && Some(other) != tag.as_ref()) {
            return stays("another tag means it");
        }
        if let Some(tag) = self.hidden.iter().find(|tag| tag.cosign_subject() == Some(*digest)) {
            return stays(&format!("a policy of the project forbids reading {tag}, which refers to it"));
        }
        if self.has_foreign_companions(digest).await? {
            return stays("something that gapferry did not push refers to it");
        }
        Ok(CompanionDecision::Goes)
    }

    async fn has_foreign_companions(&self, subject: &Digest) -> Result<bool> {
        let beside = self.tags.iter().filter(|(tag, _)| tag.cosign_subject() == Some(*subject));
        let listed = self.source.referrers(self.repository, subject).await?;
        let referrers = listed.found.into_iter().map(|found| found.digest);
        let mut all = beside.map(|(_, found)| found.digest).chain(referrers);
        match (all.any(|digest| !self.came.contains(&digest)), listed.doubt) {
            (false, Some(doubt)) => Err(doubt),
            (has_foreign, _) => Ok(has_foreign),
        }
    }

    /// Returns the fallback lists that name only what is deleted.
    async fn lists(&self, gone: &HashSet<Digest>, found: &mut Orphans) -> Result<Vec<Orphan>> {
        let subjects: BTreeSet<Digest> = found.removable.iter().map(|orphan| orphan.subject).collect();
        let mut lists = Vec::new();
        for subject in subjects {
            let tag = Tag::referrers(&subject);
            let Some(list) = self.tags.get(&tag).filter(|list| media_type::is_index(&list.media_type)) else {
                continue;
            };
            let children = self.children(list.digest).await;
            if children.as_ref().is_err_and(|why| why.reason() == Some(&Reason::PullPolicy)) {
                found.kept.push(format!(":{tag} stays: a policy of the project forbids reading what it lists"));
                continue;
            }
            let Some(children) =
                Some(children?).filter(|_| list.digest != subject && !self.in_use.contains(&list.digest))
            else {
                continue;
            };
            match children.iter().all(|child| gone.contains(&child.digest)) {
                true => lists.push(Orphan {
                    tag: Some(tag),
                    digest: list.digest,
                    subject,
                    what: "list of referrers".to_owned(),
                }),
                false => found.kept.push(format!(":{tag} stays: it also lists entries that gapferry did not push")),
            }
        }
        Ok(lists)
    }
}
