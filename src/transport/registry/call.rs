//! A request on its way: what is sent, where, with whose authorization.

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use super::upload_body::UploadBody;

/// What is to be sent.
pub(super) struct Call<'a> {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Payload,
    /// Sent only to the origin of the URL that stands beside it.
    pub authorization: Option<(HeaderValue, Url)>,
    /// The attempt, for errors.
    pub what: &'a str,
}

pub(super) enum Payload {
    Bytes(Bytes),
    /// Can be sent once only.
    Stream(Box<UploadBody>),
    /// Nothing, to end an upload of `stored` bytes with; the answer may take as long as storing them does.
    Closing {
        stored: u64,
    },
}

impl Payload {
    pub fn none() -> Payload {
        Payload::Bytes(Bytes::new())
    }

    pub fn size(&self) -> u64 {
        match self {
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::Stream(body) => body.length(),
            Payload::Closing { .. } => 0,
        }
    }
}
