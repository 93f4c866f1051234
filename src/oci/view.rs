//! Reads the JSON of a manifest and makes sure that it has only one meaning.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::Descriptor;
use super::object::{self, or_default};

/// Maximum size in bytes of a manifest's own annotations that are repeated in a list of referrers.
pub const MAX_ANNOTATIONS: usize = 64 * 1024;

/// The fields of a manifest that decide its kind and its children, without its annotations. `D` is what is read of each layer,
/// manifest or blob.
#[derive(Clone, Debug)]
pub struct View<D = Descriptor> {
    pub schema_version: Option<u64>,
    pub media_type: Option<String>,
    pub artifact_type: Option<String>,
    pub config: Option<Descriptor>,
    pub layers: Option<Vec<D>>,
    pub manifests: Option<Vec<D>>,
    pub blobs: Option<Vec<D>>,
    pub subject: Option<Descriptor>,
    /// Docker's schema 1.
    pub fs_layers: bool,
    /// `"manifests": null`, which is an empty list for Go.
    pub null_manifests: bool,
}

const KEYS: &[&str] =
    &["schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "blobs", "subject", "fsLayers"];

impl<D> Default for View<D> {
    fn default() -> View<D> {
        View {
            schema_version: None,
            media_type: None,
            artifact_type: None,
            config: None,
            layers: None,
            manifests: None,
            blobs: None,
            subject: None,
            fs_layers: false,
            null_manifests: false,
        }
    }
}

impl<D> View<D> {
    /// The two kinds that it is at once, if so: an image for one program and an index for another (CVE-2021-41190).
    pub fn ambiguity(&self) -> Option<&'static str> {
        let image = self.config.is_some() || self.layers.is_some();
        match (image, self.manifests.is_some(), self.blobs.is_some()) {
            (true, true, _) => Some("an image and an index"),
            (_, true, true) => Some("an index and an artifact manifest"),
            _ => None,
        }
    }
}

impl<'de, D: Deserialize<'de>> Deserialize<'de> for View<D> {
    fn deserialize<R: serde::Deserializer<'de>>(deserializer: R) -> Result<View<D>, R::Error> {
        deserializer.deserialize_map(ViewVisitor(PhantomData))
    }
}

struct ViewVisitor<D>(PhantomData<D>);

impl<'de, D: Deserialize<'de>> Visitor<'de> for ViewVisitor<D> {
    type Value = View<D>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<View<D>, A::Error> {
        let mut view = View::default();
        object::read(map, KEYS, |key, map| {
            match KEYS.get(key).copied() {
                Some("schemaVersion") => view.schema_version = map.next_value()?,
                Some("mediaType") => view.media_type = map.next_value()?,
                Some("artifactType") => view.artifact_type = map.next_value()?,
                Some("config") => view.config = map.next_value()?,
                Some("layers") => view.layers = map.next_value()?,
                Some("manifests") => {
                    view.manifests = map.next_value()?;
                    view.null_manifests = view.manifests.is_none();
                }
                Some("blobs") => view.blobs = map.next_value()?,
                Some("subject") => view.subject = map.next_value()?,
                _ => view.fs_layers = map.next_value::<Option<IgnoredAny>>()?.is_some(),
            }
            Ok(())
        })?;
        Ok(view)
    }
}

/// Parses a manifest's own annotations, which are rarely needed. `null` has no value, and more than [`MAX_ANNOTATIONS`] bytes
/// count as none.
pub fn annotations(manifest: &[u8]) -> BTreeMap<String, String> {
    serde_json::from_slice(manifest).map(|OwnAnnotations(annotations)| annotations).unwrap_or_default()
}

struct OwnAnnotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for OwnAnnotations {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<OwnAnnotations, D::Error> {
        deserializer.deserialize_map(OwnVisitor)
    }
}

struct OwnVisitor;

impl<'de> Visitor<'de> for OwnVisitor {
    type Value = OwnAnnotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OwnAnnotations, A::Error> {
        let mut bounded = Bounded::default();
        object::read(map, &["annotations"], |_, map| {
            bounded = or_default(map)?;
            Ok(())
        })?;
        Ok(OwnAnnotations(bounded.0))
    }
}

#[derive(Default)]
struct Bounded(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Bounded {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bounded, D::Error> {
        deserializer.deserialize_map(BoundedVisitor)
    }
}

struct BoundedVisitor;

impl<'de> Visitor<'de> for BoundedVisitor {
    type Value = Bounded;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bounded, A::Error> {
        /// What an entry takes in addition to its text.
        const ENTRY: usize = 64;
        let (mut all, mut room) = (BTreeMap::new(), Some(MAX_ANNOTATIONS));
        while let Some(key) = map.next_key::<String>()? {
            let Some(left) = room else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let Some(value) = map.next_value::<Option<String>>()? else { continue };
            room = left.checked_sub(key.len() + value.len() + ENTRY);
            all.insert(key, value);
        }
        Ok(Bounded(if room.is_some() { all } else { BTreeMap::new() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<View, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn annotations_are_read_on_request_and_up_to_a_limit() {
        let own = |annotations: &str| super::annotations(format!(r#"{{"annotations":{annotations}}}"#).as_bytes());
        assert_eq!(own(r#"{"a":null,"b":"c"}"#), BTreeMap::from([("b".to_owned(), "c".to_owned())]));
        assert!(own("null").is_empty());
        let many: Vec<String> = (0..10_000).map(|n| format!(r#""{n}":"""#)).collect();
        assert!(own(&format!("{{{}}}", many.join(","))).is_empty());
    }

    #[test]
    fn a_manifest_of_two_kinds_is_ambiguous() {
        for (json, what) in [
            (r#"{"layers":[],"manifests":[]}"#, Some("an image and an index")),
            (r#"{"blobs":[],"manifests":[]}"#, Some("an index and an artifact manifest")),
            (r#"{"layers":[],"manifests":null}"#, None),
            (r#"{"manifests":[],"layers":null,"config":null}"#, None),
        ] {
            assert_eq!(read(json).unwrap().ambiguity(), what, "{json}");
        }
        for json in [
            r#"{"layers":[],"Layers":[]}"#,
            r#"{"Manifests":[]}"#,
            r#"{"manifeſts":[]}"#,
            r#"{"layers":[],"layers":[]}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
