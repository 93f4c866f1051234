//! Phrases that mark translated text. They are alarms: a synonym does not repair the sentence.

use std::path::{Path, PathBuf};

use regex::Regex;

/// A comment line that starts with "as there" refers to something the reader cannot find.
const PHRASES: &str =
    r"(?im)\b(?:is|are|was|be|been) told\b|\bwhoever\b|\bat hand\b|\bis none\b|^ *//[/!]? *as there\b|\bstands in\b";

/// Every file below `path`, or the file itself.
fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|entry| files(&entry)).collect()
}

/// An operator at 2 a.m. should not have to decode a sentence.
#[test]
fn no_text_uses_the_phrases_of_a_translation() {
    let phrases = Regex::new(PHRASES).unwrap();
    assert!(
        phrases.is_match("what is told") && phrases.is_match("/// As there.") && !phrases.is_match("as there is one")
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["src", "docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];
    let mut found = Vec::new();
    for file in places.iter().flat_map(|place| files(&root.join(place))) {
        let text = std::fs::read_to_string(&file).unwrap();
        for hit in phrases.find_iter(&text) {
            let line = text[..hit.start()].lines().count().max(1);
            found.push(format!("{}:{line}: {}", file.strip_prefix(root).unwrap().display(), hit.as_str()));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
