//! YAML as a tree in which every node knows its line and every scalar its source text.
//!
//! An untyped reader would turn the tag `1.10` into the number 1.1 and `on` into a boolean. A scalar that looks like
//! one is therefore taken from the source again. Reading into a tree first, rather than into types, lets the notations
//! report all their problems at once.
//!
//! # Threats
//! Anchors and aliases that multiply, deep nesting, endless documents: the budget and alias limits of the reader apply,
//! tighter than its defaults; its default depth of 64 needs more stack than a thread has in a debug build. Duplicate
//! keys are an error. Parse errors are shown without an excerpt of the source, because a skopeo file may contain a
//! password.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::{InputProblem, Position};

/// Maximum nesting; the notations need five levels. The reader recurses, and in a debug build a level takes tens of
/// kilobytes.
const MAX_DEPTH: usize = 16;

/// A value and its position. It cannot be printed, because it may contain a password.
pub(super) struct YamlNode {
    pub at: Position,
    pub value: Value,
}

pub(super) enum Value {
    /// `~`, `null` or nothing.
    Null,
    /// Any scalar, as its source text.
    Text(String),
    Sequence(Vec<YamlNode>),
    Mapping(Vec<(Key, YamlNode)>),
}

pub(super) struct Key {
    pub at: Position,
    pub text: String,
}

impl YamlNode {
    /// Names the kind of node, for messages about an unexpected one.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text(_) => "a single value",
            Value::Sequence(_) => "a sequence",
            Value::Mapping(_) => "a mapping",
        }
    }
}

/// Parses a file with a single document.
pub(super) fn parse(name: &str, source: &str) -> Result<YamlNode, InputProblem> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        // `1e400` is a number that is too large, and also a tag: the visitor takes it from the source like any other.
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: 2_000_000,
            max_events: 8_000_000,
            max_recorded_anchor_events: 100_000,
            // One anchor for the platforms of a thousand entries is not an attack; the cost of aliases is limited
            // below.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 200_000,
            max_replay_stack_depth: MAX_DEPTH,
        },
    };
    let file: Arc<str> = name.into();
    let root: Spanned<Raw> = serde_saphyr::from_str_with_options(source, options).map_err(|e| {
        let line = e.location().map_or(1, |location| location.line().max(1));
        let text = e.without_snippet().to_string();
        let text = text.lines().next().unwrap_or("invalid YAML").to_owned();
        InputProblem { at: Position::Line { file: file.clone(), line }, text: format!("YAML: {text}") }
    })?;
    Source { file, text: source }.node(root)
}

/// The tree from the YAML reader, without the text of scalars that it took for numbers and booleans.
enum Raw {
    Null,
    /// A plain scalar that looks like a number or a boolean. Its text is in the source.
    Typed,
    Text(String),
    Sequence(Vec<Spanned<Raw>>),
    Mapping(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a sequence or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut sequence = Vec::new();
        while let Some(item) = items.next_element()? {
            sequence.push(item);
        }
        Ok(Raw::Sequence(sequence))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut mapping = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            mapping.push(entry);
        }
        Ok(Raw::Mapping(mapping))
    }
}

struct Source<'a> {
    file: Arc<str>,
    text: &'a str,
}

impl Source<'_> {
    fn position(&self, location: Location) -> Position {
        Position::Line { file: self.file.clone(), line: location.line().max(1) }
    }

    fn node(&self, raw: Spanned<Raw>) -> Result<YamlNode, InputProblem> {
        let at = self.position(raw.referenced);
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Typed => Value::Text(self.scalar(raw.defined, &at)?),
            Raw::Text(text) => Value::Text(text),
            Raw::Sequence(items) => {
                Value::Sequence(items.into_iter().map(|item| self.node(item)).collect::<Result<_, _>>()?)
            }
            Raw::Mapping(entries) => {
                Value::Mapping(entries.into_iter().map(|(k, v)| self.entry(k, v)).collect::<Result<_, _>>()?)
            }
        };
        Ok(YamlNode { at, value })
    }

    fn entry(&self, key: Spanned<Raw>, value: Spanned<Raw>) -> Result<(Key, YamlNode), InputProblem> {
        let key = self.node(key)?;
        match key.value {
            Value::Text(text) => Ok((Key { at: key.at, text }, self.node(value)?)),
            _ => {
                let text = format!("a key must be a single value, and this one is {}", key.kind());
                Err(InputProblem { at: key.at, text })
            }
        }
    }

    /// Returns the source text of a scalar that was taken for a number or a boolean.
    fn scalar(&self, location: Location, at: &Position) -> Result<String, InputProblem> {
        let span = location.span();
        let range = span.byte_offset().zip(span.byte_len()).and_then(|(start, len)| {
            let start = usize::try_from(start).ok()?;
            Some(start..start.checked_add(usize::try_from(len).ok()?)?)
        });
        let text = range.and_then(|range| self.text.get(range)).map(str::trim).filter(|text| !text.is_empty());
        // Only a tag such as `!!int` in front of a quoted scalar leads here with quotes.
        let text = text.filter(|text| !text.starts_with(['"', '\'', '!', '|', '>']));
        text.map(str::to_owned).ok_or_else(|| InputProblem {
            at: at.clone(),
            text: "write this value in quotes and without a YAML tag".into(),
        })
    }
}
