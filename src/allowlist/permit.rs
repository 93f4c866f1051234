//! The allowlist as a permission: what the isolated side lets in.

use std::collections::HashSet;

use super::{Allowlist, Rule};
use crate::graph::Image;
use crate::lock::{LockedImage, Rename};
use crate::oci::{Child, Descriptor, Digest, Kind, Manifest, Platform, Role};

impl Allowlist {
    /// Whether some rule covers the image. See [`Allowlist::refusal`].
    pub fn permits(&self, image: &LockedImage) -> bool {
        self.refusal(image).is_none()
    }

    /// Why an image may not enter, or nothing if a rule covers it.
    ///
    /// A rule covers an image whose source reference it selects; a digest in the rule has to be that of what is carried:
    /// what the source registry had before platforms were selected is only said, not shown. The image's `as` has to be the
    /// rule's. Where the rule names platforms, the image may carry no other.
    pub fn refusal(&self, image: &LockedImage) -> Option<String> {
        self.refused_by_all(image, |rule| other_name(rule, image).or_else(|| foreign_platform(rule, image)))
    }

    /// The same, asked of the image's manifests as well: a lock may say less of its platforms than they do.
    pub fn refusal_of_content(&self, image: &Image) -> Option<String> {
        self.refusal(&image.locked).or_else(|| {
            self.refused_by_all(&image.locked, |rule| {
                let locked = &image.locked;
                let refusal = other_name(rule, locked).or_else(|| foreign_platform(rule, locked));
                refusal.or_else(|| foreign_child(rule, image))
            })
        })
    }

    /// What the first of the rules for this image has against it, if all of them have something.
    fn refused_by_all(&self, image: &LockedImage, refusal: impl Fn(&Rule) -> Option<String>) -> Option<String> {
        let covers = |rule: &&Rule| rule.select.covers(&image.reference, &image.digest);
        let mut first = None;
        for rule in self.rules.iter().filter(covers) {
            // One that has nothing against it lets it in.
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

/// The name that the image would get is not the one that the rule gives it.
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

/// A manifest in an index of the image that is neither for an allowed platform nor an attestation of one that is. Without a
/// platform of its own it may be for any: runtimes then go by its config. An attestation says that it is for none (BuildKit's
/// `unknown/unknown`).
fn foreign_child(rule: &Rule, image: &Image) -> Option<String> {
    if rule.platforms.is_empty() {
        return None;
    }
    let absent: HashSet<Digest> = image.locked.absent.iter().map(|absent| absent.digest).collect();
    let foreign = indexes(image).find_map(|index| {
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
    let descriptor = foreign.descriptor;
    let platform = descriptor.platform().map_or_else(|| "no platform".to_owned(), Platform::to_string);
    let (reference, digest, at) = (&image.locked.reference, descriptor.digest, &rule.at);
    Some(format!("{reference} carries {digest} ({platform}), which {at} does not allow"))
}

/// The image's own index and those below it: what is attached stands behind them.
fn indexes(image: &Image) -> impl Iterator<Item = &Manifest> {
    let root = image.manifests.iter().position(|manifest| manifest.digest() == image.locked.digest);
    let own = image.manifests.iter().take(root.map_or(0, |root| root + 1));
    own.filter(|manifest| manifest.kind() == Kind::Index)
}
