//! The signature of a bundle: checked before anything else of it is believed, and given to one that is whole already.
//!
//! # Threats
//! All but the keys may be forged. What is signed is `SHA256SUMS`, which names `bundle.json`, which names everything else; so
//! these three files are read, each up to a limit, and no other, until the chain of them holds. A medium can answer
//! differently when it is read again: whoever goes on has to find the [`Signed::identity`] that was signed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::{BUNDLE_JSON, Metadata, SIGNATURE, SUMS};
use super::mend::refuse_compressed;
use super::offsets::TarFile;
use super::open::{Bundle, MAX_BUNDLE_JSON};
use crate::base::error::{Error, Result};
use crate::base::fsops::{Replacement, WriteLock};
use crate::files::Layout;
use crate::oci::Digest;
use crate::signing::{PrivateKey, PublicKey, signature_in};

/// The largest `SHA256SUMS` that is read, in bytes: far more than the most files take.
pub const MAX_SUMS: u64 = 80 * 1024 * 1024;
/// The largest signature that is read, in bytes; ours have 64 or 72, in base64 or not.
pub const MAX_SIGNATURE: u64 = 512;
const BLOCK: u64 = 512;

/// What a signature proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The key that made it.
    pub by: PublicKey,
    /// The sha256 of `bundle.json` that was signed.
    pub identity: Digest,
}

impl Signed {
    /// Refuses what was read later, and is not what was signed.
    ///
    /// # Errors
    /// `found` is another bundle than the signed one.
    pub fn hold(&self, path: &Path, found: Option<Digest>) -> Result<()> {
        match found == Some(self.identity) {
            true => Ok(()),
            false => Err(Error::damaged(format!("{} has changed while it was read", path.display()))),
        }
    }
}

/// Checks the signature of the layout's `SHA256SUMS`, and `bundle.json` against what is signed. Any of `keys` will do. No
/// other file is opened.
///
/// # Errors
/// It is not signed, by none of the keys, or one of the two was altered (`Damaged`); they cannot be read.
pub fn check_signature(layout: &Layout, keys: &[PublicKey]) -> Result<Signed> {
    let shown = layout.path().display();
    let refuse = |why: &str| Error::damaged(format!("{shown} is refused: {why}"));
    if layout.size_of(SIGNATURE).is_none() {
        // A link or a pipe in its place has no size either.
        let odd = layout.faults().iter().find(|fault| fault.path == SIGNATURE);
        return Err(refuse(&match odd {
            Some(fault) => format!("its {SIGNATURE} is no plain file ({})", fault.what),
            None => format!("it is not signed (it has no {SIGNATURE})"),
        }));
    }
    let missing = |path: &str| refuse(&format!("it has no {path}"));
    let file = layout.read(SIGNATURE, MAX_SIGNATURE)?.ok_or_else(|| missing(SIGNATURE))?;
    let sums = layout.read(SUMS, MAX_SUMS)?.ok_or_else(|| missing(SUMS))?;
    let signature = signature_in(&file);
    let Some(by) = keys.iter().find(|key| key.verifies(&sums, &signature)) else {
        return Err(refuse(&fits_no_key(keys)));
    };
    let identity = signed_identity(&sums)
        .ok_or_else(|| refuse(&format!("its signature is good, but {SUMS} does not name {BUNDLE_JSON} first")))?;
    let json = layout.read(BUNDLE_JSON, MAX_BUNDLE_JSON)?.ok_or_else(|| missing(BUNDLE_JSON))?;
    if Digest::sha256(&json) != identity {
        return Err(refuse(&format!("{BUNDLE_JSON} was altered after {SUMS} was signed")));
    }
    Ok(Signed { by: by.clone(), identity })
}

fn fits_no_key(keys: &[PublicKey]) -> String {
    let fingerprints: Vec<String> = keys.iter().map(|key| key.fingerprint().to_string()).collect();
    let which = match &fingerprints[..] {
        [one] => format!("the key {one}"),
        several => format!("any of the {} keys ({})", several.len(), several.join(", ")),
    };
    format!("its signature does not fit {which}: another key signed it, or {SUMS} or {SIGNATURE} was altered")
}

/// What the first line of `SHA256SUMS` says of `bundle.json`.
pub fn signed_identity(sums: &[u8]) -> Option<Digest> {
    let line = sums.split(|byte| *byte == b'\n').next()?;
    let (sum, path) = std::str::from_utf8(line).ok()?.split_once("  ")?;
    (path == BUNDLE_JSON).then(|| format!("sha256:{sum}").parse().ok())?
}

/// Room for the signature of `key` among the metadata, to be planned with; empty without a key.
pub(super) fn room(key: Option<&PrivateKey>) -> Option<Metadata> {
    key.map(|key| Metadata { path: SIGNATURE, bytes: vec![0; key.longest_signature()] })
}

/// Behind what it signs.
pub(super) fn put(metadata: &mut Vec<Metadata>, signature: Metadata) {
    let sums = metadata.iter().position(|file| file.path == SUMS);
    metadata.insert(sums.map_or(metadata.len(), |at| at + 1), signature);
}

/// The signature of what is to be written.
pub(super) fn signature(key: &PrivateKey, metadata: &[Metadata]) -> Result<Metadata> {
    let sums = metadata.iter().find(|file| file.path == SUMS).map_or(&[][..], |file| &file.bytes);
    Ok(Metadata { path: SIGNATURE, bytes: key.sign(sums)? })
}

/// Signs a bundle that is there, in place of any signature it has. A directory, and a tar that has a signature, stay as they
/// are but for it; any other tar is written anew beside the old one, and takes its name. Gives the bundle's identity.
///
/// # Errors
/// `SHA256SUMS` does not say what `bundle.json` says, or the files have other sizes: such a bundle is not signed. The disk's.
pub fn sign(path: &Path, key: &PrivateKey) -> Result<Digest> {
    let _lock = WriteLock::take(path)?;
    let bundle = Bundle::open(path)?;
    refuse_compressed(bundle.layout())?;
    if let Some((file, number)) = bundle.undeclared() {
        let more = if number > 1 { format!(" and {} more", number - 1) } else { String::new() };
        let text = format!(
            "{file}{more} in {} is no part of the bundle, so it is not signed: remove it first",
            path.display()
        );
        return Err(Error::input(text));
    }
    if !bundle.layout().faults().is_empty() || !bundle.sums_agree() || !bundle.sizes_agree() {
        let text = format!("{} is damaged, so it is not signed; `gapferry verify` says where", path.display());
        return Err(Error::damaged(text));
    }
    let sums = bundle.layout().read(SUMS, MAX_SUMS)?.unwrap_or_default();
    let signature = key.sign(&sums)?;
    if bundle.layout().is_tar() {
        let mtime = u64::try_from(bundle.json().created.as_second()).unwrap_or_default();
        sign_tar(path, &bundle, &entry(&signature, mtime))?;
    } else {
        write_beside(&path.join(SIGNATURE), |file| file.write_all(&signature))?;
    }
    let after = check_signature(&Layout::open(path)?, std::slice::from_ref(key.public()))?;
    Ok(after.identity)
}

/// Header and padded bytes of the signature in a tar.
fn entry(signature: &[u8], mtime: u64) -> Vec<u8> {
    let file = TarFile { path: SIGNATURE.to_owned(), size: signature.len() as u64, header: 0, data: BLOCK };
    let mut blocks = file.header_blocks(mtime);
    blocks.extend_from_slice(signature);
    blocks.resize(blocks.len().next_multiple_of(BLOCK as usize), 0);
    blocks
}

fn sign_tar(path: &Path, bundle: &Bundle, entry: &[u8]) -> Result<()> {
    let fail = |e: io::Error| Error::disk("signing", path, e);
    let place = |path: &str| bundle.layout().slice(path).ok().flatten().map(|slice| (slice.offset(), slice.size()));
    let former = place(SIGNATURE).filter(|(_, size)| (1..=BLOCK).contains(size));
    if let Some(header) = former.and_then(|(offset, _)| offset.checked_sub(BLOCK)) {
        let file = OpenOptions::new().write(true).open(path).map_err(fail)?;
        return file.write_all_at(entry, header).and_then(|()| file.sync_all()).map_err(fail);
    }
    let (offset, size) = place(SUMS).ok_or_else(|| fail(io::ErrorKind::NotFound.into()))?;
    let at = offset.saturating_add(size.next_multiple_of(BLOCK));
    let mut tar = File::open(path).map_err(fail)?;
    write_beside(path, |file| {
        io::copy(&mut Read::by_ref(&mut tar).take(at), file)?;
        file.write_all(entry)?;
        tar.seek(SeekFrom::Start(at))?;
        io::copy(&mut tar, file).map(drop)
    })
}

fn write_beside(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let mut new = Replacement::of(path)?;
    write(new.file()).map_err(|e| Error::disk("signing", path, e))?;
    new.make_readable()?;
    new.commit()
}
