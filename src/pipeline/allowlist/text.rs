//! The text notation: one reference per line.

use super::entry::{self, KEYS, RawEntry, Word};
use super::{Found, Position};

/// Parses a whole file and collects all problems. The module documentation has the grammar.
pub(super) fn parse(name: &str, text: &str, found: &mut Found) {
    let file: std::sync::Arc<str> = name.into();
    for (line, content) in (1..).zip(text.lines()) {
        parse_line(&Position::Line { file: file.clone(), line }, content, found);
    }
}

fn parse_line(at: &Position, line: &str, found: &mut Found) {
    let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
    let Some(reference) = words.next() else { return };
    let before = found.problems.len();
    let mut entry =
        RawEntry { reference: Word { at: at.clone(), text: reference }, platforms: Vec::new(), rename: None };
    let mut seen = Vec::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            found.problem(at, format!("expected key=value after the reference, found {word:?}; known keys: {KEYS}"));
            continue;
        };
        if seen.contains(&key) {
            found.problem(at, format!("{key}= is given twice"));
        }
        seen.push(key);
        match key {
            _ if !matches!(key, "platform" | "as") => {
                found.problem(at, format!("unknown key {key:?}; known keys: {KEYS}"));
            }
            _ if value.is_empty() => found.problem(at, format!("{key}= has no value")),
            "platform" => entry.platforms = value.split(',').map(|text| Word { at: at.clone(), text }).collect(),
            _ => entry.rename = Some(Word { at: at.clone(), text: value }),
        }
    }
    let rules = found.rules.len();
    entry::add(entry, found);
    if found.problems.len() > before {
        found.rules.truncate(rules);
    }
}
