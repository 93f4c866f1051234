//! The dependency rules between rooms: every room has a rank and names only rooms of lower rank.
//!
//! A room is a module directly below the crate. Every path `crate::room::…` in code, not in comments, is an edge;
//! `super` chains cannot leave a room. Only the application joins concrete transports with stages; the command line
//! names their results to show them.

use std::path::Path;

/// The rooms from the bottom up. A room may name itself and the rooms before it.
const ROOMS: &[&str] = &[
    "spool",
    "oci",
    "base",
    "archive",
    "content",
    "files",
    "credentials",
    "routes",
    "signing",
    "transport",
    "pipeline",
    "bundle",
    "increment",
    "verify",
    "serve",
    "app",
    "cli",
];

/// The rooms that may name concrete transports.
const JOINS: &[&str] = &["app", "cli"];

struct Edge {
    file: String,
    line: usize,
    from: String,
    /// `oci`, or `transport::layout`.
    to: Vec<String>,
}

fn edges() -> Vec<Edge> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut edges = Vec::new();
    for entry in walkdir::WalkDir::new(&root).sort_by_file_name() {
        let entry = entry.expect("walking src");
        let file = entry.path().strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
        let from = file.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        if !file.ends_with(".rs") || matches!(from.as_str(), "lib" | "main") {
            continue;
        }
        let from = match file.strip_prefix("transport/").and_then(|rest| rest.split('/').next()) {
            Some(part) if part != "mod.rs" => format!("transport::{}", part.trim_end_matches(".rs")),
            _ => from,
        };
        let text = std::fs::read_to_string(entry.path()).expect("reading a source file");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for named in named_rooms(code) {
                edges.push(Edge { file: file.clone(), line: number + 1, from: from.clone(), to: named });
            }
        }
    }
    edges
}

/// `crate::a::b` and `crate::{a::b, c}` on one line, as `[a, b]` and `[c]`.
fn named_rooms(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for after in code.split("crate::").skip(1) {
        let parts: Vec<&str> = match after.strip_prefix('{') {
            Some(group) => group.trim_end_matches([';', '}']).split(',').map(str::trim).collect(),
            None => vec![after],
        };
        for part in parts {
            let path: Vec<String> = part
                .split("::")
                .map(|word| word.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
                .take(2)
                .collect();
            if path[0].starts_with(|c: char| c.is_ascii_lowercase()) {
                found.push(path);
            }
        }
    }
    found
}

fn rank(room: &str) -> Option<usize> {
    let room = room.split("::").next().unwrap_or_default();
    ROOMS.iter().position(|name| *name == room)
}

fn complaint(edge: &Edge) -> Option<String> {
    let Edge { from, to, .. } = edge;
    let own = from.split("::").next() == Some(to[0].as_str());
    let (Some(rank_from), Some(rank_to)) = (rank(from), rank(&to[0])) else {
        return Some(format!("{from} names {}: one of them has no place in this test's table", to[0]));
    };
    if rank_from < rank_to {
        return Some(format!("{from} names {}, which stands above it", to[0]));
    }
    if to[0] != "transport" {
        return None;
    }
    let transport = to.get(1).map_or("", String::as_str);
    if own {
        let is_own = *from == "transport" || *from == format!("transport::{transport}");
        return (!is_own).then(|| format!("{from} names another transport: {transport}"));
    }
    (!JOINS.contains(&from.as_str())).then(|| format!("{from} names the concrete transport {transport}"))
}

#[test]
fn rooms_depend_one_way_and_only_app_and_cli_name_transports() {
    let edges = edges();
    assert!(edges.len() > 20, "the sources were not found");
    let complaints: Vec<String> =
        edges.iter().filter_map(|e| Some(format!("src/{}:{}: {}", e.file, e.line, complaint(e)?))).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn a_dependency_in_the_wrong_direction_is_detected() {
    let edge = |from: &str, to: &[&str]| Edge {
        file: String::new(),
        line: 1,
        from: from.into(),
        to: to.iter().map(|part| (*part).to_owned()).collect(),
    };
    for (from, to) in [
        ("oci", &["content"][..]),
        ("archive", &["content", "Slice"]),
        ("content", &["files", "Layout"]),
        ("files", &["pipeline", "plan"]),
        ("transport::dir", &["transport", "registry"]),
        ("pipeline", &["transport", "registry"]),
        ("bundle", &["transport", "registry"]),
        ("pipeline", &["bundle"]),
        ("verify", &["cli"]),
        ("newroom", &["oci"]),
    ] {
        assert!(complaint(&edge(from, to)).is_some(), "{from} → {to:?}");
    }
    for (from, to) in
        [("cli", &["transport", "registry"][..]), ("pipeline", &["content"]), ("verify", &["files", "Layout"])]
    {
        assert!(complaint(&edge(from, to)).is_none(), "{from} → {to:?}");
    }
    assert_eq!(named_rooms("use crate::{oci::Digest, base::error::Result};").len(), 2);
    assert_eq!(named_rooms("use crate::transport::registry::Registries;"), [["transport", "registry"]]);
}
