//! Reports as people read them.

pub mod not_brought;
pub mod push;

use super::companions::counted;
use super::context::Context;
use super::table;
use super::verify::shown;
use crate::app::ListedImage;
use crate::base::error::Error;
use crate::base::progress::units::bytes;
use crate::oci::{Platform, Reference};
use crate::verify::Refusal;

/// How many names stand where one sentence is about many.
pub const MOST_NAMED: usize = 5;
/// More problems of a bundle that is refused are not shown.
const MOST_PROBLEMS: usize = 10;

/// The first of them.
pub fn named<'t>(tags: impl IntoIterator<Item = &'t Reference>) -> String {
    let mut tags = tags.into_iter().map(ToString::to_string);
    let named: Vec<String> = tags.by_ref().take(MOST_NAMED).collect();
    let more = if tags.next().is_some() { ", …" } else { "" };
    format!("{}{more}", named.join(", "))
}

/// The problems that an error is because of, if it is.
pub fn show_refusal(error: &Error, context: &Context) {
    let Some(refusal) = Refusal::of(error) else { return };
    context.end();
    for problem in refusal.problems.iter().take(MOST_PROBLEMS) {
        context.say_lines(&shown(problem).lines().collect::<Vec<_>>());
    }
}

/// What a lock holds.
pub fn images_table(images: &[ListedImage]) -> String {
    let row = |ListedImage { image, kinds }: &ListedImage| {
        let platforms: Vec<String> = image.platforms.iter().map(Platform::to_string).collect();
        let platforms = if platforms.is_empty() { "-".to_owned() } else { platforms.join(",") };
        let companions = counted(kinds, image.attached_unknown);
        vec![image.reference.to_string(), platforms, bytes(image.total_size), image.digest.short(), companions]
    };
    let rows: Vec<Vec<String>> = images.iter().map(row).collect();
    table::render(&["IMAGE", "PLATFORMS", "SIZE", "DIGEST", "COMPANIONS"], &rows)
}
