//! Faults in one language for all tests, and two hosts that speak it: [`Server`] answers itself as a test tells it to,
//! [`Proxy`] stands in front of a real registry. A fault happens to a request that matches a rule ([`Host::when`]), to
//! one that the dice of a [`Schedule`] choose, or comes with a scripted answer ([`Answer::but`]).
//!
//! Plain threads and blocking sockets, so that synchronous and asynchronous tests use it alike.

mod host;
mod message;
mod misbehave;
mod proxy;
mod rules;
mod schedule;
mod scripted;
mod sessions;
mod tokens;
mod traffic;

use std::time::Duration;

pub use {
    host::Host,
    message::{Answer, Seen, exchange, last_byte, ranged},
    proxy::Proxy,
    schedule::{Dice, Schedule},
    scripted::Server,
    sessions::Sessions,
    tokens::Tokens,
    traffic::Traffic,
};
/// One thing that goes wrong with one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The connection is reset (RST), as by a firewall or a restarted server.
    Reset(Stage),
    /// From there on nothing happens until the client gives up.
    Stall(Stage),
    /// The body comes in so many pieces, each on its own: that of the request if it has one, else that of the answer.
    Drip(usize),
    /// The connection ends in good order after so many bytes of the body, fewer than were announced.
    Truncate(usize),
    /// So many bytes are added, and announced: to what is uploaded, else to what is answered.
    ExtraBytes(usize),
    /// One byte in the middle is another: of what is uploaded, else of what is answered.
    WrongDigest,
    /// So many bytes more (or less) are announced than come.
    WrongLength(i64),
    /// Another Content-Type.
    WrongType(&'static str),
    /// A web page with status 200, as from a captive portal.
    Page,
    /// This status, without the registry having seen the request.
    Status(u16),
    /// The registry does what was requested, and this status is answered anyway.
    AfterAll(u16),
    /// This status before the request's body was read, then the connection closes: nginx's 413.
    Hasty(u16),
    /// 401 with a challenge, after the request's body was read.
    Unauthorized,
    /// Every token given so far is good no more.
    ExpireTokens,
    /// 429 with Retry-After.
    TooMany(After),
    /// 206 with a Content-Range one byte off.
    WrongRange,
    /// The whole body with 200, whatever was asked for.
    IgnoreRange,
    /// 307 to the same path at this `host:port`.
    Redirect(String),
    /// 307 to itself.
    RedirectLoop,
    /// 404 BLOB_UPLOAD_INVALID: how distribution 2.8 gives up an upload.
    Cancelled,
    /// The answer's Location in another form.
    Location(Form),
}

/// Where in a request and its answer something happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// After so many bytes of the request's body.
    RequestBody(usize),
    /// The request is read; the registry does not hear of it.
    Request,
    /// The registry did what was requested, and its answer is lost.
    BeforeAnswer,
    /// In the middle of the answer's headers.
    Headers,
    /// After so many bytes of the answer's body.
    Body(usize),
}

/// The two forms of Retry-After.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum After {
    Seconds(u64),
    /// A date, from now.
    Date(Duration),
}

/// How a Location is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// Path and query.
    Relative,
    /// With scheme and host.
    Absolute,
    /// With something more in its query, another thing each time.
    Changing,
}

impl Fault {
    /// What it is, without how much and where.
    pub fn name(&self) -> String {
        let whole = format!("{self:?}");
        let numbers = ["Status", "AfterAll", "Hasty"].iter().any(|name| whole.starts_with(name));
        match self {
            Fault::Reset(stage) | Fault::Stall(stage) => {
                let stage = format!("{stage:?}");
                let stage = stage.split('(').next().unwrap_or_default();
                format!("{} {stage}", whole.split('(').next().unwrap_or_default())
            }
            _ if numbers => whole,
            _ => whole.split('(').next().unwrap_or_default().to_owned(),
        }
    }
}
