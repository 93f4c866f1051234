//! Renders the plan or the result of a push.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error as _;

use super::{MOST_NAMED, named, not_brought, proof};
use crate::app::{HintCode, ImageFailure, PlannedAction, PlannedImage, PushPlan, Pushed};
use crate::base::error::{Error, Reason, Result};
use crate::base::progress::units::{bytes, count, duration, volumes};
use crate::base::progress::{Event, plain_piece};
use crate::cli::companions::counted;
use crate::cli::context::Context;
use crate::cli::{hint, table};
use crate::oci::Reference;
use crate::pipeline::plan::{CompanionAction, TagState};
use crate::pipeline::receipt::ImageOutcome;

/// Prints the warnings of a dry run.
pub fn warn_of_plan(plan: &PushPlan, context: &Context) {
    let left = &plan.not_brought;
    let left_out = plan.left_out.as_ref().map(not_brought::left_out);
    let warnings = not_brought::failures(left).chain(not_brought::warnings(left)).chain(left_out);
    warnings.for_each(|text| context.environment.events.report(Event::Warning(text)));
    not_brought::notice(left).into_iter().for_each(|text| context.environment.events.report(Event::Notice(text)));
    plan.problems.iter().for_each(|problem| context.failed_image(problem, None));
}

/// Prints the plan of a dry run.
///
/// # Errors
/// Writing to standard output failed.
pub fn print_plan(plan: &PushPlan, context: &Context) -> Result<()> {
    let rows: Vec<Vec<String>> = plan
        .images
        .iter()
        .flat_map(|image| {
            let kinds: Vec<_> = image.companions.iter().map(|companion| companion.kind).collect();
            let companions = counted(&kinds, image.attached_unknown);
            let action = action(image.action, image.tag).to_owned();
            let own = vec![image.reference.to_string(), action, bytes(image.size), image.digest.short(), companions];
            std::iter::once(own).chain(rows(image))
        })
        .collect();
    context.print(&table::render(&["TARGET", "ACTION", "SIZE", "DIGEST", "COMPANIONS"], &rows))?;
    for note in &plan.notes {
        context.print(&format!("{}\n", plain_piece(note)))?;
    }
    let (new, mounted, present) = (bytes(plan.new_bytes), bytes(plan.mounted_bytes), bytes(plan.present_bytes));
    let replaced = match plan.replaced {
        0 => String::new(),
        tags => format!("; {} to replace", count(tags, "tag")),
    };
    let images = count(plan.images.len(), "image");
    context.print(&format!("\n{images}; {new} to upload, {mounted} to mount, {present} already there{replaced}\n"))
}

fn action(action: PlannedAction, tag: TagState) -> &'static str {
    match (action, tag) {
        (PlannedAction::Push, TagState::Other(_)) => "overwrite",
        // The tag cannot be read, so it may already have this image.
        (PlannedAction::Push, TagState::Blocked) => "renew",
        (PlannedAction::Push, TagState::Same) => "complete",
        (PlannedAction::Push, TagState::New) => "push",
        (PlannedAction::Unreadable, _) => "unreadable",
        (PlannedAction::Join { .. }, _) => "join",
        (PlannedAction::Nothing, _) => "present",
        (PlannedAction::Skip, _) => "skip",
        (PlannedAction::Refuse, _) => "fail",
        (PlannedAction::Immutable, _) => "immutable",
        (PlannedAction::Wait, _) => "wait",
    }
}

/// Rows of the plan for companion tags that have another digest at the target.
fn rows(image: &PlannedImage) -> impl Iterator<Item = Vec<String>> + '_ {
    image.tags.iter().filter_map(|companion| {
        if matches!(companion.state, TagState::New | TagState::Same) || companion.tag == image.reference {
            return None;
        }
        let (action, digest) = match &companion.action {
            CompanionAction::Push => ("overwrite", companion.digest),
            CompanionAction::Join { joined, .. } => ("join", *joined),
            CompanionAction::Skip => ("skip", companion.digest),
            CompanionAction::Unreadable { .. } => ("unreadable", companion.digest),
            CompanionAction::Obstructed { .. } => ("obstructed", companion.digest),
            CompanionAction::Refuse { .. } => ("fail", companion.digest),
            CompanionAction::Nothing => ("present", companion.digest),
        };
        Some(vec![companion.tag.to_string(), action.to_owned(), "-".to_owned(), digest.short(), String::new()])
    })
}

/// Prints the failures with their reasons, then the summary.
pub fn show_pushed(pushed: &Pushed, context: &Context) {
    if let Some(found) = &pushed.proof {
        context.say(&proof::summary(found));
        proof::show_withheld(found, context);
    }
    pushed.problems.iter().for_each(|problem| context.failed_image(problem, None));
    show_blocked(pushed, context);
    show_kept(pushed, context);
    show_failures(&pushed.failures, context);
    let left = &pushed.not_brought;
    not_brought::failures(left).for_each(|text| context.failed_image(&text, None));
    let number = |outcome| pushed.receipt.images.iter().filter(|image| image.outcome == outcome).count();
    let mut parts = vec![format!("{} pushed", count(number(ImageOutcome::Pushed), "image"))];
    let waiting = number(ImageOutcome::Waiting);
    let (present, skipped) = (number(ImageOutcome::Present), number(ImageOutcome::Skipped));
    let failed = number(ImageOutcome::Failed);
    for (number, what) in [(present, "present"), (skipped, "skipped"), (waiting, "waiting"), (failed, "failed")] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    if pushed.replaced > 0 {
        parts.push(format!("{} replaced", count(pushed.replaced, "tag")));
    }
    let (parts, time) = (parts.join(", "), duration(pushed.elapsed));
    context.say(&format!("{parts}; {} uploaded, {} mounted, {time}", bytes(pushed.uploaded), bytes(pushed.mounted)));
    if waiting > 0 {
        let (images, volumes) = (count(waiting, "image"), volumes(&pushed.receipt.wanted));
        let wait = if waiting == 1 { "waits" } else { "wait" };
        context.say(&format!("{images} {wait} for {volumes}: run the same command with what comes next"));
    }
    not_brought::notice(left).into_iter().for_each(|text| context.environment.events.report(Event::Notice(text)));
    let left_out = pushed.left_out.as_ref().map(not_brought::left_out);
    let warnings = not_brought::warnings(left).chain(left_out);
    warnings.for_each(|text| context.environment.events.report(Event::Warning(text)));
}

/// Prints images that arrived but cannot be pulled yet, once for each reason. A root with a tag is named only by its tag.
fn show_blocked(pushed: &Pushed, context: &Context) {
    let mut reasons: BTreeMap<&str, (Vec<&Reference>, Vec<&Reference>)> = BTreeMap::new();
    for (name, why) in &pushed.blocked {
        let (tags, children) = reasons.entry(why).or_default();
        if name.digest.is_none() { tags.push(name) } else { children.push(name) }
    }
    for (why, kinds) in reasons {
        let (tags, children) = kinds;
        let kinds = [(tags, "tag"), (children, "manifest")].into_iter().filter(|(names, _)| !names.is_empty());
        let (counted, names): (Vec<String>, Vec<String>) =
            kinds.map(|(names, what)| (count(names.len(), what), named(names))).unzip();
        let (counted, names) = (counted.join(" and "), names.join("; "));
        let text = format!("{counted} cannot be pulled yet: a policy of the project forbids it: {why} ({names})");
        context.environment.events.report(Event::Notice(text));
    }
}

/// Prints immutable tags that were left alone.
fn show_kept(pushed: &Pushed, context: &Context) {
    let Some(first) = pushed.kept.first() else { return };
    let (number, named) = (count(pushed.kept.len(), "tag"), named(&pushed.kept));
    let text = format!(
        "{number} left alone ({named}): immutable, and a policy of the project hides what such a tag means. The image itself is \
         there; {} tells an account that may read artifacts whether the tag means it",
        first.repository.registry()
    );
    context.environment.events.report(Event::Notice(text));
}

/// Prints every failed image. A cause that several images share, such as a broken connection or a shared blob, is printed
/// once, with its hint.
fn show_failures(failed: &[ImageFailure], context: &Context) {
    let mut reasons: Vec<Vec<&ImageFailure>> = Vec::new();
    let (mut places, mut shown) = (HashMap::new(), HashSet::new());
    for failure in failed {
        let at = *places.entry(reason(&failure.error)).or_insert(reasons.len());
        match reasons.get_mut(at) {
            Some(alike) => alike.push(failure),
            None => reasons.push(vec![failure]),
        }
    }
    for alike in &reasons {
        // The error that stopped the run is not specific to one image.
        if let [first, _, ..] = &alike[..]
            && let Some(stopped) = first.error.stopped()
            && !context.logs_json()
        {
            let text = format!("{}: {stopped}", count(alike.len(), "image"));
            context.failed_image(&text, remedy(first));
            continue;
        }
        // A registry whose cache survived a garbage collection fails for every blob that it had.
        if let [first, ..] = &alike[..]
            && alike.len() > MOST_NAMED
            && first.error.reason() == Some(&Reason::DamagedTarget)
            && !context.logs_json()
        {
            let (images, named) = (count(alike.len(), "image"), named(alike.iter().map(|failure| &failure.reference)));
            context.failed_image(&format!("{images} ({named}): {}", reason(&first.error)), remedy(first));
            continue;
        }
        for (nth, failure) in alike.iter().enumerate() {
            let ImageFailure { reference, error, .. } = failure;
            let remedy = remedy(failure).filter(|remedy| shown.insert(*remedy));
            // Each lost blob is listed with its digest.
            let is_own = error.reason() == Some(&Reason::DamagedTarget);
            let text = match nth > 0 && !is_own && !context.logs_json() {
                true => "for the same reason".to_owned(),
                false => error.chain(),
            };
            context.failed_image(&format!("{reference}: {text}"), remedy);
        }
    }
}

/// The shared part of failures: the cause without the object, such as `reading /a/b: Input/output error` of `blob sha256:… to
/// …: reading /a/b: …`.
fn reason(error: &Error) -> String {
    if let Some(stopped) = error.stopped() {
        return stopped.to_string();
    }
    // One collection blocks many blobs.
    if error.reason() == Some(&Reason::BlobInCollection) {
        return "in collection".to_owned();
    }
    match error.source().and_then(|cause| cause.downcast_ref::<Error>()) {
        Some(cause) => cause.chain(),
        None => error.chain(),
    }
}

fn remedy(failure: &ImageFailure) -> Option<HintCode> {
    if failure.is_sparse { Some(HintCode::SparseIndex) } else { hint::for_error(&failure.error) }
}
