//! A faulty connection to a real registry.

use std::net::TcpStream;
use std::ops::Deref;
use std::sync::Arc;

use super::host::{Backend, Host};
use super::message::send_request;
use super::{Answer, Seen, Tokens, exchange};

/// A proxy before one registry (`host:port`, plain HTTP). See [`Host`] for its controls.
pub struct Proxy {
    host: Host,
    elsewhere: Host,
}

#[derive(Clone)]
struct Upstream(Arc<str>);

impl Backend for Upstream {
    fn answer(&self, request: &Seen, _: usize) -> Answer {
        exchange(&self.0, &without_authorization(request)).unwrap_or_else(|_| Answer::new(502))
    }

    /// The registry gets the received part, then its connection ends too.
    fn broken_off(&self, request: &Seen) {
        if let Ok(stream) = TcpStream::connect(&*self.0) {
            let _ = send_request(&stream, &self.0, &without_authorization(request));
        }
    }

    fn keeps_bodies(&self) -> bool {
        false
    }
}

/// This host handles tokens, so they are removed.
fn without_authorization(request: &Seen) -> Seen {
    let mut request = request.clone();
    request.headers.remove("authorization");
    request
}

impl Proxy {
    pub fn before(registry: &str) -> Proxy {
        Proxy::new(registry, None)
    }

    /// A proxy that requires tokens, which it issues itself.
    pub fn with_tokens(registry: &str) -> Proxy {
        Proxy::new(registry, Some(Tokens::new()))
    }

    fn new(registry: &str, tokens: Option<Tokens>) -> Proxy {
        let upstream = Upstream(registry.into());
        let start = |tokens| Host::start("127.0.0.1:0", tokens, Box::new(upstream.clone())).expect("a port");
        Proxy { host: start(tokens), elsewhere: start(None) }
    }

    /// A second host with the same content, like a registry's object storage: no credentials may reach it.
    pub fn elsewhere(&self) -> &Host {
        &self.elsewhere
    }
}

impl Deref for Proxy {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}
