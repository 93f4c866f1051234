//! Reads and writes `index.json` one descriptor at a time: thousands of them as JSON values would take many times their
//! length.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::base::error::{Error, Result};
use crate::bundle::SUBJECT;
use crate::files::{IMAGE_NAME, REF_NAME};
use crate::oci::{Descriptor, Digest, Reference, Repository, Tag, has_at_most_values};

use super::entries::IndexEntry;
use super::{DELETED, LayoutIndex, MOST_DELETED, REPOSITORY};

/// Maximum number of values in an index: 100,000 images with twenty each.
const MOST_VALUES: usize = 2_000_000;

/// Parses an `index.json`. The last component of `layout`, its path, is the repository of entries that have only a tag.
///
/// # Errors
/// It is not an index.
pub fn parse(index: &[u8], layout: &Path) -> Result<LayoutIndex> {
    let fail = || format!("reading {}", layout.join("index.json").display());
    if !has_at_most_values(index, MOST_VALUES) {
        return Err(Error::damaged(format!("{}: it has more entries than an index can have", fail())));
    }
    let fallback = fallback_repository(layout);
    let mut names = LayoutIndex::default();
    let mut json = serde_json::Deserializer::from_slice(index);
    let reader = IndexReader { names: &mut names, fallback: fallback.as_ref() };
    let read = reader.deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|e| Error::damaged(fail()).because(e))?;
    names.deleted = take_deleted(&mut names.rest);
    Ok(names)
}

/// Writes an `index.json`, one descriptor per line.
pub fn write(names: &LayoutIndex, out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"{\n")?;
    for (key, value) in &with_deleted(names) {
        writeln!(out, "  {}: {value},", Value::from(key.as_str()))?;
    }
    out.write_all(b"  \"manifests\": [")?;
    for (count, (_, entry)) in names.entries.iter().enumerate() {
        write!(out, "{}\n    {}", if count == 0 { "" } else { "," }, entry.raw)?;
    }
    out.write_all(b"\n  ]\n}\n")
}

/// Everything in the index except its manifests, with the deletions to remember.
fn with_deleted(names: &LayoutIndex) -> Map<String, Value> {
    let mut rest = names.rest.clone();
    if !names.deleted.is_empty() {
        let deleted = names.deleted.iter().map(|(digest, repository)| format!("{repository}@{digest}"));
        let annotations = rest.entry("annotations").or_insert_with(|| json!({}));
        // It may be `null` or anything else.
        if !annotations.is_object() {
            *annotations = json!({});
        }
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(DELETED.to_owned(), deleted.collect::<Vec<_>>().join(" ").into());
        }
    }
    rest
}

/// Extracts the deletions; anything else there is dropped.
fn take_deleted(rest: &mut Map<String, Value>) -> BTreeSet<(Digest, Repository)> {
    let Some(annotations) = rest.get_mut("annotations").and_then(Value::as_object_mut) else { return BTreeSet::new() };
    let Some(text) = annotations.remove(DELETED) else { return BTreeSet::new() };
    if annotations.is_empty() {
        rest.remove("annotations");
    }
    let parse = |one: &str| {
        let (repository, digest) = one.split_once('@')?;
        Some((digest.parse().ok()?, repository.parse().ok()?))
    };
    text.as_str().unwrap_or_default().split(' ').filter_map(parse).take(MOST_DELETED).collect()
}

struct IndexReader<'a> {
    names: &'a mut LayoutIndex,
    fallback: Option<&'a Repository>,
}

impl<'de> DeserializeSeed<'de> for IndexReader<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for IndexReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an image index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let (mut rest, mut listed) = (Map::new(), false);
        while let Some(key) = map.next_key::<String>()? {
            if key != "manifests" {
                rest.insert(key, map.next_value()?);
                continue;
            }
            if std::mem::replace(&mut listed, true) {
                return Err(A::Error::duplicate_field("manifests"));
            }
            map.next_value_seed(ManifestsReader { names: &mut *self.names, fallback: self.fallback })?;
        }
        self.names.rest = rest;
        if listed { Ok(()) } else { Err(A::Error::missing_field("manifests")) }
    }
}

struct ManifestsReader<'a> {
    names: &'a mut LayoutIndex,
    fallback: Option<&'a Repository>,
}

impl<'de> DeserializeSeed<'de> for ManifestsReader<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ManifestsReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of manifests")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        while let Some(raw) = list.next_element::<Value>()? {
            let view = Descriptor::deserialize(&raw).map_err(A::Error::custom)?;
            let (repository, tag) = name_of(&view, self.fallback);
            let named = repository.is_some();
            let repository = repository.or_else(|| raw["annotations"][REPOSITORY].as_str()?.parse().ok());
            let raw = raw.to_string().into();
            self.names.add(IndexEntry { digest: view.digest, raw, repository: repository.map(Into::into), tag, named });
        }
        Ok(())
    }
}

/// A full name in either annotation, otherwise a bare tag, otherwise nothing.
fn name_of(view: &Descriptor, fallback: Option<&Repository>) -> (Option<Repository>, Option<Tag>) {
    let annotation = |key: &str| view.annotations().get(key).filter(|text| !text.is_empty());
    let Some(text) = annotation(IMAGE_NAME).or_else(|| annotation(REF_NAME)) else { return (None, None) };
    let full = text.contains(['/', ':', '@']);
    if let Some(reference) = text.parse::<Reference>().ok().filter(|_| full) {
        let latest = || "latest".parse().ok().filter(|_| reference.digest.is_none());
        return (Some(reference.repository.clone()), reference.tag.clone().or_else(latest));
    }
    match text.parse() {
        Ok(tag) => (fallback.cloned(), Some(tag)),
        Err(_) => (None, None),
    }
}

/// The repository of entries that have only a tag: the name of the layout, or `layout` if that is not a valid name.
fn fallback_repository(layout: &Path) -> Option<Repository> {
    let absolute = layout.canonicalize().unwrap_or_else(|_| layout.to_owned());
    let name = absolute.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    [name.as_str(), "layout"].into_iter().find_map(|name| format!("docker.io/{name}").parse().ok())
}

/// The fields of an index without images.
pub fn empty() -> Map<String, Value> {
    [("schemaVersion".to_owned(), json!(2))].into_iter().collect()
}

/// A descriptor with its annotations, as JSON.
pub fn raw(view: &Descriptor, annotations: &[(&str, String)]) -> Box<str> {
    let mut raw = json!({"mediaType": view.media_type, "digest": view.digest, "size": view.size});
    if let Some(artifact_type) = view.artifact_type() {
        raw["artifactType"] = json!(artifact_type);
    }
    if !annotations.is_empty() {
        raw["annotations"] = annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    }
    raw.to_string().into()
}

/// What an entry refers to, according to its annotations.
pub fn subject(entry: &IndexEntry) -> Option<Digest> {
    let view: Descriptor = serde_json::from_str(&entry.raw).ok()?;
    view.annotations().get(SUBJECT)?.parse().ok()
}

/// The descriptor of an entry, without annotations.
pub fn view(entry: &IndexEntry) -> Option<Descriptor> {
    let view: Descriptor = serde_json::from_str(&entry.raw).ok()?;
    let plain = Descriptor::new(&view.media_type, view.digest, view.size);
    Some(plain.with_artifact_type(view.artifact_type().map(str::to_owned)))
}
