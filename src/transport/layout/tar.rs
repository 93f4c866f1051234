//! The tar form: which entries there are, and at which offset. Only headers are read.
//!
//! POSIX ustar with GNU long names (`L`), GNU base-256 numbers and PAX `path` and `size`; the rest of PAX does not concern
//! us. An entry that is not a regular file or a directory is a fault, and so is a tar that ends in the middle.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Found, Place};
use crate::error::{Error, Result};

const BLOCK: u64 = 512;
/// The longest name or extended header that is read, in bytes.
const MAX_EXTENDED: u64 = 64 * 1024;

/// One header block, decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub name: Vec<u8>,
    pub size: u64,
    pub kind: u8,
}

/// Finds every entry of the tar in `file`, which has `length` bytes.
pub fn scan(path: &Path, file: &File, length: u64, found: &mut Found) -> Result<()> {
    let mut position = 0;
    let mut extended = Extended::default();
    loop {
        let Some(block) = read_block(path, file, position, length)? else {
            found.fault(b"", format!("the tar ends at byte {length} without its end mark: it is cut short"));
            return Ok(());
        };
        if block.iter().all(|byte| *byte == 0) {
            return check_end(path, file, position, length, found);
        }
        let header = match Header::parse(&block) {
            Ok(header) => header,
            Err(what) => {
                found.fault(b"", format!("no valid tar header at byte {position}: {what}; nothing after it is read"));
                return Ok(());
            }
        };
        let offset = position + BLOCK;
        // An extended header speaks of the entry after it, not of the extended headers in between.
        let size = if matches!(header.kind, b'L' | b'K' | b'x' | b'g') { None } else { extended.size };
        let size = size.unwrap_or(header.size);
        let Some(next) = padded(size).and_then(|padded| offset.checked_add(padded)) else {
            found.fault(&header.name, "its size overflows");
            return Ok(());
        };
        if offset.saturating_add(size) > length {
            let name = extended.name.as_ref().unwrap_or(&header.name);
            found.fault(name, format!("it says {size} bytes, but the tar ends at byte {length}: it is cut short"));
            return Ok(());
        }
        let padding = next - offset - size;
        if !is_empty(path, file, offset + size, padding)? {
            found.fault(extended.name.as_ref().unwrap_or(&header.name), "data is hidden in the padding after it");
        }
        match header.kind {
            b'L' | b'x' => match read_extended(path, file, &header, offset)? {
                Some(data) => extended.take(header.kind, &data),
                None => {
                    found.fault(&header.name, "its extended header is too large");
                    return Ok(());
                }
            },
            // What speaks of all entries is read differently by different programs; ours writes none.
            b'g' => match read_extended(path, file, &header, offset)? {
                Some(data) if pax_records(&data).iter().all(|(key, _)| *key == b"comment") => {}
                _ => found.fault(&header.name, "it is a header that changes all entries after it"),
            },
            _ => add(found, header, std::mem::take(&mut extended), Place { offset, size }),
        }
        found.check_count(path)?;
        position = next;
    }
}

/// After the end mark comes nothing: readers stop there, so what follows is proven by nobody.
fn check_end(path: &Path, file: &File, position: u64, length: u64, found: &mut Found) -> Result<()> {
    if position + 2 * BLOCK > length {
        found.fault(b"", format!("the tar ends at byte {length} in the middle of its end mark: it is cut short"));
    } else if !is_empty(path, file, position, length - position)? {
        found.fault(b"", format!("data is hidden after the end mark of the tar at byte {position}"));
    }
    Ok(())
}

/// Whether these bytes are all zero.
fn is_empty(path: &Path, file: &File, mut offset: u64, mut length: u64) -> Result<bool> {
    let mut buffer = [0; 4096];
    while length > 0 {
        let piece = &mut buffer[..usize::try_from(length).unwrap_or(usize::MAX).min(4096)];
        match file.read_exact_at(piece, offset) {
            Ok(()) if piece.iter().all(|byte| *byte == 0) => {}
            Ok(()) => return Ok(false),
            // Padding that is cut off is found as a missing header or end mark.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(true),
            Err(error) => return Err(Error::disk("reading", path, error)),
        }
        offset += piece.len() as u64;
        length -= piece.len() as u64;
    }
    Ok(true)
}

fn add(found: &mut Found, header: Header, extended: Extended, place: Place) {
    let name = extended.name.unwrap_or(header.name);
    match header.kind {
        _ if extended.sparse => found.fault(&name, "it is a sparse file"),
        b'0' | 0 if !name.ends_with(b"/") => found.add(&name, place),
        b'5' | b'0' | 0 if place.size == 0 => {}
        b'5' | b'0' | 0 => found.fault(&name, "it is a directory with content"),
        b'1' => found.fault(&name, "it is a hard link"),
        b'2' => found.fault(&name, "it is a symbolic link"),
        b'3' | b'4' | b'6' => found.fault(&name, "it is a device"),
        b'S' => found.fault(&name, "it is a sparse file"),
        kind => found.fault(&name, format!("it has the unknown type {:?}", char::from(kind))),
    }
}

/// What extended headers say of the entry after them.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Extended {
    fn take(&mut self, kind: u8, data: &[u8]) {
        if kind == b'L' {
            let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
            self.name = Some(data[..end].to_vec());
            return;
        }
        for (key, value) in pax_records(data) {
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"size" => {
                    self.size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).or(Some(u64::MAX))
                }
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
        }
    }
}

/// `LENGTH KEY=VALUE\n` records; what follows a malformed one is dropped.
fn pax_records(mut data: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut records = Vec::new();
    while let Some(space) = data.iter().position(|byte| *byte == b' ') {
        let length = std::str::from_utf8(&data[..space]).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(record) = length.filter(|length| *length > space).and_then(|length| data.get(space + 1..length))
        else {
            break;
        };
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        if let Some(equals) = record.iter().position(|byte| *byte == b'=') {
            records.push((&record[..equals], &record[equals + 1..]));
        }
        data = &data[length.unwrap_or(data.len())..];
    }
    records
}

fn read_extended(path: &Path, file: &File, header: &Header, offset: u64) -> Result<Option<Vec<u8>>> {
    if header.size > MAX_EXTENDED {
        return Ok(None);
    }
    let mut data = vec![0; usize::try_from(header.size).unwrap_or_default()];
    file.read_exact_at(&mut data, offset).map_err(|e| Error::disk("reading", path, e))?;
    Ok(Some(data))
}

fn read_block(path: &Path, file: &File, position: u64, length: u64) -> Result<Option<[u8; 512]>> {
    if position.saturating_add(BLOCK) > length {
        return Ok(None);
    }
    let mut block = [0; 512];
    file.read_exact_at(&mut block, position).map_err(|e| Error::disk("reading", path, e))?;
    Ok(Some(block))
}

/// `size` rounded up to whole blocks.
fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK)
}

impl Header {
    /// Decodes one block; checks its sum.
    pub(super) fn parse(block: &[u8; 512]) -> Result<Header, &'static str> {
        let stored = number(&block[148..156]).ok_or("no checksum")?;
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
            .sum();
        if stored != sum {
            return Err("wrong checksum");
        }
        let size = number(&block[124..136]).ok_or("no valid size")?;
        let mut name = until_nul(&block[..100]).to_vec();
        let is_posix = &block[257..263] == b"ustar\0";
        let prefix = until_nul(&block[345..500]);
        if is_posix && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        Ok(Header { name, size, kind: block[156] })
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits, or big-endian binary with the first bit set (GNU).
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let (head, tail) = field.split_at(field.len() - 8);
        let rest_is_zero =
            head.iter().enumerate().all(|(at, byte)| if at == 0 { byte & 0x7f == 0 } else { *byte == 0 });
        let value = u64::from_be_bytes(tail.try_into().ok()?);
        return (rest_is_zero && value <= i64::MAX as u64).then_some(value);
    }
    let text = std::str::from_utf8(until_nul(field)).ok()?.trim_matches(' ');
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8, name: &str, size: u64) -> [u8; 512] {
        let mut header = ::tar::Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_size(size);
        header.set_entry_type(::tar::EntryType::new(kind));
        header.set_mode(0o644);
        header.set_cksum();
        *header.as_bytes()
    }

    fn scan_bytes(bytes: &[u8]) -> Found {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let mut found = Found::default();
        scan(Path::new("x.tar"), &file, bytes.len() as u64, &mut found).unwrap();
        found
    }

    #[test]
    fn sizes_beyond_eight_gibibytes_are_read() {
        let size = 20 << 30;
        assert_eq!(Header::parse(&header(b'0', "a", size)).unwrap(), Header { name: b"a".to_vec(), size, kind: b'0' });
    }

    #[test]
    fn links_devices_and_sparse_files_are_faults_and_never_offered() {
        for kind in [b'1', b'2', b'3', b'4', b'6', b'7', b'S', b'V'] {
            let found = scan_bytes(&[header(kind, "blobs/x", 0), [0; 512], [0; 512]].concat());
            assert_eq!((found.entries.len(), found.faults.len()), (0, 1), "{}", char::from(kind));
        }
    }

    #[test]
    fn a_size_that_overflows_or_passes_the_end_is_a_fault() {
        for size in [513, u64::MAX >> 1, (u64::MAX >> 1) - 511] {
            let found = scan_bytes(&[header(b'0', "a", size), [0; 512]].concat());
            assert_eq!((found.entries.len(), found.faults.len()), (0, 1), "{size}");
        }
    }

    #[test]
    fn a_tar_cut_anywhere_is_a_fault_and_never_a_panic() {
        let whole = [header(b'0', "a", 10), [0; 512], header(b'0', "b", 0), [0; 512], [0; 512]].concat();
        for length in 0..whole.len() {
            let found = scan_bytes(&whole[..length]);
            assert!(!found.faults.is_empty(), "{length}");
        }
        assert!(scan_bytes(&whole).faults.is_empty());
    }

    #[test]
    fn data_that_no_digest_covers_is_a_fault() {
        let whole = [header(b'0', "a", 10), [0; 512], [0; 512], [0; 512]].concat();
        assert!(scan_bytes(&whole).faults.is_empty());
        for hidden in [512 + 10, 1023, 1024 + 512 + 3, whole.len() - 1] {
            let mut forged = whole.clone();
            forged[hidden] = 1;
            assert!(!scan_bytes(&forged).faults.is_empty(), "{hidden}");
        }
        let longer = [whole, vec![0; 9000], vec![1]].concat();
        assert!(!scan_bytes(&longer).faults.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>, kind: u8, fix: bool) {
            bytes.resize(2048, 0);
            bytes[156] = kind;
            if fix {
                let sum: u64 = bytes[..512].iter().enumerate()
                    .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u64::from(*b) }).sum();
                bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            scan_bytes(&bytes);
        }

        #[test]
        fn no_pax_record_makes_it_panic(data: Vec<u8>) {
            pax_records(&data);
        }
    }
}
