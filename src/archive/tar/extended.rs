//! Extended headers: what they say about the entry that follows.

use std::collections::HashSet;

use super::{Header, is_extended};

/// Records that do not affect the content or position of a file. Any writer may add them to a plain entry.
const HARMLESS: [&[u8]; 14] = [
    b"atime",
    b"comment",
    b"ctime",
    b"gid",
    b"gname",
    b"LIBARCHIVE.creationtime",
    b"mtime",
    b"RHT.security.selinux",
    b"SCHILY.dev",
    b"SCHILY.fflags",
    b"SCHILY.ino",
    b"SCHILY.nlink",
    b"uid",
    b"uname",
];
/// Prefixes of such keys.
const HARMLESS_GROUPS: [&[u8]; 3] = [b"LIBARCHIVE.xattr.", b"SCHILY.acl.", b"SCHILY.xattr."];

/// Names of this length, in bytes, do not fit into the header of every dialect.
const LONG_NAME: usize = 100;
/// Neither do sizes from this one, as octal digits.
const LARGE: u64 = 1 << 33;
/// Number of characters of a key that messages show.
const SHOWN: usize = 100;

/// What extended headers say about the entry that follows.
#[derive(Default)]
pub(super) struct Extended {
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub sparse: bool,
    /// The key of a record that may change how programs read the entry.
    pub unknown: Option<String>,
    /// Whether such a header was read and its entry is still to come.
    pub unanswered: bool,
}

impl Extended {
    /// An extended header applies to the next entry, not to extended headers in between.
    pub fn size_of(&self, header: &Header) -> u64 {
        let size = if is_extended(header.kind) || header.kind == b'K' { None } else { self.size };
        size.unwrap_or(header.size)
    }

    /// The name of the entry that follows.
    pub fn name_of<'a>(&'a self, header: &'a Header) -> &'a [u8] {
        self.name.as_ref().unwrap_or(&header.name)
    }

    /// Whether the entry that follows is a regular file.
    pub fn is_file(&self, header: &Header) -> bool {
        !self.sparse && matches!(header.kind, b'0' | 0) && !self.name_of(header).ends_with(b"/")
    }

    /// What it contradicts in the header of the entry, although the header has room for the value. Every writer puts it there
    /// then.
    pub fn contradiction(&self, header: &Header) -> Option<&'static str> {
        let has_room = |name: &Vec<u8>| name.len() < LONG_NAME && name.is_ascii();
        if self.name.as_ref().is_some_and(|name| has_room(name) && *name != header.name) {
            return Some(
                "its extended header gives another name than its header, and some programs read only the \
                         header",
            );
        }
        let is_other = self.size.is_some_and(|size| size < LARGE && size != header.size);
        is_other.then_some(
            "its extended header gives another size than its header, and some programs read only the \
                            header",
        )
    }

    /// Returns `false` if the header is malformed.
    pub fn take(&mut self, kind: u8, data: &[u8]) -> bool {
        self.unanswered = true;
        if kind == b'L' {
            let name = data.strip_suffix(b"\0").unwrap_or(data);
            self.name = Some(name.to_vec());
            return !name.contains(&0);
        }
        let Some(records) = pax_records(data) else { return false };
        let keys: HashSet<&[u8]> = records.iter().map(|(key, _)| *key).collect();
        if keys.len() < records.len() {
            return false;
        }
        for (key, value) in records {
            match key {
                b"path" if value.contains(&0) => return false,
                b"path" => self.name = Some(value.to_vec()),
                // If the size is unreadable, the one in the header must not be used.
                b"size" => self.size = digits(value, 10).or(Some(u64::MAX)),
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                key if is_harmless(key) => {}
                key => self.unknown = Some(String::from_utf8_lossy(key).chars().take(SHOWN).collect()),
            }
        }
        true
    }
}

fn is_harmless(key: &[u8]) -> bool {
    HARMLESS.contains(&key) || HARMLESS_GROUPS.iter().any(|group| key.starts_with(group))
}

/// Whether a header for all entries leaves them unchanged.
pub(super) fn says_nothing(data: &[u8]) -> bool {
    pax_records(data).is_some_and(|records| records.iter().all(|(key, _)| *key == b"comment"))
}

/// Parses `LENGTH KEY=VALUE\n` records to the last byte. Returns `None` if one is malformed.
pub(super) fn pax_records(mut data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let space = data.iter().position(|byte| *byte == b' ')?;
        let length = usize::try_from(digits(&data[..space], 10)?).ok()?;
        let record = data.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        data = &data[length..];
    }
    Some(records)
}

/// Parses digits only, without sign or space.
pub(super) fn digits(text: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?;
    u64::from_str_radix(text, radix).ok()
}
