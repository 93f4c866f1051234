//! How commands show the companions of images: signatures, attestations, SBOMs.

use serde_json::{Value, json};

use crate::oci::Manifest;
use crate::pipeline::companion::Kind;
use crate::pipeline::lock::{Attached, LockedImage};

/// Gives the manifest of a companion, where it can be had.
pub type ManifestOf<'a> = &'a dyn Fn(&LockedImage, &Attached) -> Option<Manifest>;

/// What the companions of an image are, in their order. Manifests are read only where tag and artifact type do not tell.
pub fn kinds(image: &LockedImage, manifest_of: ManifestOf<'_>) -> Vec<Kind> {
    let kind = |attached: &Attached| {
        let of =
            |manifest: Option<&Manifest>| Kind::of(attached.tag.as_ref(), attached.artifact_type.as_deref(), manifest);
        match of(None) {
            Kind::Other => of(manifest_of(image, attached).as_ref()),
            known => known,
        }
    };
    image.companions().iter().map(kind).collect()
}

/// Entries of a lock, each companion with its kind.
pub fn images_json<'i>(images: impl Iterator<Item = &'i LockedImage>, manifest_of: ManifestOf<'_>) -> Value {
    let image_json = |image: &LockedImage| {
        let mut value = json!(image);
        value["attachedUnknown"] = image.attached_unknown.into();
        if let Some(attached) = value.get_mut("attached").and_then(Value::as_array_mut) {
            for (attached, kind) in attached.iter_mut().zip(kinds(image, manifest_of)) {
                attached["kind"] = json!(kind);
            }
        }
        value
    };
    images.map(image_json).collect()
}

/// `2 signatures, 1 SBOM`; `-` where there are none. `is_unknown`: the registry did not say whether there are more.
pub fn counted(kinds: &[Kind], is_unknown: bool) -> String {
    let of = |kind: Kind| kinds.iter().filter(|own| **own == kind).count();
    let all = [Kind::Signature, Kind::Attestation, Kind::Sbom, Kind::Other].map(|kind| (kind, of(kind)));
    let parts: Vec<String> = all.iter().filter(|(_, number)| *number > 0).map(|(kind, n)| kind.counted(*n)).collect();
    match (parts.is_empty(), is_unknown) {
        (true, false) => "-".to_owned(),
        (true, true) => "unknown".to_owned(),
        (false, false) => parts.join(", "),
        (false, true) => format!("{}, perhaps more", parts.join(", ")),
    }
}
