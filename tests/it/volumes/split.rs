//! `gapferry split`: volumes read by other programs, and the handling of existing volumes.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::bundle::fixture::{Builder, noise, two_images};
use crate::support::ran::Ran;
use crate::support::{files_below, gapferry, sha256, sha256_file, tempdir};

fn run(program: &str, arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Two images, and a blob identified by its sha512 whose path does not fit into a tar header.
fn bundle() -> Builder {
    two_images().sha512("registry.test/team/artifact:x", noise(9, 400_000))
}

fn split(bundle: &Path, out: &Path, size: &str, more: &[&str]) -> Ran {
    Ran::of(gapferry().arg("split").arg(bundle).arg("-o").arg(out).args(["--volume-size", size]).args(more))
}

/// The volumes in a directory, in order; it must contain nothing else.
fn volumes(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for (at, path) in paths.iter().enumerate() {
        let name = format!("v.{:03}.tar", at + 1);
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), name, "{paths:?}");
    }
    paths
}

#[test]
fn volumes_of_any_size_hold_every_byte_once_as_tar_and_sha256sum_see_it() {
    let directory = tempdir();
    let (tar, folder) = (directory.path().join("b.tar"), directory.path().join("b"));
    bundle().write(&tar).unwrap();
    bundle().write(&folder).unwrap();
    // Volumes contain no derived files.
    let whole = files_below(&folder).into_iter().filter(|(name, _)| name != "chunks.b3");
    let whole: BTreeMap<String, Vec<u8>> = whole.collect();
    for (size, least) in [("64KiB", 100), ("700kB", 9), ("2500000", 3), ("4MB", 2), ("1GB", 1)] {
        let out = directory.path().join(size);
        for from in [&tar, &folder] {
            split(from, &out.join("v.tar"), size, &[]).ended(0);
        }
        let paths = volumes(&out);
        assert!(paths.len() >= least && (least > 1) == (paths.len() > 1), "{size}: {}", paths.len());
        let mut held: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let limit = gapferry::base::progress::units::parse_bytes(size).unwrap();
        for path in &paths {
            assert!(path.metadata().unwrap().len() <= limit, "{} is too large", path.display());
            let unpacked = out.join("unpacked");
            std::fs::create_dir(&unpacked).unwrap();
            run("tar", &["xf", path.to_str().unwrap()], &unpacked);
            let number = path.file_name().unwrap().to_str().unwrap().split('.').nth(1).unwrap().to_owned();
            let proven = run("sha256sum", &["-c", &format!("volumes/{number}.sha256")], &unpacked);
            let files = files_below(&unpacked);
            assert_eq!(proven.lines().count(), files.len() - 1, "{proven}");
            for (name, bytes) in files.into_iter().filter(|(name, _)| !name.starts_with("volumes/")) {
                let manifest = whole.get(&name).is_some_and(|there| *there == bytes) && held.contains_key(&name);
                assert!(manifest || held.insert(name.clone(), bytes).is_none(), "{name} exists twice");
            }
            std::fs::remove_dir_all(&unpacked).unwrap();
        }
        // The segments of a cut file sort by name.
        let mut together: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (name, bytes) in held {
            let path = match name.strip_prefix("segments/").and_then(|piece| piece.rsplit_once('.')) {
                Some((piece, _)) => format!("blobs/{piece}"),
                None => name,
            };
            together.entry(path).or_default().extend(bytes);
        }
        assert!(together == whole, "{size}: {:?}", together.keys().collect::<Vec<_>>());
    }
}

#[test]
fn intact_volumes_are_not_rewritten_and_damaged_or_lost_ones_are_restored() {
    let directory = tempdir();
    let tar = directory.path().join("b.tar");
    bundle().write(&tar).unwrap();
    let out = directory.path().join("set");
    let go = |more: &[&str]| split(&tar, &out.join("v.tar"), "1500kB", more).ended(0);
    go(&[]);
    let paths = volumes(&out);
    let sums = || paths.iter().map(|path| sha256_file(path)).collect::<Vec<String>>();
    let (first, times) = (sums(), || paths.iter().map(|path| path.metadata().unwrap().modified().unwrap()));
    let before: Vec<_> = times().collect();
    assert_eq!(go(&[]).stderr.matches("unchanged").count(), paths.len());
    assert_eq!(times().collect::<Vec<_>>(), before);
    // Bits flip, one volume is lost, and a copy has no verification mark.
    let flip = |at: usize, place: usize| {
        let mut bytes = std::fs::read(&paths[at]).unwrap();
        let place = place.min(bytes.len() - 2_000);
        bytes[place] ^= 1;
        std::fs::write(&paths[at], bytes).unwrap();
    };
    for at in 0..paths.len() {
        flip(at, [700, usize::MAX][at % 2]);
    }
    std::fs::remove_file(&paths[1]).unwrap();
    let again = go(&["--only-volume", "2"]);
    assert_eq!((again.stderr.matches("written").count(), sha256_file(&paths[1])), (1, first[1].clone()));
    assert_eq!(go(&[]).stderr.matches(": written").count(), paths.len() - 1);
    assert_eq!(sums(), first);
}

#[test]
fn splitting_a_damaged_bundle_writes_no_damaged_volume() {
    let directory = tempdir();
    let tar = directory.path().join("b.tar");
    let builder = bundle();
    builder.write(&tar).unwrap();
    let mut bytes = std::fs::read(&tar).unwrap();
    // In the last layer before the sha512 one: it is large, so it is cut.
    let layer = noise(2, 3_000_001);
    let at = bytes.windows(64).position(|window| window == &layer[2_000_000..2_000_064]).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&tar, &bytes).unwrap();
    for more in [&[][..], &["--only-volume", "3"]] {
        let out = directory.path().join("set");
        let ran = split(&tar, &out.join("v.tar"), "1MB", more)
            .ended(3)
            .reported(&["wrong digest", sha256(&layer).trim_start_matches("sha256:")]);
        let named = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
        for path in named.filter(|path| path.extension().is_some_and(|extension| extension == "tar")) {
            let volume = std::fs::read(&path).unwrap();
            let segments = format!("segments/sha256/{}", sha256(&layer).trim_start_matches("sha256:"));
            let holds = volume.windows(segments.len()).any(|window| window == segments.as_bytes());
            assert!(!holds, "{} has a piece of it: {}", path.display(), ran.stderr);
        }
        std::fs::remove_dir_all(&out).unwrap();
    }
}

/// With one disc in the drive and the others in the safe, verify still locates the damage, as in a bundle.
#[test]
fn verifying_a_single_volume_locates_the_wrong_bytes_of_its_blobs() {
    let directory = tempdir();
    let tar = directory.path().join("b.tar");
    two_images().write(&tar).unwrap();
    let out = directory.path().join("set");
    split(&tar, &out.join("v.tar"), "4MB", &[]).ended(0);
    let layer = noise(2, 3_000_001);
    let mut flipped = 0;
    for path in volumes(&out) {
        let mut bytes = std::fs::read(&path).unwrap();
        let Some(at) = bytes.windows(64).position(|window| window == &layer[2_000_000..2_000_064]) else { continue };
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        flipped += 1;
        let ran = Ran::of(gapferry().arg("verify").arg(&path)).ended(3);
        let message = ran.stdout;
        assert!(
            message.contains("damage within bytes 1048576-2097151") && !message.contains("the place is unknown"),
            "{message}"
        );
    }
    assert_eq!(flipped, 1);
}

#[test]
fn a_foreign_file_is_not_overwritten_and_an_invalid_volume_number_is_refused() {
    let directory = tempdir();
    let tar = directory.path().join("b.tar");
    bundle().write(&tar).unwrap();
    let thesis = directory.path().join("v.002.tar");
    std::fs::write(&thesis, "my thesis").unwrap();
    let out = directory.path().join("v");
    split(&tar, &out, "2MB", &[]).ended(2).reported(&["v.002.tar", "not a volume of a bundle"]);
    assert_eq!(std::fs::read(&thesis).unwrap(), b"my thesis");
    split(&tar, &out, "2MB", &["--only-volume", "99"]).ended(2).reported(&["no volume 99"]);
    split(&tar, &out, "5kB", &[]).ended(2).reported(&["too small", "smallest possible size"]);
    let plan = split(&tar, &out, "2MB", &["--dry-run", "--json"]).ended(0).stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert!(plan["volumes"].as_array().unwrap().len() > 2, "{plan}");
    assert!(!directory.path().join("v.001.tar").exists());
}

/// Opening a pipe would wait for a writer that never comes.
#[test]
fn a_pipe_at_a_volumes_path_is_refused_without_blocking() {
    let directory = tempdir();
    let tar = directory.path().join("b.tar");
    bundle().write(&tar).unwrap();
    let pipe = directory.path().join("v.002.tar");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for command in ["split", "convert"] {
        let mut run = gapferry();
        run.timeout(Duration::from_secs(60)).arg(command).arg(&tar).arg("-o").arg(directory.path().join("v"));
        Ran::of(run.args(["--volume-size", "2MB"])).ended(2).reported(&["v.002.tar", "not a volume of a bundle"]);
    }
    assert!(pipe.symlink_metadata().unwrap().file_type().is_fifo() && !directory.path().join("v.001.tar").exists());
}

#[test]
fn a_compressed_bundle_does_not_replace_a_volume_of_its_name() {
    let directory = tempdir();
    let tar = directory.path().join("b.tar");
    bundle().write(&tar).unwrap();
    split(&tar, &directory.path().join("v.tar"), "2MB", &[]).ended(0);
    let volume = std::fs::read(directory.path().join("v.001.tar")).unwrap();
    for name in ["x.tar", "x.tar.zst"] {
        let out = directory.path().join(name);
        std::fs::write(&out, &volume).unwrap();
        let convert = Ran::of(gapferry().arg("convert").arg(&tar).arg("-o").arg(&out));
        convert.ended(2).reported(&["it is a volume of a bundle"]);
        assert!(std::fs::read(&out).unwrap() == volume, "{name}");
    }
}

#[test]
fn a_truncated_volume_is_rewritten_however_little_is_left() {
    let directory = tempdir();
    let tar = directory.path().join("b.tar");
    bundle().write(&tar).unwrap();
    let out = directory.path().join("set");
    split(&tar, &out.join("v.tar"), "2MB", &[]).ended(0);
    let whole = files_below(&out);
    for length in [0, 1, 9, 400, 512, 700, 5_000] {
        let cut = std::fs::OpenOptions::new().write(true).open(out.join("v.002.tar")).unwrap();
        cut.set_len(length).unwrap();
        split(&tar, &out.join("v.tar"), "2MB", &[]).ended(0).reported(&["v.002.tar: written", "v.001.tar: unchanged"]);
        assert!(files_below(&out) == whole, "{length}");
    }
}

#[test]
fn split_and_join_refuse_output_names_of_streams_and_compressed_files() {
    let directory = tempdir();
    let tar = directory.path().join("b.tar");
    bundle().write(&tar).unwrap();
    let go = |arguments: &[&str]| Ran::of(gapferry().current_dir(directory.path()).args(arguments));
    for out in ["-", "x.tar.zst"] {
        go(&["split", "b.tar", "-o", out, "--volume-size", "2MB"]).ended(2).reported(&["end the name in .tar"]);
    }
    go(&["split", "b.tar", "-o", "v.tar", "--volume-size", "1GB"]).ended(0);
    for out in ["-", "x.tar.zst"] {
        go(&["join", "v.001.tar", "-o", out]).ended(2).reported(&["end the name in .tar"]);
        assert!(!directory.path().join(out).exists());
    }
    go(&["split", "b.tar", "-o", "v.tar", "--volume-size", "1GB", "--only-volume", "r1"])
        .ended(2)
        .reported(&["gapferry repair"]);
}
