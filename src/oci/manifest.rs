//! A manifest: the exact bytes received, and the views derived from them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::descriptor::LONGEST_TYPE;
use super::outline::Outline;
use super::view::{self, View};
use super::weight::OfManifest;
use super::{Algorithm, Descriptor, Digest, media_type};
use crate::error::{self, Error};
use crate::spool::Kept;

/// The largest manifest that is read, in bytes: the limit that registries set (distribution `maxManifestBodySize`).
pub const MAX_MANIFEST_SIZE: u64 = 4 * 1024 * 1024;

/// More layers, or manifests of an index, than anybody has: a list of some ten thousand signatures has the most.
const MOST_CHILDREN: usize = 20_000;

/// A manifest that was read and understood. Its digest never changes on the way: the bytes are never serialized anew.
///
/// Cheap to clone and to keep by the thousand, whatever is in it: only what it is and the descriptors of what it points to
/// stay in memory, and there is a limit to those. See [`spool`](crate::spool) for the rest.
#[derive(Clone)]
pub struct Manifest(Arc<Inner>);

struct Inner {
    bytes: Kept,
    outline: Outline,
    children: Vec<Child>,
    _weight: OfManifest,
}

/// What kind of manifest it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One image or artifact: a config and layers.
    Image,
    /// An image index or Docker manifest list.
    Index,
    /// The withdrawn OCI artifact manifest: blobs, no config.
    Artifact,
}

/// Why bytes are not a manifest that can be carried. The caller names the registry, repository or path.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest has {0} bytes, more than the {MAX_MANIFEST_SIZE} allowed")]
    TooLarge(u64),
    #[error("wrong digest: expected {expected}, the bytes have {found}")]
    Digest { expected: Digest, found: Digest },
    #[error("it is not a manifest: {reason}; it begins {start:?}")]
    Malformed { reason: String, start: String },
    #[error("it is a Docker schema 1 manifest, which stores no layer digests that could be carried unchanged")]
    Schema1,
    #[error("unsupported media type {0:?}")]
    MediaType(String),
    #[error("served as {header:?}, but the manifest itself says {body:?}")]
    MediaTypeConflict { header: String, body: String },
    #[error("it is {0} at once, and programs differ in which of them they take: it is not carried")]
    Ambiguous(&'static str),
    #[error("it names {0} layers or manifests; the limit is {MOST_CHILDREN}: leave the image out")]
    TooManyChildren(usize),
    #[error("the {what} that begins {start:?} has {length} bytes; the limit is {most}: leave the image out")]
    TooLong { what: &'static str, length: usize, most: usize, start: String },
    #[error(
        "the manifests of this run name too many layers; the limit is 250,000, or 15 per manifest if that is more: leave the \
         image out, or carry fewer images at once"
    )]
    TooManyInAll,
}

/// One thing a manifest points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    pub role: Role,
    pub descriptor: Descriptor,
}

/// What a child is to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A manifest of an index.
    Manifest,
    /// The config of an image manifest.
    Config,
    /// A layer, or a blob of an artifact.
    Layer,
    /// A layer that registries are not expected to hold; its `urls` say where it is.
    ForeignLayer,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// `served_as` is the Content-Type or the media type of the descriptor that led here, if any. The manifest's own
    /// `mediaType` counts more: it is what a registry is told when the manifest is put. One of them may say OCI and the other
    /// Docker, but not one image and the other index. `expected` is the digest it was asked for by; with none, the digest is
    /// sha256.
    ///
    /// # Errors
    /// Too large, not JSON, schema 1, a type that is no manifest, another digest than `expected`, image and index at once,
    /// a key that is there twice or in another case, or more and longer descriptors than a run may hold.
    pub fn parse(bytes: Bytes, served_as: Option<&str>, expected: Option<&Digest>) -> Result<Manifest, ManifestError> {
        let digest = check_bytes(&bytes, expected)?;
        let view: View = view_of(&bytes)?;
        let media_type = decide_type(&view, served_as, &bytes)?;
        check_content(&view, &bytes)?;
        check_texts(&view)?;
        let (outline, view) = Outline::of(view, media_type, digest, bytes.len());
        let mut children = children(view, outline.kind());
        if children.len() > MOST_CHILDREN {
            return Err(ManifestError::TooManyChildren(children.len()));
        }
        children.shrink_to_fit();
        let weight = OfManifest::take(memory(&children));
        if !Descriptor::all_fit() {
            return Err(ManifestError::TooManyInAll);
        }
        Ok(Manifest(Arc::new(Inner { bytes: Kept::new(&bytes), outline, children, _weight: weight })))
    }

    /// The same manifest as a descriptor calls it that led to it: files do not say of what media type a manifest is that has no
    /// `mediaType` of its own. What it says itself counts more, and a type that it cannot have does not count: Docker's images
    /// have no config of OCI's, and registries refuse them.
    ///
    /// # Errors
    /// As [`bytes`](Manifest::bytes).
    pub fn described_as(self, media_type: &str) -> error::Result<Manifest> {
        let is_docker = media_type == media_type::DOCKER_MANIFEST;
        let has_oci_config = self.config().is_some_and(|config| config.media_type == media_type::OCI_CONFIG);
        let is_possible = media_type::is_manifest(media_type) && !(is_docker && has_oci_config);
        if self.media_type() == media_type || !is_possible {
            return Ok(self);
        }
        let described = Manifest::parse(self.bytes()?, Some(media_type), Some(&self.digest()));
        Ok(described.ok().filter(|described| described.kind() == self.kind()).unwrap_or(self))
    }

    /// The exact bytes.
    ///
    /// # Errors
    /// There were too many manifests to keep them all, and no room for this one in a temporary file.
    pub fn bytes(&self) -> error::Result<Bytes> {
        let fail = |e| Error::new(error::Kind::Disk, format!("keeping the manifest {}", self.digest())).because(e);
        self.0.bytes.bytes().map_err(fail)
    }

    /// The exact bytes, as they are kept.
    pub fn kept(&self) -> &Kept {
        &self.0.bytes
    }

    /// Its media type; never empty.
    pub fn media_type(&self) -> &str {
        self.0.outline.media_type()
    }

    pub fn digest(&self) -> Digest {
        self.0.outline.digest
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.0.outline.size
    }

    pub fn kind(&self) -> Kind {
        self.0.outline.kind()
    }

    pub fn descriptor(&self) -> Descriptor {
        self.0.outline.descriptor()
    }

    /// The manifest this one refers to, when it is a signature, SBOM or the like.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.0.outline.subject()
    }

    pub fn config(&self) -> Option<&Descriptor> {
        self.0.outline.config()
    }

    /// As [`Outline::artifact_type`].
    pub fn artifact_type(&self) -> Option<String> {
        self.0.outline.artifact_type()
    }

    /// Its own annotations, read each time. None where they take more than 64 KiB of JSON.
    ///
    /// # Errors
    /// As [`bytes`](Manifest::bytes).
    pub fn annotations(&self) -> error::Result<std::collections::BTreeMap<String, String>> {
        Ok(view::annotations(&self.bytes()?))
    }

    /// Everything this manifest points to, in its own order: an index's manifests; an image's config, then its layers.
    /// The subject is not a child: it is not needed to make this manifest whole.
    pub fn children(&self) -> Vec<Child> {
        self.0.children.clone()
    }
}

/// The digest of a manifest's bytes.
///
/// # Errors
/// They are too many, or have another one than `expected`.
pub(super) fn check_bytes(bytes: &[u8], expected: Option<&Digest>) -> Result<Digest, ManifestError> {
    if bytes.len() as u64 > MAX_MANIFEST_SIZE {
        return Err(ManifestError::TooLarge(bytes.len() as u64));
    }
    let digest = Digest::of(expected.map_or(Algorithm::Sha256, Digest::algorithm), bytes);
    match expected.filter(|expected| **expected != digest) {
        Some(expected) => Err(ManifestError::Digest { expected: *expected, found: digest }),
        None => Ok(digest),
    }
}

pub(super) fn view_of<D: DeserializeOwned>(bytes: &[u8]) -> Result<View<D>, ManifestError> {
    serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string(), bytes))
}

/// # Errors
/// It lists a manifest as a layer: registries refuse it, and what it points to would be carried by nobody.
fn check_content(view: &View, bytes: &[u8]) -> Result<(), ManifestError> {
    let content = view.config.iter().chain(view.layers.iter().flatten()).chain(view.blobs.iter().flatten());
    match content.into_iter().find(|descriptor| media_type::is_manifest(&descriptor.media_type)) {
        Some(descriptor) => Err(malformed(format!("it lists the manifest {} as a layer", descriptor.digest), bytes)),
        None => Ok(()),
    }
}

/// # Errors
/// A text that is kept is longer than any that means something.
fn check_texts(view: &View) -> Result<(), ManifestError> {
    let lists = [&view.layers, &view.manifests, &view.blobs].into_iter().flatten().flatten();
    let all = lists.chain(&view.config).chain(&view.subject).flat_map(|descriptor| descriptor.texts());
    let own = view.artifact_type.iter().map(|text| (text.as_str(), LONGEST_TYPE, "artifact type"));
    match all.chain(own).find(|(text, most, _)| text.len() > *most) {
        Some((text, most, what)) => {
            let start = text.chars().take(60).collect();
            Err(ManifestError::TooLong { what, length: text.len(), most, start })
        }
        None => Ok(()),
    }
}

/// Bytes of memory that a list of children takes, roughly, besides descriptors that others may share.
fn memory(children: &[Child]) -> usize {
    /// What an unusual media type takes besides its text.
    const TEXT: usize = 64;
    let mut unusual: Vec<&str> = children.iter().map(|child| child.descriptor.media_type.as_str()).collect();
    unusual.sort_unstable();
    unusual.dedup();
    size_of_val(children) + unusual.iter().map(|text| TEXT + text.len()).sum::<usize>()
}

pub(super) fn kind_of(media_type: &str) -> Kind {
    match media_type {
        t if media_type::is_index(t) => Kind::Index,
        media_type::OCI_ARTIFACT => Kind::Artifact,
        _ => Kind::Image,
    }
}

fn children(view: View, kind: Kind) -> Vec<Child> {
    let list = |descriptors: Option<Vec<Descriptor>>| descriptors.unwrap_or_default().into_iter();
    match kind {
        Kind::Index => {
            list(view.manifests).map(|descriptor| Child { role: index_role(&descriptor), descriptor }).collect()
        }
        Kind::Artifact => list(view.blobs).map(layer).collect(),
        Kind::Image => {
            let config = view.config.map(|descriptor| Child { role: Role::Config, descriptor });
            config.into_iter().chain(list(view.layers).map(layer)).collect()
        }
    }
}

/// BuildKit's registry cache puts layers straight into an index; by their type they are blobs.
fn index_role(descriptor: &Descriptor) -> Role {
    let blob = descriptor.media_type.contains(".layer.")
        || descriptor.media_type.contains(".rootfs.")
        || descriptor.media_type.starts_with("application/vnd.buildkit.cacheconfig.");
    if blob { Role::Layer } else { Role::Manifest }
}

fn layer(descriptor: Descriptor) -> Child {
    let foreign = media_type::is_foreign_layer(&descriptor.media_type);
    Child { role: if foreign { Role::ForeignLayer } else { Role::Layer }, descriptor }
}

/// The body's own `mediaType`, else what it was served as, else a guess from its fields (facts: containers/image
/// `manifest.GuessMIMEType`).
pub(super) fn decide_type<D>(view: &View<D>, served_as: Option<&str>, bytes: &[u8]) -> Result<String, ManifestError> {
    let header = served_as.map(|t| t.split(';').next().unwrap_or(t).trim()).filter(|t| media_type::is_manifest(t));
    let body = view.media_type.as_deref().filter(|t| !t.is_empty());
    if view.schema_version == Some(1) || view.fs_layers || body.is_some_and(media_type::is_schema1) {
        return Err(ManifestError::Schema1);
    }
    if let Some(both) = view.ambiguity() {
        return Err(ManifestError::Ambiguous(both));
    }
    let decided = match (body, header) {
        (Some(body), _) if !media_type::is_manifest(body) => {
            return Err(ManifestError::MediaType(shortened(body.to_owned())));
        }
        (Some(body), Some(header)) if media_type::is_index(body) != media_type::is_index(header) => {
            return Err(ManifestError::MediaTypeConflict { header: header.to_owned(), body: body.to_owned() });
        }
        (Some(body), _) => body,
        (None, Some(header)) => header,
        (None, None) => match (&view.config, &view.manifests) {
            (Some(config), _) if config.media_type == media_type::DOCKER_CONFIG => media_type::DOCKER_MANIFEST,
            (Some(_), _) => media_type::OCI_MANIFEST,
            (None, Some(_)) => media_type::OCI_INDEX,
            (None, None) => return Err(malformed("neither config nor manifests".into(), bytes)),
        },
    };
    let needed = match decided {
        t if media_type::is_index(t) => view.manifests.is_some() || view.null_manifests,
        media_type::OCI_ARTIFACT => true,
        _ => view.config.is_some(),
    };
    if !needed {
        return Err(malformed(format!("fields that {decided} must have are missing"), bytes));
    }
    Ok(decided.to_owned())
}

/// What a manifest says may be as long as itself, and errors are kept: thousands of them, in a long run.
fn malformed(reason: String, bytes: &[u8]) -> ManifestError {
    let reason = shortened(reason);
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    ManifestError::Malformed { reason, start }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(LONGEST_TYPE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manifest({} {})", self.media_type(), self.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, served_as: Option<&str>) -> Result<Manifest, ManifestError> {
        Manifest::parse(Bytes::copy_from_slice(json.as_bytes()), served_as, None)
    }

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn config_then_layers_in_their_own_order() {
        let json = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{D}","size":0}},
            "layers":[{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{D}","size":0,"urls":["https://x/"]}},
            {{"mediaType":"x/y","digest":"{D}","size":7}}]}}"#,
            media_type::DOCKER_CONFIG
        );
        let manifest = parse(&json, None).unwrap();
        assert_eq!(manifest.media_type(), media_type::DOCKER_MANIFEST);
        let roles: Vec<Role> = manifest.children().iter().map(|c| c.role).collect();
        assert_eq!(roles, [Role::Config, Role::ForeignLayer, Role::Layer]);
    }

    #[test]
    fn a_descriptor_says_the_type_of_a_manifest_that_does_not_say_it_itself() {
        let config = |t: &str| format!(r#""config":{{"mediaType":"{t}","digest":"{D}","size":0}},"layers":[]"#);
        let plain = format!("{{{}}}", config("x/y"));
        let says = format!(r#"{{"mediaType":"{}",{}}}"#, media_type::OCI_MANIFEST, config("x/y"));
        let described = |json: &str, t: &str| parse(json, None).unwrap().described_as(t).unwrap();
        assert_eq!(described(&plain, media_type::DOCKER_MANIFEST).media_type(), media_type::DOCKER_MANIFEST);
        assert_eq!(described(&plain, media_type::DOCKER_MANIFEST).digest(), Digest::sha256(plain.as_bytes()));
        assert_eq!(described(&says, media_type::DOCKER_MANIFEST).media_type(), media_type::OCI_MANIFEST);
        let of_oci = format!("{{{}}}", config(media_type::OCI_CONFIG));
        assert_eq!(described(&of_oci, media_type::DOCKER_MANIFEST).media_type(), media_type::OCI_MANIFEST);
        for other in [media_type::OCI_INDEX, media_type::OCI_ARTIFACT, "x/y", ""] {
            assert_eq!(described(&plain, other).media_type(), media_type::OCI_MANIFEST, "{other}");
        }
    }

    #[test]
    fn a_manifest_listed_as_a_layer_is_refused_because_nobody_would_carry_its_content() {
        let descriptor = |t: &str| format!(r#"{{"mediaType":"{t}","digest":"{D}","size":7}}"#);
        for kind in
            [media_type::OCI_MANIFEST, media_type::OCI_INDEX, media_type::DOCKER_MANIFEST, media_type::DOCKER_LIST]
        {
            let (blob, manifest) = (descriptor("x/y"), descriptor(kind));
            for json in [
                format!(r#"{{"config":{blob},"layers":[{blob},{manifest}]}}"#),
                format!(r#"{{"config":{manifest},"layers":[]}}"#),
                format!(r#"{{"mediaType":"{}","blobs":[{manifest}]}}"#, media_type::OCI_ARTIFACT),
            ] {
                let said = parse(&json, None).unwrap_err().to_string();
                assert!(said.contains(&format!("it lists the manifest {D} as a layer")), "{json}: {said}");
            }
        }
    }

    #[test]
    fn what_one_manifest_may_hold_is_limited_and_the_error_says_which_limit() {
        let one = format!(r#"{{"mediaType":"x/y","digest":"{D}","size":0}}"#);
        let layers = |number: usize| {
            let layers = vec![one.as_str(); number].join(",");
            parse(&format!(r#"{{"config":{one},"layers":[{layers}]}}"#), None)
        };
        assert_eq!(layers(MOST_CHILDREN - 1).unwrap().children().len(), MOST_CHILDREN);
        let said = layers(MOST_CHILDREN).unwrap_err().to_string();
        assert!(said.contains("20001 layers or manifests; the limit is 20000"), "{said}");

        let with = |field: &str, length: usize| {
            let long = "x".repeat(length);
            let field = field.replace('$', &long);
            parse(&format!(r#"{{"config":{{"digest":"{D}","size":0,{field}}},"layers":[]}}"#), None)
        };
        for (field, most, what) in [
            (r#""mediaType":"$""#, 255, "media type"),
            (r#""artifactType":"$""#, 255, "artifact type"),
            (r#""platform":{"os":"$","architecture":""}"#, 255, "platform"),
            (r#""urls":["$"]"#, 4096, "URL"),
            (r#""annotations":{"dev.cosignproject.cosign/signature":"$"}"#, 16384, "annotation"),
        ] {
            assert!(with(field, most).is_ok(), "{field}");
            let said = with(field, most + 1).unwrap_err().to_string();
            assert!(said.contains(&format!("the {what} that begins")), "{said}");
            assert!(said.contains(&format!("{} bytes; the limit is {most}", most + 1)), "{said}");
        }
        assert!(with(r#""annotations":{"other":"$"}"#, 100_000).is_ok(), "what is not read is not limited");
    }

    #[test]
    fn an_error_does_not_repeat_all_that_a_manifest_says() {
        let long = "x".repeat(100_000);
        let config = format!(r#""config":{{"digest":"{D}","size":0}},"layers":[]"#);
        for json in [
            format!(r#"{{"mediaType":"{long}",{config}}}"#),
            format!(r#"{{"schemaVersion":"{long}",{config}}}"#),
            format!(r#"{{"config":{{"digest":"{long}","size":0}},"layers":[]}}"#),
            format!(r#"{{"config":{{"digest":"{D}","size":"{long}"}},"layers":[]}}"#),
            format!(r#"{{"config":{{"mediaType":"{long}","digest":"{D}","size":0}},"layers":[]}}"#),
        ] {
            let said = parse(&json, None).unwrap_err().to_string();
            assert!(said.len() < 1000, "{} bytes: {}", said.len(), &said[..200]);
        }
    }

    #[test]
    fn an_html_page_with_status_200_is_no_manifest() {
        let error = parse("<html>Bad gateway</html>", Some("text/html")).unwrap_err();
        assert!(error.to_string().contains("<html>Bad gateway"), "{error}");
    }

    #[test]
    fn what_a_manifest_says_of_itself_counts_more_than_what_it_was_served_as() {
        let json = format!(r#"{{"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX);
        for served_as in [media_type::OCI_INDEX, media_type::DOCKER_LIST, "application/octet-stream"] {
            assert_eq!(parse(&json, Some(served_as)).unwrap().media_type(), media_type::OCI_INDEX, "{served_as}");
        }
        // Whoever goes by the type that was served would read another thing.
        let served_as = Some(media_type::OCI_MANIFEST);
        assert!(matches!(parse(&json, served_as), Err(ManifestError::MediaTypeConflict { .. })));
    }

    #[test]
    fn an_image_that_is_an_index_to_others_is_refused() {
        let one = format!(r#"{{"mediaType":"x/y","digest":"{D}","size":0}}"#);
        let json = format!(r#"{{"config":{one},"layers":[],"manifests":[{one}]}}"#);
        for served_as in [None, Some(media_type::OCI_MANIFEST), Some(media_type::OCI_INDEX)] {
            assert!(matches!(parse(&json, served_as), Err(ManifestError::Ambiguous(_))), "{served_as:?}");
        }
        let said = parse(&format!(r#"{{"config":{one},"layers":[],"Manifests":[]}}"#), None).unwrap_err().to_string();
        assert!(said.contains("\"Manifests\" differs from \"manifests\" only in case"), "{said}");
    }

    #[test]
    fn null_lists_are_empty_lists() {
        let one = format!(r#"{{"mediaType":"x/y","digest":"{D}","size":0}}"#);
        let image = parse(&format!(r#"{{"config":{one},"layers":null,"annotations":null}}"#), None).unwrap();
        assert_eq!(image.children().len(), 1);
        let index = parse(r#"{"manifests":null}"#, Some(media_type::OCI_INDEX)).unwrap();
        assert!(index.children().is_empty());
    }

    #[test]
    fn schema1_and_empty_objects_are_refused() {
        assert!(matches!(parse(r#"{"schemaVersion":1}"#, None), Err(ManifestError::Schema1)));
        assert!(matches!(parse("{}", None), Err(ManifestError::Malformed { .. })));
        assert!(matches!(parse("{}", Some(media_type::OCI_MANIFEST)), Err(ManifestError::Malformed { .. })));
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let wrong = Digest::sha256(b"other");
        let error = Manifest::parse(Bytes::from_static(b"{}"), None, Some(&wrong)).unwrap_err();
        assert!(matches!(error, ManifestError::Digest { .. }));
    }
}
