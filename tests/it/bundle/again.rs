//! An export over an existing bundle: known content is not read again, and unverified content never counts as
//! unchanged.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use gapferry::base::progress::{Event, Events, Phase, Reporter};
use gapferry::bundle::preflight::{self, Whole};
use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::fixture::{Builder, two_images};
use crate::support::tempdir;

const MARK: &str = "user.gapferry.proven";

/// Counts how often the existing bundle was read.
#[derive(Default)]
struct Readings(Mutex<usize>);

impl Reporter for Readings {
    fn report(&self, event: Event) {
        if let Event::Phase { phase: Phase::Recheck, .. } = event {
            *self.0.lock().unwrap() += 1;
        }
    }
}

/// Whether the bundle counts as unchanged, and how often it was read in full to find out.
fn again(builder: &Builder, out: &Path) -> (bool, usize) {
    let readings = Arc::new(Readings::default());
    let events: Events = readings.clone();
    let same = preflight::up_to_date(out, builder.files().identity, Whole::Proven(&events)).is_some();
    let read = *readings.0.lock().unwrap();
    (same, read)
}

/// A file system without extended attributes makes every run read everything.
fn keeps_attributes(directory: &Path) -> bool {
    setxattr(directory, "user.gapferry.test", b"1", XattrFlags::empty()).is_ok()
}

/// Both forms of a bundle, each with a file that contains a layer.
fn both_forms(builder: &Builder, directory: &Path) -> [(PathBuf, PathBuf); 2] {
    let [folder, tar] = ["bundle", "bundle.tar"].map(|name| directory.join(name));
    builder.write(&folder).unwrap();
    builder.write(&tar).unwrap();
    let layer = folder.join("blobs/sha256").join(builder.layer(0).digest.hex());
    [(folder, layer), (tar.clone(), tar)]
}

#[test]
fn an_untouched_bundle_is_not_read_again() {
    let (directory, builder) = (tempdir(), two_images());
    let expected = usize::from(!keeps_attributes(directory.path()));
    for (out, _) in both_forms(&builder, directory.path()) {
        assert_eq!(again(&builder, &out), (true, expected), "{}", out.display());
    }
}

#[test]
fn a_touched_file_is_read_again_before_it_counts_as_unchanged() {
    let (directory, builder) = (tempdir(), two_images());
    let expected = usize::from(!keeps_attributes(directory.path()));
    for (out, file) in both_forms(&builder, directory.path()) {
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(again(&builder, &out), (true, 1), "touched: {}", out.display());
        assert_eq!(again(&builder, &out), (true, expected), "verified in the meantime: {}", out.display());
        file.write_all_at(b"?", file.metadata().unwrap().len() / 2).unwrap();
        assert_eq!(again(&builder, &out), (false, 1), "altered: {}", out.display());
    }
}

#[test]
fn an_altered_file_with_its_old_mtime_is_read_again() {
    let (directory, builder) = (tempdir(), two_images());
    let [(folder, layer), (tar, _)] = both_forms(&builder, directory.path());
    let file = std::fs::File::options().write(true).open(layer).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"?", file.metadata().unwrap().len() / 2).unwrap();
    file.set_modified(time).unwrap();
    assert_eq!(again(&builder, &folder), (false, 1));
    // A tar carries the mark itself. This one was changed a minute after it was marked.
    let mut mark = [0; 256];
    if let Ok(length) = getxattr(&tar, MARK, &mut mark) {
        let mark = std::str::from_utf8(&mark[..length]).unwrap();
        let (state, marked) = mark.split_once(' ').unwrap();
        let earlier = format!("{state} {}", marked.parse::<i64>().unwrap() - 60);
        setxattr(&tar, MARK, earlier.as_bytes(), XattrFlags::REPLACE).unwrap();
        assert_eq!(again(&builder, &tar), (true, 1));
    }
}

#[test]
fn a_copy_is_read_again_even_if_its_mark_was_copied_too() {
    let (directory, builder) = (tempdir(), two_images());
    for (out, _) in both_forms(&builder, directory.path()) {
        let copy = directory.path().join("copy").join(out.file_name().unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        let copied = std::process::Command::new("cp").arg("-a").arg(&out).arg(&copy).status().unwrap();
        assert!(copied.success());
        assert_eq!(again(&builder, &copy), (true, 1), "{}", out.display());
    }
}
