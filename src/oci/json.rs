//! Bounds the memory that a JSON text can take when it is read.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// Whether a JSON text has at most `most` values, estimated from its punctuation, including that in strings.
///
/// Two bytes can become a value that takes a hundred bytes, so the length of a text says nothing about the memory it needs.
pub fn has_at_most_values(json: &[u8], most: usize) -> bool {
    marks(json).nth(most).is_none()
}

/// Upper bound for the number of values in a JSON text, estimated in the same way.
pub fn values_in(json: &[u8]) -> usize {
    marks(json).count()
}

fn marks(json: &[u8]) -> impl Iterator<Item = &u8> {
    json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{'))
}

/// Bytes of memory that a file may take while it is read, including its own length and its lists.
pub const MOST_MEMORY: u64 = 160 * 1024 * 1024;

/// Bytes that a JSON text takes without its lists: its length, plus each text in it that is too long for a digest or an
/// ordinary reference.
pub fn memory_of_json(json: &[u8]) -> u64 {
    // With its other fields, a list element with shorter texts is longer than their copies.
    const SHORT: usize = 160;
    let (mut copies, mut begin, mut at) = (0, None, 0);
    while let Some(byte) = json.get(at) {
        match (byte, begin) {
            (b'\\', Some(_)) => at += 1,
            (b'"', None) => begin = Some(at + 1),
            (b'"', Some(first)) => {
                copies += Some(at - first).filter(|length| *length > SHORT).unwrap_or_default();
                begin = None;
            }
            _ => {}
        }
        at += 1;
    }
    (json.len() + copies) as u64
}

/// Whether a file takes at most [`MOST_MEMORY`]: `texts` are its bytes without its lists, `lists` those of all its lists.
pub fn fits_in_memory(texts: u64, lists: &[u64]) -> bool {
    lists.iter().fold(texts, |all, list| all.saturating_add(*list)) <= MOST_MEMORY
}

/// The length of a list and the sum of its elements, of which nothing else is read. A file that claims too much is rejected
/// before anything of it is in memory.
pub struct Totals<T> {
    pub number: usize,
    pub amount: u64,
    elements: PhantomData<T>,
}

/// The length of a list.
pub type Count = Totals<IgnoredAny>;

/// An element of a list that is only counted.
pub trait Amount {
    fn amount(&self) -> u64;
}

impl Amount for IgnoredAny {
    fn amount(&self) -> u64 {
        0
    }
}

impl<T> Default for Totals<T> {
    fn default() -> Totals<T> {
        Totals { number: 0, amount: 0, elements: PhantomData }
    }
}

impl<T> Totals<T> {
    /// Bytes of a list of this many `E`, without its texts, plus the sum of its elements.
    pub fn memory<E>(&self) -> u64 {
        (self.number as u64).saturating_mul(size_of::<E>() as u64).saturating_add(self.amount)
    }
}

impl<'de, T: Amount + Deserialize<'de>> Deserialize<'de> for Totals<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Totals<T>, D::Error> {
        struct Counted<T>(PhantomData<T>);
        impl<'de, T: Amount + Deserialize<'de>> Visitor<'de> for Counted<T> {
            type Value = Totals<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Totals<T>, A::Error> {
                let mut totals = Totals::default();
                while let Some(element) = list.next_element::<T>()? {
                    totals.number += 1;
                    totals.amount = totals.amount.saturating_add(element.amount());
                }
                Ok(totals)
            }
        }
        deserializer.deserialize_seq(Counted(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_of_many_values_is_distinguished_from_a_long_one_of_few() {
        let many = format!("[{}0]", "0,".repeat(1_000));
        assert!(!has_at_most_values(many.as_bytes(), 1_000));
        assert!(has_at_most_values(many.as_bytes(), 1_001));
        assert!(has_at_most_values(format!("{:?}", "x".repeat(100_000)).as_bytes(), 0));
        assert!(!has_at_most_values("[".repeat(9).as_bytes(), 8));
    }

    #[test]
    fn long_texts_are_counted_twice_and_short_ones_once() {
        let memory = |texts: &[&str]| {
            let json = serde_json::to_string(texts).unwrap();
            memory_of_json(json.as_bytes()) - json.len() as u64
        };
        assert_eq!(memory(&[&"x".repeat(160), "a\"b", "\\"]), 0);
        assert_eq!(memory(&["\\\"", &"x".repeat(1_000), "\"", &"y".repeat(500)]), 1_500);
        assert_eq!(memory_of_json(b"\"\\"), 2);
    }

    proptest::proptest! {
        #[test]
        fn no_text_has_more_values_than_are_counted(numbers: Vec<u8>, deep in 0..20_usize) {
            let text = format!("{}{numbers:?}{}", "[".repeat(deep), "]".repeat(deep));
            proptest::prop_assert!(has_at_most_values(text.as_bytes(), deep + 1 + numbers.len()));
            proptest::prop_assert!(!has_at_most_values(text.as_bytes(), (deep + numbers.len()).saturating_sub(1)));
        }
    }
}
