//! Descriptors: media type, digest and size of some content (image-spec 1.1 `descriptor.md`).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::object::{self, or_default};
use super::{Digest, Platform};
use crate::spool::Kept;

/// The annotations that are read somewhere. Others are dropped: a manifest of 4 MiB can have 370,000 of them.
const KEPT_ANNOTATIONS: &[&str] = &[
    "dev.cosignproject.cosign/signature",
    "io.containerd.image.name",
    "io.containerd.manifest.subject",
    "org.opencontainers.image.ref.name",
    "vnd.docker.reference.digest",
    "vnd.docker.reference.type",
];
/// So many addresses of one layer are tried.
const MOST_URLS: usize = 16;

/// What is known of a piece of content before it is read.
///
/// This is a *view*: fields that the program does not use are dropped, so a descriptor is never written back into
/// somebody else's manifest; those travel as their exact bytes. A field that may be absent may also be `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Boxed: few descriptors have one, and a registry of thousands of images has many descriptors.
    pub platform: Option<Box<Platform>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Only those that the program reads.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself, where the descriptor brings it along: `size` bytes, unproven.
    #[serde(skip)]
    pub data: Option<Kept>,
}

impl Descriptor {
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            artifact_type: None,
            platform: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
        }
    }

    /// The content, if the descriptor brings it along and the digest proves it.
    pub fn proven_data(&self) -> Option<Bytes> {
        let data = self.data.as_ref()?.bytes().ok()?;
        (Digest::of(self.digest.algorithm(), &data) == self.digest).then_some(data)
    }

    /// Bytes of memory that it takes, roughly; at least as many as its texts have.
    pub fn memory(&self) -> usize {
        let texts = [Some(&self.media_type), self.artifact_type.as_ref()];
        let annotations = self.annotations.iter().flat_map(|(key, value)| [key, value]);
        let texts = texts.into_iter().flatten().chain(&self.urls).chain(annotations).map(String::len).sum::<usize>();
        let platform = self.platform.as_ref().map_or(0, |platform| platform.memory());
        size_of::<Descriptor>() + texts + platform
    }

    /// BuildKit marks an attestation manifest with the digest of the child of the same index it speaks of
    /// (buildkit `attestation-storage.md`).
    pub fn attestation_subject(&self) -> Option<Digest> {
        let kind = self.annotations.get("vnd.docker.reference.type")?;
        if kind != "attestation-manifest" {
            return None;
        }
        self.annotations.get("vnd.docker.reference.digest")?.parse().ok()
    }
}

const KEYS: &[&str] = &["mediaType", "digest", "size", "artifactType", "platform", "urls", "annotations", "data"];

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Descriptor, D::Error> {
        deserializer.deserialize_map(DescriptorVisitor)
    }
}

struct DescriptorVisitor;

impl<'de> Visitor<'de> for DescriptorVisitor {
    type Value = Descriptor;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a descriptor")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Descriptor, A::Error> {
        let (mut media_type, mut digest, mut size) = (String::new(), None, None);
        let (mut artifact_type, mut platform) = (None, None);
        let (mut urls, mut annotations, mut data) = (Urls::default(), Annotations::default(), None::<String>);
        object::read(map, KEYS, |key, map| {
            match KEYS.get(key).copied() {
                Some("mediaType") => media_type = or_default(map)?,
                Some("digest") => digest = Some(map.next_value()?),
                Some("size") => size = Some(map.next_value()?),
                Some("artifactType") => artifact_type = map.next_value()?,
                Some("platform") => platform = map.next_value()?,
                Some("urls") => urls = or_default(map)?,
                Some("annotations") => annotations = or_default(map)?,
                _ => data = map.next_value()?,
            }
            Ok(())
        })?;
        let missing = <A::Error as serde::de::Error>::missing_field;
        let size: u64 = size.ok_or_else(|| missing("size"))?;
        // What is not what it should be is fetched, as if it were not there.
        let decoded = data.and_then(|text| BASE64.decode(text).ok()).filter(|data| data.len() as u64 == size);
        Ok(Descriptor {
            media_type,
            digest: digest.ok_or_else(|| missing("digest"))?,
            size,
            artifact_type,
            platform,
            urls: urls.0,
            annotations: annotations.0,
            data: decoded.map(|data| Kept::new(&data)),
        })
    }
}

/// The first few addresses of a list.
#[derive(Default)]
struct Urls(Vec<String>);

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Urls, D::Error> {
        deserializer.deserialize_seq(UrlsVisitor)
    }
}

struct UrlsVisitor;

impl<'de> Visitor<'de> for UrlsVisitor {
    type Value = Urls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of URLs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Urls, A::Error> {
        let mut urls = Vec::new();
        while urls.len() < MOST_URLS {
            match list.next_element::<Option<String>>()? {
                Some(url) => urls.extend(url),
                None => return Ok(Urls(urls)),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Urls(urls))
    }
}

/// The annotations that are kept.
#[derive(Default)]
struct Annotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Annotations, D::Error> {
        deserializer.deserialize_map(AnnotationsVisitor)
    }
}

struct AnnotationsVisitor;

impl<'de> Visitor<'de> for AnnotationsVisitor {
    type Value = Annotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
        let mut kept = BTreeMap::new();
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            match KEPT_ANNOTATIONS.iter().find(|kept| **kept == key) {
                Some(key) => kept.extend(map.next_value::<Option<String>>()?.map(|value| ((*key).to_owned(), value))),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Annotations(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &str) -> Result<Descriptor, serde_json::Error> {
        serde_json::from_str(&format!(r#"{{"digest":"{}","size":2{fields}}}"#, Digest::sha256(b"{}")))
    }

    #[test]
    fn null_is_absent_wherever_a_field_may_be() {
        let nulls =
            r#","mediaType":null,"artifactType":null,"platform":null,"urls":null,"annotations":null,"data":null"#;
        assert_eq!(read(nulls).unwrap(), read("").unwrap());
        let inside = r#","annotations":{"vnd.docker.reference.type":null,"x":null},"urls":[null]"#;
        assert_eq!(read(inside).unwrap(), read("").unwrap());
        assert!(serde_json::from_str::<Descriptor>(r#"{"digest":null,"size":2}"#).is_err());
    }

    #[test]
    fn content_in_the_descriptor_is_kept_if_it_has_the_size() {
        assert_eq!(read(r#","data":"e30=""#).unwrap().data.unwrap().bytes().unwrap(), "{}");
        for other in [r#","data":"e30K""#, r#","data":"%""#, r#","data":"""#] {
            assert_eq!(read(other).unwrap().data, None, "{other}");
        }
    }

    #[test]
    fn a_key_that_go_would_take_for_another_one_is_refused() {
        for fields in [r#","Digest":"x""#, r#","SIZE":3"#, r#","urlſ":[]"#, r#","size":3"#] {
            assert!(read(fields).is_err(), "{fields}");
        }
        assert!(read(r#","annotations":{"a":"","A":"","digest":"","digest":""},"x":1,"X":2"#).is_ok());
    }

    #[test]
    fn annotations_that_nobody_reads_take_no_memory() {
        let many: Vec<String> = (0..1000).map(|n| format!(r#""{n}":"""#)).collect();
        let fields =
            format!(r#","annotations":{{{},"vnd.docker.reference.type":"attestation-manifest"}}"#, many.join(","));
        assert_eq!(read(&fields).unwrap().annotations.len(), 1);
        let urls = format!(r#","urls":["{}"]"#, vec!["https://x/"; 1000].join("\",\""));
        assert_eq!(read(&urls).unwrap().urls.len(), MOST_URLS);
    }
}
