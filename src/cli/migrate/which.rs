//! Options that say which images of a storage are wanted.

use std::path::PathBuf;

use crate::app::ImageFilter;
use crate::base::error::Result;
use crate::cli::allowlist::{CompanionArgs, read_file, read_lists};
use crate::pipeline::allowlist::Pattern;

/// Which images are wanted, and what they are called.
#[derive(clap::Args)]
pub struct WhichArgs {
    /// Only images of this allowlist, `-` for standard input; repeatable
    ///
    /// The same kinds of file as for export: REPOSITORY:TAG, REPOSITORY@DIGEST, or REPOSITORY for all its tags, one a line. A
    /// storage does not know what its registry was called, so a registry before a name is not compared. as=… is the name at
    /// the target of --to. An entry that is not in the storage is told, and counts as an image that failed.
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only images whose REPOSITORY:TAG has this pattern; repeatable: any of them
    ///
    /// A pattern, as in images-by-tag-regex: found anywhere in the name unless anchored, such as '^team/.*:v[0-9]'.
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::new, allow_hyphen_values = true)]
    include: Vec<Pattern>,
    /// Not those whose REPOSITORY:TAG has this pattern; repeatable; counts more than --include
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::new, allow_hyphen_values = true)]
    exclude: Vec<Pattern>,
    /// Also manifests that no tag leads to, as REPOSITORY@DIGEST (Harbor 2.15 and later keep no tags in their storage)
    #[arg(long)]
    untagged: bool,
    /// What tags mean, in a file; it counts more than the storage; `-` for standard input
    ///
    /// Lines of `REPOSITORY:TAG DIGEST`, or the JSON of Harbor's API, page after page:
    /// curl -u USER 'https://HARBOR/api/v2.0/projects/PROJECT/repositories/REPOSITORY/artifacts?page_size=100&with_accessory=true'
    /// (a slash in REPOSITORY is written %252F). An artifact without repository_name is looked for by its digest. Harbor lists no
    /// signatures: with_accessory=true names them beside their images, and those of an index's children are found in the storage.
    /// https://HARBOR/v2/PROJECT/REPOSITORY/tags/list names every tag, theirs too.
    #[arg(long, value_name = "FILE")]
    tags_from: Option<PathBuf>,
    #[command(flatten)]
    companions: CompanionArgs,
}

impl WhichArgs {
    /// Reads the files.
    ///
    /// # Errors
    /// All that is wrong in the allowlist, at once; a file that cannot be read.
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
