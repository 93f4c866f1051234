//! Renders the result of a migration.

use super::remaining::remaining;
use crate::app::{
    Destination, Migrated, MigratedBundle, MigratedImage, MigratedState, StorageList, StoredImage, StoredState,
    problem_line, problem_lines, problems_line,
};
use crate::base::error::Result;
use crate::base::progress::units::{bytes, count, duration};
use crate::cli::context::Context;
use crate::cli::signing::signed_by;
use crate::cli::table;
use crate::oci::Platform;
use crate::transport::storage::StorageProblem;

/// Prints each problem as a failure.
pub fn show_problems(problems: &[StorageProblem], context: &Context) {
    problems.iter().for_each(|problem| context.failed_image(&problem_line(problem), None));
}

/// Prints the list of images. `all` says that no image was excluded by name.
pub fn print_list(list: &StorageList, all: bool, context: &Context) -> Result<()> {
    let rows: Vec<Vec<String>> = list.images.iter().map(row).collect();
    let mut text = table::render(&["IMAGE", "TYPE", "PLATFORMS", "SIZE", "SHARED", "DIGEST", "STATE"], &rows);
    if !list.problems.is_empty() {
        text.push('\n');
        list.problems.iter().for_each(|problem| text.push_str(&problem_lines(problem)));
    }
    let repositories = match list.repository_count {
        1 => "1 repository".to_owned(),
        number => format!("{number} repositories"),
    };
    let (images, size, problems) = (&list.counted, bytes(list.size), problems_line(&list.problems));
    text.push_str(&format!("\n{images} in {repositories}, {size}, {problems}\n"));
    if rows.is_empty() && list.manifest_count > 0 && all {
        let manifests = count(list.manifest_count, "manifest");
        text.push_str(&format!(
            "{manifests} without any tag: Harbor 2.15 and later keep tags in their database only (--untagged, --tags-from)\n"
        ));
    }
    context.print(&text)
}

fn row(image: &StoredImage) -> Vec<String> {
    let none = || "-".to_owned();
    let platforms = image.platforms.iter().flatten().map(Platform::to_string).collect::<Vec<_>>().join(",");
    let size = |size: Option<u64>| size.map_or_else(none, bytes);
    vec![
        image.name.name.clone(),
        image.type_name.unwrap_or("-").to_owned(),
        if platforms.is_empty() { none() } else { platforms },
        size(image.size),
        size(image.shared),
        image.name.digest.map_or_else(none, |digest| digest.short()),
        match image.state {
            StoredState::Ok => "ok".to_owned(),
            StoredState::Damaged => "damaged".to_owned(),
        },
    ]
}

/// Prints what was written to `to`, and the problems.
pub fn show(migrated: &Migrated, to: &Destination, context: &Context) {
    show_problems(&migrated.problems, context);
    if migrated.failure.is_some() && migrated.bundle.is_none() {
        return;
    }
    let has_failed = |image: &&MigratedImage| image.was_whole && image.state == MigratedState::Failed;
    for image in migrated.images.iter().filter(has_failed) {
        image.reasons.iter().for_each(|reason| context.failed_image(reason, None));
    }
    match (to, &migrated.bundle) {
        (Destination::Bundle(_), None) => {
            context.say(&format!("{}: no image is whole; nothing was written", migrated.output.display()));
        }
        (_, Some(bundle)) => show_bundle(migrated, bundle, context),
        (Destination::Storage { owner, .. }, None) => {
            let written = migrated.written + migrated.present;
            let (images, copied) = (count(written, "image"), bytes(migrated.bytes_copied));
            context.say(&summary(migrated, &images, &format!(", {copied} copied")));
            if migrated.kept_owner > 0 {
                let files = count(usize::try_from(migrated.kept_owner).unwrap_or(usize::MAX), "file");
                context.say(&format!("{files} of other images are hard links of an earlier run and keep their owner"));
            }
            if written > 0 {
                let text = remaining(&migrated.output, *owner, migrated.blobs_linked > 0);
                context.say_lines(&text.lines().collect::<Vec<_>>());
            }
        }
        (_, None) => {
            let written = format!("{} written", count(migrated.written, "image"));
            let images = match migrated.present {
                0 => written,
                present => format!("{written}, {} already there", count(present, "image")),
            };
            let copied = match migrated.bytes_copied {
                0 => String::new(),
                copied => format!(", {} copied", bytes(copied)),
            };
            context.say(&summary(migrated, &images, &copied));
        }
    }
}

/// One line, such as `OUT: 3 images, 1 failed; 12 blobs linked, 3 B copied, no problems; 1 s`.
fn summary(migrated: &Migrated, images: &str, copied: &str) -> String {
    let lost = if migrated.failed_count > 0 { format!(", {} failed", migrated.failed_count) } else { String::new() };
    let blobs = count(usize::try_from(migrated.blobs_linked).unwrap_or(usize::MAX), "blob");
    let (output, problems) = (migrated.output.display(), problems_line(&migrated.problems));
    let time = duration(migrated.elapsed);
    format!("{output}: {images}{lost}; {blobs} linked{copied}, {problems}; {time}")
}

fn show_bundle(migrated: &Migrated, bundle: &MigratedBundle, context: &Context) {
    let lost = if migrated.failed_count > 0 { format!(", {} failed", migrated.failed_count) } else { String::new() };
    let (what, size) = (if bundle.unchanged { "unchanged" } else { "written" }, bytes(bundle.bytes));
    let images = count(migrated.written + migrated.present, "image");
    let blobs = count(usize::try_from(migrated.blobs_linked).unwrap_or(usize::MAX), "blob");
    let (copied, problems) = (bytes(migrated.bytes_copied), problems_line(&migrated.problems));
    let (output, time) = (migrated.output.display(), duration(migrated.elapsed));
    context
        .say(&format!("{output}: {what}, {images}{lost}, {size}; {blobs} linked, {copied} copied, {problems}; {time}"));
    context.say(&format!("identity {}", bundle.identity));
    if let Some(by) = &bundle.signed_by {
        context.say(&signed_by(by));
    }
}
