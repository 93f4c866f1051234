//! Decodes the bytes of a file to text, and chooses its notation.

use super::{InputProblem, Position};

/// Maximum size of a file in bytes. A hundred thousand entries take a tenth of it.
pub const MAX_FILE_SIZE: usize = 64 << 20;

/// Returns the text of a file: UTF-8, without the byte order mark and without NULs.
pub(crate) fn decode<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, InputProblem> {
    let fail = |line, text: String| InputProblem { at: Position::line(name, line), text };
    if bytes.len() > MAX_FILE_SIZE {
        return Err(fail(1, format!("the file has {} bytes, more than the {MAX_FILE_SIZE} allowed", bytes.len())));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(fail(1, "the file is UTF-16; save it as UTF-8".into()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let line_of = |end: usize| 1 + bytes[..end].iter().filter(|byte| **byte == b'\n').count() as u64;
    let text = std::str::from_utf8(bytes).map_err(|e| fail(line_of(e.valid_up_to()), "not UTF-8 text".into()))?;
    match bytes.iter().position(|byte| *byte == 0) {
        Some(nul) => Err(fail(line_of(nul), "a NUL byte; this is not a text file".into())),
        None => Ok(text),
    }
}

/// The notation of a file.
///
/// A name that ends in `.yaml` or `.yml` means YAML, and one that ends in `.txt` means text. For any other name,
/// including standard input, the first line that is neither blank nor a comment decides. It is YAML if it starts with
/// `---`, `%`, `- `, `{`, or with `[` that does not start an IPv6 address; if it is `-` alone; or if it has a colon at
/// its end or before white space. No line of the text notation looks like that. Within YAML, a sequence, or a mapping
/// whose key `images` has a sequence or nothing, is the list notation. Any other mapping is skopeo's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    Text,
    Yaml,
}

impl Notation {
    pub fn of(name: &str, text: &str) -> Notation {
        let name = name.to_ascii_lowercase();
        if name.ends_with(".yaml") || name.ends_with(".yml") {
            return Notation::Yaml;
        }
        let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        match first {
            Some(line) if !name.ends_with(".txt") && looks_like_yaml(line) => Notation::Yaml,
            _ => Notation::Text,
        }
    }
}

fn looks_like_yaml(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or(line).trim_end();
    let is_ipv6_host =
        |rest: &str| rest.split(']').next().is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    if let Some(rest) = line.strip_prefix('[') {
        return !is_ipv6_host(rest);
    }
    line == "-"
        || ["---", "%", "- ", "-\t", "{"].iter().any(|start| line.starts_with(start))
        || line.ends_with(':')
        || line.contains(": ")
        || line.contains(":\t")
}
