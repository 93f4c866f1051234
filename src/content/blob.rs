//! Verifies a blob while it is read.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::{BoxStream, StreamExt};

use super::hashed::{Hashed, Wrong};
use crate::base::error::{Error, Kind, Reason, Result};
use crate::oci::{Descriptor, Hasher};

/// Bytes as they arrive, not yet verified.
pub struct Body {
    /// The position in the blob of the first byte of `stream`: the requested one, or 0.
    pub offset: u64,
    pub stream: BoxStream<'static, Result<Bytes>>,
    /// The local file that contains them, if there is one.
    pub file: Option<PathBuf>,
}

impl Body {
    pub fn new(offset: u64, stream: BoxStream<'static, Result<Bytes>>) -> Body {
        Body { offset, stream, file: None }
    }
}

/// Verifies passing bytes against the size and digest of a descriptor.
#[derive(Debug)]
pub struct Prover {
    blob: Descriptor,
    hasher: Hasher,
    seen: u64,
}

impl Prover {
    pub fn new(blob: &Descriptor) -> Prover {
        Prover::resume(blob, 0, Hasher::new(blob.digest.algorithm()))
    }

    /// Continues after `present` bytes that `hasher` has already processed.
    pub fn resume(blob: &Descriptor, present: u64, hasher: Hasher) -> Prover {
        Prover { blob: blob.clone(), hasher, seen: present }
    }

    /// Processes the next piece.
    ///
    /// # Errors
    /// There are more bytes than the descriptor states.
    pub fn absorb(&mut self, piece: &[u8]) -> Result<()> {
        self.seen += piece.len() as u64;
        if self.seen > self.blob.size {
            return Err(self.wrong(format!("it is longer than the {} bytes its descriptor says", self.blob.size)));
        }
        self.hasher.update(piece);
        Ok(())
    }

    /// Ends the blob.
    ///
    /// # Errors
    /// There are fewer bytes than the descriptor states, or the digest is wrong.
    pub fn finish(self) -> Result<()> {
        if self.seen < self.blob.size {
            return Err(self.wrong(format!("it ended after {} of {} bytes", self.seen, self.blob.size)));
        }
        let proven = Hashed::of(self.hasher.clone()).prove(&self.blob.digest);
        proven.map_err(|Wrong { found, .. }| self.wrong(format!("wrong digest: the bytes have {found}")))
    }

    fn wrong(&self, reason: String) -> Error {
        Error::damaged(format!("reading blob {}: {reason}", self.blob.digest))
    }
}

/// The bytes of a blob, hashed as they pass.
///
/// This is a stream of pieces. The last piece is withheld until size and digest are verified, so a consumer that has received
/// `descriptor.size` bytes has the right ones.
pub struct BlobReader {
    body: BoxStream<'static, Result<Bytes>>,
    prover: Option<Prover>,
    ready: VecDeque<Bytes>,
    held: Option<Bytes>,
    failed: bool,
    file: Option<PathBuf>,
}

impl BlobReader {
    /// Reads `body` from its start.
    ///
    /// # Errors
    /// `body` does not start at 0.
    pub fn new(blob: &Descriptor, body: Body) -> Result<BlobReader> {
        if body.offset != 0 {
            let text = format!("reading blob {}: it starts at byte {}, not 0", blob.digest, body.offset);
            return Err(Error::damaged(text));
        }
        let (prover, ready) = (Some(Prover::new(blob)), VecDeque::new());
        Ok(BlobReader { body: body.stream, prover, ready, held: None, failed: false, file: body.file })
    }

    fn absorb(&mut self, piece: Bytes) -> Result<()> {
        if let Some(prover) = &mut self.prover {
            prover.absorb(&piece)?;
        }
        if !piece.is_empty() {
            self.ready.extend(self.held.replace(piece));
        }
        Ok(())
    }

    /// Names the file in an error about damage.
    fn in_file(&self, error: Error) -> Error {
        match self.file.as_ref().filter(|_| error.kind() == Kind::Damaged) {
            Some(file) => error.with_reason(Reason::DamagedFile).while_doing(format!("{} is damaged", file.display())),
            None => error,
        }
    }

    fn complete(&mut self) -> Result<()> {
        if let Some(prover) = self.prover.take() {
            prover.finish()?;
        }
        self.ready.extend(self.held.take());
        Ok(())
    }
}

impl Stream for BlobReader {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            if self.failed || self.prover.is_none() {
                return Poll::Ready(None);
            }
            let outcome = match self.body.poll_next_unpin(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(piece))) => self.absorb(piece),
                Poll::Ready(Some(Err(error))) => Err(error),
                Poll::Ready(None) => self.complete(),
            };
            if let Err(error) = outcome {
                self.failed = true;
                return Poll::Ready(Some(Err(self.in_file(error))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;
    use futures_util::stream;

    async fn read(content: &'static [u8], served: Vec<&'static [u8]>) -> Result<Vec<u8>> {
        let blob = Descriptor::new("x", Digest::sha256(content), content.len() as u64);
        let pieces = stream::iter(served.into_iter().map(|piece| Ok(Bytes::from_static(piece))));
        let mut reader = BlobReader::new(&blob, Body::new(0, pieces.boxed()))?;
        let mut all = Vec::new();
        while let Some(piece) = reader.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn the_right_bytes_pass() {
        assert_eq!(read(b"hello", vec![b"he", b"", b"llo"]).await.unwrap(), b"hello");
        assert_eq!(read(b"", vec![]).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn short_long_and_wrong_bytes_never_look_like_success() {
        for (served, says) in [
            (vec![&b"he"[..]], "it ended after 2 of 5 bytes".to_owned()),
            (vec![b"hello", b"!"], "it is longer than the 5 bytes its descriptor says".to_owned()),
            (vec![b"hellO"], format!("wrong digest: the bytes have {}", Digest::sha256(b"hellO"))),
        ] {
            let error = read(b"hello", served).await.unwrap_err();
            assert_eq!(error.to_string(), format!("reading blob {}: {says}", Digest::sha256(b"hello")));
        }
    }

    #[tokio::test]
    async fn the_last_piece_is_withheld_until_all_is_proven() {
        let blob = Descriptor::new("x", Digest::sha256(b"good"), 4);
        let pieces = stream::iter([Ok(Bytes::from_static(b"ba")), Ok(Bytes::from_static(b"d!"))]);
        let mut reader = BlobReader::new(&blob, Body::new(0, pieces.boxed())).unwrap();
        let mut handed_out = 0;
        while let Some(Ok(piece)) = reader.next().await {
            handed_out += piece.len();
        }
        assert!(handed_out < 4);
    }
}
