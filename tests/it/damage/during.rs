//! A bundle that changes during its import: intact when verified, damaged when read.

use std::process::Stdio;

use super::bundle::{Fixture, Form, blob_path};
use crate::support::barrier::Barrier;
use crate::support::registry::Registry;
use crate::support::{gapferry_process, sha256, tempdir};

/// The damage done to a file.
type Damage = fn(&std::path::Path);

#[test]
fn a_medium_that_fails_during_an_import_never_leaves_a_wrong_image() {
    let fixture = Fixture::new();
    let layers = fixture.images[0].blobs[1..].iter().map(|blob| blob_path(&sha256(blob)));
    // Wrong bytes mean a damaged bundle; unreadable ones mean a problem of the medium.
    let damages: [(Damage, i32); 4] = [
        (
            |path| {
                let mut bytes = std::fs::read(path).unwrap();
                bytes[30] ^= 1;
                std::fs::write(path, bytes).unwrap();
            },
            3,
        ),
        (|path| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(40).unwrap(), 1),
        (|path| std::fs::remove_file(path).unwrap(), 1),
        (
            |path| {
                std::fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
            },
            1,
        ),
    ];
    let layers: Vec<String> = layers.collect();
    for (damage, code) in damages {
        let directory = tempdir();
        let root = fixture.parts.write(directory.path(), Form::Directory);
        let target = Registry::start();
        // All checks are done when the first upload starts.
        let barrier = Barrier::before(target.host(), "POST /v2/");
        let mut command = gapferry_process();
        command.args(["import", "--verify-first", "-j", "1", "--to", barrier.host()]).arg(&root);
        let process = command.stderr(Stdio::piped()).spawn().unwrap();
        barrier.wait();
        layers.iter().for_each(|layer| damage(&root.join(layer)));
        barrier.open();
        let output = process.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains("team/one:1"), "{stderr}");
        let file = root.join("blobs/sha256/").display().to_string();
        assert!(stderr.contains(&file), "{stderr}");
        assert_eq!(stderr.contains("gapferry verify BUNDLE"), code == 3, "{stderr}");
        // A layer in flight may have been intact, but an image with a tag must be correct.
        assert_eq!(target.digest("team/one", "1"), None, "{stderr}");
        for image in &fixture.images[1..] {
            if let Some(found) = target.digest(&image.repository, "1") {
                assert_eq!(found, image.digest());
                for blob in image.blob_digests() {
                    let got =
                        target.request("GET", &format!("/v2/{}/blobs/{blob}", image.repository)).send().expect(200);
                    assert_eq!(sha256(&got.body), blob);
                }
            }
        }
    }
}
