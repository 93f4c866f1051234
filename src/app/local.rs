//! Reads and writes small local files as a whole.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::base::fsops::Replacement;

/// A text, and its name in error messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Where a text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    File(PathBuf),
    /// A text that was already read. There can be no signature next to it.
    Text(Text),
}

impl Input {
    /// Reads at most the first `limit` bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, limit: u64) -> Result<Text> {
        match self {
            Input::File(path) => read_bounded(path, limit),
            Input::Text(text) => Ok(text.clone()),
        }
    }

    /// The name in error messages.
    pub fn name(&self) -> String {
        match self {
            Input::File(path) => path.display().to_string(),
            Input::Text(text) => text.name.clone(),
        }
    }
}

/// Reads at most the first `limit` bytes of a file.
///
/// # Errors
/// The file cannot be read.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Text> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| Error::disk("opening", path, e))?;
    file.take(limit).read_to_end(&mut bytes).map_err(|e| Error::disk("reading", path, e))?;
    Ok(Text { name: path.display().to_string(), bytes })
}

/// Checks that [`write_file`] can write these files, before hours of work rather than after them.
///
/// # Errors
/// The first file that cannot be written.
pub fn check_writable<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    let check = |path: &Path| match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Err(Error::disk("writing", path, std::io::ErrorKind::IsADirectory.into())),
        Ok(metadata) if !metadata.is_file() => Ok(()),
        _ => Replacement::of(path).map(drop),
    };
    paths.into_iter().try_for_each(|path| check(path))
}

/// Writes a small file atomically: readers never see half of it.
///
/// # Errors
/// The file cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |e| Error::disk("writing", path, e);
    // A pipe or a device cannot be replaced.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return std::fs::write(path, bytes).map_err(fail);
    }
    let mut new = Replacement::of(path)?;
    new.file().write_all(bytes).map_err(fail)?;
    new.make_readable()?;
    new.commit()
}
