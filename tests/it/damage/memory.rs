//! Bundles that are small on the medium and would be huge in memory. Each command runs with less memory than that, and
//! must end with its own error instead of being killed.

use std::path::Path;
use std::process::{Command, Output};

use super::bundle::{Fixture, Form, Parts};
use super::forged::{entry, replace, tar_with};
use crate::support::{gapferry_process, tempdir};

/// Address space in KiB: the program's code and threads need little less.
const LIMIT: u64 = 500_000;

/// Runs `arguments` on `bundle` within [`LIMIT`].
fn limited(arguments: &[&str], bundle: &Path) -> Output {
    let program = gapferry_process();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -v {LIMIT}; exec \"$0\" \"$@\"")).arg(program.get_program());
    command.env_clear().envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.args(arguments).arg(bundle).output().unwrap()
}

#[track_caller]
fn ends_by_itself(bundle: &Path, case: &str) {
    for arguments in [&["verify", "--json"][..], &["import", "--to", "127.0.0.1:9"]] {
        let output = limited(arguments, bundle);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{case}, {arguments:?}: {stderr}");
        assert!(output.stdout.len() + output.stderr.len() < 1 << 20, "{case}, {arguments:?}: the output is too long");
    }
}

fn write(directory: &Path, parts: &Parts) -> std::path::PathBuf {
    parts.write(directory, Form::Tar)
}

#[test]
fn a_small_file_with_a_million_values_does_not_exhaust_memory() {
    let fixture = Fixture::new();
    let flood = |start: &str, piece: &str, end: &str| format!("{start}{}{end}", piece.repeat(10_000_000 / piece.len()));
    let descriptor = format!(r#"{{"mediaType":"","digest":"{}","size":0}},"#, fixture.images[0].digest());
    for (name, case, text) in [
        ("manifest.json", "numbers", flood("[", "0,", "0]")),
        ("manifest.json", "objects", flood("[", "{\"a\":{}},", "0]")),
        ("manifest.json", "texts", flood("[{\"Config\":\"\",\"RepoTags\":[", "\"\",", "\"\"],\"Layers\":[]}]")),
        ("index.json", "numbers", flood("{\"manifests\":[],\"x\":[", "0,", "0]}")),
        ("index.json", "descriptors", flood("{\"manifests\":[", &descriptor, &descriptor.replace("},", "}]}"))),
    ] {
        let directory = tempdir();
        let bundle = write(directory.path(), &replace(&fixture, name, text.as_bytes()));
        ends_by_itself(&bundle, &format!("{name}: {case}"));
    }
    for (case, text) in [
        ("numbers", flood("{\"gapferryBundle\":1,\"assumed\":[", "0,", "0]}")),
        ("files", flood("{\"gapferryBundle\":1,\"files\":[", "{\"path\":\"\",\"size\":0,\"sha256\":\"\"},", "0]}")),
    ] {
        let mut parts = fixture.parts.clone();
        *parts.bytes("bundle.json") = text.into_bytes();
        let directory = tempdir();
        ends_by_itself(&write(directory.path(), &parts), &format!("bundle.json: {case}"));
    }
    let mut parts = fixture.parts.clone();
    *parts.bytes("SHA256SUMS") = (0..100_000).map(|at| format!("{at:064x}  {at}\n")).collect::<String>().into_bytes();
    let directory = tempdir();
    ends_by_itself(&write(directory.path(), &parts), "SHA256SUMS");
}

#[test]
fn a_tar_of_undeclared_entries_is_refused_with_a_short_message() {
    let fixture = Fixture::new();
    let entries: Vec<_> = (0..3_000).map(|at| entry(&format!("blobs/x{at}"), tar::EntryType::Regular, b"")).collect();
    let directory = tempdir();
    let bundle = directory.path().join("b.tar");
    std::fs::write(&bundle, tar_with(&fixture.parts, &entries)).unwrap();
    ends_by_itself(&bundle, "3,000 entries");
    let output = limited(&["verify"], &bundle);
    let message = String::from_utf8_lossy(&output.stdout);
    assert!(message.contains("and 2900 more of this kind") && message.len() < 100_000, "{message:.3000}");
}
