//! The tags of a repository (distribution-spec, "Listing Tags").

use std::collections::HashSet;

use reqwest::Method;
use serde::Deserialize;

use super::answer::refusal;
use super::auth::Scopes;
use super::host::{Ask, Host, Target, strange};
use super::{link, location, trace};
use crate::error::{Error, Result};
use crate::oci::{Repository, Tag};
use crate::progress::Event;

/// The largest page, in bytes: servers that ignore `n` send everything at once.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// More than all pages of any repository have, in bytes; a server that never ends is stopped here.
const MOST_IN_ALL: u64 = 128 * 1024 * 1024;
/// Entries that are no tags and are named; of the others it is said how many there are.
const MOST_NAMED: usize = 5;
/// Tags asked for at once; ECR refuses more than 1,000.
const PAGE: usize = 1000;

#[derive(Deserialize)]
struct Page {
    /// `null` in an emptied repository.
    tags: Option<Vec<String>>,
}

pub(super) async fn list(host: &Host, repository: &Repository) -> Result<Vec<Tag>> {
    let what = format!("listing the tags of {repository}");
    let path = format!("/v2/{}/tags/list?n={PAGE}", repository.path());
    let mut url = host.url(&path).await?;
    let (mut tags, mut skipped, mut room) = (Vec::new(), 0, MOST_IN_ALL);
    let mut visited = HashSet::from([url.clone()]);
    while room > 0 {
        let mut ask = Ask::new(Method::GET, String::new(), Scopes::pull(repository), &what);
        ask.target = Target::Url(url.clone());
        let reply = host.ask(&ask).await?;
        if reply.status() != 200 {
            return Err(refusal(&what, reply).await.error);
        }
        let next = link::next(reply.headers("link")).map(|target| location::resolve(&url, target));
        let next = next.transpose().map_err(|reason| strange(&what, format!("the next page leads {reason}")))?;
        let body = reply.body(&what, MOST_BYTES).await.map_err(|failure| failure.error)?;
        // Short pages without end take room too: that of their addresses.
        room = room.saturating_sub(1024 + body.len() as u64 + url.as_str().len() as u64);
        let page: Page = serde_json::from_slice(&body).map_err(|e| {
            let start = super::answer::excerpt(&body[..body.len().min(4096)]);
            strange(&what, format!("the answer is not a list of tags: {start}")).because(e)
        })?;
        for tag in page.tags.unwrap_or_default() {
            match tag.parse::<Tag>() {
                Ok(tag) => tags.push(tag),
                Err(error) => {
                    skipped += 1;
                    if skipped <= MOST_NAMED {
                        host.wire.events.report(Event::Warning(format!("{what}: skipped an entry: {error}")));
                    }
                }
            }
        }
        match next {
            None => {
                if skipped > MOST_NAMED {
                    host.wire.events.report(Event::Warning(format!("{what}: skipped {skipped} entries in all")));
                }
                host.memory.note_tags(repository, &tags);
                return Ok(tags);
            }
            Some(next) if !visited.insert(next.clone()) => break,
            Some(next) => url = next,
        }
    }
    Err(Error::new(crate::error::Kind::Network, format!("{what}: the list does not end, at {}", trace::shown(&url))))
}

/// Whether the registry says that the repository has no tag: 404 of a name it does not know, or an empty list. Any other
/// answer, a refusal included, leaves it open.
pub(super) async fn none(host: &Host, repository: &Repository) -> Result<bool> {
    let what = format!("asking whether {repository} has tags");
    let path = format!("/v2/{}/tags/list?n=1", repository.path());
    let reply = host.ask(&Ask::new(Method::GET, path, Scopes::push(repository), &what)).await?;
    match reply.status() {
        404 => Ok(true),
        200 => {
            let body = reply.body(&what, MOST_BYTES).await.map_err(|failure| failure.error)?;
            let page = serde_json::from_slice(&body).ok();
            Ok(page.is_some_and(|page: Page| page.tags.unwrap_or_default().is_empty()))
        }
        _ => Ok(false),
    }
}
