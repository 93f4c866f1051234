//! Reads JSON objects so that every program reads the same.
//!
//! Go programs match keys in any case and take the last of several equal ones; serde accepts only the exact spelling. An
//! object with `layers` and `Layers` would be one image to one of them and another image to the other (compare
//! CVE-2021-41190). A known key in another spelling is therefore always rejected.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};

/// Reads `map` to its end. `field` receives the value of each key in `known`, by its index; the values of other keys are
/// skipped without copying.
///
/// # Errors
/// A known key occurs twice or in another case, or `field` failed.
pub fn read<'de, A: MapAccess<'de>>(
    mut map: A,
    known: &'static [&'static str],
    mut field: impl FnMut(usize, &mut A) -> Result<(), A::Error>,
) -> Result<(), A::Error> {
    let mut seen = vec![false; known.len()];
    while let Some(key) = map.next_key_seed(Key(known))? {
        match key.and_then(|at| Some((at, seen.get_mut(at)?, known.get(at)?))) {
            None => drop(map.next_value::<IgnoredAny>()?),
            Some((_, true, name)) => return Err(A::Error::custom(format!("the key {name:?} occurs twice"))),
            Some((at, seen, _)) => {
                *seen = true;
                field(at, &mut map)?;
            }
        }
    }
    Ok(())
}

/// A value that may be `null`, which means the same as no value.
///
/// # Errors
/// The value is neither `null` nor a `T`.
pub fn or_default<'de, T: Deserialize<'de> + Default, A: MapAccess<'de>>(map: &mut A) -> Result<T, A::Error> {
    Ok(map.next_value::<Option<T>>()?.unwrap_or_default())
}

/// The index of a known key.
///
struct Key(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        if let Some(at) = self.0.iter().position(|known| *known == key) {
            return Ok(Some(at));
        }
        match self.0.iter().find(|known| is_folded(key, known)) {
            Some(known) => Err(E::custom(format!(
                "the key {key:?} differs from {known:?} only in case: some programs treat them as equal, others do not"
            ))),
            None => Ok(None),
        }
    }
}

/// Whether Go matches `key` to `known` (encoding/json `foldName`: case, and the two letters beyond ASCII that fold into it).
fn is_folded(key: &str, known: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.len() <= 3 * known.len() && key.chars().map(fold).eq(known.chars().map(fold))
}
