//! The list notation: a YAML sequence of references, or of mappings with the keys of the text notation.

use super::Found;
use super::entry::{self, RawEntry, Word};
use super::yaml::{Value, YamlNode};

const KNOWN: &str = "ref, platform, as";

/// Whether a YAML file uses this notation rather than skopeo's.
pub(super) fn is_list(root: &YamlNode) -> bool {
    match &root.value {
        Value::Sequence(_) | Value::Null => true,
        Value::Text(_) => true,
        Value::Mapping(entries) => entries
            .iter()
            .any(|(key, value)| key.text == "images" && matches!(value.value, Value::Sequence(_) | Value::Null)),
    }
}

pub(super) fn parse(root: &YamlNode, found: &mut Found) {
    match &root.value {
        Value::Null => {}
        Value::Sequence(items) => items.iter().for_each(|item| parse_item(item, found)),
        Value::Mapping(entries) => {
            for (key, value) in entries {
                match &value.value {
                    _ if key.text != "images" => {
                        found.problem(&key.at, format!("unknown key {:?}; known key: images", key.text));
                    }
                    Value::Sequence(items) => items.iter().for_each(|item| parse_item(item, found)),
                    _ => {}
                }
            }
        }
        Value::Text(_) => {
            let text = "expected a sequence of references (`- nginx:1.27`) or the mapping that skopeo sync reads";
            found.problem(&root.at, text);
        }
    }
}

fn parse_item(item: &YamlNode, found: &mut Found) {
    match &item.value {
        Value::Text(text) => {
            let reference = Word { at: item.at.clone(), text };
            entry::add(RawEntry { reference, platforms: Vec::new(), rename: None }, found);
        }
        Value::Mapping(_) => parse_mapping(item, found),
        _ => found.problem(&item.at, format!("expected a reference or a mapping with {KNOWN}, found {}", item.kind())),
    }
}

fn parse_mapping(item: &YamlNode, found: &mut Found) {
    let Value::Mapping(entries) = &item.value else { return };
    let before = found.problems.len();
    let (mut reference, mut platforms, mut rename) = (None, Vec::new(), None);
    for (key, value) in entries {
        match key.text.as_str() {
            "ref" => reference = single(&key.text, value, found),
            "as" => rename = single(&key.text, value, found),
            "platform" => platforms = platform_words(value, found),
            other => found.problem(&key.at, format!("unknown key {other:?}; known keys: {KNOWN}")),
        }
    }
    if reference.is_none() && found.problems.len() == before {
        found.problem(&item.at, "the entry has no ref");
    }
    let Some(reference) = reference else { return };
    let rules = found.rules.len();
    entry::add(RawEntry { reference, platforms, rename }, found);
    if found.problems.len() > before {
        found.rules.truncate(rules);
    }
}

fn single<'a>(key: &str, value: &'a YamlNode, found: &mut Found) -> Option<Word<'a>> {
    match &value.value {
        Value::Text(text) => Some(Word { at: value.at.clone(), text }),
        _ => {
            found.problem(&value.at, format!("{key} takes a single value, found {}", value.kind()));
            None
        }
    }
}

/// `linux/amd64`, `linux/amd64,linux/arm64` or a sequence of these.
fn platform_words<'a>(value: &'a YamlNode, found: &mut Found) -> Vec<Word<'a>> {
    match &value.value {
        Value::Text(text) => text.split(',').map(|text| Word { at: value.at.clone(), text: text.trim() }).collect(),
        Value::Sequence(items) if !items.is_empty() => {
            items.iter().filter_map(|item| single("platform", item, found)).collect()
        }
        _ => {
            found
                .problem(&value.at, format!("platform takes a platform or a sequence of them, found {}", value.kind()));
            Vec::new()
        }
    }
}
