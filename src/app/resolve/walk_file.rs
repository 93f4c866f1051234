//! Keeps the manifests that were read in a file, for the next run.

use crate::base::error::Result;
use crate::base::progress::units::count;
use crate::base::progress::{Event, Events};
use crate::content::Checkpoint;

/// Warns before the work if nothing can be kept because another file has the name.
pub fn report_obstacle(kept: &Checkpoint<'_>, events: &Events) {
    if let Some((path, why)) = kept.obstacle() {
        let text = format!("{}: {why}; manifests that are read are not kept for the next run", path.display());
        events.report(Event::Warning(text));
    }
}

/// Keeps the manifests for the next run if the work failed. Otherwise, removes the file.
pub fn finish_walk_file<T>(kept: &Checkpoint<'_>, outcome: Result<T>, events: &Events) -> Result<T> {
    if outcome.is_ok() {
        kept.remove();
    } else if let Some((number, path)) = kept.left() {
        let (what, path) = (count(number, "manifest"), path.display());
        let text = format!("{what} kept in {path} for the next run with this output");
        events.report(Event::Status(text));
    }
    outcome
}
