//! What a request does for the run, and what its answer proves. A gateway may open a session, and a cache may issue a
//! token, while nothing behind them can be stored. An answer therefore counts for its own kind of request and for the
//! weaker kinds.

use std::sync::Arc;

use reqwest::{Method, Url};

use super::Outage;

/// A kind of request, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::transport::registry) enum Work {
    Token,
    /// Requests the root, or Harbor's own API.
    Enter,
    /// Requests a manifest or a list, or asks whether a blob exists.
    Read,
    /// Reads a blob.
    Content,
    /// Begins, continues or cancels an upload; deletes.
    Begin,
    /// Stores a blob or a manifest.
    Complete,
}

impl Work {
    pub const ALL: [Work; 6] = [Work::Token, Work::Enter, Work::Read, Work::Content, Work::Begin, Work::Complete];

    /// The kind of a request. `url` is the URL before any redirect, because the path of a redirect's target may say
    /// nothing.
    pub fn of(method: &Method, url: &Url) -> Work {
        let path = url.path();
        match *method {
            Method::PUT => Work::Complete,
            _ if path.trim_end_matches('/') == "/v2" || path.starts_with("/api/") => Work::Enter,
            _ if path.contains("/blobs/uploads/") => Work::Begin,
            Method::GET if path.contains("/blobs/") => Work::Content,
            Method::GET | Method::HEAD => Work::Read,
            _ => Work::Begin,
        }
    }

    /// Whether an answer to this kind proves that the `other` works. Opening an upload reads nothing.
    pub fn proves(self, other: Work) -> bool {
        self >= other && !(self == Work::Begin && matches!(other, Work::Read | Work::Content))
    }

    /// Whether a server does such work only for content that it has: registries also look up what they do not have, and
    /// some always fail at that.
    pub fn is_of_held(self) -> bool {
        self >= Work::Content
    }

    /// What a server has failed to do for a while although it answers other requests.
    pub fn undone(self) -> &'static str {
        match self {
            Work::Token => "has issued no token",
            Work::Enter => "has answered no request at /v2/ or its API",
            Work::Read => "has answered no request for content",
            Work::Content => "has delivered no blob content",
            Work::Begin => "has begun no upload",
            Work::Complete => "has stored nothing",
        }
    }
}

/// A server, and what one request does there.
#[derive(Clone, Debug)]
pub(in crate::transport::registry) struct ServerWork {
    pub outage: Arc<Outage>,
    pub work: Work,
}

impl ServerWork {
    /// The server has answered this request.
    pub fn answered(&self) {
        self.outage.answered(self.work);
    }
}
