//! Opens a bundle.
//!
//! # Threats
//! Everything in it may be forged unless a signature says otherwise. Opening reads only `bundle.json`, up to a limit, and of
//! volumes their own data. Content that is taken from it is proven by a digest ([`BlobReader`](crate::content::BlobReader),
//! [`Manifest::parse`]), never by what the bundle says about itself.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::format::{
    BUNDLE_JSON, BundleJson, FileEntry, INDEX_JSON, MAX_BUNDLE_JSON, OCI_LAYOUT, REPAIR_JSON, SUMS, VOLUMES,
    identity_of, is_never_declared,
};
use super::signature::Proven;
use super::sums::MAX_SUMS;
use super::tar_plan::BLOCK;
use super::{FormerBundle, signatures_of};
use crate::base::error::{Error, Fact, Kind, Result};
use crate::files::{Layout, SecondHeader};
use crate::oci::{Descriptor, Digest, Manifest, Role};
use crate::pipeline::lock::{Attached, Lock};

/// An open bundle.
#[derive(Debug)]
pub struct Bundle {
    layout: Layout,
    json: BundleJson,
    identity: Digest,
}

impl Bundle {
    /// Opens a directory or a tar.
    ///
    /// # Errors
    /// It is not a bundle (`Input`), or its `bundle.json` is invalid (`Damaged`).
    pub fn open(path: &Path) -> Result<Bundle> {
        refuse_unfinished(path)?;
        Bundle::in_layout(Layout::open(path)?)
    }

    /// Does the same for an open layout.
    pub fn in_layout(layout: Layout) -> Result<Bundle> {
        let path = layout.path().to_owned();
        let Some(bytes) = layout.read(BUNDLE_JSON, MAX_BUNDLE_JSON)? else {
            return Err(no_bundle(&layout));
        };
        let json = BundleJson::parse(&bytes, &path.join(BUNDLE_JSON).display().to_string())?;
        Ok(Bundle { layout, json, identity: identity_of(&bytes) })
    }

    /// The bundle with a proven `bundle.json`, which is not read again; without a proof, as [`Bundle::in_layout`].
    ///
    /// # Errors
    /// As for [`Bundle::in_layout`].
    pub fn proven(layout: Layout, proven: Option<Proven>) -> Result<Bundle> {
        match proven {
            Some(Proven { document, identity, .. }) => Ok(Bundle { layout, json: document, identity }),
            None => Bundle::in_layout(layout),
        }
    }

    pub fn lock(&self) -> &Lock {
        &self.json.lock
    }

    /// What an export that replaces the bundle needs to know.
    pub fn former(&self) -> FormerBundle {
        FormerBundle { identity: self.identity, created: self.json.lock.created }
    }

    /// What to keep of a bundle that will be replaced.
    pub fn into_lock_and_layout(self) -> (Lock, Layout) {
        (self.json.lock, self.layout)
    }

    pub fn json(&self) -> &BundleJson {
        &self.json
    }

    pub fn files(&self) -> &[FileEntry] {
        &self.json.files
    }

    /// SHA-256 of `bundle.json`.
    pub fn identity(&self) -> Digest {
        self.identity
    }

    /// Whether it has a signature by any key.
    pub fn has_signature(&self) -> bool {
        !signatures_of(&self.layout, SUMS).is_empty()
    }

    /// The content, as a [`Source`](crate::content::Source).
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The manifests in the bundle, as reached from the lock.
    ///
    /// # Errors
    /// A manifest cannot be read or is invalid.
    pub fn manifests(&self) -> Result<Vec<Manifest>> {
        let roots = self.json.lock.images.iter().flat_map(|image| {
            let attached = image.companions().iter().map(Attached::descriptor);
            std::iter::once(image.descriptor()).chain(attached)
        });
        let (mut ahead, mut seen, mut found): (Vec<Descriptor>, _, _) = (roots.collect(), HashSet::new(), Vec::new());
        while let Some(next) = ahead.pop() {
            if !seen.insert(next.digest) {
                continue;
            }
            // Left out on purpose, or expected at a target.
            let Some(manifest) = self.layout.manifest_by_digest(&next.digest, Some(&next.media_type))? else {
                continue;
            };
            let children = manifest.children().into_iter().filter(|child| child.role == Role::Manifest);
            ahead.extend(children.map(|child| child.descriptor));
            found.push(manifest);
        }
        Ok(found)
    }

    /// Whether the sums follow from `bundle.json`.
    pub(super) fn sums_agree(&self) -> bool {
        let sums = self.json.sha256sums(self.identity);
        let there = self.layout.read(SUMS, MAX_SUMS);
        matches!(there, Ok(Some(bytes)) if bytes == sums.as_bytes())
    }

    /// Whether exactly the declared files exist, with their sizes.
    pub fn sizes_agree(&self) -> bool {
        let there = self.layout.entries().filter(|(path, _)| !is_never_declared(path)).count();
        let agree = |file: &FileEntry| self.layout.size_of(&file.path) == Some(file.size);
        there == self.json.files.len() && self.json.files.iter().all(agree)
    }

    /// Describes the files that do not belong to the bundle; `None` if there are none. Files that a killed repair has left do
    /// not count if `is_left` says so.
    pub(super) fn undeclared(&self, is_left: impl Fn(&str) -> bool) -> Option<String> {
        let declared: HashSet<&str> = self.json.files.iter().map(|file| file.path.as_str()).collect();
        let is_foreign = |path: &&str| !is_never_declared(path) && !declared.contains(path) && !is_left(path);
        let mut foreign = self.layout.entries().map(|(path, _)| path).filter(is_foreign);
        let first = foreign.next()?;
        Some(match foreign.count() {
            0 => first.to_owned(),
            more => format!("{first} and {more} more"),
        })
    }
}

/// The bytes of `bundle.json`, if it can be read and belongs to the bundle with this identity.
pub(super) fn json_of(layout: &Layout, identity: Digest) -> Option<Bytes> {
    let bytes = layout.read(BUNDLE_JSON, MAX_BUNDLE_JSON).ok()??;
    identity.is_of(&bytes).then_some(bytes)
}

/// A layout without `bundle.json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBundle {
    /// Another program's OCI layout, which can be turned into a bundle.
    #[error("{} is an OCI image layout and not a bundle: it has no {BUNDLE_JSON}", .0.display())]
    ImageLayout(PathBuf),
    /// A repair file, with files that a damaged bundle lacks.
    #[error("{} is a repair file and not a bundle", .0.display())]
    Repair(PathBuf),
    #[error("{} is not a bundle: it has no {BUNDLE_JSON}", .0.display())]
    Other(PathBuf),
}

impl Fact for NoBundle {}

/// The error for a layout without `bundle.json`.
pub fn no_bundle(layout: &Layout) -> Error {
    let is_layout = [OCI_LAYOUT, INDEX_JSON].iter().all(|file| layout.size_of(file).is_some());
    let path = layout.path().to_owned();
    let what = match () {
        () if layout.size_of(REPAIR_JSON).is_some() => NoBundle::Repair(path),
        () if is_layout => NoBundle::ImageLayout(path),
        () => NoBundle::Other(path),
    };
    Error::of(Kind::Input, what)
}

/// Rejects anything but a whole bundle from a pipe; parts would only be reported as damaged.
///
/// # Errors
/// It is a volume or a repair file.
pub fn refuse_part(layout: &Layout) -> Result<()> {
    let is_part = |path: &str| path.starts_with(VOLUMES) && path.ends_with(".json");
    let what = match layout.entries().any(|(path, _)| is_part(path)) {
        true => "a volume of a bundle, which `verify` and `import` read from a file",
        false if layout.size_of(REPAIR_JSON).is_some() => "a repair file, which `gapferry repair` reads from a file",
        false => return Ok(()),
    };
    Err(Error::input(format!("{} is not a bundle but {what}; save it to one", layout.path().display())))
}

/// Rejects a name that ends in `.partial`: however complete it looks, it may not be on the medium yet.
///
/// # Errors
/// The name ends in `.partial`.
pub fn refuse_unfinished(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    if name.as_encoded_bytes().ends_with(b".partial") && path.exists() {
        let text = "is unfinished and not a bundle yet; run its export again to finish it";
        return Err(Error::input(format!("{} {text}", path.display())));
    }
    Ok(())
}

/// Opens a bundle to be verified or repaired: as [`Layout::open`], and also a tar written by gapferry that has lost its first
/// header. That is the header of `oci-layout`, which takes one block, so the header of `bundle.json` is the third.
///
/// # Errors
/// As for [`Layout::open`].
pub fn open_damaged(path: &Path) -> Result<Layout> {
    Layout::open_without_first(path, SecondHeader { at: 2 * BLOCK, name: BUNDLE_JSON })
}

/// Rejects a compressed bundle, which cannot be changed in place.
///
/// # Errors
/// The bundle is compressed.
pub(super) fn refuse_compressed(bundle: &Layout) -> Result<()> {
    if !bundle.is_compressed() {
        return Ok(());
    }
    let path = bundle.path().display();
    let text =
        "is compressed and cannot be changed in place: write it as a tar or a directory first (`gapferry convert`)";
    Err(Error::input(format!("{path} {text}")))
}
