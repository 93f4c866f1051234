//! What the lock of a bundle says of companions: `index.json` has them without names, for the sake of programs that take
//! everything with a name for an image.

use std::collections::HashSet;

use serde::Deserialize;

use crate::oci::{Digest, Reference, Tag};

use super::{Change, LayoutIndex, index};

#[derive(Deserialize)]
struct Sealed {
    lock: SealedLock,
}

#[derive(Deserialize)]
struct SealedLock {
    images: Vec<SealedImage>,
}

#[derive(Deserialize)]
struct SealedImage {
    reference: Reference,
    #[serde(default)]
    attached: Option<Vec<Companion>>,
}

#[derive(Deserialize)]
struct Companion {
    digest: Digest,
    subject: Digest,
    #[serde(default)]
    tag: Option<Tag>,
}

/// Gives companions the repository and the tags that the lock in `bundle_json` says. Other tags than those of companions are
/// not believed.
///
/// # Errors
/// It is not a `bundle.json`.
pub fn name_companions(names: &mut LayoutIndex, bundle_json: &[u8]) -> serde_json::Result<()> {
    let sealed: Sealed = serde_json::from_slice(bundle_json)?;
    let mut named = HashSet::new();
    for image in sealed.lock.images {
        let repository = image.reference.repository;
        for Companion { digest, subject, tag } in image.attached.unwrap_or_default() {
            let Some(manifest) = names.entries.of_digest(&digest).and_then(index::view) else { continue };
            let (repository, unlisted) = (repository.clone(), vec![]);
            let tag = tag.filter(|tag| tag.companion_subject() == Some(subject));
            names.apply(&match tag {
                Some(tag) => Change::Tag { repository, tag, manifest, unlisted },
                None => Change::List { repository, manifest, subject: Some(subject), unlisted },
            });
            named.insert(digest);
        }
    }
    // What belongs to a repository needs no other entry.
    for digest in named {
        names.forget_nameless(&digest);
    }
    Ok(())
}
