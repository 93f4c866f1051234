//! What is served: the names, and the content by digest.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::bundle::{BUNDLE_JSON, MAX_BUNDLE_JSON};
use crate::content::Slice;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, MAX_MANIFEST_SIZE, Manifest, ManifestError, Repository};
use crate::progress::{Event, Events};
use crate::transport::layout::Layout;

use super::names::Names;
use super::writer::Writer;

/// The largest index.json that is read, in bytes.
pub const MAX_INDEX: u64 = 64 * 1024 * 1024;

/// The manifests that speak of a digest, by that digest.
type Referrers = HashMap<Digest, Vec<Descriptor>>;

/// One layout, shared by all requests.
pub struct Shelf {
    content: Content,
    names: RwLock<Arc<Names>>,
    /// Found out when first asked for, forgotten when something changes.
    referrers: Mutex<Option<Arc<Referrers>>>,
    /// Manifests that were deleted in one repository and that another one needs.
    deleted: Mutex<HashSet<(Repository, Digest)>>,
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
    pub fn open(path: &Path, writable: bool, quota: Option<u64>, events: Events) -> Result<Shelf> {
        if !writable {
            return Shelf::of(Layout::open(path)?, events);
        }
        let (writer, index) = Writer::open(path, quota, Arc::clone(&events))?;
        let sealed = open_file(&path.join(BUNDLE_JSON))?.map(|slice| slice.read_all(MAX_BUNDLE_JSON)).transpose()?;
        Shelf::new(Content::Growing(path.to_owned()), Some(writer), (&index, sealed.as_deref(), path), events)
    }

    /// A layout as it is.
    pub fn of(layout: Layout, events: Events) -> Result<Shelf> {
        let path = layout.path().to_owned();
        if let Some(fault) = layout.faults().first() {
            let count = layout.faults().len();
            let text = format!("{count} entries of {} are not served: {}: {}", path.display(), fault.path, fault.what);
            events.report(Event::Warning(text));
        }
        let none = || Error::input(format!("{} is not an OCI image layout: it has no index.json", path.display()));
        let index = layout.read("index.json", MAX_INDEX)?.ok_or_else(none)?;
        // What cannot be read says nothing of companions; that it is damaged is for `verify` to find.
        let sealed = layout.read(BUNDLE_JSON, MAX_BUNDLE_JSON).ok().flatten();
        Shelf::new(Content::Fixed(Box::new(layout)), None, (&index, sealed.as_deref(), &path), events)
    }

    /// `sealed`: `bundle.json`, if the layout is a bundle.
    fn new(
        content: Content,
        writer: Option<Writer>,
        (index, sealed, path): (&[u8], Option<&[u8]>, &Path),
        events: Events,
    ) -> Result<Shelf> {
        let mut names = Names::parse(index, path)?;
        if let Some(Err(error)) = sealed.map(|bytes| names.name_companions(bytes)) {
            let text = format!("{}: companions have no tags here: {error}", path.join(BUNDLE_JSON).display());
            events.report(Event::Warning(text));
        }
        let names = RwLock::new(Arc::new(names));
        Ok(Shelf { content, names, referrers: Mutex::new(None), deleted: Mutex::default(), writer, events })
    }

    /// The names as they are now.
    pub fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes new names current. The writer has put them on disk.
    pub fn set_names(&self, names: Names) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
        *self.referrers.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the manifest was deleted in this repository, by any of its spellings, and not pushed again.
    pub fn is_deleted(&self, name: &str, digest: &Digest) -> bool {
        let deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        !deleted.is_empty()
            && self.names().recorded(name).is_some_and(|repository| deleted.contains(&(repository, *digest)))
    }

    pub fn note_deleted(&self, repository: &Repository, digest: &Digest) {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner).insert((repository.clone(), *digest));
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

    /// The listed manifests whose subject is `digest`.
    ///
    /// # Errors
    /// A listed manifest cannot be read.
    pub fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>> {
        let known = self.referrers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = match known {
            Some(all) => all,
            None => {
                let all = Arc::new(self.find_referrers()?);
                *self.referrers.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&all));
                all
            }
        };
        Ok(all.get(digest).cloned().unwrap_or_default())
    }

    fn find_referrers(&self) -> Result<Referrers> {
        let mut all = Referrers::new();
        let mut seen = HashSet::new();
        for listed in self.names().listed() {
            if !seen.insert(listed.digest) {
                continue;
            }
            let Some(manifest) = self.manifest(&listed.digest)? else { continue };
            if let Some(subject) = manifest.subject() {
                let described = Descriptor { annotations: manifest.annotations(), ..manifest.descriptor() };
                all.entry(subject.digest).or_default().push(described);
            }
        }
        Ok(all)
    }

    /// Everything that the listed manifests need, themselves included.
    ///
    /// # Errors
    /// A manifest cannot be read.
    pub fn reachable(&self, names: &Names) -> Result<HashSet<Digest>> {
        let mut reached = HashSet::new();
        let mut ahead: Vec<Digest> = names.listed().map(|view| view.digest).collect();
        while let Some(digest) = ahead.pop() {
            if reached.insert(digest)
                && let Some(manifest) = self.manifest(&digest)?
            {
                ahead.extend(manifest.children().into_iter().map(|child| child.descriptor.digest));
            }
        }
        Ok(reached)
    }
}

/// A regular file, never through a link.
fn open_file(path: &Path) -> Result<Option<Slice>> {
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
