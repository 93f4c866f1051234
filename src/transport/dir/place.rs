//! Puts one blob into the directory of an image, as a hard link, a reflink or a copy.

use std::collections::HashMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::At;
use crate::base::error::{Error, Result};
use crate::base::fsops::{Identity, Linkable, Stat};
use crate::content::{Files, LinkMode, Slice, proof, why_not_linked};
use crate::oci::{Descriptor, Repository};

/// A new link: its name, and the intended file.
pub struct Link(String, Arc<Linkable>);

/// Puts a blob there. A link must still be [checked](check_links).
pub fn blob(at: &At<'_>, blob: &Descriptor, repository: &Repository, files: &dyn Files) -> Result<Option<Link>> {
    let name = blob.digest.hex();
    let images = at.images;
    if at.may_link() {
        match known(at, blob, repository, files)? {
            Some(file) => match link(at, &name, &file)? {
                Ok(()) => return Ok(Some(Link(name, file))),
                Err(errno) if images.mode == LinkMode::Hard => return Err(at.fail("linking", &name, errno)),
                Err(errno) => give_up(at, errno),
            },
            None if images.mode == LinkMode::Hard => {
                let text = "blobs in a tar cannot be linked: leave out --link hard, or unpack the tar";
                return Err(Error::input(text));
            }
            None => {}
        }
    }
    if images.mode != LinkMode::Auto {
        return copy(at, &name, blob, &files.file(repository, &blob.digest)?).map(|()| None);
    }
    // Once, however many images share it.
    let cell = images.copies.lock().unwrap_or_else(PoisonError::into_inner).entry(blob.digest).or_default().clone();
    let mut first = cell.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = &*first
        && link(at, &name, file)?.is_ok()
    {
        return Ok(Some(Link(name, file.clone())));
    }
    copy(at, &name, blob, &files.file(repository, &blob.digest)?)?;
    let path = format!("{}/{name}", at.name);
    let identity = Identity::of(&stat(at, &name)?);
    *first = Some(Arc::new(Linkable { directory: images.root.dir().clone(), path, identity }));
    Ok(None)
}

/// The file of a blob, looked up once.
pub fn known(
    at: &At<'_>,
    blob: &Descriptor,
    repository: &Repository,
    files: &dyn Files,
) -> Result<Option<Arc<Linkable>>> {
    let lock = || at.images.known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = lock().get(&blob.digest) {
        return Ok(known.clone());
    }
    let found = files.linkable(repository, &blob.digest)?.map(Arc::new);
    lock().insert(blob.digest, found.clone());
    Ok(found)
}

/// Links `file` to another name. The caller handles a refusal by the file system.
fn link(at: &At<'_>, name: &str, file: &Linkable) -> Result<Result<(), Errno>> {
    // The missing one is more likely at the other end.
    let verb = || format!("linking {} to", file.path);
    let named = file.name_at(&at.directory, name).map_err(|e| at.fail(&verb(), name, e))?;
    if named.is_ok() {
        at.images.linked.fetch_add(1, Ordering::Relaxed);
    }
    Ok(named)
}

/// Removes each link that does not lead to the intended file.
///
/// # Errors
/// There was such a link.
pub fn check_links(at: &At<'_>, links: &[Link]) -> Result<()> {
    let mut open: HashMap<&[u8], &Link> = links.iter().map(|link| (link.0.as_bytes(), link)).collect();
    if open.is_empty() {
        return Ok(());
    }
    // The directory lists all of them at once.
    at.directory.each_name(|name, inode, kind| {
        let name = name.to_bytes();
        let is_it = |link: &&Link| link.1.identity.is_listed(at.identity, inode) && kind == FileType::RegularFile;
        if open.get(name).is_some_and(is_it) {
            open.remove(name);
        }
        if open.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    // Some directories, as in an overlay, list other inodes.
    for Link(name, file) in open.into_values() {
        if !file.is_it(&stat(at, name)?) {
            at.remove(name)?;
            return Err(file.changed());
        }
    }
    Ok(())
}

fn stat(at: &At<'_>, name: &str) -> Result<Stat> {
    at.directory.stat(name)?.ok_or_else(|| at.fail("reading", name, Errno::NOENT))
}

impl At<'_> {
    pub fn may_link(&self) -> bool {
        let images = self.images;
        matches!(images.mode, LinkMode::Auto | LinkMode::Hard) && !images.is_far.load(Ordering::Relaxed)
    }
}

/// Reports once why there are no links.
fn give_up(at: &At<'_>, errno: Errno) {
    if errno == Errno::XDEV {
        at.images.is_far.store(true, Ordering::Relaxed);
    }
    at.images.reasons.report(why_not_linked(errno), "they are copied once and linked to each other");
}

/// Makes a reflink if wanted and possible, otherwise a proven copy.
fn copy(at: &At<'_>, name: &str, blob: &Descriptor, slice: &Slice) -> Result<()> {
    let mut file = at.new_file(name)?;
    if at.images.mode != LinkMode::Copy {
        match slice.reflink(&file) {
            Ok(()) => return Ok(()),
            Err(error) if at.images.mode == LinkMode::Reflink => {
                at.remove(name)?;
                return Err(at.fail("reflinking", name, error));
            }
            Err(_) => {}
        }
    }
    let copied = copy_bytes(at, name, &mut file, blob, slice);
    if copied.is_err() {
        at.remove(name)?;
    }
    copied
}

fn copy_bytes(at: &At<'_>, name: &str, file: &mut std::fs::File, blob: &Descriptor, slice: &Slice) -> Result<()> {
    let mut write = |piece: &[u8], _| file.write_all(piece).map_err(|e| at.fail("writing", name, e));
    proof::copy(slice, &blob.digest, &mut write).map_err(|uncopied| uncopied.of(slice))?;
    at.images.copied.fetch_add(slice.size(), Ordering::Relaxed);
    Ok(())
}
