//! `docs/json.md` against the types that are printed: its reference is made of their names and comments, so that no field and no
//! code can be missing. After a change: `WRITE_DOCS=1 cargo test --test it json_docs`.

mod page;
mod types;

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::gapferry;
use page::Page;

/// The reference begins behind this line.
const MARK: &str = "<!-- What follows is made of the types by tests/it/json_docs. -->\n";

/// Types that serialize themselves otherwise than by their fields, in words.
const MANUAL: &[(&str, &str)] = &[
    (
        "ListedImage",
        "object: an image of the [lock](format.md), with `attachedUnknown`, and with `kind` in each of `attached`",
    ),
    ("ConfirmedManifest", "string: a manifest"),
    ("Descriptor", "object: a descriptor of the OCI image specification"),
];

/// Each of their values has to be described.
const CODES: &[&str] = &["Code", "FaultKind", "HintCode", "ProblemKind", "Verdict"];

/// A script could meet a field or a code that no document explains, or a JSON that does not say whether all is well.
#[test]
fn every_field_and_every_code_is_in_the_document_and_every_report_says_version_and_ok() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let sources = types::read();
    let expected = Page::new(&sources).render().unwrap_or_else(|complaints| panic!("\n{}", complaints.join("\n")));
    let text = std::fs::read_to_string(&path).expect("docs/json.md");
    let (head, found) = text.split_once(MARK).expect("the line behind which the reference begins");
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{MARK}{expected}")).expect("writing docs/json.md");
        return;
    }
    let differing = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    assert!(expected == found, "docs/json.md is not what the types say (see above how to write it): {differing:?}");
}

/// A command could print JSON that no document mentions.
#[test]
fn every_command_that_prints_json_is_in_the_document() {
    let help = |arguments: &[&str]| {
        let output = gapferry().args(arguments).arg("--help").output().expect("running gapferry");
        String::from_utf8(output.stdout).expect("text")
    };
    let commands = |text: &str| -> Vec<String> {
        let below = text.split_once("Commands:\n").map_or("", |(_, below)| below);
        let lines = below.lines().take_while(|line| line.starts_with("  "));
        let names = lines.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
        names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help").map(str::to_owned).collect()
    };
    let mut printing = BTreeSet::new();
    for command in commands(&help(&[])) {
        let text = help(&[&command]);
        if text.contains("--json") && commands(&text).is_empty() {
            printing.insert(command.clone());
        }
        for below in commands(&text) {
            if help(&[&command, &below]).contains("      --json") {
                printing.insert(format!("{command} {below}"));
            }
        }
    }
    assert!(printing.len() > 10, "the help was not understood: {printing:?}");
    assert_eq!(printing, page::commands());
}
