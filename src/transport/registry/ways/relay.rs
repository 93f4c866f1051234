//! A blob by way of mirrors: where one place breaks off, the next goes on.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::doubts::Given;
use super::{Way, passes_on};
use crate::base::error::{Error, Result};
use crate::content::Body;
use crate::oci::Descriptor;
use crate::transport::registry::download;
use crate::transport::registry::questions::Need;

pub(super) struct Relay {
    way: Arc<Way>,
    blob: Descriptor,
    /// Whom to ask yet.
    ahead: std::vec::IntoIter<usize>,
    /// Who delivers.
    at: usize,
    pieces: BoxStream<'static, Result<Bytes>>,
    /// What was delivered up to here.
    position: u64,
    /// What the present place sends once more.
    skip: u64,
}

impl Relay {
    /// The bytes of `blob` from `offset`, or from 0 if the first place that has it cannot begin there.
    pub async fn open(way: Arc<Way>, blob: &Descriptor, offset: u64) -> Result<Body> {
        let mut order = way.order(Some(&blob.digest));
        order.retain(|at| !way.doubts.has(&blob.digest, *at));
        let ahead = order.into_iter();
        let pieces = stream::empty().boxed();
        way.doubts.begin(&blob.digest);
        let mut relay = Relay { way, blob: blob.clone(), ahead, at: 0, pieces, position: offset, skip: 0 };
        let begins = relay.next_place(None).await?;
        // Nothing is delivered yet, so a stream from the start is simply passed on as such.
        (relay.position, relay.skip) = (begins, 0);
        Ok(Body::new(begins, relay.into_stream()))
    }

    /// Opens the blob at the next place that has it; says where that begins.
    ///
    /// # Errors
    /// No place is left: the failure of the last one, or the `failure` that made us look for another.
    async fn next_place(&mut self, mut failure: Option<Error>) -> Result<u64> {
        let nobody = || Error::input(format!("reading blob {}: nobody to ask", self.blob.digest));
        loop {
            let Some(at) = self.ahead.next() else { return Err(failure.unwrap_or_else(nobody)) };
            let stop = self.way.stop(at);
            let opening = download::blob(stop.host.clone(), &stop.repository, &self.blob, self.position);
            match stop.attempt(opening, Need::Required, &self.way.events).await {
                Ok(body) => {
                    self.way.note_given(&self.blob.digest, at, Given { blobs: 1, bytes: 0 });
                    (self.at, self.pieces) = (at, body.stream);
                    return Ok(body.offset);
                }
                Err(error) if !passes_on(&error) => return Err(error),
                Err(error) => {
                    if self.ahead.len() > 0 {
                        self.way.passed_over(&stop, &error);
                    }
                    failure = Some(error);
                }
            }
        }
    }

    fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        stream::unfold(Some(self), |relay| async {
            let mut relay = relay?;
            match relay.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(relay))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.pieces.next().await {
                None => return Ok(None),
                Some(Ok(piece)) => {
                    let given = Given { blobs: 0, bytes: piece.len() as u64 };
                    self.way.note_given(&self.blob.digest, self.at, given);
                    if let Some(piece) = self.fresh(piece) {
                        return Ok(Some(piece));
                    }
                }
                Some(Err(error)) if passes_on(&error) && self.ahead.len() > 0 => {
                    self.way.passed_over(&self.way.stop(self.at), &error);
                    let begins = self.next_place(Some(error)).await?;
                    self.skip = self.position.saturating_sub(begins);
                }
                Some(Err(error)) => return Err(error),
            }
        }
    }

    /// The part of a piece that was not delivered before.
    fn fresh(&mut self, mut piece: Bytes) -> Option<Bytes> {
        let known = self.skip.min(piece.len() as u64);
        self.skip -= known;
        let piece = piece.split_off(usize::try_from(known).unwrap_or(piece.len()));
        self.position += piece.len() as u64;
        (!piece.is_empty()).then_some(piece)
    }
}
