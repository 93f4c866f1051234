//! The rules of `--map FILE`. They are ordered, and the first match decides.
//!
//! ```text
//! # a comment, at the start of a line or after white space
//! docker.io/library/ -> base/
//! quay.io/prometheus/node-exporter -> tools/node-exporter
//! gcr.io/ ->
//! ~ ^quay\.io/([^/]+)/(.*)$ -> mirror-$1/$2
//! ```
//! A **prefix rule** matches the named repository and everything below it, by whole path components: `quay.io/a` does
//! not match `quay.io/ab`. The named part is replaced and the rest stays; with nothing on the right it is removed.
//! Slashes at the ends are optional. The left side starts with a registry: Docker Hub's images are below `docker.io/`,
//! its short names below `docker.io/library/`.
//!
//! A **regex rule** starts with `~` and matches if the pattern (Go RE2, as in `images-by-tag-regex`) matches the whole
//! name `registry/path`, without tag and digest; `^` and `$` are allowed and change nothing. On the right, `$1` or
//! `${1}` is a group, `${name}` a named one, and `$$` a dollar sign. A group that took no part is empty, and one that
//! does not exist is an error. Any number of spaces around `->` is allowed, and one on its left is required.
//!
//! If names have no registry ([`Map::parse_paths`]: the storage of a registry does not contain its name), both kinds of
//! rules see only the path: `team/ -> base/`.
//!
//! The result is a path below the target's prefix. A person writes the file, and it is not trusted: every wrong line is
//! reported with its number.

use std::sync::Arc;

use crate::oci::Repository;
use crate::pipeline::allowlist::{InputProblem, Pattern, Position, decode};

/// Ordered rules from source names to paths at the target.
#[derive(Clone, Debug, Default)]
pub struct Map {
    rules: Vec<Rule>,
    subject: Subject,
}

/// The part of a name that rules see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Subject {
    /// `registry/path`.
    #[default]
    Name,
    /// The path, because the registry is unknown.
    Path,
}

#[derive(Clone, Debug)]
enum Rule {
    /// Whole components, without a slash at the end.
    Prefix {
        from: String,
        to: String,
    },
    Regex {
        pattern: Pattern,
        to: Vec<Part>,
    },
}

/// A piece of a regex rule's right side.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
    Named(String),
}

impl Map {
    /// Parses a file of rules; `file` is its name in messages.
    ///
    /// # Errors
    /// It is not text, or all wrong lines at once.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Map, Vec<InputProblem>> {
        Map::read(bytes, file, Subject::Name)
    }

    /// Does the same for names without a registry.
    ///
    /// # Errors
    /// As for [`Map::parse`].
    pub fn parse_paths(bytes: &[u8], file: &str) -> Result<Map, Vec<InputProblem>> {
        Map::read(bytes, file, Subject::Path)
    }

    fn read(bytes: &[u8], file: &str, subject: Subject) -> Result<Map, Vec<InputProblem>> {
        let text = decode(file, bytes).map_err(|problem| vec![problem])?;
        let file: Arc<str> = file.into();
        let (mut rules, mut problems) = (Vec::new(), Vec::new());
        for (line, content) in (1..).zip(text.lines()) {
            match parse_line(strip_comment(content), subject) {
                Ok(rule) => rules.extend(rule),
                Err(text) => problems.push(InputProblem { at: Position::Line { file: file.clone(), line }, text }),
            }
        }
        if problems.is_empty() { Ok(Map { rules, subject }) } else { Err(problems) }
    }

    /// Returns the path from the first rule that matches. It may not be valid.
    pub(super) fn apply(&self, source: &Repository) -> Option<String> {
        let name = match self.subject {
            Subject::Name => source.to_string(),
            Subject::Path => source.path().to_owned(),
        };
        self.rules.iter().find_map(|rule| rule.apply(&name))
    }
}

impl Rule {
    fn apply(&self, name: &str) -> Option<String> {
        match self {
            Rule::Prefix { from, to } => match name.strip_prefix(from.as_str())? {
                "" => Some(to.clone()),
                rest => {
                    let rest = rest.strip_prefix('/')?;
                    Some(if to.is_empty() { rest.to_owned() } else { format!("{to}/{rest}") })
                }
            },
            Rule::Regex { pattern, to } => {
                let regex = pattern.regex()?;
                let groups = regex.captures(name)?;
                let mut path = String::new();
                for part in to {
                    path.push_str(match part {
                        Part::Text(text) => text,
                        Part::Group(index) => groups.get(*index).map_or("", |group| group.as_str()),
                        Part::Named(name) => groups.name(name).map_or("", |group| group.as_str()),
                    });
                }
                Some(path)
            }
        }
    }
}

/// A `#` starts a comment at the start of the line and after white space.
fn strip_comment(line: &str) -> &str {
    let begins = |(index, _): &(usize, &str)| line[..*index].chars().next_back().is_none_or(char::is_whitespace);
    let end = line.match_indices('#').find(begins).map_or(line.len(), |(index, _)| index);
    line[..end].trim()
}

fn parse_line(line: &str, subject: Subject) -> Result<Option<Rule>, String> {
    if line.is_empty() {
        return Ok(None);
    }
    // A pattern may contain `->`; the arrow is the last one surrounded by white space.
    let free = |(index, _): &(usize, &str)| {
        let after = &line[index + 2..];
        line[..*index].ends_with(char::is_whitespace) && (after.is_empty() || after.starts_with(char::is_whitespace))
    };
    let Some((arrow, _)) = line.rmatch_indices("->").find(free) else {
        return Err("expected `FROM -> TO` or `~ PATTERN -> TO`".into());
    };
    let (from, to) = (line[..arrow].trim(), line[arrow + 2..].trim());
    if to.contains(char::is_whitespace) {
        return Err(format!("white space in {to:?}"));
    }
    match from.strip_prefix('~') {
        Some(pattern) => regex_rule(pattern.trim(), to).map(Some),
        None => prefix_rule(from, to, subject).map(Some),
    }
}

fn prefix_rule(from: &str, to: &str, subject: Subject) -> Result<Rule, String> {
    let from = from.strip_suffix('/').unwrap_or(from);
    let to = to.strip_suffix('/').unwrap_or(to);
    match subject {
        Subject::Name => check_name(from)?,
        Subject::Path => drop(Repository::new("source.invalid", from).map_err(|e| format!("{from:?}: {}", e.reason))?),
    }
    if !to.is_empty() {
        check_path(to)?;
    }
    Ok(Rule::Prefix { from: from.to_owned(), to: to.to_owned() })
}

fn check_name(name: &str) -> Result<(), String> {
    let (host, path) = name.split_once('/').map_or((name, None), |(host, path)| (host, Some(path)));
    if !(host == "localhost" || host.contains(['.', ':'])) {
        return Err(format!(
            "{name:?} does not start with a registry; Docker Hub's short names are below \
                            docker.io/library/"
        ));
    }
    Repository::new(host, path.unwrap_or("x")).map(drop).map_err(|e| e.reason)
}

fn check_path(path: &str) -> Result<(), String> {
    Repository::new("target.invalid", path)
        .map(drop)
        .map_err(|e| format!("{path:?} is not a path at the target: {}", e.reason))
}

fn regex_rule(pattern: &str, to: &str) -> Result<Rule, String> {
    let pattern = Pattern::whole(pattern).map_err(|e| e.to_string())?;
    let to = parse_template(to)?;
    if to.is_empty() {
        return Err("the right side is empty".into());
    }
    let regex = pattern.regex().ok_or("the pattern cannot be compiled")?;
    for part in &to {
        match part {
            Part::Group(index) if *index >= regex.captures_len() => {
                return Err(format!("the pattern has no group {index}"));
            }
            Part::Named(name) if !regex.capture_names().flatten().any(|known| known == name) => {
                return Err(format!("the pattern has no group named {name:?}"));
            }
            _ => {}
        }
    }
    // Groups stand for unknown text, so only a right side without groups can be checked here.
    if let [Part::Text(path)] = to.as_slice() {
        check_path(path)?;
    }
    Ok(Rule::Regex { pattern, to })
}

fn parse_template(template: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            text.push('$');
            rest = after;
            continue;
        }
        let (part, after) = parse_group(after)?;
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(part);
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

/// After a dollar sign: `1`, `{1}` or `{name}`.
fn parse_group(text: &str) -> Result<(Part, &str), String> {
    let fail = || "`$` must be followed by a number, a name in braces or another `$`".to_owned();
    if let Some(rest) = text.strip_prefix('{') {
        let (name, rest) = rest.split_once('}').filter(|(name, _)| !name.is_empty()).ok_or_else(fail)?;
        let part = name.parse().map_or_else(|_| Part::Named(name.to_owned()), Part::Group);
        return Ok((part, rest));
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let index = digits.parse().map_err(|_| fail())?;
    Ok((Part::Group(index), rest))
}
