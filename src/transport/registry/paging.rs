//! Lists that are split into pages: where the next page is, and when a list must end (distribution-spec, "Listing Tags"
//! and "Listing Referrers").
//!
//! **Threats.** A `Link` may lead to another server, to a path that only the far side of a gateway knows, round in
//! circles, or on without end. Pages are requested only at the origin of the first one. A list ends when it repeats
//! itself or exceeds a limit; it then counts as unread, never as complete.

use std::collections::HashSet;

use reqwest::Url;

use super::link::{self, NextPage};
use super::location;
use super::reply::Reply;

/// Maximum number of pages in a row without anything new. Some registries send empty pages after filtering out every
/// entry.
const MOST_BARREN: usize = 10;
/// Maximum characters of an unreadable header in a message.
const SHOWN: usize = 100;

/// Where a list continues.
pub(super) enum Onward {
    End,
    /// The addresses that may have the next page, the likeliest first. Never empty.
    At(Vec<Url>),
    /// There is another page, and its address is unknown. The reason continues "the next page".
    Lost(String),
}

/// The pages of one list.
pub(super) struct Pages {
    /// The address of the first page.
    own: Url,
    visited: HashSet<Url>,
    barren: usize,
    /// Bytes left for all further pages.
    room: u64,
}

impl Pages {
    /// `room` is the total size limit of all pages in bytes.
    pub fn new(own: Url, room: u64) -> Pages {
        Pages { own, visited: HashSet::new(), barren: 0, room }
    }

    /// Interprets the page that was returned for `asked`. The query of a link is first tried on the address of the
    /// first page, and only then the link itself, and at this origin only. Behind a gateway, the registry does not know
    /// the host and path by which it is reached, and the path that it names may belong to another repository.
    pub fn after(&self, asked: &Url, reply: &Reply) -> Onward {
        if !reply.is_readable("link") {
            return Onward::Lost("is named by a Link header that is not text".to_owned());
        }
        let target = match link::next(reply.headers("link")) {
            NextPage::Nowhere => return Onward::End,
            NextPage::At(target) => target,
            NextPage::Unreadable(header) => {
                let shown: String = header.chars().take(SHOWN).collect();
                return Onward::Lost(format!("is named by a Link header that cannot be read: {shown:?}"));
            }
        };
        let resolved = location::resolve(asked, target).map(|mut url| {
            url.set_fragment(None);
            url
        });
        let query = target.split('#').next().and_then(|target| target.split_once('?')).map(|(_, query)| query);
        let as_given = resolved.as_ref().ok().filter(|url| url.origin() == self.own.origin()).cloned();
        let here = query.map(|query| {
            let mut here = self.own.clone();
            here.set_query(Some(query));
            here
        });
        let mut addresses: Vec<Url> = here.into_iter().chain(as_given).collect();
        addresses.dedup();
        addresses.retain(|url| !self.visited.contains(url));
        match (addresses.is_empty(), resolved) {
            (false, _) => Onward::At(addresses),
            (true, Err(reason)) => Onward::Lost(format!("leads {reason}")),
            (true, Ok(url)) if self.visited.contains(&url) => Onward::Lost("was already read".to_owned()),
            (true, Ok(url)) => Onward::Lost(format!("leads to another server, {}", url.origin().ascii_serialization())),
        }
    }

    pub fn is_untouched(&self) -> bool {
        self.visited.is_empty()
    }

    /// Records that an address is requested. `false` if it was requested before.
    pub fn visit(&mut self, url: &Url) -> bool {
        self.visited.insert(url.clone())
    }

    /// Records what a page of `bytes` delivered.
    ///
    /// # Errors
    /// Why no further page is read.
    pub fn note(&mut self, url: &Url, bytes: usize, brought_new: bool) -> Result<(), String> {
        // Short pages take space too: that of their addresses.
        self.room = self.room.saturating_sub(1024 + bytes as u64 + url.as_str().len() as u64);
        self.barren = if brought_new { 0 } else { self.barren + 1 };
        match () {
            () if self.room == 0 => Err("the list does not end: its pages are too large in total".to_owned()),
            () if self.barren >= MOST_BARREN => {
                Err(format!("the list does not end: {MOST_BARREN} pages in a row brought nothing new"))
            }
            () => Ok(()),
        }
    }
}
