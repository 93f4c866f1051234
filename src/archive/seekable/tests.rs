use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

/// Compressible and incompressible bytes, several frames of each.
fn written() -> (Vec<u8>, Vec<u8>) {
    let (mut plain, mut frames) = (Vec::new(), Frames::new(Vec::new()));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let noise: Vec<u8> = (0..2_500_000).map(|_| next()).collect();
    for (packing, bytes) in [
        (Packing::Compress, &b"text ".repeat(500_000)[..]),
        (Packing::Store, &noise),
        (Packing::Compress, &noise[..70_000]),
        (Packing::Compress, b""),
        (Packing::Store, b"x"),
    ] {
        frames.begin(packing).unwrap();
        bytes.chunks(99_999).for_each(|piece| frames.write(piece).unwrap());
        plain.extend_from_slice(bytes);
    }
    (plain, frames.finish().unwrap())
}

fn open(bytes: &[u8]) -> Result<Option<Seekable>> {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    Seekable::open(Path::new("x.zst"), file, bytes.len() as u64)
}

#[test]
fn what_was_written_is_read_at_any_place_and_by_zstd_itself() {
    let (plain, packed) = written();
    // Data that does not compress is stored.
    assert!(packed.len() < plain.len() - 2_400_000 && packed.len() > 2_570_000, "{}", packed.len());
    let seekable = open(&packed).unwrap().unwrap();
    assert_eq!(seekable.length(), plain.len() as u64);
    for (at, length) in [(0, 10), (FRAME_AT - 5, 10), (plain.len() - 3, 3), (2_499_000, 2_000), (0, plain.len())] {
        let mut bytes = vec![0; length];
        seekable.read_exact_at(&mut bytes, at as u64).unwrap();
        assert!(bytes == plain[at..at + length], "{length} bytes at {at}");
    }
    assert_eq!(seekable.read_at(&mut [0; 9], plain.len() as u64).unwrap(), 0);
    assert!(seekable.read_exact_at(&mut [0; 9], plain.len() as u64 - 8).is_err());
    let mut zstd = Command::new("zstd").args(["-dcq"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = zstd.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&packed));
    assert!(zstd.wait_with_output().unwrap().stdout == plain);
    writer.join().unwrap().unwrap();
}

const FRAME_AT: usize = 1 << 20;

#[test]
fn a_table_that_lies_is_refused_and_never_a_panic() {
    let (plain, packed) = written();
    assert!(open(&packed[..packed.len() - 1]).unwrap().is_none());
    assert!(open(b"").unwrap().is_none());
    let frames = open(&packed).unwrap().unwrap().frames.len() - 1;
    let table = packed.len() - 9 - frames * 8 - 8;
    let mut refused = 0;
    for at in table..packed.len() {
        for bit in [0, 3, 7] {
            let mut forged = packed.clone();
            forged[at] ^= 1 << bit;
            let Ok(Some(seekable)) = open(&forged) else {
                refused += 1;
                continue;
            };
            // Sizes that still add up, but disagree with the frames.
            let mut all = vec![0; plain.len()];
            let read = seekable.read_exact_at(&mut all, 0);
            assert!(read.is_err() || all == plain, "byte {at}, bit {bit}");
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn a_frame_that_is_damaged_is_an_error_or_other_bytes_and_never_a_panic() {
    let (_, packed) = written();
    for at in (0..packed.len() - 200).step_by(packed.len() / 300) {
        let mut damaged = packed.clone();
        damaged[at] ^= 0x55;
        let Ok(Some(seekable)) = open(&damaged) else { continue };
        let mut all = vec![0; usize::try_from(seekable.length()).unwrap()];
        let _ = seekable.read_exact_at(&mut all, 0);
    }
}

#[test]
fn a_frame_that_only_a_decompressor_would_see_is_refused() {
    let frame = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
    let (shown, hidden) = (frame(&[1; 1000]), frame(&[2; 1000]));
    let table = |entries: &[(usize, u32)]| {
        let mut table = TABLE_MAGIC.to_le_bytes().to_vec();
        table.extend((entries.len() as u32 * 8 + FOOTER as u32).to_le_bytes());
        for (packed, size) in entries {
            table.extend((*packed as u32).to_le_bytes());
            table.extend(size.to_le_bytes());
        }
        table.extend((entries.len() as u32).to_le_bytes());
        table.push(0);
        table.extend(SEEKABLE_MAGIC.to_le_bytes());
        table
    };
    let plain = [&shown[..], &table(&[(shown.len(), 1000)])].concat();
    assert_eq!(open(&plain).unwrap().unwrap().length(), 1000);
    let forged = [&shown[..], &hidden, &table(&[(shown.len(), 1000), (hidden.len(), 0)])].concat();
    let error = open(&forged).unwrap_err().to_string();
    assert!(error.contains("it lists an empty frame"), "{error}");
    // Next to another frame, it is found when that frame is read.
    let forged = [&shown[..], &hidden, &table(&[(shown.len() + hidden.len(), 1000)])].concat();
    assert!(open(&forged).unwrap().unwrap().read_at(&mut [0; 10], 0).is_err());
}
