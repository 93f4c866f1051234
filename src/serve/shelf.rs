//! What is served: the names, and the content by digest.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use crate::bundle::BUNDLE_JSON;
use crate::content::Slice;
use crate::error::{Error, Result};
use crate::oci::{Digest, MAX_MANIFEST_SIZE, Manifest, ManifestError, Repository, Role};
use crate::progress::{Event, Events};
use crate::transport::layout::Layout;

use super::Options;
use super::answer::Refusal;
use super::names::Names;
use super::referrers::Referrers;
use super::stored::{Stored, open_file};
use super::writer::Writer;

/// The most deletions that are remembered, each of some 100 bytes.
const MOST_DELETED: usize = 50_000;
/// The largest index.json that is read, in bytes.
pub const MAX_INDEX: u64 = 64 * 1024 * 1024;

/// One layout, shared by all requests.
pub struct Shelf {
    content: Content,
    names: Arc<RwLock<Names>>,
    pub referrers: Referrers,
    /// Manifests that were deleted in one repository and that another one needs; at most [`MOST_DELETED`].
    deleted: Mutex<HashSet<(Repository, Digest)>>,
    /// Repositories from which something was deleted: parts of an index that is gone can still be deleted there. At most
    /// [`MOST_DELETED`].
    emptied: Mutex<HashSet<Repository>>,
    writer: Option<Writer>,
    events: Events,
}

enum Content {
    /// As it was when it was opened.
    Fixed(Box<Layout>),
    /// The root of a layout that changes.
    Growing(PathBuf),
}

impl Shelf {
    /// Opens a layout, and makes one of a writable directory that is absent or empty.
    pub fn open(path: &Path, options: &Options, events: Events) -> Result<Shelf> {
        if !options.writable {
            return Shelf::of(Layout::open(path)?, events);
        }
        let writer = Writer::open(path, options, Arc::clone(&events))?;
        let names = Arc::clone(writer.names());
        Ok(Shelf::new(Content::Growing(path.to_owned()), names, Some(writer), events))
    }

    /// A layout as it is.
    pub fn of(mut layout: Layout, events: Events) -> Result<Shelf> {
        let path = layout.path().to_owned();
        let stored = if path.is_dir() && layout.parts().is_empty() && layout.size_of(BUNDLE_JSON).is_none() {
            // Another server may be writing to it. Whatever has a name has its content before: so the names are read first.
            let stored = Stored::in_directory(&path)?;
            layout = Layout::open(&path)?;
            stored
        } else {
            Stored::in_layout(&layout)?
        };
        if let Some(fault) = layout.faults().first() {
            let count = layout.faults().len();
            let text = format!("{count} entries of {} are not served: {}: {}", path.display(), fault.path, fault.what);
            events.report(Event::Warning(text));
        }
        let names = Arc::new(RwLock::new(stored.names(&path, &events)?));
        Ok(Shelf::new(Content::Fixed(Box::new(layout)), names, None, events))
    }

    fn new(content: Content, names: Arc<RwLock<Names>>, writer: Option<Writer>, events: Events) -> Shelf {
        Shelf {
            content,
            names,
            referrers: Referrers::default(),
            deleted: Mutex::default(),
            emptied: Mutex::default(),
            writer,
            events,
        }
    }

    /// The names as they are now. No change is made as long as somebody looks at them.
    pub fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the manifest was deleted in this repository and not pushed again.
    pub fn is_deleted(&self, repository: &Repository, digest: &Digest) -> bool {
        let deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        !deleted.is_empty() && deleted.contains(&(repository.clone(), *digest))
    }

    /// # Errors
    /// So much was deleted already that no more is remembered.
    pub fn note_deleted(&self, repository: &Repository, digest: &Digest) -> Result<(), Refusal> {
        let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        if deleted.len() >= MOST_DELETED {
            let text = "too many manifests were deleted that other repositories need; start the server again";
            return Err(Refusal::new(429, "TOOMANYREQUESTS", text));
        }
        deleted.insert((repository.clone(), *digest));
        Ok(())
    }

    /// Something is going to be deleted from this repository.
    pub fn note_emptied(&self, repository: &Repository) {
        let mut emptied = self.emptied.lock().unwrap_or_else(PoisonError::into_inner);
        if emptied.len() < MOST_DELETED {
            emptied.insert(repository.clone());
        }
    }

    /// Whether something is listed in this repository, or was until it was deleted.
    pub fn has_had(&self, repository: &Repository) -> bool {
        self.names().knows(repository)
            || self.emptied.lock().unwrap_or_else(PoisonError::into_inner).contains(repository)
    }

    /// It was pushed again.
    pub fn note_pushed(&self, repository: &Repository, digest: &Digest) {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner).remove(&(repository.clone(), *digest));
    }

    pub fn writer(&self) -> Option<&Writer> {
        self.writer.as_ref()
    }

    pub fn warn(&self, text: String) {
        self.events.report(Event::Warning(text));
    }

    /// What is done from time to time, whoever asks for what.
    pub fn tidy(&self) {
        if let Some(writer) = &self.writer {
            writer.uploads.drop_idle();
            writer.fold_if_quiet();
        }
    }

    /// Removes what only a running server needs.
    pub fn close(&self) {
        if let Some(writer) = &self.writer {
            writer.close();
        }
    }

    /// The bytes of some content, if it is there.
    pub fn slice(&self, digest: &Digest) -> Result<Option<Slice>> {
        let path = digest.blob_path();
        match &self.content {
            Content::Fixed(layout) => layout.slice(&path),
            Content::Growing(root) => open_file(&root.join(path)),
        }
    }

    /// The manifest with this digest, proven; `None` if there is none, or the content is no manifest.
    ///
    /// # Errors
    /// Not readable, or its bytes are not what its name says.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>> {
        let Some(slice) = self.slice(digest)?.filter(|slice| slice.size() <= MAX_MANIFEST_SIZE) else {
            return Ok(None);
        };
        let media_type = self.names().media_type(digest);
        match Manifest::parse(slice.read_all(MAX_MANIFEST_SIZE)?, media_type.as_deref(), Some(digest)) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(e @ ManifestError::Digest { .. }) => {
                Err(Error::damaged(format!("reading {}", slice.path().display())).because(e))
            }
            Err(_) => Ok(None),
        }
    }

    /// Whether one of these manifests, or one below them, needs some content.
    ///
    /// # Errors
    /// A manifest cannot be read.
    pub fn is_needed(&self, digest: &Digest, by: Vec<Digest>) -> Result<bool> {
        let (mut ahead, mut seen) = (by, HashSet::new());
        while let Some(next) = ahead.pop() {
            if next == *digest {
                return Ok(true);
            }
            if !seen.insert(next) {
                continue;
            }
            let Some(manifest) = self.manifest(&next)? else { continue };
            for child in manifest.children() {
                let found = child.descriptor.digest;
                if found == *digest {
                    return Ok(true);
                }
                // What is not there needs nothing, and an index may name any number of it.
                if child.role == Role::Manifest && !seen.contains(&found) && self.slice(&found)?.is_some() {
                    ahead.push(found);
                }
            }
        }
        Ok(false)
    }
}
