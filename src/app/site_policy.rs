//! What a site requires of bundles: the file `config.toml`, without a version, with two keys.
//!
//! **Threats.** The file belongs to the administrator of the machine, or to the user. A requirement must never be
//! overlooked: an unknown key, a wrong type or a broken file is an error, and no bundle is accepted. Of several files, the
//! strictest applies.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::base::position::{InputProblem, Position};

/// Size limit of a file in bytes.
pub const MAX_CONFIG: u64 = 1024 * 1024;

/// Which bundles are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SitePolicy {
    /// The file that requires a signature, if any does.
    pub required_by: Option<String>,
    /// Files of public keys.
    pub keys: Vec<PathBuf>,
}

impl SitePolicy {
    /// Parses files with their paths. A requirement of one file cannot be removed by another. Relative paths of keys are
    /// relative to their file.
    ///
    /// # Errors
    /// All problems of all files.
    pub fn parse(files: &[(PathBuf, Vec<u8>)]) -> Result<SitePolicy, Vec<InputProblem>> {
        let (mut policy, mut problems) = (SitePolicy::default(), Vec::new());
        for (path, bytes) in files {
            let name = path.display().to_string();
            let mut reader = Reader { name: &name, text: "", problems: &mut problems };
            reader.read(bytes, path.parent().unwrap_or(Path::new("")), &mut policy);
        }
        if problems.is_empty() { Ok(policy) } else { Err(problems) }
    }
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    problems: &'a mut Vec<InputProblem>,
}

impl<'a> Reader<'a> {
    fn read(&mut self, bytes: &'a [u8], beside: &Path, policy: &mut SitePolicy) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return self.problem(0, "the file is not UTF-8".into());
        };
        self.text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            self.problem(error.span().map_or(0, |span| span.start), error.message().to_owned());
        }
        for (key, value) in root.get_ref() {
            match key.get_ref().as_ref() {
                "require-signature" => match value.get_ref().as_bool() {
                    Some(true) => policy.required_by = Some(self.name.to_owned()),
                    Some(false) => {}
                    None => self.problem(value.span().start, "`require-signature` must be true or false".into()),
                },
                "keys" => self.keys(value, beside, policy),
                other => {
                    let text = format!(
                        "`{}` is unknown; the known keys are `require-signature` and `keys`",
                        other.escape_debug()
                    );
                    self.problem(key.span().start, text);
                }
            }
        }
    }

    fn keys(&mut self, value: &Spanned<DeValue<'a>>, beside: &Path, policy: &mut SitePolicy) {
        let Some(list) = value.get_ref().as_array() else {
            return self.problem(value.span().start, "`keys` must be a list: keys = [\"/etc/gapferry/a.pub\"]".into());
        };
        for key in list.iter() {
            match key.get_ref().as_str().filter(|key| !key.is_empty()) {
                Some(key) => policy.keys.push(beside.join(key)),
                None => self.problem(key.span().start, "`keys` must contain paths in quotes".into()),
            }
        }
    }

    fn problem(&mut self, at: usize, text: String) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() as u64 + 1;
        self.problems.push(InputProblem { at: Position::line(self.name, line), text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(files: &[(&str, &str)]) -> Result<SitePolicy, Vec<String>> {
        let files: Vec<_> = files.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect();
        SitePolicy::parse(&files).map_err(|problems| problems.iter().map(InputProblem::to_string).collect())
    }

    #[test]
    fn a_user_cannot_remove_a_requirement_of_the_administrator() {
        let system = ("/etc/gapferry/config.toml", "require-signature = true\nkeys = [\"keys/a.pub\", \"/k/b.pub\"]\n");
        let user = ("/home/me/config.toml", "require-signature = false\nkeys = [\"/k/c.pub\"]\n");
        let policy = parse(&[system, user]).unwrap();
        assert_eq!(policy.required_by.as_deref(), Some("/etc/gapferry/config.toml"));
        assert_eq!(policy.keys, ["/etc/gapferry/keys/a.pub", "/k/b.pub", "/k/c.pub"].map(PathBuf::from));
        assert_eq!(parse(&[]).unwrap(), SitePolicy::default());
    }

    #[test]
    fn a_misspelt_requirement_is_an_error_with_its_line() {
        for (text, line, words) in [
            ("require-signatures = true", 1, "`require-signatures` is unknown"),
            ("\nrequire-signature = \"true\"", 2, "true or false"),
            ("require-signature = true\n\n[require-signature]\n", 3, ""),
            ("keys = \"/a.pub\"", 1, "must be a list"),
            ("keys = [\n  \"/a.pub\",\n  1,\n]", 3, "paths in quotes"),
            ("require-signature = tru", 1, ""),
        ] {
            let problems = parse(&[("c.toml", text)]).unwrap_err();
            let reported = problems.iter().any(|p| p.starts_with(&format!("c.toml:{line}: ")) && p.contains(words));
            assert!(reported, "{text:?}: {problems:?}");
        }
    }
}
