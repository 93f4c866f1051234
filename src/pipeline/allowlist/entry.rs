//! One entry of the text and list notations: a reference, with optional platforms and an optional other name.

use super::{Found, Position, Rule, Select};
use crate::oci::{Platform, Reference};
use crate::pipeline::lock::Rename;

/// The keys of an entry. The list notation adds `ref`.
pub(super) const KEYS: &str = "platform, as";

/// A value and its position for messages.
pub(super) struct Word<'a> {
    pub at: Position,
    pub text: &'a str,
}

/// An entry as written, with values that have not been parsed.
pub(super) struct RawEntry<'a> {
    pub reference: Word<'a>,
    /// One platform per word.
    pub platforms: Vec<Word<'a>>,
    pub rename: Option<Word<'a>>,
}

/// Adds a reference from the command line. `--platform` applies to all of them, and they have no other options.
pub(super) fn from_argument(number: usize, text: &str, found: &mut Found) {
    let reference = Word { at: Position::Argument(number), text };
    add(RawEntry { reference, platforms: Vec::new(), rename: None }, found);
}

/// Parses the values of an entry. Adds a rule if all are right, and reports every one that is wrong.
pub(super) fn add(entry: RawEntry<'_>, found: &mut Found) {
    let before = found.problems.len();
    let select = read_reference(&entry.reference, found);
    let platforms = read_platforms(&entry.platforms, found);
    let rename = entry.rename.as_ref().and_then(|word| read_rename(word, select.as_ref(), found));
    let Some(select) = select.filter(|_| found.problems.len() == before) else { return };
    let Word { at, text } = entry.reference;
    found.rules.push(Rule { at, written: text.to_owned(), select, platforms, rename });
}

fn read_reference(word: &Word<'_>, found: &mut Found) -> Option<Select> {
    let reference: Reference = match word.text.parse() {
        Ok(reference) => reference,
        Err(e) => {
            found.problem(&word.at, format!("{e}"));
            return None;
        }
    };
    if reference.was_normalized_from(word.text) {
        found.notice(&word.at, format!("{} is {reference}", word.text));
    }
    Some(match (&reference.tag, &reference.digest) {
        (None, None) => Select::AllTags(reference.repository),
        _ => Select::One(reference),
    })
}

fn read_platforms(words: &[Word<'_>], found: &mut Found) -> Vec<Platform> {
    let mut platforms = Vec::new();
    for word in words {
        match word.text.parse::<Platform>() {
            Ok(platform) if platforms.contains(&platform) => {}
            Ok(platform) => platforms.push(platform),
            Err(e) => found.problem(&word.at, e.to_string()),
        }
    }
    platforms
}

fn read_rename(word: &Word<'_>, select: Option<&Select>, found: &mut Found) -> Option<Rename> {
    let rename = match Rename::try_from(word.text.to_owned()) {
        Ok(rename) => rename,
        Err(e) => {
            found.problem(&word.at, format!("as={}: {}", word.text, e.reason));
            return None;
        }
    };
    match select {
        Some(select @ (Select::AllTags(_) | Select::TagsMatching { .. } | Select::TagsInRange { .. }))
            if rename.tag.is_some() =>
        {
            let text = format!(
                "as={rename} would give one name to several images ({select}); write as={} and they keep their tags",
                rename.path
            );
            found.problem(&word.at, text);
            None
        }
        _ => Some(rename),
    }
}
