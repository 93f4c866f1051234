//! The file that keeps manifests which were read, for the next run.

use crate::base::error::Result;
use crate::base::progress::units::count;
use crate::base::progress::{Event, Events};
use crate::content::Checkpoint;

/// Before the work: warns where nothing can be kept because something else has the name.
pub fn report_obstacle(kept: &Checkpoint<'_>, events: &Events) {
    if let Some((path, why)) = kept.obstacle() {
        let text = format!("{}: {why}; manifests that are read are not kept for the next run", path.display());
        events.report(Event::Warning(text));
    }
}

/// After the work: what was read is kept for the next run if it failed.
pub fn finish_walk_file<T>(kept: &Checkpoint<'_>, outcome: Result<T>, events: &Events) -> Result<T> {
    if outcome.is_ok() {
        kept.remove();
    } else if let Some((number, path)) = kept.left() {
        let (what, path) = (count(number, "manifest"), path.display());
        let text = format!("{what} kept in {path}: the same command, run again, continues from there");
        events.report(Event::Status(text));
    }
    outcome
}
