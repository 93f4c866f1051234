//! The request of an import.

use std::path::PathBuf;

use super::prune::PruneOptions;
use crate::app::push::PushOptions;
use crate::app::receipts::NamedReceipt;
use crate::app::stream::BundleStream;
use crate::app::trust::Trust;
use crate::pipeline::allowlist::Allowlist;

/// See the module documentation.
pub struct ImportRequest {
    pub bundle: BundleInput,
    /// Where the images go, and how they are pushed.
    pub push: PushOptions,
    /// The signatures that the bundle must have.
    pub trust: Trust,
    /// The allowlist. Other images are refused.
    pub allow: Option<NamedAllowlist>,
    /// A receipt. A bundle that is not newer than the bundle of the receipt is refused.
    pub newer_than: Option<NamedReceipt>,
    /// For an increment: where to write a list of what the target lacks.
    pub missing: Option<PathBuf>,
    /// For an increment: a repair file with what the target lacks.
    pub repair: Option<PathBuf>,
    /// What to do after the import about tags of images that are no longer wanted. `None` to do nothing.
    pub prune: Option<PruneOptions>,
}

/// How a bundle arrives.
pub enum BundleInput {
    Files {
        /// A directory, a tar, or volumes in any order.
        paths: Vec<PathBuf>,
        /// Volumes can arrive in several runs; this file records the progress.
        state: Option<PathBuf>,
        /// Prove every byte before the first push, instead of during the push.
        verify_first: bool,
    },
    Stream(BundleStream),
}

/// An allowlist, and its name in error messages.
#[derive(Clone, Debug)]
pub struct NamedAllowlist {
    pub name: String,
    pub list: Allowlist,
}

impl ImportRequest {
    /// Imports a whole bundle with default options.
    pub fn new(paths: Vec<PathBuf>, push: PushOptions) -> ImportRequest {
        let bundle = BundleInput::Files { paths, state: None, verify_first: false };
        let (trust, allow, newer_than) = (Trust::default(), None, None);
        ImportRequest { bundle, push, trust, allow, newer_than, missing: None, repair: None, prune: None }
    }
}

impl Default for BundleInput {
    fn default() -> BundleInput {
        BundleInput::Files { paths: Vec::new(), state: None, verify_first: false }
    }
}
