//! Prunes the companions of images whose tags are gone, if nothing else uses them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;

use super::{Deletion, Pruning};
use crate::base::error::Result;
use crate::base::progress::Event;
use crate::content::Account;
use crate::increment::{Disclose, Disclosed, orphans};
use crate::oci::{Descriptor, Reference, Repository, Tag};
use crate::pipeline::harbor;
use crate::pipeline::lock::LockedImage;
use crate::pipeline::plan::Targets;
use crate::pipeline::receipt::CompanionReceipt;
use crate::transport::registry::Registries;

/// The contents of the bundle in each repository of the target, which are kept.
pub struct BundleContents(HashMap<Repository, Vec<Descriptor>>);

impl BundleContents {
    pub fn new(images: &[LockedImage], targets: &Targets) -> BundleContents {
        let mut wanted: HashMap<Repository, Vec<Descriptor>> = HashMap::new();
        for (image, to) in images.iter().zip(targets) {
            let here = wanted.entry(to.repository.clone()).or_default();
            here.push(Descriptor::new(&image.media_type, image.digest, image.size));
            let companions = image.companions().iter();
            here.extend(companions.map(|it| Descriptor::new(&it.media_type, it.digest, it.size)));
        }
        BundleContents(wanted)
    }
}

/// Asks Harbor's own API about manifests that a policy forbids pulling.
struct ByApi<'a>(&'a Registries);

#[async_trait]
impl Disclose for ByApi<'_> {
    async fn disclose(&self, reference: &Reference) -> Result<Option<Disclosed>> {
        let detected = harbor::detect(self.0, Account::of(&reference.repository)).await?;
        if detected.harbor().is_none() {
            return Ok(None);
        }
        let artifact = harbor::artifact(self.0, reference).await?;
        Ok(artifact.and_then(disclosed))
    }
}

/// Returns `None` without a media type: if an index were taken for an image, its children would be overlooked.
fn disclosed(artifact: harbor::Artifact) -> Option<Disclosed> {
    let harbor::Artifact { digest, media_type, children } = artifact;
    let is_known = !media_type.is_empty();
    is_known.then(|| Disclosed { descriptor: Descriptor::new(&media_type, digest, 0), children })
}

/// Tags that are gone, and the companions that arrived with their images, by repository.
#[derive(Default)]
pub struct Left(BTreeMap<Repository, (BTreeSet<Tag>, Vec<CompanionReceipt>)>);

impl Left {
    /// Adds the `companions` that arrived with the image at `tag`.
    pub fn add(&mut self, tag: &Reference, companions: &[CompanionReceipt]) {
        let (tags, all) = self.0.entry(tag.repository.clone()).or_default();
        tags.extend(tag.tag.clone());
        all.extend(companions.iter().cloned());
    }

    /// Deletes the companions that can be removed, or lists them in a dry run. Returns whether it stayed unclear for a
    /// repository what can be removed.
    pub async fn prune(self, pruning: &mut Pruning<'_>, wanted: &BundleContents) -> bool {
        let (source, mut has_unclear) = (pruning.registries.itself(), false);
        for (repository, (tags, companions)) in self.0.iter().filter(|(_, (_, companions))| !companions.is_empty()) {
            let wanted = wanted.0.get(repository).map(Vec::as_slice).unwrap_or_default();
            let warn = |text: String| pruning.events.report(Event::Warning(text));
            let withheld = ByApi(pruning.registries);
            let found = match orphans(&source, &withheld, repository, companions, tags, wanted).await {
                Ok(found) => found,
                Err(error) => {
                    let text =
                        "companions of deleted images (signatures and others) are left, because their use is unclear";
                    warn(format!("{repository}: {text}: {}", error.chain()));
                    has_unclear = true;
                    continue;
                }
            };
            found.kept.into_iter().for_each(|why| warn(format!("{repository}{why}")));
            for orphan in found.removable {
                let name = match &orphan.tag {
                    Some(tag) => repository.with_tag(tag.clone()),
                    None => repository.with_digest(orphan.digest),
                };
                let deleted = match pruning.deletes {
                    true => Some(pruning.delete_manifest(repository, &orphan.digest).await),
                    false => None,
                };
                let about = Some((orphan.subject, orphan.what.as_str()));
                let (reference, digest, unsupported) = (&name, orphan.digest, "its registry cannot delete manifests");
                pruning.note(Deletion { reference, digest, about, result: deleted, unsupported });
            }
        }
        has_unclear
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Digest, media_type};

    /// If an index were taken for an image, its children would lose their signatures.
    #[test]
    fn an_artifact_without_a_media_type_is_not_disclosed() {
        let artifact = |media_type: &str| {
            let (digest, children) = (Digest::sha256(b"index"), vec![Digest::sha256(b"child")]);
            disclosed(harbor::Artifact { digest, media_type: media_type.to_owned(), children })
        };
        assert!(artifact("").is_none());
        assert!(artifact(media_type::OCI_INDEX).is_some_and(|reported| reported.children.len() == 1));
    }
}
