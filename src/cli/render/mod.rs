//! Renders reports as text.

pub mod not_brought;
pub mod proof;
pub mod push;

use super::companions::counted;
use super::context::Context;
use super::table;
use crate::app::ListedImage;
use crate::base::error::Error;
use crate::base::progress::plain_piece;
use crate::base::progress::units::bytes;
use crate::oci::{Platform, Reference};
use crate::verify::{Problem, Refusal};

/// How many names a summary line lists.
pub const MOST_NAMED: usize = 5;
/// How many problems of a refused bundle are shown.
const MOST_PROBLEMS: usize = 10;

/// Lists the first names and the number of the others.
pub fn named<'t>(tags: impl IntoIterator<Item = &'t Reference>) -> String {
    let mut tags = tags.into_iter().map(ToString::to_string);
    let named: Vec<String> = tags.by_ref().take(MOST_NAMED).collect();
    let more = if tags.next().is_some() { ", …" } else { "" };
    format!("{}{more}", named.join(", "))
}

/// Prints the problems of a refused bundle, if that is the error.
pub fn show_refusal(error: &Error, context: &Context) {
    let Some(refusal) = Refusal::of(error) else { return };
    context.end();
    for each in refusal.problems.iter().take(MOST_PROBLEMS) {
        context.say_lines(&problem(each).lines().collect::<Vec<_>>());
    }
}

/// Renders the images of a lock as a table.
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

/// Renders a problem.
pub fn problem(problem: &Problem) -> String {
    let path = match (&problem.volume, problem.path.as_str()) {
        (Some(volume), "") => volume.clone(),
        (Some(volume), path) => format!("{volume}: {path}"),
        (None, "") => "the tar".to_owned(),
        (None, path) => path.to_owned(),
    };
    let mut text = format!("{}: {}\n", plain_piece(&path), problem.kind.label());
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<9} {}\n", plain_piece(value)));
    problem.expected.iter().for_each(|expected| line("expected", expected));
    problem.found.iter().for_each(|found| line("found", found));
    for (at, image) in problem.images.iter().enumerate().take(5) {
        line(if at == 0 { "affects" } else { "" }, image);
    }
    if problem.images.len() > 5 {
        line("", &format!("and {} more", problem.images.len() - 5));
    }
    line("fix", problem.remedy);
    text
}
