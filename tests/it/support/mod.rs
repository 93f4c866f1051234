//! The basis of the integration tests: a real registry, skopeo, and images of every kind that travels.
//!
//! Nothing here is a mock; everything is removed when dropped.

pub mod barrier;
pub mod cosign;
pub mod disk;
pub mod embedded;
pub mod faulty;
pub mod harbor;
pub mod http;
pub mod images;
pub mod network;
pub mod ran;
pub mod registry;
pub mod skopeo;
pub mod storage;

use std::path::{Path, PathBuf};

use gapferry::oci::Digest;

/// The program under test, in an environment without the developer's configuration.
pub fn gapferry() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_gapferry"));
    command.env_clear().envs(clean_environment());
    command
}

/// The same for [`std::process::Command`]: for tests that kill it or talk to it while it runs.
pub fn gapferry_process() -> std::process::Command {
    gapferry_process_of(env!("CARGO_BIN_EXE_gapferry").as_ref())
}

/// Another build of the program, in the same environment.
pub fn gapferry_process_of(program: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.env_clear().envs(clean_environment());
    command
}

fn clean_environment() -> Vec<(&'static str, PathBuf)> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty-home");
    std::fs::create_dir_all(&home).expect("the test home");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let runtime = home.join("run");
    vec![
        ("PATH", path.into()),
        ("HOME", home),
        ("XDG_RUNTIME_DIR", runtime),
        ("NO_COLOR", "1".into()),
        ("LC_ALL", "C.UTF-8".into()),
    ]
}

/// A temporary directory for one test, removed when dropped.
pub fn tempdir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("gapferry-test-").tempdir().expect("a temporary directory")
}

/// `sha256:<hex>` of some bytes.
pub fn sha256(bytes: &[u8]) -> String {
    Digest::sha256(bytes).to_string()
}

/// `sha256:<hex>` of a file.
pub fn sha256_file(path: &Path) -> String {
    sha256(&std::fs::read(path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display())))
}

/// All files below a directory: path relative to it, with `/`, and the bytes; sorted.
pub fn files_below(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = walkdir::WalkDir::new(directory)
        .into_iter()
        .map(|entry| entry.expect("walking"))
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let name = entry.path().strip_prefix(directory).expect("below").to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).expect("reading"))
        })
        .collect();
    files.sort();
    files
}

/// Every command and sub-command as a user types it; the program itself has an empty name.
pub fn commands() -> Vec<(String, clap::Command)> {
    fn below(command: &clap::Command, name: &str) -> Vec<(String, clap::Command)> {
        let own = command.get_subcommands().map(|sub| (format!("{name} {}", sub.get_name()).trim().to_owned(), sub));
        own.flat_map(|(name, sub)| std::iter::once((name.clone(), sub.clone())).chain(below(sub, &name))).collect()
    }
    let program = gapferry::cli::command();
    std::iter::once((String::new(), program.clone())).chain(below(&program, "")).collect()
}
