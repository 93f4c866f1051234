//! A try that failed, and what its failure allows.

use std::time::{Duration, Instant};

use super::outage::{Evidence, ServerWork};
use crate::base::error::{Error, Kind};

/// A try that failed, and what may be done about it.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: Error,
    pub retry: Retry,
    /// The server that failed, if that is known; without one, the failure counts against the registry.
    pub server: Option<ServerWork>,
    /// The status of the answer, if one came.
    pub status: Option<u16>,
    /// When the request was sent that failed, where that is known: before, it may have waited for its turn.
    pub asked: Option<Instant>,
    /// How long it was waited for in vain.
    pub waited: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Another try would end the same way.
    Never,
    /// The obstacle is gone already (a new token was fetched).
    Now,
    /// After a growing, jittered delay.
    Soon,
    /// The same; and the whole server may be down.
    Down(Evidence),
    /// When the registry said: its Retry-After.
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

    /// No answer came from the registry.
    pub fn no_answer(error: Error) -> Failure {
        Failure::new(error, Retry::Down(Evidence::NoAnswer))
    }

    /// The same, after this time.
    pub fn no_answer_in(waited: Duration, error: Error) -> Failure {
        Failure { waited, ..Failure::no_answer(error) }
    }

    /// The body of an answer of `server` broke off: that is no better than an error in its place.
    pub fn of_body(self, server: &ServerWork) -> Failure {
        match self.retry {
            Retry::Soon => Failure { retry: Retry::Down(Evidence::Status), ..self.at(server) },
            _ => self,
        }
    }

    /// It is this server that failed.
    pub fn at(self, server: &ServerWork) -> Failure {
        Failure { server: Some(server.clone()), ..self }
    }

    /// It was not the registry that failed, but a server that it redirects to: that says nothing of the registry.
    pub fn of_another_server(self) -> Failure {
        let is_limit = self.error.kind() == Kind::RateLimited;
        let error = match self.error.kind() {
            // Its limit is not the registry's, and must not keep other requests from it.
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

/// The statuses after which the same request may succeed later: the transient ones of HTTP, nginx's 499 and Cloudflare's
/// 522.
pub(super) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 499 | 500 | 502 | 503 | 504 | 522)
}

/// The statuses with which a server, or a gateway before it, may answer everything while it is down. They are no success, of
/// whatever was asked.
pub(super) fn may_be_down(status: u16) -> bool {
    matches!(status, 499..=599)
}

/// The statuses by which a gateway says that the registry behind it does not answer.
pub(super) fn is_gateway(status: u16) -> bool {
    matches!(status, 499 | 502 | 503 | 504 | 522)
}
