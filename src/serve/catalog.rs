//! What is served: names, and content by digest.

mod referrers;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use axum::body::Body;
use bytes::Bytes;

use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events};
use crate::bundle::BUNDLE_JSON;
use crate::content::Slice;
use crate::files::Layout;
use crate::oci::{
    Child, Digest, MAX_MANIFEST_SIZE, Manifest, ManifestError, ManifestOutline, MediaType, Repository, Role, digests_in,
};

use super::Options;
use super::answer::RequestRefusal;
use super::names::{LayoutIndex, MOST_DELETED};
use super::stored::{StoredIndex, open_file};
use super::writer::LayoutWriter;
use referrers::ReferrerTable;
pub use referrers::{ReferrerPage, ReferrerQuery, find_some};

/// A layout, shared by all requests.
pub struct Catalog {
    content: Content,
    names: Arc<RwLock<LayoutIndex>>,
    pub referrers: ReferrerTable,
    /// Maximum number of remembered deletions of content that another repository needs.
    most_deleted: usize,
    /// Repositories in which something was deleted: parts of a deleted index can still be deleted there. At most
    /// [`MOST_DELETED`].
    emptied: Mutex<HashSet<Repository>>,
    writer: Option<LayoutWriter>,
    events: Events,
}

enum Content {
    /// As it was when it was opened.
    Fixed(Box<Layout>),
    /// The root of a layout that changes.
    Growing(PathBuf),
}

impl Catalog {
    /// Opens a layout. A missing or empty writable directory becomes a layout.
    pub fn open(path: &Path, options: &Options, events: Events) -> Result<Catalog> {
        if !options.writable {
            return Catalog::of(Layout::open(path)?, events);
        }
        let writer = LayoutWriter::open(path, options, Arc::clone(&events))?;
        let names = Arc::clone(writer.names());
        Ok(Catalog::new(Content::Growing(path.to_owned()), names, Some(writer), events))
    }

    /// A read-only layout.
    pub fn of(mut layout: Layout, events: Events) -> Result<Catalog> {
        let path = layout.path().to_owned();
        let stored = if path.is_dir() && layout.parts().is_empty() && layout.size_of(BUNDLE_JSON).is_none() {
            // Another server may be writing to it. Content exists before its name, so names are read first.
            let stored = StoredIndex::in_directory(&path)?;
            layout = Layout::open(&path)?;
            stored
        } else {
            StoredIndex::in_layout(&layout)?
        };
        if let Some(fault) = layout.problems().first() {
            let count = layout.problems().len();
            let text = format!("{count} entries of {} are not served: {}: {}", path.display(), fault.path, fault.what);
            events.report(Event::Warning(text));
        }
        let names = Arc::new(RwLock::new(stored.names(&path, &events)?));
        Ok(Catalog::new(Content::Fixed(Box::new(layout)), names, None, events))
    }

    fn new(content: Content, names: Arc<RwLock<LayoutIndex>>, writer: Option<LayoutWriter>, events: Events) -> Catalog {
        Catalog {
            content,
            names,
            referrers: ReferrerTable::default(),
            most_deleted: MOST_DELETED,
            emptied: Mutex::default(),
            writer,
            events,
        }
    }

    /// The current names. Changes wait while they are in use.
    pub fn names(&self) -> RwLockReadGuard<'_, LayoutIndex> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that another deletion can be remembered.
    ///
    /// # Errors
    /// The maximum is reached.
    pub fn check_room_to_delete(&self) -> Result<(), RequestRefusal> {
        if self.names().count_deleted() < self.most_deleted {
            return Ok(());
        }
        let text = "too many manifests were deleted that other repositories need; delete some of them there, too";
        Err(RequestRefusal::new(429, "TOOMANYREQUESTS", text))
    }

    /// Something will be deleted in this repository.
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

    pub fn writer(&self) -> Option<&LayoutWriter> {
        self.writer.as_ref()
    }

    pub fn warn(&self, text: String) {
        self.events.report(Event::Warning(text));
    }

    /// Periodic work, independent of requests.
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

    /// The bytes of content, if it exists.
    pub fn slice(&self, digest: &Digest) -> Result<Option<Slice>> {
        let path = digest.blob_path();
        match &self.content {
            Content::Fixed(layout) => layout.slice(&path),
            Content::Growing(root) => open_file(&root.join(path)),
        }
    }

    /// Whether there is content with the valid digest `text`, which is not parsed for this.
    pub fn has(&self, text: &str) -> bool {
        let path = format!("blobs/{}", text.replacen(':', "/", 1));
        match &self.content {
            Content::Fixed(layout) => layout.size_of(&path).is_some(),
            Content::Growing(root) => root.join(path).is_file(),
        }
    }

    /// What can be served as a manifest under a digest, proven. `None` if nothing exists, or it is not listed and not a
    /// manifest. What is listed is served whatever it is.
    ///
    /// # Errors
    /// It cannot be read, or its bytes do not match the digest.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<ServedManifest>> {
        let Some(slice) = self.slice(digest)? else { return Ok(None) };
        let listed = self.names().media_type(digest);
        if slice.size() > MAX_MANIFEST_SIZE {
            return Ok(listed.map(|listed| ServedManifest { slice, content: None, listed: Some(listed) }));
        }
        let bytes = slice.read_all(MAX_MANIFEST_SIZE)?;
        let outline = match ManifestOutline::read(&bytes, listed.as_deref(), Some(digest)) {
            Err(e @ ManifestError::Digest { .. }) => return Err(damaged(&slice, e)),
            Err(_) if listed.is_none() => return Ok(None),
            read => read.ok(),
        };
        Ok(Some(ServedManifest { slice, content: Some((bytes, outline)), listed }))
    }

    /// Whether one of these manifests, or one below them, needs the content. An unreadable manifest may need everything its
    /// text names, and one that is too large may need anything.
    ///
    /// # Errors
    /// A manifest cannot be read from the disk, or its bytes do not match its digest.
    pub fn is_needed(&self, digest: &Digest, by: Vec<Digest>) -> Result<bool> {
        let (mut ahead, mut seen) = (by, HashSet::new());
        while let Some(next) = ahead.pop() {
            if next == *digest {
                return Ok(true);
            }
            if !seen.insert(next) {
                continue;
            }
            let Some(children) = self.children(&next)? else { return Ok(true) };
            for Pointed { digest: found, may_need_more } in children {
                if found == *digest {
                    return Ok(true);
                }
                // Missing content needs nothing, and an index may list any amount of it.
                if may_need_more && !seen.contains(&found) && self.slice(&found)?.is_some() {
                    ahead.push(found);
                }
            }
        }
        Ok(false)
    }

    /// What a manifest points to; `None` for anything. Content that is not a manifest points to nothing.
    fn children(&self, digest: &Digest) -> Result<Option<Vec<Pointed>>> {
        let Some(slice) = self.slice(digest)? else { return Ok(Some(vec![])) };
        let listed = self.names().media_type(digest);
        if slice.size() > MAX_MANIFEST_SIZE {
            return Ok(listed.is_none().then(Vec::new));
        }
        let bytes = slice.read_all(MAX_MANIFEST_SIZE)?;
        match Manifest::parse(bytes.clone(), listed.as_deref(), Some(digest)) {
            Ok(manifest) => {
                let pointed = |child: Child| {
                    let may_need_more = child.role == Role::Manifest;
                    Pointed { digest: child.descriptor.digest, may_need_more }
                };
                Ok(Some(manifest.children().into_iter().map(pointed).collect()))
            }
            Err(e @ ManifestError::Digest { .. }) => Err(damaged(&slice, e)),
            Err(_) => {
                let pointed = |digest| Pointed { digest, may_need_more: true };
                Ok(digests_in(&bytes).map(|all| all.into_iter().map(pointed).collect()))
            }
        }
    }
}

/// What a manifest points to.
struct Pointed {
    digest: Digest,
    /// Whether it may point to more.
    may_need_more: bool,
}

/// Content served as a manifest.
pub struct ServedManifest {
    slice: Slice,
    /// Its bytes and, if readable, its description; nothing if it is larger than any manifest.
    content: Option<(Bytes, Option<ManifestOutline>)>,
    /// Its type according to the index.
    listed: Option<MediaType>,
}

impl ServedManifest {
    /// In bytes.
    pub fn size(&self) -> u64 {
        self.slice.size()
    }

    /// Its own type takes precedence over that in the index.
    pub fn media_type(&self) -> &str {
        let own = self.outline().map(|(outline, _)| outline.media_type());
        let listed = self.listed.as_deref().filter(|text| !text.is_empty());
        own.or(listed).unwrap_or("application/octet-stream")
    }

    /// Its description and bytes.
    pub fn outline(&self) -> Option<(&ManifestOutline, &Bytes)> {
        let (bytes, outline) = self.content.as_ref()?;
        Some((outline.as_ref()?, bytes))
    }

    pub fn into_body(self) -> Body {
        match self.content {
            Some((bytes, _)) => Body::from(bytes),
            None => Body::from_stream(self.slice.stream(0).stream),
        }
    }
}

fn damaged(slice: &Slice, error: ManifestError) -> Error {
    Error::damaged(format!("reading {}", slice.path().display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::response::IntoResponse;

    use super::super::deletion;
    use super::super::names::Change;
    use super::super::request::ManifestReference;
    use crate::base::progress::Silent;
    use crate::oci::Descriptor;

    #[tokio::test]
    async fn a_deletion_that_cannot_be_remembered_is_refused_before_it_is_made() {
        let work = tempfile::tempdir().unwrap();
        let options = Options { writable: true, ..Options::at(([127, 0, 0, 1], 0).into()) };
        let mut catalog = Catalog::open(work.path(), &options, Arc::new(Silent)).unwrap();
        catalog.most_deleted = 1;
        let catalog = Arc::new(catalog);
        let writer = catalog.writer().unwrap();
        let digests: Vec<Digest> = ["one", "two"]
            .into_iter()
            .map(|content| {
                let digest = Digest::sha256(content.as_bytes());
                writer.store(&digest, content.as_bytes()).unwrap();
                for repository in ["docker.io/team/a", "docker.io/team/b"] {
                    let (repository, tag) = (repository.parse().unwrap(), content.parse().unwrap());
                    let manifest = Descriptor::new("m", digest, 3);
                    let change = Change::Tag { repository, tag, manifest, unlisted: vec![] };
                    writer.commit(&mut writer.turn(), &change).unwrap();
                }
                digest
            })
            .collect();
        let delete =
            |digest: Digest| deletion::manifest(&catalog, "team/a".into(), None, ManifestReference::Digest(digest));
        assert_eq!(delete(digests[0]).await.unwrap().status(), 202);
        assert_eq!(delete(digests[1]).await.unwrap_err().into_response().status(), 429);
        let tag = |name: &str| catalog.names().digest("team/a", None, &name.parse().unwrap());
        assert_eq!((tag("one"), tag("two")), (None, Some(digests[1])));
    }
}
