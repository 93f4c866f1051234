//! What is to be exported, and where to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::app::local::Text;
use crate::app::registry::RegistryOptions;
use crate::app::resolve::ResolveOptions;
use crate::base::error::{Error, Result};
use crate::bundle::stream::{Compressed, Outlet};
use crate::bundle::{Bundle, Tool, Volumes, Writer, walk_file};
use crate::increment::Baseline;
use crate::pipeline::allowlist::Allowlist;
use crate::pipeline::walk::LockedCompanions;
use crate::signing::PrivateKey;

/// See the module documentation. [`ExportRequest::new`] gives what the command line does without options.
pub struct ExportRequest {
    pub images: Images,
    /// What is carried of them.
    pub resolve: ResolveOptions,
    pub output: Output,
    /// Where to write the lock: what each reference meant.
    pub lock: Option<PathBuf>,
    /// Make a plan and write nothing.
    pub dry_run: bool,
    /// What has arrived, and is left out. `None`: the bundle is complete in itself.
    pub since: Option<Baseline>,
    /// Files that go with the images.
    pub tools: Vec<Tool>,
    /// Signs the bundle.
    pub sign_key: Option<Arc<PrivateKey>>,
    /// Read everything from the medium again before it is called done.
    pub read_back: bool,
    pub registry: RegistryOptions,
}

/// What is to be carried.
pub enum Images {
    /// What the entries of a list mean now.
    Listed(Allowlist),
    /// Exactly the images of a lock.
    Locked { lock: Text, companions: LockedCompanions },
}

/// Where the bundle goes.
pub enum Output {
    /// A tar if the name ends in `.tar`, a compressed tar, in one pass, if it ends in `.tar.zst`, else a directory.
    Path(PathBuf),
    /// Tars of a limited size, whose names are made of this one.
    Volumes { path: PathBuf, volumes: Volumes },
    /// A tar in one pass. Nothing is kept beside it, so an export that was interrupted begins again. Errors call it `name`.
    Stream { name: PathBuf, outlet: OneOutlet },
}

/// Takes one bundle.
pub struct OneOutlet(Mutex<Option<Box<dyn Outlet>>>);

impl OneOutlet {
    pub fn new(outlet: impl Outlet + 'static) -> OneOutlet {
        OneOutlet(Mutex::new(Some(Box::new(outlet))))
    }

    /// The outlet, the first time.
    pub(super) fn take(&self) -> Option<Box<dyn Outlet>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ExportRequest {
    /// All images of a list, complete in themselves.
    pub fn new(images: Allowlist, output: PathBuf) -> ExportRequest {
        ExportRequest {
            images: Images::Listed(images),
            resolve: ResolveOptions::default(),
            output: Output::Path(output),
            lock: None,
            dry_run: false,
            since: None,
            tools: Vec::new(),
            sign_key: None,
            read_back: false,
            registry: RegistryOptions::default(),
        }
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
        match self {
            Output::Path(path) if Compressed::is_meant(path) => Compressed::check_free(path),
            Output::Path(path) => Writer::check_free(path),
            Output::Volumes { path, .. } => Volumes::check_free(path),
            Output::Stream { .. } => Ok(()),
        }
    }

    /// # Errors
    /// Volumes cannot be compressed.
    pub(super) fn check_form(&self) -> Result<()> {
        match self {
            Output::Volumes { path, .. } if Compressed::is_meant(path) => {
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
    pub(super) fn former(&self) -> Result<Option<Bundle>> {
        match self {
            Output::Path(path) if Compressed::is_meant(path) => Ok(Bundle::open(path).ok()),
            Output::Path(path) => Writer::former(path),
            Output::Volumes { path, .. } => Ok(Volumes::former(path)),
            Output::Stream { .. } => Ok(None),
        }
    }

    /// Where manifests that were read are kept for the next run.
    pub(super) fn walk_file(&self) -> Option<PathBuf> {
        match self {
            Output::Path(path) | Output::Volumes { path, .. } => Some(walk_file(path)),
            Output::Stream { .. } => None,
        }
    }

    /// The number of the only volume that is written, of a set that exists.
    pub(super) fn only_volume(&self) -> Option<u32> {
        match self {
            Output::Volumes { volumes, .. } => volumes.only,
            _ => None,
        }
    }
}
