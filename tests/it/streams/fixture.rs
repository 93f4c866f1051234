//! A registry with images of several kinds and sizes, and a working directory.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{gapferry, gapferry_process, tempdir};

pub struct Fixture {
    pub registry: Registry,
    pub images: Vec<Image>,
    directory: tempfile::TempDir,
}

impl Fixture {
    /// Two images that share a layer of several mebibytes, an index, an artifact; small layers and an empty one.
    pub fn new() -> Fixture {
        let registry = Registry::start();
        let (large, other) = (images::noise(1, 5_000_000), images::noise(2, 300_000));
        let images = vec![
            images::oci("team/one", "1", &[&large, "small", ""]),
            images::docker("team/two", "2.0", &[&large, &other]),
            images::oci_index("team/index", "1", "of two platforms"),
            images::artifact("charts/app", "0.1", b"a chart"),
        ];
        images.iter().for_each(|image| image.push(&registry));
        let directory = tempdir();
        let fixture = Fixture { registry, images, directory };
        fixture.run(&[&["lock", "-o", "images.lock"][..], &fixture.references()].concat()).ended(0);
        fixture
    }

    fn references(&self) -> Vec<&'static str> {
        let names = self.images.iter().map(|image| format!("{}/{}", self.registry.host(), image.name()));
        names.map(|name| &*name.leak()).collect()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs any command in the working directory.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(gapferry().current_dir(self.directory.path()).args(args))
    }

    /// A command in the working directory whose input and output the test controls.
    pub fn process(&self, args: &[&str]) -> Command {
        let mut command = gapferry_process();
        command.current_dir(self.directory.path()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command with these bytes on a pipe, in pieces of the given size.
    pub fn piped(&self, args: &[&str], bytes: &[u8], piece: usize) -> Ran {
        let mut child = self.process(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // The program may stop reading early.
            scope.spawn(move || bytes.chunks(piece).try_for_each(|piece| stdin.write_all(piece)));
            ended(child.wait_with_output().unwrap())
        })
    }

    /// The lock, exported to standard output.
    pub fn streaming(&self, more: &[&str]) -> Command {
        self.process(&[&["export", "--locked", "images.lock", "-o", "-"][..], more].concat())
    }

    /// The same, saved to a file.
    pub fn streamed(&self, name: &str, more: &[&str]) -> PathBuf {
        let path = self.path(name);
        let status = self.streaming(more).stdout(File::create(&path).unwrap()).stderr(Stdio::inherit()).status();
        assert!(status.unwrap().success());
        path
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

pub fn ended(output: std::process::Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
