//! The allowlist: rules that say which images may cross the gap. Each rule keeps the position where it was written.
//!
//! gapferry reads three notations. It chooses one per file (see [`Notation`]), independent of the order of the files:
//!
//! **Text**: one reference per line. `#` starts a comment at the start of a line and after white space. Blank lines,
//! CRLF and a byte order mark are allowed. After the reference there may be `key=value` words:
//! `platform=linux/amd64,linux/arm64` (only these platforms) and `as=base/nginx:1.27` (the name below the target's
//! prefix).
//! ```text
//! registry.k8s.io/pause:3.10
//! nginx:1.27 platform=linux/amd64 as=base/nginx:1.27   # docker.io/library/nginx
//! quay.io/prometheus/prometheus                        # all its tags
//! ```
//! **A YAML list**: a sequence of references or mappings, or a mapping whose only key, `images`, holds such a sequence:
//! ```yaml
//! images:
//!   - registry.k8s.io/pause:3.10
//!   - ref: nginx:1.27
//!     platform: [linux/amd64, linux/arm64]   # or one string, as in the text notation
//!     as: base/nginx:1.27
//! ```
//! **The file of `skopeo sync --src yaml`**, unchanged. Entries that skopeo skips while it still succeeds are errors
//! here.
//!
//! In every notation a reference is a tag, a digest, `tag@digest`, or a bare repository, which means all its tags.
//! Short names are expanded as Docker does, and a notice shows the result. Equal entries are merged with a notice. The
//! same selection with different platforms or another `as` is an error that names both lines.
//!
//! The parser gets bytes and a name. It opens no file and no connection. The caller lists the tags, and
//! [`Select::matches`] decides which of them a rule selects.
//!
//! # Threats
//! An allowlist may come from another department or from a pull request. It can be huge (rejected above
//! [`MAX_FILE_SIZE`]), nest or alias without end (limited by the YAML reader), hide a second meaning in a duplicate or
//! misspelt key (an error), or contain control characters. Its patterns may be built to explode: the regex engine is
//! linear in the length of the tag, and the compiled size is limited. Credentials in a skopeo file never appear in a
//! message.

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

/// Images, and how to reach the source registries.
#[derive(Clone, Debug, Default)]
pub struct Allowlist {
    /// In the order in which they were written, arguments first. Each selection occurs once.
    pub rules: Vec<Rule>,
    /// Settings of registries from skopeo files. The key is `host[:port]`, as in [`crate::oci::Repository::registry`].
    pub registries: BTreeMap<String, RegistrySettings>,
    /// Expanded short names, merged duplicates and empty files: worth showing, but not wrong.
    pub notices: Vec<String>,
}

/// One entry of an allowlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub at: Position,
    /// The entry as the user wrote it.
    pub written: String,
    pub select: Select,
    /// Carry only these platforms, in the order written. Empty if the rule names none.
    pub platforms: Vec<Platform>,
    /// `as=`: the name below the target's prefix. It has a tag only if `select` is one image.
    pub rename: Option<Rename>,
}

impl Allowlist {
    /// Parses references from arguments and the content of files. Each file comes with the name to show in messages.
    ///
    /// # Errors
    /// All problems of all sources, in the order of the sources.
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
        found.notices.push(format!("{name}: it contains no image"));
    }
}

/// The output of the parsers, before duplicates are merged.
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
