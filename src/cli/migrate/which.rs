//! Options that select images of a storage.

use std::path::PathBuf;

use crate::app::ImageFilter;
use crate::base::error::Result;
use crate::cli::allowlist::{CompanionArgs, read_file, read_lists};
use crate::pipeline::allowlist::Pattern;

/// Which images to migrate, and their names.
#[derive(clap::Args)]
pub struct WhichArgs {
    /// Only images on this allowlist; repeatable
    ///
    /// `-` is standard input. Accepts the same formats as export: REPOSITORY:TAG, REPOSITORY@DIGEST, or REPOSITORY for all its tags. A storage
    /// does not record the name of its registry, so the registry part of a reference is ignored. as=… sets the name at the
    /// target of --to. An entry that is not in the storage is reported and counts as a failed image.
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only images whose REPOSITORY:TAG matches; repeatable
    ///
    /// A regular expression that matches anywhere in the name unless anchored, such as '^team/.*:v[0-9]'.
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::new, allow_hyphen_values = true)]
    include: Vec<Pattern>,
    /// Exclude images whose REPOSITORY:TAG matches; repeatable
    ///
    /// Takes precedence over --include.
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::new, allow_hyphen_values = true, hide_short_help = true)]
    exclude: Vec<Pattern>,
    /// Include manifests without a tag, as REPOSITORY@DIGEST
    ///
    /// Harbor 2.15 and later keep no tags in their storage.
    #[arg(long, hide_short_help = true)]
    untagged: bool,
    /// Read tags from this file; they override the storage
    ///
    /// Lines of `REPOSITORY:TAG DIGEST`, or JSON of Harbor's API, one page after the other:
    /// `/api/v2.0/projects/PROJECT/repositories/REPOSITORY/artifacts` with page_size=100 and with_accessory=true (write a
    /// slash in REPOSITORY as %252F). An artifact without repository_name is looked up by digest. Harbor lists no signatures as
    /// artifacts: with_accessory=true adds them to their images, and those of an index's children are found in the storage.
    /// `/v2/PROJECT/REPOSITORY/tags/list` names every tag, including those of signatures. `-` is standard input.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    tags_from: Option<PathBuf>,
    #[command(flatten)]
    companions: CompanionArgs,
}

impl WhichArgs {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read, or the allowlist has problems; all of them are reported at once.
    pub fn read(&self) -> Result<ImageFilter> {
        let tags = self.tags_from.as_ref().map(|path| read_file(path));
        Ok(ImageFilter {
            list: (!self.files.is_empty()).then(|| read_lists(&[], &self.files)).transpose()?,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            untagged: self.untagged,
            tags: tags.transpose()?,
            referrers: !self.companions.no_referrers,
        })
    }
}
