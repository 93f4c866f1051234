//! Lists of signatures and attestations in cosign's format. No test verifies them: only their presence counts.

use gapferry::oci::{Digest, Tag, media_type};
use serde_json::{Value, json};

use super::images::{Host, Image};
use super::sha256;

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// One layer of a list: the descriptor and its content.
#[derive(Clone, Debug)]
pub struct Signed {
    pub descriptor: Value,
    pub payload: Vec<u8>,
}

/// A signature of `subject` by a key; two keys sign the same payload.
pub fn signature(subject: &Image, key: &str) -> Signed {
    let payload = json!({"critical": {"image": {"docker-manifest-digest": subject.digest()}}}).to_string().into_bytes();
    let signature = sha256(&[key.as_bytes(), &payload].concat());
    let descriptor = json!({"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": sha256(&payload),
        "size": payload.len(), "annotations": {SIGNATURE: signature}});
    Signed { descriptor, payload }
}

/// An attestation about `subject`, made by a key.
pub fn attestation(subject: &Image, key: &str) -> Signed {
    let payload = json!({"payloadType": "application/vnd.in-toto+json", "payload": subject.digest(), "by": key});
    let payload = payload.to_string().into_bytes();
    let descriptor = json!({"mediaType": "application/vnd.dsse.envelope.v1+json", "digest": sha256(&payload),
        "size": payload.len(), "annotations": {SIGNATURE: "", "predicateType": "https://slsa.dev/provenance/v1"}});
    Signed { descriptor, payload }
}

/// The tag next to `subject`: `suffix` is `sig`, `att` or `sbom`.
pub fn tag(subject: &Image, suffix: &str) -> String {
    Tag::cosign(&Digest::sha256(&subject.manifest), suffix).to_string()
}

/// The manifest that cosign puts under the tag.
pub fn list(subject: &Image, suffix: &str, layers: &[Signed]) -> Image {
    let ids: Vec<&Value> = layers.iter().map(|layer| &layer.descriptor["digest"]).collect();
    let config = json!({"architecture": "", "created": "0001-01-01T00:00:00Z", "os": "",
        "history": ids.iter().map(|_| json!({"created": "0001-01-01T00:00:00Z"})).collect::<Vec<_>>(),
        "rootfs": {"type": "layers", "diff_ids": ids}, "config": {}});
    let config = config.to_string().into_bytes();
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "size": config.len(), "digest": sha256(&config)},
        "layers": layers.iter().map(|layer| layer.descriptor.clone()).collect::<Vec<_>>()});
    Image {
        repository: subject.repository.clone(),
        tag: Some(tag(subject, suffix)),
        media_type: media_type::OCI_MANIFEST.to_owned(),
        manifest: manifest.to_string().into_bytes(),
        blobs: std::iter::once(config).chain(layers.iter().map(|layer| layer.payload.clone())).collect(),
        children: vec![],
    }
}

/// The layers under that tag at a registry, each with its signature; `None` where there is no such tag. Panics where one of the
/// blobs is missing.
pub fn listed(registry: &impl Host, subject: &Image, suffix: &str) -> Option<Vec<Value>> {
    let path = format!("/v2/{}/manifests/{}", subject.repository, tag(subject, suffix));
    let answer = registry.request("GET", &path).header("Accept", media_type::ACCEPT_MANIFESTS).send();
    if answer.status == 404 {
        return None;
    }
    let manifest = answer.expect(200).json();
    let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
    for blob in layers.iter().chain([&manifest["config"]]) {
        let blob = blob["digest"].as_str().unwrap_or_default();
        registry.request("GET", &format!("/v2/{}/blobs/{blob}", subject.repository)).send().expect(200);
    }
    Some(layers)
}
