//! The bytes of a blob on their way to a registry, and their progress. Knows nothing of requests and sessions.
//!
//! **Threats.** A registry may stop accepting bytes, or accept one now and then for ever. Bytes are sent in pieces of
//! at most [`LEAST`], and each piece must be accepted within the stall limit, as in
//! [`stall_timeout`](super::stall_timeout).

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::stall_timeout::LEAST;
use crate::base::error::{Error, Result};
use crate::content::BlobReader;

/// A blob, or part of a blob, to be sent.
pub(super) struct UploadBody {
    length: u64,
    /// Bytes that have not been sent.
    left: u64,
    /// Whether it ends where the blob ends.
    is_last: bool,
    feed: Feed,
    watch: Arc<UploadWatch>,
}

/// The source of the bytes. It outlives a request, so that a blob sent in chunks is read once.
#[derive(Clone)]
pub(super) struct Feed(Arc<Mutex<Source>>);

struct Source {
    /// Bytes before the next piece of `reader`.
    ready: Bytes,
    reader: BlobReader,
}

/// The progress of an upload, as seen by its request.
pub(super) struct UploadWatch(Mutex<State>);

struct State {
    /// When the connection last accepted a piece.
    moved: Instant,
    /// Whether we are waiting for the source rather than the registry.
    starved: bool,
    sent: u64,
    left: u64,
    lost: Option<Error>,
}

impl Feed {
    /// The rest of a blob after its first `from` bytes. Those are read and proven before anything is sent, so that the
    /// registry does not wait for them.
    ///
    /// # Errors
    /// What `reader` finds wrong in those bytes.
    pub async fn after(from: u64, mut reader: BlobReader) -> Result<Feed> {
        let (mut ready, mut known) = (Bytes::new(), from);
        while known > 0
            && let Some(piece) = reader.next().await
        {
            ready = piece?;
            let skipped = known.min(ready.len() as u64);
            ready = ready.split_off(skipped as usize);
            known -= skipped;
        }
        Ok(Feed(Arc::new(Mutex::new(Source { ready, reader }))))
    }

    /// Returns the next piece, of at most `most` bytes.
    fn poll_piece(&self, context: &mut Context<'_>, most: u64) -> Poll<Option<Result<Bytes>>> {
        let mut source = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if source.ready.is_empty() {
            match source.reader.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(piece))) => source.ready = piece,
                other => return other,
            }
        }
        let size = source.ready.len().min(most as usize);
        Poll::Ready(Some(Ok(source.ready.split_to(size))))
    }
}

impl UploadBody {
    /// The next `length` bytes; `is_last` if the blob ends there.
    pub fn new(feed: &Feed, length: u64, is_last: bool) -> UploadBody {
        let state = State { moved: Instant::now(), starved: false, sent: 0, left: length, lost: None };
        let watch = Arc::new(UploadWatch(Mutex::new(state)));
        UploadBody { length, left: length, is_last, feed: feed.clone(), watch }
    }

    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn watch(&self) -> Arc<UploadWatch> {
        self.watch.clone()
    }

    pub fn into_body(self) -> reqwest::Body {
        reqwest::Body::wrap_stream(self)
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let most = match (self.left, self.is_last) {
            (0, false) => return Poll::Ready(None),
            // The reader notices if there are more bytes than the blob should have.
            (_, true) => LEAST,
            (left, false) => left.min(LEAST),
        };
        let polled = self.feed.poll_piece(context, most);
        if let Poll::Ready(Some(Ok(piece))) = &polled {
            self.left = self.left.saturating_sub(piece.len() as u64);
        }
        polled
    }
}

impl Stream for UploadBody {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.poll_piece(context);
        let mut state = self.watch.state();
        state.moved = Instant::now();
        state.starved = polled.is_pending();
        polled.map(|next| match next? {
            Ok(piece) => {
                state.sent += piece.len() as u64;
                state.left = state.left.saturating_sub(piece.len() as u64);
                Some(Ok(piece))
            }
            Err(error) => {
                state.lost = Some(error);
                Some(Err(std::io::Error::other("the blob could not be read")))
            }
        })
    }
}

impl UploadWatch {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the error of the source, if it failed.
    pub fn take_lost(&self) -> Option<Error> {
        self.state().lost.take()
    }

    /// Bytes that the connection accepted. The registry may not have received them all.
    pub fn sent(&self) -> u64 {
        self.state().sent
    }

    /// Whether the connection accepted everything.
    pub fn is_sent(&self) -> bool {
        self.state().left == 0
    }

    /// Completes, with the reason, when the registry has not accepted a piece for `stall`, or, after the last piece,
    /// has not answered for `commit`. While the source is slow, the limit is `source`. Time before the request was sent
    /// does not count. The second value is how long the registry has kept us waiting.
    pub async fn stalled(&self, stall: Duration, commit: Duration, source: Duration) -> (String, Duration) {
        self.state().moved = Instant::now();
        loop {
            let (patience, description, starved, moved) = {
                let state = self.state();
                let (patience, description) = match (state.starved, state.left) {
                    (true, _) => (source, "the source of the blob sent nothing"),
                    (false, 0) => (commit, "everything was sent, and there was no answer"),
                    (false, _) => (stall, "the registry accepted less than 32 KiB"),
                };
                (patience, description, state.starved, state.moved)
            };
            let left = patience.saturating_sub(moved.elapsed());
            if left.is_zero() {
                let waited = if starved { Duration::ZERO } else { patience };
                return (format!("{description} in {} s", patience.as_secs_f32()), waited);
            }
            // Checked repeatedly, because the state may change to one with a shorter limit.
            tokio::time::sleep(left.min(stall)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::content::Body;
    use crate::oci::{Descriptor, Digest};

    fn reader(content: &'static [u8], piece: usize) -> BlobReader {
        let blob = Descriptor::new("x", Digest::sha256(content), content.len() as u64);
        let pieces = stream::iter(content.chunks(piece).map(|piece| Ok(Bytes::from_static(piece))));
        BlobReader::new(&blob, Body::new(0, pieces.boxed())).unwrap()
    }

    #[tokio::test]
    async fn what_the_registry_has_is_left_out_wherever_pieces_end() {
        let content = b"abcdefghij";
        for (from, piece) in [(0, 3), (1, 3), (3, 3), (4, 3), (9, 3), (9, 10), (5, 100)] {
            let feed = Feed::after(from, reader(content, piece)).await.unwrap();
            let rest = UploadBody::new(&feed, 10 - from, true);
            let sent: Vec<Bytes> = rest.map(Result::unwrap).collect().await;
            assert_eq!(sent.concat(), content[from as usize..], "from {from} in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn a_blob_that_is_sent_in_chunks_is_read_once() {
        let content = b"abcdefghij";
        for (from, chunk, piece) in [(0, 3, 4), (0, 4, 4), (2, 1, 100), (5, 2, 3), (0, 10, 3)] {
            let feed = Feed::after(from, reader(content, piece)).await.unwrap();
            let (mut at, mut all) = (from, Vec::new());
            while at < 10 {
                let length = chunk.min(10 - at);
                at += length;
                let sent: Vec<Bytes> = UploadBody::new(&feed, length, at == 10).map(Result::unwrap).collect().await;
                assert_eq!(sent.concat().len() as u64, length);
                all.extend(sent.concat());
            }
            assert_eq!(all, content[from as usize..]);
        }
    }

    #[tokio::test]
    async fn a_slow_line_is_given_small_pieces_and_a_registry_that_takes_none_is_reported() {
        static CONTENT: [u8; 100_000] = [7; 100_000];
        let feed = Feed::after(0, reader(&CONTENT, 70_000)).await.unwrap();
        let mut rest = UploadBody::new(&feed, 100_000, true);
        let watch = rest.watch();
        let taken = rest.next().await.unwrap().unwrap();
        assert_eq!((taken.len() as u64, watch.sent()), (LEAST, LEAST));
        let (short, long) = (Duration::from_millis(1), Duration::from_secs(600));
        assert!(watch.stalled(short, long, long).await.0.contains("less than 32 KiB"));
        while rest.next().await.is_some() {}
        assert_eq!(watch.sent(), 100_000);
        assert!(watch.stalled(long, short, long).await.0.contains("there was no answer"));
    }
}
