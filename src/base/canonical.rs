//! Canonical JSON: equal values have equal bytes. See `docs/format.md`.

use std::io::{self, Write};

use serde::Serialize;

/// Maximum number of characters of a line to show.
const SHOWN: usize = 80;

/// Serializes a value with an indent of two spaces and a final newline.
///
/// # Errors
/// No input can cause one.
pub fn to_bytes(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(value, &mut bytes)?;
    bytes.shrink_to_fit();
    Ok(bytes)
}

/// The length of the serialized value in bytes.
///
/// # Errors
/// No input can cause one.
pub fn length(value: &impl Serialize) -> serde_json::Result<u64> {
    let mut length = Length(0);
    write(value, &mut length)?;
    Ok(length.0)
}

fn write(value: &impl Serialize, out: &mut impl Write) -> serde_json::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n").map_err(serde_json::Error::io)
}

/// Whether `bytes` are the value without white space and without a final newline.
pub fn is_compact(bytes: &[u8], value: &impl Serialize) -> bool {
    let mut compare = Compare { expected: bytes, at: 0 };
    serde_json::to_writer(&mut compare, value).is_ok() && compare.at == bytes.len()
}

/// Finds the first line of `bytes` that differs from the serialized value. Returns its number, from 1, and its beginning;
/// `None` if they are equal.
pub fn first_difference(bytes: &[u8], value: &impl Serialize) -> Option<(usize, String)> {
    let mut compare = Compare { expected: bytes, at: 0 };
    if write(value, &mut compare).is_ok() && compare.at == bytes.len() {
        return None;
    }
    // A superfluous comma belongs to what follows.
    let ends_line = bytes.get(compare.at..).is_some_and(|rest| rest.starts_with(b",\n"));
    let (before, rest) = bytes.split_at_checked(if ends_line { compare.at + 2 } else { compare.at })?;
    let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let end = rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| before.len() + at);
    let line = String::from_utf8_lossy(bytes.get(begin..end).unwrap_or_default()).trim().chars().take(SHOWN).collect();
    Some((before.iter().filter(|byte| **byte == b'\n').count() + 1, line))
}

/// A writer that compares what it is given with the expected bytes and keeps nothing.
struct Compare<'a> {
    expected: &'a [u8],
    at: usize,
}

impl Write for Compare<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let rest = self.expected.get(self.at..).unwrap_or_default();
        let same = bytes.iter().zip(rest).take_while(|(one, other)| one == other).count();
        self.at += same;
        if same == bytes.len() { Ok(same) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that counts bytes.
struct Length(u64);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
