//! Determines what can be migrated from a storage: every selected image, complete or with the reason why it is not.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::choice::{Choice, ImageFilter};
use super::selected_storage::SelectedStorage;
use crate::base::error::Result;
use crate::base::progress::{Events, Silent};
use crate::content::Cached;
use crate::oci::{Digest, Manifest, Repository};
use crate::pipeline::graph::Image;
use crate::pipeline::resolve;
use crate::pipeline::walk::{Options, Referrers, Walk, Wanted};
use crate::transport::storage::{AuditDepth, AuditScope, Storage, StorageProblem, StorageProblemKind, Survey, Tagged};

/// What happens to companions of images: signatures, attestations, SBOMs and other referrers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CompanionChoice {
    /// Companions are migrated with their image. Their tags do not count as images if the subject is in the same
    /// repository.
    Travel,
    /// As `Travel`, but fallback lists of referrers stay tags: the program that serves the new storage might have no other
    /// way to find referrers.
    TravelWithLists,
    /// Companions are left behind.
    StayBehind,
    /// Companions are not looked for. A companion with a tag is migrated as an image of its own.
    Separate,
}

/// What to look at, and how.
pub struct Look<'a> {
    pub which: &'a ImageFilter,
    /// How blobs are checked.
    pub depth: AuditDepth,
    pub companions: CompanionChoice,
    /// Number of images read at the same time.
    pub jobs: usize,
}

/// Images by their tags or digests, and all problems.
pub struct Collected {
    /// `None` for the image if it is damaged; the problems that name it give the reason.
    pub images: Vec<(Tagged, Option<Image>)>,
    /// The readable manifests of damaged images.
    pub broken: HashMap<Digest, Manifest>,
    pub repositories: usize,
    /// Number of manifests in all repositories, tagged or not.
    pub revisions: usize,
    /// Number of manifests left behind because no tag leads to them, in repositories all of whose tags are selected.
    pub left: usize,
    /// Number of tags of companions, which do not count as images.
    pub companions: usize,
    /// Number of images that are damaged only in their companions.
    pub lost_by_attached: usize,
    pub problems: Vec<StorageProblem>,
}

/// Reads every manifest, and checks for every blob that it exists and, depending on the depth, its size or all its bytes.
/// If `companions` are migrated with their image, they are part of it, unless the tag of another image leads to them.
///
/// # Errors
/// The storage itself cannot be read. A problem inside it only affects the images that it concerns.
pub fn collect(storage: &Storage, look: &Look<'_>, events: &Events) -> Result<Collected> {
    let Look { which, depth, companions, jobs } = *look;
    let referrers = matches!(companions, CompanionChoice::Travel | CompanionChoice::TravelWithLists);
    let mut choice = Choice::read(which)?;
    let mut survey = storage.survey()?;
    choice.match_rules(survey.repositories.iter().map(|holding| holding.repository.path()));
    (survey.tags, survey.others) = survey.tags.into_iter().partition(|found| choice.takes(found));
    let in_part: HashSet<Repository> = survey.others.iter().map(|found| found.repository.clone()).collect();
    let selected: HashSet<Repository> = survey.tags.iter().map(|found| found.repository.clone()).collect();
    let is_chosen = |here: &Repository| which.is_all() || selected.contains(here) && !in_part.contains(here);
    let set_apart = set_apart(&mut survey, &choice, companions);
    survey.tags.extend(choice.pinned(&survey));
    // A tag without a readable digest still has a name.
    survey
        .problems
        .retain(|problem| problem.images.is_empty() || problem.images.iter().any(|image| choice.takes_name(image)));
    let scope = if which.untagged { AuditScope::Manifests } else { AuditScope::Tagged };
    let may_go_along = |found: &&Tagged| referrers && !which.excludes(&found.name());
    let beside: Vec<Tagged> = survey.others.iter().filter(may_go_along).cloned().collect();
    let mut audit = storage.audit(&survey, scope, depth, referrers.then_some(&beside), events);
    let mut unwanted: HashSet<String> = survey.others.iter().map(Tagged::name).collect();
    for (untagged, is_whole) in std::mem::take(&mut audit.untagged) {
        if choice.takes(&untagged) {
            survey.tags.push(untagged);
            audit.whole.push(is_whole);
        } else {
            unwanted.insert(untagged.name());
        }
    }
    // Problems that affect only images that are not wanted are dropped.
    audit.problems.retain_mut(|problem| {
        let is_about_all = problem.images.is_empty();
        problem.images.retain(|image| !unwanted.contains(&**image));
        is_about_all || !problem.images.is_empty()
    });
    let broken = survey.tags.iter().zip(&audit.whole).filter(|(_, whole)| !**whole);
    let broken =
        broken.filter_map(|(found, _)| Some((found.digest, audit.manifests.get(&found.digest)?.clone()))).collect();
    let selected = SelectedStorage::new(storage, std::mem::take(&mut audit.attached), beside);
    let cached = Cached::new(&selected, Some(Box::new(std::mem::take(&mut audit.manifests))));
    let looked_for = if referrers { Referrers::Require } else { Referrers::Leave };
    let options = Options { index: None, available_platforms: false, referrers: looked_for, foreign_layers: false };
    let walk = Walk::new(&cached, options, std::sync::Arc::new(Silent));
    // By the digest its tag had during the audit: a running registry can have moved the tag since.
    let by_digest = |found: &Tagged| found.repository.with_digest(found.digest);
    let wanted = |found: &Tagged| Wanted {
        reference: by_digest(found),
        rename: choice.rename(found),
        platforms: Vec::new(),
        written: String::new(),
    };
    let whole = || survey.tags.iter().zip(&audit.whole).filter(|(_, whole)| **whole).map(|(found, _)| found);
    let wanted: Vec<Wanted> = whole().map(wanted).collect();
    let walked = resolve::discover_each(&walk, &wanted, jobs, events);
    let mut problems = audit.problems;
    problems.extend(choice.missing());
    let mut images = HashMap::with_capacity(wanted.len());
    for (found, image) in whole().zip(walked) {
        match image {
            Ok(mut image) => {
                image.locked.reference = found.reference();
                images.insert(found.name(), image);
            }
            Err(error) => {
                let path = format!("repositories/{}/_manifests", found.repository.path());
                let problem = StorageProblem::new(path, StorageProblemKind::NotAManifest, error.chain());
                problems.push(StorageProblem { images: vec![found.name().into()], ..problem });
            }
        }
    }
    let companions = attached_to(&images);
    let is_companion =
        |found: &Tagged| found.tag.is_none() && companions.contains(&(found.repository.clone(), found.digest));
    survey.tags.retain(|found| {
        let travels_along =
            is_companion(found) && images.get(&found.name()).is_some_and(|image| image.locked.rename.is_none());
        travels_along.then(|| images.remove(&found.name()));
        !travels_along
    });
    let revisions = survey.repositories.iter().map(|holding| holding.revisions.len()).sum();
    let repositories = survey.repositories.len();
    let images = survey.tags.into_iter().map(|found| {
        let image = images.remove(&found.name());
        (found, image)
    });
    let left = audit.unreached.iter().filter(|(here, _)| !which.untagged && is_chosen(here));
    let left = left.map(|(_, number)| number).sum();
    Ok(Collected {
        images: images.collect(),
        broken,
        repositories,
        revisions,
        left,
        companions: set_apart,
        lost_by_attached: audit.lost_by_attached,
        problems,
    })
}

/// Moves the tags of companions out of the images of `survey`, and returns their number. A companion whose subject is not
/// in its repository, and a tag that the allowlist names in full, remain images.
fn set_apart(survey: &mut Survey, choice: &Choice<'_>, companions: CompanionChoice) -> usize {
    if companions == CompanionChoice::Separate {
        return 0;
    }
    let holdings: HashMap<_, _> = survey.repositories.iter().map(|holding| (&holding.repository, holding)).collect();
    let has = |found: &Tagged, digest: &Digest| holdings.get(&found.repository).is_some_and(|here| here.has(digest));
    let (apart, images): (Vec<Tagged>, Vec<Tagged>) = std::mem::take(&mut survey.tags).into_iter().partition(|found| {
        let Some(tag) = &found.tag else { return false };
        let by_list = tag.referrers_subject().filter(|subject| *subject != found.digest);
        let by_list = by_list.filter(|_| companions != CompanionChoice::TravelWithLists);
        let subject = tag.cosign_subject().or(by_list);
        subject.is_some_and(|subject| has(found, &subject)) && !choice.names(found)
    });
    survey.tags = images;
    let number = apart.len();
    survey.others.extend(apart);
    number
}

/// Returns the companions that are migrated with an image in its own repository, and are therefore no images of their own.
fn attached_to(images: &HashMap<String, Image>) -> HashSet<(Repository, Digest)> {
    let images = images.values().map(|image| &image.locked).filter(|locked| locked.rename.is_none());
    let pairs = images.flat_map(|locked| {
        locked.companions().iter().map(|attached| (locked.reference.repository.clone(), attached.digest))
    });
    pairs.collect()
}

impl Collected {
    /// Returns the images that can be migrated.
    pub fn whole(&self) -> impl Iterator<Item = (&Tagged, &Image)> {
        self.images.iter().filter_map(|(found, image)| Some((found, image.as_ref()?)))
    }

    /// Number of images that cannot be migrated: damaged images, images known only from problems, and one for each place
    /// that may hide images.
    pub fn failed(&self) -> usize {
        let hidden = self.problems.iter().filter(|problem| problem.hides_images()).count();
        self.images.len() - self.whole().count() + self.lost() + hidden
    }

    /// Number of images known only from problems, because their tags lead to nothing.
    pub fn lost(&self) -> usize {
        self.lost_names().len()
    }

    /// The names of these images, sorted.
    pub fn lost_names(&self) -> BTreeSet<&str> {
        let known: HashSet<String> = self.images.iter().map(|(found, _)| found.name()).collect();
        let named = self.problems.iter().flat_map(|problem| &problem.images).map(|image| &**image);
        named.filter(|name| !known.contains(*name)).collect()
    }
}
