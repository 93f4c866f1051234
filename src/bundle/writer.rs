//! Writing a bundle: room is made, what is at hand is adopted, blobs come in, then it is sealed and named.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::directory::{self, Directory};
use super::format::{self, Known, Metadata};
use super::in_volumes::{self, Volumes};
use super::leftovers::{self, Target};
use super::links::Links;
use super::medium::{self, WriteLock};
use super::offsets::TarPlan;
use super::open::Bundle;
use super::place::{Place, Sealing};
use super::stream::Compressed;
use super::tarfile::{self, TarFile};
use super::tools::are_those_of;
use super::volumes::SetName;
use super::{BUNDLE_JSON, Contents, bytes_in, signed, stamp};
use crate::content::chunks::Chunks;
use crate::content::{LinkMode, Origin, Sink, Slice};
use crate::error::{Error, Kind, Result};
use crate::oci::{Algorithm, Descriptor, Digest, Manifest, Reference, Repository};
use crate::progress::units::bytes;
use crate::progress::{Event, Events, Phase};
use crate::signing::PrivateKey;

/// How a bundle is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Named in `bundle.json`, for people: program and version.
    pub tool: String,
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
    pub fn copying(tool: impl Into<String>) -> Options {
        Options { tool: tool.into(), link: LinkMode::Copy, device: None, key: None, volumes: None }
    }
}

/// How much is read to call a bundle whole.
#[derive(Clone, Copy)]
pub enum Whole<'a> {
    /// That every file is there, with its size.
    BySizes,
    /// Every byte, here and now or, where no file was touched since, earlier on this machine.
    Proven(&'a Events),
}

/// What writing a bundle would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Length of the bundle in bytes.
    pub total: u64,
    /// Bytes of blobs that are at hand already.
    pub present: u64,
    /// Bytes that writing takes from the file system.
    pub needed: u64,
    /// Bytes the file system has left.
    pub free: u64,
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
    tool: String,
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

fn is_tar(out: &Path) -> bool {
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
        let out = &medium::settle(out)?;
        let _lock = WriteLock::take(out)?;
        if is_tar(out) { tarfile::abandon(out) } else { directory::abandon(out) }
    }

    /// Whether `out` is already the bundle that `contents` describe, and whole. With `exact`, times count too.
    pub fn up_to_date(out: &Path, contents: &Contents, exact: bool, whole: Whole<'_>) -> Option<Finished> {
        let Contents { lock, basis, tools, .. } = contents;
        let bundle = Bundle::open(out).ok()?;
        let layout = bundle.layout();
        let right_form = layout.is_tar() == is_tar(out) && layout.is_compressed() == Compressed::is_meant(out);
        let same = if exact { *bundle.lock() == *lock } else { bundle.lock().same_content(lock) };
        let same = same && bundle.json().basis() == *basis && are_those_of(tools, bundle.json());
        if !right_form || !same || !bundle.layout().faults().is_empty() || !bundle.sizes_agree() {
            return None;
        }
        if let Whole::Proven(events) = whole
            && !(bundle.sums_agree() && stamp::is_proven(out))
        {
            let state = stamp::State::of(out);
            if !leftovers::is_proven(&bundle, events) {
                return None;
            }
            if let Some(state) = state {
                state.mark(out);
            }
        }
        let size = match out.is_file() {
            true => out.metadata().ok()?.len(),
            false => bundle.layout().entries().map(|(_, size)| size).fold(0, u64::saturating_add),
        };
        Some(Finished { path: out.to_owned(), identity: bundle.identity(), size, unchanged: true })
    }

    /// To be asked before anything that takes time, or somebody's attention.
    ///
    /// # Errors
    /// Another run is writing `out`, or something that no export has made is where this one would write.
    pub fn check_free(out: &Path) -> Result<()> {
        let out = &medium::settle(out)?;
        WriteLock::check(out)?;
        if is_tar(out) { tarfile::refuse_foreign(out) } else { directory::refuse_foreign(out) }
    }

    /// The bundle that is to be replaced, if there is one. To be asked as early as [`Writer::check_free`].
    ///
    /// # Errors
    /// `out` is something that must not be replaced. Whether a bundle may be is not asked: it may be the one that is wanted.
    pub fn former(out: &Path) -> Result<Option<Bundle>> {
        let former = Bundle::open(out).ok().filter(|bundle| bundle.layout().is_tar() == is_tar(out));
        if former.is_none() {
            refuse_foreign(&medium::settle(out)?)?;
        }
        Ok(former)
    }

    /// What writing `contents` to `out` would take; nothing is written.
    ///
    /// # Errors
    /// `out` is something that must not be replaced, or its file system does not answer.
    pub fn survey(out: &Path, contents: &Contents, options: &Options) -> Result<Survey> {
        if let Some(volumes) = &options.volumes {
            return in_volumes::survey(out, volumes, contents, options);
        }
        let out = &medium::settle(out)?;
        refuse_foreign(out)?;
        let metadata = planned(contents, options)?;
        let plan = tar_plan(contents, &metadata)?;
        let files = metadata.iter().map(|file| file.bytes.len() as u64).chain(contents.files().map(|(_, size)| size));
        let total = if is_tar(out) { plan.length } else { files.fold(0, u64::saturating_add) };
        let directory = existing_ancestor(out);
        let free = medium::free_space(&directory)?;
        let at_hand = at_hand(out, contents);
        let present = at_hand.iter().map(|(_, size)| size).sum();
        let needed = if is_tar(out) {
            plan.length.saturating_sub(tarfile::reserved(out, &plan))
        } else if options.link != LinkMode::Copy && options.device.is_some_and(|device| is_on(&directory, device)) {
            plan.length.saturating_sub(contents.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add))
        } else {
            // As in a tar: files take more room than they have bytes.
            plan.length.saturating_sub(present)
        };
        Ok(Survey { total, present, needed, free })
    }

    /// Begins (or continues) writing. Blobs that are at hand are proven and adopted.
    ///
    /// # Errors
    /// No room, no right to write, another run on the same output, or an `out` that is not a bundle.
    pub fn create(out: &Path, contents: Contents, options: Options, events: Events) -> Result<Writer> {
        let survey = Writer::survey(out, &contents, &options)?;
        let out = &match &options.volumes {
            Some(_) => SetName::of(out).whole(),
            None => medium::settle(out)?,
        };
        if survey.needed > survey.free {
            let place = medium::parent(out).display();
            let text = format!(
                "writing {}: it needs {} more, {place} has {} left",
                out.display(),
                bytes(survey.needed),
                bytes(survey.free)
            );
            return Err(Error::disk_full(text));
        }
        let parent = medium::parent(out);
        std::fs::create_dir_all(parent).map_err(|e| Error::disk("creating", parent, e))?;
        let lock = WriteLock::take(out)?;
        let mut elsewhere = HashSet::new();
        let (place, present): (Arc<dyn Place>, _) = if let Some(volumes) = &options.volumes {
            let begun = in_volumes::begin(out, volumes, &contents, &options, &events)?;
            elsewhere = begun.elsewhere;
            (begun.place, begun.present)
        } else if is_tar(out) {
            let plan = tar_plan(&contents, &planned(&contents, &options)?)?;
            let tar = TarFile::create(out, plan, contents.blobs.iter().map(|blob| blob.digest), &events)?;
            let present = leftovers::adopt(out, &Target::Tar, &tar, &contents, &events)?;
            leftovers::tell_lost(out, tarfile::drop_former(out, |digest| present.contains_key(digest)), &events);
            (Arc::new(tar), present)
        } else {
            let directory = Directory::create(out)?;
            let present = leftovers::adopt(out, &Target::Directory(&directory), &directory, &contents, &events)?;
            (Arc::new(directory), present)
        };
        let (out, tool, key) = (out.to_owned(), options.tool, options.key);
        let (done, links) = (Mutex::new(present), Links::new(options.link, events.clone()));
        let (volumes, total) = (options.volumes, survey.total);
        Ok(Writer { out, place, contents, tool, key, events, done, elsewhere, volumes, links, total, _lock: lock })
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
        let mut chunks = std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner));
        chunks.extend(self.contents.manifests.iter().map(|manifest| (manifest.digest(), Chunks::of(manifest.bytes()))));
        // Volumes repeat bundle.json: it says nothing of chunks, so that it is known before the blobs are.
        let (said, chunks) = match self.volumes {
            Some(_) => (None, chunks),
            None => (Some(chunks), HashMap::new()),
        };
        let known = Known { sha256: self.other_sums()?, chunks: said };
        let mut metadata = format::metadata(&self.contents, &self.tool, &known)?;
        let mut size = self.total;
        if let Some(key) = &self.key {
            let signature = signed::signature(key, &metadata)?;
            if !is_tar(&self.out) && self.volumes.is_none() {
                size -= (key.longest_signature() - signature.bytes.len()) as u64;
            }
            signed::put(&mut metadata, signature);
        }
        let bundle_json = metadata.iter().find(|file| file.path == BUNDLE_JSON);
        let identity = Digest::sha256(bundle_json.map_or(&[], |file| &file.bytes));
        let mtime = u64::try_from(self.contents.lock.created.as_second()).unwrap_or_default();
        let (manifests, sha256) = (&self.contents.manifests[..], &known.sha256);
        let tools = &self.contents.tools;
        self.place.seal(&Sealing { metadata: &metadata, tools, manifests, mtime, chunks: &chunks, sha256 })?;
        self.events.report(Event::ItemDone);
        if let Some(state) = stamp::State::of(&self.out) {
            state.mark(&self.out);
        }
        Ok(Finished { path: self.out, identity, size, unchanged: false })
    }

    /// sha256 of blobs that go by another algorithm: `SHA256SUMS` wants it.
    fn other_sums(&self) -> Result<HashMap<Digest, Digest>> {
        let mut sums = HashMap::new();
        for (digest, size) in self.contents.all().filter(|(digest, _)| digest.algorithm() != Algorithm::Sha256) {
            let manifest = self.contents.manifests.iter().find(|manifest| manifest.digest() == digest);
            let sum = match manifest {
                Some(manifest) => Digest::sha256(manifest.bytes()),
                None => self
                    .stored(&digest, size)?
                    .hash(Algorithm::Sha256, &|_| ())
                    .map_err(|e| Error::disk("reading", &self.out, e))?,
            };
            sums.insert(digest, sum);
        }
        Ok(sums)
    }

    fn stored(&self, digest: &Digest, size: u64) -> Result<Slice> {
        if !is_tar(&self.out) && self.volumes.is_none() {
            let path = medium::beside(&self.out, ".partial").join(digest.blob_path());
            let file = File::open(&path).map_err(|e| Error::disk("opening", &path, e))?;
            return Ok(Slice::new(Arc::new(file), path, 0, size));
        }
        let lost = || Error::damaged(format!("writing {}: {digest} has no place", self.out.display()));
        self.place.slot(digest, size)?.slice(size).ok_or_else(lost)
    }
}

#[async_trait]
impl Sink for Writer {
    async fn has_blob(&self, _: &Repository, blob: &Descriptor) -> Result<bool> {
        Ok(self.holds(&blob.digest))
    }

    async fn resolve(&self, _: &Reference) -> Result<Option<Descriptor>> {
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
    async fn put_manifest(&self, reference: &Reference, manifest: &Manifest) -> Result<()> {
        let known = self.contents.manifests.iter().any(|known| known.digest() == manifest.digest());
        let text = || format!("writing {}: {reference} is not part of it", self.out.display());
        if known { Ok(()) } else { Err(Error::new(Kind::Input, text())) }
    }
}

/// The metadata as it will be, or of the same lengths. A signature may turn out shorter; in a tar it takes the same room.
pub(super) fn planned(contents: &Contents, options: &Options) -> Result<Vec<Metadata>> {
    let known = match options.volumes {
        Some(_) => Known { sha256: HashMap::new(), chunks: None },
        None => Known::planned(),
    };
    let mut metadata = format::metadata(contents, &options.tool, &known)?;
    if let Some(room) = signed::room(options.key.as_deref()) {
        signed::put(&mut metadata, room);
    }
    Ok(metadata)
}

fn tar_plan(contents: &Contents, metadata: &[Metadata]) -> Result<TarPlan> {
    let files = metadata.iter().map(|file| (file.path.to_owned(), file.bytes.len() as u64));
    TarPlan::new(files.chain(contents.files()))
}

/// Only a bundle may be replaced by one.
pub(super) fn refuse_foreign(out: &Path) -> Result<()> {
    if out.as_os_str().as_encoded_bytes().ends_with(b".partial") {
        let text = "a name that ends in .partial is an unfinished bundle's; take another one";
        return Err(Error::input(format!("writing {}: {text}", out.display())));
    }
    if Compressed::is_meant(out) {
        let text = "only export writes compressed tars; end its name in .tar, or in nothing for a directory";
        return Err(Error::input(format!("writing {}: {text}", out.display())));
    }
    let Ok(metadata) = out.symlink_metadata() else { return Ok(()) };
    let refuse = |why: &str| Err(Error::input(format!("writing {}: {why}", out.display())));
    if metadata.is_dir() && medium::is_mount_point(out) {
        return refuse("a file system is mounted there; name a file or a directory on it");
    }
    let empty = metadata.is_dir() && std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if metadata.is_dir() && is_tar(out) {
        return refuse("a tar is to be written, and there is a directory; remove it or take another name");
    }
    match Bundle::open(out) {
        Ok(_) if metadata.is_file() && !is_tar(out) => {
            refuse("a directory is to be written, and there is a tar; remove it or take another name")
        }
        Ok(_) => Ok(()),
        Err(_) if empty => Ok(()),
        Err(error) if error.kind() == Kind::Damaged => {
            refuse("a damaged bundle is there; remove it, and all of it is fetched again")
        }
        Err(_) => refuse(
            "something is there that is not a bundle, and it is not overwritten; name another output, or take it away",
        ),
    }
}

/// Wanted blobs that seem to be there, with their sizes in bytes.
fn at_hand(out: &Path, contents: &Contents) -> Vec<(Digest, u64)> {
    let finished = Bundle::open(out).ok();
    let partial = medium::beside(out, ".partial");
    let claims = super::journal::Claims::read(&tarfile::partial(out).1).unwrap_or_default();
    let blobs = contents.blobs.iter().map(|blob| (blob.digest, blob.size));
    blobs
        .filter(|(digest, size)| {
            let path = digest.blob_path();
            claims.done.contains(digest)
                || finished.as_ref().is_some_and(|bundle| bundle.layout().size_of(&path) == Some(*size))
                || partial.join(&path).metadata().is_ok_and(|metadata| metadata.len() == *size)
        })
        .collect()
}

fn is_on(directory: &Path, device: u64) -> bool {
    directory.metadata().is_ok_and(|metadata| metadata.dev() == device)
}

/// The directory that `out` is to be in, or the nearest above that is there.
pub(super) fn existing_ancestor(out: &Path) -> PathBuf {
    let mut directory = medium::parent(out);
    while !directory.exists() {
        directory = medium::parent(directory);
    }
    directory.to_owned()
}
