//! What is to be exported, and where to.

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
