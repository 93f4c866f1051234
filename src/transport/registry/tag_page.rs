//! One page of a list of tags, as registries send it: `{"name":…,"tags":[…]}`.
//!
//! **Threats.** A page of 64 MiB can contain millions of entries of a few bytes each. Entries are counted while they
//! are parsed, and entries that are not strings are dropped immediately.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Maximum number of tags in one repository. Each takes up to 128 bytes plus the overhead of its container.
pub(super) const MOST_TAGS: usize = 250_000;

/// An empty list, as described by [`TagEntry::Other`].
const EMPTY: &str = "an empty list";

#[derive(Debug, Default)]
pub(super) struct Page {
    /// Empty for `null`, which some registries send for a repository without tags. At most [`MOST_TAGS`] + 1.
    pub entries: Vec<TagEntry>,
    /// Whether the page contains errors next to the list. Entries may be missing because of them.
    pub has_errors: bool,
}

/// An entry of the list; most are tags.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TagEntry {
    Text(String),
    /// A value that is not a string, described in words.
    Other(&'static str),
}

impl<'de> Deserialize<'de> for Page {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Page, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Page;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a list of tags")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page, A::Error> {
                let (mut tags, mut has_name, mut errors) = (None, false, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "tags" if tags.is_some() => return Err(A::Error::duplicate_field("tags")),
                        "tags" => {
                            tags = Some(map.next_value::<Option<Entries>>()?.map_or_else(Vec::new, |list| list.0))
                        }
                        "errors" => errors = map.next_value::<Option<TagEntry>>()?.or(errors),
                        other => {
                            has_name |= other == "name";
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                // An empty list may be left out, but only by something that otherwise looks like a list of tags.
                let is_list = tags.is_some() || has_name;
                let entries: Vec<TagEntry> = tags.unwrap_or_default();
                let has_errors = errors.as_ref().is_some_and(|errors| *errors != TagEntry::Other(EMPTY));
                match is_list && !(errors.is_some() && entries.is_empty()) {
                    true => Ok(Page { entries, has_errors }),
                    false => Err(A::Error::missing_field("tags")),
                }
            }
        }
        deserializer.deserialize_map(Object)
    }
}

struct Entries(Vec<TagEntry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tags")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while entries.len() <= MOST_TAGS
                    && let Some(entry) = list.next_element()?
                {
                    entries.push(entry);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl<'de> Deserialize<'de> for TagEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TagEntry, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = TagEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tag")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TagEntry, E> {
                Ok(TagEntry::Text(text.to_owned()))
            }

            fn visit_unit<E: Error>(self) -> Result<TagEntry, E> {
                Ok(TagEntry::Other("null"))
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<TagEntry, E> {
                Ok(TagEntry::Other("a boolean"))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<TagEntry, E> {
                Ok(TagEntry::Other("a number"))
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<TagEntry, E> {
                Ok(TagEntry::Other("a number"))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<TagEntry, E> {
                Ok(TagEntry::Other("a number"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TagEntry, A::Error> {
                let mut kind = EMPTY;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    kind = "a list";
                }
                Ok(TagEntry::Other(kind))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TagEntry, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(TagEntry::Other("an object"))
            }
        }
        deserializer.deserialize_any(One)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(json: &str) -> Option<Vec<TagEntry>> {
        serde_json::from_str::<Page>(json).ok().map(|page| page.entries)
    }

    #[test]
    fn what_is_no_tag_is_kept_apart_and_does_not_cost_the_others() {
        let text = |text: &str| TagEntry::Text(text.to_owned());
        let mixed = r#"{"name":"a","tags":["1",null,2,-1,0.5,true,["x"],{"a":{}},"2"],"more":[1]}"#;
        let others = ["null", "a number", "a number", "a number", "a boolean", "a list", "an object"];
        let expected = [text("1")].into_iter().chain(others.map(TagEntry::Other)).chain([text("2")]);
        assert_eq!(entries(mixed), Some(expected.collect()));
        for empty in [r#"{"tags":null}"#, r#"{"tags":[]}"#, r#"{"name":"a"}"#] {
            assert_eq!(entries(empty), Some(vec![]), "{empty}");
        }
    }

    /// A gateway that could not read everything leaves entries out.
    #[test]
    fn errors_beside_a_list_are_seen() {
        for (errors, has) in [(r#"[{"code":"UNKNOWN"}]"#, true), (r#"{"a":1}"#, true), ("[]", false), ("null", false)] {
            let page: Page = serde_json::from_str(&format!(r#"{{"tags":["1"],"errors":{errors}}}"#)).unwrap();
            assert_eq!((page.entries.len(), page.has_errors), (1, has), "{errors}");
        }
    }

    #[test]
    fn an_answer_that_is_no_list_is_not_taken_for_an_empty_one() {
        for other in [
            "{}",
            r#"{"errors":[]}"#,
            r#"{"name":"a","errors":[{"code":"UNKNOWN"}]}"#,
            r#"{"errors":[{}],"name":"a","tags":null}"#,
            "[]",
            "null",
            r#"{"tags":"1"}"#,
            r#"{"tags":[],"tags":["1"]}"#,
        ] {
            assert_eq!(entries(other), None, "{other}");
        }
    }
}
