//! Checks `docs/json.md` against the printed types: its reference is generated from their names and comments, so no
//! field and no code can be missing. After a change: `WRITE_DOCS=1 cargo test --test it json_docs`.

mod page;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::support::commands;
use page::Page;

/// The reference starts after this line.
const MARK: &str = "<!-- What follows is made of the types by tests/it/json_docs. -->\n";

/// Types with their own serialization, described in words.
const MANUAL: &[(&str, &str)] = &[
    (
        "ListedImage",
        "object: an image of the [lock](format.md), with `attachedUnknown`, and with `kind` in each of `attached`",
    ),
    ("ConfirmedManifest", "string: a manifest"),
    ("Descriptor", "object: a descriptor of the OCI image specification"),
];

/// Every value of these types must be described.
const CODES: &[&str] = &["Code", "StorageProblemKind", "HintCode", "ProblemKind", "Verdict"];

/// A script could meet an undocumented field or code, or JSON that does not say whether all is well.
#[test]
fn json_md_documents_every_field_and_code_and_every_report_has_version_and_ok() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let sources = types::read();
    let expected = Page::new(&sources).render().unwrap_or_else(|complaints| panic!("\n{}", complaints.join("\n")));
    let text = std::fs::read_to_string(&path).expect("docs/json.md");
    let (head, found) = text.split_once(MARK).expect("the line before the reference");
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{MARK}{expected}")).expect("writing docs/json.md");
        return;
    }
    let differing = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    assert!(expected == found, "docs/json.md differs from the types (see above how to regenerate it): {differing:?}");
}

/// A script that reads `images` of one report as a list could meet a number in another.
#[test]
fn a_field_name_has_the_same_shape_in_every_report() {
    let page = include_str!("../../../docs/json.md").split_once(MARK).expect("the reference").1;
    let mut shapes: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    let mut section = "";
    for line in page.lines() {
        section = line.strip_prefix("### ").unwrap_or(section);
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [name, kind, _, ..] = cells[..]
            && name.starts_with('`')
        {
            shapes.entry(name).or_default().entry(shape(kind)).or_default().push(section);
        }
    }
    let differing: Vec<_> = shapes.iter().filter(|(_, shapes)| shapes.len() > 1).collect();
    assert!(shapes.len() > 100 && differing.is_empty(), "{differing:#?}");
}

/// Distinguishes lists, numbers and booleans from everything else.
fn shape(kind: &str) -> &str {
    ["list", "number", "boolean"].into_iter().find(|shape| kind.starts_with(shape)).unwrap_or("other")
}

/// A command could print undocumented JSON.
#[test]
fn json_md_documents_every_command_that_prints_json() {
    let prints = |command: &clap::Command| command.get_arguments().any(|arg| arg.get_id() == "json");
    let printing: BTreeSet<String> =
        commands().into_iter().filter(|(_, command)| prints(command)).map(|(name, _)| name).collect();
    assert_eq!(printing, page::commands());
}
