//! Waits that all requests to one server share: each round ends for all of them at the same time, and the next round is
//! longer.

use std::time::{Duration, Instant};

use backon::ExponentialBackoff;

use super::config::{LONGEST_DELAY, RequestLimits};

/// The rounds since the first failure.
pub(super) struct Rounds {
    pub since: Instant,
    schedule: ExponentialBackoff,
    until: Option<Instant>,
    /// Number of rounds that have begun.
    pub count: u32,
}

impl Rounds {
    pub fn new(limits: &RequestLimits, now: Instant) -> Rounds {
        Rounds { since: now, schedule: limits.rounds(), until: None, count: 0 }
    }

    /// Returns how long the current round still lasts, or `None` between rounds, when requests may be sent.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// Returns how long to wait: until the current round ends, or for a new round, which lasts at most `most`. The
    /// second value is the number of the round if this call started one.
    pub fn wait(&mut self, now: Instant, most: Option<Duration>) -> (Duration, Option<u32>) {
        if let Some(left) = self.left(now) {
            return (left, None);
        }
        let next = self.schedule.next().unwrap_or(LONGEST_DELAY);
        let delay = most.map_or(next, |most| next.min(most));
        self.until = Some(now + delay);
        self.count += 1;
        (delay, Some(self.count))
    }
}
