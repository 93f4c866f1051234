//! Connections, bounded in number and time, so that no client can occupy the server by doing little or nothing.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};

use super::limits::Limits;
use super::places::{ConnectionPlace, Places, Requests};

/// A listener that admits a limited number of connections.
pub struct Bounded {
    listener: TcpListener,
    places: Places,
    limits: Limits,
}

impl Bounded {
    pub fn new(listener: TcpListener, limits: Limits) -> Bounded {
        Bounded { listener, places: Places::new(&limits), limits }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let place = self.places.take().await;
        // Without it, small responses wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        (Connection::new(stream, self.limits, place), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Requests {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Requests {
        stream.io().place.requests()
    }
}

/// A stream that fails if no request arrives, or if too little data moves for too long.
pub struct Connection {
    stream: TcpStream,
    limits: Limits,
    /// The end of the current period.
    end: Pin<Box<Sleep>>,
    /// Bytes moved in the period.
    moved: u64,
    /// While the head of a request is awaited: the number of requests that started before it.
    head: Option<u64>,
    place: ConnectionPlace,
}

impl Connection {
    fn new(stream: TcpStream, limits: Limits, place: ConnectionPlace) -> Connection {
        let end = Box::pin(tokio::time::sleep(limits.head));
        Connection { stream, limits, end, moved: 0, head: Some(0), place }
    }

    /// Counts moved bytes, and fails at the end of a period with too few.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
        moved: usize,
    ) -> Poll<io::Result<T>> {
        self.moved = self.moved.saturating_add(moved as u64);
        if self.head.is_some_and(|before| self.place.begun() > before) {
            self.head = None;
            self.next_span(self.limits.idle, context);
        }
        if self.end.as_mut().poll(context).is_pending() {
            return outcome;
        }
        if self.head.is_some() || self.moved < self.limits.least {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "too little data moved for too long")));
        }
        self.next_span(self.limits.idle, context);
        outcome
    }

    /// Bytes that were written.
    fn written(&self, outcome: &Poll<io::Result<usize>>) -> usize {
        match outcome {
            Poll::Ready(Ok(count)) => {
                self.place.note_answer(*count);
                *count
            }
            Poll::Pending => {
                self.place.note_waiting();
                0
            }
            Poll::Ready(Err(_)) => 0,
        }
    }

    fn next_span(&mut self, length: Duration, context: &mut Context<'_>) {
        self.moved = 0;
        self.end.as_mut().reset(Instant::now() + length);
        // Polled so that the new end wakes this task.
        let _ = self.end.as_mut().poll(context);
    }

    /// Bytes were read: of a body, or of the next request's head.
    fn note_read(&mut self, bytes: usize, context: &mut Context<'_>) {
        if bytes == 0 {
            return;
        }
        if self.head.is_none() && !self.place.is_busy() {
            self.head = Some(self.place.begun());
            self.next_span(self.limits.head, context);
        }
        self.place.note_read(bytes);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.place.check(context)?;
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        self.note_read(read, context);
        self.watch(context, outcome, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.place.check(context)?;
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        let written = self.written(&outcome);
        self.watch(context, outcome, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.place.check(context)?;
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        let written = self.written(&outcome);
        self.watch(context, outcome, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Both ends of a connection.
    async fn pair(limits: Limits) -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut bounded = Bounded::new(listener, limits);
        let client = TcpStream::connect(address).await.unwrap();
        (bounded.accept().await.0, client)
    }

    const SOON: Duration = Duration::from_millis(20);
    const NEVER: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_head_that_never_ends_is_cut_however_it_trickles() {
        for begun in ["", "GET /v2/ HTTP/1.1\r\nX-Slow: \r\n"] {
            let (mut server, mut client) =
                pair(Limits { head: SOON, idle: NEVER, least: 0, ..Limits::default() }).await;
            client.write_all(begun.as_bytes()).await.unwrap();
            let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{begun:?}");
        }
    }

    /// The limit applies to each request of a connection, not only to the first.
    #[tokio::test]
    async fn a_later_head_that_never_ends_is_cut_too() {
        let (mut server, mut client) = pair(Limits { head: SOON, idle: NEVER, least: 0, ..Limits::default() }).await;
        client.write_all(b"GET /v2/ HTTP/1.1\r\n\r\n").await.unwrap();
        let mut piece = [0; 64];
        assert_eq!(server.read(&mut piece).await.unwrap(), 21);
        drop(server.place.requests().begin());
        client.write_all(b"GET").await.unwrap();
        let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_body_that_moves_too_little_is_cut_and_one_that_moves_is_not() {
        let (mut server, mut client) = pair(Limits { head: NEVER, idle: SOON, least: 1000, ..Limits::default() }).await;
        let _request = server.place.requests().begin();
        client.write_all(b"1234").await.unwrap();
        let mut read = Vec::new();
        assert_eq!(server.read_to_end(&mut read).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(read, b"1234");

        let (mut server, mut client) =
            pair(Limits { head: NEVER, idle: NEVER, least: 1000, ..Limits::default() }).await;
        let _request = server.place.requests().begin();
        client.write_all(&[0; 5000]).await.unwrap();
        drop(client);
        assert_eq!(server.read_to_end(&mut Vec::new()).await.unwrap(), 5000);
    }
}
