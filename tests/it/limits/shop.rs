//! A scripted registry with images: the answers a test does not care about.

use std::collections::BTreeMap;

use crate::support::faulty::{Answer, Seen, ranged};
use crate::support::sha256;

/// What the registry has: manifests by tag and digest, and blobs.
#[derive(Default, Clone)]
pub struct Shop {
    manifests: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<String, Vec<u8>>,
    tags: BTreeMap<String, Vec<String>>,
}

impl Shop {
    /// A registry with these images, each with one layer: `name:tag` and the layer's content.
    pub fn with(images: &[(&str, &str)]) -> Shop {
        let mut shop = Shop::default();
        images.iter().for_each(|(name, content)| shop.add(name, content));
        shop
    }

    /// Moves a tag to new content.
    pub fn add(&mut self, name: &str, content: &str) {
        let (repository, tag) = name.split_once(':').unwrap();
        let layer = content.as_bytes().to_vec();
        let config = format!(r#"{{"architecture":"amd64","os":"linux","of":"{}"}}"#, sha256(&layer)).into_bytes();
        let part = |media_type: &str, bytes: &[u8]| serde_json::json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() });
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": part("application/vnd.oci.image.config.v1+json", &config),
            "layers": [part("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        for key in [tag.to_owned(), sha256(&manifest)] {
            self.manifests.insert(format!("/v2/{repository}/manifests/{key}"), manifest.clone());
        }
        for blob in [config, layer] {
            self.blobs.insert(format!("/v2/{repository}/blobs/{}", sha256(&blob)), blob);
        }
        let tags = self.tags.entry(format!("/v2/{repository}/tags/list")).or_default();
        tags.retain(|known| known != tag);
        tags.push(tag.to_owned());
    }

    /// The digest of a tag.
    pub fn digest(&self, name: &str) -> String {
        let (repository, tag) = name.split_once(':').unwrap();
        sha256(&self.manifests[&format!("/v2/{repository}/manifests/{tag}")])
    }

    /// Deletes the manifest of a tag, as registries do: by digest.
    pub fn delete(&mut self, name: &str) {
        let (repository, tag) = name.split_once(':').unwrap();
        let manifest = self.manifests[&format!("/v2/{repository}/manifests/{tag}")].clone();
        self.manifests.retain(|_, other| *other != manifest);
    }

    pub fn answer(&self, request: &Seen) -> Answer {
        let path = request.target.split('?').next().unwrap();
        if let Some(manifest) = self.manifests.get(path) {
            let media_type = "application/vnd.oci.image.manifest.v1+json";
            let answer = Answer::new(200).with("Content-Type", media_type);
            return answer.with("Docker-Content-Digest", sha256(manifest)).body(manifest.clone());
        }
        match (self.blobs.get(path), self.tags.get(path)) {
            (Some(blob), _) => ranged(request, blob),
            (_, Some(tags)) => Answer::new(200).body(serde_json::json!({ "tags": tags }).to_string()),
            _ => Answer::new(404),
        }
    }
}

/// Whether Docker Hub counts the request as a pull.
pub fn is_pull(request: &Seen) -> bool {
    request.method == "GET" && request.target.contains("/manifests/")
}
