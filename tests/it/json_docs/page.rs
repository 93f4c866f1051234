//! The part of `docs/json.md` generated from the types.

use std::collections::{BTreeMap, BTreeSet};

use super::types::{Alternative, Declared, Field, Printed, Shape, Sources, Word};

/// The reports of each command, by what a user types. Every report is listed.
const COMMANDS: &[(&str, &[&str])] = &[
    ("auth check", &["AuthReport"]),
    ("check", &["CheckReport"]),
    ("convert", &["ConvertReport"]),
    ("export", &["ExportReport"]),
    ("export --repair", &["ExportedRepair"]),
    ("fingerprint", &["FingerprintReport"]),
    ("import", &["ImportReport"]),
    ("inspect", &["InspectReport"]),
    ("inventory", &["InventoryReport"]),
    ("join", &["ConvertReport"]),
    ("list", &["ListReport"]),
    ("lock", &["LockReport"]),
    ("login", &["LoginReport"]),
    ("logout", &["LogoutReport"]),
    ("migrate", &["MigrateReport"]),
    ("prove", &["ProveReport"]),
    ("repair", &["RepairReport"]),
    ("serve", &["ServeReport"]),
    ("sign", &["SignReport"]),
    ("split", &["ConvertReport"]),
    ("verify", &["VerifyReport"]),
];
/// Printed by any command, or part of another report.
const OTHERS: &[&str] = &["ErrorReport", "PushReport"];

/// Types that are not objects, described in words.
const LEAVES: &[(&str, &str)] = &[
    ("String", "string"),
    ("SocketAddr", "string"),
    ("str", "string"),
    ("PathBuf", "path"),
    ("bool", "boolean"),
    ("u16", "number"),
    ("u32", "number"),
    ("u64", "number"),
    ("usize", "number"),
    ("i64", "number"),
    ("Digest", "digest"),
    ("Timestamp", "time"),
    ("Reference", "reference"),
    ("Repository", "repository"),
    ("Platform", "platform"),
    ("Tag", "tag"),
    ("MediaType", "media type"),
    ("Value", "JSON"),
];

/// Serializer functions, with the JSON they produce.
const WITH: &[(&str, &str)] = &[
    ("as_path", "path"),
    ("as_optional_path", "path"),
    ("as_paths", "list of path"),
    ("as_seconds", "number of seconds"),
    ("seconds", "number of seconds"),
    ("as_object", "object of repositories by image"),
    ("as_fingerprint", "digest"),
    ("names", "list of strings"),
    ("shared", "list of strings"),
    ("shown", "path"),
    ("text", "string"),
];

/// Serializer functions that turn a field into another type.
const WITH_TYPE: &[(&str, &str)] = &[("as_detail", "ErrorDetail"), ("as_one_detail", "ErrorDetail")];

/// Fields with one meaning wherever they have no description of their own.
const COMMON: &[(&str, &str)] = &[
    ("version", "`1`."),
    ("ok", "Whether everything that was asked for is done and right."),
    ("identity", "The identity of the bundle: the digest of its `bundle.json`."),
    ("digest", "The digest of the manifest or blob."),
    ("reference", "The name of the image."),
    ("images", "The images."),
    ("volumes", "The volumes."),
    ("problems", "The problems that were found."),
    ("state", "The outcome."),
    ("outcome", "The outcome."),
    ("kind", "The kind."),
    ("tag", "The tag."),
    ("platforms", "The platforms of the image."),
    ("path", "The path."),
    ("missing", "Images that were asked for and could not be exported."),
    ("error", "Why something failed after the result was complete."),
    ("mediaType", "The media type of the manifest or blob."),
    ("artifactType", "The artifact type, if the manifest has one."),
    ("subject", "The manifest that the companion refers to."),
    ("size", "Size in bytes."),
    ("bytes", "Size in bytes."),
    ("companions", "Companions of the image: signatures, attestations, SBOMs and others."),
    ("imageCount", "Number of images."),
    ("blobs", "Number of blobs."),
];

/// Renders every type reachable from the reports.
pub struct Page<'s> {
    sources: &'s Sources,
    /// Types still to be rendered, each with the file that names it.
    open: BTreeMap<String, String>,
    /// Rendered types, each with its own file.
    done: BTreeMap<String, String>,
    complaints: Vec<String>,
}

impl<'s> Page<'s> {
    pub fn new(sources: &'s Sources) -> Page<'s> {
        Page { sources, open: BTreeMap::new(), done: BTreeMap::new(), complaints: Vec::new() }
    }

    /// The text, or everything that is missing for it.
    pub fn render(mut self) -> Result<String, Vec<String>> {
        let mut text = "\n## Commands\n\n| command | prints |\n|---|---|\n".to_owned();
        for (command, types) in COMMANDS {
            let links: Vec<String> = types.iter().map(|name| link(name)).collect();
            text.push_str(&format!("| `{command}` | {} |\n", links.join(", ")));
        }
        text.push_str(&format!("| any of them that fails | {} |\n\n## Types\n", link("ErrorReport")));
        self.check_reports();
        let mut sections = BTreeMap::new();
        while let Some((name, from)) = self.open.pop_first() {
            let file = self.sources.get(&name, &from).map(|declared| declared.file.clone()).unwrap_or_default();
            match self.done.get(&name) {
                Some(known) if *known == file => {}
                Some(known) => self.complaints.push(format!("{known} and {file} both have a {name} that is printed")),
                None => {
                    self.done.insert(name.clone(), file);
                    let section = self.section(&name, &from);
                    sections.insert(name, section);
                }
            }
        }
        text.extend(sections.into_values());
        if self.complaints.is_empty() { Ok(text) } else { Err(self.complaints) }
    }

    /// Checks that every report belongs to a command and has its version and `ok`.
    fn check_reports(&mut self) {
        let known: BTreeSet<&str> = COMMANDS.iter().flat_map(|(_, types)| *types).chain(OTHERS).copied().collect();
        for (report, file) in &self.sources.reports {
            if !known.contains(report.as_str()) {
                self.complaints.push(format!("{file}: {report} is of no command in this test's table"));
            }
            for alternative in self.alternatives(report, file) {
                let names = self.names(&alternative, file);
                for field in ["version", "ok"] {
                    if !names.iter().any(|name| name == field) {
                        self.complaints.push(format!("{file}: {alternative} has no field {field:?}"));
                    }
                }
            }
            self.open.insert(report.clone(), file.clone());
        }
    }

    /// The types an untagged enum can be, including nested ones.
    fn alternatives(&self, name: &str, from: &str) -> Vec<String> {
        match self.sources.get(name, from).map(|declared| (&declared.shape, &declared.file)) {
            Some((Shape::OneOf(all), file)) => {
                let types = all.iter().filter_map(|one| match one {
                    Alternative::Type(name) => Some(name),
                    Alternative::Fields { .. } => None,
                });
                types.flat_map(|one| self.alternatives(one, file)).collect()
            }
            // A struct with a single flattened field is any of that field's alternatives.
            Some((Shape::Fields(fields), file)) => match fields.iter().find(|field| field.is_flat) {
                Some(field) if fields.len() == 1 => self.alternatives(&named(&field.type_), file),
                _ => vec![name.to_owned()],
            },
            _ => vec![name.to_owned()],
        }
    }

    /// The fields of a type, including those of its flattened fields.
    fn names(&self, name: &str, from: &str) -> Vec<String> {
        let Some(declared) = self.sources.get(name, from) else { return Vec::new() };
        let Shape::Fields(fields) = &declared.shape else { return Vec::new() };
        let of = |field: &Field| match field.is_flat {
            true => self.names(&named(&field.type_), &declared.file),
            false => vec![field.name.clone()],
        };
        fields.iter().flat_map(of).collect()
    }

    fn section(&mut self, name: &str, from: &str) -> String {
        let Some(declared) = self.sources.get(name, from) else {
            self.complaints.push(format!("{from}: {name} is neither a type that is printed nor in this test's tables"));
            return String::new();
        };
        if declared.doc.is_empty() {
            self.complaints.push(format!("{}: {name} has no description", declared.file));
        }
        let text = format!("\n### {name}\n\n{}\n\n", sentence(&declared.doc, ""));
        text + &match &declared.shape {
            Shape::Fields(fields) => self.table(fields, declared),
            Shape::Words(words) => self.words(words, declared, name),
            Shape::OneOf(all) => "One of these.\n".to_owned() + &self.one_of(all, declared),
            Shape::Tagged { tag, words } => {
                format!("`{tag}` is one of these.\n\n") + &self.words(words, declared, name)
            }
        }
    }

    fn one_of(&mut self, all: &[Alternative], of: &Declared) -> String {
        let one = |one: &Alternative| match one {
            Alternative::Type(name) => {
                self.open.insert(name.clone(), of.file.clone());
                format!("\n- {}\n", link(name))
            }
            Alternative::Fields { doc, fields } => format!("\n- {}\n\n{}", sentence(doc, ""), self.table(fields, of)),
        };
        all.iter().map(one).collect()
    }

    fn table(&mut self, fields: &[Field], of: &Declared) -> String {
        let rows: String = fields.iter().map(|field| self.row(field, of, false)).collect();
        format!("| field | type | meaning |\n|---|---|---|\n{rows}")
    }

    /// `may_be_absent`: whether the enclosing object may be absent.
    fn row(&mut self, field: &Field, of: &Declared, may_be_absent: bool) -> String {
        if field.is_flat {
            return self.flat(field, of);
        }
        let absent = if field.may_be_absent || may_be_absent { ", may be absent" } else { "" };
        let inner = match &field.type_ {
            Printed::Nullable(inner) if field.may_be_absent => inner,
            other => other,
        };
        let type_ = self.type_of(inner, of);
        let common = COMMON.iter().find(|(name, _)| *name == field.name).map(|(_, meaning)| *meaning);
        let none = if field.may_be_absent { "absent" } else { "`null`" };
        let meaning = match (field.doc.is_empty(), common) {
            (false, _) => sentence(&field.doc, none),
            (true, Some(meaning)) => meaning.to_owned(),
            (true, None) => {
                self.complaints.push(format!("{}: the field {:?} has no description", of.file, field.name));
                String::new()
            }
        };
        format!("| `{}` | {type_}{absent} | {meaning} |\n", field.name)
    }

    /// Lists the fields of a flattened type among the others.
    fn flat(&mut self, field: &Field, of: &Declared) -> String {
        let is_optional = matches!(field.type_, Printed::Nullable(_));
        let name = named(&field.type_);
        let is_manual = super::MANUAL.iter().any(|(manual, _)| *manual == name);
        let Some(inner) = self.sources.get(&name, &of.file).filter(|_| !is_manual) else {
            return format!("| | {} | Its fields stand here. |\n", self.type_of(&Printed::Named(name), of));
        };
        match &inner.shape {
            Shape::Fields(fields) => fields.iter().map(|field| self.row(field, inner, is_optional)).collect(),
            _ => format!("| | {} | Its fields stand here. |\n", self.type_of(&Printed::Named(name), of)),
        }
    }

    fn words(&mut self, words: &[Word], of: &Declared, name: &str) -> String {
        let mut text = "| value | meaning |\n|---|---|\n".to_owned();
        for Word { word, doc, fields } in words {
            let mut meaning = if doc.is_empty() { plain(word) } else { sentence(doc, "absent") };
            if doc.is_empty() && super::CODES.contains(&name) {
                self.complaints.push(format!("{}: {name} `{word}` has no description", of.file));
            }
            for field in fields {
                let type_ = self.type_of(&field.type_, of);
                let about =
                    if field.doc.is_empty() { String::new() } else { format!(": {}", sentence(&field.doc, "absent")) };
                meaning.push_str(&format!(
                    " With `{}` ({type_}){}",
                    field.name,
                    if about.is_empty() { "." } else { &about }
                ));
            }
            text.push_str(&format!("| `{word}` | {meaning} |\n"));
        }
        text
    }

    fn type_of(&mut self, printed: &Printed, of: &Declared) -> String {
        match printed {
            Printed::Nullable(inner) => format!("{} or `null`", self.type_of(inner, of)),
            Printed::List(inner) => format!("list of {}", self.type_of(inner, of)),
            Printed::Object { of: inner, by } => {
                format!("object of {} by {}", self.type_of(inner, of), self.type_of(by, of))
            }
            Printed::With(function) => {
                let known = |table: &[(&str, &'static str)]| {
                    table.iter().find(|(name, _)| name == function).map(|(_, meaning)| *meaning)
                };
                match (known(WITH), known(WITH_TYPE)) {
                    (Some(meaning), _) => meaning.to_owned(),
                    (None, Some(name)) => self.type_of(&Printed::Named(name.to_owned()), of),
                    (None, None) => {
                        self.complaints.push(format!("{}: {function} makes what this test does not know", of.file));
                        String::new()
                    }
                }
            }
            Printed::Named(name) => {
                let leaf = LEAVES.iter().chain(super::MANUAL).find(|(leaf, _)| leaf == name);
                match leaf {
                    Some((_, meaning)) => (*meaning).to_owned(),
                    None => {
                        self.open.entry(name.clone()).or_insert_with(|| of.file.clone());
                        link(name)
                    }
                }
            }
        }
    }
}

/// The commands of the table, without their options.
pub fn commands() -> BTreeSet<String> {
    let words = |command: &str| command.split(" --").next().unwrap_or_default().to_owned();
    COMMANDS.iter().map(|(command, _)| words(command)).collect()
}

fn named(printed: &Printed) -> String {
    match printed {
        Printed::Named(name) => name.clone(),
        Printed::Nullable(inner) => named(inner),
        other => panic!("{other:?} has no fields"),
    }
}

fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}

fn plain(word: &str) -> String {
    let text = word.replace('-', " ");
    text[..1].to_uppercase() + &text[1..] + "."
}

/// Rewrites a Rust comment for readers of JSON. `none` replaces `None`.
fn sentence(doc: &str, none: &str) -> String {
    let text = doc.replace("[`", "`").replace("`]", "`").replace("::", ".").replace("`None`", none).replace('|', "\\|");
    let text = text.replace(". absent", ". Absent");
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    first + letters.as_str()
}
