//! Where a bundle goes.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::base::error::{Error, Result};
use crate::bundle::StreamSink;
use crate::bundle::volumes::VolumeOptions;
use crate::bundle::{Bundle, Form, preflight, walk_file};

/// See the module documentation.
pub enum Output {
    /// A tar if the name ends in `.tar`, a compressed tar, in one pass, if it ends in `.tar.zst`, else a directory.
    Path(PathBuf),
    /// Tars of a limited size, whose names are made of this one.
    Volumes { path: PathBuf, volumes: VolumeOptions },
    /// A tar in one pass. Nothing is kept beside it, so an export that was interrupted begins again. Errors call it `name`.
    Stream { name: PathBuf, sink: OneStreamSink },
}

/// Takes one bundle.
pub struct OneStreamSink(Mutex<Option<Box<dyn StreamSink>>>);

impl OneStreamSink {
    pub fn new(sink: impl StreamSink + 'static) -> OneStreamSink {
        OneStreamSink(Mutex::new(Some(Box::new(sink))))
    }

    /// The sink, the first time.
    pub(in crate::app) fn take(&self) -> Option<Box<dyn StreamSink>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Output {
    /// Checks what is impossible whatever the registries say. An export does it too; a caller that asks a person for a passphrase
    /// may want to do it first.
    ///
    /// # Errors
    /// Another run is writing it, or something that no export has made has its name.
    pub fn check_free(&self) -> Result<()> {
        self.check_form()?;
        let Some(form) = self.form() else { return Ok(()) };
        preflight::check_free(self.path(), &form)?;
        preflight::former(self.path(), &form).map(drop)
    }

    /// # Errors
    /// Volumes cannot be compressed.
    pub(in crate::app) fn check_form(&self) -> Result<()> {
        match self {
            Output::Volumes { path, .. } if Form::named(path) == Form::Compressed => {
                Err(Error::input("volumes cannot be one stream, or compressed: name an output that ends in .tar"))
            }
            _ => Ok(()),
        }
    }

    /// The file or directory, or what errors call the stream.
    pub fn path(&self) -> &Path {
        match self {
            Output::Path(path) | Output::Volumes { path, .. } | Output::Stream { name: path, .. } => path,
        }
    }

    /// The bundle that is to be replaced, if there is one.
    pub(in crate::app) fn former(&self) -> Result<Option<Bundle>> {
        self.form().map_or(Ok(None), |form| preflight::former(self.path(), &form))
    }

    /// `None`: a stream, whose form is that of a tar.
    pub(in crate::app) fn form(&self) -> Option<Form> {
        match self {
            Output::Path(path) => Some(Form::named(path)),
            Output::Volumes { volumes, .. } => Some(Form::Volumes(volumes.clone())),
            Output::Stream { .. } => None,
        }
    }

    /// Where manifests that were read are kept for the next run.
    pub(in crate::app) fn walk_file(&self) -> Option<PathBuf> {
        match self {
            Output::Path(path) | Output::Volumes { path, .. } => Some(walk_file(path)),
            Output::Stream { .. } => None,
        }
    }

    /// The number of the only volume that is written, of a set that exists.
    pub(in crate::app) fn only_volume(&self) -> Option<u32> {
        match self {
            Output::Volumes { volumes, .. } => volumes.selection.only_one(),
            _ => None,
        }
    }
}
