//! Progress of a phase, counted from events; shared by all renderers.

use std::time::Duration;

use super::units::{bytes, duration};
use super::{Event, Phase};

#[derive(Debug, Default)]
pub struct Tally {
    pub phase: Option<Phase>,
    pub items: u64,
    pub items_done: u64,
    pub bytes: u64,
    /// Bytes that are in place, however they got there.
    pub bytes_done: u64,
    /// Bytes that moved in this run: those of an earlier run are not part of its speed.
    pub bytes_moved: u64,
}

impl Tally {
    /// Counts one event. Returns `true` if it started another phase.
    pub fn count(&mut self, event: &Event) -> bool {
        match event {
            Event::Phase { phase, items, bytes } => {
                *self = Tally { phase: Some(*phase), items: *items, bytes: *bytes, ..Tally::default() };
                return true;
            }
            Event::ItemDone => self.items_done += 1,
            Event::BlobStarted { present, .. } => self.bytes_done = self.bytes_done.saturating_add(*present),
            Event::BlobAdvanced { bytes, .. } => {
                self.bytes_done = self.bytes_done.saturating_add(*bytes);
                self.bytes_moved = self.bytes_moved.saturating_add(*bytes);
            }
            Event::BlobRestarted { bytes, .. } => self.bytes_done = self.bytes_done.saturating_sub(*bytes),
            Event::BlobFinished { .. }
            | Event::Status(_)
            | Event::Notice(_)
            | Event::Warning(_)
            | Event::Incomplete(_)
            | Event::Failure(_)
            | Event::Waiting { .. }
            | Event::Http(_) => {}
        }
        false
    }
}

/// The speed of a phase and what it has left: `12 MiB/s, 40 s left`. Empty until something has moved.
pub fn speed(moved: u64, left: u64, elapsed: Duration) -> String {
    let rate = moved as f64 / elapsed.as_secs_f64().max(0.001);
    if rate < 1.0 {
        return String::new();
    }
    let seconds = (left as f64 / rate).min(MOST_SECONDS);
    format!("{}/s, {} left", bytes(rate as u64), duration(Duration::from_secs(seconds.ceil() as u64)))
}

/// A year: more is not worth a number.
const MOST_SECONDS: f64 = 365.0 * 24.0 * 3600.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    /// After an interruption, bars would promise an end that the network cannot keep.
    #[test]
    fn what_an_earlier_run_left_counts_as_done_but_not_as_speed() {
        let digest = Digest::sha256(b"");
        let mut tally = Tally::default();
        tally.count(&Event::Phase { phase: Phase::Transfer, items: 2, bytes: 3000 });
        tally.count(&Event::BlobStarted { digest, size: 2000, present: 1000 });
        tally.count(&Event::BlobAdvanced { digest, bytes: 500 });
        assert_eq!((tally.bytes_done, tally.bytes_moved), (1500, 500));
        assert_eq!(speed(tally.bytes_moved, 1500, Duration::from_secs(1)), "500 B/s, 3.0 s left");
        assert_eq!(speed(0, 1500, Duration::from_secs(1)), "");
    }
}
