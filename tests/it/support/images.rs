//! Tiny generated images of every kind that travels, pushed byte for byte.

use std::io::Write;
use std::process::{Command, Stdio};

use gapferry::oci::{Digest, Tag, media_type};
use serde_json::{Value, json};

use super::http::Request;
use super::sha256;

pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const OCI_LAYER_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// A registry that accepts pushes: a real one, the embedded one, a fake.
pub trait Host {
    /// `127.0.0.1:PORT`
    fn host(&self) -> &str;
    /// A request to the registry, with credentials if required; `path` starts with `/`.
    fn request(&self, method: &'static str, path: &str) -> Request;
}

/// One manifest with everything below it.
#[derive(Clone, Debug)]
pub struct Image {
    pub repository: String,
    /// Without a tag, the image is pushed only by digest.
    pub tag: Option<String>,
    pub media_type: String,
    pub manifest: Vec<u8>,
    pub blobs: Vec<Vec<u8>>,
    pub children: Vec<Image>,
}

impl Image {
    fn new(repository: &str, tag: &str, media_type: &str, manifest: &Value, blobs: Vec<Vec<u8>>) -> Image {
        Image {
            repository: repository.to_owned(),
            tag: Some(tag.to_owned()).filter(|tag| !tag.is_empty()),
            media_type: media_type.to_owned(),
            // Indented unlike any program's output, so re-serializing changes the digest.
            manifest: format!("{manifest:#}\n").into_bytes(),
            blobs,
            children: vec![],
        }
    }

    pub fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    /// `repository:tag`, or `repository@sha256:…` where there is no tag.
    pub fn name(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.repository),
            None => format!("{}@{}", self.repository, self.digest()),
        }
    }

    /// Whether its tag belongs to another image: cosign's tags and fallback lists of referrers.
    pub fn is_companion(&self) -> bool {
        self.tag.as_ref().and_then(|tag| tag.parse::<Tag>().ok()).is_some_and(|tag| tag.companion_subject().is_some())
    }

    /// Whether it is a fallback list of referrers, which is rewritten for a registry without the referrers API.
    pub fn is_referrers_list(&self) -> bool {
        self.is_companion() && !self.children.is_empty()
    }

    /// The same content under another name.
    pub fn named(&self, repository: &str, tag: &str) -> Image {
        let mut image = self.clone();
        image.tag = Some(tag.to_owned());
        image.move_to(repository);
        image
    }

    fn move_to(&mut self, repository: &str) {
        self.repository = repository.to_owned();
        self.children.iter_mut().for_each(|child| child.move_to(repository));
    }

    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.manifest.len()})
    }

    /// Digests of all blobs, those of the children included.
    pub fn blob_digests(&self) -> Vec<String> {
        let own = self.blobs.iter().map(|blob| sha256(blob));
        own.chain(self.children.iter().flat_map(Image::blob_digests)).collect()
    }

    /// Uploads everything unchanged. Panics if the registry refuses anything.
    pub fn push(&self, registry: &impl Host) {
        for blob in &self.blobs {
            push_blob(registry, &self.repository, blob);
        }
        for child in &self.children {
            child.push(registry);
        }
        let target = self.tag.clone().unwrap_or_else(|| self.digest());
        registry
            .request("PUT", &format!("/v2/{}/manifests/{target}", self.repository))
            .header("Content-Type", &self.media_type)
            .body(self.manifest.clone())
            .send()
            .expect(201);
    }
}

/// Uploads one blob unless it exists, so that shared blobs are sent once.
pub fn push_blob(registry: &impl Host, repository: &str, blob: &[u8]) {
    let digest = sha256(blob);
    if registry.request("HEAD", &format!("/v2/{repository}/blobs/{digest}")).send().status == 200 {
        return;
    }
    let answer = registry.request("POST", &format!("/v2/{repository}/blobs/uploads/")).send().expect(202);
    let location = answer.header("location").expect("Location");
    // Relative or absolute: the part before the path is this registry.
    let path = location.find("/v2/").map_or(location, |at| &location[at..]);
    let separator = if path.contains('?') { '&' } else { '?' };
    registry
        .request("PUT", &format!("{path}{separator}digest={digest}"))
        .header("Content-Type", "application/octet-stream")
        .body(blob)
        .send()
        .expect(201);
}

/// Incompressible text, determined by the seed.
pub fn noise(seed: u64, length: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b' ' + (state >> 32) as u8 % 90)
    };
    (0..length).map(|_| next()).collect()
}

/// A layer: a tar with one file.
pub fn layer_tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    builder.append_data(&mut header, name, content).expect("a tar entry");
    builder.into_inner().expect("a tar")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    filter("gzip", &["-nc"], bytes)
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    filter("zstd", &["-qc"], bytes)
}

fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut process = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let mut stdin = process.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = process.wait_with_output().expect("zstd's output");
    writer.join().expect("the writer").expect("zstd's input");
    assert!(output.status.success(), "{program}");
    output.stdout
}

fn entry(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(blob), "size": blob.len()})
}

fn config(architecture: &str, uncompressed: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = uncompressed.iter().map(|layer| sha256(layer)).collect();
    let config = json!({"architecture": architecture, "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": {"Cmd": ["/hello"]}, "rootfs": {"type": "layers", "diff_ids": ids}});
    config.to_string().into_bytes()
}

/// An OCI image with the given layer contents, gzip-compressed.
pub fn oci(repository: &str, tag: &str, contents: &[&str]) -> Image {
    oci_for("amd64", repository, tag, contents)
}

pub fn oci_for(architecture: &str, repository: &str, tag: &str, contents: &[&str]) -> Image {
    let tars: Vec<Vec<u8>> = contents.iter().map(|content| layer_tar("hello", content.as_bytes())).collect();
    let layers: Vec<(&str, Vec<u8>)> = tars.iter().map(|tar| (OCI_LAYER_GZIP, gzip(tar))).collect();
    oci_raw(repository, tag, &config(architecture, &tars), &layers)
}

/// An OCI image manifest over the given config and layers, whatever they are.
pub fn oci_raw(repository: &str, tag: &str, config: &[u8], layers: &[(&str, Vec<u8>)]) -> Image {
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": entry(media_type::OCI_CONFIG, config),
        "layers": layers.iter().map(|(media_type, blob)| entry(media_type, blob)).collect::<Vec<_>>()});
    let blobs = std::iter::once(config.to_vec()).chain(layers.iter().map(|(_, blob)| blob.clone())).collect();
    Image::new(repository, tag, media_type::OCI_MANIFEST, &manifest, blobs)
}

/// A Docker v2 schema 2 image.
pub fn docker(repository: &str, tag: &str, contents: &[&str]) -> Image {
    docker_for("amd64", repository, tag, contents)
}

pub fn docker_for(architecture: &str, repository: &str, tag: &str, contents: &[&str]) -> Image {
    let tars: Vec<Vec<u8>> = contents.iter().map(|content| layer_tar("hello", content.as_bytes())).collect();
    let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
    let config = config(architecture, &tars);
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST,
        "config": entry(media_type::DOCKER_CONFIG, &config),
        "layers": layers.iter().map(|blob| entry(DOCKER_LAYER, blob)).collect::<Vec<_>>()});
    let blobs = std::iter::once(config).chain(layers).collect();
    Image::new(repository, tag, media_type::DOCKER_MANIFEST, &manifest, blobs)
}

/// An OCI index: linux/amd64, linux/arm64 and a BuildKit attestation of the first.
pub fn oci_index(repository: &str, tag: &str, content: &str) -> Image {
    let platforms = ["amd64", "arm64"];
    let mut children: Vec<Image> =
        platforms.iter().map(|a| oci_for(a, repository, "", &["shared base", &format!("{content} {a}")])).collect();
    let mut entries: Vec<Value> = children.iter().zip(platforms).map(|(child, a)| on_platform(child, a)).collect();
    let statement = format!(r#"{{"_type":"https://in-toto.io/Statement/v0.1","about":"{content}"}}"#).into_bytes();
    let attestation = oci_raw(repository, "", b"{}", &[("application/vnd.in-toto+json", statement)]);
    let mut described = attestation.descriptor();
    described["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    described["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": children[0].digest()});
    entries.push(described);
    children.push(attestation);
    list(repository, tag, media_type::OCI_INDEX, &entries, children)
}

/// A Docker manifest list: linux/amd64 and linux/arm64.
pub fn docker_list(repository: &str, tag: &str, content: &str) -> Image {
    let platforms = ["amd64", "arm64"];
    let children: Vec<Image> =
        platforms.iter().map(|a| docker_for(a, repository, "", &["shared base", &format!("{content} {a}")])).collect();
    let entries: Vec<Value> = children.iter().zip(platforms).map(|(child, a)| on_platform(child, a)).collect();
    list(repository, tag, media_type::DOCKER_LIST, &entries, children)
}

fn on_platform(child: &Image, architecture: &str) -> Value {
    let mut entry = child.descriptor();
    entry["platform"] = json!({"os": "linux", "architecture": architecture});
    entry
}

fn list(repository: &str, tag: &str, media_type: &str, entries: &[Value], children: Vec<Image>) -> Image {
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
    Image { children, ..Image::new(repository, tag, media_type, &manifest, vec![]) }
}

/// An OCI 1.1 artifact with the empty config and the subject `subject`; found by digest and, without a referrers API,
/// through [`referrers_tag`].
pub fn referrer(subject: &Image, artifact_type: &str, payload: &[u8]) -> Image {
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": artifact_type,
        "config": entry(media_type::OCI_EMPTY, b"{}"), "layers": [entry(artifact_type, payload)],
        "subject": subject.descriptor(), "annotations": {"org.example.of": subject.name()}});
    let blobs = vec![b"{}".to_vec(), payload.to_vec()];
    Image::new(&subject.repository, "", media_type::OCI_MANIFEST, &manifest, blobs)
}

/// An index of these manifests with the given architectures, and with `subject` if there is one.
pub fn index_of(repository: &str, tag: &str, children: &[(&Image, Option<&str>)], subject: Option<&Image>) -> Image {
    let entries = children.iter().map(|(child, architecture)| match architecture {
        Some(architecture) => on_platform(child, architecture),
        None => child.descriptor(),
    });
    let mut manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": entries.collect::<Vec<_>>()});
    if let Some(subject) = subject {
        manifest["subject"] = subject.descriptor();
        manifest["artifactType"] = json!("application/vnd.example.bundle");
    }
    let children = children.iter().map(|(child, _)| (*child).clone()).collect();
    Image { children, ..Image::new(repository, tag, media_type::OCI_INDEX, &manifest, vec![]) }
}

/// The fallback index (distribution-spec, "Referrers Tag Schema") that lists `referrers` of `subject`.
pub fn referrers_tag(subject: &Image, referrers: &[Image]) -> Image {
    let entries: Vec<Value> = referrers
        .iter()
        .map(|referrer| {
            let manifest: Value = serde_json::from_slice(&referrer.manifest).expect("JSON");
            let mut entry = referrer.descriptor();
            entry["artifactType"] = manifest["artifactType"].clone();
            entry["annotations"] = manifest["annotations"].clone();
            entry
        })
        .collect();
    let tag = Tag::referrers(&digest_of(subject));
    list(&subject.repository, tag.as_str(), media_type::OCI_INDEX, &entries, referrers.to_vec())
}

/// A signature as cosign stores it, under `sha256-<hex>.sig`.
pub fn cosign_signature(subject: &Image) -> Image {
    let payload = json!({"critical": {"image": {"docker-manifest-digest": subject.digest()}}}).to_string();
    let layer = ("application/vnd.dev.cosign.simplesigning.v1+json", payload.into_bytes());
    let tag = Tag::cosign(&digest_of(subject), "sig");
    oci_raw(&subject.repository, tag.as_str(), &config("amd64", &[]), &[layer])
}

/// An image whose base layer registries do not hold.
pub fn with_foreign_layer(repository: &str, tag: &str) -> Image {
    let tar = layer_tar("hello", b"on top of a foreign layer");
    let own = gzip(&tar);
    let foreign = gzip(&layer_tar("windows", b"licensed"));
    let config = config("amd64", &[layer_tar("windows", b"licensed"), tar]);
    let mut elsewhere = entry(OCI_LAYER_FOREIGN, &foreign);
    elsewhere["urls"] = json!(["http://127.0.0.1:9/windows-layer"]);
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": entry(media_type::OCI_CONFIG, &config), "layers": [elsewhere, entry(OCI_LAYER_GZIP, &own)]});
    Image::new(repository, tag, media_type::OCI_MANIFEST, &manifest, vec![config, own])
}

/// An artifact with the empty config and no subject, as made by `oras push`.
pub fn artifact(repository: &str, tag: &str, payload: &[u8]) -> Image {
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "artifactType": "application/vnd.example.thing", "config": entry(media_type::OCI_EMPTY, b"{}"),
        "layers": [entry("application/vnd.example.data", payload)]});
    Image::new(repository, tag, media_type::OCI_MANIFEST, &manifest, vec![b"{}".to_vec(), payload.to_vec()])
}

fn digest_of(image: &Image) -> Digest {
    Digest::sha256(&image.manifest)
}

/// One image of every kind.
pub struct Corpus {
    pub images: Vec<Image>,
}

/// A pushed image: a full reference (`127.0.0.1:5000/a/b:tag`, or `…@sha256:…`) and its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    pub reference: String,
    pub digest: String,
}

impl Corpus {
    /// v2s2, OCI, index with attestation, manifest list, nested repositories, empty config, zstd layers, blobs of 0
    /// and 1 bytes, two tags of one digest, a referrer, a cosign signature, a foreign layer.
    pub fn everything() -> Corpus {
        let tar = layer_tar("hello", b"zstd");
        let signed = oci("team/signed", "v1", &["signed"]);
        let sbom = referrer(&signed, "application/spdx+json", br#"{"spdxVersion":"SPDX-2.3"}"#);
        let odd: [(&str, Vec<u8>); 2] =
            [("application/vnd.example.empty", vec![]), ("application/vnd.example.one", vec![7])];
        let images = vec![
            docker("library/docker", "1.0", &["docker", "second layer"]),
            oci("library/oci", "1.0", &["oci"]),
            oci("library/oci", "same", &["oci"]),
            oci_index("library/index", "1.0", "index"),
            docker_list("library/list", "1.0", "list"),
            oci("a", "x", &["outer repository"]),
            oci("a/b", "x", &["nested repository"]),
            oci("a/b/c/d", "x", &["deeply nested repository"]),
            artifact("team/artifact", "1", b"some data"),
            oci_raw(
                "library/zstd",
                "1.0",
                &config("amd64", std::slice::from_ref(&tar)),
                &[(OCI_LAYER_ZSTD, zstd(&tar))],
            ),
            oci_raw("team/odd-sizes", "1", b"{}", &odd),
            cosign_signature(&signed),
            referrers_tag(&signed, &[sbom]),
            signed,
            with_foreign_layer("team/windows", "ltsc"),
        ];
        Corpus { images }
    }

    /// Pushes everything verbatim. Returns only tagged images, without tags that belong to another image (`sha256-…`):
    /// the names an allowlist would have.
    pub fn push(&self, registry: &impl Host) -> Vec<Pushed> {
        self.images.iter().for_each(|image| image.push(registry));
        self.images
            .iter()
            .filter(|image| image.tag.as_deref().is_some_and(|tag| !tag.starts_with("sha256-")))
            .map(|image| Pushed { reference: format!("{}/{}", registry.host(), image.name()), digest: image.digest() })
            .collect()
    }
}
