//! Leftovers of an interrupted run are reused where they can be verified and fetched again where they cannot.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gapferry::base::progress::{Event, Recorder, Silent};
use gapferry::files::Layout;
use gapferry::verify::{Depth, check};

use super::fixture::{Builder, noise, two_images};
use crate::support::{sha256_file, tempdir};

const OUTS: [&str; 2] = ["bundle", "bundle.tar"];
/// Where the connection breaks in the second layer: past the point the journal records at once, and not at the layer's
/// end.
const BREAK: u64 = 2_600_000;

/// A run that ends in the middle of the second layer.
fn interrupted(builder: &Builder, out: &Path) {
    let layer = builder.layer(1).digest;
    builder.source.breaks.lock().unwrap().insert(layer, BREAK);
    let writer = builder.create(out).unwrap();
    let error = builder.fill(&writer).unwrap_err();
    assert!(error.to_string().contains("the connection broke"), "{error:?}");
    drop(writer);
    builder.source.breaks.lock().unwrap().clear();
    assert!(!out.exists());
    builder.source.take_asked();
}

fn assert_clean(out: &Path) {
    let report = check(out, Depth::Full, &(Arc::new(Silent) as gapferry::base::progress::Events)).unwrap();
    assert!(report.is_clean(), "{report:#?}");
    let left: Vec<PathBuf> = std::fs::read_dir(out.parent().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(!left.iter().any(|path| path.to_string_lossy().contains(".partial")), "{left:?}");
}

#[test]
fn a_partial_blob_resumes_at_its_last_byte_and_finished_blobs_are_kept() {
    let (directory, builder) = (tempdir(), two_images());
    for name in OUTS {
        let out = directory.path().join(name);
        interrupted(&builder, &out);
        builder.write(&out).unwrap();
        let asked = builder.source.take_asked();
        assert_eq!(asked[0], (builder.layer(1).digest, BREAK), "{asked:?}");
        assert_eq!(asked.len(), 3, "the second layer and those after it: {asked:?}");
        assert_clean(&out);
    }
    let whole = directory.path().join("whole.tar");
    builder.write(&whole).unwrap();
    assert_eq!(sha256_file(&whole), sha256_file(&directory.path().join("bundle.tar")));
}

#[test]
fn a_source_that_ignores_ranges_starts_the_blob_again() {
    let (directory, mut builder) = (tempdir(), two_images());
    for name in OUTS {
        let out = directory.path().join(name);
        interrupted(&builder, &out);
        builder.source.ignores_range = true;
        builder.write(&out).unwrap();
        builder.source.ignores_range = false;
        assert_clean(&out);
    }
}

#[test]
fn damaged_leftovers_are_fetched_again_in_the_same_run() {
    let (directory, builder) = (tempdir(), two_images());
    for name in OUTS {
        let out = directory.path().join(name);
        interrupted(&builder, &out);
        // Flips one bit of a finished blob and one of an unfinished blob.
        for at in [0, 1] {
            flip_leftover(&out, &builder, at);
        }
        builder.write(&out).unwrap();
        let asked = builder.source.take_asked();
        let of = |at: usize| asked.iter().filter(|(digest, _)| *digest == builder.layer(at).digest).collect::<Vec<_>>();
        assert_eq!(of(0).len(), 1, "{asked:?}");
        assert_eq!(of(1).last().unwrap().1, 0, "{asked:?}");
        assert_clean(&out);
    }
}

fn flip_leftover(out: &Path, builder: &Builder, at: usize) {
    let digest = builder.layer(at).digest;
    let partial = PathBuf::from(format!("{}.partial", out.display()));
    let (path, offset) = if partial.is_dir() {
        let path = partial.join(digest.blob_path());
        let unfinished = PathBuf::from(format!("{}.partial", path.display()));
        (if unfinished.exists() { unfinished } else { path }, 1000)
    } else {
        let journal = std::fs::read_to_string(format!("{}.journal", partial.display())).unwrap();
        let line = journal.lines().find_map(|line| line.strip_prefix(&format!("at {digest} "))).unwrap();
        (partial, line.split(' ').next().unwrap().parse::<u64>().unwrap() + 1000)
    };
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn a_complete_blob_without_its_final_name_is_not_fetched_again() {
    let (directory, builder) = (tempdir(), two_images());
    let out = directory.path().join("bundle");
    drop(builder.create(&out).unwrap());
    let path = directory.path().join("bundle.partial").join(builder.layer(1).digest.blob_path());
    std::fs::write(format!("{}.partial", path.display()), noise(2, 3_000_001)).unwrap();
    builder.write(&out).unwrap();
    let asked = builder.source.take_asked();
    assert!(!asked.iter().any(|(digest, _)| *digest == builder.layer(1).digest), "{asked:?}");
    assert_clean(&out);
}

#[test]
fn blobs_fetched_for_another_plan_move_to_their_new_place() {
    let (directory, builder) = (tempdir(), two_images());
    for name in OUTS {
        let out = directory.path().join(name);
        interrupted(&builder, &out);
        // A tag moved, or an image was added: another layout with mostly the same blobs.
        let changed = Builder::new().image("registry.test/a:new", &[noise(8, 5000), noise(1, 2_500_000)]);
        let writer = changed.create(&out).unwrap();
        assert!(writer.holds(&builder.layer(0).digest));
        assert!(!directory.path().join("bundle.tar.partial.old").exists(), "its space is freed at once");
        changed.fill(&writer).unwrap();
        writer.finish().unwrap();
        let asked = changed.source.take_asked();
        assert!(!asked.iter().any(|(digest, _)| *digest == builder.layer(0).digest), "{asked:?}");
        assert_clean(&out);
    }
}

#[test]
fn discarding_blobs_fetched_for_another_plan_is_reported() {
    let (directory, builder) = (tempdir(), two_images());
    let notices = |builder: &Builder, out: &Path| {
        let recorder = Arc::new(Recorder::default());
        drop(builder.create_telling(out, recorder.clone()).unwrap());
        let notice = |event: Event| if let Event::Notice(text) = event { Some(text) } else { None };
        recorder.events().into_iter().filter_map(notice).collect::<Vec<_>>()
    };
    for name in OUTS {
        let out = directory.path().join(name);
        interrupted(&builder, &out);
        assert_eq!(notices(&builder, &out), [""; 0], "the same plan loses nothing");
        // Part of the second layer was there; the first layer moves.
        let changed = Builder::new().image("registry.test/a:new", &[noise(8, 5000), noise(1, 2_500_000)]);
        let message = notices(&changed, &out);
        assert!(message.len() == 1 && message[0].contains(name) && message[0].contains("2.5 MiB"), "{message:?}");
        assert_eq!(notices(&changed, &out), [""; 0], "the notice is given once");
    }
}

/// The next run empties or removes both directories, and a user's notes in them would be lost.
#[test]
fn a_users_file_in_an_unfinished_bundle_is_not_removed() {
    let (directory, builder) = (tempdir(), two_images());
    let out = directory.path().join("bundle");
    for name in ["bundle.partial", "bundle.partial.old"] {
        let note = directory.path().join(name).join("note");
        std::fs::create_dir(note.parent().unwrap()).unwrap();
        std::fs::write(&note, "mine").unwrap();
        let error = builder.write(&out).unwrap_err();
        assert!(error.to_string().contains("no export has written"), "{error:?}");
        assert_eq!(std::fs::read(&note).unwrap(), b"mine");
        std::fs::remove_dir_all(note.parent().unwrap()).unwrap();
    }
    builder.write(&out).unwrap();
}

#[test]
fn an_unfinished_bundle_does_not_open_as_a_bundle() {
    let (directory, builder) = (tempdir(), two_images());
    for name in OUTS {
        let out = directory.path().join(name);
        interrupted(&builder, &out);
        let partial = PathBuf::from(format!("{}.partial", out.display()));
        let opened = gapferry::bundle::Bundle::open(&partial);
        assert!(opened.is_err(), "{}", partial.display());
    }
}

#[test]
fn a_tar_cut_anywhere_near_its_start_never_causes_a_panic() {
    let directory = tempdir();
    let (out, cut) = (directory.path().join("whole.tar"), directory.path().join("cut.tar"));
    Builder::new().image("registry.test/a:1", &[vec![1; 10]]).write(&out).unwrap();
    let whole = std::fs::read(&out).unwrap();
    for length in (0..3072).chain((3072..whole.len()).step_by(97)) {
        std::fs::write(&cut, &whole[..length]).unwrap();
        let unseen = Layout::open(&cut).is_ok_and(|layout| layout.problems().is_empty());
        assert!(!unseen, "cut at {length}");
        let checked = check(&cut, Depth::Full, &(Arc::new(Silent) as gapferry::base::progress::Events));
        assert!(checked.is_ok_and(|report| !report.is_clean()) || length < 3072, "cut at {length}");
    }
}
