//! The request of an export.

use std::path::PathBuf;
use std::sync::Arc;

use crate::app::local::Text;
use crate::app::output::Output;
use crate::app::registry::RegistryOptions;
use crate::app::resolve::ResolveOptions;
use crate::bundle::Tool;
use crate::increment::Baseline;
use crate::pipeline::allowlist::Allowlist;
use crate::pipeline::walk::LockedCompanions;
use crate::signing::PrivateKey;

/// What to export, and where to. [`ExportRequest::new`] returns the defaults of the command line.
pub struct ExportRequest {
    pub images: Images,
    /// What is exported of the images.
    pub resolve: ResolveOptions,
    pub output: Output,
    /// Where to write the lock, which records what each reference resolved to.
    pub lock: Option<PathBuf>,
    /// Make a plan and write nothing.
    pub dry_run: bool,
    /// Content that the target already has, which is left out. `None` for a bundle that is complete in itself.
    pub since: Option<Baseline>,
    /// Files that are added to the bundle.
    pub tools: Vec<Tool>,
    /// The key that signs the bundle.
    pub sign_key: Option<Arc<PrivateKey>>,
    /// Read the output back from the medium before reporting success.
    pub read_back: bool,
    pub registry: RegistryOptions,
}

/// The images to export.
pub enum Images {
    /// What the entries of a list resolve to now.
    Listed(Allowlist),
    /// Exactly the images of a lock.
    Locked { lock: Text, companions: LockedCompanions },
}

impl ExportRequest {
    /// Exports all images of a list into a bundle that is complete in itself.
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
