//! Writes, repairs and signs bundles. Recovery volumes, and volumes computed from parity, are written by
//! [`volumes`](super::volumes).
//!
//! [`Writer`] writes by position in any order. It opens a new place (a directory, a tar or volumes) or takes an open one (a
//! bundle to repair or sign in place, a repair file). `fill` proves what is there and gets what other bundles have; missing
//! blobs are then written as into any [`Sink`]; finally everything else is written, synced and named. [`one_pass`] writes the
//! same list of files in order, to an output that takes each byte once.

mod ahead;
pub mod compressed;
mod fetch_blob;
mod fill;
mod links;
pub mod one_pass;
pub mod sink;
mod supply;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::base::blocking::blocking;
use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::{self, Entry, WriteLock};
use crate::base::progress::units::bytes;
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::fileset::{FileSet, KnownFile};
use crate::bundle::open::Bundle;
use crate::bundle::options::{Finished, Form, Options, is_tar};
use crate::bundle::output::directory::{self, DirectoryOutput};
use crate::bundle::output::tar::{self, TarOutput};
use crate::bundle::output::{Placement, WantedBlob};
use crate::bundle::volumes::{self, SetName, VolumesOutput};
use crate::bundle::{plan_volumes, preflight, stamp};
use crate::content::chunks::Chunks;
use crate::content::{Lookup, Origin, Readable, Sink, Stored, TagDeletion};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use fill::fill;
pub use links::Links;
pub use supply::{Blobs, Supply};

/// A bundle that is being written. If dropped before [`Writer::finish`], it leaves its content for the next run.
pub struct Writer {
    out: PathBuf,
    place: Arc<dyn Placement>,
    files: FileSet,
    events: Events,
    /// The blobs that are in place.
    done: Mutex<HashMap<Digest, Chunks>>,
    /// Blobs that are in none of the selected volumes.
    elsewhere: HashSet<Digest>,
    /// Volumes that were already complete.
    whole: BTreeSet<u32>,
    /// The form of a new bundle.
    form: Option<Form>,
    links: Arc<Links>,
    /// In bytes.
    total: u64,
    lock: Arc<WriteLock>,
}

/// Where a bundle is written, and what is there of it.
struct Begun {
    place: Arc<dyn Placement>,
    /// The bundle that has the name now.
    former: Option<Bundle>,
    elsewhere: HashSet<Digest>,
    whole: BTreeSet<u32>,
}

impl Writer {
    /// Removes what an unfinished run has left next to `out`, which is already the wanted bundle.
    ///
    /// # Errors
    /// Another run is writing it, or the disk fails.
    pub fn abandon(out: &Path) -> Result<()> {
        let out = &fsops::canonicalize(out)?;
        let lock = WriteLock::take(out)?;
        if is_tar(out) { tar::abandon(lock.output()) } else { directory::abandon(lock.output()) }
    }

    /// Starts or continues writing. What is there already, and what the supplies have, is proven and used.
    ///
    /// # Errors
    /// There is no space or permission, another run has the same output, or `out` is not a bundle.
    pub fn create(out: &Path, files: FileSet, options: Options, events: Events) -> Result<Writer> {
        Writer::create_holding(None, out, files, options, events)
    }

    /// Does the same for a caller that may already hold the lock on `out`.
    ///
    /// # Errors
    /// As for [`Writer::create`].
    pub(super) fn create_holding(
        lock: Option<WriteLock>,
        out: &Path,
        files: FileSet,
        options: Options,
        events: Events,
    ) -> Result<Writer> {
        let survey = preflight::survey(out, &files, &options)?;
        let out = match options.form {
            Form::Volumes(_) => SetName::of(out).whole(),
            Form::Directory | Form::Tar | Form::Compressed => fsops::canonicalize(out)?,
        };
        if survey.needed > survey.free {
            let place = fsops::parent(&out).display();
            let text = format!(
                "writing {}: it needs {} more, {place} has {} left",
                out.display(),
                bytes(survey.needed),
                bytes(survey.free)
            );
            return Err(Error::disk_full(text));
        }
        fsops::Dir::create(fsops::parent(&out))?;
        let lock = lock.map_or_else(|| WriteLock::take(&out), Ok)?;
        let Begun { place, former, elsewhere, whole } = begin(lock.output(), &files, &options, &events)?;
        let (of_former, links) = (Links::of_former(), Arc::new(Links::new(options.link, events.clone())));
        let former =
            former.as_ref().map(|former| Supply { blobs: former.layout(), links: &of_former, phase: Phase::Recheck });
        let supplies = options.supplies.iter();
        let supplies = supplies.map(|layout| Supply { blobs: &**layout, links: &links, phase: Phase::Transfer });
        let supplies: Vec<Supply<'_>> = former.into_iter().chain(supplies).collect();
        let mut wanted = files.wanted();
        wanted.retain(|digest, _| !elsewhere.contains(digest));
        let done = Mutex::new(fill(&*place, &wanted, &supplies, &events)?);
        let (form, total) = (Some(options.form), survey.total);
        Ok(Writer { out, place, files, events, done, elsewhere, whole, form, links, total, lock: Arc::new(lock) })
    }

    /// Starts writing to an open place whose files are under `lock`: a bundle to repair or sign in place, or a repair file.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn into_place(
        lock: WriteLock,
        place: Arc<dyn Placement>,
        files: FileSet,
        supplies: &[Supply<'_>],
        events: Events,
    ) -> Result<Writer> {
        let done = Mutex::new(fill(&*place, &files.wanted(), supplies, &events)?);
        let (out, total, links) = (lock.output().path().to_owned(), files.size(), Arc::new(Links::copying()));
        let (elsewhere, whole) = (HashSet::new(), BTreeSet::new());
        Ok(Writer { out, place, files, events, done, elsewhere, whole, form: None, links, total, lock: Arc::new(lock) })
    }

    /// Whether this blob is in place.
    pub fn holds(&self, digest: &Digest) -> bool {
        self.elsewhere.contains(digest) || self.done.lock().unwrap_or_else(PoisonError::into_inner).contains_key(digest)
    }

    /// The blobs that are not in place yet.
    pub fn missing(&self) -> impl Iterator<Item = &Descriptor> {
        self.files.blobs.iter().filter(|blob| !self.holds(&blob.digest))
    }

    /// The numbers of the volumes that existed and are right.
    pub fn whole_volumes(&self) -> &BTreeSet<u32> {
        &self.whole
    }

    /// The lock on the output, which can be held longer than the writer.
    pub fn lock(&self) -> Arc<WriteLock> {
        self.lock.clone()
    }

    /// Number of blobs that are links to files of the source or share their bytes.
    pub fn linked(&self) -> u64 {
        self.links.linked()
    }

    /// The chunks of each blob that was written.
    pub(super) fn known(&self) -> HashMap<Digest, Chunks> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finishes the bundle: metadata, sync, name.
    ///
    /// # Errors
    /// A blob is still missing, or the disk fails.
    pub fn finish(self) -> Result<Finished> {
        let known = self.complete()?;
        // A set does not contain chunks.b3, which would have to be complete before the first volume is.
        let trailer = match self.form {
            Some(Form::Volumes(_)) => Vec::new(),
            _ => self.files.trailer(&known)?,
        };
        self.seal(&trailer, &known)
    }

    /// Does the same with these files after the blobs.
    ///
    /// # Errors
    /// As for [`Writer::finish`].
    pub(super) fn finish_with(self, trailer: &[KnownFile]) -> Result<Finished> {
        let known = self.complete()?;
        self.seal(trailer, &known)
    }

    /// The chunks of every blob and manifest.
    fn complete(&self) -> Result<HashMap<Digest, Chunks>> {
        if let Some(missing) = self.missing().next() {
            return Err(Error::damaged(format!("sealing {}: blob {} is missing", self.out.display(), missing.digest)));
        }
        let mut known = self.known();
        for manifest in &self.files.manifests {
            known.insert(manifest.digest(), Chunks::of(&manifest.bytes()?));
        }
        Ok(known)
    }

    fn seal(self, trailer: &[KnownFile], known: &HashMap<Digest, Chunks>) -> Result<Finished> {
        self.events.report(Event::Phase { phase: Phase::Sync, items: 1, bytes: 0 });
        let mut size = self.total;
        if self.form == Some(Form::Directory) {
            let known: u64 = self.files.head.iter().chain(trailer).map(KnownFile::size).sum();
            size = self.files.content_size().saturating_add(known);
        }
        self.place.seal(&self.files, trailer, known)?;
        self.events.report(Event::ItemDone);
        // Not everything of an existing bundle was proven. Volumes have marks of their own, and a tar with the name of the set
        // is another file.
        if matches!(self.form, Some(Form::Directory | Form::Tar))
            && let Some(state) = stamp::FilesStamp::of(&self.out)
        {
            state.mark(&self.out);
        }
        Ok(Finished { path: self.out, identity: self.files.identity, size, unchanged: false })
    }
}

/// Opens the requested form.
fn begin(output: &Entry, files: &FileSet, options: &Options, events: &Events) -> Result<Begun> {
    if let Form::Volumes(asked) = &options.form {
        let set = plan_volumes::plan(output.path(), files, asked)?;
        let whole = volumes::whole(&set, &asked.selection, events);
        let former = plan_volumes::former(output.path());
        let place = VolumesOutput::create(set, asked.selection.clone(), &whole, &options.replaceable, output, events)?;
        let elsewhere = place.elsewhere(files);
        return Ok(Begun { place: Arc::new(place), former, elsewhere, whole });
    }
    let place: Arc<dyn Placement> = match options.form == Form::Tar {
        true => {
            let blobs = files.blobs.iter().map(|blob| blob.digest);
            Arc::new(TarOutput::create(output, files.tar()?, blobs, events)?)
        }
        false => Arc::new(DirectoryOutput::create(output, files, events)?),
    };
    let former = Bundle::open(output.path()).ok();
    // This checks the same occupant that the placement has recorded.
    preflight::refuse_foreign(output.path(), &options.form)?;
    Ok(Begun { place, former, elsewhere: HashSet::new(), whole: BTreeSet::new() })
}

impl Writer {
    /// Returns `None` if the blob must be copied.
    async fn link(&self, blob: &Descriptor, origin: &Origin<'_>) -> Result<Option<Chunks>> {
        if self.place.linking().is_none() {
            return Ok(None);
        }
        let Some(offered) = self.links.offered(blob, origin)? else { return Ok(None) };
        let wanted = WantedBlob { digest: blob.digest, size: blob.size };
        let (place, links, events) = (self.place.clone(), self.links.clone(), self.events.clone());
        let take = move || {
            let WantedBlob { digest, size } = wanted;
            events.report(Event::BlobStarted { digest, size, present: 0 });
            let progress = |bytes| events.report(Event::BlobAdvanced { digest, bytes });
            let taken = place.linking().map_or(Ok(None), |linking| links.take(linking, wanted, &offered, &progress));
            events.report(Event::BlobFinished { digest });
            taken
        };
        blocking("linking", take).await
    }
}

#[async_trait]
impl Sink for Writer {
    async fn has_blob(&self, _: &Repository, blob: &Descriptor) -> Result<bool> {
        Ok(self.holds(&blob.digest))
    }

    /// It has proven its content.
    async fn can_read(&self, _: &Repository, _: &Descriptor) -> Result<Readable> {
        Ok(Readable::Yes)
    }

    async fn resolve(&self, _: &Reference) -> Result<Lookup> {
        Ok(Lookup::Absent)
    }

    async fn read_manifest(&self, _: &Reference) -> Result<Option<Manifest>> {
        Ok(None)
    }

    async fn has_no_tags(&self, _: &Repository) -> Result<bool> {
        Ok(false)
    }

    /// A bundle has no repositories: content exists for all of them.
    async fn mount(&self, _: &Repository, blob: &Descriptor, _: &Repository) -> Result<bool> {
        Ok(self.holds(&blob.digest))
    }

    async fn put_blob(&self, _: &Repository, blob: &Descriptor, origin: &Origin<'_>) -> Result<()> {
        if self.holds(&blob.digest) {
            return Ok(());
        }
        let chunks = match self.link(blob, origin).await? {
            Some(chunks) => chunks,
            None => fetch_blob::fetch(self.place.clone(), blob, origin).await?,
        };
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(blob.digest, chunks);
        Ok(())
    }

    /// Referrers follow from the manifests themselves.
    async fn is_listed(&self, _: &Repository, _: &Manifest) -> Result<bool> {
        Ok(true)
    }

    /// Manifests are part of the contents from the start; they are written at the end.
    async fn put_manifest(&self, reference: &Reference, manifest: &Manifest) -> Result<Stored> {
        let known = self.files.manifests.iter().any(|known| known.digest() == manifest.digest());
        let text = || format!("writing {}: {reference} does not belong to it", self.out.display());
        if known { Ok(Stored::Listed) } else { Err(Error::new(Kind::Input, text())) }
    }

    async fn delete_tag(&self, _: &Reference) -> Result<TagDeletion> {
        Ok(TagDeletion::Unsupported)
    }

    async fn delete_manifest(&self, _: &Repository, _: &Digest) -> Result<TagDeletion> {
        Ok(TagDeletion::Unsupported)
    }

    /// Nothing superfluous was started; [`Writer::finish`] finishes the bundle.
    async fn finish(&self) {}
}
