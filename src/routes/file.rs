//! Reads a `registries.conf` in version 2 of the format.
//!
//! **Threats.** The file belongs to the administrator or the user, but decides where images come from. A misspelt key causes a
//! warning, a broken value is an error instead of its default, and a file of another kind is not treated as empty. The file
//! may be huge (rejected above [`MAX_SIZE`]) and nested deeply (the parser's limit).

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::prefix::{self, Prefix};
use super::{Mirror, Routes, Rule, Serves};
use crate::base::position::{InputProblem, Position};

/// Maximum size in bytes.
pub(super) const MAX_SIZE: u64 = 4 * 1024 * 1024;

/// Keys that are not used here: short names follow Docker.
const ELSEWHERE: [&str; 4] =
    ["aliases", "short-name-mode", "unqualified-search-registries", "additional-layer-store-auth-helper"];

const VERSION_1: &str = "this is version 1 of the format, which is no longer supported; write a `[[registry]]` table \
                         for each registry, with `insecure = true` or `blocked = true` (containers-registries.conf(5))";

impl Routes {
    /// Parses the main file and its drop-ins in order, each with its name for messages. A table in a later file replaces one
    /// with the same prefix.
    ///
    /// # Errors
    /// Lists everything that is wrong in any of them.
    pub fn parse(files: &[(String, Vec<u8>)]) -> Result<Routes, Vec<InputProblem>> {
        let (mut routes, mut problems) = (Routes::default(), Vec::new());
        for (name, bytes) in files {
            let mut reader = Reader { name, text: "", problems: Vec::new(), warnings: Vec::new() };
            let rules = reader.read(bytes);
            routes.rules.retain(|former| !rules.iter().any(|rule| rule.prefix == former.prefix));
            routes.rules.extend(rules);
            routes.warnings.append(&mut reader.warnings);
            problems.append(&mut reader.problems);
        }
        if problems.is_empty() { Ok(routes) } else { Err(problems) }
    }
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    problems: Vec<InputProblem>,
    warnings: Vec<String>,
}

type Table<'a> = DeTable<'a>;
type Value<'a> = Spanned<DeValue<'a>>;

impl<'a> Reader<'a> {
    fn read(&mut self, bytes: &'a [u8]) -> Vec<Rule> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            let line = bytes.utf8_chunks().next().map_or(1, |chunk| self.lines(chunk.valid()));
            self.problems.push(InputProblem { at: Position::line(self.name, line), text: "it is not UTF-8".into() });
            return Vec::new();
        };
        self.text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            self.problem(at, error.message().to_owned());
        }
        let mut rules = Vec::new();
        for (key, value) in root.get_ref() {
            match key.get_ref().as_ref() {
                "registry" => rules = self.rules(value),
                "registries" => self.problem(key.span().start, VERSION_1.into()),
                "credential-helpers" => self.helpers(value),
                other if ELSEWHERE.contains(&other) => {}
                other => self.unknown(key.span().start, other),
            }
        }
        self.merged(rules)
    }

    fn rules(&mut self, value: &Value<'a>) -> Vec<Rule> {
        let tables = self.tables("registry", value);
        tables.into_iter().filter_map(|(at, table)| self.rule(at, table)).collect()
    }

    fn rule(&mut self, at: usize, table: &Table<'a>) -> Option<Rule> {
        let known = ["prefix", "location", "insecure", "blocked", "mirror", "mirror-by-digest-only"];
        self.check_keys(table, &known);
        let before = self.problems.len();
        let location = self.text_of(table, "location", prefix::location);
        let prefix = self.text_of(table, "prefix", Prefix::parse);
        let digests_only = self.flag(table, "mirror-by-digest-only");
        let mirrors = table.get("mirror").map(|value| self.mirrors(value, digests_only)).unwrap_or_default();
        let (insecure, blocked) = (self.flag(table, "insecure"), self.flag(table, "blocked"));
        if self.problems.len() > before {
            return None;
        }
        let prefix = prefix.or_else(|| location.as_deref().and_then(|location| Prefix::parse(location).ok()));
        let Some(prefix) = prefix else {
            self.problem(at, "the table has neither `prefix` nor `location`".into());
            return None;
        };
        if location.is_none() && !prefix.is_wildcard() {
            self.problem(at, format!("{prefix} has no `location`; only a prefix such as *.example.com may lack one"));
        }
        Some(Rule { at: self.position(at), prefix, location, insecure, blocked, mirrors })
    }

    fn mirrors(&mut self, value: &Value<'a>, digests_only: bool) -> Vec<Mirror> {
        let tables = self.tables("mirror", value);
        tables.into_iter().filter_map(|(at, table)| self.mirror(at, table, digests_only)).collect()
    }

    fn mirror(&mut self, at: usize, table: &Table<'a>, digests_only: bool) -> Option<Mirror> {
        self.check_keys(table, &["location", "insecure", "pull-from-mirror"]);
        let serves = self.text_of(table, "pull-from-mirror", |text| match text {
            "all" => Ok(Serves::All),
            "digest-only" => Ok(Serves::Digests),
            "tag-only" => Ok(Serves::Tags),
            other => Err(format!("{other:?} is not all, digest-only or tag-only")),
        });
        if digests_only && serves.is_some() {
            self.problem(at, "`pull-from-mirror` here and `mirror-by-digest-only` above exclude each other".into());
        }
        let insecure = self.flag(table, "insecure");
        if table.get("location").is_none() {
            self.problem(at, "the mirror has no `location`".into());
        }
        let location = self.text_of(table, "location", prefix::location)?;
        let serves = if digests_only { Serves::Digests } else { serves.unwrap_or_default() };
        Some(Mirror { at: self.position(at), location, insecure, serves })
    }

    /// Of two tables for one prefix in a file the first applies, as in containers/image.
    fn merged(&mut self, rules: Vec<Rule>) -> Vec<Rule> {
        let mut merged: Vec<Rule> = Vec::new();
        for rule in rules {
            match merged.iter().find(|first| first.prefix == rule.prefix) {
                Some(first) => {
                    let text =
                        format!("{}: a second table for {}; the one at {} is used", rule.at, rule.prefix, first.at);
                    self.warnings.push(text);
                }
                None => merged.push(rule),
            }
        }
        merged
    }

    /// This program does not use credential helpers for all registries from here.
    fn helpers(&mut self, value: &Value<'a>) {
        let own = |helper: &Value<'_>| helper.get_ref().as_str() == Some("containers-auth.json");
        let only_own = value.get_ref().as_array().is_some_and(|list| list.iter().all(own));
        if !only_own {
            let text = "`credential-helpers` is ignored; name helpers in auth.json (credsStore, credHelpers)";
            self.warning(value.span().start, text);
        }
    }

    /// The tables of an array of tables, with their positions.
    fn tables<'v>(&mut self, key: &str, value: &'v Value<'a>) -> Vec<(usize, &'v Table<'a>)> {
        let array: Option<&DeArray<'a>> = value.get_ref().as_array();
        let mut tables = Vec::new();
        for entry in array.into_iter().flat_map(|array| array.iter()) {
            match entry.get_ref() {
                DeValue::Table(table) => tables.push((entry.span().start, table)),
                _ => self.problem(entry.span().start, format!("`{key}` contains something other than tables")),
            }
        }
        if array.is_none() {
            self.problem(value.span().start, format!("`{key}` is a list of tables: write [[{key}]] with two brackets"));
        }
        tables
    }

    /// A text of the table, parsed by `read`.
    fn text_of<T>(&mut self, table: &Table<'a>, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = table.get(key)?;
        let at = value.span().start;
        let found = value.get_ref().as_str().ok_or_else(|| "it is not a quoted string".to_owned()).and_then(read);
        found.map_err(|reason| self.problem(at, format!("`{key}`: {reason}"))).ok()
    }

    fn flag(&mut self, table: &Table<'a>, key: &str) -> bool {
        let Some(value) = table.get(key) else { return false };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.problem(value.span().start, format!("`{key}` must be true or false, without quotes"));
            false
        })
    }

    fn check_keys(&mut self, table: &Table<'a>, known: &[&str]) {
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            self.unknown(key.span().start, key.get_ref());
        }
    }

    fn unknown(&mut self, at: usize, key: &str) {
        self.warning(at, &format!("`{}` is ignored", key.escape_debug()));
    }

    fn problem(&mut self, at: usize, text: String) {
        let at = self.position(at);
        self.problems.push(InputProblem { at, text });
    }

    fn warning(&mut self, at: usize, text: &str) {
        self.warnings.push(format!("{}: {text}", self.position(at)));
    }

    fn position(&self, at: usize) -> Position {
        Position::line(self.name, self.lines(self.text.get(..at).unwrap_or(self.text)))
    }

    /// The line after this much text, counted from 1.
    fn lines(&self, before: &str) -> u64 {
        before.bytes().filter(|byte| *byte == b'\n').count() as u64 + 1
    }
}
