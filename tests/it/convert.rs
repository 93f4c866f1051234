//! `gapferry convert`: every form converts into every other and stays the same bundle, and no damage is passed on.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::bundle::fixture::{Builder, noise, two_images};
use crate::signed::keys::{Key, Kind};
use crate::support::ran::Ran;
use crate::support::{files_below, gapferry, gapferry_process, gapferry_process_of, sha256, sha256_file, tempdir};

/// The output forms with their options.
const FORMS: [(&str, &[&str]); 4] = [
    ("directory", &[]),
    ("b.tar", &[]),
    ("b.tar.zst", &[]),
    ("v.tar", &["--volume-size", "1500kB", "--recovery", "1"]),
];

/// Two images, and a blob identified by its sha512 whose path does not fit into a tar header.
fn builder() -> Builder {
    two_images().sha512("registry.test/team/artifact:x", noise(9, 400_000))
}

fn convert(from: &[PathBuf], out: &Path, more: &[&str]) -> Ran {
    Ran::of(gapferry().arg("convert").args(from).arg("-o").arg(out).args(more))
}

/// The files written for `out`.
fn written(out: &Path) -> Vec<PathBuf> {
    if out.exists() {
        return vec![out.to_owned()];
    }
    let entries = std::fs::read_dir(out.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let is_volume = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("v.") && !name.starts_with("v.r") && name.ends_with(".tar")
    };
    let mut volumes: Vec<PathBuf> = entries.filter(is_volume).collect();
    volumes.sort();
    volumes
}

/// Copying a file that only looks like a signature would turn a good bundle into a bad copy without a visible cause.
#[test]
fn a_file_that_is_not_a_signature_is_left_out_with_a_notice() {
    let directory = tempdir();
    let key = Key::new(directory.path(), "ours", Kind::Ed25519);
    let source = directory.path().join("source");
    builder().write(&source).unwrap();
    Ran::of(gapferry().arg("sign").arg(&source).arg("--full").arg("--key").arg(&key.private)).ended(0);
    let malformed = ["SHA256SUMS.0123456789abcdef.sig", "chunks.b3.0123456789abcdef.sig"];
    malformed.iter().for_each(|name| std::fs::write(source.join(name), "not a signature").unwrap());
    for (to, arguments) in FORMS {
        let out = directory.path().join("to").join(to);
        let ran = convert(std::slice::from_ref(&source), &out, arguments).ended(0);
        malformed
            .iter()
            .for_each(|name| assert!(ran.stderr.contains(&format!("{name} is not a signature")), "{ran:?}"));
        Ran::of(gapferry().arg("verify").args(written(&out)).arg("--key").arg(&key.public)).ended(0);
    }
    // The same in the output directory.
    let out = directory.path().join("to/directory");
    std::fs::write(out.join(malformed[0]), "not a signature").unwrap();
    malformed.iter().for_each(|name| std::fs::remove_file(source.join(name)).unwrap());
    let ran = convert(std::slice::from_ref(&source), &out, &[]).ended(0);
    assert!(ran.stderr.contains(&format!("{} is not a signature", malformed[0])), "{ran:?}");
    Ran::of(gapferry().arg("verify").arg(&out)).ended(0);
}

/// An operator signs a bundle where the keys are and carries it in whatever form the route demands. The last form must
/// still be the same bundle with every signature.
#[test]
fn every_form_converts_into_every_other_and_keeps_identity_and_signatures() {
    let directory = tempdir();
    let (ours, theirs) =
        (Key::new(directory.path(), "ours", Kind::Ed25519), Key::new(directory.path(), "theirs", Kind::P256));
    let first = directory.path().join("first.tar");
    builder().write(&first).unwrap();
    for key in [&ours, &theirs] {
        Ran::of(gapferry().arg("sign").arg(&first).arg("--full").arg("--key").arg(&key.private)).ended(0);
    }
    let sum = sha256_file(&first);
    for (from, arguments) in FORMS {
        let place = directory.path().join(format!("from-{from}"));
        let source = place.join(from);
        convert(std::slice::from_ref(&first), &source, arguments).ended(0);
        let source = written(&source);
        for (to, arguments) in FORMS {
            let out = place.join("to").join(to);
            let public = ours.public.to_str().unwrap();
            convert(&source, &out, &[arguments, &["--key", public]].concat()).ended(0).reported(&["signed by"]);
            let paths = written(&out);
            for key in [&ours, &theirs] {
                let ran = Ran::of(gapferry().arg("verify").args(&paths).args(["--full", "--key"]).arg(&key.public));
                assert_eq!(ran.code, Some(0), "{from} to {to}: {ran:?}");
            }
            // After any chain of conversions, the tar equals the signed one byte for byte.
            let back = place.join("back.tar");
            convert(&paths, &back, &[]).ended(0);
            assert_eq!(sha256_file(&back), sum, "{from} to {to} and back");
            let again = convert(&source, &out, arguments).ended(0);
            assert!(again.stderr.contains("unchanged") && !again.stderr.contains(": written"), "{}", again.stderr);
        }
    }
}

#[test]
fn convert_to_stdout_gives_the_tar_byte_for_byte() {
    let directory = tempdir();
    let (tar, folder) = (directory.path().join("b.tar"), directory.path().join("b"));
    builder().write(&tar).unwrap();
    convert(std::slice::from_ref(&tar), &folder, &[]).ended(0);
    let out = directory.path().join("stream.tar");
    let mut command = gapferry_process();
    command.arg("convert").arg(&folder).args(["-o", "-"]).stderr(Stdio::null());
    assert!(command.stdout(std::fs::File::create(&out).unwrap()).status().unwrap().success());
    assert_eq!(sha256_file(&out), sha256_file(&tar));
    convert(&[folder], Path::new("-"), &["--json"]).ended(2).reported(&["--json cannot"]);
}

/// On one file system, two directories share the space of their blobs, and later writes to one do not change the other.
#[test]
fn directories_share_their_blobs_where_they_can() {
    let directory = tempdir();
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    let builder = builder();
    builder.write(&first).unwrap();
    let blob = builder.layer(1).digest.blob_path();
    convert(std::slice::from_ref(&first), &second, &[]).ended(0);
    let inode = |path: &Path| path.join(&blob).metadata().unwrap().ino();
    assert_eq!(inode(&first), inode(&second));
    assert!(files_below(&first) == files_below(&second));
}

#[test]
fn a_damaged_bundle_is_not_converted_and_the_existing_output_is_kept() {
    let directory = tempdir();
    let tar = directory.path().join("damaged.tar");
    let builder = builder();
    builder.write(&tar).unwrap();
    let mut bytes = std::fs::read(&tar).unwrap();
    let layer = noise(2, 3_000_001);
    let at = bytes.windows(64).position(|window| window == &layer[2_000_000..2_000_064]).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&tar, &bytes).unwrap();
    let before = directory.path().join("out/directory");
    Builder::new().image("registry.test/other:1", &[noise(5, 1_000)]).write(&before).unwrap();
    let kept = files_below(&before);
    for (to, arguments) in FORMS {
        let out = directory.path().join("out").join(to);
        let ran = convert(std::slice::from_ref(&tar), &out, arguments).ended(3).reported(&["wrong digest"]);
        assert!(to == "directory" || written(&out).is_empty(), "{to}: {}", ran.stderr);
    }
    assert!(files_below(&before) == kept);
}

#[test]
fn an_incomplete_or_foreign_input_is_refused_before_anything_is_written() {
    let directory = tempdir();
    let tar = directory.path().join("b.tar");
    builder().write(&tar).unwrap();
    let set = directory.path().join("v.tar");
    convert(std::slice::from_ref(&tar), &set, &["--volume-size", "1500kB"]).ended(0);
    let volumes = written(&set);
    let out = directory.path().join("out");
    convert(&volumes[1..], &out, &[]).ended(3).reported(&["is missing", "nothing was written"]);
    let thesis = directory.path().join("thesis.tar");
    std::fs::write(&thesis, "my thesis").unwrap();
    convert(std::slice::from_ref(&tar), &thesis, &[]).ended(2).reported(&["not overwritten"]);
    convert(std::slice::from_ref(&thesis), &out, &[]).ended(2);
    convert(&[tar], Path::new("-"), &["--volume-size", "1500kB"]).ended(2).reported(&["end the name in .tar"]);
    assert_eq!(std::fs::read(&thesis).unwrap(), b"my thesis");
    assert!(!out.exists());
}

/// A stopped conversion of 60 GB must resume: copied blobs are verified, not copied again.
#[test]
fn an_interrupted_conversion_resumes() {
    let directory = tempdir();
    let (tar, damaged) = (directory.path().join("b.tar"), directory.path().join("damaged.tar"));
    let builder = builder();
    builder.write(&tar).unwrap();
    let mut bytes = std::fs::read(&tar).unwrap();
    let layer = noise(2, 3_000_001);
    let at = bytes.windows(64).position(|window| window == &layer[2_000_000..2_000_064]).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    for (to, arguments) in [FORMS[0], FORMS[1], FORMS[3]] {
        let out = directory.path().join("out").join(to);
        // The conversion stops at the damaged blob after copying all others.
        convert(std::slice::from_ref(&damaged), &out, arguments).ended(3);
        let begun: u64 = files_below(out.parent().unwrap()).iter().map(|(_, bytes)| bytes.len() as u64).sum();
        assert!(begun > 2_000_000, "{to}: copied blobs are kept");
        convert(std::slice::from_ref(&tar), &out, arguments).ended(0);
        Ran::of(gapferry().arg("verify").args(written(&out))).ended(0);
        let names: Vec<String> = files_below(out.parent().unwrap()).into_iter().map(|(name, _)| name).collect();
        assert!(!names.iter().any(|name| name.contains(".partial")), "{to}: {names:?}");
        // Killed after the output got its name and before the cleanup.
        let journal = if to == "v.tar" { "v.volumes.partial.journal" } else { "b.tar.partial.journal" };
        std::fs::write(out.parent().unwrap().join(journal), "gapferry-journal 1 of this tar\nbegun\n").unwrap();
        convert(std::slice::from_ref(&tar), &out, arguments).ended(0).reported(&["unchanged"]);
        let left = out.parent().unwrap().join(journal).exists();
        assert_eq!(left, to == "directory", "{to}: a run that finds the bundle finished removes the leftovers");
    }
}

/// A leftover may be longer than its blob; such bytes are not a prefix of the blob.
#[test]
fn an_overlong_leftover_of_an_unfinished_run_does_not_stay_in_the_bundle() {
    let directory = tempdir();
    let (tar, out) = (directory.path().join("b.tar"), directory.path().join("b"));
    builder().write(&tar).unwrap();
    let blobs = directory.path().join("b.partial/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let left = format!("{}.partial", sha256(&noise(1, 2_500_000)).trim_start_matches("sha256:"));
    std::fs::write(blobs.join(left), noise(5, 3_000_000)).unwrap();
    convert(std::slice::from_ref(&tar), &out, &[]).ended(0);
    Ran::of(gapferry().arg("verify").arg(&out).arg("--full")).ended(0);
}

/// An export was killed in the middle of a blob, and the next run can link the whole blob: the partial file must go.
#[test]
fn a_partial_blob_is_removed_when_the_whole_blob_is_linked() {
    let directory = tempdir();
    let (tar, from, out) = (directory.path().join("b.tar"), directory.path().join("a"), directory.path().join("b"));
    builder().write(&tar).unwrap();
    convert(std::slice::from_ref(&tar), &from, &[]).ended(0);
    let blobs = directory.path().join("b.partial/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let layer = noise(1, 2_500_000);
    let left = format!("{}.partial", sha256(&layer).trim_start_matches("sha256:"));
    std::fs::write(blobs.join(left), &layer[..1_000_000]).unwrap();
    convert(std::slice::from_ref(&from), &out, &[]).ended(0);
    Ran::of(gapferry().arg("verify").arg(&out).arg("--full")).ended(0);
}

/// The isolated side may trust only the signature: a copy without it must not remove it.
#[test]
fn a_conversion_onto_the_same_bundle_keeps_its_signatures() {
    let directory = tempdir();
    let (ours, theirs) =
        (Key::new(directory.path(), "ours", Kind::P256), Key::new(directory.path(), "theirs", Kind::Ed25519));
    let (plain, signed) = (directory.path().join("plain.tar"), directory.path().join("signed.tar"));
    builder().write(&plain).unwrap();
    for out in [&signed, &directory.path().join("signed")] {
        convert(std::slice::from_ref(&plain), out, &[]).ended(0);
        Ran::of(gapferry().arg("sign").arg(out).arg("--full").arg("--key").arg(&ours.private)).ended(0);
        convert(std::slice::from_ref(&plain), out, &[]).ended(0).reported(&["unchanged"]);
        let other = directory.path().join("other.tar");
        convert(std::slice::from_ref(&plain), &other, &[]).ended(0);
        Ran::of(gapferry().arg("sign").arg(&other).arg("--key").arg(&theirs.private)).ended(0);
        convert(std::slice::from_ref(&other), out, &[]).ended(0);
        for key in [&ours, &theirs] {
            Ran::of(gapferry().arg("verify").arg(out).arg("--full").arg("--key").arg(&key.public)).ended(0);
        }
        std::fs::remove_file(other).unwrap();
    }
}

#[test]
fn convert_never_writes_into_a_bundle_or_over_foreign_files() {
    let directory = tempdir();
    let (tar, bundle) = (directory.path().join("b.tar"), directory.path().join("b"));
    builder().write(&tar).unwrap();
    convert(std::slice::from_ref(&tar), &bundle, &[]).ended(0);
    convert(std::slice::from_ref(&tar), &bundle.join("inside.tar"), &[])
        .ended(2)
        .reported(&["it is inside the bundle"]);
    let precious = directory.path().join("p.partial/thesis.txt");
    std::fs::create_dir(precious.parent().unwrap()).unwrap();
    std::fs::write(&precious, "years of work").unwrap();
    convert(std::slice::from_ref(&tar), &directory.path().join("p"), &[]).ended(2).reported(&["thesis.txt"]);
    assert_eq!(std::fs::read(&precious).unwrap(), b"years of work");
}

/// A mistyped output must not pass silently: the bundle of that name is gone.
#[test]
fn replacing_another_bundle_is_reported_and_an_unsupported_archive_is_refused() {
    let directory = tempdir();
    let (tar, other) = (directory.path().join("b.tar"), directory.path().join("other.tar"));
    builder().write(&tar).unwrap();
    Builder::new().image("registry.test/other:1", &[noise(3, 5_000)]).write(&other).unwrap();
    let again = directory.path().join("again.tar");
    let silent = convert(std::slice::from_ref(&tar), &again, &[]).ended(0);
    assert!(!silent.stderr.contains("replacing"), "{}", silent.stderr);
    convert(std::slice::from_ref(&tar), &other, &[])
        .ended(0)
        .reported(&["replacing", "other.tar, which is another bundle"]);
    for name in ["b.tgz", "b.tar.gz", "b.zip"] {
        convert(std::slice::from_ref(&tar), &directory.path().join(name), &[])
            .ended(2)
            .reported(&["end the name in .tar"]);
    }
}

/// Written volumes say nothing about a tar that has the set's name.
#[test]
fn writing_volumes_does_not_mark_a_damaged_tar_of_the_same_name_as_proven() {
    let directory = tempdir();
    let (good, tar) = (directory.path().join("good.tar"), directory.path().join("images.tar"));
    builder().write(&good).unwrap();
    let mut bytes = std::fs::read(&good).unwrap();
    let layer = noise(2, 3_000_001);
    let at = bytes.windows(64).position(|window| window == &layer[2_000_000..2_000_064]).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&tar, &bytes).unwrap();
    convert(std::slice::from_ref(&good), &tar, &["--volume-size", "1500kB"]).ended(0);
    convert(std::slice::from_ref(&good), &tar, &[]).ended(0);
    Ran::of(gapferry().arg("verify").arg(&tar).arg("--full")).ended(0);
}

/// A bundle of thousands of blobs has more files than a process may have open.
#[test]
fn a_directory_with_more_blobs_than_the_open_file_limit_converts_and_resumes() {
    let directory = tempdir();
    let (from, tar, again) = (directory.path().join("b"), directory.path().join("b.tar"), directory.path().join("c"));
    let layers: Vec<Vec<u8>> = (0..120).map(|seed| noise(seed + 1, 3_000)).collect();
    Builder::new().image("registry.test/a:1", &layers).write(&tar).unwrap();
    convert(std::slice::from_ref(&tar), &from, &[]).ended(0);
    let limited = |from: &Path, out: &Path| {
        let mut command = gapferry_process_of("sh".as_ref());
        command.args(["-c", "ulimit -n 40; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_gapferry"), "convert"]);
        let output = command.arg(from).arg("-o").arg(out).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let other = directory.path().join("other.tar");
    limited(&from, &other);
    assert_eq!(sha256_file(&other), sha256_file(&tar));
    // Leftovers of an unfinished run.
    std::fs::create_dir(&again).unwrap();
    for (path, bytes) in files_below(&from).into_iter().filter(|(path, _)| path.starts_with("blobs")) {
        let to = directory.path().join("c.partial").join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, bytes).unwrap();
    }
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    let (blob, _) = files_below(&from).into_iter().find(|(path, _)| path.starts_with("blobs")).unwrap();
    let kept = inode(&directory.path().join("c.partial").join(&blob));
    limited(&tar, &again);
    assert_eq!(files_below(&again), files_below(&from));
    assert_eq!(inode(&again.join(blob)), kept, "existing blobs were verified, not copied again");
}
