//! Options that select images, shared by `export` and `lock`.

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
#[command(next_help_heading = "Images")]
pub struct AllowlistArgs {
    /// Images: name:tag, name@digest, or a name alone for all its tags
    ///
    /// name:tag@digest is pinned to the digest and keeps its tag. Short names follow Docker: nginx is
    /// docker.io/library/nginx.
    #[arg(value_name = "REF")]
    references: Vec<String>,
    /// Allowlist file, `-` for standard input; repeatable
    ///
    /// Accepted formats: text (one reference per line, # comments, optional platform=… and as=…), a YAML list with the same
    /// keys, or a file for `skopeo sync --src yaml`.
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Export only this platform, such as linux/arm64; repeatable
    ///
    /// Format: OS/ARCH[/VARIANT]. A platform= on an allowlist entry takes precedence. It is an error if an image lacks the
    /// platform. linux/arm/v7 falls back to v6, then v5. windows/amd64 selects every Windows version in the index;
    /// windows(10.0.20348)/amd64 selects one.
    #[arg(long = "platform", value_name = "OS/ARCH")]
    platforms: Vec<Platform>,
    /// Export the platforms an image has, and skip the ones it lacks
    ///
    /// An image that has none of the platforms is left out. The lock records both cases. The exit code is not affected.
    #[arg(long, hide_short_help = true)]
    skip_missing_platform: bool,
    /// Leave out images that cannot be exported
    ///
    /// The lock records each missing image with the reason, and the exit code is 1. An increment does not mistake a missing
    /// image for one that was removed from the allowlist. A companion (a signature, SBOM or other referrer) that cannot be
    /// exported does not fail its image, with three exceptions: --require-referrers, --locked without this option, and a
    /// registry that gives no definite answer.
    #[arg(long)]
    pub keep_going: bool,
    /// How to reduce an index with --platform: trim, sparse or single
    ///
    /// Default: single if one manifest remains and its config names the platform; otherwise trim, for example for one
    /// Windows platform in several versions. An entry that replaces one in the previous lock or bundle keeps that entry's
    /// mode.
    #[arg(long, value_name = "MODE", hide_short_help = true, hide_possible_values = true)]
    index: Option<IndexMode>,
    /// Platform of a multi-platform image that `docker load` uses [default: linux/amd64]
    ///
    /// It also applies to `podman load`. Registries always receive the whole index.
    #[arg(long, value_name = "PLATFORM", hide_short_help = true)]
    load_platform: Option<Platform>,
    #[command(flatten)]
    companions: CompanionArgs,
    /// Fail if a registry cannot say which referrers an image has
    ///
    /// Without this option such an image is exported with the companions that were found. Its lock entry says
    /// `attachedUnknown`, and gapferry prints one warning per registry.
    #[arg(long, conflicts_with = "no_referrers", hide_short_help = true)]
    require_referrers: bool,
    /// Also export layers hosted outside registries (Windows base layers)
    #[arg(long, hide_short_help = true)]
    foreign_layers: bool,
    /// Accept tag patterns without a match, and an empty allowlist
    #[arg(long, hide_short_help = true)]
    allow_empty: bool,
    /// Tags that never change: take their digest from the previous lock
    ///
    /// Repeatable. A regular expression that matches anywhere in the tag unless anchored, such as '^v?[0-9]+[.]'. For a
    /// matching tag that the lock file being replaced already contains, or otherwise the lock inside the bundle being
    /// replaced, gapferry reuses that entry with its companions and does not ask the registry about the tag. Manifests that
    /// the existing bundle lacks are read by digest. Rely on a bundle for this only if nobody else could have changed it;
    /// otherwise keep the lock and name it (export: --lock FILE). If gapferry has to look up such a tag anyway, because the
    /// image is gone or other options apply, and the tag now refers to another image, that is an error.
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::new, hide_short_help = true)]
    immutable_tags: Vec<Pattern>,
}

/// Options about companions.
#[derive(clap::Args)]
pub struct CompanionArgs {
    /// Leave out signatures, SBOMs and other referrers
    #[arg(long)]
    pub no_referrers: bool,
}

impl AllowlistArgs {
    /// Reads references and files. All problems in them are reported as one error.
    pub fn read(&self, registry: &RegistryArgs) -> Result<Allowlist> {
        if self.references.is_empty() && self.files.is_empty() {
            return Err(Error::input("no images were named: give references, or a file of them with -f"));
        }
        self.references.iter().try_for_each(|reference| refuse_file(reference))?;
        registry.claim_stdin()?;
        read_lists(&self.references, &self.files)
    }

    /// Converts the options for the library.
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
            // Such a list can be used with import as it is.
            note_refused: !self.files.is_empty(),
        }
    }

    /// Whether companions are left out.
    pub fn no_referrers(&self) -> bool {
        self.companions.no_referrers
    }
}

/// Rejects an allowlist file that was given as if it were an image.
fn refuse_file(reference: &str) -> Result<()> {
    // A name with a tag or a digest is hardly meant as a file.
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

/// Parses the allowlist in these references and files.
///
/// # Errors
/// A file cannot be read, or the allowlist has problems; all of them are reported at once.
pub fn read_lists(references: &[String], files: &[PathBuf]) -> Result<Allowlist> {
    let read = |path: &PathBuf| read_file(path).map(|Text { name, bytes }| (name, bytes));
    let files = files.iter().map(read).collect::<Result<Vec<_>>>()?;
    Allowlist::parse_sources(references, &files).map_err(|problems| refused("the allowlist", &problems))
}

/// Reads a file, or standard input for `-`, up to the maximum size of an allowlist.
pub fn read_file(path: &Path) -> Result<Text> {
    read_bounded(path, MAX_FILE_SIZE as u64 + 1)
}

/// Reads a file, or standard input for `-`, up to `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Text> {
    input(path, limit)?.read(limit)
}

/// Returns a file, or the first `limit` bytes of standard input for `-`.
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
