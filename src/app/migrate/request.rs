//! What is to be migrated, and where to.

use std::path::PathBuf;
use std::sync::Arc;

use super::choice::ImageFilter;
use crate::app::push::PushOptions;
use crate::base::fsops::Owner;
use crate::bundle::Tool;
use crate::content::LinkMode;
use crate::signing::PrivateKey;
use crate::transport::storage::AuditDepth;

/// See the module documentation.
pub struct MigrateRequest {
    /// A directory at or above `docker/registry/v2`, or a plain tar of one.
    pub storage: PathBuf,
    /// Which images are wanted.
    pub which: ImageFilter,
    pub to: Destination,
    /// How blobs are looked at before. `None`: each byte if nothing may be wrong and they go into a registry or a bundle, else
    /// their sizes.
    pub depth: Option<AuditDepth>,
    /// Write and push nothing if anything is wrong.
    pub strict: bool,
    /// Images, then blobs, at a time.
    pub jobs: usize,
}

/// Where the images go.
pub enum Destination {
    /// Nowhere: they are listed.
    List,
    Registry(Box<PushOptions>),
    Bundle(BundleOutput),
    /// A directory for each image, as skopeo's `dir:` reads it.
    Directories {
        path: PathBuf,
        link: LinkMode,
    },
    /// A storage of their own. Its files belong to `owner`; `None`: to the user.
    Storage {
        path: PathBuf,
        link: LinkMode,
        owner: Option<Owner>,
    },
}

/// A bundle that is to be written.
pub struct BundleOutput {
    /// A tar if the name ends in `.tar`, else a directory.
    pub path: PathBuf,
    pub link: LinkMode,
    /// Signs the bundle.
    pub sign_key: Option<Arc<PrivateKey>>,
    /// Files that go with the images.
    pub tools: Vec<Tool>,
    /// Read everything from the medium again before it is called done.
    pub read_back: bool,
}

impl MigrateRequest {
    /// All images that have a tag.
    pub fn new(storage: PathBuf, to: Destination) -> MigrateRequest {
        MigrateRequest { storage, which: ImageFilter::default(), to, depth: None, strict: false, jobs: 6 }
    }
}
