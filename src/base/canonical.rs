//! Canonical JSON: the bytes follow from the values. See `docs/format.md`.

use std::io::{self, Write};

use serde::Serialize;

/// The bytes of a value: two spaces for each level, and a final newline.
///
/// # Errors
/// None that input can cause.
pub fn to_bytes(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(value, &mut bytes)?;
    bytes.shrink_to_fit();
    Ok(bytes)
}

/// How many bytes that are, without keeping them.
///
/// # Errors
/// None that input can cause.
pub fn length(value: &impl Serialize) -> serde_json::Result<u64> {
    let mut length = Length(0);
    write(value, &mut length)?;
    Ok(length.0)
}

fn write(value: &impl Serialize, out: &mut impl Write) -> serde_json::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n").map_err(serde_json::Error::io)
}

/// Where `bytes` differ from those of `value`; `None`: nowhere.
pub fn difference(bytes: &[u8], value: &impl Serialize) -> Option<usize> {
    let mut compare = Compare { expected: bytes, at: 0 };
    let is_same = write(value, &mut compare).is_ok() && compare.at == bytes.len();
    (!is_same).then_some(compare.at)
}

/// Takes exactly the bytes that it expects, and keeps none of them.
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

/// Counts bytes.
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
