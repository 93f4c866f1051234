//! The slowest speed at which a connection counts as alive.
//!
//! **Threats.** A peer may fall silent, or send one byte per second and hold a run up for ever. In both directions at
//! least [`LEAST`] bytes must move within the stall limit. With the default of 60 s that is about 550 bytes per second
//! and connection, less than any line that carries images. Time in which *we* are not ready does not count. A
//! connection that is too slow is treated like one that broke.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

/// Bytes that must move within the stall limit, or the rest of the body if that is less.
pub(super) const LEAST: u64 = 32 * 1024;

/// Watches a body while it is received.
pub(super) struct StallTimeout {
    limit: Duration,
    /// Time since the last `LEAST` bytes were received.
    waited: Duration,
    got: u64,
}

impl StallTimeout {
    /// `limit` is the stall limit.
    pub fn new(limit: Duration) -> StallTimeout {
        StallTimeout { limit, waited: Duration::ZERO, got: 0 }
    }

    /// Returns the next piece, or `None` at the end of the body.
    ///
    /// # Errors
    /// The peer was too slow; the error says what it did.
    pub async fn next<E>(
        &mut self,
        pieces: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    ) -> Result<Option<Result<Bytes, E>>, String> {
        let begun = Instant::now();
        let left = self.limit.saturating_sub(self.waited);
        let Ok(next) = tokio::time::timeout(left, pieces.next()).await else { return Err(self.description()) };
        self.waited += begun.elapsed();
        self.got += next.as_ref().and_then(|piece| piece.as_ref().ok()).map_or(0, |piece| piece.len() as u64);
        if self.got >= LEAST {
            (self.waited, self.got) = (Duration::ZERO, 0);
        }
        Ok(next)
    }

    fn description(&self) -> String {
        let seconds = self.limit.as_secs_f32();
        match self.got {
            0 => format!("the other side fell silent for {seconds} s"),
            got => format!("the other side sent only {got} bytes in {seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{self, BoxStream};

    use super::*;

    /// A piece of `size` bytes every `pause`, without end.
    fn drip(size: usize, pause: Duration) -> BoxStream<'static, Result<Bytes, ()>> {
        stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((Ok(Bytes::from(vec![0; size])), ()))
        })
        .boxed()
    }

    #[tokio::test]
    async fn a_peer_that_trickles_is_detected_in_the_time_a_silent_one_is() {
        let mut pieces = drip(1, Duration::from_millis(1));
        let mut timeout = StallTimeout::new(Duration::from_millis(50));
        let reported = loop {
            if let Err(reported) = timeout.next(&mut pieces).await {
                break reported;
            }
        };
        assert!(reported.contains("sent only"), "{reported}");
        let reported = StallTimeout::new(Duration::from_millis(1)).next(&mut drip(1, Duration::from_secs(600))).await;
        assert!(reported.unwrap_err().contains("silent"));
    }

    #[tokio::test]
    async fn a_slow_line_that_brings_enough_lives_longer_than_the_limit() {
        let limit = Duration::from_secs(600);
        let mut timeout = StallTimeout::new(limit);
        let piece = Bytes::from(vec![0; LEAST as usize]);
        let mut pieces = stream::repeat_with(|| Ok::<_, ()>(piece.clone()));
        for _ in 0..3 {
            timeout.waited = limit - Duration::from_secs(60);
            assert!(timeout.next(&mut pieces).await.is_ok());
            assert_eq!((timeout.waited, timeout.got), (Duration::ZERO, 0));
        }
    }
}
