//! Reads input that may have no end: a device, a pipe, a program that never stops.

use std::io::{self, Read};

/// Reads all of `input`. Returns `None` if it has more than `most` bytes; one more than `most` is then read.
///
/// # Errors
/// The input cannot be read.
pub fn read_all(input: impl Read, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = input.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((read as u64 <= most).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_maximum_size_is_read_and_a_longer_one_is_not() {
        assert_eq!(read_all(&b"four"[..], 4).unwrap().unwrap(), b"four");
        assert_eq!(read_all(&b"five!"[..], 4).unwrap(), None);
        assert_eq!(read_all(io::repeat(0), 1000).unwrap(), None);
        assert_eq!(read_all(&b""[..], 0).unwrap().unwrap(), b"");
    }
}
