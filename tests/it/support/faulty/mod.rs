//! Injected faults, described in the same way for all tests, and two hosts that produce them: [`Server`] sends the answers
//! of a script, and [`Proxy`] forwards to a real registry. A fault affects a request that matches a rule ([`Host::when`]) or
//! that the dice of a [`Schedule`] choose, or it is part of a scripted answer ([`Answer::but`]).
//!
//! Plain threads and blocking sockets, so synchronous and asynchronous tests can use it alike.

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
    /// Nothing more happens until the client gives up.
    Stall(Stage),
    /// The body arrives in this many separate pieces: the request's body if it has one, otherwise the answer's.
    Drip(usize),
    /// The connection closes cleanly after this many bytes of the body, fewer than announced.
    Truncate(usize),
    /// This many bytes are added and announced: to an upload, otherwise to the answer.
    ExtraBytes(usize),
    /// One byte in the middle is changed: of an upload, otherwise of the answer.
    WrongDigest,
    /// This many bytes more (or fewer) are announced than sent.
    WrongLength(i64),
    /// Another Content-Type.
    WrongType(&'static str),
    /// A web page with status 200, as from a captive portal.
    Page,
    /// This status, without passing the request to the registry.
    Status(u16),
    /// The registry carries out the request, but this status is returned.
    AfterAll(u16),
    /// This status before the request's body was read, then the connection closes: nginx's 413.
    Hasty(u16),
    /// 401 with a challenge, after the request's body was read.
    Unauthorized,
    /// Every token issued so far becomes invalid.
    ExpireTokens,
    /// 429 with Retry-After.
    TooMany(After),
    /// 206 with a Content-Range one byte off.
    WrongRange,
    /// The whole body with 200, whatever range was requested.
    IgnoreRange,
    /// 307 to the same path at this `host:port`.
    Redirect(String),
    /// 307 to itself.
    RedirectLoop,
    /// 404 BLOB_UPLOAD_INVALID: how distribution 2.8 cancels an upload.
    Cancelled,
    /// The answer's Location in another form.
    Location(Form),
}

/// The point in a request or its answer where something happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// After this many bytes of the request's body.
    RequestBody(usize),
    /// After the request is read; the registry does not see it.
    Request,
    /// After the registry carried out the request, and before the client gets the answer.
    BeforeAnswer,
    /// In the middle of the answer's headers.
    Headers,
    /// After this many bytes of the answer's body.
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
    /// With an additional query parameter, a different one each time.
    Changing,
}

impl Fault {
    /// The kind of fault, without amounts and positions.
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
