//! A tar that ends too early or has one changed bit, at any position.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use gapferry::base::error::Kind;
use gapferry::base::progress::Silent;
use gapferry::verify::{self, Depth};

use super::bundle::{Fixture, Form, Parts, verify};
use crate::support::{gapferry, tempdir};

/// Whether the check reports a problem. It must never panic.
fn is_found(path: &Path) -> bool {
    match verify::check(path, Depth::Full, &(Arc::new(Silent) as gapferry::base::progress::Events)) {
        Ok(report) => !report.is_clean(),
        Err(error) => matches!(error.kind(), Kind::Input | Kind::Damaged),
    }
}

#[test]
fn a_tar_cut_at_any_block_is_never_taken_for_complete() {
    let tar = Fixture::new().parts.tar();
    let directory = tempdir();
    let path = directory.path().join("cut.tar");
    let blocks = (0..tar.len()).step_by(512);
    // Also in the middle of blocks: a medium does not fail at block boundaries.
    for length in blocks.chain((0..tar.len()).step_by(997)).chain([tar.len() - 1]) {
        std::fs::write(&path, &tar[..length]).unwrap();
        assert!(is_found(&path), "cut at {length} of {}", tar.len());
    }
}

#[test]
fn every_command_exits_with_an_error_on_a_cut_tar() {
    let tar = Fixture::new().parts.tar();
    let directory = tempdir();
    let path = directory.path().join("cut.tar");
    for length in (0..8192.min(tar.len())).step_by(512).chain([1, 100, 511, 513, 7000, tar.len() - 700]) {
        std::fs::write(&path, &tar[..length]).unwrap();
        let report = verify(&path);
        assert!(matches!(report.code, 2 | 3), "verify, cut at {length}: {report:#?}");
        let is_cut = |problem: &serde_json::Value| problem["code"] == "cut-short";
        // A file shorter than a header is not a tar.
        assert!(report.code == 2 || report.problems.iter().any(is_cut), "verify, cut at {length}: {report:#?}");
        // Nothing listens on port 9: the command must fail before it connects.
        for command in [&["list"][..], &["import", "--to", "127.0.0.1:9"]] {
            let output = gapferry().args(command).arg(&path).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            let whole_json = command == ["list"] && output.status.code() == Some(0);
            assert!(whole_json || matches!(output.status.code(), Some(2 | 3)), "{command:?}, {length}: {stderr}");
            assert!(!stderr.contains("panicked"), "{command:?}, cut at {length}: {stderr}");
        }
    }
}

#[test]
fn a_single_flipped_bit_anywhere_in_a_tar_is_found() {
    let parts = Fixture::new().parts;
    let tar = parts.tar();
    let directory = tempdir();
    let path = directory.path().join("flipped.tar");
    // Steps through headers, padding, content and the end mark, with a different bit each time.
    for (at, bit) in (0..tar.len()).step_by(61).zip((0..8).cycle()) {
        let mut flipped = tar.clone();
        flipped[at] ^= 1 << bit;
        std::fs::write(&path, &flipped).unwrap();
        assert!(is_found(&path) || means_the_same(&flipped, &tar), "bit {bit} of byte {at}, in {}", place(&parts, at));
    }
}

/// Changes that a sum of bytes cannot detect, and harmless ones among them.
#[test]
fn a_header_change_that_the_checksum_misses_is_found_unless_it_is_harmless() {
    let tar = Fixture::new().parts.tar();
    let directory = tempdir();
    let path = directory.path().join("moved.tar");
    let moved = |from: std::ops::Range<usize>, to: usize| {
        let mut moved = tar.clone();
        moved.copy_within(from, to);
        std::fs::write(&path, &moved).unwrap();
        (is_found(&path), means_the_same(&moved, &tar))
    };
    // Moves the end of the second header's link name and the magic by eight bytes: the magic lands in the owner's name.
    assert_eq!(moved(1024 + 157..1024 + 264, 1024 + 165), (false, true));
    // A reversed name has the same sum.
    let mut turned = tar.clone();
    turned[1024..1034].reverse();
    std::fs::write(&path, &turned).unwrap();
    assert_eq!((is_found(&path), means_the_same(&turned, &tar)), (true, false));
}

#[test]
fn a_flipped_bit_anywhere_in_bundle_json_is_found_and_blamed_on_it() {
    let fixture = Fixture::new();
    let length = fixture.parts.clone().bytes("bundle.json").len();
    for (at, bit) in (0..length).step_by(length / 40).zip((0..7).cycle()) {
        let mut parts = fixture.parts.clone();
        parts.bytes("bundle.json")[at] ^= 1 << bit;
        let directory = tempdir();
        let report = verify(&parts.write(directory.path(), Form::Directory));
        let named = report.paths().contains("bundle.json") || report.stderr.contains("bundle.json");
        assert!(matches!(report.code, 2 | 3) && named, "bit {bit} of byte {at}: {report:#?}");
    }
}

/// Typical damage from a bad medium or line: bytes overwritten, lost, duplicated or moved.
#[test]
fn no_damage_to_a_tar_goes_unnoticed_or_causes_a_panic() {
    use proptest::prelude::*;
    let tar = Fixture::new().parts.tar();
    let directory = tempdir();
    let path = directory.path().join("b.tar");
    let place = || 0..tar.len();
    let accident = (0..4u8, place(), 1..4096usize, place(), any::<u8>());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(300)
    });
    let outcome = runner.run(&accident, |(kind, at, length, other, byte)| {
        let (end, mut bytes) = ((at + length).min(tar.len()), tar.clone());
        match kind {
            0 => bytes[at..end].fill(byte),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, tar[at..end].iter().copied())),
            _ => bytes.copy_within(at..end, other.min(tar.len() - (end - at))),
        }
        std::fs::write(&path, &bytes).expect("writing");
        prop_assert!(means_the_same(&bytes, &tar) || is_found(&path), "unnoticed");
        Ok(())
    });
    outcome.unwrap();
}

/// Extra zeros at the end change nothing, and neither does an equivalent header: see [`same_header`].
fn means_the_same(bytes: &[u8], tar: &[u8]) -> bool {
    let longer = bytes.get(tar.len()..).is_some_and(|more| more.iter().all(|byte| *byte == 0));
    let mut archive = tar::Archive::new(tar);
    let headers = archive.entries().unwrap().map(|entry| entry.unwrap().raw_header_position());
    let headers: HashSet<usize> = headers.map(|at| usize::try_from(at).unwrap()).collect();
    let mut blocks = bytes.chunks(512).zip(tar.chunks(512)).enumerate();
    longer
        && blocks.all(|(at, (one, other))| one == other || (headers.contains(&(at * 512)) && same_header(one, other)))
}

/// Whether a header has the name, size and kind of another, and a correct checksum. The other fields do not matter for
/// a regular file: mode, owner, time, link name and device. The magic says only whether the name has a prefix, and
/// there are none here. A sum does not detect moved bytes, such as a magic moved into the owner's name behind it. A
/// checksum may start with a space instead of a zero and end in any way.
fn same_header(one: &[u8], other: &[u8]) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let number = |header: &[u8]| {
        let digits = std::str::from_utf8(&header[CHECKSUM.start..CHECKSUM.end - 1]).ok()?;
        u32::from_str_radix(digits.trim_matches(['\0', ' ']), 8).ok()
    };
    let spaces = u32::try_from(CHECKSUM.len()).unwrap() * u32::from(b' ');
    let sum = |header: &[u8]| {
        let others = header.iter().enumerate().filter(|(at, _)| !CHECKSUM.contains(at));
        others.map(|(_, byte)| u32::from(*byte)).sum::<u32>() + spaces
    };
    let (name, size, kind, prefix) = (0..100, 124..136, 156..157, 345..500);
    let same = |field: std::ops::Range<usize>| one[field.clone()] == other[field];
    number(one) == Some(sum(one)) && [name, size, kind, prefix].into_iter().all(same)
}

/// The file that this byte of the tar belongs to, for the failure message.
fn place(parts: &Parts, at: usize) -> String {
    let mut end = 0;
    for (path, bytes) in &parts.0 {
        end += 512 + bytes.len().next_multiple_of(512);
        if at < end {
            return format!("{path}, {} bytes before its end", end - at);
        }
    }
    "the end mark".to_owned()
}
