//! How to push.

use std::path::PathBuf;

use crate::app::receipts::ReceiptFile;
use crate::app::registry::RegistryOptions;
use crate::pipeline::naming::{Map, Naming, Style, Target};
use crate::pipeline::plan::OnExisting;

/// How to push. [`PushOptions::to`] gives what the command line does without options.
#[derive(Clone)]
pub struct PushOptions {
    /// `HOST[:PORT][/PREFIX]`.
    pub to: String,
    pub names: NameOptions,
    pub harbor: HarborOptions,
    /// What to do with a tag that means something else there.
    pub on_existing: OnExisting,
    /// Rely on nothing that the target has: upload every blob, put every manifest.
    pub reupload: bool,
    /// Afterwards read everything back and prove its digests. With a receipt, an interrupted proof goes on in the next run.
    pub prove: bool,
    /// Stop at the first failure.
    pub fail_fast: bool,
    /// Make a plan and push nothing.
    pub dry_run: bool,
    /// Where to write what arrived. It is also written when the push is dropped before its end.
    pub receipt: Option<ReceiptFile>,
    /// Where to write a line `DIGEST docker://REFERENCE` for each image that is at the target.
    pub digest_file: Option<PathBuf>,
    pub registry: RegistryOptions,
}

/// How names at the target are made.
#[derive(Clone, Debug, Default)]
pub struct NameOptions {
    pub names: Names,
    pub style: Style,
    /// Rules that count more than the style.
    pub map: Map,
}

/// What the names at the source are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// They begin with a registry.
    #[default]
    Hosted,
    /// They are paths, without the name of the registry.
    Paths,
}

/// What to do where the target is Harbor.
#[derive(Clone, Debug, Default)]
pub struct HarborOptions {
    /// Create projects that are missing.
    pub create_projects: bool,
    /// Uploads into one project at a time, and as many mounts. `None`: 4 on Harbor, elsewhere no limit.
    pub uploads_per_project: Option<u16>,
    /// Everybody can pull from created projects.
    pub public: bool,
    /// The storage quota of created projects, in bytes.
    pub quota: Option<u64>,
}

impl PushOptions {
    /// `to` is `HOST[:PORT][/PREFIX]`.
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
    /// The naming below `target`.
    pub fn naming(&self, target: &Target) -> Naming {
        Naming { prefix: target.prefix.clone(), style: self.style, map: self.map.clone() }
    }
}
