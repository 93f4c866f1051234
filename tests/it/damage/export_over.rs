//! An export onto a medium that someone else prepared with links and pipes where the export writes. The export must
//! touch nothing outside its output, and must end.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bundle::verify;
use crate::support::images;
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, sha256, tempdir};

/// A registry with one image, and the paths under which an export stores its blobs.
struct Fixture {
    _source: Registry,
    reference: String,
    layer: String,
    manifest: String,
}

impl Fixture {
    fn new() -> Fixture {
        let source = Registry::start();
        let image = images::oci("team/one", "1", &["a layer"]);
        image.push(&source);
        let hex = |digest: &str| digest.replace("sha256:", "");
        Fixture {
            reference: format!("{}/{}", source.host(), image.name()),
            layer: hex(&sha256(&image.blobs[1])),
            manifest: hex(&image.digest()),
            _source: source,
        }
    }

    /// Exports to `out` and returns whether it succeeded. It must not block forever, and must say what is wrong.
    #[track_caller]
    fn export(&self, out: &Path, trap: &str) -> bool {
        let mut command = gapferry();
        command.args(["export", &self.reference, "-o"]).arg(out).timeout(Duration::from_secs(60));
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0..=3)), "{trap}: {:?}: {stderr}", output.status);
        assert!(!stderr.contains("panicked"), "{trap}: {stderr}");
        if output.status.success() {
            assert_eq!(verify(out).code, 0, "{trap}: the written bundle is correct");
        } else {
            let own = out.file_name().unwrap().to_string_lossy().into_owned();
            // A link at the output path itself is followed, and its destination is named.
            assert!(stderr.contains(&own) || trap == own, "{trap}: the file in the way is named: {stderr}");
        }
        output.status.success()
    }

    /// The paths where something can block an export to `name`.
    fn traps(&self, name: &str) -> Vec<String> {
        let beside = ["", ".partial", ".partial.lock", ".partial.journal", ".partial.old", ".partial.old.journal"];
        let (layer, manifest) = (&self.layer, &self.manifest);
        let below = [
            "blobs",
            "blobs/sha256",
            &format!("blobs/sha256/{layer}"),
            &format!("blobs/sha256/{layer}.partial"),
            &format!("blobs/sha256/{manifest}"),
            "index.json",
            "bundle.json",
            "SHA256SUMS",
        ]
        .map(|path| format!("{name}.partial/{path}"));
        let beside = beside.iter().map(|suffix| format!("{name}{suffix}"));
        if name.ends_with(".tar") { beside.collect() } else { beside.chain(below).collect() }
    }
}

fn prepare(root: &Path, trap: &str) -> PathBuf {
    let path = root.join(trap);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

#[test]
fn planted_links_never_lead_an_export_to_foreign_files() {
    let fixture = Fixture::new();
    for name in ["b", "b.tar"] {
        for trap in fixture.traps(name) {
            for target in ["file", "tree", "absent"] {
                let (medium, machine) = (tempdir(), tempdir());
                std::fs::create_dir(machine.path().join("tree")).unwrap();
                std::fs::write(machine.path().join("tree/precious"), b"of the machine").unwrap();
                std::fs::write(machine.path().join("file"), b"of the machine").unwrap();
                let before = files_below(machine.path());
                symlink(machine.path().join(target), prepare(medium.path(), &trap)).unwrap();
                fixture.export(&medium.path().join(name), &trap);
                assert_eq!(files_below(machine.path()), before, "{trap} -> {target}");
                assert!(!machine.path().join("absent").exists(), "{trap} -> {target}");
            }
        }
    }
}

#[test]
fn planted_pipes_do_not_block_an_export() {
    let fixture = Fixture::new();
    for name in ["b", "b.tar"] {
        for trap in fixture.traps(name) {
            let medium = tempdir();
            let path = prepare(medium.path(), &trap);
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
            fixture.export(&medium.path().join(name), &trap);
        }
    }
}
