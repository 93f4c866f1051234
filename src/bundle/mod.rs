//! The bundle: its format, writer and reader. `docs/format.md` describes every file.
//!
//! A bundle is a list of files ([`fileset`]), either of [`Contents`] that are to be fetched or of an existing bundle. `writer`
//! writes it in its form: [`Writer`] by position, [`StreamWriter`] in a single pass. A placement (`output`) decides where each
//! file goes; a supply is a place that blobs can come from besides a [`Source`](crate::content::Source).
//!
//! Every command fits this scheme. [`convert`] has a bundle as its source; `split` and `join` are conversions, and so is
//! [`sign()`] if a tar has no room for another signature. [`repair()`] has a damaged directory or tar as its placement, and a
//! repair file or copy as a supply; a repair file is a list too. Volumes are written again by [`repair_set`], a conversion of
//! what is intact, or computed by [`volumes`] from the remaining stripes. [`Bundle`] opens a bundle, whose layout is a source.
//! A bundle from a pipe is a [`StreamedBundle`].
//!
//! The module depends on the format, the file system, and the lock and graph of a bundle; not on registries or the command
//! line.

mod basis;
pub mod convert;
#[cfg(test)]
mod documents;
pub mod fileset;
mod format;
mod journal;
mod loaders;
mod missing;
mod open;
mod options;
mod order;
mod output;
pub mod plan_volumes;
mod planned_tar;
pub mod preflight;
mod prove_files;
mod read_back;
mod repair;
mod sign;
mod signature;
mod stamp;
mod streamed;
mod tar_plan;
mod tools;
pub mod volumes;
mod writer;

pub use basis::{Assumed, AssumedKind, Basis, Parent, ParentKind, Removed};
pub use fileset::FileSet;
pub use format::{
    BUNDLE_JSON, BundleJson, CHUNKS, DOCKER_JSON, FORMAT_VERSION, FileEntry, INDEX_JSON, LAST_TIME, MAX_BUNDLE_JSON,
    MAX_DOCKER_JSON, MAX_SIGNATURE, MOST_DOCKER_VALUES, MOST_SIGNATURES, OCI_LAYOUT, REPAIR_JSON, SIGNATURE, SUMS,
    SUMS512, TOOLS, VOLUMES, chunks, identity_of, is_metadata, is_never_declared, is_signature, is_tool, signatures_of,
    signed_file, sums,
};
pub(crate) use loaders::{SUBJECT, docker_entry, docker_json, index_json, load_platform, whole_images};
pub use missing::{MAX_MISSING, MISSING_VERSION, Missing, MissingBlob, MissingRange, MissingTool};
pub use open::{Bundle, NoBundle, no_bundle, open_damaged, refuse_part, refuse_unfinished};
pub use options::{Finished, Form, Options, SpaceNeeds, is_tar};
pub(crate) use order::problem_of_order;
pub use read_back::read_back;
pub use repair::file::{RepairContents, RepairFile, is_for as repair_is_for, refuse_unwanted, write_repair};
pub use repair::volumes::{LockedSet, RepairedSet, RepairedVolume, SetRepair, lock_set, repair_set};
pub use repair::{RepairWith, Repaired, lock_bundle, repair};
pub use sign::{SignScope, sign};
pub use signature::{Proven, SignatureProblem, check_signature, signer};
pub use streamed::{Ending, NotReceived, StreamBuffer, StreamSource, StreamedBundle};
pub use tools::{Tool, tools_of};
pub use writer::Writer;
pub use writer::compressed::Compressed;
pub use writer::one_pass::{StreamWriter, Streamed, places};
pub use writer::sink::{Section, StreamSink};

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::base::error::{Error, Result};
use crate::base::fsops;
use crate::oci::{Described, Descriptor, Digest, Manifest, Role};
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::Lock;
use order::Ordered;

/// The file, next to `out`, in which a run keeps the manifests it has read until it is done.
pub fn walk_file(out: &Path) -> PathBuf {
    let settled = fsops::canonicalize(out);
    fsops::beside(settled.as_deref().unwrap_or(out), ".walk")
}

/// The bundle that an export would replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormerBundle {
    pub identity: Digest,
    /// When its references were resolved.
    pub created: Timestamp,
}

/// The contents of a bundle.
#[derive(Clone, Debug)]
pub struct Contents {
    pub lock: Lock,
    /// Every manifest once, in tar order.
    pub manifests: Vec<Manifest>,
    /// Every other blob once, in tar order.
    pub blobs: Vec<Descriptor>,
    /// What it builds on; content assumed there is not among the manifests and blobs.
    pub basis: Basis,
    /// Programs that are included, by name.
    pub tools: Vec<Tool>,
}

impl Contents {
    /// Builds the contents from a lock and its graph.
    ///
    /// # Errors
    /// Two images would have the same name in the bundle, or a digest has two sizes.
    pub fn new(lock: Lock, graph: &Graph) -> Result<Contents> {
        let mut names = HashSet::new();
        for image in &lock.images {
            let name = image.name();
            if !names.insert(name.clone()) {
                return Err(Error::input(format!(
                    "two images would have the name {name} in the bundle; remove one of them"
                )));
            }
        }
        let content = Ordered { manifests: graph.manifests(), blobs: graph.blobs() };
        let Ordered { manifests, blobs } = order::order(&lock, content, &HashSet::new());
        let contents = Contents { lock, manifests, blobs, basis: Basis::default(), tools: Vec::new() };
        contents.check_sizes()?;
        Ok(contents)
    }

    /// The contents as an increment, without what `basis` assumes.
    pub fn building_on(self, basis: Basis) -> Contents {
        let assumed: HashSet<Digest> = basis.assumed.iter().map(|assumed| assumed.digest).collect();
        let content = Ordered { manifests: self.manifests, blobs: self.blobs };
        let Ordered { manifests, blobs } = order::order(&self.lock, content, &assumed);
        Contents { manifests, blobs, basis, lock: self.lock, tools: self.tools }
    }

    /// The contents with these tools.
    pub fn carrying(self, tools: Vec<Tool>) -> Contents {
        Contents { tools, ..self }
    }

    /// Checks that a blob has the same size in every manifest; otherwise the finished bundle would be found damaged. The sizes
    /// of manifests are known, whatever an index states.
    fn check_sizes(&self) -> Result<()> {
        let sizes: HashMap<Digest, u64> = self.all().collect();
        for manifest in &self.manifests {
            for child in manifest.children().into_iter().filter(|child| child.role != Role::Manifest) {
                let Described { digest, size, .. } = *child.descriptor;
                if let Some(other) = sizes.get(&digest).filter(|other| **other != size) {
                    let parent = manifest.digest();
                    return Err(Error::damaged(format!(
                        "the manifest {parent} gives {digest} a size of {size} bytes, another one gives it {other}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The contents with another time.
    pub fn at(self, created: Timestamp) -> Contents {
        Contents { lock: Lock { created, ..self.lock }, ..self }
    }

    /// The contents with the time of the bundle to be replaced, if that bundle is the same otherwise: an export without
    /// changes then keeps its identity.
    ///
    /// # Errors
    /// As for [`Contents::head`].
    pub fn continuing(self, former: Option<FormerBundle>) -> Result<Contents> {
        let Some(FormerBundle { identity, created }) = former else { return Ok(self) };
        let now = self.lock.created;
        let same = self.at(created);
        if same.identity()? == identity { Ok(same) } else { Ok(same.at(now)) }
    }

    /// Digest and size of every file below `blobs/`, in tar order.
    pub fn all(&self) -> impl Iterator<Item = (Digest, u64)> {
        let manifests = self.manifests.iter().map(|manifest| (manifest.digest(), manifest.size()));
        manifests.chain(self.blobs.iter().map(|blob| (blob.digest, blob.size)))
    }
}
