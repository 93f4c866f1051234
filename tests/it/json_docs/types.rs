//! Reads the types printed as JSON from the sources.

use std::collections::BTreeMap;
use std::path::Path;

use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Token, Type};

/// A struct or an enum that derives `Serialize`.
pub struct Declared {
    pub file: String,
    pub doc: String,
    pub shape: Shape,
}

pub enum Shape {
    Fields(Vec<Field>),
    /// String values with their meanings.
    Words(Vec<Word>),
    OneOf(Vec<Alternative>),
    /// The field `tag` names the variant.
    Tagged {
        tag: String,
        words: Vec<Word>,
    },
}

pub enum Alternative {
    /// A type, by its Rust name.
    Type(String),
    Fields {
        doc: String,
        fields: Vec<Field>,
    },
}

pub struct Word {
    pub word: String,
    pub doc: String,
    /// The fields beside the tag.
    pub fields: Vec<Field>,
}

pub struct Field {
    /// The name in JSON.
    pub name: String,
    pub doc: String,
    pub type_: Printed,
    /// The field may be absent.
    pub may_be_absent: bool,
    /// The field is flattened: its own fields replace it.
    pub is_flat: bool,
}

/// A Rust type, reduced to what matters in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Printed {
    /// A type, by its Rust name.
    Named(String),
    Nullable(Box<Printed>),
    List(Box<Printed>),
    Object {
        of: Box<Printed>,
        by: Box<Printed>,
    },
    /// The result of a serializer function.
    With(String),
}

/// All declared types, and the types that implement `JsonReport`, each with its file.
pub struct Sources {
    pub types: BTreeMap<String, Vec<Declared>>,
    pub reports: Vec<(String, String)>,
}

pub fn read() -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Sources { types: BTreeMap::new(), reports: Vec::new() };
    for entry in walkdir::WalkDir::new(&root).sort_by_file_name() {
        let entry = entry.expect("walking src");
        if entry.path().extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let file = entry.path().strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(entry.path()).expect("reading a source file");
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        parsed.items.iter().for_each(|item| sources.add(item, &file));
    }
    sources
}

impl Sources {
    fn add(&mut self, item: &Item, file: &str) {
        let (name, attributes, shape) = match item {
            Item::Struct(item) if serializes(&item.attrs) => {
                (&item.ident, &item.attrs, Shape::Fields(fields(&item.fields, &item.attrs)))
            }
            Item::Enum(item) if serializes(&item.attrs) => (&item.ident, &item.attrs, shape_of(item)),
            Item::Impl(item) => {
                let of = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
                if of.is_some_and(|of| of.ident == "JsonReport") {
                    let Printed::Named(name) = printed(&item.self_ty) else {
                        panic!("{file}: a report without a name")
                    };
                    self.reports.push((name, file.to_owned()));
                }
                return;
            }
            _ => return,
        };
        let declared = Declared { file: file.to_owned(), doc: doc(attributes), shape };
        self.types.entry(name.to_string()).or_default().push(declared);
    }

    /// The type of that name; among several, the one in the same room as `from`.
    pub fn get(&self, name: &str, from: &str) -> Option<&Declared> {
        let room = |file: &str| file.split(['/', '.']).next().unwrap_or_default().to_owned();
        let all = self.types.get(name)?;
        match &all[..] {
            [only] => Some(only),
            several => Some(
                several
                    .iter()
                    .find(|one| room(&one.file) == room(from))
                    .unwrap_or_else(|| panic!("{from} refers to one of several types called {name}")),
            ),
        }
    }
}

fn shape_of(item: &syn::ItemEnum) -> Shape {
    let serde = serde_of(&item.attrs);
    if serde.contains_key("untagged") {
        let inner = item.variants.iter().map(|variant| match &variant.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => match printed(&fields.unnamed[0].ty) {
                Printed::Named(name) => Alternative::Type(name),
                other => panic!("{}::{}: {other:?}", item.ident, variant.ident),
            },
            own => Alternative::Fields { doc: doc(&variant.attrs), fields: self::fields(own, &variant.attrs) },
        });
        return Shape::OneOf(inner.collect());
    }
    let words = item.variants.iter().map(|variant| {
        let own = serde_of(&variant.attrs);
        let renamed = own.get("rename").cloned().flatten();
        let rule = serde.get("rename_all").cloned().flatten();
        let word = renamed.unwrap_or_else(|| rename(&variant.ident.to_string(), rule.as_deref(), true));
        Word { word, doc: doc(&variant.attrs), fields: fields(&variant.fields, &variant.attrs) }
    });
    let words = words.collect();
    match serde.get("tag").cloned().flatten() {
        Some(tag) => Shape::Tagged { tag, words },
        None => Shape::Words(words),
    }
}

/// The fields that are printed.
fn fields(fields: &Fields, of: &[Attribute]) -> Vec<Field> {
    let rule = serde_of(of).get("rename_all").cloned().flatten();
    let Fields::Named(fields) = fields else { return Vec::new() };
    let field = |field: &syn::Field| {
        let serde = serde_of(&field.attrs);
        let value = |key: &str| serde.get(key).cloned().flatten();
        if serde.contains_key("skip") || serde.contains_key("skip_serializing") {
            return None;
        }
        let name = field.ident.as_ref().expect("a name").to_string();
        let type_ = printed(&field.ty);
        Some(Field {
            name: value("rename").unwrap_or_else(|| rename(&name, rule.as_deref(), false)),
            doc: doc(&field.attrs),
            type_: match (value("serialize_with").or(value("with")), type_) {
                (Some(function), Printed::Nullable(_)) => Printed::Nullable(Box::new(Printed::With(function))),
                (Some(function), _) => Printed::With(function),
                (None, type_) => type_,
            },
            may_be_absent: serde.contains_key("skip_serializing_if"),
            is_flat: serde.contains_key("flatten"),
        })
    };
    fields.named.iter().filter_map(field).collect()
}

fn printed(type_: &Type) -> Printed {
    match type_ {
        Type::Reference(reference) => printed(&reference.elem),
        Type::Array(array) => Printed::List(Box::new(printed(&array.elem))),
        Type::Slice(slice) => Printed::List(Box::new(printed(&slice.elem))),
        Type::Path(path) => {
            let last = path.path.segments.last().expect("a name");
            let mut inner: Vec<Box<Printed>> = match &last.arguments {
                PathArguments::AngleBracketed(arguments) => arguments
                    .args
                    .iter()
                    .filter_map(|one| match one {
                        GenericArgument::Type(type_) => Some(Box::new(printed(type_))),
                        _ => None,
                    })
                    .collect(),
                _ => Vec::new(),
            };
            match (last.ident.to_string().as_str(), inner.len()) {
                ("Option", 1) => Printed::Nullable(inner.remove(0)),
                ("Vec" | "BTreeSet" | "HashSet", 1) => Printed::List(inner.remove(0)),
                ("Box" | "Arc" | "Cow", 1) => *inner.remove(0),
                ("BTreeMap" | "HashMap", 2) => {
                    let by = inner.remove(0);
                    Printed::Object { by, of: inner.remove(0) }
                }
                (name, _) => Printed::Named(name.to_owned()),
            }
        }
        _ => panic!("a type that this test does not know"),
    }
}

fn serializes(attributes: &[Attribute]) -> bool {
    let derives = attributes.iter().filter(|attribute| attribute.path().is_ident("derive"));
    let mut traits = derives.flat_map(|derive| {
        let paths = derive.parse_args_with(Punctuated::<syn::Path, Token![,]>::parse_terminated);
        paths.expect("a list of traits")
    });
    traits.any(|path| path.segments.last().is_some_and(|last| last.ident == "Serialize"))
}

/// The contents of `#[serde(…)]` by key.
fn serde_of(attributes: &[Attribute]) -> BTreeMap<String, Option<String>> {
    let mut message = BTreeMap::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        let all = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).expect("serde's words");
        for meta in all {
            let name = meta.path().get_ident().expect("a word").to_string();
            let value = match &meta {
                Meta::NameValue(pair) => text_of(&pair.value),
                _ => None,
            };
            message.insert(name, value);
        }
    }
    message
}

fn text_of(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

/// The first paragraph.
fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let lines = lines.filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) => text_of(&pair.value),
        _ => None,
    });
    let lines: Vec<String> = lines.map(|line| line.trim().to_owned()).take_while(|line| !line.is_empty()).collect();
    lines.join(" ")
}

/// Renames like serde. `is_variant`: the name is written `LikeThis`, otherwise `like_this`.
fn rename(name: &str, rule: Option<&str>, is_variant: bool) -> String {
    let snake = if is_variant { snake_of(name) } else { name.to_owned() };
    match rule {
        None => name.to_owned(),
        Some("lowercase") => name.to_lowercase(),
        Some("kebab-case") => snake.replace('_', "-"),
        Some("camelCase") => {
            let mut words = snake.split('_');
            let first = words.next().unwrap_or_default().to_owned();
            words.fold(first, |all, word| all + &word[..1].to_uppercase() + &word[1..])
        }
        Some(other) => panic!("{other} is a rule unknown to this test"),
    }
}

fn snake_of(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}
