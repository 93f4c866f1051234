//! Programs that travel with a bundle, for an isolated side that has nothing yet.
//!
//! # Threats
//! A file may change after its digest was declared: it is hashed once more while it is copied. On the other side the names in
//! `bundle.json` may be anything: what is no plain name is no tool. Nothing here runs one, or gives it to a registry.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{BundleJson, FileEntry};
use super::place::Slot;
use crate::base::error::{Error, Result};
use crate::content::{BlobReader, Slice};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher};

/// Where they are.
pub const TOOLS: &str = "tools/";
/// What the program that writes the bundle is called there.
const OWN: &str = "gapferry";
/// So that the path fits into a header of its own.
const LONGEST_NAME: usize = 100 - TOOLS.len();
/// How much is copied at a time, in bytes.
const PIECE: usize = 1024 * 1024;

/// A file that is to be packed, open, and what it was when it was looked at.
#[derive(Clone, Debug)]
pub struct Tool {
    name: String,
    bytes: Slice,
    sha256: Digest,
}

impl Tool {
    /// The running program, if it is wanted, and these files, each under its own name; in the order of their names.
    ///
    /// # Errors
    /// What is no plain file, cannot be read, or has a name that not every medium and tar can hold or that comes twice: all of
    /// it at once.
    pub fn read_all(own: bool, files: &[PathBuf]) -> Result<Vec<Tool>> {
        let mut tools: Vec<Tool> = Vec::new();
        let mut wrong: Vec<String> = Vec::new();
        let mut names: HashMap<String, PathBuf> = HashMap::new();
        let running = own.then(running).into_iter().map(|path| (path, Some(OWN.to_owned())));
        for (path, name) in running.chain(files.iter().map(|path| (path.clone(), None))) {
            let shown = path.display();
            let read = match name {
                Some(name) => Ok(name),
                None => plain_name(&path).map_err(|why| Error::input(format!("{shown}: {why}"))),
            };
            match read.and_then(|name| Tool::read(name, &path)) {
                Ok(tool) => match names.insert(tool.name.to_lowercase(), path.clone()) {
                    None => tools.push(tool),
                    Some(other) => {
                        let both = format!("{shown}: {} would have the same name in the bundle", other.display());
                        wrong.push(both);
                    }
                },
                Err(error) => wrong.push(error.chain()),
            }
        }
        if !wrong.is_empty() {
            let list = wrong.iter().map(|text| format!("  {text}"));
            return Err(Error::input("these tools cannot be packed; nothing was fetched:").listing(list));
        }
        tools.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(tools)
    }

    fn read(name: String, path: &Path) -> Result<Tool> {
        // Opening a pipe would wait for whoever writes to it.
        let metadata = fs::metadata(path).map_err(|e| Error::disk("reading", path, e))?;
        if !metadata.is_file() {
            return Err(Error::input(format!("{}: it is no plain file", path.display())));
        }
        let file = File::open(path).map_err(|e| Error::disk("opening", path, e))?;
        let size = file.metadata().map_err(|e| Error::disk("reading", path, e))?.len();
        let bytes = Slice::new(Arc::new(file), path, 0, size);
        let sha256 = bytes.hash(Algorithm::Sha256, &|_| ()).map_err(|e| Error::disk("reading", path, e))?;
        Ok(Tool { name, bytes, sha256 })
    }

    /// Below the bundle's root.
    pub fn path(&self) -> String {
        format!("{TOOLS}{}", self.name)
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.bytes.size()
    }

    pub fn sha256(&self) -> Digest {
        self.sha256
    }

    /// As `bundle.json` declares it.
    pub(super) fn entry(&self) -> FileEntry {
        FileEntry { path: self.path(), size: self.size(), digest: self.sha256 }
    }

    /// Its bytes, the last of which are withheld until all are proven.
    pub(super) fn reader(&self) -> Result<BlobReader> {
        let descriptor = Descriptor::new("application/octet-stream", self.sha256, self.size());
        BlobReader::new(&descriptor, self.bytes.clone().stream(0))
    }

    /// Copies it to where it belongs.
    ///
    /// # Errors
    /// It is not what it was any more (`Damaged`); the disk's.
    pub(super) fn write_to(&self, slot: &Slot) -> Result<()> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        while at < self.size() {
            let read = self.bytes.read_at(at, &mut buffer).map_err(|e| self.unreadable(e))?;
            let piece = &buffer[..read];
            hasher.update(piece);
            slot.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        match hasher.finish() {
            found if found == self.sha256 => Ok(()),
            found => Err(self.changed(self.bytes.wrong(found))),
        }
    }

    fn unreadable(&self, error: io::Error) -> Error {
        let is_cut = error.kind() == io::ErrorKind::UnexpectedEof;
        let error = Error::disk("reading", self.bytes.path(), error);
        if is_cut { self.changed(error) } else { error }
    }

    /// What to say of an error that only a change explains.
    pub(super) fn changed(&self, error: Error) -> Error {
        error.while_doing(format!("packing {}, which has changed since it was looked at", self.bytes.path().display()))
    }
}

/// The file that is running, whatever has its name by now.
fn running() -> PathBuf {
    let named = std::env::current_exe().ok().filter(|path| path.exists());
    named.unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

fn plain_name(path: &Path) -> std::result::Result<String, &'static str> {
    let name = path.file_name().ok_or("it has no name")?;
    let name = name.to_str().ok_or("its name is not UTF-8")?;
    fault(name).map_or_else(|| Ok(name.to_owned()), Err)
}

/// Why a tool cannot be called so: not every tar, and not every file system that a medium may have, would take it.
fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() || name == "." || name == ".." || name.len() > LONGEST_NAME {
        return Some("its name is empty, or longer than the 94 bytes that every tar takes");
    }
    if name.chars().any(|c| c.is_control() || r#"/\:*?"<>|"#.contains(c)) || name.ends_with([' ', '.']) {
        return Some("its name has characters that not every medium takes");
    }
    name.ends_with(".partial").then_some("a name that ends in .partial is an unfinished file's")
}

/// The mode of a new file of a bundle: a tool can be run.
pub(super) fn mode_of(path: &str) -> u32 {
    if is_tool(path) { 0o777 } else { 0o666 }
}

/// Whether a bundle keeps a tool there.
pub fn is_tool(path: &str) -> bool {
    path.strip_prefix(TOOLS).is_some_and(|name| fault(name).is_none())
}

/// What a bundle declares of its tools, in the order of the tar.
pub fn tools_of(bundle: &BundleJson) -> impl Iterator<Item = &FileEntry> {
    bundle.files.iter().filter(|file| is_tool(&file.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_lead_elsewhere_or_fit_no_medium_is_no_tool() {
        for name in ["gapferry", "gapferry-arm64", "run me.sh", "ctr", "ä", &"a".repeat(94)] {
            assert!(is_tool(&format!("tools/{name}")), "{name}");
        }
        let bad = ["", ".", "..", "../x", "a/b", r"a\b", "a:b", "a\n", "\u{1b}[2J", "a.", "a ", "x.partial"];
        for name in bad.into_iter().chain([&*"a".repeat(95)]) {
            assert!(!is_tool(&format!("tools/{name}")), "{name:?}");
        }
        assert!(!is_tool("tools") && !is_tool("blobs/sha256/tools/x") && !is_tool("/tools/x"));
    }

    #[test]
    fn every_tool_that_cannot_be_packed_is_named_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, bytes) in [("a", "1"), ("A", "2"), ("b:c", "3")] {
            fs::write(at(name), bytes).unwrap();
        }
        let files = [at("a"), at("A"), at("b:c"), at("none"), directory.path().to_owned(), at("..")];
        let said = Tool::read_all(false, &files).unwrap_err().chain();
        for words in ["a would have the same name", "b:c: its name has", "none: ", "no plain file", "it has no name"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let tools = Tool::read_all(false, &[at("a")]).unwrap();
        assert_eq!((tools[0].path(), tools[0].size(), tools[0].sha256()), ("tools/a".into(), 1, Digest::sha256(b"1")));
    }

    #[test]
    fn a_tool_that_changes_while_the_images_are_fetched_is_not_packed_under_its_former_sum() {
        let directory = tempfile::tempdir().unwrap();
        let (path, out) = (directory.path().join("ctr"), directory.path().join("out"));
        fs::write(&path, "first").unwrap();
        let tools = Tool::read_all(false, std::slice::from_ref(&path)).unwrap();
        let slot = Slot::new(Arc::new(File::create(&out).unwrap()), &out, 0, 5, 0);
        tools[0].write_to(&slot).unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"first");
        for other in ["other", "cut"] {
            fs::write(&path, other).unwrap();
            let said = tools[0].write_to(&slot).unwrap_err().chain();
            assert!(said.contains("which has changed"), "{said}");
        }
    }
}
