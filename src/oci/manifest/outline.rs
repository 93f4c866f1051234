//! What a manifest says about itself.

use serde::de::IgnoredAny;

use super::reading::{check_bytes, decide_type, kind_of, view_of};
use super::{Kind, ManifestError};
use crate::oci::view::{self, View};
use crate::oci::{Descriptor, Digest, MediaType};

/// A manifest without its children. Its layers take no memory, so the limits on their number and length do not apply.
#[derive(Clone, Debug)]
pub struct ManifestOutline {
    pub(super) media_type: MediaType,
    pub(super) digest: Digest,
    pub(super) size: u64,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    subject: Option<Descriptor>,
}

impl ManifestOutline {
    /// Reads it. The arguments are those of [`Manifest::parse`](super::Manifest::parse).
    ///
    /// # Errors
    /// As for [`Manifest::parse`](super::Manifest::parse), except for the limits and for what only the layers can show.
    pub fn read(
        bytes: &[u8],
        served_as: Option<&str>,
        expected: Option<&Digest>,
    ) -> Result<ManifestOutline, ManifestError> {
        let digest = check_bytes(bytes, expected)?;
        let view: View<IgnoredAny> = view_of(bytes)?;
        let media_type = decide_type(&view, served_as, bytes)?;
        Ok(ManifestOutline::of(view, media_type, digest, bytes.len()).0)
    }

    /// Splits a view into the manifest itself and its lists.
    pub(super) fn of<D>(
        mut view: View<D>,
        media_type: String,
        digest: Digest,
        size: usize,
    ) -> (ManifestOutline, View<D>) {
        let (artifact_type, subject) = (view.artifact_type.take(), view.subject.take());
        let config = view.config.clone();
        let media_type = media_type.into();
        (ManifestOutline { media_type, digest, size: size as u64, artifact_type, config, subject }, view)
    }

    /// Never empty.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    pub fn kind(&self) -> Kind {
        kind_of(&self.media_type)
    }

    pub fn descriptor(&self) -> Descriptor {
        let plain = Descriptor::new(&self.media_type, self.digest, self.size);
        match self.artifact_type() {
            None => plain,
            some => plain.with_artifact_type(some),
        }
    }

    /// The manifest it refers to, if it is a signature, SBOM or the like.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    pub fn config(&self) -> Option<&Descriptor> {
        self.config.as_ref().filter(|_| self.kind() == Kind::Image)
    }

    /// Its type in a list of referrers: `artifactType`, otherwise the config's media type (distribution-spec 1.1, "Listing
    /// Referrers").
    pub fn artifact_type(&self) -> Option<String> {
        let own = self.artifact_type.clone().filter(|t| !t.is_empty());
        own.or_else(|| self.subject.as_ref().and(self.config.as_ref()).map(|config| config.media_type.to_string()))
    }

    /// The descriptor with the manifest's annotations, which are in `bytes`; without them if they take more than 64 KiB of
    /// JSON.
    pub fn annotated(&self, bytes: &[u8]) -> Descriptor {
        self.descriptor().with_annotations(view::annotations(bytes))
    }
}

/// All lower-case digests in a text: what an unreadable manifest may point to. Returns `None` if the text contains escaped
/// letters and may therefore contain others.
pub fn digests_in(text: &[u8]) -> Option<Vec<Digest>> {
    if text.windows(2).any(|two| two == b"\\u") {
        return None;
    }
    let hex = |from: usize| text[from..].iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).count();
    let colons = (0..text.len()).filter(|at| text[*at] == b':' && *at >= 6);
    let digest = |at: usize| {
        let end = at + 1 + hex(at + 1);
        std::str::from_utf8(&text[at - 6..end]).ok()?.parse().ok()
    };
    Some(colons.filter_map(digest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, media_type};

    #[test]
    fn a_manifest_with_any_number_of_layers_is_recognized() {
        let one = format!(r#"{{"mediaType":"x/y","digest":"{}","size":0}}"#, Digest::sha256(b""));
        let many = vec![one.as_str(); 25_000].join(",");
        let json = format!(r#"{{"config":{one},"subject":{one},"layers":[{many}],"annotations":{{"a":"b"}}}}"#);
        assert!(crate::oci::Manifest::parse(json.clone().into(), None, None).is_err());
        let outline = ManifestOutline::read(json.as_bytes(), None, None).unwrap();
        assert_eq!((outline.media_type(), outline.kind()), (media_type::OCI_MANIFEST, Kind::Image));
        assert_eq!(outline.subject().unwrap().digest, Digest::sha256(b""));
        assert_eq!(outline.artifact_type().as_deref(), Some("x/y"));
    }

    #[test]
    fn digests_are_found_in_any_surrounding_text_and_escapes_give_no_answer() {
        let (short, long) = (Digest::sha256(b"x"), Digest::of(Algorithm::Sha512, b"x"));
        let text = format!(r#"{{"Digest":"{short}","x":[":","{long}"],"sha256:{{}}":"#);
        assert_eq!(digests_in(text.as_bytes()), Some(vec![short, long]));
        assert_eq!(digests_in(short.to_string().replace('s', "\\u0073").as_bytes()), None);
        assert_eq!(digests_in(b"sha256:"), Some(vec![]));
    }
}
