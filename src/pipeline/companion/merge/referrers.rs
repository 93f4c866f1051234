//! Fallback lists of referrers: an index with one entry for each manifest whose subject is the image (distribution-spec
//! 1.1, "Referrers Tag Schema"). Each side adds an entry for what it attaches.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Joined, MAX_VALUES, Merge, NotMerged};
use crate::oci::{MAX_MANIFEST_SIZE, Manifest, has_at_most_values, media_type};

/// As in [`merge`](super::merge). If both have the same entries, ours stays: the registry may have just entered them
/// itself.
pub(super) fn merge(theirs: &Manifest, ours: &Manifest) -> Result<Merge, NotMerged> {
    let (list, own) = (List::read(theirs)?, List::read(ours)?);
    let (there, here) = (list.keys(), own.keys());
    if there.is_subset(&here) {
        return Ok(Merge::TakeOurs { added: here.len() - there.len() });
    }
    if here.is_subset(&there) {
        return Ok(Merge::KeepTheirs);
    }
    let new = own.entries.iter().filter(|entry| !there.contains(digest(entry))).cloned();
    let (new, kept) = (new.collect::<Vec<Value>>(), list.entries.len());
    let added = new.len();
    let mut fields = list.fields;
    fields.insert("manifests".to_owned(), list.entries.into_iter().chain(new).collect());
    let bytes = Bytes::from(Value::Object(fields).to_string());
    let size = bytes.len() as u64;
    if size > MAX_MANIFEST_SIZE {
        return Err(NotMerged::TooLarge(size));
    }
    let manifest = Manifest::parse(bytes, Some(theirs.media_type()), None);
    let manifest = manifest.map_err(|e| NotMerged::NoIndex(e.to_string()))?;
    Ok(Merge::Join(Joined { manifest, config: Bytes::new(), kept, added }))
}

struct List {
    fields: Map<String, Value>,
    entries: Vec<Value>,
}

impl List {
    fn read(manifest: &Manifest) -> Result<List, NotMerged> {
        let fail = || NotMerged::NoIndex(manifest.media_type().to_owned());
        let bytes = manifest.bytes().map_err(|_| fail())?;
        if manifest.media_type() != media_type::OCI_INDEX || !has_at_most_values(&bytes, MAX_VALUES) {
            return Err(fail());
        }
        let mut fields: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|_| fail())?;
        // The field keeps its position.
        let entries = match fields.get_mut("manifests").map(Value::take) {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        };
        Ok(List { fields, entries })
    }

    fn keys(&self) -> HashSet<&str> {
        self.entries.iter().map(digest).collect()
    }
}

fn digest(entry: &Value) -> &str {
    entry.get("digest").and_then(Value::as_str).unwrap_or_default()
}
