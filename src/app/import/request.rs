//! What is to be imported, and how.

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
    /// Where the images go, and how.
    pub push: PushOptions,
    /// Whose signature the bundle has to have.
    pub trust: Trust,
    /// Images that are not on this list are refused.
    pub allow: Option<NamedAllowlist>,
    /// A bundle that is not newer than the one of this receipt is refused.
    pub newer_than: Option<NamedReceipt>,
    /// Of an increment: where to write what the target lacks.
    pub missing: Option<PathBuf>,
    /// Of an increment: a repair that has what the target lacks.
    pub repair: Option<PathBuf>,
    /// What to do afterwards about tags of images that are not wanted any more. `None`: nothing.
    pub prune: Option<PruneOptions>,
}

/// How a bundle comes.
pub enum BundleInput {
    Files {
        /// A directory, a tar, or volumes in any order.
        paths: Vec<PathBuf>,
        /// Volumes may come in several runs; this file says how far.
        state: Option<PathBuf>,
        /// Prove every byte before the first push, not on the way.
        verify_first: bool,
    },
    Stream(BundleStream),
}

/// An allowlist, and what errors call it.
#[derive(Clone, Debug)]
pub struct NamedAllowlist {
    pub name: String,
    pub list: Allowlist,
}

impl ImportRequest {
    /// All of a bundle, with nothing else asked for.
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
