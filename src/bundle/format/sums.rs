//! Sums in the format of `sha256sum` and `sha512sum`: one line per file, `<hex>  <path>`.
//!
//! # Threats
//! A file of sums may be forged and of any length; readers bound it ([`MAX_SUMS`], [`MAX_LINES`]).

use std::borrow::Borrow;
use std::fmt::Write as _;

use super::{BUNDLE_JSON, FileEntry};
use crate::oci::{Algorithm, Digest};

/// Maximum size in bytes: far more than the largest number of files takes.
pub const MAX_SUMS: u64 = 80 * 1024 * 1024;
/// Maximum number of lines, because short ones take more memory than space.
pub const MAX_LINES: usize = 1_100_000;
/// Bytes of a line with a sha256, without the path.
pub const LINE: u64 = 64 + 2 + 1;

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub path: &'a str,
    pub digest: Digest,
}

/// Appends a line to `text`.
pub fn write_line(text: &mut String, digest: &Digest, path: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}  {path}", digest.hex());
}

/// Writes all lines.
pub fn write<'a>(lines: impl IntoIterator<Item = (&'a str, Digest)>) -> String {
    let mut text = String::new();
    for (path, digest) in lines {
        write_line(&mut text, &digest, path);
    }
    text.shrink_to_fit();
    text
}

/// `SHA256SUMS`: `bundle.json`, whose digest is the `identity`, then every declared file with a sha256.
pub fn sha256sums<F: Borrow<FileEntry>>(identity: Digest, files: impl IntoIterator<Item = F>) -> String {
    let mut text = String::new();
    write_line(&mut text, &identity, BUNDLE_JSON);
    for file in files {
        let FileEntry { path, digest, .. } = file.borrow();
        if digest.algorithm() == Algorithm::Sha256 {
            write_line(&mut text, digest, path);
        }
    }
    text.shrink_to_fit();
    text
}

/// `SHA512SUMS`: every file with a sha512; `None` without such files, and then the file does not exist either.
pub fn sha512sums<'a>(files: impl IntoIterator<Item = (&'a str, Digest)>) -> Option<String> {
    let long = files.into_iter().filter(|(_, digest)| digest.algorithm() == Algorithm::Sha512);
    Some(write(long)).filter(|text| !text.is_empty())
}

/// Parses at most [`MAX_LINES`] lines; `None` for a malformed line.
pub fn lines(bytes: &[u8], algorithm: Algorithm) -> impl Iterator<Item = Option<Line<'_>>> {
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let lines = text.split(|byte| *byte == b'\n').filter(move |_| !bytes.is_empty());
    lines.take(MAX_LINES).map(move |line| parse(line, algorithm))
}

fn parse(line: &[u8], algorithm: Algorithm) -> Option<Line<'_>> {
    let (hex, path) = std::str::from_utf8(line).ok()?.split_once("  ")?;
    let digest = format!("{}:{hex}", algorithm.name()).parse().ok()?;
    (!path.is_empty()).then_some(Line { path, digest })
}

/// The sha256 for `path`, from its first line.
pub fn digest_of(bytes: &[u8], path: &str) -> Option<Digest> {
    lines(bytes, Algorithm::Sha256).flatten().find(|line| line.path == path).map(|line| line.digest)
}

/// The identity in `SHA256SUMS`: its first line is for `bundle.json`.
pub fn identity(bytes: &[u8]) -> Option<Digest> {
    let first = lines(bytes, Algorithm::Sha256).next()??;
    (first.path == BUNDLE_JSON).then_some(first.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_read_back_as_written_and_malformed_lines_are_rejected() {
        let (one, two) = (Digest::sha256(b"1"), Digest::of(Algorithm::Sha512, b"2"));
        let file = |path: &str, digest| FileEntry { path: path.to_owned(), size: 1, digest };
        let files = [file("a  b", one), file("blobs/sha512/x", two)];
        let text = sha256sums(Digest::sha256(b"j"), &files);
        let read: Vec<Line<'_>> = lines(text.as_bytes(), Algorithm::Sha256).map(Option::unwrap).collect();
        assert_eq!(read.len(), 2, "what is named by sha512 is in the other file");
        assert_eq!((read[1].path, read[1].digest), ("a  b", one));
        assert_eq!(identity(text.as_bytes()), Some(Digest::sha256(b"j")));
        assert_eq!(digest_of(text.as_bytes(), "a  b"), Some(one));
        let named = || files.iter().map(|file| (file.path.as_str(), file.digest));
        let of_512 = sha512sums(named()).unwrap();
        assert_eq!(of_512, format!("{}  blobs/sha512/x\n", two.hex()));
        assert_eq!(sha512sums(named().take(1)), None);
        for wrong in ["", "x", "0  a", &format!("{} a", one.hex()), &format!("{}  ", one.hex()), &of_512] {
            assert!(lines(wrong.as_bytes(), Algorithm::Sha256).all(|line| line.is_none()), "{wrong}");
        }
        assert_eq!(identity(&text.as_bytes()[1..]), None);
    }
}
