//! Checks before a bundle is written: whether its name is free, whether it exists already, and how much space it needs.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::fileset::FileSet;
use super::format::{BUNDLE_JSON, VOLUMES};
use super::open::Bundle;
use super::options::{Finished, Form, Options, SpaceNeeds, existing_ancestor};
use super::output::directory::is_left;
use super::output::{directory, tar};
use super::volumes::SetName;
use super::{journal, plan_volumes, prove_files, stamp};
use crate::base::document::OtherVersion;
use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::{self, Entry, WriteLock};
use crate::base::progress::Events;
use crate::content::LinkMode;
use crate::oci::Digest;

/// How thoroughly to check that a bundle is complete.
#[derive(Clone, Copy)]
pub enum Whole<'a> {
    /// Every file exists with its size.
    BySizes,
    /// Every byte, now or, if no file was modified since, earlier on this machine.
    Proven(&'a Events),
}

/// Whether `out` is already the complete bundle with this identity.
pub fn up_to_date(out: &Path, identity: Digest, whole: Whole<'_>) -> Option<Finished> {
    let bundle = Bundle::open(out).ok()?;
    let layout = bundle.layout();
    let form = Form::named(out);
    let right_form = layout.is_tar() == (form == Form::Tar) && layout.is_compressed() == (form == Form::Compressed);
    let same = identity == bundle.identity();
    if !right_form || !same || !bundle.layout().problems().is_empty() || !bundle.sizes_agree() {
        return None;
    }
    if let Whole::Proven(events) = whole
        && !(bundle.sums_agree() && stamp::is_proven(out))
    {
        let state = stamp::FilesStamp::of(out);
        if !prove_files::is_proven(&bundle, events) {
            return None;
        }
        if let Some(state) = state {
            state.mark(out);
        }
    }
    if matches!(whole, Whole::Proven(_)) {
        WriteLock::remove_orphaned(out);
        if form == Form::Tar {
            tar::remove_orphaned_journal(out);
        }
    }
    let size = match out.is_file() {
        true => out.metadata().ok()?.len(),
        false => bundle.layout().entries().map(|(_, size)| size).fold(0, u64::saturating_add),
    };
    Some(Finished { path: out.to_owned(), identity: bundle.identity(), size, unchanged: true })
}

/// Call it before anything that takes time or asks a person.
///
/// # Errors
/// Another run is writing `out`, or something that no export has made is in the way.
pub fn check_free(out: &Path, form: &Form) -> Result<()> {
    let out = &match form {
        Form::Volumes(_) => SetName::of(out).whole(),
        Form::Directory | Form::Tar | Form::Compressed => fsops::canonicalize(out)?,
    };
    WriteLock::check(out)?;
    if let Some(bundle) = out.ancestors().skip(1).find(|parent| parent.join(BUNDLE_JSON).is_file()) {
        let text = "which would become incomplete; name another output";
        return Err(Error::input(format!(
            "writing {}: it is inside the bundle {}, {text}",
            out.display(),
            bundle.display()
        )));
    }
    match form {
        Form::Directory if means_other_archive(out) && !out.is_dir() => {
            let text = "a directory would get this name, which is that of an archive; end the name in .tar, or in \
                        .tar.zst for a compressed archive";
            Err(Error::input(format!("writing {}: {text}", out.display())))
        }
        Form::Directory => directory::refuse_foreign(out),
        Form::Tar => tar::refuse_foreign(out),
        Form::Compressed => fsops::refuse_other_than_file(&fsops::beside(out, ".partial")),
        // Checked for each volume once their number is known.
        Form::Volumes(_) => Ok(()),
    }
}

/// Whether the name means an archive that gapferry does not write.
fn means_other_archive(out: &Path) -> bool {
    let endings = ["tgz", "tzst", "gz", "zst", "xz", "bz2", "lz4", "zip", "7z"];
    let ending = out.extension().unwrap_or_default();
    endings.iter().any(|other| ending.eq_ignore_ascii_case(other))
}

/// The bundle to be replaced, if there is one. Call it as early as [`check_free`].
///
/// # Errors
/// `out` must not be replaced. Whether a bundle may be replaced is not checked here, because it may be the wanted one.
pub fn former(out: &Path, form: &Form) -> Result<Option<Bundle>> {
    if matches!(form, Form::Volumes(_)) {
        return Ok(plan_volumes::former(out));
    }
    let is_file = *form != Form::Directory;
    let former = Bundle::open(out).ok().filter(|_| out.is_file() == is_file);
    if former.is_none() {
        refuse_foreign(&fsops::canonicalize(out)?, form)?;
    }
    Ok(former)
}

/// For commands that fill a bundle in place and cannot write it in a single pass.
///
/// # Errors
/// The form or the name requires a single pass.
pub fn refuse_one_pass(out: &Path, form: &Form) -> Result<()> {
    let text = match form {
        Form::Compressed => {
            "only `export` and `convert` write compressed tars; end the name in .tar, or use a name without ending \
             for a directory"
        }
        _ if out == Path::new("-") => {
            "only `export` and `convert` write to standard output; name a file (./- is a file with the name -)"
        }
        _ => return Ok(()),
    };
    Err(Error::input(format!("writing {}: {text}", out.display())))
}

/// The space needed to write `files` to `out`; nothing is written.
///
/// # Errors
/// `out` must not be replaced, or its file system fails.
pub fn survey(out: &Path, files: &FileSet, options: &Options) -> Result<SpaceNeeds> {
    let form = &options.form;
    if let Form::Volumes(volumes) = form {
        return plan_volumes::survey(out, files, volumes, &options.replaceable);
    }
    refuse_one_pass(out, form)?;
    let is_tar = *form == Form::Tar;
    let out = &fsops::canonicalize(out)?;
    refuse_foreign(out, form)?;
    let directory = existing_ancestor(out);
    let free = fsops::free_space(&directory)?;
    // If the directory does not exist, nothing was started.
    let entry = Entry::of(out).ok();
    let present = present(out, entry.as_ref(), files).iter().map(|(_, size)| *size).fold(0, u64::saturating_add);
    let links = options.link != LinkMode::Copy && options.device.is_some_and(|device| is_on(&directory, device));
    // A plan takes memory for the sizes that manifests announce, which can be anything, so none is made for what cannot fit.
    let total = files.content_size();
    if !links && total.saturating_sub(present) > free.saturating_add(entry.as_ref().map_or(0, tar::begun)) {
        return Ok(SpaceNeeds { total, present, needed: total.saturating_sub(present), free });
    }
    let plan = files.tar()?;
    let total = if is_tar { plan.length } else { files.size() };
    let needed = if is_tar {
        plan.length.saturating_sub(entry.map_or(0, |entry| tar::reserved(&entry, &plan)))
    } else if links {
        plan.length.saturating_sub(files.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add))
    } else {
        // As in a tar: files take more space than their bytes.
        plan.length.saturating_sub(present)
    };
    Ok(SpaceNeeds { total, present, needed, free })
}

/// Only a bundle may be replaced by a bundle, and only if it contains nothing else.
///
/// # Errors
/// Something else is there.
pub fn refuse_foreign(out: &Path, form: &Form) -> Result<()> {
    if out.as_os_str().as_encoded_bytes().ends_with(b".partial") {
        let text = "names that end in .partial are reserved for unfinished bundles; use another name";
        return Err(Error::input(format!("writing {}: {text}", out.display())));
    }
    let Ok(metadata) = out.symlink_metadata() else { return Ok(()) };
    let refuse = |why: &str| Err(Error::input(format!("writing {}: {why}", out.display())));
    if metadata.is_dir() && fsops::is_mount_point(out) {
        return refuse("it is the mount point of a file system; name a file or a directory on it");
    }
    let empty = metadata.is_dir() && std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    let is_file = *form != Form::Directory;
    if metadata.is_dir() && is_file {
        return refuse("a tar would be written, and there is a directory of that name; remove it or use another name");
    }
    match Bundle::open(out) {
        Ok(_) if metadata.is_file() && !is_file => {
            refuse("a directory would be written, and there is a tar of that name; remove it or use another name")
        }
        Ok(bundle) if bundle.layout().entries().any(|(path, _)| path.starts_with(VOLUMES)) => {
            refuse("it is a volume of a bundle, which is not overwritten; name another output, or move the volume away")
        }
        Ok(bundle) => match bundle.undeclared(is_left) {
            None => Ok(()),
            Some(files) => refuse(&format!(
                "{files} does not belong to the existing bundle and would be removed with it; move it away, or name \
                 another output"
            )),
        },
        Err(_) if empty => Ok(()),
        Err(error) if error.find::<OtherVersion>().is_some() => {
            Err(error.while_doing(format!("writing {}: it exists and is not overwritten; remove it", out.display())))
        }
        Err(error) if error.kind() == Kind::Damaged => {
            refuse("it is a damaged bundle; remove it, and everything is fetched again")
        }
        Err(_) => {
            refuse("it exists and is not a bundle, so it is not overwritten; name another output, or move it away")
        }
    }
}

/// Needed blobs that seem to exist already, with their sizes in bytes.
fn present(out: &Path, entry: Option<&Entry>, files: &FileSet) -> Vec<(Digest, u64)> {
    let finished = Bundle::open(out).ok();
    let partial = fsops::beside(out, ".partial");
    let claims = entry.and_then(|entry| journal::Claims::read(&tar::partial(entry).1)).unwrap_or_default();
    let blobs = files.blobs.iter().map(|blob| (blob.digest, blob.size));
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
