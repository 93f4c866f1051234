//! The embedded registry, running in this process: serves a layout or bundle, and accepts pushes if writable.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use gapferry::base::progress::{Events, Recorder};
use gapferry::serve::{Limits, Options, Server};

use super::http::{self, Request};
use super::images::Host;

/// Stopped when dropped.
pub struct Embedded {
    host: String,
    events: Arc<Recorder>,
    references: Vec<String>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    pub fn serve(path: &Path) -> Embedded {
        Embedded::try_serve(path, false).expect("serving")
    }

    pub fn writable(path: &Path) -> Embedded {
        Embedded::try_serve(path, true).expect("serving")
    }

    /// Accepts pushes up to `quota` bytes in all.
    pub fn with_quota(path: &Path, quota: u64) -> Embedded {
        let quota = Some(quota);
        Embedded::start(path, Options { writable: true, quota, ..Embedded::options() }).expect("serving")
    }

    /// Accepts pushes within `limits`.
    pub fn limited(path: &Path, limits: Limits) -> Embedded {
        Embedded::start(path, Options { writable: true, limits, ..Embedded::options() }).expect("serving")
    }

    pub fn try_serve(path: &Path, writable: bool) -> gapferry::Result<Embedded> {
        Embedded::start(path, Options { writable, ..Embedded::options() })
    }

    fn options() -> Options {
        Options::at(([127, 0, 0, 1], 0).into())
    }

    fn start(path: &Path, options: Options) -> gapferry::Result<Embedded> {
        let events = Arc::new(Recorder::default());
        let reporter: Events = events.clone();
        let path = path.to_owned();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (bound, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                match Server::bind(&path, &options, reporter).await {
                    Ok(server) => {
                        let _ = bound.send(Ok((server.address(), server.references())));
                        let shutdown = async { stopped.await.unwrap_or(()) };
                        server.run(shutdown).await.expect("serving");
                    }
                    Err(error) => {
                        let _ = bound.send(Err(error));
                    }
                }
            });
        });
        let (address, references) = address.recv().expect("an outcome")?;
        Ok(Embedded { host: address.to_string(), events, references, stop: Some(stop), thread: Some(thread) })
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn request(&self, method: &'static str, path: &str) -> Request {
        http::request(method, format!("http://{}{path}", self.host))
    }

    pub fn get(&self, path: &str) -> http::Answer {
        self.request("GET", path).send()
    }

    /// The references it announced when it started.
    pub fn references(&self) -> &[String] {
        &self.references
    }

    pub fn events(&self) -> Vec<gapferry::base::progress::Event> {
        self.events.events()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Host for Embedded {
    fn host(&self) -> &str {
        Embedded::host(self)
    }

    fn request(&self, method: &'static str, path: &str) -> Request {
        Embedded::request(self, method, path)
    }
}
