//! Compressed files that are read by offset: what such a reader gives is what whoever decompresses the whole file gets.
#![no_main]

use std::io::{Cursor, Read};

use gapferry::archive::seekable::{self, Frames, Packing, Seekable};
use gapferry::archive::tar::ReadAt;
use libfuzzer_sys::fuzz_target;

/// A frame of the file, and what the table says that it holds.
type Frame = (Vec<u8>, bool, Option<u32>);

fuzz_target!(|input: (Vec<Frame>, Option<Vec<u8>>)| {
    let bytes = input.1.unwrap_or_else(|| assembled(&input.0));
    let (file, path) = gapferry_fuzz::file(&bytes);
    // The largest frame that is read, those that are kept, and the table.
    let limit = 160 << 20 | 8 * bytes.len();
    let ours = gapferry_fuzz::bounded(limit, || {
        let seekable = Seekable::open(&path, file, bytes.len() as u64).ok()??;
        let length = usize::try_from(seekable.length()).ok().filter(|length| *length <= 32 << 20)?;
        let mut ours = vec![0; length];
        seekable.read_exact_at(&mut ours, 0).ok().map(|()| ours)
    });
    let theirs = gapferry_fuzz::bounded(limit, || {
        let mut theirs = Vec::new();
        let input = seekable::decompressed(Cursor::new(bytes)).expect("memory");
        let read = input.take(64 << 20).read_to_end(&mut theirs);
        read.ok().map(|_| theirs)
    });
    // A window may be too large for a pipe.
    if let (Some(ours), Some(theirs)) = (ours, theirs) {
        assert!(ours == theirs, "{} bytes by offset, {} in a row", ours.len(), theirs.len());
    }
});

/// These frames, some as they are and some as they should be, with a table that adds up.
fn assembled(frames: &[Frame]) -> Vec<u8> {
    let (mut file, mut table) = (Vec::new(), Vec::new());
    for (bytes, is_frame, said) in frames.iter().filter(|(bytes, ..)| bytes.len() < 1 << 20) {
        let frame = if *is_frame { frame(bytes) } else { bytes.clone() };
        table.extend((frame.len() as u32).to_le_bytes());
        table.extend(said.unwrap_or(bytes.len() as u32).to_le_bytes());
        file.extend(frame);
    }
    let number = (table.len() / 8) as u32;
    file.extend(0x184d_2a5e_u32.to_le_bytes());
    file.extend((table.len() as u32 + 9).to_le_bytes());
    file.extend(table);
    file.extend(number.to_le_bytes());
    file.push(0);
    file.extend(0x8f92_eab1_u32.to_le_bytes());
    file
}

/// One frame, without its table of one entry.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut frames = Frames::new(Vec::new());
    frames.begin(if bytes.len() % 2 == 0 { Packing::Compress } else { Packing::Store }).expect("memory");
    frames.write(bytes).expect("memory");
    let mut file = frames.finish().expect("memory");
    file.truncate(file.len() - 17 - if bytes.is_empty() { 0 } else { 8 });
    file
}
