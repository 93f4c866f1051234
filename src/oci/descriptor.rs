//! Descriptors: media type, digest and size of some content (image-spec 1.1 `descriptor.md`).

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::interned::Interned;
use super::media_type::{self, MediaType};
use super::object::{self, or_default};
use super::weight::{self, Exempt};
use super::{Digest, Platform};
use crate::spool::Kept;

/// The annotations that gapferry reads. Others are dropped: a manifest of 4 MiB can have 370,000 of them.
const KEPT_ANNOTATIONS: &[&str] = &[
    "dev.cosignproject.cosign/signature",
    "io.containerd.image.name",
    "io.containerd.manifest.subject",
    "org.opencontainers.image.ref.name",
    "vnd.docker.reference.digest",
    "vnd.docker.reference.type",
];
/// Maximum number of addresses to try for a layer.
const MOST_URLS: usize = 16;
/// Maximum length in bytes of a media type, an artifact type or a part of a platform.
pub(super) const LONGEST_TYPE: usize = media_type::LONGEST;
const LONGEST_URL: usize = 4096;
/// cosign's signatures have a few hundred bytes.
const LONGEST_ANNOTATION: usize = 16 * 1024;

/// What is known about content before it is read.
///
/// This is a *view*: unused fields are dropped, so a descriptor is never written back into a foreign manifest, which is
/// carried as its exact bytes. An optional field may also be `null`.
///
/// Cloning is cheap: a run may hold hundreds of thousands of them in several lists. Those with only media type, digest and
/// size are in memory once, however many manifests contain them.
#[derive(Clone, PartialEq, Eq)]
pub struct Descriptor(Arc<Described>);

/// The fields of a [`Descriptor`].
pub struct Described {
    pub media_type: MediaType,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Fields that few descriptors have.
    more: Option<Box<More>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct More {
    artifact_type: Option<String>,
    platform: Option<Platform>,
    urls: Vec<String>,
    annotations: BTreeMap<String, String>,
    data: Option<Kept>,
}

static SHARED: LazyLock<Interned<Described>> = LazyLock::new(Interned::new);
static NO_ANNOTATIONS: BTreeMap<String, String> = BTreeMap::new();

impl Descriptor {
    pub fn new(media_type: impl Into<MediaType>, digest: Digest, size: u64) -> Descriptor {
        Descriptor::of(media_type.into(), digest, size, More::default())
    }

    /// Only media type, digest, size and artifact type.
    pub fn bare(&self) -> Descriptor {
        let bare = Descriptor::new(self.media_type.clone(), self.digest, self.size);
        bare.with_artifact_type(self.artifact_type().map(str::to_owned))
    }

    pub fn with_artifact_type(&self, artifact_type: Option<String>) -> Descriptor {
        self.with(More { artifact_type, ..self.more() })
    }

    pub fn with_annotations(&self, annotations: BTreeMap<String, String>) -> Descriptor {
        self.with(More { annotations, ..self.more() })
    }

    fn of(media_type: MediaType, digest: Digest, size: u64, more: More) -> Descriptor {
        let more = (more != More::default()).then(|| Box::new(more));
        let new = Arc::new(Described { media_type, digest, size, more });
        weight::take(new.memory());
        // Only small ones are shared, because the table keeps unused entries for a while.
        let is_small = new.more.is_none() && new.media_type.len() <= LONGEST_TYPE;
        Descriptor(if is_small { SHARED.share(new) } else { new })
    }

    fn with(&self, more: More) -> Descriptor {
        Descriptor::of(self.media_type.clone(), self.digest, self.size, more)
    }

    fn more(&self) -> More {
        self.more.as_deref().cloned().unwrap_or_default()
    }

    /// Exempts `descriptors`, whose number has its own limit, from the limit of a run for as long as the result lives.
    pub fn exempt(descriptors: &[Descriptor]) -> Exempt {
        let mut each: Vec<&Described> = descriptors.iter().map(|descriptor| &**descriptor).collect();
        each.sort_unstable_by_key(|described| std::ptr::from_ref(*described));
        each.dedup_by_key(|described| std::ptr::from_ref(*described));
        Exempt::of(each.into_iter().map(Described::memory).sum())
    }

    /// Whether the number of descriptors is within the limit of a run.
    pub(super) fn all_fit() -> bool {
        if !weight::fits() {
            SHARED.clear();
        }
        weight::fits()
    }
}

impl Described {
    pub fn artifact_type(&self) -> Option<&str> {
        self.more.as_ref()?.artifact_type.as_deref()
    }

    pub fn platform(&self) -> Option<&Platform> {
        self.more.as_ref()?.platform.as_ref()
    }

    /// Where else the content is available.
    pub fn urls(&self) -> &[String] {
        self.more.as_ref().map_or(&[], |more| &more.urls)
    }

    /// Only those that gapferry reads.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        self.more.as_ref().map_or(&NO_ANNOTATIONS, |more| &more.annotations)
    }

    /// The content, if the descriptor contains it and the digest verifies it.
    pub fn proven_data(&self) -> Option<Bytes> {
        let data = self.more.as_ref()?.data.as_ref()?.bytes().ok()?;
        self.digest.is_of(&data).then_some(data)
    }

    /// BuildKit marks an attestation manifest with the digest of the child in the same index that it refers to (buildkit
    /// `attestation-storage.md`).
    pub fn attestation_subject(&self) -> Option<Digest> {
        let kind = self.annotations().get("vnd.docker.reference.type")?;
        if kind != "attestation-manifest" {
            return None;
        }
        self.annotations().get("vnd.docker.reference.digest")?.parse().ok()
    }

    /// All its texts, each with its maximum length in bytes and a name.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, usize, &'static str)> {
        let media_type = [(self.media_type.as_str(), LONGEST_TYPE, "media type")];
        media_type.into_iter().chain(self.more.iter().flat_map(|more| more.texts()))
    }

    /// Approximate size in memory in bytes, without the media type, which is mostly shared.
    fn memory(&self) -> usize {
        /// The allocation itself, its counters, and its places in a table and in lists.
        const BESIDES: usize = 48;
        size_of::<Described>() + BESIDES + self.more.as_ref().map_or(0, |more| more.memory())
    }
}

impl More {
    fn texts(&self) -> impl Iterator<Item = (&str, usize, &'static str)> {
        let artifact_type = self.artifact_type.as_deref().map(|text| (text, LONGEST_TYPE, "artifact type"));
        let platform = self.platform.iter().flat_map(Platform::parts).map(|text| (text, LONGEST_TYPE, "platform"));
        let urls = self.urls.iter().map(|url| (url.as_str(), LONGEST_URL, "URL"));
        let annotations = self.annotations.values().map(|text| (text.as_str(), LONGEST_ANNOTATION, "annotation"));
        artifact_type.into_iter().chain(platform).chain(urls).chain(annotations)
    }

    fn memory(&self) -> usize {
        /// What a text takes in addition to its bytes.
        const TEXT: usize = 48;
        let texts: usize = self.texts().map(|(text, ..)| text.len() + TEXT).sum();
        let data = self.data.as_ref().map_or(0, |_| Kept::OVERHEAD);
        size_of::<More>() + texts + data
    }
}

impl Deref for Descriptor {
    type Target = Described;

    fn deref(&self) -> &Described {
        &self.0
    }
}

impl Drop for Described {
    fn drop(&mut self) {
        weight::give_back(self.memory());
    }
}

impl PartialEq for Described {
    fn eq(&self, other: &Described) -> bool {
        self.digest == other.digest
            && self.size == other.size
            && self.media_type == other.media_type
            && self.more == other.more
    }
}

impl Eq for Described {}

/// By the digest alone: content with the same digest is hardly ever described in two ways.
impl Hash for Described {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Descriptor");
        shown.field("media_type", &self.media_type).field("digest", &self.digest).field("size", &self.size);
        self.more.as_ref().map(|more| shown.field("more", more));
        shown.finish()
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("mediaType", &self.media_type)?;
        map.serialize_entry("digest", &self.digest)?;
        map.serialize_entry("size", &self.size)?;
        if let Some(artifact_type) = self.artifact_type() {
            map.serialize_entry("artifactType", artifact_type)?;
        }
        if let Some(platform) = self.platform() {
            map.serialize_entry("platform", platform)?;
        }
        if !self.urls().is_empty() {
            map.serialize_entry("urls", self.urls())?;
        }
        if !self.annotations().is_empty() {
            map.serialize_entry("annotations", self.annotations())?;
        }
        map.end()
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
        let (mut media_type, mut digest, mut size) = (MediaType::default(), None, None);
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
        // Embedded content that does not verify is fetched as if it were not there.
        let decoded = data.and_then(|text| BASE64.decode(text).ok()).filter(|data| data.len() as u64 == size);
        let data = decoded.map(|data| Kept::new(&data));
        let more = More { artifact_type, platform, urls: urls.0, annotations: annotations.0, data };
        Ok(Descriptor::of(media_type, digest.ok_or_else(|| missing("digest"))?, size, more))
    }
}

/// The first addresses of a list.
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
    fn content_embedded_in_a_descriptor_is_kept_if_its_size_is_right() {
        assert_eq!(read(r#","data":"e30=""#).unwrap().proven_data().unwrap(), "{}");
        for other in [r#","data":"e30K""#, r#","data":"%""#, r#","data":"""#] {
            assert_eq!(read(other).unwrap(), read("").unwrap(), "{other}");
        }
    }

    #[test]
    fn a_key_that_go_would_read_as_another_one_is_refused() {
        for fields in [r#","Digest":"x""#, r#","SIZE":3"#, r#","urlſ":[]"#, r#","size":3"#] {
            assert!(read(fields).is_err(), "{fields}");
        }
        assert!(read(r#","annotations":{"a":"","A":"","digest":"","digest":""},"x":1,"X":2"#).is_ok());
    }

    #[test]
    fn a_run_can_hold_many_descriptors() {
        assert_eq!(size_of::<Descriptor>(), 8);
        assert!(size_of::<Described>() <= 72);
        let (one, same, other) = (read("").unwrap(), read("").unwrap(), read(r#","mediaType":"x/y""#).unwrap());
        assert!(std::ptr::eq(&*one, &*same) && !std::ptr::eq(&*one, &*other));
    }

    #[test]
    fn a_descriptor_with_a_media_type_that_is_refused_is_not_kept() {
        let long = |length: usize| read(&format!(r#","mediaType":"x/{}""#, "x".repeat(length - 2))).unwrap();
        let is_kept = |length| std::ptr::eq(&*long(length), &*long(length));
        let (longest, longer) = (long(LONGEST_TYPE), long(LONGEST_TYPE + 1));
        assert!(is_kept(LONGEST_TYPE) && !std::ptr::eq(&*longer, &*long(LONGEST_TYPE + 1)));
        assert!(longest != longer);
    }

    #[test]
    fn unused_annotations_take_no_memory() {
        let many: Vec<String> = (0..1000).map(|n| format!(r#""{n}":"""#)).collect();
        let fields =
            format!(r#","annotations":{{{},"vnd.docker.reference.type":"attestation-manifest"}}"#, many.join(","));
        assert_eq!(read(&fields).unwrap().annotations().len(), 1);
        let urls = format!(r#","urls":["{}"]"#, vec!["https://x/"; 1000].join("\",\""));
        assert_eq!(read(&urls).unwrap().urls().len(), MOST_URLS);
    }
}
