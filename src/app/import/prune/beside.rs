//! What goes with an image whose tag is gone: its companions, where nothing else has a use for them.

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

/// What the bundle has in each repository of the target: that stays.
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

/// What Harbor's own API says of manifests that a policy forbids pulling.
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

/// `None` without a media type: an index that passed for an image would leave its children unseen.
fn disclosed(artifact: harbor::Artifact) -> Option<Disclosed> {
    let harbor::Artifact { digest, media_type, children } = artifact;
    let is_known = !media_type.is_empty();
    is_known.then(|| Disclosed { descriptor: Descriptor::new(&media_type, digest, 0), children })
}

/// What came with images whose tags are gone, by repository, and these tags.
#[derive(Default)]
pub struct Left(BTreeMap<Repository, (BTreeSet<Tag>, Vec<CompanionReceipt>)>);

impl Left {
    /// `companions` came with the image that had `tag`.
    pub fn add(&mut self, tag: &Reference, companions: &[CompanionReceipt]) {
        let (tags, all) = self.0.entry(tag.repository.clone()).or_default();
        tags.extend(tag.tag.clone());
        all.extend(companions.iter().cloned());
    }

    /// Deletes the companions that can go, or lists them in a dry run. Returns whether some repository stayed undecided.
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
                        "signatures and other companions of deleted images stay, since it is not clear what uses them";
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
                let (reference, digest, unsupported) = (&name, orphan.digest, "its registry deletes no manifest");
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

    /// Taken for an image, an index would cost its children their signatures.
    #[test]
    fn what_has_no_media_type_is_not_known() {
        let artifact = |media_type: &str| {
            let (digest, children) = (Digest::sha256(b"index"), vec![Digest::sha256(b"child")]);
            disclosed(harbor::Artifact { digest, media_type: media_type.to_owned(), children })
        };
        assert!(artifact("").is_none());
        assert!(artifact(media_type::OCI_INDEX).is_some_and(|reported| reported.children.len() == 1));
    }
}
