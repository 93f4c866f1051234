//! A tar that has lost headers, while another source says where its files are; and directories in the place of files.
//!
//! # Threats
//! The other source may be wrong or forged. It only determines where bytes are read; the caller proves them by a digest.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::found::FoundFiles;
use super::{Form, Layout, directory};
use crate::archive::tar::{self, Entries, Place};
use crate::base::error::{Error, Result};
use crate::base::fsops;

/// A header that identifies a file whose tar has lost its first header.
#[derive(Clone, Copy, Debug)]
pub struct SecondHeader<'a> {
    /// The position where it begins.
    pub at: u64,
    /// The file that it names.
    pub name: &'a str,
}

impl Layout {
    /// Opens a tar that has lost its first header and nothing else, if `second` is where it should be. What precedes it is not
    /// offered, which is a problem. Anything else is opened as [`Layout::open`] does.
    ///
    /// # Errors
    /// As for [`Layout::open`].
    pub fn open_without_first(path: &Path, second: SecondHeader<'_>) -> Result<Layout> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::disk("opening", path, e))?;
        if !metadata.is_file() {
            return Layout::open(path);
        }
        let file = fsops::open_plain(path).map_err(|e| Error::disk("opening", path, e))?;
        let is_second = tar::name_at(&file, second.at).is_some_and(|name| name == second.name.as_bytes());
        if !is_second || tar::name_at(&file, 0).is_some() {
            return Layout::open(path);
        }
        let mut found = FoundFiles::default();
        found.problem(b"", format!("no valid tar header at byte 0: nothing before byte {} is read", second.at));
        tar::scan_from(path, &file, second.at, metadata.len(), &mut found)?;
        let (entries, problems) = found.finish();
        let (path, form) = (path.to_owned(), Form::Tar(Arc::new(file)));
        Ok(Layout { path, form, entries, problems, index: OnceLock::new() })
    }

    /// The file of a tar that is read by position; `None` for other forms.
    pub fn tar(&self) -> Option<&File> {
        match &self.form {
            Form::Tar(file) => Some(file),
            _ => None,
        }
    }

    /// The same tar with files added that its headers do not list, at the given `places`. Returns `None` if it is not a tar.
    pub fn with_places(&self, places: impl IntoIterator<Item = (String, Place)>) -> Option<Layout> {
        let Form::Tar(file) = &self.form else { return None };
        let mut entries = self.entries.clone();
        for (path, place) in places {
            entries.entry(path).or_insert(place);
        }
        let (path, form, problems) = (self.path.clone(), Form::Tar(file.clone()), self.problems.clone());
        Some(Layout { path, form, entries, problems, index: OnceLock::new() })
    }

    /// Whether a directory has the name of a file. Directories are not listed.
    pub fn is_directory(&self, path: &str) -> bool {
        matches!(&self.form, Form::Directory(root) if directory::is_directory(root, path))
    }
}
