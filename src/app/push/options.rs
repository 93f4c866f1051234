//! The options of a push.

use std::path::PathBuf;

use crate::app::receipts::ReceiptFile;
use crate::app::registry::RegistryOptions;
use crate::pipeline::naming::{Map, Naming, Style, Target};
use crate::pipeline::plan::OnExisting;

/// The options of a push. [`PushOptions::to`] returns the defaults of the command line.
#[derive(Clone)]
pub struct PushOptions {
    /// `HOST[:PORT][/PREFIX]`.
    pub to: String,
    pub names: NameOptions,
    pub harbor: HarborOptions,
    /// What to do with a tag that has another digest at the target.
    pub on_existing: OnExisting,
    /// Do not rely on content of the target: upload every blob and manifest.
    pub reupload: bool,
    /// Read everything back after the push and prove its digests. With a receipt, the next run resumes an interrupted
    /// proof.
    pub prove: bool,
    /// Stop at the first failure.
    pub fail_fast: bool,
    /// Make a plan and push nothing.
    pub dry_run: bool,
    /// Where to write the receipt. It is also written if the push is dropped early.
    pub receipt: Option<ReceiptFile>,
    /// Where to write a line `DIGEST docker://REFERENCE` for each image that is at the target.
    pub digest_file: Option<PathBuf>,
    pub registry: RegistryOptions,
}

/// How references at the target are made.
#[derive(Clone, Debug, Default)]
pub struct NameOptions {
    pub names: Names,
    pub style: Style,
    /// Rules that take precedence over the style.
    pub map: Map,
}

/// The form of names at the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Names that start with a registry.
    #[default]
    Hosted,
    /// Paths without a registry.
    Paths,
}

/// What to do if the target is Harbor.
#[derive(Clone, Debug, Default)]
pub struct HarborOptions {
    /// Create missing projects.
    pub create_projects: bool,
    /// Number of uploads into one project at the same time, and of mounts. `None` for 4 on Harbor, and no limit elsewhere.
    pub uploads_per_project: Option<u16>,
    /// Whether everybody can pull from created projects.
    pub public: bool,
    /// The storage quota of created projects, in bytes.
    pub quota: Option<u64>,
}

impl PushOptions {
    /// The default options for a target, `HOST[:PORT][/PREFIX]`.
    pub fn to(to: impl Into<String>) -> PushOptions {
        PushOptions {
            to: to.into(),
            names: NameOptions::default(),
            harbor: HarborOptions::default(),
            on_existing: OnExisting::Overwrite,
            reupload: false,
            prove: false,
            fail_fast: false,
            dry_run: false,
            receipt: None,
            digest_file: None,
            registry: RegistryOptions::default(),
        }
    }
}

impl NameOptions {
    /// Returns the naming below `target`.
    pub fn naming(&self, target: &Target) -> Naming {
        Naming { prefix: target.prefix.clone(), style: self.style, map: self.map.clone() }
    }
}
