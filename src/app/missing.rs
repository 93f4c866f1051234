//! Describes what a lock lacks.

use crate::base::progress::units::count;
use crate::pipeline::lock::{MissingImage, MissingReason};

/// The most images listed by name.
const MOST_NAMED: usize = 20;

/// Describes what a lock lacks or may lack: a headline, and a line for each entry. Empty if it lacks nothing.
pub fn missing_lines(missing: &[MissingImage]) -> Vec<String> {
    let lines = |(headline, names): (String, Vec<String>)| {
        std::iter::once(headline).chain(names.into_iter().map(|name| format!("  {name}")))
    };
    missing_parts(missing).into_iter().flat_map(lines).collect()
}

/// As [`missing_lines`], in one line for a warning.
pub(super) fn missing_line(missing: &[MissingImage]) -> Option<String> {
    let parts = missing_parts(missing).into_iter();
    let parts: Vec<String> = parts.map(|(headline, names)| format!("{headline} {}", names.join(", "))).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Returns headlines and names: of images that were left out, then of repositories whose lists of tags may be incomplete.
fn missing_parts(missing: &[MissingImage]) -> Vec<(String, Vec<String>)> {
    let is_list = |one: &&MissingImage| one.reason == MissingReason::TagsIncomplete;
    let (lists, images): (Vec<&MissingImage>, Vec<&MissingImage>) = missing.iter().partition(is_list);
    let were = if images.len() == 1 { "was" } else { "were" };
    let of_images =
        format!("{} of the allowlist {were} not available and {were} left out:", count(images.len(), "image"));
    let of_lists = match lists.len() {
        1 => "1 list of tags may be incomplete; images that it lacks were left out:".to_owned(),
        several => format!("{several} lists of tags may be incomplete; images that they lack were left out:"),
    };
    let images = named(images.into_iter().map(MissingImage::to_string).collect());
    let lists = named(lists.into_iter().map(|one| one.reference.to_string()).collect());
    [(of_images, images), (of_lists, lists)].into_iter().filter(|(_, names)| !names.is_empty()).collect()
}

/// Returns the first names, and the number of the others.
fn named(mut names: Vec<String>) -> Vec<String> {
    let more = names.len().saturating_sub(MOST_NAMED);
    names.truncate(MOST_NAMED);
    names.extend((more > 0).then(|| format!("and {more} more")));
    names
}
