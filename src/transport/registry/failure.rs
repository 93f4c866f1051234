//! A failed attempt, and what can be done about it.

use std::time::{Duration, Instant};

use super::outage::{Evidence, ServerWork};
use crate::base::error::{Error, Kind};

/// A failed attempt, and what can be done about it.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: Error,
    pub retry: Retry,
    /// The server that failed, if known; otherwise the failure counts against the registry.
    pub server: Option<ServerWork>,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// When the failed request was sent, if known; it may have waited for its turn before.
    pub asked: Option<Instant>,
    /// How long it was waited for in vain.
    pub waited: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// A retry would end the same way.
    Never,
    /// The obstacle is already gone (a new token was fetched).
    Now,
    /// After a growing delay with jitter.
    Soon,
    /// Likewise; and the whole server may be down.
    Down(Evidence),
    /// After the time in the registry's Retry-After.
    After(Duration),
}

impl Failure {
    pub fn new(error: Error, retry: Retry) -> Failure {
        Failure { error, retry, server: None, status: None, asked: None, waited: Duration::ZERO }
    }

    pub fn never(error: Error) -> Failure {
        Failure::new(error, Retry::Never)
    }

    pub fn soon(error: Error) -> Failure {
        Failure::new(error, Retry::Soon)
    }

    /// The registry did not respond.
    pub fn no_answer(error: Error) -> Failure {
        Failure::new(error, Retry::Down(Evidence::NoAnswer))
    }

    /// The registry did not respond within this time.
    pub fn no_answer_in(waited: Duration, error: Error) -> Failure {
        Failure { waited, ..Failure::no_answer(error) }
    }

    /// The body of a response from `server` broke off, which is no better than an error response.
    pub fn of_body(self, server: &ServerWork) -> Failure {
        match self.retry {
            Retry::Soon => Failure { retry: Retry::Down(Evidence::Status), ..self.at(server) },
            _ => self,
        }
    }

    /// This server failed.
    pub fn at(self, server: &ServerWork) -> Failure {
        Failure { server: Some(server.clone()), ..self }
    }

    /// Not the registry failed, but a server that it redirects to, which says nothing about the registry.
    pub fn of_another_server(self) -> Failure {
        let is_limit = self.error.kind() == Kind::RateLimited;
        let error = match self.error.kind() {
            // Its limit is not the registry's, and must not block other requests to it.
            Kind::RateLimited => self.error.of_kind(Kind::Network),
            _ => self.error,
        };
        let retry = match self.retry {
            Retry::Down(_) if self.server.is_some() => self.retry,
            Retry::After(_) if self.server.is_some() && !is_limit => self.retry,
            Retry::Down(_) | Retry::After(_) => Retry::Soon,
            retry => retry,
        };
        Failure { error, retry, ..self }
    }

    pub fn now(error: Error) -> Failure {
        Failure::new(error, Retry::Now)
    }
}

/// The statuses after which the same request may succeed later: the temporary ones of HTTP, nginx's 499 and Cloudflare's 522.
pub(super) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 499 | 500 | 502 | 503 | 504 | 522)
}

/// The statuses with which a server or a gateway may answer everything while it is down. They are never a success.
pub(super) fn may_be_down(status: u16) -> bool {
    matches!(status, 499..=599)
}

/// The statuses by which a gateway reports that the registry does not respond.
pub(super) fn is_gateway(status: u16) -> bool {
    matches!(status, 499 | 502 | 503 | 504 | 522)
}
