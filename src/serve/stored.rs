//! The files that describe a layout: `index.json`, its journal, and the lock of a bundle.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Events};
use crate::bundle::{BUNDLE_JSON, INDEX_JSON, MAX_BUNDLE_JSON};
use crate::content::Slice;
use crate::files::Layout;

use super::journal::{JOURNAL, MAX_JOURNAL, replay};
use super::names::{LayoutIndex, MAX_INDEX};

/// How often to read a directory again if it changes meanwhile.
const TRIES: usize = 20;

/// Their content.
pub struct StoredIndex {
    index: Bytes,
    journal: Option<Bytes>,
    /// `bundle.json`, if the layout is a bundle.
    sealed: Option<Bytes>,
}

impl StoredIndex {
    /// Reads a directory that another process may be writing to. See [`super::journal`].
    ///
    /// # Errors
    /// It cannot be read, is not a layout, or keeps changing.
    pub fn in_directory(root: &Path) -> Result<StoredIndex> {
        let read = |name: &str, limit| match open_file(&root.join(name))? {
            Some(slice) => slice.read_all(limit).map(Some),
            None => Ok(None),
        };
        let mut index = read(INDEX_JSON, MAX_INDEX)?;
        for _ in 0..TRIES {
            // This fails if the journal is emptied meanwhile.
            let journal = read(JOURNAL, MAX_JOURNAL);
            let again = read(INDEX_JSON, MAX_INDEX)?;
            let longer = read(JOURNAL, MAX_JOURNAL);
            if let (Ok(journal), Ok(longer)) = (journal, longer)
                && index == again
                && begins_with(longer.as_ref(), journal.as_ref())
            {
                let index = index.ok_or_else(|| no_layout(root))?;
                // An unreadable file says nothing about companions; `verify` reports the damage.
                let sealed = read(BUNDLE_JSON, MAX_BUNDLE_JSON).ok().flatten();
                return Ok(StoredIndex { index, journal, sealed });
            }
            index = again;
        }
        let text = format!("{} kept changing while it was read", root.join(INDEX_JSON).display());
        Err(Error::new(Kind::Interrupted, text))
    }

    /// Reads an open layout.
    ///
    /// # Errors
    /// It cannot be read, or has no `index.json`.
    pub fn in_layout(layout: &Layout) -> Result<StoredIndex> {
        let index = layout.read(INDEX_JSON, MAX_INDEX)?.ok_or_else(|| no_layout(layout.path()))?;
        let sealed = layout.read(BUNDLE_JSON, MAX_BUNDLE_JSON).ok().flatten();
        Ok(StoredIndex { index, journal: layout.read(JOURNAL, MAX_JOURNAL)?, sealed })
    }

    /// Whether there is a valid journal.
    pub fn has_journal(&self) -> bool {
        self.sealed.is_none() && self.journal.is_some()
    }

    /// The resulting names. `path` is that of the layout.
    ///
    /// # Errors
    /// The index or the journal is damaged.
    pub fn names(&self, path: &Path, events: &Events) -> Result<LayoutIndex> {
        let mut names = LayoutIndex::parse(&self.index, path)?;
        let warn = |text: String| events.report(Event::Warning(text));
        match (&self.sealed, &self.journal) {
            (Some(bytes), journal) => {
                if let Err(error) = names.name_companions(bytes) {
                    warn(format!("{}: companions get no tags: {error}", path.join(BUNDLE_JSON).display()));
                }
                if journal.is_some() {
                    warn(format!("{} is ignored: a bundle has no journal", path.join(JOURNAL).display()));
                }
            }
            (None, Some(journal)) => replay(journal, path, &mut names)?,
            (None, None) => {}
        }
        Ok(names)
    }
}

/// A missing file counts as an empty one.
fn begins_with(longer: Option<&Bytes>, journal: Option<&Bytes>) -> bool {
    let bytes = |file: Option<&Bytes>| file.cloned().unwrap_or_default();
    bytes(longer).starts_with(&bytes(journal))
}

fn no_layout(path: &Path) -> Error {
    Error::input(format!("{} is not an OCI image layout: it has no {INDEX_JSON}", path.display()))
}

/// Opens a regular file, never through a link.
pub fn open_file(path: &Path) -> Result<Option<Slice>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::from_ne_bytes(flags.bits().to_ne_bytes());
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::disk("opening", path, e)),
    };
    let metadata = file.metadata().map_err(|e| Error::disk("reading", path, e))?;
    Ok(metadata.is_file().then(|| Slice::new(Arc::new(file), path, 0, metadata.len())))
}
