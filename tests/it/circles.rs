//! No circular dependencies between the modules of a room.
//!
//! A module and the modules below it may name each other. Two modules directly below the same module, each taken with
//! everything below it, must not name each other, not even through others. The check runs for every module.
//!
//! This is an approximation: it works on tokens, without a parser. A name counts for the file that defines it: `use`
//! declarations, re-exports, globs and paths that start with a module or an imported name are followed. It does not see
//! method calls, code made by macros, or which of two files a glob means if both define the name. A module inside a
//! file counts as that file. Items below `#[cfg(test)]` and modules called `tests` do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Modules that still have circles directly below them. This list only ever gets shorter, until it is empty.
const TO_DO: &[&str] = &[];

/// `transport::registry::wire`, segment by segment.
type Name = Vec<String>;

#[derive(Default)]
struct File {
    /// Each name used in the file → the full path it stands for.
    aliases: BTreeMap<String, Name>,
    globs: Vec<Name>,
    defined: BTreeSet<String>,
    /// Every path in the file that may lead out of it, as written.
    paths: Vec<Name>,
}

#[derive(Default)]
struct Sources(BTreeMap<Name, File>);

impl Sources {
    fn read(root: &Path) -> Sources {
        let mut sources = Sources::default();
        for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
            let entry = entry.expect("walking src");
            let file = entry.path().strip_prefix(root).expect("below src").to_string_lossy().into_owned();
            let Some(stem) = file.strip_suffix(".rs") else { continue };
            let stem = stem.strip_suffix("/mod").unwrap_or(stem);
            let module: Name = stem.split('/').map(str::to_owned).collect();
            if matches!(stem, "main" | "lib") || module.iter().any(|part| part == "tests") {
                continue;
            }
            let text = std::fs::read_to_string(entry.path()).expect("reading a source file");
            sources.add(module, &text);
        }
        sources
    }

    fn add(&mut self, module: Name, text: &str) {
        self.0.insert(module, File::of(&without_tests(tokens(text))));
    }

    /// The full path of `path` as written in `module`; `None` if it leads out of the crate.
    fn full(&self, module: &[String], path: &[String]) -> Option<Name> {
        let mut base: Name = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len() - 1].to_vec(),
            first => self.local(module, first)?,
        };
        for word in &path[1..] {
            match word.as_str() {
                "super" => drop(base.pop()),
                "self" => {}
                word => base.push(word.to_owned()),
            }
        }
        Some(base)
    }

    /// The full path of a name as `module` sees it: a module below it, an imported name, or one that a glob brings.
    fn local(&self, module: &[String], name: &str) -> Option<Name> {
        let file = self.0.get(module)?;
        let below = |parent: &[String]| parent.iter().cloned().chain([name.to_owned()]).collect::<Name>();
        match file.aliases.get(name) {
            Some(alias) if alias[0] != name => return self.full(module, alias),
            _ if self.0.contains_key(&below(module)) => return Some(below(module)),
            _ => {}
        }
        let brought = file.globs.iter().filter_map(|glob| self.full(module, glob)).map(|from| below(&from));
        brought.into_iter().find(|path| self.0.contains_key(path) || self.is_known(path))
    }

    /// Whether the module at this path has an item of that name.
    fn is_known(&self, path: &[String]) -> bool {
        let Some((name, module)) = path.split_last() else { return false };
        self.0.get(module).is_some_and(|file| file.defined.contains(name) || file.aliases.contains_key(name))
    }

    /// The module whose file defines the item at this full path.
    fn definer(&self, path: &[String], depth: usize) -> Option<Name> {
        let length = (1..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        let (file, Some(item)) = (self.0.get(module)?, rest.first()) else { return Some(module.to_vec()) };
        // Re-exports may be circular, too.
        if depth == 0 || file.defined.contains(item) {
            return Some(module.to_vec());
        }
        match self.local(module, item) {
            Some(full) if full != path[..=length] => self.definer(&[full, rest[1..].to_vec()].concat(), depth - 1),
            _ => Some(module.to_vec()),
        }
    }

    fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (module, file) in &self.0 {
            for path in &file.paths {
                let Some(full) = self.full(module, path) else { continue };
                let Some(to) = self.definer(&full, 8) else { continue };
                if !module.starts_with(&to) && !to.starts_with(module) {
                    edges.push(Edge { from: module.clone(), to, name: path.last().cloned().unwrap_or_default() });
                }
            }
        }
        edges
    }

    fn circles(&self) -> Vec<Circle> {
        let mut graphs: BTreeMap<Name, Graph> = BTreeMap::new();
        for Edge { from, to, name } in self.edges() {
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            // Dependencies between rooms follow their ranks (see `rooms`).
            if common > 0 {
                let graph = graphs.entry(from[..common].to_vec()).or_default();
                let evidence = format!("{} -> {}: {name}", from.join("::"), to.join("::"));
                graph.entry(from[common].clone()).or_default().entry(to[common].clone()).or_default().insert(evidence);
            }
        }
        graphs.iter().flat_map(|(parent, graph)| circles_of(parent, graph)).collect()
    }
}

/// One file names an item that another one defines.
struct Edge {
    from: Name,
    to: Name,
    name: String,
}

/// From each module to the modules it names, with the paths that show it.
type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

struct Circle {
    /// The module directly above all of them.
    parent: String,
    modules: Vec<String>,
    evidence: Vec<String>,
}

fn circles_of(parent: &[String], graph: &Graph) -> Vec<Circle> {
    let reach: BTreeMap<&String, BTreeSet<&String>> = graph.keys().map(|from| (from, reached(graph, from))).collect();
    let mut circles = Vec::new();
    let mut done: BTreeSet<&String> = BTreeSet::new();
    for (module, ahead) in &reach {
        if !ahead.contains(module) || done.contains(module) {
            continue;
        }
        let members: Vec<&String> =
            ahead.iter().copied().filter(|other| reach.get(other).is_some_and(|back| back.contains(module))).collect();
        let evidence = members.iter().flat_map(|from| graph[*from].iter()).filter(|(to, _)| members.contains(to));
        circles.push(Circle {
            parent: parent.join("::"),
            modules: members.iter().map(|member| (*member).clone()).collect(),
            evidence: evidence.flat_map(|(_, names)| names.iter().cloned()).collect(),
        });
        done.extend(members);
    }
    circles
}

fn reached<'g>(graph: &'g Graph, start: &'g String) -> BTreeSet<&'g String> {
    let mut seen = BTreeSet::new();
    let mut left = vec![start];
    while let Some(next) = left.pop() {
        left.extend(graph.get(next).into_iter().flat_map(BTreeMap::keys).filter(|to| seen.insert(*to)));
    }
    seen
}

/// Words, `::` and single symbols; comments, strings and lifetimes are dropped.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let (c, next) = (chars[at], chars.get(at + 1).copied().unwrap_or(' '));
        match c {
            '/' if next == '/' => at = position(&chars, at, '\n'),
            '"' => at = after_text(&chars, at),
            'r' if raw_hashes(&chars, at + 1).is_some() => at = after_raw(&chars, at + 1),
            '\'' if next == '\\' => at = position(&chars, at + 3, '\'') + 1,
            '\'' if chars.get(at + 2) == Some(&'\'') => at += 3,
            c if c.is_alphanumeric() || c == '_' => {
                let word: String = chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
                at += word.chars().count();
                found.push(word);
            }
            ':' if next == ':' => {
                found.push("::".to_owned());
                at += 2;
            }
            c => {
                if !c.is_whitespace() {
                    found.push(c.to_string());
                }
                at += 1;
            }
        }
    }
    found
}

fn position(chars: &[char], from: usize, wanted: char) -> usize {
    (from..chars.len()).find(|at| chars[*at] == wanted).unwrap_or(chars.len())
}

fn after_text(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The number of `#` that open the raw string whose `r` is just before `at`.
fn raw_hashes(chars: &[char], at: usize) -> Option<usize> {
    let word_before = at >= 2 && (chars[at - 2].is_alphanumeric() && chars[at - 2] != 'b' || chars[at - 2] == '_');
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    (!word_before && chars.get(at + hashes) == Some(&'"')).then_some(hashes)
}

fn after_raw(chars: &[char], at: usize) -> usize {
    let hashes = raw_hashes(chars, at).unwrap_or(0);
    let mut end = at + hashes + 1;
    while end < chars.len()
        && !(chars[end] == '"' && chars[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes)
    {
        end += 1;
    }
    end + 1 + hashes
}

/// Removes the items that exist only for tests.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let marks = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().take(marks.len()).eq(marks.iter()) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0_i32;
        at += marks.len();
        while at < tokens.len() {
            let token = tokens[at].as_str();
            depth += i32::from(matches!(token, "{" | "(" | "[")) - i32::from(matches!(token, "}" | ")" | "]"));
            at += 1;
            if depth == 0 && matches!(token, ";" | "}") {
                break;
            }
        }
    }
    kept
}

impl File {
    fn of(tokens: &[String]) -> File {
        let mut file = File::default();
        let mut at = 0;
        while at < tokens.len() {
            let word = tokens[at].as_str();
            let next = tokens.get(at + 1).map_or("", String::as_str);
            if word == "use" && next != "<" {
                at = file.read_use(tokens, at + 1, &[]) + 1;
                continue;
            }
            if matches!(word, "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union")
                && is_word(next)
            {
                file.defined.insert(next.to_owned());
            }
            if is_word(word) && next == "::" {
                let mut path = vec![word.to_owned()];
                while tokens.get(at + 1).is_some_and(|sign| sign == "::")
                    && tokens.get(at + 2).is_some_and(|w| is_word(w))
                {
                    path.push(tokens[at + 2].clone());
                    at += 2;
                }
                file.paths.push(path);
            }
            at += 1;
        }
        file
    }

    /// Reads one tree of a `use` from `at`; returns the position of the token after it.
    fn read_use(&mut self, tokens: &[String], mut at: usize, prefix: &[String]) -> usize {
        let mut path = prefix.to_vec();
        while at < tokens.len() {
            match tokens[at].as_str() {
                "::" => at += 1,
                "{" => loop {
                    at = self.read_use(tokens, at + 1, &path);
                    if tokens.get(at).is_none_or(|sign| sign != ",") {
                        return at + 1;
                    }
                },
                "*" => {
                    self.paths.push(path.clone());
                    self.globs.push(path);
                    return at + 1;
                }
                "as" => {
                    self.import(tokens[at + 1].clone(), path);
                    return at + 2;
                }
                word if is_word(word) => {
                    if word != "self" || path.is_empty() {
                        path.push(word.to_owned());
                    }
                    at += 1;
                }
                _ => break,
            }
        }
        if path.len() > prefix.len() || tokens.get(at.wrapping_sub(1)).is_some_and(|word| word == "self") {
            self.import(path.last().cloned().unwrap_or_default(), path);
        }
        at
    }

    fn import(&mut self, name: String, path: Name) {
        self.paths.push(path.clone());
        self.aliases.insert(name, path);
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn sources() -> Sources {
    let sources = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(sources.0.len() > 100, "the sources were not found");
    sources
}

#[test]
fn modules_inside_a_room_have_no_circular_dependencies() {
    let circles = sources().circles();
    let complaints: Vec<String> = circles
        .iter()
        .filter(|circle| !TO_DO.contains(&circle.parent.as_str()))
        .map(|circle| {
            let (modules, evidence) = (circle.modules.join(", "), circle.evidence.join("\n  "));
            format!("below {} these name each other: {modules}\n  {evidence}", circle.parent)
        })
        .collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    for parent in TO_DO {
        assert!(circles.iter().any(|circle| circle.parent == *parent), "{parent} has no circle: take it off the list");
    }
}

/// The circles of files with this text, as `parent: modules`.
fn circles_in(files: &[(&str, &str)]) -> Vec<String> {
    let mut sources = Sources::default();
    for (module, text) in files {
        sources.add(module.split("::").map(str::to_owned).collect(), text);
    }
    let shown = |circle: Circle| format!("{}: {}", circle.parent, circle.modules.join(" "));
    sources.circles().into_iter().map(shown).collect()
}

#[test]
fn a_circular_dependency_is_found_however_it_is_written() {
    let b = ("r::b", "use crate::r::a::A; pub struct B;");
    for a in [
        "use super::b::B;",
        "use crate::r::{b::{self, B}, c};",
        "use super::b as other;",
        "use super::b::*;",
        "pub(super) fn a() -> super::b::B { todo!() }",
        "use super::B;",
        "use crate::r::Renamed;",
        "use super::*; fn a(_: b::B) {}",
        "const TEXT: &str = \"\\\"//\"; use super::b::B;",
        "const QUOTE: char = '\"'; use super::b::B;",
        "const RAW: &str = r#\"\"\"#; use super::b::B;",
    ] {
        let r = ("r", "mod a; mod b; pub use b::B; pub use self::b::B as Renamed;");
        assert_eq!(circles_in(&[r, ("r::a", &format!("{a} pub struct A;")), b]), ["r: a b"], "{a}");
    }
    let far = [("r::a::x", "use crate::r::b::B;"), ("r::a::y", ""), ("r::b", "use super::c::C;"), ("r::c::z", "")];
    assert!(circles_in(&far).is_empty());
    let far = [far[0], far[2], ("r::c", "use super::a::y::Y;"), ("r::a", ""), ("r::a::y", "")];
    assert_eq!(circles_in(&far), ["r: a b c"], "a module includes everything below it");
}

#[test]
fn dependencies_without_a_circle_are_not_reported() {
    let b = ("r::b", "use super::a::A; pub struct B;");
    for a in [
        "// use super::b::B;",
        "const TEXT: &str = \"super::b::B\";",
        "#[cfg(test)] mod tests { use super::super::b::B; }",
        "#[cfg(test)] use super::b::B;",
        "#[cfg(test)] mod tests; fn b<'a>(_: &'a str) {}",
    ] {
        assert!(circles_in(&[("r::a", &format!("{a} pub struct A;")), b]).is_empty(), "{a}");
    }
    let family = [("r::a", "mod b; use b::B; pub struct A;"), ("r::a::b", "use super::A; pub struct B;")];
    assert!(circles_in(&family).is_empty(), "a module and those below it may name each other");
    let rooms = [("r", "use crate::s::S; pub struct R;"), ("s", "use crate::r::R; pub struct S;")];
    assert!(circles_in(&rooms).is_empty(), "dependencies between rooms follow their ranks");
}
