//! Resolves the rules of an allowlist to references, and the references to a lock and its graph.

mod beside;
mod locate;
mod names;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use crate::base::document::Document;
use crate::base::error::{Error, Kind, Result};
use crate::base::position::Position;
use crate::base::progress::plain_piece;
use crate::base::progress::units::count;
use crate::base::progress::{Event, Events, Phase};
use crate::content::{Need, Source, TagList, on_threads};
use crate::oci::{Reference, Repository, Tag};
use crate::pipeline::allowlist::{Rule, Select};
use crate::pipeline::graph::{Graph, Image};
use crate::pipeline::lock::{Lock, MissingImage, MissingReason, Rename};
use crate::pipeline::walk::{LockOrigin, Walk, Wanted};
pub use beside::without_companions;
pub use locate::{Search, locate};

/// All failures of a job, so that the user can fix them at once.
#[derive(Debug)]
pub struct Failures(pub Vec<Error>);

impl Failures {
    /// Combines the errors into one. A single error stays as it is; several become a list, with the kind of the first.
    /// A rate limit, or a registry that no longer answers, takes precedence and is named once: only such errors pass by
    /// themselves.
    pub fn into_error(self, what: &str) -> Error {
        let mut errors = self.0;
        if errors.len() == 1 {
            return errors.remove(0);
        }
        // Such an error repeats for everything after it.
        let is_shared = |error: &&Error| error.kind() == Kind::RateLimited || error.stopped().is_some();
        let deciding = errors.iter().find(is_shared).or(errors.first());
        let deciding = deciding.cloned().unwrap_or_else(|| Error::new(Kind::Input, what));
        Failures(errors).into_error_of(deciding, what)
    }

    /// Like [`Failures::into_error`], with a known deciding error: the one that ended everything else.
    pub fn into_error_of(self, deciding: Error, what: &str) -> Error {
        let errors = self.0;
        let is_shared = |error: &&Error| error.kind() == Kind::RateLimited || error.stopped().is_some();
        let sharing = errors.iter().filter(is_shared).count();
        let shown = errors.iter().filter(|error| !is_shared(error)).chain(errors.iter().find(is_shared));
        let mut lines: Vec<String> = shown.flat_map(Error::lines).map(|line| format!("  {line}")).collect();
        if sharing > 1 {
            lines.push(format!("  and {} more that were not tried", sharing - 1));
        }
        let error = Error::new(deciding.kind(), format!("{what}: {} failed", errors.len())).listing(lines);
        let error = deciding.reason().cloned().into_iter().fold(error, Error::with_reason);
        error.speaking_for(deciding)
    }
}

/// Which failures leave an image out and record that in the lock, instead of ending the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeaveOut {
    /// Whether any failure of the image or its registry does.
    pub failed: bool,
    /// Whether a lack of all requested platforms does.
    pub platform_missing: bool,
}

impl LeaveOut {
    /// Returns why the image is left out, or `None` if the error ends the run.
    pub fn reason(self, error: &Error) -> Option<MissingReason> {
        let reason = MissingReason::of(error)?;
        let accepted = self.failed || (self.platform_missing && reason == MissingReason::PlatformMissing);
        accepted.then_some(reason)
    }

    /// Adds `error` to the missing images, or to the failures that end the run.
    fn sort(self, missing: Missing<'_>, error: Error, events: &Events) {
        let Missing { reference, rename, images, failures } = missing;
        match self.reason(&error) {
            Some(reason) => {
                events.report(Event::Warning(format!("{}; it is left out", error.chain())));
                images.push((MissingImage { reference, rename, reason }, error));
            }
            None => failures.push(error),
        }
    }
}

/// The lists that [`LeaveOut::sort`] sorts into.
struct Missing<'a> {
    reference: Reference,
    rename: Option<Rename>,
    images: &'a mut Vec<(MissingImage, Error)>,
    failures: &'a mut Vec<Error>,
}

/// How lists of tags are read.
#[derive(Clone, Copy, Debug)]
pub struct TagLists {
    /// Whether a pattern may match nothing.
    pub allow_empty: bool,
    /// Whether companions travel with their images.
    pub companions: bool,
}

/// Expands rules to references: a repository to its tags, a pattern to the tags that it matches.
///
/// A reference that is selected twice is carried once, with a notice. A pattern that matches nothing is an error unless
/// `allow_empty`. A list of tags leaves out signatures, attestations and lists of referrers whose subject is in the
/// same repository: they travel with that image or, without `companions`, are left behind.
///
/// # Errors
/// One error for each rule that could not be resolved.
pub async fn expand(
    source: &dyn Source,
    rules: &[Rule],
    lists: TagLists,
    leave_out: LeaveOut,
    jobs: usize,
    events: &Events,
) -> Result<Expanded, Failures> {
    events.report(Event::Phase { phase: Phase::Resolve, items: rules.len() as u64, bytes: 0 });
    let left_out = AtomicUsize::new(0);
    let selected: Vec<Result<Selected>> = stream::iter(rules)
        .map(|rule| async {
            let references = select(source, rule, lists.allow_empty, &left_out, events).await;
            events.report(Event::ItemDone);
            references.map_err(|error| error.while_doing(format!("{}: {}", rule.at, rule.written)))
        })
        .buffered(jobs.max(1))
        .collect()
        .await;
    report_left_out(left_out.into_inner(), lists, events);
    let (mut wanted, mut missing, mut failures) = (Merged::default(), Vec::new(), Vec::new());
    let mut doubtful: Vec<MissingImage> = Vec::new();
    for (rule, selected) in rules.iter().zip(selected) {
        let repository = rule.select.repository().clone();
        let reference = Reference { repository, tag: None, digest: None };
        match selected {
            Ok(Selected { references, is_doubtful }) => {
                references.into_iter().for_each(|r| wanted.add(rule, r, events, &mut failures));
                let reason = MissingReason::TagsIncomplete;
                let entry = MissingImage { reference, rename: rule.rename.clone(), reason };
                if is_doubtful && !doubtful.contains(&entry) {
                    doubtful.push(entry);
                }
            }
            Err(error) => {
                let (images, failures) = (&mut missing, &mut failures);
                leave_out.sort(Missing { reference, rename: rule.rename.clone(), images, failures }, error, events);
            }
        }
    }
    missing.dedup_by(|one, other| one.0 == other.0);
    match failures.is_empty() {
        true => Ok(Expanded { wanted: wanted.list, missing, doubtful }),
        false => Err(Failures(failures)),
    }
}

/// What an allowlist requests.
#[derive(Debug, Default)]
pub struct Expanded {
    pub wanted: Vec<Wanted>,
    /// Repositories whose tags could not be listed.
    pub missing: Vec<(MissingImage, Error)>,
    /// Repositories whose list of tags may be incomplete.
    pub doubtful: Vec<MissingImage>,
}

/// What one rule selects.
struct Selected {
    references: Vec<Reference>,
    /// Whether the list of tags may be incomplete.
    is_doubtful: bool,
}

/// References in order, each once.
#[derive(Default)]
struct Merged {
    list: Vec<Wanted>,
    position: HashMap<Reference, (usize, String)>,
}

impl Merged {
    fn add(&mut self, rule: &Rule, reference: Reference, events: &Events, failures: &mut Vec<Error>) {
        let rename = rule.rename.clone().map(|rename| rename.of(&reference));
        let written = written_as(rule, &reference);
        let wanted = Wanted { reference: reference.clone(), rename, platforms: rule.platforms.clone(), written };
        match self.position.get(&reference) {
            None => {
                self.position.insert(reference, (self.list.len(), rule.at.to_string()));
                self.list.push(wanted);
            }
            Some((at, _)) if self.list.get(*at).is_some_and(|former| is_same(former, &wanted)) => {
                events.report(Event::Notice(format!("{}: {reference} is selected more than once", rule.at)));
            }
            Some((_, first)) => failures.push(Error::input(format!(
                "{}: this entry also selects {reference}, which {first} selects with other options; give both the same \
                 platform= and as=, or list the tags one by one",
                rule.at
            ))),
        }
    }
}

/// Whether both request the same, regardless of where they were written.
fn is_same(one: &Wanted, other: &Wanted) -> bool {
    Wanted { written: String::new(), ..one.clone() } == Wanted { written: String::new(), ..other.clone() }
}

/// Returns the position of a rule, and its text if that says more than the reference.
fn written_as(rule: &Rule, reference: &Reference) -> String {
    let is_reference = rule.written == reference.to_string();
    let written = plain_piece(&rule.written);
    match (&rule.at, is_reference) {
        (Position::Argument(_), true) => String::new(),
        (Position::Argument(_), false) => written.into_owned(),
        (Position::Line { .. }, true) => rule.at.to_string(),
        (Position::Line { .. }, false) => format!("{}: {written}", rule.at),
    }
}

/// Reports the tags that are not images, once for all rules.
fn report_left_out(tags: usize, lists: TagLists, events: &Events) {
    if tags > 0 {
        events.report(Event::Notice(companion_tags(tags, lists.companions)));
    }
}

/// Returns a notice about `tags` tags that are not images. `travel` says whether they travel with their images.
pub fn companion_tags(tags: usize, travel: bool) -> String {
    let fate = match travel {
        true => "they travel with the images they belong to",
        false => "they are left behind (--no-referrers)",
    };
    format!("not counted as images: {} of signatures, attestations or lists of referrers; {fate}", count(tags, "tag"))
}

async fn select(
    source: &dyn Source,
    rule: &Rule,
    allow_empty: bool,
    left_out: &AtomicUsize,
    events: &Events,
) -> Result<Selected> {
    let repository = match &rule.select {
        Select::One(reference) => return Ok(Selected { references: vec![reference.clone()], is_doubtful: false }),
        Select::AllTags(repository) => repository,
        Select::TagsMatching { repository, .. } | Select::TagsInRange { repository, .. } => repository,
    };
    let TagList { mut tags, doubts } = source.tags(repository, Need::Required).await?;
    let is_doubtful = !doubts.is_empty();
    for doubt in doubts {
        events.report(Event::Incomplete(format!("{}: {doubt}", rule.at)));
    }
    // Registries should sort tags, but distribution 2.8 does not. The order of a bundle must not depend on that.
    tags.sort();
    let matching: Vec<Tag> = tags.iter().filter(|tag| rule.select.matches(tag)).cloned().collect();
    let matched = matching.len();
    let images = without_companions(source, repository, matching, events).await?;
    left_out.fetch_add(matched - images.len(), Ordering::Relaxed);
    let references: Vec<Reference> = images.into_iter().map(|tag| repository.with_tag(tag)).collect();
    if !references.is_empty() {
        return Ok(Selected { references, is_doubtful });
    }
    let text = nothing_matches(repository, &tags, matched);
    if allow_empty {
        events.report(Event::Warning(format!("{}: {text}", rule.at)));
        return Ok(Selected { references, is_doubtful });
    }
    Err(Error::new(Kind::NotFound, text))
}

/// Explains why nothing was selected. `companions` is the number of matching tags, all of them companions.
fn nothing_matches(repository: &Repository, tags: &[Tag], companions: usize) -> String {
    if tags.is_empty() {
        return format!("{repository} has no tags");
    }
    if companions > 0 {
        let what = "matches no image, only signatures, attestations or lists of referrers of images in that repository";
        return format!(
            "{repository}: the list of tags {what} ({companions} of them); a tag is carried if you name it in full"
        );
    }
    let some: Vec<&str> = tags.iter().take(5).map(Tag::as_str).collect();
    let more = if tags.len() > 5 { ", …" } else { "" };
    format!("none of the {} tags of {repository} matches (it has {}{more})", tags.len(), some.join(", "))
}

/// Resolves every reference, and reads everything below it.
///
/// # Errors
/// One error for each image that could not be resolved, except for those left out. If nothing else is left, these count
/// too.
pub async fn discover(
    walk: &Walk<'_>,
    expanded: Expanded,
    leave_out: LeaveOut,
    now: Timestamp,
    jobs: usize,
    events: &Events,
) -> Result<(Lock, Graph), Failures> {
    let written = expanded.wanted.iter().map(|wanted| (wanted.reference.clone(), wanted.written.clone())).collect();
    let walked = walk_all(&expanded.wanted, jobs, events, |wanted| walk.discover(wanted)).await;
    walk.report_lost();
    let (images, missing) = sort(expanded, walked, leave_out, events)?;
    let locked = images.iter().map(|image| image.locked.clone()).collect();
    let lock = Lock { version: Lock::VERSION, created: now, load_platform: None, images: locked, missing };
    Ok((lock, Graph { images, left_behind: walk.left_behind(), written }))
}

/// Like [`discover`], for a caller that needs only the lock: known images are not read.
///
/// # Errors
/// Those of [`discover`].
pub async fn pin(
    walk: &Walk<'_>,
    expanded: Expanded,
    leave_out: LeaveOut,
    now: Timestamp,
    jobs: usize,
    events: &Events,
) -> Result<Lock, Failures> {
    let bare = |locked| Image { locked, manifests: Vec::new(), blobs: Vec::new() };
    let walked = walk_all(&expanded.wanted, jobs, events, async |wanted| walk.pin(wanted).await.map(bare)).await;
    walk.report_lost();
    let (images, missing) = sort(expanded, walked, leave_out, events)?;
    let images = images.into_iter().map(|image| image.locked).collect();
    Ok(Lock { version: Lock::VERSION, created: now, load_platform: None, images, missing })
}

/// Returns the images that were found, and those that are or may be missing.
fn sort(
    Expanded { wanted, mut missing, doubtful }: Expanded,
    walked: Vec<Result<Image>>,
    leave_out: LeaveOut,
    events: &Events,
) -> Result<(Vec<Image>, Vec<MissingImage>), Failures> {
    let (mut images, mut failures) = (Vec::with_capacity(walked.len()), Vec::new());
    let written = wanted.iter().map(|wanted| (wanted.reference.clone(), wanted.written.clone())).collect();
    for (Wanted { reference, rename, .. }, image) in wanted.into_iter().zip(walked) {
        match image {
            Ok(image) => images.push(image),
            Err(error) => {
                let (images, failures) = (&mut missing, &mut failures);
                leave_out.sort(Missing { reference, rename, images, failures }, error, events);
            }
        }
    }
    let images = names::merge(images, &written, leave_out, &mut missing, &mut failures, events);
    let (mut missing, errors): (Vec<MissingImage>, Vec<Error>) = missing.into_iter().unzip();
    if images.is_empty() {
        failures.extend(errors);
    }
    missing.extend(doubtful);
    if failures.is_empty() { Ok((images, missing)) } else { Err(Failures(failures)) }
}

/// Rebuilds the graph of a lock. Also returns the lock of the images that could be fetched, which is the same one
/// without `leave_out`.
///
/// # Errors
/// Those of [`assemble`], except for what is left out.
pub async fn follow(
    walk: &Walk<'_>,
    lock: Lock,
    leave_out: LeaveOut,
    jobs: usize,
    events: &Events,
) -> Result<(Lock, Graph), Failures> {
    let walked = walk_all(&lock.images, jobs, events, |locked| walk.assemble(locked, LockOrigin::Registry)).await;
    walk.report_lost();
    let (mut images, mut missing, mut failures) = (Vec::with_capacity(walked.len()), Vec::new(), Vec::new());
    for (locked, image) in lock.images.iter().zip(walked) {
        match image {
            Ok(image) => images.push(image),
            Err(error) => {
                let (reference, rename) = (locked.reference.clone(), locked.rename.clone());
                let (images, failures) = (&mut missing, &mut failures);
                leave_out.sort(Missing { reference, rename, images, failures }, error, events);
            }
        }
    }
    let (more, errors): (Vec<MissingImage>, Vec<Error>) = missing.into_iter().unzip();
    if images.is_empty() {
        failures.extend(errors);
    }
    if !failures.is_empty() {
        return Err(Failures(failures));
    }
    let locked = images.iter().map(|image| image.locked.clone()).collect();
    let missing = lock.missing.into_iter().chain(more).collect();
    Ok((
        Lock { images: locked, missing, ..lock },
        Graph { images, written: walk.written().clone(), ..Graph::default() },
    ))
}

/// Rebuilds the graph of a lock.
///
/// # Errors
/// One error for each image that no longer matches the lock.
pub async fn assemble(
    walk: &Walk<'_>,
    lock: &Lock,
    origin: LockOrigin,
    jobs: usize,
    events: &Events,
) -> Result<Graph, Failures> {
    let images = each(&lock.images, jobs, events, |locked| walk.assemble(locked, origin)).await?;
    Ok(Graph { images, written: walk.written().clone(), ..Graph::default() })
}

/// Like [`assemble`], but a failure affects only its own image. Results are in the order of the lock.
pub async fn assemble_each(
    walk: &Walk<'_>,
    lock: &Lock,
    origin: LockOrigin,
    jobs: usize,
    events: &Events,
) -> Vec<Result<Image>> {
    walk_all(&lock.images, jobs, events, |locked| walk.assemble(locked, origin)).await
}

/// Like [`discover`], but a failure affects only its own image: for a source that may contain broken images. Runs on
/// `threads` threads of the caller's runtime: reading from a disk keeps processors busy and seldom waits.
pub fn discover_each(walk: &Walk<'_>, wanted: &[Wanted], threads: usize, events: &Events) -> Vec<Result<Image>> {
    events.report(Event::Phase { phase: Phase::Walk, items: wanted.len() as u64, bytes: 0 });
    let runtime = tokio::runtime::Handle::current();
    on_threads(wanted, threads, |wanted| {
        let image = runtime.block_on(walk.discover(wanted));
        events.report(Event::ItemDone);
        image
    })
}

/// Walks all items. Returns either all images or all failures.
async fn each<'i, T, F>(
    items: &'i [T],
    jobs: usize,
    events: &Events,
    walk: impl Fn(&'i T) -> F,
) -> Result<Vec<Image>, Failures>
where
    F: Future<Output = Result<Image>>,
{
    let (mut images, mut failures) = (Vec::with_capacity(items.len()), Vec::new());
    for image in walk_all(items, jobs, events, walk).await {
        match image {
            Ok(image) => images.push(image),
            Err(error) => failures.push(error),
        }
    }
    if failures.is_empty() { Ok(images) } else { Err(Failures(failures)) }
}

/// Walks `jobs` items at a time. Results are in the order of the items.
async fn walk_all<'i, T, F>(
    items: &'i [T],
    jobs: usize,
    events: &Events,
    walk: impl Fn(&'i T) -> F,
) -> Vec<Result<Image>>
where
    F: Future<Output = Result<Image>>,
{
    events.report(Event::Phase { phase: Phase::Walk, items: items.len() as u64, bytes: 0 });
    let mut walks = stream::iter(items.iter().map(walk)).buffered(jobs.max(1));
    let mut images = Vec::with_capacity(items.len());
    while let Some(image) = walks.next().await {
        events.report(Event::ItemDone);
        images.push(image);
    }
    images
}
