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
    /// Requests a manifest, a list, or whether a blob exists.
    Read,
    /// Reads a blob.
    Content,
    /// Begins, continues or cancels an upload; deletes.
    Begin,
    /// Creates a blob or a manifest.
    Complete,
}

impl Work {
    pub const ALL: [Work; 6] = [Work::Token, Work::Enter, Work::Read, Work::Content, Work::Begin, Work::Complete];

    /// `url` is the first URL of the request: after a redirect, the path may say nothing.
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

    /// Whether an answer to this kind shows that the other kind works. Opening an upload reads nothing.
    pub fn proves(self, other: Work) -> bool {
        self >= other && !(self == Work::Begin && matches!(other, Work::Read | Work::Content))
    }

    /// Whether a server must succeed at such work if it has the requested content. Registries look up content that they
    /// do not have, and some always fail at that.
    pub fn is_of_held(self) -> bool {
        self >= Work::Content
    }

    /// Describes what a server has not done for a while although it answers other requests.
    pub fn undone(self) -> &'static str {
        match self {
            Work::Token => "has issued no token",
            Work::Enter => "has answered no request at /v2/ or its API",
            Work::Read => "has answered no request for content",
            Work::Content => "has given no content of a blob",
            Work::Begin => "has begun no upload",
            Work::Complete => "has stored nothing",
        }
    }
}

/// A server, and what one request does with it.
#[derive(Clone, Debug)]
pub(in crate::transport::registry) struct ServerWork {
    pub outage: Arc<Outage>,
    pub work: Work,
}

impl ServerWork {
    /// Records that the server answered this request.
    pub fn answered(&self) {
        self.outage.answered(self.work);
    }
}
