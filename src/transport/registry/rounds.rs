//! Waiting that all requests to one server share: each round ends for all of them at the same time, and the next one is longer.

use std::time::{Duration, Instant};

use backon::ExponentialBackoff;

use super::config::{LONGEST_DELAY, RequestLimits};

/// The rounds since something went wrong.
pub(super) struct Rounds {
    pub since: Instant,
    schedule: ExponentialBackoff,
    until: Option<Instant>,
    /// How many have begun.
    pub count: u32,
}

impl Rounds {
    pub fn new(limits: &RequestLimits, now: Instant) -> Rounds {
        Rounds { since: now, schedule: limits.rounds(), until: None, count: 0 }
    }

    /// How long the present round still lasts; `None` between two rounds, when requests may be sent.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// How long to wait: until the present round ends, or for a new one, which lasts at most `most`. The second value is the number
    /// of the round that this call began, if it did.
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
