//! Programs in a bundle, for an isolated side that has nothing yet.
//!
//! # Threats
//! A file may change after its digest was declared, so it is hashed again while it is copied. On the other side, names in
//! `bundle.json` may be anything; what is not a plain name is not a tool. gapferry never runs a tool or pushes it to a
//! registry.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{BundleJson, FileEntry, TOOLS, is_tool, problem_of_name};
use crate::base::error::{Error, Result};
use crate::base::fsops;
use crate::content::proof::{self, Uncopied, Wrong};
use crate::content::{BlobReader, Slice, Unreadable};
use crate::files::Layout;
use crate::oci::{Algorithm, Descriptor, Digest};

/// The name of gapferry itself in a bundle.
const OWN: &str = "gapferry";

/// An open file to include, with its state when it was examined.
#[derive(Clone, Debug)]
pub struct Tool {
    name: String,
    size: u64,
    sha256: Digest,
    /// `None` if it is in a volume that is not available.
    bytes: Option<Slice>,
}

impl Tool {
    /// The running program, if requested, and these files, each under its own name, ordered by name.
    ///
    /// # Errors
    /// Lists every file that is not a regular file, cannot be read, or has a name that some medium or tar could not store or
    /// that occurs twice.
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
            return Err(Error::input("these tools cannot be included; nothing was fetched:").listing(list));
        }
        tools.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(tools)
    }

    fn read(name: String, path: &Path) -> Result<Tool> {
        // Opening a pipe would wait for a writer.
        let metadata = fs::metadata(path).map_err(|e| Error::disk("reading", path, e))?;
        if !metadata.is_file() {
            return Err(Error::input(format!("{}: it is not a regular file", path.display())));
        }
        let file = fsops::open_plain(path).map_err(|e| Error::disk("opening", path, e))?;
        let size = file.metadata().map_err(|e| Error::disk("reading", path, e))?.len();
        let bytes = Slice::new(Arc::new(file), path, 0, size);
        let sha256 = bytes.hash(Algorithm::Sha256, &|_| ()).map_err(|e| Error::disk("reading", path, e))?;
        Ok(Tool { name, size, sha256, bytes: Some(bytes) })
    }

    /// A tool of an existing bundle, as declared in `bundle.json`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn of_bundle(layout: &Layout, path: &str, size: u64, sha256: Digest) -> Result<Tool> {
        let name = path.strip_prefix(TOOLS).unwrap_or(path).to_owned();
        Ok(Tool { name, size, sha256, bytes: layout.slice(path)? })
    }

    /// Relative to the bundle's root.
    pub fn path(&self) -> String {
        format!("{TOOLS}{}", self.name)
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn sha256(&self) -> Digest {
        self.sha256
    }

    /// Its entry in `bundle.json`.
    pub(super) fn entry(&self) -> FileEntry {
        FileEntry { path: self.path(), size: self.size(), digest: self.sha256 }
    }

    /// Its bytes; the last ones are withheld until all are proven.
    pub(super) fn reader(&self) -> Result<BlobReader> {
        let descriptor = Descriptor::new("application/octet-stream", self.sha256, self.size());
        BlobReader::new(&descriptor, self.bytes()?.clone().stream(0))
    }

    /// Passes its bytes to `write` in order, with their positions.
    ///
    /// # Errors
    /// The file has changed (`Damaged`), or `write` failed.
    pub(super) fn copy(&self, write: &mut dyn FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        let bytes = self.bytes()?;
        proof::copy(bytes, &self.sha256, write).map_err(|uncopied| match uncopied {
            Uncopied::Unreadable(Unreadable { error, .. }) => self.unreadable(bytes, error),
            Uncopied::Wrong(Wrong { found, .. }) => self.changed(bytes.wrong(found)),
            Uncopied::Unwritten(error) => error,
        })
    }

    fn bytes(&self) -> Result<&Slice> {
        let is_whole = |bytes: &&Slice| bytes.size() == self.size;
        let missing = || Error::damaged(format!("adding {}: it is missing or has another size", self.path()));
        self.bytes.as_ref().filter(is_whole).ok_or_else(missing)
    }

    fn unreadable(&self, bytes: &Slice, error: io::Error) -> Error {
        let is_cut = error.kind() == io::ErrorKind::UnexpectedEof;
        let error = Error::disk("reading", bytes.path(), error);
        if is_cut { self.changed(error) } else { error }
    }

    /// The message for an error that only a change explains.
    pub(super) fn changed(&self, error: Error) -> Error {
        let path = self.bytes.as_ref().map_or_else(|| PathBuf::from(self.path()), |bytes| bytes.path().to_owned());
        error.while_doing(format!("adding {}, which has changed since the export began", path.display()))
    }
}

/// The file of the running program, whatever has its name now.
fn running() -> PathBuf {
    let named = std::env::current_exe().ok().filter(|path| path.exists());
    named.unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

fn plain_name(path: &Path) -> std::result::Result<String, &'static str> {
    let name = path.file_name().ok_or("it has no name")?;
    let name = name.to_str().ok_or("its name is not UTF-8")?;
    problem_of_name(name).map_or_else(|| Ok(name.to_owned()), Err)
}

/// The tools that a bundle declares, in tar order.
pub fn tools_of(bundle: &BundleJson) -> impl Iterator<Item = &FileEntry> {
    bundle.files.iter().filter(|file| is_tool(&file.path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn every_tool_that_cannot_be_packed_is_named_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, bytes) in [("a", "1"), ("A", "2"), ("b:c", "3")] {
            fs::write(at(name), bytes).unwrap();
        }
        let files = [at("a"), at("A"), at("b:c"), at("none"), directory.path().to_owned(), at("..")];
        let message = Tool::read_all(false, &files).unwrap_err().chain();
        for words in
            ["a would have the same name", "b:c: its name has", "none: ", "not a regular file", "it has no name"]
        {
            assert!(message.contains(words), "{words}: {message}");
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
        let file = fs::File::create(&out).unwrap();
        let mut write = |piece: &[u8], at| file.write_all_at(piece, at).map_err(|e| Error::disk("writing", &out, e));
        tools[0].copy(&mut write).unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"first");
        for other in ["other", "cut"] {
            fs::write(&path, other).unwrap();
            let message = tools[0].copy(&mut write).unwrap_err().chain();
            assert!(message.contains("which has changed"), "{message}");
        }
    }
}
