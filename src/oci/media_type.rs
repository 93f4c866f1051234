//! Media types of manifests and layers: OCI (image-spec 1.1 `media-types.md`) and Docker (distribution `manifest-v2-2.md`).

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::interned::Interned;

static KNOWN: LazyLock<Interned<str>> = LazyLock::new(Interned::new);

/// Maximum length of a media type in bytes (RFC 6838, section 4.2: 127 on either side of the slash).
pub(super) const LONGEST: usize = 255;

/// A media type as written, without validation. Cloning is cheap: equal types are in memory once, except those that are too
/// long to be carried, which must not outlive what is rejected because of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaType(Arc<str>);

impl MediaType {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for MediaType {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for MediaType {
    fn from(text: &str) -> MediaType {
        MediaType(match text.len() <= LONGEST {
            true => KNOWN.find(text).unwrap_or_else(|| KNOWN.share(Arc::from(text))),
            false => Arc::from(text),
        })
    }
}

impl From<&String> for MediaType {
    fn from(text: &String) -> MediaType {
        text.as_str().into()
    }
}

impl From<String> for MediaType {
    fn from(text: String) -> MediaType {
        text.as_str().into()
    }
}

impl From<&MediaType> for MediaType {
    fn from(own: &MediaType) -> MediaType {
        own.clone()
    }
}

impl PartialEq<str> for MediaType {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for MediaType {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Default for MediaType {
    fn default() -> MediaType {
        "".into()
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MediaType, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer).map(|text| (&*text).into())
    }
}

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The artifact manifest of image-spec 1.1.0-rc1, withdrawn before 1.1 but still found in registries.
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The Accept header for manifests: always all four current types, because a registry might otherwise convert.
pub const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.artifact.manifest.v1+json";

/// Whether it is an image index or a Docker manifest list.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// Whether it is a manifest of any kind that gapferry can carry.
pub fn is_manifest(media_type: &str) -> bool {
    is_index(media_type) || matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST | OCI_ARTIFACT)
}

pub fn is_schema1(media_type: &str) -> bool {
    matches!(media_type, DOCKER_SCHEMA1 | DOCKER_SCHEMA1_SIGNED)
}

/// Whether registries are not expected to have the layer (Windows base layers): `nondistributable` in OCI, `foreign` in
/// Docker.
pub fn is_foreign_layer(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

/// Whether it is a layer of a container file system, however it is compressed.
pub fn is_image_layer(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.diff.tar")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

/// Whether the blob is a container config, which states a platform.
pub fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_that_is_refused_is_not_kept() {
        let of = |length| format!("application/{}", "x".repeat(length - 12));
        let (longest, longer): (MediaType, MediaType) = (of(LONGEST).into(), of(LONGEST + 1).into());
        assert!(KNOWN.find(longest.as_str()).is_some() && KNOWN.find(longer.as_str()).is_none());
        assert_eq!(longer, MediaType::from(of(LONGEST + 1)));
    }
}
