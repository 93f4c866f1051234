//! Where a bundle is written.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events};
use crate::bundle::StreamSink;
use crate::bundle::volumes::VolumeOptions;
use crate::bundle::{Bundle, Form, preflight, walk_file};

/// See the module documentation.
pub enum Output {
    /// A tar if the name ends in `.tar`; a compressed tar, written in one pass, if it ends in `.tar.zst`; otherwise a
    /// directory.
    Path(PathBuf),
    /// Tars of a limited size, whose names are made from this name.
    Volumes { path: PathBuf, volumes: VolumeOptions },
    /// A tar written in one pass. No state is kept, so an interrupted export starts again. Error messages use `name`.
    Stream { name: PathBuf, sink: OneStreamSink },
}

/// A sink for one bundle.
pub struct OneStreamSink(Mutex<Option<Box<dyn StreamSink>>>);

impl OneStreamSink {
    pub fn new(sink: impl StreamSink + 'static) -> OneStreamSink {
        OneStreamSink(Mutex::new(Some(Box::new(sink))))
    }

    /// Returns the sink once, and then `None`.
    pub(in crate::app) fn take(&self) -> Option<Box<dyn StreamSink>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Output {
    /// Checks what would fail independently of the registries. An export checks it too, but a caller that asks for a
    /// passphrase may want to check it first.
    ///
    /// # Errors
    /// Another run writes the output, or a file that no export created has its name.
    pub fn check_free(&self) -> Result<()> {
        self.check_form()?;
        let Some(form) = self.form() else { return Ok(()) };
        preflight::check_free(self.path(), &form)?;
        preflight::former(self.path(), &form).map(drop)
    }

    /// Reports that the directory of the output will be created: the operator may expect a mounted medium there.
    pub(in crate::app) fn note_new_directory(&self, events: &Events) {
        let parent = self.path().parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists());
        if let Some(parent) = parent.filter(|_| self.form().is_some()) {
            let text = "does not exist and will be created; if a medium should be mounted there, stop and mount it";
            events.report(Event::Notice(format!("{} {text}", parent.display())));
        }
    }

    /// Checks that the form is possible.
    ///
    /// # Errors
    /// Volumes cannot be compressed.
    pub(in crate::app) fn check_form(&self) -> Result<()> {
        match self {
            Output::Volumes { path, .. } if Form::named(path) == Form::Compressed => {
                Err(Error::input("volumes cannot be a stream or compressed: name an output that ends in .tar"))
            }
            _ => Ok(()),
        }
    }

    /// The file or directory, or the name of the stream in error messages.
    pub fn path(&self) -> &Path {
        match self {
            Output::Path(path) | Output::Volumes { path, .. } | Output::Stream { name: path, .. } => path,
        }
    }

    /// Returns the bundle to be replaced, if there is one.
    pub(in crate::app) fn former(&self) -> Result<Option<Bundle>> {
        self.form().map_or(Ok(None), |form| preflight::former(self.path(), &form))
    }

    /// `None` for a stream, which has the form of a tar.
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

    /// The number of the volume, if only one volume of an existing set is written.
    pub(in crate::app) fn only_volume(&self) -> Option<u32> {
        match self {
            Output::Volumes { volumes, .. } => volumes.selection.only_one(),
            _ => None,
        }
    }
}
