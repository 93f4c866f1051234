//! A scripted registry that has images: the answers a test does not care about.

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
    /// With these images, each of one layer: `name:tag` and what is in the layer.
    pub fn with(images: &[(&str, &str)]) -> Shop {
        let mut shop = Shop::default();
        images.iter().for_each(|(name, content)| shop.add(name, content));
        shop
    }

    /// A tag that exists gets a new meaning.
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

    /// The digest that a tag means.
    pub fn digest(&self, name: &str) -> String {
        let (repository, tag) = name.split_once(':').unwrap();
        sha256(&self.manifests[&format!("/v2/{repository}/manifests/{tag}")])
    }

    /// What a tag means is deleted, as registries delete it: by digest.
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

/// A request that Docker Hub counts.
pub fn is_pull(request: &Seen) -> bool {
    request.method == "GET" && request.target.contains("/manifests/")
}
