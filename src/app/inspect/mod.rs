//! Inspects one image, at a registry or in a bundle.

mod companions;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use self::companions::ShownCompanions;
use super::environment::Environment;
use super::outcome::{JsonReport, REPORT_VERSION};
use super::registry::RegistryOptions;
use crate::base::error::{Error, Kind, Result};
use crate::bundle::Bundle;
use crate::content::{Cached, Need, Source};
use crate::oci::{
    Child, Descriptor, Digest, Kind as ManifestKind, Manifest, Platform, Reference, Repository, Role, media_type,
};
use crate::pipeline::lock::{Lock, LockedImage, MissingImage, MissingReason};
use crate::pipeline::select::{self, lacks, offered_platform};
pub use companions::ShownCompanion;

/// Size limit of a config, in bytes.
const MAX_CONFIG: u64 = 4 * 1024 * 1024;

/// The image to inspect.
pub struct InspectRequest {
    pub image: InspectedImage,
    /// For an index: inspect the manifest of this platform.
    pub platform: Option<Platform>,
    pub registry: RegistryOptions,
}

pub enum InspectedImage {
    /// Without a tag or a digest, the tag is `latest`.
    AtRegistry(Reference),
    InBundle {
        /// A directory, a tar, or volumes.
        paths: Vec<PathBuf>,
        /// The full or short name of the image. `None` if the bundle has only one.
        name: Option<String>,
    },
}

/// A part of an image whose exact bytes can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawPart {
    Manifest,
    Config,
}

/// The result of an inspection.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectReport {
    pub version: u32,
    pub ok: bool,
    pub reference: Reference,
    pub digest: Digest,
    pub media_type: String,
    /// Size of the manifest in bytes.
    pub size: u64,
    /// The platforms that an index offers, or the platform in the config of an image.
    pub platforms: Vec<Platform>,
    #[serde(flatten)]
    pub content: InspectedContent,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The companions of the image.
    pub companions: Vec<ShownCompanion>,
    /// Whether there may be more companions, because a registry did not answer.
    pub attached_unknown: bool,
    /// Images that were requested for the bundle and are missing from it. `None` if the image was read at a registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Vec<MissingImage>>,
    /// Everything that the manifest refers to.
    #[serde(skip)]
    pub children: Vec<InspectedChild>,
}

impl JsonReport for InspectReport {}

/// The contents of a manifest.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum InspectedContent {
    /// The contents of an index.
    Index {
        /// Its children.
        manifests: Vec<InspectedChild>,
    },
    /// The contents of an image or an artifact.
    #[serde(rename_all = "camelCase")]
    Image {
        /// The descriptor of the config. `null` for a manifest without one.
        config: Option<Descriptor>,
        /// The config itself. `null` for an artifact, whose config can have any form.
        image_config: Option<Value>,
        /// The descriptors of the layers, the lowest first.
        layers: Vec<Descriptor>,
    },
}

/// A child of an index.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedChild {
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// For one of BuildKit's attestations: the platform or the digest that it describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attestation_of: Option<String>,
    #[serde(skip)]
    pub role: Role,
}

/// Inspects an image and its companions.
///
/// # Errors
/// The image does not exist, or cannot be read.
pub async fn inspect(request: &InspectRequest, environment: &Environment) -> Result<InspectReport> {
    let found = Opened::open(request, environment)?;
    let image = found.image(request)?;
    image.report(environment).await.map_err(|error| found.explained(error))
}

/// Returns exact bytes of an image.
///
/// # Errors
/// The image does not exist or cannot be read, or it has no config.
pub async fn inspect_bytes(request: &InspectRequest, part: RawPart, environment: &Environment) -> Result<Bytes> {
    let found = Opened::open(request, environment)?;
    let image = found.image(request)?;
    image.bytes(part).await.map_err(|error| found.explained(error))
}

/// Where the image is.
enum Opened {
    Bundle(Box<Bundle>),
    Registry(Box<dyn Source>, Reference),
}

/// The image being inspected.
struct Image<'a> {
    source: Cached<'a>,
    reference: Reference,
    platform: Option<&'a Platform>,
    /// Only for an image in a bundle.
    locked: Option<(&'a Lock, &'a LockedImage)>,
}

impl Opened {
    fn open(request: &InspectRequest, environment: &Environment) -> Result<Opened> {
        match &request.image {
            InspectedImage::InBundle { paths, .. } => Ok(Opened::Bundle(Box::new(Bundle::open_any(paths)?))),
            InspectedImage::AtRegistry(reference) => {
                let names = [reference.repository.registry().to_owned()];
                let registries = request.registry.connect(names, &BTreeMap::new(), environment)?;
                Ok(Opened::Registry(Box::new(registries), tagged(reference)?))
            }
        }
    }

    fn image<'a>(&'a self, request: &'a InspectRequest) -> Result<Image<'a>> {
        let platform = request.platform.as_ref();
        match self {
            Opened::Registry(source, reference) => {
                let source = Cached::new(source.as_ref(), None);
                Ok(Image { source, reference: reference.clone(), platform, locked: None })
            }
            Opened::Bundle(bundle) => {
                let name = match &request.image {
                    InspectedImage::InBundle { name, .. } => name.as_deref(),
                    InspectedImage::AtRegistry(_) => None,
                };
                let image = in_bundle(bundle, name)?;
                let reference = image.reference.repository.with_digest(image.digest);
                let source = Cached::new(bundle.layout(), None);
                Ok(Image { source, reference, platform, locked: Some((bundle.lock(), image)) })
            }
        }
    }

    /// Explains errors of an increment, which contains only part of its images.
    fn explained(&self, error: Error) -> Error {
        match self {
            Opened::Bundle(bundle) if bundle.json().is_increment() => {
                error.while_doing("this bundle is an increment: part of the image is expected at the target")
            }
            _ => error,
        }
    }
}

impl Image<'_> {
    /// Returns the manifest that the reference leads to, and the selected manifest.
    async fn manifests(&self) -> Result<(Manifest, Manifest)> {
        let root = need(&self.source, &self.reference).await?;
        let manifest = match self.platform {
            Some(platform) => child_of(&self.source, &self.reference, &root, platform).await?,
            None => root.clone(),
        };
        Ok((root, manifest))
    }

    async fn bytes(&self, part: RawPart) -> Result<Bytes> {
        let (_, manifest) = self.manifests().await?;
        match part {
            RawPart::Manifest => Ok(manifest.bytes()?),
            RawPart::Config => config_of(&self.source, &self.reference.repository, &manifest).await,
        }
    }

    async fn report(&self, environment: &Environment) -> Result<InspectReport> {
        let (root, manifest) = self.manifests().await?;
        let config = read_config(&self.source, &self.reference.repository, &manifest).await?;
        let shown = companions::Shown { reference: &self.reference, root: &root, manifest: &manifest };
        let locked = self.locked.map(|(_, image)| image);
        let ShownCompanions { found, unknown } = companions::of(&self.source, &shown, locked, environment).await;
        let child = |child: &Child| InspectedChild {
            descriptor: child.descriptor.clone(),
            attestation_of: companions::attested(&manifest, child),
            role: child.role,
        };
        let children: Vec<InspectedChild> = manifest.children().iter().map(child).collect();
        Ok(InspectReport {
            version: REPORT_VERSION,
            ok: true,
            reference: self.reference.clone(),
            digest: manifest.digest(),
            media_type: manifest.media_type().to_owned(),
            size: manifest.size(),
            platforms: platforms(&manifest, config.as_ref()),
            content: content(&manifest, config, &children),
            subject: manifest.subject().cloned(),
            artifact_type: manifest.artifact_type(),
            companions: found,
            attached_unknown: unknown,
            missing: self.locked.map(|(lock, _)| lock.missing.clone()),
            children,
        })
    }
}

fn content(manifest: &Manifest, image_config: Option<Value>, children: &[InspectedChild]) -> InspectedContent {
    if manifest.kind() == ManifestKind::Index {
        return InspectedContent::Index { manifests: children.to_vec() };
    }
    let layers = children.iter().filter(|child| matches!(child.role, Role::Layer | Role::ForeignLayer));
    let layers = layers.map(|layer| layer.descriptor.clone()).collect();
    InspectedContent::Image { config: manifest.config().cloned(), image_config, layers }
}

/// Adds the tag `latest` to a reference that has neither a tag nor a digest.
fn tagged(reference: &Reference) -> Result<Reference> {
    if reference.target().is_some() {
        return Ok(reference.clone());
    }
    let latest = "latest".parse().map_err(|e| Error::input("reading what to inspect").because(e))?;
    Ok(reference.repository.with_tag(latest))
}

/// Finds an image in a bundle by its full or short name, or because it is the only one.
fn in_bundle<'b>(bundle: &'b Bundle, name: Option<&str>) -> Result<&'b LockedImage> {
    let images = &bundle.lock().images;
    let names = || images.iter().map(|image| format!("  {}", image.name()));
    let Some(name) = name else {
        return match images.as_slice() {
            [only] => Ok(only),
            several => {
                let text = format!("the bundle has {} images; name one of them as BUNDLE#REF:", several.len());
                Err(Error::input(text).listing(names()))
            }
        };
    };
    let full = name.parse::<Reference>().map(|reference| reference.to_string()).unwrap_or_default();
    let found = images.iter().find(|image| {
        let own = image.name();
        own == name || own == full || image.reference.to_string() == full
    });
    let wanted = name.parse::<Reference>().ok();
    let is_wanted = |missing: &&MissingImage| wanted.as_ref().is_some_and(|wanted| missing.covers(wanted));
    let covering = bundle.lock().missing.iter().filter(is_wanted);
    // A statement about the image takes precedence over one about its repository.
    let why = match covering.min_by_key(|missing| missing.reason == MissingReason::TagsIncomplete) {
        Some(MissingImage { reference, reason: MissingReason::TagsIncomplete, .. }) => {
            format!("; the list of tags of {reference} may have been incomplete when the bundle was made")
        }
        Some(missing) => format!(", which was requested and could not be fetched: {}", missing.reason),
        None => String::new(),
    };
    found.ok_or_else(|| Error::input(format!("the bundle has no image {name}{why}; it contains:")).listing(names()))
}

async fn need(source: &Cached<'_>, reference: &Reference) -> Result<Manifest> {
    let missing = || Error::new(Kind::NotFound, format!("inspecting {reference}: it does not exist"));
    source.manifest(reference, Need::Required).await?.ok_or_else(missing)
}

async fn child_of(source: &Cached<'_>, reference: &Reference, root: &Manifest, wanted: &Platform) -> Result<Manifest> {
    if !select::is_selectable(root) {
        return Ok(root.clone());
    }
    let children = root.children();
    let offered = || children.iter().filter_map(|child| Some((child, offered_platform(child)?)));
    let Some(Child { descriptor, .. }) = wanted.best(offered()).first().copied() else {
        let has = offered().map(|(_, has)| has);
        return Err(lacks(&[wanted.to_string()], has).while_doing(format!("inspecting {reference}")));
    };
    need(source, &reference.repository.with_digest(descriptor.digest)).await
}

async fn config_of(source: &Cached<'_>, repository: &Repository, manifest: &Manifest) -> Result<Bytes> {
    let none = || Error::input("it has no config; for an index, select an image with --platform");
    source.small_blob(repository, manifest.config().ok_or_else(none)?, MAX_CONFIG).await
}

/// Returns the config of an image as JSON. The config of an artifact is not interpreted.
async fn read_config(source: &Cached<'_>, repository: &Repository, manifest: &Manifest) -> Result<Option<Value>> {
    match manifest.config() {
        Some(config) if media_type::is_image_config(&config.media_type) => {
            let bytes = source.small_blob(repository, config, MAX_CONFIG).await?;
            Ok(serde_json::from_slice(&bytes).ok())
        }
        _ => Ok(None),
    }
}

/// Returns the platforms of an index, or the platform in the config of an image.
fn platforms(manifest: &Manifest, config: Option<&Value>) -> Vec<Platform> {
    let children = manifest.children();
    let offered = children.iter().filter_map(offered_platform).cloned();
    let own = config.and_then(|config| serde_json::from_value::<Platform>(config.clone()).ok());
    offered.chain(own.filter(|platform| !platform.is_unknown())).collect()
}
