//! An HTTP request: what is sent, where, and with which authorization.

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use super::upload_body::UploadBody;

/// What to send.
pub(super) struct Call<'a> {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Payload,
    /// Sent only to the origin of this URL.
    pub authorization: Option<(HeaderValue, Url)>,
    /// The attempt, for errors.
    pub what: &'a str,
}

pub(super) enum Payload {
    Bytes(Bytes),
    /// Can be sent only once.
    Stream(Box<UploadBody>),
    /// An empty body that ends an upload of `stored` bytes; the response may take as long as storing them.
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
