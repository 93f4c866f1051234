//! What a request does for the run, and what its answer proves. A gateway may open a session and a cache may issue a token while
//! nothing behind them can be stored; so an answer counts for its own kind of request, and for the weaker ones.

use std::sync::Arc;

use reqwest::{Method, Url};

use super::Outage;

/// A kind of request, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::transport::registry) enum Work {
    Token,
    /// Asks the root, or Harbor's own API.
    Enter,
    Read,
    /// Begins, continues or gives up an upload; deletes.
    Begin,
    /// Makes a blob or a manifest.
    Complete,
}

impl Work {
    pub const ALL: [Work; 5] = [Work::Token, Work::Enter, Work::Read, Work::Begin, Work::Complete];

    pub fn of(method: &Method, url: &Url) -> Work {
        let path = url.path();
        match *method {
            Method::PUT => Work::Complete,
            _ if path.trim_end_matches('/') == "/v2" || path.starts_with("/api/") => Work::Enter,
            Method::GET | Method::HEAD if !path.contains("/blobs/uploads/") => Work::Read,
            _ => Work::Begin,
        }
    }

    /// Whether an answer to this shows that the other works. Opening an upload reads nothing.
    pub fn proves(self, other: Work) -> bool {
        self >= other && (self, other) != (Work::Begin, Work::Read)
    }

    /// What a server has not done for a while whose answers to other requests are fine.
    pub fn undone(self) -> &'static str {
        match self {
            Work::Token => "has issued no token",
            Work::Enter => "has answered no request at /v2/ or its API",
            Work::Read => "has answered no request for content",
            Work::Begin => "has begun no upload",
            Work::Complete => "has stored nothing",
        }
    }
}

/// A server, as one request has to do with it.
#[derive(Clone, Debug)]
pub(in crate::transport::registry) struct Server {
    pub outage: Arc<Outage>,
    pub work: Work,
}

impl Server {
    /// It has answered this request.
    pub fn answered(&self) {
        self.outage.answered(self.work);
    }
}
