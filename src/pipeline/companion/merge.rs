//! Lists of signatures: cosign's `.sig` and `.att` tags, each a manifest with one layer per signature or attestation.
//!
//! Signing again appends a layer and moves the tag. Both sides of the gap do so, so neither side's list may replace the
//! other's (cosign, `pkg/oci/mutate`: `AppendSignatures` keeps the existing manifest and adds to it).
//!
//! # Threats
//! A list that is read at the target may be anything. It has at most [`MAX_MANIFEST_SIZE`] bytes and [`MAX_VALUES`]
//! JSON values. Anything else is neither joined nor replaced, because its author would lose it.

mod referrers;

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::oci::{Descriptor, Digest, Kind, MAX_MANIFEST_SIZE, Manifest, Role, has_at_most_values, media_type};

/// The annotation of a layer with the signature of its payload. An attestation contains its signature, and the
/// annotation is empty.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The media types of the layers.
const LAYERS: [&str; 2] = ["application/vnd.dev.cosign.simplesigning.v1+json", "application/vnd.dsse.envelope.v1+json"];
/// Maximum number of JSON values: more than a list of ten thousand signatures has.
const MAX_VALUES: usize = 200_000;
/// cosign does not write a time into a config.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// What to do with a tag that has one list at the target and another in the bundle.
#[derive(Clone, Debug)]
pub enum Merge {
    /// Theirs contains all of ours: the tag stays as it is.
    KeepTheirs,
    /// Ours contains all of theirs, and `added` more signatures: it gets the tag.
    TakeOurs { added: usize },
    /// Each has something that the other lacks: the tag gets both.
    Join(Joined),
}

impl Merge {
    /// Whether theirs contains all of ours, perhaps in other bytes.
    pub fn theirs_has_ours(&self) -> bool {
        matches!(self, Merge::KeepTheirs | Merge::TakeOurs { added: 0 })
    }
}

/// Their signatures, then those of ours that they lack.
#[derive(Clone, Debug)]
pub struct Joined {
    pub manifest: Manifest,
    /// The config of `manifest`, which is new and must be uploaded. A list of referrers has none.
    pub config: Bytes,
    /// Number of signatures that were there.
    pub kept: usize,
    /// Number of our signatures that were added.
    pub added: usize,
}

/// Why two lists cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMerged {
    #[error("the target's tag is not a list of signatures: {0}")]
    Theirs(String),
    #[error("the bundle's tag is not a list of signatures: {0}")]
    Ours(String),
    #[error("the target's tag is not a list of referrers: its media type is {0}")]
    NoIndex(String),
    #[error("the joined list would have {0} bytes, more than the {MAX_MANIFEST_SIZE} allowed")]
    TooLarge(u64),
}

/// Compares the list that the target has under a tag with ours: lists of signatures or, if ours is an index, of
/// referrers. The result depends only on the two lists. Merging ours with the result gives [`Merge::KeepTheirs`], or
/// ours again.
///
/// # Errors
/// One of them is not a list of signatures and the other does not contain it, or both together are too large.
pub fn merge(theirs: &Manifest, ours: &Manifest) -> Result<Merge, NotMerged> {
    if ours.kind() == Kind::Index {
        return referrers::merge(theirs, ours);
    }
    let (list, own) = (List::read(theirs).map_err(NotMerged::Theirs)?, List::read(ours).map_err(NotMerged::Ours)?);
    if own.keys().is_subset(&list.keys()) {
        return Ok(Merge::KeepTheirs);
    }
    list.check().map_err(NotMerged::Theirs)?;
    own.check().map_err(NotMerged::Ours)?;
    if list.keys().is_subset(&own.keys()) {
        return Ok(Merge::TakeOurs { added: own.keys().len() - list.keys().len() });
    }
    join(theirs, list, own).map(Merge::Join)
}

/// The signatures of a list.
#[derive(Clone, Debug)]
pub struct Signatures(HashSet<Key>);

impl Signatures {
    /// `None` if the manifest is not a list of signatures, or has none.
    pub fn of(manifest: &Manifest) -> Option<Signatures> {
        let list = List::read(manifest).ok().filter(|list| !list.layers.is_empty() && list.check().is_ok())?;
        Some(Signatures(list.keys()))
    }

    /// Whether every signature of `other` is here: `other` is the list before the last signing.
    pub fn contain(&self, other: &Signatures) -> bool {
        other.0.is_subset(&self.0)
    }
}

/// A manifest as a list of signatures.
struct List {
    manifest: Map<String, Value>,
    /// The layers as they are in the manifest, and parsed.
    layers: Vec<(Value, Descriptor)>,
}

/// What makes two signatures equal: the digest of the payload, and the signature.
type Key = (Digest, String);

fn key(layer: &Descriptor) -> Key {
    (layer.digest, layer.annotations().get(SIGNATURE).cloned().unwrap_or_default())
}

impl List {
    fn read(manifest: &Manifest) -> Result<List, String> {
        if manifest.kind() != Kind::Image {
            return Err(format!("its media type is {}", manifest.media_type()));
        }
        let bytes = manifest.bytes().map_err(|e| crate::base::Error::from(e).chain())?;
        if !has_at_most_values(&bytes, MAX_VALUES) {
            return Err(format!("it has more than {MAX_VALUES} JSON values"));
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        let Value::Object(mut fields) = value else { return Err("it is not a JSON object".to_owned()) };
        // Programs in Go would read a list here that has a name with other capitals.
        let alike =
            |name: &String| ["layers", "config"].iter().any(|own| name.eq_ignore_ascii_case(own) && name != own);
        if let Some(name) = fields.keys().find(|name| alike(name)) {
            return Err(format!("it has the field {name:?}"));
        }
        let layers = match fields.get_mut("layers").map(Value::take) {
            // Null counts as absent, as in the view.
            Some(Value::Array(layers)) => layers.into_iter().filter(|layer| !layer.is_null()).collect(),
            _ => Vec::new(),
        };
        let children = manifest.children().into_iter().filter(|child| child.role != Role::Config);
        let layers = layers.into_iter().zip(children.map(|child| child.descriptor)).collect();
        Ok(List { manifest: fields, layers })
    }

    /// # Errors
    /// A layer is neither a signature nor an attestation.
    fn check(&self) -> Result<(), String> {
        let is_one = |layer: &Descriptor| {
            layer.annotations().contains_key(SIGNATURE) || LAYERS.contains(&layer.media_type.as_str())
        };
        match self.layers.iter().find(|(_, layer)| !is_one(layer)) {
            Some((_, layer)) => Err(format!("its layer {} is of type {:?}", layer.digest, layer.media_type)),
            None => Ok(()),
        }
    }

    fn keys(&self) -> HashSet<Key> {
        self.layers.iter().map(|(_, layer)| key(layer)).collect()
    }
}

fn join(theirs: &Manifest, list: List, own: List) -> Result<Joined, NotMerged> {
    let kept = list.layers.len();
    let mut known = list.keys();
    let mut layers = list.layers;
    layers.extend(own.layers.into_iter().filter(|(_, layer)| known.insert(key(layer))));
    let added = layers.len() - kept;
    let config = Bytes::from(config(layers.iter().map(|(_, layer)| layer.digest)).to_string());
    let mut fields = list.manifest;
    fields.entry("schemaVersion").or_insert_with(|| 2.into());
    fields.insert("mediaType".to_owned(), theirs.media_type().into());
    fields.insert(
        "config".to_owned(),
        json!({"mediaType": config_type(theirs), "size": config.len(), "digest": Digest::sha256(&config)}),
    );
    fields.insert("layers".to_owned(), layers.into_iter().map(|(text, _)| text).collect());
    let bytes = Bytes::from(Value::Object(fields).to_string());
    let size = bytes.len() as u64;
    if size > MAX_MANIFEST_SIZE {
        return Err(NotMerged::TooLarge(size));
    }
    let manifest = Manifest::parse(bytes, Some(theirs.media_type()), None);
    let manifest = manifest.map_err(|e| NotMerged::Theirs(e.to_string()))?;
    Ok(Joined { manifest, config, kept, added })
}

/// The config that cosign writes. It only says which layers there are.
fn config(layers: impl Iterator<Item = Digest>) -> Value {
    let layers: Vec<Digest> = layers.collect();
    let history: Vec<Value> = layers.iter().map(|_| json!({"created": NO_TIME})).collect();
    json!({
        "architecture": "", "created": NO_TIME, "history": history, "os": "",
        "rootfs": {"type": "layers", "diff_ids": layers}, "config": {},
    })
}

fn config_type(manifest: &Manifest) -> &'static str {
    match manifest.media_type() {
        media_type::DOCKER_MANIFEST => media_type::DOCKER_CONFIG,
        _ => media_type::OCI_CONFIG,
    }
}

#[cfg(test)]
mod tests;
