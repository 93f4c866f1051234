//! Signs an existing bundle.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::convert::Conversion;
use super::fileset::{FileSet, KnownFile};
use super::format::{
    CHUNKS, MAX_SIGNATURE, MOST_SIGNATURES, Metadata, SUMS, VOLUMES, is_signature, name_of_key, signatures_of,
};
use super::open::{Bundle, refuse_compressed};
use super::options::{Form, Options};
use super::output::Placement;
use super::output::existing_directory::ExistingDirectory;
use super::output::existing_tar::ExistingTar;
use super::prove_files::chunks_of;
use super::signature::check_signature;
use super::writer::Writer;
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, WriteLock};
use crate::base::progress::Events;
use crate::files::Layout;
use crate::oci::Digest;
use crate::signing::{PrivateKey, is_well_formed, signature_in};

/// What to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignScope {
    /// The sums, which list every file with its digest.
    Sums,
    /// Also `chunks.b3`, after proving every digest.
    Full,
}

/// Signs an existing bundle. A signature by the same key is replaced, and no other. In a directory, and in a tar that already
/// has a signature by the key, nothing else changes; any other tar is written again next to the old one and takes its name.
/// Returns the bundle's identity.
///
/// # Errors
/// The sums disagree with `bundle.json`, or files have other sizes or, with [`SignScope::Full`], other bytes: such a bundle is
/// not signed. There are as many signatures as allowed. The disk fails.
pub fn sign(path: &Path, key: &PrivateKey, scope: SignScope, events: &Events) -> Result<Digest> {
    let path = &fsops::canonicalize(path)?;
    let lock = WriteLock::take(path)?;
    // Opened first, because that removes what a killed run has left in it.
    let directory = if path.is_dir() { Some(ExistingDirectory::open(lock.output())?) } else { None };
    let bundle = Bundle::open(path)?;
    refuse_compressed(bundle.layout())?;
    if bundle.layout().entries().any(|(file, _)| file.starts_with(VOLUMES)) {
        let text = "it is a volume: sign the bundle before you split it, or join the volumes with `gapferry join`, \
                    sign the result, and split it again";
        return Err(Error::input(format!("signing {}: {text}", path.display())));
    }
    if let Some(files) = bundle.undeclared(|_| false) {
        let path = path.display();
        return Err(Error::input(format!(
            "{files} in {path} does not belong to the bundle, so it is not signed: remove it first"
        )));
    }
    let damaged = || {
        let text = format!("{} is damaged, so it is not signed; `gapferry verify` says where", path.display());
        Error::damaged(text)
    };
    // The remnant of a signature must not prevent signing.
    let is_damaged = bundle.layout().problems().iter().any(|fault| !is_signature(&fault.path));
    if is_damaged || !bundle.sums_agree() || !bundle.sizes_agree() {
        return Err(damaged());
    }
    let layout = bundle.layout();
    let sums: Bytes = bundle.json().sha256sums(bundle.identity()).into_bytes().into();
    let mut new = vec![signature_of(layout, SUMS, &sums, key)?];
    if scope == SignScope::Full {
        let chunks = chunks_of(layout, bundle.json(), bundle.identity(), events).ok_or_else(damaged)?;
        let signature = signature_of(layout, CHUNKS, &chunks, key)?;
        let is_there = layout.read(CHUNKS, chunks.len() as u64).is_ok_and(|there| there.is_some_and(|it| it == chunks));
        if !is_there {
            new.push(Metadata::new(CHUNKS, chunks));
        }
        new.push(signature);
    }
    let new: Vec<KnownFile> = new.into_iter().map(KnownFile::from).collect();
    let place: Option<Arc<dyn Placement>> = match directory {
        Some(directory) => {
            directory.make_room(new.iter().map(|file| file.path.as_str()))?;
            Some(Arc::new(directory))
        }
        None => {
            let tar = ExistingTar::with_room(lock.output(), layout, bundle.json().mtime(), &new)?;
            tar.map(|tar| -> Arc<dyn Placement> { Arc::new(tar) })
        }
    };
    match place {
        Some(place) => {
            let files = FileSet::of_known(bundle.identity(), bundle.json().mtime(), new);
            Writer::into_place(lock, place, files, &[], events.clone())?.finish()?;
        }
        None => write_anew(path, lock, bundle, new, events)?,
    }
    let after = check_signature(&Layout::open(path)?, std::slice::from_ref(key.public()))?;
    Ok(after.identity)
}

/// The signature by `key`, under the name it already has or else a free one.
fn signature_of(layout: &Layout, signed: &str, bytes: &[u8], key: &PrivateKey) -> Result<Metadata> {
    let there = signatures_of(layout, signed);
    let is_own = |path: &&&str| {
        let file = layout.read(path, MAX_SIGNATURE).ok().flatten();
        file.is_some_and(|file| key.public().verifies(bytes, &signature_in(&file)))
    };
    let named = name_of_key(signed, key.public());
    let own = there.iter().find(is_own).map(|path| (*path).to_owned());
    // A file that cannot be a signature may be replaced.
    let is_free = |path: &str| {
        let file = layout.read(path, MAX_SIGNATURE).ok().flatten();
        !there.contains(&path) || !file.is_some_and(|file| is_well_formed(&signature_in(&file)))
    };
    let plain = format!("{signed}.sig");
    let fail = |text: String| Err(Error::input(format!("signing {}: {text}", layout.path().display())));
    let path = match own {
        Some(own) => own,
        None if is_free(&plain) => plain,
        None if there.len() >= MOST_SIGNATURES => {
            return fail(format!("it already has {MOST_SIGNATURES} signatures of {signed}, the maximum"));
        }
        None if is_free(&named) => named,
        None => {
            return fail(format!(
                "{named} exists and is not the signature of these bytes by this key; remove it \
                                     first"
            ));
        }
    };
    Ok(Metadata { path, bytes: key.sign(bytes)? })
}

/// Writes the tar again with room for the signatures.
fn write_anew(path: &Path, lock: WriteLock, bundle: Bundle, new: Vec<KnownFile>, events: &Events) -> Result<()> {
    let mut conversion = Conversion::of(bundle, events)?;
    // chunks.b3 itself is generated when the tar is written.
    let mut signatures = new.into_iter().filter(|file| is_signature(&file.path));
    signatures.try_for_each(|file| conversion.files.add_signature(file))?;
    conversion.write_holding(Some(lock), path, Options::copying(Form::Tar), events).map(drop)
}
