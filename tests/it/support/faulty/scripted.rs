//! A server with scripted answers, good or bad, that records its requests.

use std::io;
use std::ops::Deref;

use super::host::{Backend, Host};
use super::{Answer, Seen, Tokens};

/// A running server; see [`Host`] for its controls. It starts at once: its constructors are asynchronous only because
/// the tests that use it are.
pub struct Server(Host);

struct Script<F>(F);

impl<F: Fn(&Seen, usize) -> Answer + Send + Sync> Backend for Script<F> {
    fn answer(&self, request: &Seen, before: usize) -> Answer {
        (self.0)(request, before)
    }
}

impl Server {
    /// `answer` gets each request and the number of earlier ones.
    pub async fn start(answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Server {
        Server::at("127.0.0.1:0", answer).await.unwrap()
    }

    /// Starts at an address that this machine may not have.
    pub async fn at(
        address: &str,
        answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static,
    ) -> io::Result<Server> {
        Host::start(address, None, Box::new(Script(answer))).map(Server)
    }

    /// `answer` gets only requests with a valid token from `tokens`, counted from 0; the server issues the tokens
    /// itself.
    pub async fn with_tokens(tokens: Tokens, answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Server {
        let backend = Box::new(Script(move |request: &Seen, _| answer(request)));
        Server(Host::start("127.0.0.1:0", Some(tokens), backend).unwrap())
    }

    /// Like [`Server::start`], but pings are answered with 200, and neither shown to `answer` nor recorded.
    pub async fn registry(answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Server {
        Server::start(move |request, before| match request.target.as_str() {
            "/v2/" => Answer::new(200),
            _ => answer(request, before - 1),
        })
        .await
    }
}

impl Deref for Server {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.0
    }
}
