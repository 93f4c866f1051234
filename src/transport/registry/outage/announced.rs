//! Waits that a server announces itself (503 with Retry-After). They have their own limit: a server that only announces
//! waits is given up if they would last longer than `--max-wait` in all. A server that answers some requests and puts
//! others off is given up when a second request has been put off for that long.

use std::time::{Duration, Instant};

use super::{FORGOTTEN, OFTEN, Outage, WORTH_A_LINE, Work};
use crate::base::error::Stopped;
use crate::base::progress::Event;
use crate::base::progress::units::duration;

/// An announced wait shorter than this is reported only if another one follows.
const SHORT: Duration = Duration::from_secs(5);

/// The waits that a server has announced since it last answered. A token counts as an answer only if a token was
/// requested.
pub(super) struct Waits {
    pub began: Instant,
    /// The strongest kind of request that was put off.
    pub work: Work,
    /// When the limit starts to count: at the first of these waits, or when a transfer last moved.
    pub since: Instant,
    /// The latest end of a wait.
    pub until: Instant,
    /// How many waits began after another one had ended.
    rounds: u32,
    pub is_reported: bool,
}

/// What a request does after a server has announced when it will be back.
pub(in crate::transport::registry) enum Announced {
    /// The request tries again after this time.
    Wait(Duration),
    /// The request has been put off for longer than is allowed.
    Enough,
    /// The server is given up: it gets no more requests in this run.
    GivenUp(Stopped),
}

impl Outage {
    /// Decides what a request does after a server has asked it to wait for `wanted`, for the reason `why`. The request
    /// has already waited for `before`.
    pub fn announced(&self, work: Work, wanted: Duration, before: Duration, why: &str) -> Announced {
        self.announced_at(Instant::now(), work, wanted, before, why)
    }

    pub(super) fn announced_at(
        &self,
        now: Instant,
        work: Work,
        wanted: Duration,
        before: Duration,
        why: &str,
    ) -> Announced {
        let allowed = self.limits.max_wait;
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(stopped) = &state.stopped {
            return Announced::GivenUp(stopped.clone());
        }
        state.is_known = true;
        state.silence.take_if(|silence| silence.is_ended_by(work));
        state.announced.take_if(|waits| now.saturating_duration_since(waits.until) > FORGOTTEN);
        let first = Waits { began: now, work, since: now, until: now, rounds: 0, is_reported: false };
        let waits = state.announced.get_or_insert(first);
        waits.work = waits.work.max(work);
        let waited = now.saturating_duration_since(waits.since);
        let is_put_off = before.saturating_add(wanted) > allowed;
        if waited.saturating_add(wanted) > allowed || is_put_off && state.is_put_off {
            let waited = if waited.is_zero() { String::new() } else { format!(", after {}", duration(waited)) };
            let (wanted, allowed) = (duration(wanted), duration(allowed));
            let why = format!(
                "asks to wait {wanted}{waited}, but --max-wait allows only {allowed} in all; gapferry sends it no more requests: {why}"
            );
            let stopped = state.stop(&self.place, why, false);
            drop(guard);
            self.wake();
            return Announced::GivenUp(stopped);
        }
        if is_put_off {
            state.is_put_off = true;
            return Announced::Enough;
        }
        waits.rounds += u32::from(now >= waits.until);
        let until = waits.until.max(now + wanted);
        if let Some(silence) = &mut state.silence {
            silence.put_off(until.saturating_duration_since(waits.until.max(now)));
        }
        waits.until = until;
        let is_worth_it = wanted >= SHORT || waits.rounds >= WORTH_A_LINE;
        let is_news = is_worth_it
            && !waits.is_reported
            && state.reported.is_none_or(|before| now.saturating_duration_since(before) >= OFTEN);
        if is_news {
            (waits.is_reported, state.reported) = (true, Some(now));
            let (wanted, left) = (duration(wanted), duration(allowed.saturating_sub(waited)));
            drop(guard);
            let text = format!(
                "{} asks to wait {wanted} ({why}): all requests to it wait, for at most {left} in all (--max-wait)",
                self.place
            );
            self.events.report(Event::Warning(text));
        }
        Announced::Wait(wanted)
    }
}
