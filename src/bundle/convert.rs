//! Writes an existing bundle in another form. It keeps its identity and its signatures.
//!
//! # Threats
//! The bundle may be damaged or change while it is read. Every file is proven by `bundle.json` while it is copied, and nothing
//! gets the name of a bundle or a volume before it is complete.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::fileset::{FileSet, KnownFile, Trailer};
use super::format::{CHUNKS, DIGITS, MAX_SIGNATURE, MOST_SIGNATURES, SUMS, is_signature, signatures_of, signed_file};
use super::open::Bundle;
use super::options::{Finished, Form, Options};
use super::preflight::{self, Whole};
use super::writer::Writer;
use super::writer::one_pass::{StreamWriter, Streamed};
use super::writer::sink::StreamSink;
use crate::base::error::{Error, Result};
use crate::base::fsops::WriteLock;
use crate::base::progress::{Event, Events};
use crate::content::proof::{Unproven, Wrong, prove};
use crate::files::Layout;
use crate::oci::{Descriptor, Digest, Repository};
use crate::signing::{is_well_formed, signature_in};
use crate::spool::Kept;

/// Parallel blobs for a single pass.
const JOBS: usize = 2;

/// A bundle to write in another form.
pub struct Conversion {
    pub files: FileSet,
    source: Arc<Layout>,
    /// The repository to ask for each blob; a layout has all blobs in every repository.
    repository: Option<Repository>,
}

/// The result of a conversion.
#[derive(Clone, Debug)]
pub struct WrittenForm {
    pub finished: Finished,
    /// Numbers of the volumes that existed already and are unchanged.
    pub unchanged_volumes: BTreeSet<u32>,
    /// Blobs that are links to files of the source or share their bytes.
    pub linked: u64,
    /// Held so that no other run writes before the recovery volumes are done. `None` if nothing was written.
    pub lock: Option<Arc<WriteLock>>,
}

impl Conversion {
    /// Reads and proves everything of `bundle` except blobs. A file that has the name of a signature but is not one is left
    /// out with a notice, because it would be a problem in the copy.
    ///
    /// # Errors
    /// The bundle is visibly damaged even without reading all of it.
    pub fn of(bundle: Bundle, events: &Events) -> Result<Conversion> {
        if !bundle.layout().problems().is_empty() || !bundle.sums_agree() || !bundle.sizes_agree() {
            return Err(damaged(bundle.layout()));
        }
        let mut conversion = Conversion::of_part(bundle)?;
        for path in conversion.files.remove_malformed_signatures()? {
            report_left_out(conversion.source.path(), &path, events);
        }
        Ok(conversion)
    }

    /// Of a bundle that must contain only what is written.
    ///
    /// # Errors
    /// A file that every form has is damaged.
    pub(super) fn of_part(bundle: Bundle) -> Result<Conversion> {
        let files = FileSet::of_bundle(&bundle)?;
        let repository = bundle.lock().images.first().map(|image| image.reference.repository.clone());
        let (_, layout) = bundle.into_lock_and_layout();
        Ok(Conversion { files, source: Arc::new(layout), repository })
    }

    /// Writes the bundle to `out` as a directory, a tar or volumes. Complete files that exist already are kept.
    ///
    /// # Errors
    /// A file of the bundle is not what `bundle.json` states, in which case nothing gets its name; something is in the way; or
    /// the disk is full or fails.
    pub fn write(self, out: &Path, options: Options, events: &Events) -> Result<WrittenForm> {
        self.write_holding(None, out, options, events)
    }

    /// Does the same for a caller that may already hold the lock on `out`.
    ///
    /// # Errors
    /// As for [`Conversion::write`].
    pub(super) fn write_holding(
        self,
        lock: Option<WriteLock>,
        out: &Path,
        options: Options,
        events: &Events,
    ) -> Result<WrittenForm> {
        if !matches!(options.form, Form::Volumes(_))
            && let Some(finished) = self.there(out, events)?
        {
            return Ok(WrittenForm { finished, unchanged_volumes: BTreeSet::new(), linked: 0, lock: None });
        }
        let source = self.source.clone();
        let options = Options { supplies: vec![self.source], ..options };
        let writer = Writer::create_holding(lock, out, self.files, options, events.clone())?;
        if let Some(wrong) = writer.missing().next() {
            return Err(why(&source, wrong));
        }
        let (unchanged_volumes, linked, lock) = (writer.whole_volumes().clone(), writer.linked(), Some(writer.lock()));
        let finished = writer.finish()?;
        Ok(WrittenForm { finished, unchanged_volumes, linked, lock })
    }

    /// Writes the bundle as a tar in a single pass.
    ///
    /// # Errors
    /// As for [`StreamWriter::write`].
    pub async fn stream(&self, sink: impl StreamSink + 'static, events: &Events) -> Result<Streamed> {
        let place = |blob: &Descriptor| Some((blob.digest, self.repository.clone()?));
        let places: HashMap<Digest, Repository> = self.files.blobs.iter().filter_map(place).collect();
        let writer = StreamWriter { files: &self.files, source: &*self.source, places, jobs: JOBS, events };
        writer.write(sink).await
    }

    /// Adds the signatures of the same bundle at the output, which would otherwise be lost. Files that are not signatures are
    /// skipped with a notice.
    ///
    /// # Errors
    /// A signature cannot be read, or was spooled and cannot be read back.
    pub fn keep_signatures_of(&mut self, out: &Path, events: &Events) -> Result<()> {
        let Some(former) = Bundle::open(out).ok().filter(|former| former.identity() == self.files.identity) else {
            return Ok(());
        };
        let layout = former.layout();
        for signed in [SUMS, CHUNKS] {
            for path in signatures_of(layout, signed) {
                let Some(bytes) = layout.read(path, MAX_SIGNATURE).ok().flatten() else { continue };
                if !is_well_formed(&signature_in(&bytes)) {
                    report_left_out(out, path, events);
                    continue;
                }
                let own = signatures(&self.files)?;
                let of_file = own.iter().filter(|(path, _)| signed_file(path) == Some(signed));
                let is_there = own.iter().any(|(_, own)| signature_in(own) == signature_in(&bytes));
                if is_there || of_file.count() >= MOST_SIGNATURES {
                    continue;
                }
                // The name is only a hint at the key.
                let mut digits = Digest::sha256(&bytes).hex();
                digits.truncate(DIGITS);
                let is_taken = own.iter().any(|(own, _)| *own == path);
                let path = if is_taken { format!("{signed}.{digits}.sig") } else { path.to_owned() };
                self.files.add_signature(KnownFile { path, bytes: Kept::new(&bytes) })?;
            }
        }
        Ok(())
    }

    /// The bundle at `out`, if it is this bundle in the form that its name means, with exactly these signatures, and complete.
    ///
    /// # Errors
    /// One of its signatures cannot be read.
    pub fn there(&self, out: &Path, events: &Events) -> Result<Option<Finished>> {
        if preflight::up_to_date(out, self.files.identity, Whole::BySizes).is_none() {
            return Ok(None);
        }
        let there = FileSet::of_bundle(&Bundle::open(out)?)?;
        if signatures(&there)? != signatures(&self.files)? {
            return Ok(None);
        }
        Ok(preflight::up_to_date(out, self.files.identity, Whole::Proven(events)))
    }
}

fn report_left_out(bundle: &Path, path: &str, events: &Events) {
    let text = format!("{}: {path} is not a signature and is left out", bundle.display());
    events.report(Event::Notice(text));
}

/// The path and bytes of every signature.
fn signatures(files: &FileSet) -> Result<Vec<(&str, bytes::Bytes)>> {
    let of_chunks = match &files.trailer {
        Some(Trailer::Copied(signatures)) => &signatures[..],
        Some(Trailer::Signed(_)) | None => &[],
    };
    let all = files.head.iter().filter(|file| is_signature(&file.path)).chain(of_chunks);
    all.map(|file: &KnownFile| Ok((file.path.as_str(), file.read()?))).collect()
}

fn damaged(layout: &Layout) -> Error {
    let path = layout.path().display();
    Error::damaged(format!("{path} is damaged, so it is not copied; `gapferry verify` says where"))
}

/// Why a blob could not be copied.
fn why(source: &Layout, blob: &Descriptor) -> Error {
    let slice = match source.slice(&blob.digest.blob_path()) {
        Ok(Some(slice)) => slice,
        Ok(None) => return Error::damaged(format!("{} has no {}", source.path().display(), blob.digest.blob_path())),
        Err(error) => return error,
    };
    match prove(&slice, &blob.digest, &|_| ()) {
        Err(Unproven::Wrong(Wrong { found, .. })) => slice.wrong(found),
        Err(Unproven::Unreadable(error)) => Error::disk("reading", slice.path(), error),
        Ok(()) => Error::damaged(format!("{} changed while it was being copied", slice.path().display())),
    }
}
