//! Reads the bytes of a manifest: what it must be to be carried, its media type and its children.

use serde::de::DeserializeOwned;

use super::super::descriptor::LONGEST_TYPE;
use super::super::view::View;
use super::super::{Descriptor, Digest, media_type};
use super::{Child, Kind, MAX_MANIFEST_SIZE, ManifestError, Role};

/// The digest of a manifest's bytes.
///
/// # Errors
/// There are too many bytes, or their digest is not `expected`.
pub(super) fn check_bytes(bytes: &[u8], expected: Option<&Digest>) -> Result<Digest, ManifestError> {
    if bytes.len() as u64 > MAX_MANIFEST_SIZE {
        return Err(ManifestError::TooLarge(bytes.len() as u64));
    }
    let Some(expected) = expected.copied() else { return Ok(Digest::sha256(bytes)) };
    expected.prove(bytes).map_err(|found| ManifestError::Digest { expected, found })?;
    Ok(expected)
}

pub(super) fn view_of<D: DeserializeOwned>(bytes: &[u8]) -> Result<View<D>, ManifestError> {
    serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string(), bytes))
}

/// Checks the children.
///
/// # Errors
/// A manifest is listed as a layer: registries reject that, and its own children would not be carried.
pub(super) fn check_content(view: &View, bytes: &[u8]) -> Result<(), ManifestError> {
    let content = view.config.iter().chain(view.layers.iter().flatten()).chain(view.blobs.iter().flatten());
    match content.into_iter().find(|descriptor| media_type::is_manifest(&descriptor.media_type)) {
        Some(descriptor) => Err(malformed(format!("it lists the manifest {} as a layer", descriptor.digest), bytes)),
        None => Ok(()),
    }
}

/// Checks the lengths of texts.
///
/// # Errors
/// A text that is kept is too long to be meaningful.
pub(super) fn check_texts(view: &View) -> Result<(), ManifestError> {
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

/// Approximate size in memory of a list of children, without descriptors that others may share.
pub(super) fn memory(children: &[Child]) -> usize {
    /// What an unusual media type takes in addition to its text.
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

pub(super) fn children(view: View, kind: Kind) -> Vec<Child> {
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

/// BuildKit's registry cache lists layers directly in an index; by their type they are blobs.
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

/// The manifest's own `mediaType`, otherwise the type it was served as, otherwise a guess from its fields (containers/image
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

/// A parser message may be as long as the manifest, and a long run keeps thousands of errors, so it is shortened.
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
