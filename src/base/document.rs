//! Reads and writes versioned JSON files: lock, receipt, list of missing files, repair file and so on.
//!
//! # Threats
//! Such a file may come from anyone, also across the gap. Two bytes of JSON can become a value that takes a hundred bytes in
//! memory, and a file of a later version may mean anything. The reader therefore checks the length, the number of values and
//! the version first, then counts the lists, and only then keeps anything of the file in memory.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::canonical;
use super::error::{Error, Fact, Kind, Result};
use crate::oci::{has_at_most_values, memory_of_json, values_in};

/// The size of a document's lists, read before anything else.
pub trait Outline: DeserializeOwned {
    /// Checks the sizes. `texts` is the size of the file without its lists, in bytes.
    ///
    /// # Errors
    /// Says why the document contains more than such a file can.
    fn check(&self, texts: u64) -> Result<(), String>;
}

/// For a document whose length and number of values are a sufficient bound.
#[derive(Deserialize)]
pub struct Unbounded {}

impl Outline for Unbounded {
    fn check(&self, _: u64) -> Result<(), String> {
        Ok(())
    }
}

/// A document of a version that this program cannot read. Nothing else of it was examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version {found}; this program reads version {known}")]
pub struct OtherVersion {
    /// The version; 0 for a file from before version numbers.
    pub found: u64,
    /// The version that this program reads.
    pub known: u32,
}

impl Fact for OtherVersion {}

/// A versioned JSON file.
pub trait Document: Serialize + DeserializeOwned {
    /// What messages call it, with an article: `the lock`.
    const NAME: &'static str;
    /// The key that holds the version number: `version`.
    const VERSION_KEY: &'static str;
    /// The version that is written, and the only one that is read.
    const VERSION: u32;
    /// Maximum size in bytes.
    const MAX_BYTES: u64;
    /// Maximum number of JSON values.
    const MAX_VALUES: usize;
    /// The kind of error for an invalid file: [`Kind::Input`] if a person chose the file, [`Kind::Damaged`] if it belongs to a
    /// bundle or a repair file.
    const KIND: Kind;
    /// What to do about a file that is too large; empty if nothing helps.
    const TOO_LARGE: &'static str = "";
    /// What to do about an earlier version; empty if there was none.
    const TOO_OLD: &'static str = "";

    type Outline: Outline;

    /// Reads a document. `shown` is the name of the file in errors.
    ///
    /// # Errors
    /// The bytes are not such a document, have another version (`Input`, with the fact [`OtherVersion`]), or exceed a limit.
    fn read(bytes: &[u8], shown: &str) -> Result<Self> {
        Self::read_checked(bytes, shown, Self::Outline::check)
    }

    /// Reads a document with a bound that the caller knows better.
    ///
    /// # Errors
    /// As for [`Document::read`]; `check` is as for [`Outline::check`].
    fn read_checked(
        bytes: &[u8],
        shown: &str,
        check: impl FnOnce(&Self::Outline, u64) -> Result<(), String>,
    ) -> Result<Self> {
        let fail = |why: String| Error::new(Self::KIND, format!("reading {} {shown}: {why}", Self::NAME));
        let malformed = |e: serde_json::Error| {
            let is = if e.is_data() {
                format!("it is JSON, but not a {}", Self::NAME.trim_start_matches("the "))
            } else {
                "it is not JSON".to_owned()
            };
            fail(is).because(e)
        };
        check_size::<Self>(bytes, Self::MAX_BYTES).map_err(fail)?;
        let version = version_of(bytes, Self::VERSION_KEY).map_err(malformed)?;
        if let Some(found) = version.filter(|found| *found != u64::from(Self::VERSION)) {
            let is_old = found < u64::from(Self::VERSION) && !Self::TOO_OLD.is_empty();
            let advice = if is_old { format!(": {}", Self::TOO_OLD) } else { String::new() };
            let other = OtherVersion { found, known: Self::VERSION };
            return Err(Error::input(format!("reading {} {shown}: {other}{advice}", Self::NAME)).with_fact(other));
        }
        let outline: Self::Outline = serde_json::from_slice(bytes).map_err(malformed)?;
        check(&outline, memory_of_json(bytes)).map_err(fail)?;
        drop(outline);
        serde_json::from_slice(bytes).map_err(malformed)
    }

    /// Serializes the document as indented JSON with a final newline. Equal documents have equal bytes.
    fn to_json(&self) -> String {
        let bytes = canonical::to_bytes(self).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    }

    /// Serializes the document and makes sure that [`Document::read`] would accept it.
    ///
    /// # Errors
    /// The file would be too large to be read again (`Input`).
    fn to_file(&self) -> Result<String> {
        self.to_file_within(Self::MAX_BYTES)
    }

    /// Serializes the document into at most `most` bytes.
    ///
    /// # Errors
    /// The file would be larger than `most`, or too large to be read again (`Input`).
    fn to_file_within(&self, most: u64) -> Result<String> {
        let text = self.to_json();
        let fail = |why: String| Error::input(format!("writing {}: {why}", Self::NAME));
        check_size::<Self>(text.as_bytes(), most).map_err(fail)?;
        let outline: Self::Outline = serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
        outline.check(memory_of_json(text.as_bytes())).map_err(fail)?;
        Ok(text)
    }
}

fn check_size<D: Document>(bytes: &[u8], most: u64) -> Result<(), String> {
    if bytes.len() as u64 <= most && has_at_most_values(bytes, D::MAX_VALUES) {
        return Ok(());
    }
    let more = if D::TOO_LARGE.is_empty() { String::new() } else { format!("; {}", D::TOO_LARGE) };
    let (bytes, values) = (bytes.len(), values_in(bytes));
    Err(format!(
        "it has {bytes} bytes and {values} values; {} has at most {most} bytes and {} values{more}",
        D::NAME,
        D::MAX_VALUES
    ))
}

/// A value that is kept only if it is a number; it might be a list of any size.
struct Number(Option<u64>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        struct Any;
        impl<'de> serde::de::Visitor<'de> for Any {
            type Value = Number;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("anything")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
                Ok(Number(Some(number)))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Number, E> {
                Ok(Number(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Number, E> {
                Ok(Number(None))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Number, E> {
                Ok(Number(None))
            }
            fn visit_str<E>(self, _: &str) -> Result<Number, E> {
                Ok(Number(None))
            }
            fn visit_unit<E>(self) -> Result<Number, E> {
                Ok(Number(None))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Number, A::Error> {
                while list.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Number(None))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Number, A::Error> {
                while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
                Ok(Number(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Reads the number under `key`. Returns `None` if the key is missing; the full read then reports that.
fn version_of(bytes: &[u8], key: &str) -> serde_json::Result<Option<u64>> {
    struct Version<'a>(&'a str);
    impl<'de> serde::de::DeserializeSeed<'de> for Version<'_> {
        type Value = Option<u64>;
        fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Option<u64>, D::Error> {
            deserializer.deserialize_map(self)
        }
    }
    impl<'de> serde::de::Visitor<'de> for Version<'_> {
        type Value = Option<u64>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Option<u64>, A::Error> {
            let mut found = None;
            while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                if key == self.0 {
                    found = map.next_value::<Number>()?.0;
                } else {
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }
    use serde::de::DeserializeSeed;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let found = Version(key).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Note {
        version: u32,
        lines: Vec<String>,
    }

    #[derive(Deserialize)]
    struct Lines {
        lines: crate::oci::Count,
    }

    impl Outline for Lines {
        fn check(&self, _: u64) -> Result<(), String> {
            (self.lines.number <= 3).then_some(()).ok_or_else(|| format!("{} lines are too many", self.lines.number))
        }
    }

    impl Document for Note {
        const NAME: &'static str = "the note";
        const VERSION_KEY: &'static str = "version";
        const VERSION: u32 = 2;
        const MAX_BYTES: u64 = 1_000;
        const MAX_VALUES: usize = 100;
        const KIND: Kind = Kind::Damaged;
        const TOO_LARGE: &'static str = "write two notes";
        const TOO_OLD: &'static str = "write it again";
        type Outline = Lines;
    }

    fn read(text: &str) -> Result<Note, (Kind, String)> {
        Note::read(text.as_bytes(), "n.json").map_err(|error| (error.kind(), error.chain()))
    }

    #[test]
    fn a_document_reads_back_as_written() {
        let note = Note { version: 2, lines: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!(read(&note.to_file().unwrap()), Ok(note));
        let long = Note { version: 2, lines: vec!["x".repeat(1_000)] };
        assert!(long.to_file().unwrap_err().chain().contains("write two notes"));
        let many = Note { version: 2, lines: vec![String::new(); 4] };
        assert!(many.to_file().unwrap_err().chain().contains("4 lines are too many"));
    }

    /// An operator with an older program must learn that, and not that the file is damaged.
    #[test]
    fn a_later_version_is_reported_even_if_the_rest_is_unknown() {
        let (kind, text) = read(r#"{"novel": [1, 2], "version": 3}"#).unwrap_err();
        assert_eq!(kind, Kind::Input);
        assert_eq!(text, "reading the note n.json: version 3; this program reads version 2");
        let error = Note::read(br#"{"version": 3}"#, "n.json").unwrap_err();
        assert_eq!(error.find(), Some(&OtherVersion { found: 3, known: 2 }));
    }

    #[test]
    fn a_version_that_is_not_a_number_is_malformed() {
        for version in ["null", "true", "-1", "1.5", r#""2""#, "[[], {}]", r#"{"a": [1]}"#] {
            let (kind, text) = read(&format!(r#"{{"version": {version}, "lines": []}}"#)).unwrap_err();
            assert_eq!(kind, Kind::Damaged, "{version}: {text}");
        }
    }

    #[test]
    fn an_earlier_version_is_refused_with_advice() {
        let (kind, text) = read(r#"{"version": 1}"#).unwrap_err();
        assert_eq!(kind, Kind::Input);
        assert_eq!(text, "reading the note n.json: version 1; this program reads version 2: write it again");
    }

    #[test]
    fn unknown_keys_are_named_and_too_much_is_refused_before_it_is_read() {
        assert!(read(r#"{"version": 2, "lines": [], "more": 1}"#).unwrap_err().1.contains("`more`"));
        assert!(read(r#"{"version": 2, "lines": ["a","b","c","d"]}"#).unwrap_err().1.contains("4 lines are too many"));
        assert!(
            read(&format!(r#"{{"version": 2, "lines": [{}]}}"#, "[],".repeat(60)))
                .unwrap_err()
                .1
                .contains("100 values")
        );
        for broken in ["", "[]", "{", r#"{"version": 2, "lines": []} x"#, r#"{"lines": []}"#] {
            assert_eq!(read(broken).unwrap_err().0, Kind::Damaged, "{broken}");
        }
    }
}
