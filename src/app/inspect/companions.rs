//! Finds the companions of an inspected image.

use serde::Serialize;

use crate::app::environment::Environment;
use crate::base::progress::Event;
use crate::content::{Cached, Need, Source};
use crate::oci::{Child, Digest, Manifest, Platform, Reference};
use crate::pipeline::companion::Kind;
use crate::pipeline::lock::{Attached, LockedImage};
use crate::pipeline::walk::{Options, Referrers, Walk, Wanted};

/// A companion of an image.
#[derive(Clone, Debug, Serialize)]
pub struct ShownCompanion {
    #[serde(flatten)]
    pub attached: Attached,
    pub kind: Kind,
    /// Its subject: `the image`, `the index`, a platform, or the start of a digest.
    pub about: String,
}

/// The inspected content: the manifest that `reference` leads to, and the selected manifest.
pub struct Shown<'a> {
    pub reference: &'a Reference,
    pub root: &'a Manifest,
    pub manifest: &'a Manifest,
}

/// The companions of the inspected content.
#[derive(Default)]
pub struct ShownCompanions {
    pub found: Vec<ShownCompanion>,
    /// Whether there may be more companions, because a registry did not answer.
    pub unknown: bool,
}

/// Returns the companions of the selected manifest and of its children. For a bundle, they are those in its lock. If a
/// registry cannot be asked, a warning is reported.
pub async fn of(
    source: &Cached<'_>,
    shown: &Shown<'_>,
    locked: Option<&LockedImage>,
    environment: &Environment,
) -> ShownCompanions {
    let Shown { reference, root, manifest: shown } = *shown;
    let (all, unknown) = match locked {
        Some(image) => (image.companions().to_vec(), image.attached_unknown),
        None => at_registry(source, reference, environment).await,
    };
    let is_whole = root.digest() == shown.digest();
    let mut found: Vec<ShownCompanion> = Vec::new();
    for attached in all {
        let is_of_companion = found.iter().any(|known| known.attached.digest == attached.subject);
        if !is_whole && attached.subject != shown.digest() && !is_of_companion {
            continue;
        }
        let digest = reference.repository.with_digest(attached.digest);
        let manifest = source.manifest(&digest, Need::Required).await.ok().flatten();
        let kind = Kind::of(attached.tag.as_ref(), attached.artifact_type.as_deref(), manifest.as_ref());
        found.push(ShownCompanion { kind, about: about(root, &attached.subject), attached });
    }
    ShownCompanions { found, unknown }
}

/// Returns the companions at the registry, and whether there may be more.
async fn at_registry(source: &Cached<'_>, reference: &Reference, environment: &Environment) -> (Vec<Attached>, bool) {
    let options = Options { index: None, available_platforms: false, referrers: Referrers::Look, foreign_layers: true };
    let walk = Walk::new(source, options, environment.events.clone());
    let walk = walk.with_silent_effect("the companions that were found are shown");
    let wanted = Wanted { reference: reference.clone(), rename: None, platforms: Vec::new(), written: String::new() };
    let found = walk.discover(&wanted).await;
    walk.report_lost();
    match found {
        Ok(image) => (image.locked.attached.unwrap_or_default(), image.locked.attached_unknown),
        Err(error) => {
            let text = format!("signatures and other companions of {reference} are not shown: {}", error.chain());
            environment.events.report(Event::Warning(text));
            (Vec::new(), true)
        }
    }
}

/// Describes a subject: by the platform of the child of `root` with this digest, or as `root` itself.
fn about(root: &Manifest, subject: &Digest) -> String {
    if *subject == root.digest() {
        return if crate::oci::media_type::is_index(root.media_type()) { "the index" } else { "the image" }.to_owned();
    }
    platform_of(root, subject).unwrap_or_else(|| subject.short())
}

fn platform_of(root: &Manifest, digest: &Digest) -> Option<String> {
    let children = root.children();
    let child = children.iter().find(|child| child.descriptor.digest == *digest)?;
    child.descriptor.platform().map(Platform::to_string)
}

/// Returns the platform that a child of an index describes, if it is one of BuildKit's attestations.
pub(super) fn attested(index: &Manifest, child: &Child) -> Option<String> {
    let subject = child.descriptor.attestation_subject()?;
    Some(platform_of(index, &subject).unwrap_or_else(|| subject.short()))
}
