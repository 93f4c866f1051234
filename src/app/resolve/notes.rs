//! Reports what accompanies a lock: images recalled from an earlier lock, and companions kept, changed, left behind or
//! missing.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::base::progress::units::count;
use crate::base::progress::{Event, Events};
use crate::content::{Cached, Need, Source};
use crate::oci::{Digest, Manifest, Platform, Reference, media_type};
use crate::pipeline::allowlist::Allowlist;
use crate::pipeline::companion::Kind;
use crate::pipeline::graph::{Graph, Image, LeftBehind};
use crate::pipeline::lock::{Attached, IndexMode, Lock, LockedImage};
use crate::pipeline::walk::{KeptCompanions, Walk, other_platform};

/// Which registries refuse an index with missing children.
const SPARSE_REFUSED: &str = "Harbor, docker-registry 2 and zot refuse an index without all its children; distribution 3 takes \
                              it with `validation.manifests.indexes.platforms: none`";
/// The most images named one by one.
const MOST_NAMED: usize = 20;

/// Reports what the user should know about a walk, in addition to its result.
pub(super) fn report_walk(walk: &Walk<'_>, events: &Events) {
    let recalled = walk.recalled();
    if recalled > 0 {
        let text =
            format!("{} taken from the earlier lock, registry not asked (--immutable-tags)", count(recalled, "image"));
        events.report(Event::Notice(text));
    }
    report_kept_modes(walk, events);
    report_kept_companions(walk.kept_companions(), events);
    report_left_behind(&walk.left_behind(), events);
}

/// Reports the companions that differ from the given lock. Returns whether any do.
pub(super) async fn report_changed_companions(
    before: &[LockedImage],
    lock: &Lock,
    graph: &Graph,
    cached: &Cached<'_>,
    events: &Events,
) -> bool {
    let now = &lock.images;
    let before: HashMap<&Reference, &LockedImage> = before.iter().map(|image| (&image.reference, image)).collect();
    let pairs = now.iter().filter_map(|now| Some((*before.get(&now.reference)?, now)));
    let pairs: Vec<_> = pairs.collect();
    let is_another = pairs.iter().any(|(before, now)| before.attached_unknown != now.attached_unknown);
    let changed: Vec<_> = pairs.into_iter().filter(|(before, now)| before.attached != now.attached).collect();
    // Names only images whose companions differ: “none found” and “not looked for” would both appear as “nothing”.
    let named: Vec<_> = changed.iter().filter(|(before, now)| before.companions() != now.companions()).collect();
    let shown = named.iter().take(MOST_NAMED).flat_map(|(before, now)| [*before, *now]);
    let manifests = unclear_companions(shown, graph, cached).await;
    let counted = |from: &LockedImage, to: &LockedImage| {
        let lacks = |companion: &&Attached| !to.companions().contains(companion);
        let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
        for companion in from.companions().iter().filter(lacks) {
            let manifest = manifests.get(&companion.digest);
            let kind = Kind::of(companion.tag.as_ref(), companion.artifact_type.as_deref(), manifest);
            *kinds.entry(kind).or_default() += 1;
        }
        let counted: Vec<String> = kinds.iter().map(|(kind, number)| kind.counted(*number)).collect();
        if counted.is_empty() { "nothing".to_owned() } else { counted.join(", ") }
    };
    for (before, now) in named.iter().take(MOST_NAMED) {
        let (left_out, added) = (counted(before, now), counted(now, before));
        let text = format!("{}: companions of the lock left out: {left_out}; new: {added}", before.reference);
        events.report(Event::Notice(text));
    }
    if let Some(more) = named.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        let text = format!("and {} more with other companions than in the lock", count(more, "image"));
        events.report(Event::Notice(text));
    }
    is_another || !changed.is_empty()
}

/// Returns the manifests of companions whose tags and types do not show what they are, as far as they can be read.
async fn unclear_companions(
    images: impl Iterator<Item = &LockedImage>,
    graph: &Graph,
    cached: &Cached<'_>,
) -> HashMap<Digest, Manifest> {
    let mut known: HashMap<Digest, Manifest> =
        graph.manifests().into_iter().map(|manifest| (manifest.digest(), manifest)).collect();
    let is_unclear = |one: &Attached| Kind::of(one.tag.as_ref(), one.artifact_type.as_deref(), None) == Kind::Other;
    for image in images {
        for companion in image.companions().iter().filter(|companion| is_unclear(companion)) {
            if known.contains_key(&companion.digest) {
                continue;
            }
            let reference = image.reference.repository.with_digest(companion.digest);
            let found = cached.manifest(&reference, Need::Optional).await.ok().flatten();
            known.extend(found.map(|found| (companion.digest, found)));
        }
    }
    known
}

pub(super) fn report_kept_companions(kept: KeptCompanions, events: &Events) {
    let KeptCompanions { images, companions, lost } = kept;
    if images == 0 {
        return;
    }
    let lost = if lost > 0 { format!("; {lost} more cannot be read and are left out") } else { String::new() };
    let text = format!(
        "{} of {} are those of the earlier lock or bundle, because the present ones could not be looked up{lost}",
        count(companions, "companion"),
        count(images, "image"),
    );
    events.report(Event::Warning(text));
}

fn report_kept_modes(walk: &Walk<'_>, events: &Events) {
    let kept = walk.kept_modes();
    for (mode, shown, instead) in [
        (
            IndexMode::Trim,
            "trimmed",
            "the default for one platform is now --index single: set --index trim or --index single",
        ),
        (IndexMode::Sparse, "sparse", "set --index sparse, or another mode to change it"),
        (IndexMode::Single, "single platform", "set --index single, or another mode to change it"),
    ] {
        let images: Vec<&Reference> = kept.iter().filter(|(_, own)| **own == mode).map(|(image, _)| image).collect();
        let Some(first) = images.first() else { continue };
        let what = if mode == IndexMode::Single { "" } else { " index" };
        let (images, keeps) = (count(images.len(), "image"), if images.len() == 1 { "keeps" } else { "keep" });
        let text = format!("{images} {keeps} the {shown}{what} of the earlier lock or bundle ({first}); {instead}");
        events.report(Event::Warning(text));
    }
}

/// Reports images that an import with the same list as `--allow` would refuse, unless that is reported elsewhere.
pub(super) fn report_refused(list: &Allowlist, graph: &Graph, events: &Events) {
    let manifests: HashSet<Digest> =
        graph.images.iter().flat_map(|image| &image.manifests).map(Manifest::digest).collect();
    let is_reported = |image: &LockedImage| {
        other_than_asked(image).is_some() || image.platforms.is_empty() && media_type::is_index(&image.media_type)
    };
    let may_be = |image: &Image| list.bounds_platforms() || !image.foreign_subjects().is_empty();
    let images = graph.images.iter().filter(|image| !is_reported(&image.locked) && may_be(image));
    let refused: Vec<String> = images.filter_map(|image| list.refusal_of_content(image, &manifests)).collect();
    for refusal in refused.iter().take(MOST_NAMED) {
        let text = format!("{refusal}; an import with this list (--allow) would refuse it");
        events.report(Event::Warning(text));
    }
    report_more(refused.len(), events);
}

/// Returns the platform that a single image states, if only its former index states the requested platform.
fn other_than_asked(image: &LockedImage) -> Option<&Platform> {
    let selection = image.selection.as_ref().filter(|selection| selection.index == IndexMode::Single)?;
    other_platform(&selection.platforms, &image.platforms)
}

fn report_more(number: usize, events: &Events) {
    if let Some(more) = number.checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        events.report(Event::Warning(format!("the same applies to {}", count(more, "more image"))));
    }
}

/// Reports single images whose requested platform is stated only by the index that they were taken from.
pub(super) fn report_other_platforms(lock: &Lock, events: &Events) {
    let others = lock.images.iter().filter_map(|image| Some((&image.reference, other_than_asked(image)?)));
    let others: Vec<_> = others.collect();
    for (reference, says) in others.iter().take(MOST_NAMED) {
        let text = "and its index, which states the requested platform, is not exported: an import that allows only that \
                    platform refuses the image; --index trim keeps the index";
        events.report(Event::Incomplete(format!("{reference}: its config states {says}, {text}")));
    }
    report_more(others.len(), events);
}

fn report_left_behind(left: &[LeftBehind], events: &Events) {
    let of_index: Vec<&LeftBehind> = left.iter().filter(|left| !left.attached.is_empty()).collect();
    for left in of_index.iter().take(MOST_NAMED) {
        let rest = match left.attached.values().sum::<usize>() {
            1 => "refers to the whole index and is left behind; use --index sparse or all platforms to keep it",
            _ => "refer to the whole index and are left behind; use --index sparse or all platforms to keep them",
        };
        let text = format!("{left} {rest}");
        events.report(Event::Warning(text));
    }
    if let Some(more) = of_index.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        let text = format!("the same applies to {} more (--json lists all)", count(more, "image"));
        events.report(Event::Warning(text));
    }
    if !of_index.is_empty() {
        events.report(Event::Notice(format!("before you choose --index sparse: {SPARSE_REFUSED}")));
    }
    let inside = left.iter().filter(|left| left.inside_index > 0).count();
    if inside > 0 {
        let text = format!(
            "the index of {} has attestations of the platform (BuildKit's), which are left behind; --index trim keeps them",
            count(inside, "image")
        );
        events.report(Event::Notice(text));
    }
}
