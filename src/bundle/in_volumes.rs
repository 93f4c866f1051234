//! A bundle that is written as volumes from the start: what that takes, what is there already, and how it begins.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::Contents;
use super::before::{Survey, existing_ancestor};
use super::format::{Head, MAX_SIGNATURE, Metadata, SIGNATURE, SUMS, head_of, is_signature, name_of_key};
use super::leftovers::{self, Target};
use super::open::Bundle;
use super::place::Place;
use super::proven::check_signature;
use super::volumes::{Opened, Set, SetName, Shape, VolumeFiles, claimed, reserved, there};
use super::writer::{Finished, Options};
use crate::base::error::Result;
use crate::base::fsops::{self, Entry, WriteLock};
use crate::base::progress::Events;
use crate::content::chunks::Chunks;
use crate::oci::Digest;
use crate::signing::{PrivateKey, signature_in};

/// How a bundle is written as volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volumes {
    pub shape: Shape,
    /// The number of the only one that is wanted.
    pub only: Option<u32>,
}

impl Volumes {
    /// To be asked before anything that takes time.
    ///
    /// # Errors
    /// Another run is writing them.
    pub fn check_free(out: &Path) -> Result<()> {
        WriteLock::check(&SetName::of(out).whole())
    }

    /// The bundle whose volumes have this name now, as far as they are there and whole enough to be read.
    pub fn former(out: &Path) -> Option<Bundle> {
        let paths = there(&SetName::of(out));
        if paths.is_empty() {
            return None;
        }
        Some(Opened::open(&paths).ok()?.into_bundle(None).ok()?.0)
    }

    /// The set that writing `contents` to `out` would give.
    ///
    /// # Errors
    /// The volumes would be too small; a number that none of them has.
    pub fn plan(&self, out: &Path, contents: &Contents, options: &Options) -> Result<Set> {
        let mut head = contents.head()?;
        let room = |key: &PrivateKey| Ok(vec![0; key.longest_signature()]);
        self.sign(out, &mut head, options.key.as_deref(), &room)?;
        let set = Set::of_contents(contents, (&head.files, head.identity), SetName::of(out), self.shape)?;
        set.check_number(self.only)?;
        Ok(set)
    }

    /// Adds the signatures: that of `key`, as `make` gives it. A volume that is written again gets those that its set has, because
    /// parity covers whole files.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn sign(
        &self,
        out: &Path,
        head: &mut Head,
        key: Option<&PrivateKey>,
        make: &dyn Fn(&PrivateKey) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let former = self.only.and_then(|_| Volumes::former(out));
        let former = former.filter(|former| former.identity() == head.identity);
        let mut is_signed = false;
        for path in former.iter().flat_map(|former| head_of(former.layout(), true)).filter(|path| is_signature(path)) {
            let Some(layout) = former.as_ref().map(Bundle::layout) else { continue };
            if let Some(bytes) = layout.read(&path, MAX_SIGNATURE)? {
                let is_own = |key: &PrivateKey| key.public().verifies(head.sums(), &signature_in(&bytes));
                is_signed |= key.is_some_and(is_own);
                head.files.push(Metadata { path, bytes: bytes.to_vec() });
            }
        }
        let Some(key) = key.filter(|_| !is_signed) else { return Ok(()) };
        let path = match head.files.iter().any(|file| file.path == SIGNATURE) {
            true => name_of_key(SUMS, key.public()),
            false => SIGNATURE.to_owned(),
        };
        head.files.push(Metadata { path, bytes: make(key)? });
        Ok(())
    }

    /// Whether the wanted volumes of the `planned` set are there already. With `proven` every byte is looked at, else they only
    /// look so.
    ///
    /// # Errors
    /// Something that is no volume has the name of one.
    pub fn up_to_date(
        &self,
        planned: &Set,
        proven: bool,
        options: &Options,
        events: &Events,
    ) -> Result<Option<Finished>> {
        let Some(first) = planned.wanted(self.only).next() else { return Ok(None) };
        let Ok(bundle) = Bundle::open(&planned.path_of(first)) else { return Ok(None) };
        let key = options.key.as_deref().map(|key| std::slice::from_ref(key.public()));
        let is_signed = key.is_none_or(|key| check_signature(bundle.layout(), key).is_ok());
        if bundle.identity() != planned.identity || !is_signed {
            return Ok(None);
        }
        let Ok(manifests) = bundle.manifests() else { return Ok(None) };
        let Ok(set) = Set::of_bundle(&bundle, &manifests, planned.name.clone(), self.shape) else { return Ok(None) };
        if set.check_number(self.only).is_err() || !set.is_there(self.only, proven, events)? {
            return Ok(None);
        }
        let size = set.wanted(self.only).map(|volume| volume.length).sum();
        Ok(Some(Finished { path: set.name.whole(), identity: set.identity, size, unchanged: true }))
    }
}

/// What writing them would take.
pub(super) fn survey(out: &Path, volumes: &Volumes, contents: &Contents, options: &Options) -> Result<Survey> {
    let set = volumes.plan(out, contents, options)?;
    let total = set.wanted(volumes.only).map(|volume| volume.length).fold(0, u64::saturating_add);
    let claimed = claimed(&set, volumes.only);
    let former = Volumes::former(out);
    let held = |digest: &Digest, size: u64| {
        let there = former.as_ref().and_then(|former| former.layout().size_of(&digest.blob_path()));
        claimed.contains(digest) || there == Some(size)
    };
    let elsewhere = elsewhere(&set, volumes.only, contents);
    let blobs = contents.blobs.iter().filter(|blob| elsewhere.contains(&blob.digest) || held(&blob.digest, blob.size));
    let present = blobs.map(|blob| blob.size).fold(0, u64::saturating_add);
    let recovery = if volumes.only.is_none() { set.recovery_room(false)? } else { 0 };
    let needed = total.saturating_sub(reserved(&set, volumes.only)).saturating_add(recovery);
    let free = fsops::free_space(&existing_ancestor(&set.name.whole()))?;
    Ok(Survey { total, present, needed, free })
}

/// Blobs of which nothing is in the volumes that are written.
fn elsewhere(set: &Set, only: Option<u32>, contents: &Contents) -> HashSet<Digest> {
    let held: HashSet<&str> =
        set.wanted(only).flat_map(|volume| volume.files.iter().map(|held| held.path.as_str())).collect();
    let blobs = contents.blobs.iter().map(|blob| blob.digest);
    blobs.filter(|digest| !held.contains(digest.blob_path().as_str())).collect()
}

/// Volumes that are being written.
pub(super) struct Begun {
    pub place: Arc<dyn Place>,
    pub present: HashMap<Digest, Chunks>,
    pub elsewhere: HashSet<Digest>,
}

/// Makes room, and adopts what is at hand.
pub(super) fn begin(
    out: &Entry,
    volumes: &Volumes,
    contents: &Contents,
    options: &Options,
    events: &Events,
) -> Result<Begun> {
    let set = volumes.plan(out.path(), contents, options)?;
    let elsewhere = elsewhere(&set, volumes.only, contents);
    let former = Volumes::former(out.path()).map(|former| former.into_lock_and_layout().1);
    let files = VolumeFiles::create(set, volumes.only, out, events)?;
    let mut wanted = contents.clone();
    wanted.blobs.retain(|blob| !elsewhere.contains(&blob.digest));
    let present = leftovers::adopt(out, &Target::Volumes(former.as_ref()), &files, &wanted, events)?;
    Ok(Begun { place: Arc::new(files), present, elsewhere })
}
