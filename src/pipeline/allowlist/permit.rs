//! The allowlist as a permission: which images the isolated side accepts.

use std::collections::{HashMap, HashSet};

use super::{Allowlist, Rule, Select};
use crate::oci::{Child, Descriptor, Digest, Kind, Manifest, Platform, Role, Tag, media_type};
use crate::pipeline::graph::Image;
use crate::pipeline::lock::{LockedImage, Rename};

impl Allowlist {
    /// Whether some rule covers the image. See [`Allowlist::refusal`].
    pub fn permits(&self, image: &LockedImage) -> bool {
        self.refusal(image).is_none()
    }

    /// Returns why an image may not enter, or `None` if a rule covers it.
    ///
    /// A rule covers an image if it selects its source reference. A digest in the rule must be the digest of the
    /// carried content: the bundle only claims which digest the source registry had before platforms were selected, and
    /// does not prove it. The image's `as` must equal the rule's. If the rule names platforms, the image may carry no
    /// other.
    pub fn refusal(&self, image: &LockedImage) -> Option<String> {
        self.refused_by_all(image, |rule| other_name(rule, image).or_else(|| foreign_platform(rule, image)))
    }

    /// Does the same with the manifests of the image, because a lock may mention fewer platforms than they do. An
    /// artifact whose subject is something else may enter if the subject is one of `manifests`, which enter with it, or
    /// if the rule names the artifact exactly.
    pub fn refusal_of_content(&self, image: &Image, manifests: &HashSet<Digest>) -> Option<String> {
        self.refusal(&image.locked).or_else(|| {
            self.refused_by_all(&image.locked, |rule| {
                let locked = &image.locked;
                let refusal = other_name(rule, locked).or_else(|| foreign_platform(rule, locked));
                let refusal = refusal.or_else(|| foreign_child(rule, image));
                refusal.or_else(|| foreign_companion(rule, image)).or_else(|| foreign_root(rule, image, manifests))
            })
        })
    }

    /// Whether some rule limits platforms, so that configs must be read.
    pub fn bounds_platforms(&self) -> bool {
        self.rules.iter().any(|rule| !rule.platforms.is_empty())
    }

    /// Does the same with configs: `platforms` are those in the configs of [`judged_by_config`].
    pub fn refusal_of_configs(&self, image: &Image, platforms: &HashMap<Digest, Platform>) -> Option<String> {
        let mut found: Vec<_> = platforms.iter().collect();
        found.sort();
        self.refused_by_all(&image.locked, |rule| {
            other_name(rule, &image.locked).or_else(|| {
                let foreign = found.iter().find(|(_, platform)| !allows(rule, platform));
                foreign.map(|(digest, platform)| carries(rule, image, **digest, Some(platform)))
            })
        })
    }

    /// If all rules for this image refuse it, returns the reason of the first.
    fn refused_by_all(&self, image: &LockedImage, refusal: impl Fn(&Rule) -> Option<String>) -> Option<String> {
        let covers = |rule: &&Rule| rule.select.covers(&image.reference, &image.digest);
        let mut first = None;
        for rule in self.rules.iter().filter(covers) {
            // A rule without an objection admits the image.
            first.get_or_insert(refusal(rule)?);
        }
        Some(first.unwrap_or_else(|| self.absence(image)))
    }

    fn absence(&self, image: &LockedImage) -> String {
        let pinned = self.rules.iter().find(|rule| {
            let super::Select::One(own) = &rule.select else { return false };
            let same_name = own.repository == image.reference.repository && own.tag == image.reference.tag;
            same_name && own.tag.is_some()
        });
        match pinned {
            Some(rule) => format!("{} is {}, and {} pins another digest", image.reference, image.digest, rule.at),
            None => format!("{} is not on the allowlist", image.reference),
        }
    }
}

/// The name that the image would get differs from the rule's.
fn other_name(rule: &Rule, image: &LockedImage) -> Option<String> {
    let given = rule.rename.clone().map(|rename| rename.of(&image.reference));
    if image.rename == given {
        return None;
    }
    let named = |rename: &Option<Rename>| {
        rename.as_ref().map_or_else(|| "no other name".to_owned(), |rename| format!("as={rename}"))
    };
    let (has, allowed) = (named(&image.rename), named(&given));
    Some(format!("{} has {has}, and {} gives it {allowed}", image.reference, rule.at))
}

fn allows(rule: &Rule, platform: &Platform) -> bool {
    rule.platforms.is_empty() || rule.platforms.iter().any(|asked| asked.selects(platform))
}

fn foreign_platform(rule: &Rule, image: &LockedImage) -> Option<String> {
    let platform = image.platforms.iter().find(|platform| !platform.is_unknown() && !allows(rule, platform))?;
    Some(format!("{} carries {platform}, which {} does not allow", image.reference, rule.at))
}

/// A manifest in an index of the image that is neither for an allowed platform nor an attestation of one that is. A
/// manifest without a platform may be for any: runtimes then use its config. An attestation states that it is for none
/// (BuildKit's `unknown/unknown`).
fn foreign_child(rule: &Rule, image: &Image) -> Option<String> {
    if rule.platforms.is_empty() {
        return None;
    }
    let absent: HashSet<Digest> = image.locked.absent.iter().map(|absent| absent.digest).collect();
    let (own, _) = parts(image);
    let foreign = own.iter().filter(|manifest| manifest.kind() == Kind::Index).find_map(|index| {
        let children = index.children();
        let is_for_allowed = |descriptor: &Descriptor| {
            descriptor.platform().is_some_and(|platform| !platform.is_unknown() && allows(rule, platform))
        };
        let allowed = children.iter().map(|child| &child.descriptor).filter(|child| is_for_allowed(child));
        let allowed: HashSet<Digest> = allowed.map(|child| child.digest).collect();
        let is_allowed = |descriptor: &Descriptor| match descriptor.platform() {
            Some(platform) if platform.is_unknown() => {
                descriptor.attestation_subject().is_some_and(|subject| allowed.contains(&subject))
            }
            Some(platform) => allows(rule, platform),
            None => false,
        };
        let is_foreign = |child: &Child| {
            child.role == Role::Manifest && !is_allowed(&child.descriptor) && !absent.contains(&child.descriptor.digest)
        };
        children.into_iter().find(is_foreign)
    })?;
    Some(carries(rule, image, foreign.descriptor.digest, foreign.descriptor.platform()))
}

fn carries(rule: &Rule, image: &Image, digest: Digest, platform: Option<&Platform>) -> String {
    let platform = platform.map_or_else(|| "no platform".to_owned(), Platform::to_string);
    let (reference, at) = (&image.locked.reference, &rule.at);
    format!("{reference} carries {digest} ({platform}), which {at} does not allow")
}

/// A manifest for another platform in an index that is attached to the image. If it has no platform there, its config
/// decides.
fn foreign_companion(rule: &Rule, image: &Image) -> Option<String> {
    let (_, attached) = parts(image);
    let children = attached.iter().filter(|manifest| manifest.kind() == Kind::Index).flat_map(Manifest::children);
    let mut children = children.filter(|child| child.role == Role::Manifest);
    let is_foreign = |platform: &&Platform| !platform.is_unknown() && !allows(rule, platform);
    let foreign = children.find(|child| child.descriptor.platform().filter(is_foreign).is_some())?;
    Some(carries(rule, image, foreign.descriptor.digest, foreign.descriptor.platform()))
}

/// An artifact whose subject does not enter with it: it would become a referrer of an image that no rule mentions.
fn foreign_root(rule: &Rule, image: &Image, manifests: &HashSet<Digest>) -> Option<String> {
    let is_exact = |subject: &Digest| match &rule.select {
        Select::One(own) => {
            let is_named =
                |tag: &Tag| *tag == Tag::referrers(subject) || tag.cosign_subject().as_ref() == Some(subject);
            own.digest.is_some() || own.tag.as_ref().is_some_and(is_named)
        }
        Select::AllTags(_) | Select::TagsMatching { .. } | Select::TagsInRange { .. } => false,
    };
    let foreign = image.foreign_subjects().into_iter().map(|one| one.subject);
    let subject = foreign.filter(|subject| !manifests.contains(subject)).find(|subject| !is_exact(subject))?;
    let (reference, at) = (&image.locked.reference, &rule.at);
    let text = "which does not enter with it, so only its own digest in the allowlist would admit it";
    Some(format!("{reference} ({at}) speaks of {subject}, {text}"))
}

/// Returns the manifests of an image whose platform is only in their config, with these configs: its own if it is not
/// an index, and the attached ones.
pub fn judged_by_config(image: &Image) -> impl Iterator<Item = (Digest, &Descriptor)> {
    let (own, attached) = parts(image);
    let root = own.last().filter(|root| root.kind() != Kind::Index);
    let manifests = root.into_iter().chain(attached);
    let configs = manifests.filter_map(|manifest| Some((manifest.digest(), manifest.config()?)));
    configs.filter(|(_, config)| media_type::is_image_config(&config.media_type))
}

/// The manifests of the image, its root last, and the attached ones.
fn parts(image: &Image) -> (&[Manifest], &[Manifest]) {
    let root = image.manifests.iter().position(|manifest| manifest.digest() == image.locked.digest);
    image.manifests.split_at(root.map_or(0, |root| root + 1))
}
