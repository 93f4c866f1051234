//! What a push prints and writes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::error::Error as _;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use serde_json::json;

use super::super::companions::counted;
use super::super::context::{Context, write_file};
use super::super::exit::Outcome;
use super::super::hint;
use super::super::table;
use super::companions::{self, NotBrought};
use super::{Cargo, Ended, Held, Push};
use crate::base::error::{Error, Kind, Reason, Result};
use crate::base::progress::units::{self, bytes, duration};
use crate::base::progress::{Event, plain_piece};
use crate::oci::{Digest, Reference};
use crate::pipeline::graph::Image;
use crate::pipeline::lock::{AbsentReason, IndexMode};
use crate::pipeline::plan::{Action, CompanionAction, CompanionStep, ImageStep, Plan, TagState};
use crate::pipeline::receipt::{Receipt, kind_of, signature_beside};
use crate::pipeline::transfer::{self, Done, Transfer};
use crate::signing::PrivateKey;

/// What to do about an index whose children are missing on purpose.
pub const SPARSE_REMEDY: &str = "its index is sparse, which Harbor, docker-registry 2 and zot refuse: export it again with --index trim or single; distribution 3 \
     takes it with `validation.manifests.indexes.platforms: none` in its configuration";

/// How many tags are named where one sentence is about many.
const MOST_NAMED: usize = 5;

/// The plan, for `--dry-run`.
pub fn plan(push: &Push<'_>, cargo: &Cargo<'_>, plan: &Plan, notes: &[String], context: &Context) -> Result<Outcome> {
    let graph = &cargo.graph;
    let (new, mounted) = (plan.new_bytes(), plan.mounted_bytes());
    let present = plan.present_bytes(graph);
    if push.json {
        let images = graph.images.iter().zip(&plan.images).map(|(image, step)| {
            let mut value = json!({
                "source": image.locked.reference, "reference": step.to, "digest": image.locked.digest,
                "action": if is_unreadable(step) { json!("unreadable") } else { json!(step.action) }, "tag": step.tag, "companions": companions::as_json(image, step),
                "attachedUnknown": image.locked.attached_unknown,
            });
            if let (Some(fields), serde_json::Value::Object(own)) =
                (value.as_object_mut(), companions::own_as_json(step))
            {
                fields.extend(own);
            }
            value
        });
        push.hold(Held::Plan(json!({
            "images": images.collect::<Vec<_>>(), "failed": cargo.lost, "missing": cargo.missing, "notes": notes,
            "newBytes": new, "mountedBytes": mounted, "presentBytes": present,
        })));
        return if push.holds { Ok(Outcome::Done) } else { push.show(context).map(|()| Outcome::Done) };
    }
    let rows: Vec<Vec<String>> = graph
        .images
        .iter()
        .zip(&plan.images)
        .flat_map(|(image, step)| {
            let joins = |own: &CompanionStep| matches!(own.action, CompanionAction::Join { .. });
            let action = match step.action {
                Action::Push if is_unreadable(step) => "unreadable".to_owned(),
                Action::Push if step.own_list().is_some_and(joins) => "join".to_owned(),
                other => action(other, step.tag).to_owned(),
            };
            let (size, digest) = (bytes(image.locked.total_size), image.locked.digest.short());
            let kinds = image.locked.companions().iter().map(|attached| kind_of(image, attached));
            let counted = counted(&kinds.collect::<Vec<_>>(), image.locked.attached_unknown);
            let own = vec![step.to.to_string(), action, size, digest, counted];
            std::iter::once(own).chain(companions::rows(step))
        })
        .collect();
    context.print(&table::render(&["TARGET", "ACTION", "SIZE", "DIGEST", "COMPANIONS"], &rows))?;
    for note in notes {
        context.print(&format!("{}\n", plain_piece(note)))?;
    }
    let (new, mounted, present) = (bytes(new), bytes(mounted), bytes(present));
    let images = units::count(graph.images.len(), "image");
    let pushed = plan.images.iter().filter(|step| step.action == Action::Push);
    let replaced = replaced(pushed, |own| (own.state, &own.action));
    let replaced = if replaced > 0 { format!("; {} to replace", units::count(replaced, "tag")) } else { String::new() };
    context.print(&format!("\n{images}; {new} to upload, {mounted} to mount, {present} there already{replaced}\n"))?;
    Ok(Outcome::Done)
}

/// Before the push it is unknown whether the image is there, or could be.
fn is_unreadable(step: &ImageStep) -> bool {
    step.is_unreadable && step.action == Action::Push
}

fn action(action: Action, tag: TagState) -> &'static str {
    match (action, tag) {
        (Action::Push, TagState::Other(_)) => "overwrite",
        // Perhaps it is this image already: it may not be read.
        (Action::Push, TagState::Blocked) => "renew",
        (Action::Push, TagState::Same) => "complete",
        (Action::Push, TagState::New) => "push",
        (Action::Nothing, _) => "present",
        (Action::Skip, _) => "skip",
        (Action::Refuse, _) => "fail",
        (Action::Immutable, _) => "immutable",
        (Action::Wait, _) => "wait",
    }
}

/// Receipt and digest file, where they were asked for; one that cannot be written does not cost the other.
///
/// # Errors
/// The first that could not be written.
pub(super) fn files(
    push: &Push<'_>,
    cargo: &Cargo<'_>,
    ended: &Ended<'_>,
    outcome: &transfer::Outcome,
    context: &Context,
) -> Result<()> {
    let (args, graph, plan) = (push.args, &cargo.graph, ended.plan);
    let receipt = receipt_of(push, cargo, ended, outcome);
    let kept = args.receipt.as_ref().map_or(Ok(()), |path| keep(path, &receipt, push.key.as_deref()));
    push.hold(Held::Receipt(Box::new(receipt)));
    let printed = if push.holds { Ok(()) } else { push.show(context) };
    let listed = args.digestfile.as_ref().map_or(Ok(()), |path| {
        let there = graph.images.iter().zip(&plan.images).zip(&outcome.images);
        let there = there.filter(|(_, result)| matches!(result, Ok(Done::Pushed | Done::Present)));
        let lines = there.map(|((image, step), _)| format!("{} docker://{}\n", image.locked.digest, step.to));
        write_file(path, lines.collect::<String>().as_bytes())
    });
    kept.and(printed).and(listed)
}

/// The receipt alone, where one was asked for.
///
/// # Errors
/// It cannot be written.
pub(super) fn receipt(
    push: &Push<'_>,
    cargo: &Cargo<'_>,
    ended: &Ended<'_>,
    outcome: &transfer::Outcome,
) -> Result<()> {
    let Some(path) = &push.args.receipt else { return Ok(()) };
    keep(path, &receipt_of(push, cargo, ended, outcome), push.key.as_deref())
}

fn receipt_of(push: &Push<'_>, cargo: &Cargo<'_>, ended: &Ended<'_>, outcome: &transfer::Outcome) -> Receipt {
    let (from, now) = ((cargo.identity, cargo.created), Timestamp::now());
    let mut receipt = Receipt::new(from, push.to, &cargo.graph, ended.plan, outcome, now);
    receipt.images.iter_mut().zip(&ended.proven).for_each(|(image, proven)| image.proven = *proven);
    receipt.images.extend(cargo.lost.iter().cloned());
    receipt.missing.clone_from(&cargo.missing);
    receipt.wanted = ended.wanted.to_vec();
    receipt.confirmed.extend(below_unread(cargo, outcome));
    push.brought.mark(&mut receipt);
    receipt
}

/// Blobs of images that are there as a whole, below manifests that the target does not give. It was asked for each of them.
fn below_unread(cargo: &Cargo<'_>, outcome: &transfer::Outcome) -> BTreeSet<Digest> {
    // Below an image that could not be read, what is missing is unknown.
    if !cargo.lost.is_empty() {
        return BTreeSet::new();
    }
    let mut partial = cargo.graph.images.iter().zip(&outcome.images).filter(|(image, _)| image.is_partial()).peekable();
    if partial.peek().is_none() || !partial.all(|(_, result)| matches!(result, Ok(Done::Pushed | Done::Present))) {
        return BTreeSet::new();
    }
    let named: HashSet<Digest> = cargo.graph.blobs().iter().map(|blob| blob.digest).collect();
    cargo.places.keys().filter(|digest| !named.contains(digest)).copied().collect()
}

/// Writes the receipt when a push is dropped before its end: Ctrl-C must not lose what has arrived until then.
pub(super) struct Interrupted<'p>(Option<(&'p Push<'p>, &'p Cargo<'p>, &'p Plan, &'p Transfer<'p>)>);

impl<'p> Interrupted<'p> {
    pub fn new(push: &'p Push<'p>, cargo: &'p Cargo<'p>, plan: &'p Plan, transfer: &'p Transfer<'p>) -> Self {
        Interrupted(Some((push, cargo, plan, transfer)))
    }

    /// The push has come to its end, which writes the receipt itself.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Interrupted<'_> {
    fn drop(&mut self) {
        let Some((push, cargo, plan, transfer)) = self.0.take() else { return };
        let outcome = transfer.so_far(&cargo.graph, plan, "the run was stopped");
        let ended = Ended { plan, wanted: &[], proven: vec![None; outcome.images.len()] };
        if let Err(error) = receipt(push, cargo, &ended, &outcome) {
            tracing::warn!(error = %error.chain(), "no receipt was written");
        }
    }
}

/// Writes the receipt, and its signature beside it: binary, of the bytes of the receipt.
///
/// # Errors
/// One of the two cannot be written, or the receipt could not be read again ([`Receipt::to_file`]).
pub fn keep(path: &Path, receipt: &Receipt, key: Option<&PrivateKey>) -> Result<()> {
    let bytes = receipt.to_file_that_fits()?.into_bytes();
    write_file(path, &bytes)?;
    let Some(key) = key else { return Ok(()) };
    write_file(&signature_beside(path), &key.sign(&bytes)?)
}

/// What was found wrong with the source before.
pub fn faults(cargo: &Cargo<'_>, context: &Context) {
    context.end();
    cargo.faults.iter().for_each(|fault| context.failed_image(fault, None));
}

/// The last lines: what failed and why, then the sum of it.
pub(super) fn summary(
    cargo: &Cargo<'_>,
    ended: &Ended<'_>,
    outcome: &transfer::Outcome,
    started: Instant,
    context: &Context,
) -> Outcome {
    faults(cargo, context);
    blocked(outcome, context);
    kept(outcome, context);
    let count =
        |wanted: Done| outcome.images.iter().filter(|result| matches!(result, Ok(done) if *done == wanted)).count();
    let failed = cargo.lost.len() + failures(cargo, ended.plan, outcome, context);
    let left = not_brought(ended.plan, outcome);
    left.failures().for_each(|text| context.failed_image(&text, None));
    let stopped = outcome.images.iter().filter_map(|result| result.as_ref().err()).find(|e| e.stopped().is_some());
    let pushed = count(Done::Pushed);
    let mut parts = vec![format!("{} pushed", units::count(pushed, "image"))];
    let (present, skipped, waiting) = (count(Done::Present), count(Done::Skipped), count(Done::Waiting));
    for (number, what) in [(present, "present"), (skipped, "skipped"), (waiting, "waiting"), (failed, "failed")] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    let there = ended.plan.images.iter().zip(&outcome.images);
    let pushed = there.filter(|(_, result)| matches!(result, Ok(Done::Pushed))).map(|(step, _)| step);
    let replaced = replaced(pushed, |own| (outcome.state(own), outcome.action(own)));
    if replaced > 0 {
        parts.push(format!("{} replaced", units::count(replaced, "tag")));
    }
    context.say(&format!(
        "{}; {} uploaded, {} mounted, {}",
        parts.join(", "),
        bytes(outcome.moved),
        bytes(outcome.mounted),
        duration(started.elapsed()),
    ));
    if waiting > 0 {
        let volumes = volumes(ended.wanted);
        context.say(&format!("{} for {volumes}: run the same command with what comes next", verb(waiting)));
    }
    left.notice().into_iter().for_each(|text| context.events.report(Event::Notice(text)));
    left.warnings().chain(cargo.left_out.clone()).for_each(|text| context.events.report(Event::Warning(text)));
    match (failed, waiting) {
        (0, 0) if left.is_failure() || cargo.left_out.is_some() => Outcome::SomeImagesFailed,
        (0, 0) => Outcome::Done,
        (0, _) => Outcome::Waiting,
        _ => match stopped {
            Some(error) => Outcome::Failed(error.kind()),
            // Running again does not help then: it is the bundle that lacks something.
            None if cargo.identity.is_some() && is_bundle_damaged(outcome) => Outcome::Damaged,
            None => Outcome::SomeImagesFailed,
        },
    }
}

/// How many tags of these images and their companions mean something else than before. What both sides signed is joined, and not
/// replaced.
fn replaced<'p>(
    pushed: impl Iterator<Item = &'p ImageStep>,
    ended: impl Fn(&'p CompanionStep) -> (TagState, &'p CompanionAction),
) -> usize {
    let is_replaced = |own: &&'p CompanionStep| matches!(ended(own), (TagState::Other(_), CompanionAction::Push));
    let tags = pushed.flat_map(|step| {
        let own = step.replaced().map(|_| &step.to);
        own.into_iter().chain(step.companions.iter().filter(is_replaced).map(|own| &own.tag))
    });
    tags.collect::<HashSet<&Reference>>().len()
}

fn is_bundle_damaged(outcome: &transfer::Outcome) -> bool {
    let mut errors = outcome.images.iter().filter_map(|result| result.as_ref().err());
    errors.any(|error| error.reason() == Some(&Reason::DamagedFile))
}

/// Companions that were not brought beside images that are there.
fn not_brought<'a>(plan: &'a Plan, outcome: &'a transfer::Outcome) -> NotBrought<'a> {
    let there = plan.images.iter().zip(&outcome.images).filter(|(_, result)| result.is_ok());
    let steps = there.flat_map(|(step, _)| step.companions.iter().map(move |own| (step, own)));
    NotBrought::among(steps.map(|(step, own)| (step, own, outcome.action(own)))).and_unlisted(outcome.unlisted.values())
}

/// Images that arrived and cannot be pulled yet, said once for each reason. A root that has its tag is named by that alone.
fn blocked(outcome: &transfer::Outcome, context: &Context) {
    let mut reasons: BTreeMap<&str, (Vec<&Reference>, Vec<&Reference>)> = BTreeMap::new();
    for (name, why) in &outcome.blocked {
        let (tags, children) = reasons.entry(why).or_default();
        if name.digest.is_none() { tags.push(name) } else { children.push(name) }
    }
    for (why, kinds) in reasons {
        let (tags, children) = kinds;
        let kinds = [(tags, "tag"), (children, "manifest")].into_iter().filter(|(names, _)| !names.is_empty());
        let (counted, names): (Vec<String>, Vec<String>) =
            kinds.map(|(names, what)| (units::count(names.len(), what), named(names))).unzip();
        let (counted, names) = (counted.join(" and "), names.join("; "));
        let text = format!("{counted} cannot be pulled yet: a policy of the project forbids it: {why} ({names})");
        context.events.report(Event::Notice(text));
    }
}

/// Immutable tags that were left as they are.
fn kept(outcome: &transfer::Outcome, context: &Context) {
    let Some(first) = outcome.kept.first() else { return };
    let (number, named) = (units::count(outcome.kept.len(), "tag"), named(&outcome.kept));
    let text = format!(
        "{number} left alone ({named}): immutable, and a policy of the project hides what such a tag means. The image itself is \
         there; {} tells an account that may read artifacts whether the tag means it",
        first.repository.registry()
    );
    context.events.report(Event::Notice(text));
}

/// The first of them.
pub fn named<'t>(tags: impl IntoIterator<Item = &'t Reference>) -> String {
    let mut tags = tags.into_iter().map(ToString::to_string);
    let named: Vec<String> = tags.by_ref().take(MOST_NAMED).collect();
    let more = if tags.next().is_some() { ", …" } else { "" };
    format!("{}{more}", named.join(", "))
}

/// Tells of every image that failed, and how many did. What many have in common, such as a line that broke or a blob that they
/// share, is said once, and what helps them too.
fn failures(cargo: &Cargo<'_>, plan: &Plan, outcome: &transfer::Outcome, context: &Context) -> usize {
    let images = cargo.graph.images.iter().zip(&plan.images).zip(&outcome.images);
    let failed = images.filter_map(|((image, step), result)| Some((image, step, result.as_ref().err()?)));
    let mut reasons: Vec<Vec<_>> = Vec::new();
    let (mut places, mut told) = (HashMap::new(), HashSet::new());
    for failure in failed {
        let at = *places.entry(reason(failure.2)).or_insert(reasons.len());
        match reasons.get_mut(at) {
            Some(alike) => alike.push(failure),
            None => reasons.push(vec![failure]),
        }
    }
    for alike in &reasons {
        // What ended everything is no fault of a single image.
        if let [(image, _, error), _, ..] = &alike[..]
            && let Some(stopped) = error.stopped()
            && !context.logs_json()
        {
            let text = format!("{}: {stopped}", units::count(alike.len(), "image"));
            context.failed_image(&text, remedy(image, error));
            continue;
        }
        // A registry whose cache outlived a garbage collection fails for all that it had.
        if let [(image, _, error), ..] = &alike[..]
            && alike.len() > MOST_NAMED
            && error.reason() == Some(&Reason::DamagedTarget)
            && !context.logs_json()
        {
            let (images, named) =
                (units::count(alike.len(), "image"), named(alike.iter().map(|(_, step, _)| &step.to)));
            context.failed_image(&format!("{images} ({named}): {}", reason(error)), remedy(image, error));
            continue;
        }
        for (nth, (image, step, error)) in alike.iter().enumerate() {
            let remedy = remedy(image, error).filter(|remedy| told.insert(*remedy));
            // What was swallowed is named with its digest.
            let is_own = error.reason() == Some(&Reason::DamagedTarget);
            let text = match nth > 0 && !is_own && !context.logs_json() {
                true => "for the same reason".to_owned(),
                false => error.chain(),
            };
            context.failed_image(&format!("{}: {text}", step.to), remedy);
        }
    }
    reasons.iter().map(Vec::len).sum()
}

/// What failures have in common: why, without what it was: `reading /a/b: Input/output error` of `blob sha256:… to …: reading /a/b: …`.
fn reason(error: &Error) -> String {
    if let Some(stopped) = error.stopped() {
        return stopped.to_string();
    }
    // One collection, whichever blobs it holds.
    if error.reason() == Some(&Reason::BlobInCollection) {
        return "in collection".to_owned();
    }
    match error.source().and_then(|cause| cause.downcast_ref::<Error>()) {
        Some(cause) => cause.chain(),
        None => error.chain(),
    }
}

fn verb(images: usize) -> String {
    format!("{} wait{}", units::count(images, "image"), if images == 1 { "s" } else { "" })
}

/// `volume 3`, `volumes 3, 5`.
pub fn volumes(numbers: &[u32]) -> String {
    let list: Vec<String> = numbers.iter().take(20).map(u32::to_string).collect();
    let more = numbers.len().saturating_sub(20);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("volume{} {}{more}", if numbers.len() == 1 { "" } else { "s" }, list.join(", "))
}

fn remedy(image: &Image, error: &Error) -> Option<&'static str> {
    let chosen = image.locked.selection.as_ref().is_some_and(|selection| selection.index == IndexMode::Sparse);
    // The registry that it came from lacks it, too.
    let sparse = chosen || image.locked.absent.iter().any(|absent| absent.reason == AbsentReason::NotFound);
    let other = error.reason().is_some_and(|reason| !matches!(reason, Reason::UnknownContent(_)));
    if sparse && !other && matches!(error.kind(), Kind::Refused | Kind::NotFound) {
        return Some(SPARSE_REMEDY);
    }
    hint::for_error(error)
}
