//! The companions in the lock of a bundle. `index.json` lists them without names for the sake of programs that treat
//! everything with a name as an image.

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

/// Assigns companions the repositories and tags in the lock of `bundle_json`. Only tags of companions are accepted.
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
    // Content that belongs to a repository needs no other entry.
    for digest in named {
        names.forget_nameless(&digest);
    }
    Ok(())
}
