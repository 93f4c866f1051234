//! The kind of a companion, from its tag, its artifact type and its annotations.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::oci::{Manifest, Tag};

/// The media type of a Sigstore bundle, of any version: a signature or an attestation.
const SIGSTORE_BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// An annotation of such a bundle's manifest (cosign, `pkg/oci/remote`).
const BUNDLE_PREDICATE: &str = "dev.sigstore.bundle.predicateType";
const BUNDLE_CONTENT: &str = "dev.sigstore.bundle.content";
/// The predicate of a bundle that is a signature and no other attestation.
const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

const SIGNATURES: [&str; 3] = [
    "application/vnd.dev.cosign.simplesigning.v1+json",
    "application/vnd.dev.cosign.artifact.sig.v1+json",
    "application/vnd.cncf.notary.signature",
];
const ATTESTATIONS: [&str; 3] = [
    "application/vnd.in-toto+json",
    "application/vnd.dsse.envelope.v1+json",
    "application/vnd.dev.cosign.artifact.att.v1+json",
];
const SBOMS: [&str; 8] = [
    "application/spdx+json",
    "text/spdx+json",
    "text/spdx",
    "application/vnd.cyclonedx+json",
    "application/vnd.cyclonedx+xml",
    "application/vnd.syft+json",
    "application/vnd.goharbor.harbor.sbom.v1",
    "application/vnd.dev.cosign.artifact.sbom.v1+json",
];

/// What a companion says about its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Signature,
    Attestation,
    Sbom,
    Other,
}

impl Kind {
    /// Decides by the tag that cosign gives it, else by its artifact type, else by its config or first layer. Without
    /// the manifest some remain [`Kind::Other`].
    pub fn of(tag: Option<&Tag>, artifact_type: Option<&str>, manifest: Option<&Manifest>) -> Kind {
        let suffix = tag.and_then(|tag| tag.as_str().rsplit_once('.')).map(|(_, suffix)| suffix);
        match suffix {
            Some("sig") => Kind::Signature,
            Some("att") => Kind::Attestation,
            Some("sbom") => Kind::Sbom,
            _ => Kind::by_type(artifact_type, manifest),
        }
    }

    fn by_type(artifact_type: Option<&str>, manifest: Option<&Manifest>) -> Kind {
        if artifact_type.is_some_and(|own| own.starts_with(SIGSTORE_BUNDLE)) {
            return manifest.map_or(Kind::Other, of_bundle);
        }
        let below = manifest.map(Manifest::children).unwrap_or_default();
        let below = below.iter().take(2).map(|child| child.descriptor.media_type.as_str());
        let kinds = artifact_type.into_iter().chain(below).map(of_media_type);
        kinds.into_iter().find(|kind| *kind != Kind::Other).unwrap_or(Kind::Other)
    }

    /// In the plural if there are several.
    pub fn counted(self, number: usize) -> String {
        let plural = if number == 1 { "" } else { "s" };
        format!("{number} {self}{plural}")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Signature => "signature",
            Kind::Attestation => "attestation",
            Kind::Sbom => "SBOM",
            Kind::Other => "artifact",
        })
    }
}

fn of_media_type(media_type: &str) -> Kind {
    let is_one_of = |list: &[&str]| list.contains(&media_type);
    match media_type {
        _ if is_one_of(&SIGNATURES) => Kind::Signature,
        _ if is_one_of(&ATTESTATIONS) => Kind::Attestation,
        _ if is_one_of(&SBOMS) => Kind::Sbom,
        _ => Kind::Other,
    }
}

fn of_bundle(manifest: &Manifest) -> Kind {
    // Only the name of the kind depends on them.
    let annotations = manifest.annotations().unwrap_or_default();
    let says = |key: &str, value: &str| annotations.get(key).is_some_and(|has| has == value);
    let signs = says(BUNDLE_PREDICATE, SIGN_PREDICATE) || says(BUNDLE_CONTENT, "message-signature");
    if signs { Kind::Signature } else { Kind::Attestation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Digest, media_type};

    fn manifest(more: &str) -> Manifest {
        let empty = Digest::sha256(b"");
        let text = format!(
            r#"{{"mediaType":"{}","config":{{"mediaType":"x/y","digest":"{empty}","size":0}}{more}}}"#,
            media_type::OCI_MANIFEST
        );
        Manifest::parse(text.into_bytes().into(), None, None).unwrap()
    }

    #[test]
    fn a_companion_is_known_by_its_tag_its_type_or_its_first_layer() {
        let tag = |suffix: &str| Tag::cosign(&Digest::sha256(b"m"), suffix);
        assert_eq!(Kind::of(Some(&tag("sig")), None, None), Kind::Signature);
        assert_eq!(Kind::of(Some(&tag("att")), None, None), Kind::Attestation);
        assert_eq!(Kind::of(Some(&tag("sbom")), None, None), Kind::Sbom);
        assert_eq!(Kind::of(None, Some("application/vnd.cncf.notary.signature"), None), Kind::Signature);
        assert_eq!(Kind::of(None, Some("application/spdx+json"), None), Kind::Sbom);
        let layer = format!(
            r#","layers":[{{"mediaType":"application/vnd.in-toto+json","digest":"{}","size":0}}]"#,
            Digest::sha256(b"")
        );
        assert_eq!(Kind::of(None, None, Some(&manifest(&layer))), Kind::Attestation);
        assert_eq!(Kind::of(None, Some("application/vnd.example"), Some(&manifest(""))), Kind::Other);
    }

    #[test]
    fn a_sigstore_bundle_is_what_its_predicate_says() {
        let bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
        let with = |key: &str, value: &str| manifest(&format!(r#","annotations":{{"{key}":"{value}"}}"#));
        let kind = |manifest: &Manifest| Kind::of(None, Some(bundle), Some(manifest));
        assert_eq!(kind(&with(BUNDLE_PREDICATE, SIGN_PREDICATE)), Kind::Signature);
        assert_eq!(kind(&with(BUNDLE_CONTENT, "message-signature")), Kind::Signature);
        assert_eq!(kind(&with(BUNDLE_PREDICATE, "https://slsa.dev/provenance/v1")), Kind::Attestation);
        assert_eq!(Kind::of(None, Some(bundle), None), Kind::Other);
    }
}
