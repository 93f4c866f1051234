//! Options of commands that push into a registry, and the output they share.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::allowlist::read_file;
use super::exit::CommandOutcome;
use super::registry::RegistryArgs;
use super::render::push as render;
use crate::app::{HarborOptions, NameOptions, Names, PushOptions, PushReport, ReceiptFile, Text};
use crate::base::error::{Error, Result};
use crate::base::progress::units::parse_bytes;
use crate::cli::context::Context;
use crate::pipeline::allowlist::refused;
use crate::pipeline::naming::{Map, Style};
use crate::pipeline::plan::OnExisting;
use crate::signing::PrivateKey;

/// How to push. A command with these options also has `--to`.
#[derive(clap::Args)]
pub struct PushArgs {
    #[command(flatten)]
    names: NameArgs,
    #[command(flatten)]
    harbor: HarborArgs,
    /// If a tag has another digest: overwrite, skip, fail
    ///
    /// Applies to tags of images and of their companions (sha256-….sig, .att, .sbom). Signatures at the target are never
    /// lost: `overwrite` merges the lists of both sides under a .sig or .att tag, and the plan and the receipt say so.
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "overwrite",
        hide_possible_values = true,
        help_heading = "Pushing"
    )]
    on_existing: Existing,
    /// Upload every blob and manifest, even if the target has it
    ///
    /// For a target whose storage or cache you do not trust. Tags are still compared. What an increment expects at the
    /// target is read there completely and verified before anything is pushed, except in a dry run.
    #[arg(long, help_heading = "Pushing", hide_short_help = true)]
    reupload: bool,
    /// Afterwards, read everything back and verify its digests
    ///
    /// Reads over HTTP, like `gapferry prove`. --receipt FILE is written before, and again with the results. An image that
    /// does not verify counts as failed. With --receipt, the same command continues an interrupted check.
    #[arg(long, help_heading = "Pushing", hide_short_help = true)]
    prove: bool,
    /// Stop at the first failure
    #[arg(long, help_heading = "Pushing", hide_short_help = true)]
    fail_fast: bool,
    /// Print the plan and push nothing
    ///
    /// The plan lists what would be pushed, skipped or overwritten, and how many bytes are new, mounted or present.
    #[arg(long, help_heading = "Pushing")]
    dry_run: bool,
    /// Write a JSON receipt of what arrived where
    ///
    /// The receipt contains the bundle's identity, the target, each image with its reference, digest and outcome, the blobs
    /// the target is known to have, and the manifests, which the next export then need not read. Ctrl-C also leaves a
    /// receipt. For a failed image it contains the reason. An image that `migrate` found damaged in the storage has a source and no
    /// reference.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    receipt: Option<PathBuf>,
    /// Write the digest of each image, as skopeo sync does
    ///
    /// One line `DIGEST docker://REFERENCE` for each image at the target.
    #[arg(long, value_name = "FILE", help_heading = "Output", hide_short_help = true)]
    digestfile: Option<PathBuf>,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// How names at the target are derived.
#[derive(clap::Args)]
pub struct NameArgs {
    /// Keep only the last component of the repository path
    #[arg(long, help_heading = "Names")]
    flatten: bool,
    /// File with naming rules
    #[arg(long, value_name = "FILE", help_heading = "Names")]
    map: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Existing {
    /// Move the tag to the new image
    Overwrite,
    /// Leave out the image or companion
    Skip,
    /// Fail the image
    Fail,
}

impl From<Existing> for OnExisting {
    fn from(existing: Existing) -> OnExisting {
        match existing {
            Existing::Overwrite => OnExisting::Overwrite,
            Existing::Skip => OnExisting::Skip,
            Existing::Fail => OnExisting::Fail,
        }
    }
}

#[derive(Args)]
#[command(next_help_heading = "Pushing")]
struct HarborArgs {
    /// Create missing projects
    #[arg(long)]
    create_projects: bool,
    /// Parallel uploads, and parallel mounts, per project
    ///
    /// Default: 4 on Harbor, where more uploads into one project only fail and are repeated; elsewhere unlimited.
    #[arg(long, value_name = "N", hide_short_help = true, value_parser = clap::value_parser!(u16).range(1..=256))]
    per_project: Option<u16>,
    /// Make created projects public
    #[arg(long, requires = "create_projects", hide_short_help = true)]
    project_public: bool,
    /// Storage quota of created projects, such as 200GiB
    ///
    /// Harbor accepts this from administrators only.
    #[arg(long, value_name = "SIZE", requires = "create_projects", value_parser = parse_bytes, hide_short_help = true)]
    project_quota: Option<u64>,
}

/// What a push needs in addition to the shared options: the target, the style of names, and the key for the receipt.
pub struct PushDestination<'a> {
    pub to: &'a str,
    pub names: Names,
    pub scoped: bool,
    pub sign_key: Option<Arc<PrivateKey>>,
}

impl PushArgs {
    /// Converts the options for the library.
    ///
    /// # Errors
    /// The naming rules or the credentials on standard input are invalid, or there is a key but no receipt to sign.
    pub fn options(&self, to: PushDestination<'_>) -> Result<PushOptions> {
        let receipt = match (&self.receipt, to.sign_key) {
            (None, Some(_)) => {
                return Err(Error::input("--sign-key signs the receipt here: name one by --receipt FILE"));
            }
            (path, sign_key) => path.clone().map(|path| ReceiptFile { path, sign_key }),
        };
        Ok(PushOptions {
            to: to.to.to_owned(),
            names: self.names.options(to.names, to.scoped)?,
            harbor: HarborOptions {
                create_projects: self.harbor.create_projects,
                uploads_per_project: self.harbor.per_project,
                public: self.harbor.project_public,
                quota: self.harbor.project_quota,
            },
            on_existing: self.on_existing.into(),
            reupload: self.reupload,
            prove: self.prove,
            fail_fast: self.fail_fast,
            dry_run: self.dry_run,
            receipt,
            digest_file: self.digestfile.clone(),
            registry: self.registry.options()?,
        })
    }
}

impl NameArgs {
    /// Converts the options for the library.
    ///
    /// # Errors
    /// The naming rules cannot be read or are invalid.
    pub fn options(&self, names: Names, scoped: bool) -> Result<NameOptions> {
        let style = match (scoped, self.flatten) {
            (true, _) => Style::Scoped,
            (false, true) => Style::Flatten,
            (false, false) => Style::Default,
        };
        let map = match &self.map {
            Some(path) => {
                let Text { name: file, bytes } = read_file(path)?;
                let map = match names {
                    Names::Hosted => Map::parse(&bytes, &file),
                    Names::Paths => Map::parse_paths(&bytes, &file),
                };
                map.map_err(|problems| refused("the naming rules", &problems))?
            }
            None => Map::default(),
        };
        Ok(NameOptions { names, style, map })
    }
}

/// Prints the plan or the result of a push. With `json`, standard output is reserved for the report.
///
/// # Errors
/// Writing to standard output failed.
pub fn show(report: &PushReport, json: bool, context: &Context) -> Result<()> {
    context.end();
    match report {
        PushReport::Planned(plan) => {
            render::warn_of_plan(plan, context);
            if json { Ok(()) } else { render::print_plan(plan, context) }
        }
        PushReport::Pushed(pushed) => {
            render::show_pushed(pushed, context);
            Ok(())
        }
    }
}

/// The outcome of a command whose result was `shown`.
///
/// # Errors
/// What failed after the push, or otherwise what kept the result from being shown.
pub fn end(report: &PushReport, shown: Result<()>) -> Result<CommandOutcome> {
    match report.failure() {
        Some(error) => Err(error.clone()),
        None => shown.map(|()| report.outcome().into()),
    }
}
