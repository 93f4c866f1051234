//! The signatures of a bundle: made while it is written, and given to one that is whole already.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use super::format::{
    CHUNKS, CHUNKS_SIGNATURE, Head, MAX_SIGNATURE, MOST_SIGNATURES, Metadata, SIGNATURE, SUMS, name_of_key,
    signatures_of, signed_file,
};
use super::offsets::{BLOCK, TarFile};
use super::open::{Bundle, refuse_compressed};
use super::prove::chunks_of;
use super::proven::check_signature;
use crate::base::error::{Error, Result};
use crate::base::fsops::{Replacement, WriteLock};
use crate::base::progress::Events;
use crate::files::Layout;
use crate::oci::Digest;
use crate::signing::{PrivateKey, is_well_formed, signature_in};

/// Adds the signature of what is to be written.
///
/// # Errors
/// No randomness could be read.
pub(super) fn sign_head(head: &mut Head, key: &PrivateKey) -> Result<()> {
    let signature = key.sign(head.sums())?;
    head.files.push(Metadata::new(SIGNATURE, signature));
    Ok(())
}

/// Room for the signature of `key` named `path`, to be planned with.
pub(super) fn room(path: &str, key: &PrivateKey) -> (String, u64) {
    (path.to_owned(), key.longest_signature() as u64)
}

/// `chunks.b3`, and its signature if the bundle is signed.
///
/// # Errors
/// No randomness could be read.
pub(super) fn trailer(chunks: Vec<u8>, key: Option<&PrivateKey>) -> Result<Vec<Metadata>> {
    let signature = key.map(|key| key.sign(&chunks)).transpose()?;
    let signature = signature.map(|signature| Metadata::new(CHUNKS_SIGNATURE, signature));
    Ok(std::iter::once(Metadata::new(CHUNKS, chunks)).chain(signature).collect())
}

/// What is signed of a bundle that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `SHA256SUMS`, which says what every file has to be.
    Sums,
    /// `chunks.b3` too, after every digest was proven.
    Full,
}

/// Signs a bundle that is there; a signature that the same key has made is replaced, no other is. A directory, and a tar that
/// has a signature of the key, stay as they are but for it; any other tar is written anew beside the old one, and takes its
/// name. Gives the bundle's identity.
///
/// # Errors
/// `SHA256SUMS` does not say what `bundle.json` says, or the files have other sizes, or with [`Scope::Full`] other bytes: such a
/// bundle is not signed. It has as many signatures as it can. The disk's.
pub fn sign(path: &Path, key: &PrivateKey, scope: Scope, events: &Events) -> Result<Digest> {
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
    let damaged = || {
        let text = format!("{} is damaged, so it is not signed; `gapferry verify` says where", path.display());
        Error::damaged(text)
    };
    if !bundle.layout().faults().is_empty() || !bundle.sums_agree() || !bundle.sizes_agree() {
        return Err(damaged());
    }
    let layout = bundle.layout();
    let sums: Bytes = bundle.json().sha256sums(bundle.identity()).into_bytes().into();
    let mut new = vec![signature_of(layout, SUMS, &sums, key)?];
    if scope == Scope::Full {
        let chunks = chunks_of(layout, bundle.json(), bundle.identity(), events).ok_or_else(damaged)?;
        let signature = signature_of(layout, CHUNKS, &chunks, key)?;
        let is_there = layout.read(CHUNKS, chunks.len() as u64).is_ok_and(|there| there.is_some_and(|it| it == chunks));
        if !is_there {
            new.push(Metadata::new(CHUNKS, chunks));
        }
        new.push(signature);
    }
    if layout.is_tar() {
        sign_tar(path, &bundle, &new)?;
    } else {
        for file in &new {
            write_beside(&path.join(&file.path), |out| out.write_all(&file.bytes))?;
        }
    }
    let after = check_signature(&Layout::open(path)?, std::slice::from_ref(key.public()))?;
    Ok(after.identity)
}

/// The signature of `key`, under the name it has already, else under one that is free.
fn signature_of(layout: &Layout, signed: &str, bytes: &[u8], key: &PrivateKey) -> Result<Metadata> {
    let there = signatures_of(layout, signed);
    let is_own = |path: &&&str| {
        let file = layout.read(path, MAX_SIGNATURE).ok().flatten();
        file.is_some_and(|file| key.public().verifies(bytes, &signature_in(&file)))
    };
    let named = name_of_key(signed, key.public());
    let own = there.iter().find(is_own).map(|path| (*path).to_owned());
    // What cannot be a signature may be replaced.
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
            return fail(format!("it has {MOST_SIGNATURES} signatures of {signed} already, which is the most"));
        }
        None if is_free(&named) => named,
        None => return fail(format!("{named} is there, and is not of this key and these bytes; remove it first")),
    };
    Ok(Metadata { path, bytes: key.sign(bytes)? })
}

/// Header and padded bytes of a file in a tar.
fn entry(file: &Metadata, mtime: u64) -> Vec<u8> {
    let planned = TarFile { path: file.path.clone(), size: file.bytes.len() as u64, header: 0, data: BLOCK };
    let mut blocks = planned.header_blocks(mtime);
    blocks.extend_from_slice(&file.bytes);
    blocks.resize(blocks.len().next_multiple_of(BLOCK as usize), 0);
    blocks
}

/// Where in a tar an entry is, header included, in bytes.
#[derive(Clone, Copy)]
struct Stretch {
    begin: u64,
    end: u64,
}

fn sign_tar(path: &Path, bundle: &Bundle, new: &[Metadata]) -> Result<()> {
    let fail = |e: io::Error| Error::disk("signing", path, e);
    let layout = bundle.layout();
    let mtime = bundle.json().mtime();
    let place = |path: &str| {
        let slice = layout.slice(path).ok().flatten()?;
        let begin = slice.offset().checked_sub(BLOCK)?;
        Some(Stretch { begin, end: slice.offset() + slice.size().checked_next_multiple_of(BLOCK)? })
    };
    let blocks: Vec<(Option<Stretch>, Vec<u8>)> =
        new.iter().map(|file| (place(&file.path), entry(file, mtime))).collect();
    let fits = |(there, blocks): &(Option<Stretch>, Vec<u8>)| {
        there.is_some_and(|there| there.end - there.begin == blocks.len() as u64)
    };
    if blocks.iter().all(fits) {
        let file = OpenOptions::new().write(true).open(path).map_err(fail)?;
        for (there, blocks) in &blocks {
            file.write_all_at(blocks, there.map_or(0, |there| there.begin)).map_err(fail)?;
        }
        return file.sync_all().map_err(fail);
    }
    // What is replaced is left out, and what is new goes to where it belongs.
    let end = layout.entries().filter_map(|(path, _)| place(path)).map(|there| there.end).max().unwrap_or_default();
    let mut edits: Vec<(Stretch, &[u8])> = Vec::new();
    for (file, (there, blocks)) in new.iter().zip(&blocks) {
        if let Some(there) = there {
            edits.push((*there, blocks));
            continue;
        }
        let signed = signed_file(&file.path);
        let at = match signed.and_then(|signed| Some((signed, place(signed)?))) {
            Some((signed, stretch)) => behind(layout, signed, &file.path, stretch.end, place),
            None => end,
        };
        edits.push((Stretch { begin: at, end: at }, blocks));
    }
    edits.sort_by_key(|(stretch, _)| stretch.begin);
    let mut tar = File::open(path).map_err(fail)?;
    write_beside(path, |file| {
        let mut at = 0;
        for (Stretch { begin, end }, blocks) in &edits {
            tar.seek(SeekFrom::Start(at))?;
            io::copy(&mut Read::by_ref(&mut tar).take(begin.saturating_sub(at)), file)?;
            file.write_all(blocks)?;
            at = *end;
        }
        tar.seek(SeekFrom::Start(at))?;
        io::copy(&mut tar, file).map(drop)
    })
}

/// Where a signature goes that is not there yet: behind what it signs, and those of its signatures that stand before it.
fn behind(layout: &Layout, signed: &str, path: &str, mut at: u64, place: impl Fn(&str) -> Option<Stretch>) -> u64 {
    let stands_before = |other: &&str| (other.len(), *other) < (path.len(), path);
    for other in signatures_of(layout, signed).into_iter().filter(stands_before) {
        if let Some(there) = place(other).filter(|there| there.begin == at) {
            at = there.end;
        }
    }
    at
}

fn write_beside(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let mut new = Replacement::of(path)?;
    write(new.file()).map_err(|e| Error::disk("signing", path, e))?;
    new.make_readable()?;
    new.commit()
}
