//! The images of a lock, with the kinds of their companions.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::oci::Manifest;
use crate::pipeline::companion::Kind;
use crate::pipeline::lock::{Attached, LockedImage};

/// Returns the manifest of a companion, if it is available.
pub(super) type ManifestOf<'a> = &'a dyn Fn(&LockedImage, &Attached) -> Option<Manifest>;

/// An entry of a lock. Its JSON is that of the lock, with the kind of each companion.
#[derive(Clone, Debug)]
pub struct ListedImage {
    pub image: LockedImage,
    /// The kinds of its companions, in the order of the lock.
    pub kinds: Vec<Kind>,
}

impl ListedImage {
    /// Reads manifests only if the tag and the artifact type do not show what a companion is.
    pub(super) fn new(image: &LockedImage, manifest_of: ManifestOf<'_>) -> ListedImage {
        let kind = |attached: &Attached| {
            let of = |manifest: Option<&Manifest>| {
                Kind::of(attached.tag.as_ref(), attached.artifact_type.as_deref(), manifest)
            };
            match of(None) {
                Kind::Other => of(manifest_of(image, attached).as_ref()),
                known => known,
            }
        };
        ListedImage { image: image.clone(), kinds: image.companions().iter().map(kind).collect() }
    }
}

impl Serialize for ListedImage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = json!(self.image);
        value["attachedUnknown"] = self.image.attached_unknown.into();
        if let Some(attached) = value.get_mut("attached").and_then(Value::as_array_mut) {
            attached.iter_mut().zip(&self.kinds).for_each(|(attached, kind)| attached["kind"] = json!(kind));
        }
        value.serialize(serializer)
    }
}
