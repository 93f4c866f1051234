//! The request of a migration.

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
    /// A directory at or above `docker/registry/v2`, or an uncompressed tar of one.
    pub storage: PathBuf,
    /// Which images to migrate.
    pub which: ImageFilter,
    pub to: Destination,
    /// How blobs are checked before the migration. `None` for the default: all bytes if `strict` is set and the destination
    /// is a registry or a bundle, otherwise sizes.
    pub depth: Option<AuditDepth>,
    /// Write and push nothing if the storage has a problem.
    pub strict: bool,
    /// Number of images, and then of blobs, handled at the same time.
    pub jobs: usize,
}

/// The destination of the images.
pub enum Destination {
    /// No destination: the images are listed.
    List,
    Registry(Box<PushOptions>),
    Bundle(BundleOutput),
    /// A directory for each image, in the format of skopeo's `dir:`.
    Directories {
        path: PathBuf,
        link: LinkMode,
    },
    /// A new storage. Its files belong to `owner`, or to the user for `None`.
    Storage {
        path: PathBuf,
        link: LinkMode,
        owner: Option<Owner>,
    },
}

/// The bundle to write.
pub struct BundleOutput {
    /// A tar if the name ends in `.tar`, otherwise a directory.
    pub path: PathBuf,
    pub link: LinkMode,
    /// The key that signs the bundle.
    pub sign_key: Option<Arc<PrivateKey>>,
    /// Files that are added to the bundle.
    pub tools: Vec<Tool>,
    /// Read the output back from the medium before reporting success.
    pub read_back: bool,
}

impl MigrateRequest {
    /// Migrates all images with a tag.
    pub fn new(storage: PathBuf, to: Destination) -> MigrateRequest {
        MigrateRequest { storage, which: ImageFilter::default(), to, depth: None, strict: false, jobs: 6 }
    }
}
