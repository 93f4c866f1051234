//! Writing a bundle: room is made, what is at hand is adopted, blobs come in, then it is sealed and named.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::before::tar_plan;
use super::directory::{self, Directory};
use super::in_volumes::{self, Volumes};
use super::leftovers::{self, Target};
use super::links::Links;
use super::place::{Place, Sealing};
use super::tarfile::{self, TarFile};
use super::volumes::SetName;
use super::{Contents, bytes_in, chunks, is_signature, signed, stamp};
use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::{self, WriteLock};
use crate::base::progress::units::bytes;
use crate::base::progress::{Event, Events, Phase};
use crate::content::chunks::Chunks;
use crate::content::{LinkMode, Lookup, Origin, Readable, Sink, Stored};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use crate::signing::PrivateKey;

/// How a bundle is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the directory form takes blobs that their source keeps as files; every other blob is copied.
    pub link: LinkMode,
    /// The device where a link is likely to succeed: no room is asked for there.
    pub device: Option<u64>,
    /// Signs the bundle.
    pub key: Option<Arc<PrivateKey>>,
    /// It is written as volumes.
    pub volumes: Option<Volumes>,
}

impl Options {
    /// Every blob is copied.
    pub fn copying() -> Options {
        Options { link: LinkMode::Copy, device: None, key: None, volumes: None }
    }
}

/// A bundle that is complete and has its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub path: PathBuf,
    /// sha256 of `bundle.json`.
    pub identity: Digest,
    /// In bytes.
    pub size: u64,
    /// It was there already, the same.
    pub unchanged: bool,
}

/// A bundle that is being written. Dropped before [`Writer::finish`], it leaves what it has for the next run.
pub struct Writer {
    out: PathBuf,
    place: Arc<dyn Place>,
    contents: Contents,
    key: Option<Arc<PrivateKey>>,
    events: Events,
    /// The blobs that are in place.
    done: Mutex<HashMap<Digest, Chunks>>,
    /// Blobs of volumes that are not written.
    elsewhere: HashSet<Digest>,
    volumes: Option<Volumes>,
    links: Links,
    total: u64,
    _lock: WriteLock,
}

pub(super) fn is_tar(out: &Path) -> bool {
    Writer::is_tar(out)
}

impl Writer {
    /// `OUT` ending in `.tar` means the tar form.
    pub fn is_tar(out: &Path) -> bool {
        out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
    }

    /// Removes what an unfinished run has left beside `out`, which turned out to be what is wanted.
    ///
    /// # Errors
    /// Another run is writing it, or the disk's.
    pub fn abandon(out: &Path) -> Result<()> {
        let out = &fsops::canonicalize(out)?;
        let lock = WriteLock::take(out)?;
        if is_tar(out) { tarfile::abandon(lock.output()) } else { directory::abandon(lock.output()) }
    }

    /// Begins (or continues) writing. Blobs that are at hand are proven and adopted.
    ///
    /// # Errors
    /// No room, no right to write, another run on the same output, or an `out` that is not a bundle.
    pub fn create(out: &Path, contents: Contents, options: Options, events: Events) -> Result<Writer> {
        let survey = Writer::survey(out, &contents, &options)?;
        let out = &match &options.volumes {
            Some(_) => SetName::of(out).whole(),
            None => fsops::canonicalize(out)?,
        };
        if survey.needed > survey.free {
            let place = fsops::parent(out).display();
            let text = format!(
                "writing {}: it needs {} more, {place} has {} left",
                out.display(),
                bytes(survey.needed),
                bytes(survey.free)
            );
            return Err(Error::disk_full(text));
        }
        let parent = fsops::parent(out);
        std::fs::create_dir_all(parent).map_err(|e| Error::disk("creating", parent, e))?;
        let lock = WriteLock::take(out)?;
        let output = lock.output();
        let mut elsewhere = HashSet::new();
        let (place, present): (Arc<dyn Place>, _) = if let Some(volumes) = &options.volumes {
            let begun = in_volumes::begin(output, volumes, &contents, &options, &events)?;
            elsewhere = begun.elsewhere;
            (begun.place, begun.present)
        } else if is_tar(out) {
            let plan = tar_plan(&contents, &contents.head()?, options.key.as_deref())?;
            let tar = TarFile::create(output, plan, contents.blobs.iter().map(|blob| blob.digest), &events)?;
            let present = leftovers::adopt(output, &Target::Tar, &tar, &contents, &events)?;
            leftovers::tell_lost(out, tarfile::drop_former(output, |digest| present.contains_key(digest)), &events);
            (Arc::new(tar), present)
        } else {
            let directory = Directory::create(output)?;
            let present = leftovers::adopt(output, &Target::Directory(&directory), &directory, &contents, &events)?;
            (Arc::new(directory), present)
        };
        let (out, key) = (out.to_owned(), options.key);
        let (done, links) = (Mutex::new(present), Links::new(options.link, events.clone()));
        let (volumes, total) = (options.volumes, survey.total);
        Ok(Writer { out, place, contents, key, events, done, elsewhere, volumes, links, total, _lock: lock })
    }

    /// Whether this blob is in place.
    pub fn holds(&self, digest: &Digest) -> bool {
        self.elsewhere.contains(digest) || self.done.lock().unwrap_or_else(PoisonError::into_inner).contains_key(digest)
    }

    /// How many blobs are links to files of the source, or share their bytes.
    pub fn linked(&self) -> u64 {
        self.links.linked()
    }

    /// Seals the bundle: metadata, sync, name.
    ///
    /// # Errors
    /// A blob is still missing, or the disk fails.
    pub fn finish(self) -> Result<Finished> {
        if let Some(missing) = self.contents.blobs.iter().find(|blob| !self.holds(&blob.digest)) {
            return Err(Error::damaged(format!("sealing {}: blob {} is missing", self.out.display(), missing.digest)));
        }
        self.events.report(Event::Phase { phase: Phase::Sync, items: 1, bytes: 0 });
        let mut known = std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner));
        for manifest in &self.contents.manifests {
            known.insert(manifest.digest(), Chunks::of(&manifest.bytes()?));
        }
        let mut head = self.contents.head()?;
        let identity = head.identity;
        match (&self.volumes, &self.key) {
            (Some(volumes), key) => {
                let sums = head.sums().to_vec();
                volumes.sign(&self.out, &mut head, key.as_deref(), &|key| key.sign(&sums))?;
            }
            (None, Some(key)) => signed::sign_head(&mut head, key)?,
            (None, None) => {}
        }
        let mut metadata = head.files;
        // A set holds no chunks.b3: it would have to be complete before the first volume is.
        if self.volumes.is_none() {
            let mut writer = chunks::Writer::new(identity);
            for (digest, _) in self.contents.all() {
                let missing = || Error::damaged(format!("sealing {}: {digest} is missing", self.out.display()));
                writer.add(known.get(&digest).ok_or_else(missing)?);
            }
            metadata.extend(signed::trailer(writer.finish(), self.key.as_deref())?);
        }
        let mut size = self.total;
        if !is_tar(&self.out) && self.volumes.is_none() {
            let signatures = metadata.iter().filter(|file| is_signature(&file.path));
            let spared = signatures.filter_map(|file| Some(self.key.as_ref()?.longest_signature() - file.bytes.len()));
            size -= spared.sum::<usize>() as u64;
        }
        let (mtime, manifests) = (self.contents.lock.mtime(), &self.contents.manifests[..]);
        let tools = &self.contents.tools;
        self.place.seal(&Sealing { metadata: &metadata, tools, manifests, mtime, chunks: &known })?;
        self.events.report(Event::ItemDone);
        if let Some(state) = stamp::State::of(&self.out) {
            state.mark(&self.out);
        }
        Ok(Finished { path: self.out, identity, size, unchanged: false })
    }
}

#[async_trait]
impl Sink for Writer {
    async fn has_blob(&self, _: &Repository, blob: &Descriptor) -> Result<bool> {
        Ok(self.holds(&blob.digest))
    }

    /// What it holds it has proven.
    async fn can_read(&self, _: &Repository, _: &Descriptor) -> Result<Readable> {
        Ok(Readable::Yes)
    }

    async fn resolve(&self, _: &Reference) -> Result<Lookup> {
        Ok(Lookup::Absent)
    }

    async fn read_manifest(&self, _: &Reference) -> Result<Option<Manifest>> {
        Ok(None)
    }

    /// A bundle has no repositories: what is there is there for all.
    async fn mount(&self, _: &Repository, blob: &Descriptor, _: &Repository) -> Result<bool> {
        Ok(self.holds(&blob.digest))
    }

    async fn put_blob(&self, _: &Repository, blob: &Descriptor, origin: &Origin<'_>) -> Result<()> {
        if self.holds(&blob.digest) {
            return Ok(());
        }
        let linked = if is_tar(&self.out) || self.volumes.is_some() {
            None
        } else {
            self.links.bring(&self.place, blob, origin).await?
        };
        let chunks = match linked {
            Some(chunks) => chunks,
            None => bytes_in::fetch(self.place.clone(), blob, origin).await?,
        };
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(blob.digest, chunks);
        Ok(())
    }

    /// Manifests are part of the contents from the start; they are written when the bundle is sealed.
    async fn put_manifest(&self, reference: &Reference, manifest: &Manifest) -> Result<Stored> {
        let known = self.contents.manifests.iter().any(|known| known.digest() == manifest.digest());
        let text = || format!("writing {}: {reference} is not part of it", self.out.display());
        if known { Ok(Stored::Listed) } else { Err(Error::new(Kind::Input, text())) }
    }
}
