//! Manifests that a receipt keeps, so that the next export need not read them again.

use std::collections::HashSet;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::error::Result;
use crate::oci::{Digest, Manifest, values_in};

/// Maximum bytes of kept manifests, and values in them: those of a few thousand images, which a reader keeps in memory.
const KEPT_BYTES: usize = 16 * 1024 * 1024;
const KEPT_VALUES: usize = 1_000_000;

/// A manifest in a receipt: its text, with the digest that proves it.
#[derive(Clone, Debug)]
pub struct ConfirmedManifest(pub Manifest);

/// Returns each of them once, as far as there is space.
pub fn kept<'m>(manifests: impl Iterator<Item = &'m Manifest>) -> Vec<ConfirmedManifest> {
    let (mut seen, mut bytes, mut values) = (HashSet::new(), 0, 0);
    let mut fits = |text: &[u8]| {
        bytes += text.len();
        values += values_in(text);
        bytes <= KEPT_BYTES && values <= KEPT_VALUES
    };
    let mut kept = Vec::new();
    for manifest in manifests.filter(|manifest| seen.insert(manifest.digest())) {
        // Parts of a manifest that are never parsed may be invalid text. A lossy copy would not match the digest.
        let Ok(text) = manifest.bytes() else { continue };
        if std::str::from_utf8(&text).is_ok() {
            if !fits(&text) {
                break;
            }
            kept.push(ConfirmedManifest(manifest.clone()));
        }
    }
    kept
}

/// Unchanged, as in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptJson<Text> {
    digest: Digest,
    media_type: Text,
    text: Text,
}

impl Serialize for ConfirmedManifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.bytes().map_err(serde::ser::Error::custom)?;
        let text = std::str::from_utf8(&bytes).map_err(serde::ser::Error::custom)?;
        KeptJson { digest: self.0.digest(), media_type: self.0.media_type(), text }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ConfirmedManifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ConfirmedManifest, D::Error> {
        let KeptJson::<String> { digest, media_type, text } = Deserialize::deserialize(deserializer)?;
        let manifest = Manifest::parse(Bytes::from(text), Some(&media_type), Some(&digest));
        manifest.map(ConfirmedManifest).map_err(|e| serde::de::Error::custom(format!("the manifest {digest}: {e}")))
    }
}

impl PartialEq for ConfirmedManifest {
    fn eq(&self, other: &ConfirmedManifest) -> bool {
        (self.0.digest(), self.0.media_type()) == (other.0.digest(), other.0.media_type())
    }
}

impl Eq for ConfirmedManifest {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type;

    fn manifest(more: &[u8]) -> Manifest {
        let start = format!(r#"{{"config":{{"mediaType":"x","digest":"{}","size":1}},"more":""#, Digest::sha256(b""));
        let bytes = [start.as_bytes(), more, b"\"}"].concat();
        Manifest::parse(bytes.into(), Some(media_type::OCI_MANIFEST), None).unwrap()
    }

    #[test]
    fn what_is_kept_is_text_once_and_never_more_than_a_receipt_may_have() {
        let (one, binary) = (manifest(b"\\u00e4 \xc3\xa4"), manifest(b"\xff"));
        let all = kept([&one, &binary, &one].into_iter());
        assert_eq!(all.iter().map(|kept| kept.0.digest()).collect::<Vec<_>>(), [one.digest()]);
        let json = serde_json::to_string(&all).unwrap();
        let read: Vec<ConfirmedManifest> = serde_json::from_str(&json).unwrap();
        assert_eq!(read[0].0.bytes().unwrap(), one.bytes().unwrap());
        let large: Vec<Manifest> =
            (0..20).map(|n: u8| manifest(&[vec![b'x'; 3_500_000], vec![b'0' + n]].concat())).collect();
        assert!(kept(large.iter()).len() < 20);
        let many: Vec<Manifest> =
            (0..3).map(|n: u8| manifest(&[vec![b','; 400_000], vec![b'0' + n]].concat())).collect();
        assert_eq!(kept(many.iter()).len(), 2);
    }
}
