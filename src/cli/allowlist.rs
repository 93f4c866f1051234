//! Options that say what to carry, the same for `export` and `lock`.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use super::registry::RegistryArgs;
use super::stdin::take_stdin;
pub use crate::app::missing_lines;
use crate::app::{Input, ResolveOptions, Text};
use crate::base::error::{Error, Result};
use crate::oci::Platform;
use crate::pipeline::allowlist::{Allowlist, MAX_FILE_SIZE, Pattern, refused};
use crate::pipeline::lock::IndexMode;
use crate::pipeline::walk::Referrers;

#[derive(Args)]
#[command(next_help_heading = "What to carry")]
pub struct AllowlistArgs {
    /// Images: name:tag, name@digest, or name alone for all its tags
    ///
    /// name:tag@digest is pinned, and keeps its tag.
    /// Short names mean what they mean to Docker: nginx is docker.io/library/nginx.
    #[arg(value_name = "REF")]
    references: Vec<String>,
    /// Allowlist file, `-` for standard input; repeatable
    ///
    /// Text (one reference a line, # comments, then platform=… and as=…), a YAML list with the same keys, or the file
    /// of `skopeo sync --src yaml` as it is.
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Take only OS/ARCH[/VARIANT], as linux/arm64; repeatable
    ///
    /// An entry's own platform= counts more. A platform that an image lacks is an error. linux/arm/v7 takes v6 or else v5 of an image
    /// without v7. windows/amd64 takes every version of Windows that an index has; windows(10.0.20348)/amd64 takes that one.
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<Platform>,
    /// Take what an image has of the platforms asked for; one that lacks all of them is left out
    ///
    /// The lock records it, and the exit code is that of success.
    #[arg(long, hide_short_help = true)]
    skip_missing_platform: bool,
    /// Go on without images that cannot be had
    ///
    /// The lock records them, each with a reason, and the exit code is 1. An increment does not take a missing image for an unwanted
    /// one. A lost signature or other companion alone never costs its image, except with --require-referrers, with --locked and
    /// without this option, or where the registry gives no answer about it.
    #[arg(long)]
    pub keep_going: bool,
    /// What becomes of an index when platforms are left out
    ///
    /// Without this option: single for one manifest whose config names the platform, else trim, as for one platform of Windows in several
    /// versions. An entry of the lock or bundle that is replaced keeps its mode.
    #[arg(long, value_name = "MODE")]
    index: Option<IndexMode>,
    /// The platform that `docker load` and `podman load` take of an index with several [default: linux/amd64]
    #[arg(long, value_name = "PLATFORM", hide_short_help = true)]
    load_platform: Option<Platform>,
    #[command(flatten)]
    companions: CompanionArgs,
    /// Fail where a registry does not say whether signatures, SBOMs or other referrers are attached
    ///
    /// Without it such an image is carried with what was found, its lock entry says `attachedUnknown`, and one warning for each
    /// registry says why.
    #[arg(long, conflicts_with = "no_referrers", hide_short_help = true)]
    require_referrers: bool,
    /// Fetch layers kept outside registries (Windows base layers)
    #[arg(long, hide_short_help = true)]
    foreign_layers: bool,
    /// A tag pattern that matches nothing is no error, and neither is a list without images
    #[arg(long, hide_short_help = true)]
    allow_empty: bool,
    /// Tags that never move: where the earlier lock says what they mean, that is not asked again; repeatable
    ///
    /// A pattern, as in images-by-tag-regex: found anywhere in the tag unless anchored, such as '^v?[0-9]+[.]'. An image with such
    /// a tag that stands in the lock file to be replaced, or without one in the lock of the bundle to be replaced, is taken as
    /// it stands there, with what travelled along then. Rely on a bundle only if it never left your hands; else keep a lock on
    /// your side and name it (export: --lock FILE). Nothing is asked about the tag; manifests that the bundle at hand does not
    /// have are read by their digests. Where the tag has to be asked about after all, because that image is gone or is wanted
    /// otherwise now, and means another image, that is an error.
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::new)]
    immutable_tags: Vec<Pattern>,
}

/// What travels with images.
#[derive(clap::Args)]
pub struct CompanionArgs {
    /// Leave signatures, SBOMs and referrers behind
    #[arg(long)]
    pub no_referrers: bool,
}

impl AllowlistArgs {
    /// Reads references and files; everything that is wrong in them is one error.
    pub fn read(&self, registry: &RegistryArgs) -> Result<Allowlist> {
        if self.references.is_empty() && self.files.is_empty() {
            return Err(Error::input("nothing to carry: name images, or a file of them with -f"));
        }
        self.references.iter().try_for_each(|reference| refuse_file(reference))?;
        registry.claim_stdin()?;
        read_lists(&self.references, &self.files)
    }

    /// What is carried of the images.
    pub fn options(&self) -> ResolveOptions {
        let referrers = match (self.companions.no_referrers, self.require_referrers) {
            (true, _) => Referrers::Leave,
            (false, true) => Referrers::Require,
            (false, false) => Referrers::Look,
        };
        ResolveOptions {
            platforms: self.platforms.clone(),
            skip_missing_platform: self.skip_missing_platform,
            keep_going: self.keep_going,
            index: self.index,
            load_platform: self.load_platform.clone(),
            referrers,
            foreign_layers: self.foreign_layers,
            allow_empty: self.allow_empty,
            immutable_tags: self.immutable_tags.clone(),
            // A list that can be given to an import as it is.
            note_refused: !self.files.is_empty(),
        }
    }

    /// Whether companions were asked to stay behind.
    pub fn no_referrers(&self) -> bool {
        self.companions.no_referrers
    }
}

/// A list of images that was given as if it were an image.
fn refuse_file(reference: &str) -> Result<()> {
    // An image with a tag or digest is hardly meant to be a file.
    let may_be_file = !reference.contains('@') && !reference.rsplit('/').next().is_some_and(|name| name.contains(':'));
    if !may_be_file || !Path::new(reference).is_file() {
        return Ok(());
    }
    let text = format!("{reference} is a file; for the images listed in it: -f {reference}");
    let is_path = reference.starts_with(['/', '.']);
    Err(Error::input(match is_path {
        true => text,
        false => format!("{text}; for all tags of an image of that name, write its registry before it"),
    }))
}

/// The allowlist in these references and files.
///
/// # Errors
/// A file that cannot be read; all that is wrong in the allowlist, at once.
pub fn read_lists(references: &[String], files: &[PathBuf]) -> Result<Allowlist> {
    let read = |path: &PathBuf| read_file(path).map(|Text { name, bytes }| (name, bytes));
    let files = files.iter().map(read).collect::<Result<Vec<_>>>()?;
    Allowlist::parse_sources(references, &files).map_err(|problems| refused("the allowlist", &problems))
}

/// A file, `-` being standard input; not more than an allowlist may have.
pub fn read_file(path: &Path) -> Result<Text> {
    read_bounded(path, MAX_FILE_SIZE as u64 + 1)
}

/// The same, but only its first `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Text> {
    input(path, limit)?.read(limit)
}

/// The file, or at most the first `limit` bytes of standard input if it is `-`.
pub fn input(path: &Path, limit: u64) -> Result<Input> {
    if path != Path::new("-") {
        return Ok(Input::File(path.to_owned()));
    }
    take_stdin("a file to read (`-`)")?;
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
    read.map_err(|e| Error::disk("reading", path, e))?;
    Ok(Input::Text(Text { name: "standard input".to_owned(), bytes }))
}
