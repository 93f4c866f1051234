//! Fetches blobs in a fixed order, and the next ones while one is written, within bounded memory.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, mpsc};

use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Events};
use crate::content::{BlobReader, Body, Origin, Source};
use crate::oci::{Descriptor, Digest};
use crate::pipeline::graph::PlacedBlob;

/// Bytes that are fetched ahead, over all blobs.
const AHEAD: usize = 32 << 20;
/// With more parallel blobs, each would get too little of it.
const MOST_JOBS: usize = 16;

/// Fetches blobs in order.
pub struct Ahead<'a> {
    source: &'a dyn Source,
    jobs: usize,
    events: &'a Events,
}

/// The blobs as they are fetched, in order.
pub struct FetchedBlobs(mpsc::UnboundedReceiver<Pieces>);

/// A blob as it is fetched.
pub struct Pieces {
    blob: Digest,
    pieces: mpsc::UnboundedReceiver<Bytes>,
    room: Arc<Semaphore>,
    most: usize,
    /// Bytes that are still to come.
    left: u64,
}

/// Receives the pieces of one blob; waits if too many have not been taken.
struct Feed {
    pieces: mpsc::UnboundedSender<Bytes>,
    room: Arc<Semaphore>,
    most: usize,
}

impl<'a> Ahead<'a> {
    pub fn new(source: &'a dyn Source, jobs: usize, events: &'a Events) -> Ahead<'a> {
        Ahead { source, jobs: jobs.clamp(1, MOST_JOBS), events }
    }

    /// What fetches, and what it fetches; both must be polled.
    pub fn begin(&self, blobs: &'a [PlacedBlob]) -> (impl Future<Output = Result<()>>, FetchedBlobs) {
        let (lineup, fetched) = mpsc::unbounded_channel();
        let fetching = async move {
            let fetch = |placed: &'a PlacedBlob| {
                let (feed, pieces) = self.pipe(&placed.blob);
                // They are not taken only if writing has failed, which ends this too.
                let _ = lineup.send(pieces);
                async move { self.fetch(placed, feed).await }
            };
            // They start in order, so the one needed next is always among them.
            stream::iter(blobs).map(Ok).try_for_each_concurrent(self.jobs, fetch).await
        };
        (fetching, FetchedBlobs(fetched))
    }

    fn pipe(&self, blob: &Descriptor) -> (Feed, Pieces) {
        let (sender, pieces) = mpsc::unbounded_channel();
        let most = AHEAD / self.jobs;
        let room = Arc::new(Semaphore::new(most));
        let feed = Feed { pieces: sender, room: room.clone(), most };
        (feed, Pieces { blob: blob.digest, pieces, room, most, left: blob.size })
    }

    async fn fetch(&self, placed: &PlacedBlob, feed: Feed) -> Result<()> {
        let (digest, size) = (placed.blob.digest, placed.blob.size);
        self.events.report(Event::BlobStarted { digest, size, present: 0 });
        if size <= feed.most as u64 {
            for piece in self.whole(placed).await? {
                feed.put(piece).await;
            }
        } else {
            let origin = Origin { source: self.source, repository: &placed.repository };
            let body = origin.body(&placed.blob, 0).await?;
            self.pass(&placed.blob, body, &feed).await?;
        }
        self.events.report(Event::BlobFinished { digest });
        self.events.report(Event::ItemDone);
        // Otherwise the fetched and unwritten data would be unbounded.
        feed.taken().await;
        Ok(())
    }

    /// All of a small blob, proven; it is read again if its source sends wrong bytes and may do better.
    async fn whole(&self, placed: &PlacedBlob) -> Result<Vec<Bytes>> {
        let PlacedBlob { blob, repository } = placed;
        loop {
            let mut seen = 0;
            let read = async {
                let mut reader = BlobReader::new(blob, self.source.blob(repository, blob, 0).await?)?;
                let mut pieces = Vec::new();
                while let Some(piece) = reader.next().await {
                    let piece = piece?;
                    seen += piece.len() as u64;
                    self.advanced(blob, &piece);
                    pieces.push(piece);
                }
                Ok(pieces)
            };
            match read.await {
                Err(error) if Error::kind(&error) == Kind::Damaged => {
                    self.source.gave_wrong(repository, blob, error).await?
                }
                other => return other,
            }
            self.events.report(Event::BlobRestarted { digest: blob.digest, bytes: seen });
        }
    }

    /// Passes on a large blob as it arrives, except for its last piece.
    async fn pass(&self, blob: &Descriptor, body: Body, feed: &Feed) -> Result<()> {
        let mut reader = BlobReader::new(blob, body)?;
        while let Some(piece) = reader.next().await {
            let piece = piece?;
            self.advanced(blob, &piece);
            feed.put(piece).await;
        }
        Ok(())
    }

    fn advanced(&self, blob: &Descriptor, piece: &Bytes) {
        self.events.report(Event::BlobAdvanced { digest: blob.digest, bytes: piece.len() as u64 });
    }
}

impl FetchedBlobs {
    /// The next blob.
    ///
    /// # Errors
    /// Fetching has failed.
    pub async fn next(&mut self) -> Result<Pieces> {
        self.0.recv().await.ok_or_else(|| Error::new(Kind::Interrupted, "fetching blobs"))
    }
}

impl Pieces {
    pub async fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.recv().await?;
        self.room.add_permits(permits(&piece, self.most) as usize);
        self.left = self.left.saturating_sub(piece.len() as u64);
        Some(piece)
    }

    /// Ends the blob.
    ///
    /// # Errors
    /// It is incomplete; the fetching side knows why.
    pub fn end(self) -> Result<()> {
        match self.left {
            0 => Ok(()),
            left => Err(Error::new(Kind::Interrupted, format!("reading blob {}: {left} bytes are missing", self.blob))),
        }
    }
}

impl Feed {
    async fn put(&self, piece: Bytes) {
        // It is never closed.
        if let Ok(permit) = self.room.acquire_many(permits(&piece, self.most)).await {
            permit.forget();
        }
        let _ = self.pieces.send(piece);
    }

    /// Waits until all of it has been taken.
    async fn taken(self) {
        drop(self.pieces);
        let _ = self.room.acquire_many(u32::try_from(self.most).unwrap_or(u32::MAX)).await;
    }
}

fn permits(piece: &Bytes, most: usize) -> u32 {
    u32::try_from(piece.len().min(most)).unwrap_or(u32::MAX)
}
