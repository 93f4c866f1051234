//! Reads a blob through mirrors: if one endpoint breaks off, the next continues.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::suspects::EndpointReads;
use super::{Endpoints, passes_on};
use crate::base::error::{Error, Result};
use crate::content::{Body, Need};
use crate::oci::Descriptor;
use crate::transport::registry::download;

pub(super) struct Failover {
    endpoints: Arc<Endpoints>,
    blob: Descriptor,
    /// The endpoints that have not been asked yet.
    ahead: std::vec::IntoIter<usize>,
    /// The endpoint that is delivering.
    at: usize,
    pieces: BoxStream<'static, Result<Bytes>>,
    /// All bytes of the blob before this offset were delivered.
    position: u64,
    /// Bytes that the present endpoint sends again.
    skip: u64,
}

impl Failover {
    /// The bytes of `blob` from `offset`, or from 0 if the first endpoint that has the blob cannot start there.
    pub async fn open(endpoints: Arc<Endpoints>, blob: &Descriptor, offset: u64) -> Result<Body> {
        let mut order = endpoints.order(Some(&blob.digest));
        order.retain(|at| !endpoints.suspects.has(&blob.digest, *at));
        let ahead = order.into_iter();
        let pieces = stream::empty().boxed();
        endpoints.suspects.begin(&blob.digest);
        let mut failover = Failover { endpoints, blob: blob.clone(), ahead, at: 0, pieces, position: offset, skip: 0 };
        let begins = failover.next_endpoint(None).await?;
        // Nothing is delivered yet, so a stream from the start is passed on as such.
        (failover.position, failover.skip) = (begins, 0);
        Ok(Body::new(begins, failover.into_stream()))
    }

    /// Opens the blob at the next endpoint that has it, and returns the offset where its stream starts.
    ///
    /// # Errors
    /// No endpoint is left: returns the failure of the last one, or `failure` if no other was asked.
    async fn next_endpoint(&mut self, mut failure: Option<Error>) -> Result<u64> {
        let none_left = || Error::input(format!("reading blob {}: no endpoint is left to ask", self.blob.digest));
        loop {
            let Some(at) = self.ahead.next() else { return Err(failure.unwrap_or_else(none_left)) };
            let endpoint = self.endpoints.endpoint(at);
            let opening = download::blob(endpoint.host.clone(), &endpoint.repository, &self.blob, self.position);
            match endpoint.attempt(opening, Need::Required, &self.endpoints.events).await {
                Ok(body) => {
                    self.endpoints.note_given(&self.blob.digest, at, EndpointReads { blobs: 1, bytes: 0 });
                    (self.at, self.pieces) = (at, body.stream);
                    return Ok(body.offset);
                }
                Err(error) if !passes_on(&error) => return Err(error),
                Err(error) => {
                    if self.ahead.len() > 0 {
                        self.endpoints.passed_over(&endpoint, &error);
                    }
                    failure = Some(error);
                }
            }
        }
    }

    fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        stream::unfold(Some(self), |failover| async {
            let mut failover = failover?;
            match failover.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(failover))),
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
                    let given = EndpointReads { blobs: 0, bytes: piece.len() as u64 };
                    self.endpoints.note_given(&self.blob.digest, self.at, given);
                    if let Some(piece) = self.fresh(piece) {
                        return Ok(Some(piece));
                    }
                }
                Some(Err(error)) if passes_on(&error) && self.ahead.len() > 0 => {
                    self.endpoints.passed_over(&self.endpoints.endpoint(self.at), &error);
                    let begins = self.next_endpoint(Some(error)).await?;
                    self.skip = self.position.saturating_sub(begins);
                }
                Some(Err(error)) => return Err(error),
            }
        }
    }

    /// Returns the part of a piece that has not been delivered.
    fn fresh(&mut self, mut piece: Bytes) -> Option<Bytes> {
        let known = self.skip.min(piece.len() as u64);
        self.skip -= known;
        let piece = piece.split_off(usize::try_from(known).unwrap_or(piece.len()));
        self.position += piece.len() as u64;
        (!piece.is_empty()).then_some(piece)
    }
}
