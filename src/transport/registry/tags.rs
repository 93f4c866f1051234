//! The tags of a repository (distribution-spec, "Listing Tags").
//!
//! A list that is shorter than the repository loses images silently, so the end of a list is not taken on trust. A page
//! may have been cut if it is as long as requested, as long as the longest page of this registry so far, or has a round
//! number of entries. What follows its last tag is then requested even if no `Link` promises more. For a registry with
//! many repositories this costs one extra request for about every tenth repository.
//!
//! **Threats.** A list may be endless ([`paging`](super::paging)), have millions of entries, or contain other things
//! than tags. Entries are counted while they are parsed, and an entry that is not a tag becomes a doubt about the list.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use reqwest::{Method, Url};

use super::answer::{excerpt_shown, refusal};
use super::auth::Scopes;
use super::host::{Ask, Host, RequestTarget, strange};
use super::paging::{Onward, Pages};
use super::questions::Question;
use super::reply::Read as Answer;
use super::tag_page::{MOST_TAGS, Page, TagEntry};
use super::trace;
use crate::base::error::{Error, Kind, Result};
use crate::content::{Need, TagList};
use crate::oci::{Repository, Tag};

/// Maximum size of a page in bytes. Servers that ignore `n` send everything in one page.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// Maximum size of all pages in bytes, more than any real repository has. Stops a server that never ends.
const MOST_IN_ALL: u64 = 128 * 1024 * 1024;
/// Maximum number of entries that are not tags and are named in messages. The others are counted.
const MOST_NAMED: usize = 5;
/// Pages that are read to find the tags of signatures. After that, each such tag is requested by name.
const MOST_OPTIONAL: usize = 100;
/// Number of tags per request. ECR refuses more than 1,000.
const PAGE: usize = 1000;
/// Most servers that cut a list do so at a multiple of this. Several servers with different limits may share one
/// gateway.
const ROUND: usize = 10;
/// Lengths at which servers usually cut lists, besides powers of two from 64. A list of such a length may still be
/// complete.
const USUAL_CUTS: [usize; 10] = [50, 100, 200, 250, 300, 500, 1000, 2000, 5000, 10_000];

const READ_ALREADY: &str = "the list does not end: the next page was already read";

/// Returns the whole list, or a list with the doubts about it.
///
/// # Errors
/// The list, or its next page, cannot be read.
pub(super) async fn list(host: &Host, repository: &Repository, need: Need) -> Result<TagList> {
    let what = format!("listing the tags of {repository}");
    let own = host.url(&format!("/v2/{}/tags/list", repository.path())).await?;
    let first = asking(&own, PAGE, None);
    let pages = Pages::new(first.clone(), MOST_IN_ALL);
    let (tags, others, says_where, has_errors, may_be_short) = Default::default();
    let mut listing = Listing {
        host,
        repository,
        need,
        what,
        own,
        first,
        pages,
        asked: PAGE,
        tags,
        others,
        says_where,
        has_errors,
        may_be_short,
    };
    listing.read().await?;
    let Listing { tags, others, has_errors, may_be_short, .. } = listing;
    let lacking = host.memory.answered_tags(repository).into_iter().filter(|tag| !tags.contains(tag));
    let lacking = lacks(repository, lacking);
    let with_errors = format!("the list of tags of {repository} comes with errors: it may lack others");
    let doubts: Vec<String> = named(repository, others)
        .into_iter()
        .chain(has_errors.then_some(with_errors))
        .chain(may_be_short.map(|cut| short(repository, cut)))
        .chain(lacking)
        .collect();
    if doubts.is_empty() {
        host.memory.note_tags(repository, &tags);
    }
    Ok(TagList { tags: tags.into_iter().collect(), doubts })
}

/// A list while it is being read.
struct Listing<'a> {
    host: &'a Host,
    repository: &'a Repository,
    need: Need,
    /// The attempt, as errors name it.
    what: String,
    /// The address of the list, without a query.
    own: Url,
    first: Url,
    pages: Pages,
    /// The `n` of the requests.
    asked: usize,
    tags: BTreeSet<Tag>,
    others: Others,
    /// Whether a page has named its successor. A page that names none is then the last.
    says_where: bool,
    /// Whether a page contained errors next to its entries.
    has_errors: bool,
    /// Set if the list may have been cut and the rest cannot be requested.
    may_be_short: Option<Cut>,
}

/// Where a list may have been cut.
#[derive(Clone, Copy)]
struct Cut {
    entries: usize,
    /// Whether it has as many entries as were requested.
    is_full: bool,
}

/// Entries that are not tags: their number, and why the first of them are not.
#[derive(Default)]
struct Others {
    all: usize,
    named: Vec<String>,
}

/// The contents of one page.
struct Read {
    entries: usize,
    /// Number of tags that no earlier page had.
    new: usize,
    last: Option<String>,
    onward: Onward,
}

impl Read {
    /// Whether the page is empty and names no successor.
    fn is_end(&self) -> bool {
        self.entries == 0 && matches!(self.onward, Onward::End)
    }
}

impl Listing<'_> {
    async fn read(&mut self) -> Result<()> {
        let mut page = self.first_of(vec![self.first.clone()]).await?;
        let (mut read, mut last) = (1, None);
        loop {
            self.check_size(page.entries)?;
            if read > MOST_OPTIONAL && self.need != Need::Required {
                let text =
                    format!("{}: more than {MOST_OPTIONAL} pages, which is too much to look for signatures", self.what);
                return Err(Error::new(Kind::Refused, text));
            }
            // If this page is empty, the last tag of an earlier page.
            last = page.last.take().or(last);
            let next = match (&page.onward, &last) {
                (Onward::At(addresses), last) => self.linked(addresses.clone(), last.as_deref()).await?,
                // Most registries continue after a tag, whatever their Link says.
                (Onward::Lost(_), Some(last)) => match self.first_of(vec![self.past(last)]).await {
                    Ok(next) if next.new > 0 => Some(next),
                    Ok(next) if next.is_end() => None,
                    _ => return Err(self.lost(&page.onward)),
                },
                (Onward::Lost(_), None) => return Err(self.lost(&page.onward)),
                (Onward::End, Some(last)) if self.may_be_cut(page.entries) => {
                    self.after_the_end(last, page.entries).await?
                }
                (Onward::End, _) => None,
            };
            let Some(next) = next else { return Ok(()) };
            page = next;
            read += 1;
        }
    }

    /// # Errors
    /// The repository has more tags than a run accepts.
    fn check_size(&self, page: usize) -> Result<()> {
        if self.tags.len() <= MOST_TAGS && self.others.all <= MOST_TAGS && page <= MOST_TAGS {
            return Ok(());
        }
        let text = format!("{}: it has more than {MOST_TAGS} tags; name the images by their tags", self.what);
        Err(Error::new(Kind::Refused, text))
    }

    /// Reads the page that a Link leads to. `None` if nothing follows.
    ///
    /// A Link may lead to an empty page by mistake, or, behind a gateway, to the path of another repository. The list
    /// therefore ends only if nothing follows its last tag either, and another path is requested only if our own path
    /// does not have the page.
    async fn linked(&mut self, addresses: Vec<Url>, last: Option<&str>) -> Result<Option<Read>> {
        let (own, elsewhere): (Vec<Url>, Vec<Url>) =
            addresses.into_iter().partition(|url| url.path() == self.own.path());
        let linked = |url: Url| (url, true);
        let past = last.map(|last| (self.past(last), false));
        let addresses = own.into_iter().map(linked).chain(past).chain(elsewhere.into_iter().map(linked));
        let (mut has_ended, mut problem, mut unread) = (false, None, None);
        for (url, is_linked) in addresses {
            let is_elsewhere = url.path() != self.own.path();
            if is_elsewhere && has_ended || !self.pages.visit(&url) {
                continue;
            }
            let page = if is_linked { self.page(&url).await } else { self.unless_repeated(&url).await };
            match page {
                Ok(page) if page.new > 0 => return Ok(Some(page)),
                Ok(page) if page.is_end() => has_ended = true,
                // Some registries send empty pages after filtering out every entry.
                Ok(page) if !matches!(page.onward, Onward::End) && (is_linked || page.entries == 0) => {
                    return Ok(Some(page));
                }
                Ok(_) => {
                    let repeated = Onward::Lost("repeats earlier entries".to_owned());
                    problem.get_or_insert_with(|| self.lost(&repeated));
                }
                Err(error) if matches!(error.kind(), Kind::RateLimited | Kind::Interrupted) => return Err(error),
                // After an outage, it is unknown what follows.
                Err(error) if has_ended && error.kind() == Kind::Network => return Err(error),
                // The named page exists and cannot be read: no other answer can prove that it was the last.
                Err(error) if is_linked && error.kind() == Kind::Network => {
                    unread.get_or_insert(error);
                }
                Err(error) => {
                    problem.get_or_insert(error);
                }
            }
        }
        match (unread, has_ended) {
            (Some(error), _) => Err(error),
            (None, true) => Ok(None),
            (None, false) => Err(problem.unwrap_or_else(|| strange(&self.what, READ_ALREADY))),
        }
    }

    fn may_be_cut(&self, entries: usize) -> bool {
        let is_longest = entries > 1 && entries >= self.host.memory.longest_page.load(Ordering::Relaxed);
        entries == self.asked || is_longest || (entries > 0 && entries.is_multiple_of(ROUND))
    }

    /// Reads what follows a page that may have been cut. `None` if nothing follows.
    ///
    /// # Errors
    /// The page was as long as requested and the registry refuses to say what follows, or it did not answer.
    async fn after_the_end(&mut self, last: &str, entries: usize) -> Result<Option<Read>> {
        let (is_full, has_next) = (entries == self.asked, self.says_where);
        let next = self.repeatable(self.past(last)).await;
        match next {
            Ok(next) if next.new > 0 => Ok(Some(next)),
            Ok(next) if next.entries == 0 || has_next => Ok(None),
            Ok(_) if !is_full => self.note_usual_cut(entries).await.map(|()| None),
            // The page repeats entries: the registry does not support `last`, but may support `n`.
            Ok(_) if self.asked < MOST_TAGS => {
                self.asked *= 10;
                let larger = asking(&self.own, self.asked, None);
                let next = self.first_of(vec![larger]).await?;
                if next.new == 0 {
                    self.may_be_short = Some(Cut { entries, is_full });
                }
                Ok((next.new > 0).then_some(next))
            }
            Ok(_) => {
                self.may_be_short = Some(Cut { entries, is_full });
                Ok(None)
            }
            // Only a refusal shows that the registry does not support `last`. After an outage it is unknown what
            // follows.
            Err(error) if matches!(error.kind(), Kind::RateLimited | Kind::Interrupted | Kind::Network) => Err(error),
            Err(error) if is_full && error.kind() != Kind::NotFound => Err(error),
            // No page promised more.
            Err(_) if has_next => Ok(None),
            Err(_) => self.note_usual_cut(entries).await.map(|()| None),
        }
    }

    /// A registry that does not support `last` sends every list whole, or cuts it at an arbitrary length. If it sent as
    /// many entries as lists are usually cut at, one entry is requested: if that answer promises more, this answer
    /// would have done so too.
    async fn note_usual_cut(&mut self, entries: usize) -> Result<()> {
        let is_longest = entries >= self.host.memory.longest_page.load(Ordering::Relaxed);
        if !is_usual_cut(entries) || entries > self.asked || !is_longest {
            return Ok(());
        }
        match self.repeatable(asking(&self.own, 1, None)).await {
            Err(error) if matches!(error.kind(), Kind::RateLimited | Kind::Interrupted | Kind::Network) => {
                return Err(error);
            }
            Ok(_) | Err(_) => {}
        }
        if !self.says_where {
            self.may_be_short = Some(Cut { entries, is_full: false });
        }
        Ok(())
    }

    /// Reads a page that may repeat earlier entries. Entries in it that are not tags are not counted again.
    async fn repeatable(&mut self, url: Url) -> Result<Read> {
        if !self.pages.visit(&url) {
            return Err(strange(&self.what, READ_ALREADY));
        }
        self.unless_repeated(&url).await
    }

    async fn unless_repeated(&mut self, url: &Url) -> Result<Read> {
        let known = (self.others.all, self.others.named.len());
        let page = self.page(url).await;
        if page.as_ref().is_ok_and(|page| page.new == 0) {
            self.others.all = known.0;
            self.others.named.truncate(known.1);
        }
        page
    }

    /// Returns the page of the first address that has one. The error is that of the first address.
    async fn first_of(&mut self, addresses: Vec<Url>) -> Result<Read> {
        let mut refused = None;
        for url in addresses {
            if !self.pages.visit(&url) {
                continue;
            }
            match self.page(&url).await {
                Ok(page) => return Ok(page),
                Err(error) if matches!(error.kind(), Kind::RateLimited | Kind::Interrupted) => return Err(error),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| strange(&self.what, READ_ALREADY)))
    }

    async fn page(&mut self, url: &Url) -> Result<Read> {
        let mut ask = Ask::new(Method::GET, String::new(), Scopes::pull(self.repository), &self.what)
            .optional(Question::Tags.if_optional(self.need));
        ask.target = RequestTarget::Url(url.clone());
        let read = self.host.read(&ask, MOST_BYTES, |reply| (self.pages.after(url, reply), reply.secrets())).await?;
        let is_first = *url == self.first;
        let at = |error: Error| match is_first {
            true => error,
            false => error.while_doing(format!("reading the page at {}", trace::shown(url))),
        };
        let page = match read {
            Answer::Whole((onward, secrets), body) => match serde_json::from_slice::<Page>(&body) {
                Ok(page) => Ok((onward, body.len(), page)),
                Err(e) => {
                    let shown = excerpt_shown(&body[..body.len().min(4096)], &secrets);
                    let error = strange(&self.what, format!("the answer is not a list of tags: {}", shown.text));
                    Err(shown.known_to(error).because(e))
                }
            },
            Answer::Unread(reply) => Err(refusal(&self.what, *reply).await.error),
        };
        if self.need == Need::Optional {
            self.host.memory.answers.answered(Question::Tags);
        }
        let (onward, length, page) = page.map_err(at)?;
        self.says_where |= !matches!(onward, Onward::End);
        self.has_errors |= page.has_errors;
        let mut read = Read { entries: page.entries.len(), new: 0, last: None, onward };
        for entry in page.entries {
            match self.take(&entry) {
                Ok(new) => read.new += usize::from(new),
                Err(why) => {
                    self.others.all += 1;
                    if self.others.named.len() < MOST_NAMED {
                        self.others.named.push(why);
                    }
                }
            }
            if let TagEntry::Text(text) = entry {
                read.last = Some(text);
            }
        }
        self.host.memory.longest_page.fetch_max(read.entries, Ordering::Relaxed);
        let may_go_on = self.pages.note(url, length, read.new > 0);
        may_go_on.map_err(|reason| strange(&self.what, format!("{reason}, at {}", trace::shown(url))))?;
        Ok(read)
    }

    /// `true` if the tag is new. `Err` says why the entry is not a tag.
    fn take(&mut self, entry: &TagEntry) -> Result<bool, String> {
        match entry {
            TagEntry::Text(text) => match text.parse::<Tag>() {
                Ok(tag) => Ok(self.tags.insert(tag)),
                Err(error) => Err(error.to_string()),
            },
            TagEntry::Other(kind) => Err(format!("{kind} is not a tag")),
        }
    }

    fn past(&self, last: &str) -> Url {
        asking(&self.own, self.asked, Some(last))
    }

    fn lost(&self, onward: &Onward) -> Error {
        let reason = if let Onward::Lost(reason) = onward { reason } else { "cannot be found" };
        strange(&self.what, format!("the next page {reason}"))
    }
}

fn is_usual_cut(entries: usize) -> bool {
    USUAL_CUTS.contains(&entries) || entries.is_power_of_two() && (64..=65_536).contains(&entries)
}

fn asking(own: &Url, n: usize, last: Option<&str>) -> Url {
    let mut url = own.clone();
    url.query_pairs_mut().append_pair("n", &n.to_string()).extend_pairs(last.map(|last| ("last", last)));
    url
}

/// Describes entries that are not tags.
fn named(repository: &Repository, Others { all, named }: Others) -> Vec<String> {
    let mut doubts: Vec<String> = named
        .into_iter()
        .map(|why| format!("the list of tags of {repository} has an entry that cannot be read: {why}"))
        .collect();
    if all > MOST_NAMED {
        doubts.push(format!("the list of tags of {repository} has {all} entries that cannot be read"));
    }
    doubts
}

/// Describes a list that may have been cut.
fn short(repository: &Repository, Cut { entries, is_full }: Cut) -> String {
    let why = match is_full {
        true => "as many as were requested",
        false => "a number at which lists are often cut",
    };
    format!(
        "the list of tags of {repository} ends after {entries}, {why}, and the registry does not say whether there are more"
    )
}

/// Describes tags that exist, as an earlier answer shows, and are not in the list.
fn lacks(repository: &Repository, lacking: impl Iterator<Item = Tag>) -> Option<String> {
    let lacking: Vec<Tag> = lacking.collect();
    let example = lacking.first()?;
    Some(format!("the list of tags of {repository} lacks {example}, which the registry has: it may lack others"))
}

/// Whether the registry says that the repository has no tags: 404 with a code for an unknown name, or an empty list.
/// Any other answer, including a refusal or an error, leaves this open. The result only saves requests, so one try is
/// enough. (Gateways fail on the lists of large repositories.)
pub(super) async fn none(host: &Host, repository: &Repository) -> Result<bool> {
    let what = format!("asking whether {repository} has tags");
    let path = format!("/v2/{}/tags/list?n=1", repository.path());
    let ask = Ask::new(Method::GET, path, Scopes::push(repository), &what);
    let Some(reply) = host.hint(&ask).await? else { return Ok(false) };
    match reply.status() {
        200 => {
            let page = reply.body(&what, MOST_BYTES).await.ok().and_then(|body| serde_json::from_slice(&body).ok());
            Ok(page.is_some_and(|page: Page| page.entries.is_empty()))
        }
        status => Ok(status == 404),
    }
}
