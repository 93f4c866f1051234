//! The allowlist: which images may cross the gap, as rules that know where they were written.
//!
//! Three notations are read, chosen per file and whatever the order of the files (see [`Notation`]):
//!
//! **Text** — one reference a line. `#` begins a comment at the start of a line and after white space; blank lines, CRLF
//! and a byte order mark are tolerated. After the reference, `key=value` words: `platform=linux/amd64,linux/arm64`
//! (only these platforms) and `as=base/nginx:1.27` (the name below the target's prefix).
//! ```text
//! registry.k8s.io/pause:3.10
//! nginx:1.27 platform=linux/amd64 as=base/nginx:1.27   # docker.io/library/nginx
//! quay.io/prometheus/prometheus                        # all its tags
//! ```
//! **A YAML list** — a sequence, or a mapping whose only key `images` holds one, of references or mappings:
//! ```yaml
//! images:
//!   - registry.k8s.io/pause:3.10
//!   - ref: nginx:1.27
//!     platform: [linux/amd64, linux/arm64]   # or one string, as in the text notation
//!     as: base/nginx:1.27
//! ```
//! **The file of `skopeo sync --src yaml`**, as it is; where skopeo skips a bad entry and still succeeds, it is an error
//! here. In every notation a reference is a tag, a digest, `tag@digest`, or a repository alone, which means all its tags.
//! Short names are written out as Docker does, and a notice shows the result. Equal entries are merged with a notice;
//! the same selection with different platforms or another `as` is an error that names both lines.
//!
//! Parsing sees bytes and a name; it opens no file and no connection. What a rule selects is decided against tags that
//! the caller has listed ([`Select::matches`]).
//!
//! # Threats
//! An allowlist may come from another department or from a pull request. It can be huge (refused above
//! [`MAX_FILE_SIZE`]), nest or alias without end (the YAML reader's budget), hide a second meaning in a duplicate or
//! misspelt key (an error), carry control characters, or hold a pattern that explodes (the regex engine is linear in the
//! tag, and limited in size). Credentials in a skopeo file never appear in a message.

mod decode;
mod entry;
mod list;
mod merge;
mod pattern;
mod permit;
mod select;
pub mod semver;
mod settings;
mod skopeo;
mod text;
mod yaml;

use std::collections::BTreeMap;

use crate::oci::Platform;
use crate::pipeline::lock::Rename;

pub use crate::base::position::{InputProblem, Position, refused};
pub(crate) use decode::decode;
pub use decode::{MAX_FILE_SIZE, Notation};
pub use pattern::{Pattern, PatternError};
pub use permit::judged_by_config;
pub use select::Select;
pub use settings::RegistrySettings;

/// What to carry, and how to reach the registries it comes from.
#[derive(Clone, Debug, Default)]
pub struct Allowlist {
    /// In the order they were written, arguments first, each selection once.
    pub rules: Vec<Rule>,
    /// What a skopeo file says of registries; the key is `host[:port]`, as [`crate::oci::Repository::registry`] has it.
    pub registries: BTreeMap<String, RegistrySettings>,
    /// Short names written out, duplicates merged, empty files: worth showing, nothing wrong.
    pub notices: Vec<String>,
}

/// One entry of an allowlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub at: Position,
    /// As the user wrote it.
    pub written: String,
    pub select: Select,
    /// Only these platforms, in the order written; empty means that nothing is said.
    pub platforms: Vec<Platform>,
    /// `as=`: the name below the target's prefix. It has a tag only where `select` is one image.
    pub rename: Option<Rename>,
}

impl Allowlist {
    /// Reads references given as arguments and the content of files, each with the name to show in messages.
    ///
    /// # Errors
    /// Everything that is wrong in any of them, at once and in the order of the sources.
    pub fn parse_sources(args: &[String], files: &[(String, Vec<u8>)]) -> Result<Allowlist, Vec<InputProblem>> {
        let mut found = Found::default();
        for (index, arg) in args.iter().enumerate() {
            entry::from_argument(index + 1, arg, &mut found);
        }
        for (name, bytes) in files {
            parse_file(name, bytes, &mut found);
        }
        merge::merge(found)
    }
}

fn parse_file(name: &str, bytes: &[u8], found: &mut Found) {
    let text = match decode(name, bytes) {
        Ok(text) => text,
        Err(problem) => return found.problems.push(problem),
    };
    let rules = found.rules.len();
    let problems = found.problems.len();
    match Notation::of(name, text) {
        Notation::Text => text::parse(name, text, found),
        Notation::Yaml => match yaml::parse(name, text) {
            Ok(root) if list::is_list(&root) => list::parse(&root, found),
            Ok(root) => skopeo::parse(&root, found),
            Err(problem) => found.problems.push(problem),
        },
    }
    if found.rules.len() == rules && found.problems.len() == problems {
        found.notices.push(format!("{name}: names no image"));
    }
}

/// What the notations hand over, before duplicates are merged.
#[derive(Default)]
struct Found {
    rules: Vec<Rule>,
    registries: Vec<(Position, String, RegistrySettings)>,
    notices: Vec<String>,
    problems: Vec<InputProblem>,
}

impl Found {
    fn problem(&mut self, at: &Position, text: impl Into<String>) {
        self.problems.push(InputProblem { at: at.clone(), text: text.into() });
    }

    fn notice(&mut self, at: &Position, text: impl std::fmt::Display) {
        self.notices.push(format!("{at}: {text}"));
    }
}

#[cfg(test)]
mod tests;
