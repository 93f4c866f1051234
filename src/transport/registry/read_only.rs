//! A registry that accepts no changes for a while (Harbor's read-only mode, which an administrator or its own quota
//! check sets). All requests that would change it wait together until the mode ends, and no longer than the user
//! allows. Then the refusal counts.
//!
//! If the registry accepts a change after a refusal, the refusal may be outdated, so its request is sent again at once,
//! but only once. If two of Harbor's cores disagree, changes succeed all the time next to refusals: such a request then
//! waits like any other.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::config::RequestLimits;
use super::rounds::Rounds;
use crate::base::error::{Error, Result};
use crate::base::progress::units::duration;
use crate::base::progress::{Event, Events};

/// The mode is reported at most once in this time: between two of Harbor's cores that disagree, it may begin and end
/// every second.
const OFTEN: Duration = Duration::from_secs(30);

/// See the module documentation. Each registry has one.
pub(super) struct ReadOnly {
    /// `host[:port]`.
    registry: String,
    limits: RequestLimits,
    events: Events,
    state: Mutex<State>,
    /// Notified when the registry accepts changes again.
    ended: Notify,
}

/// How long one request has waited so far.
#[derive(Default)]
pub(super) struct Waited {
    /// When it was first refused.
    since: Option<Instant>,
    /// Whether it was sent again at once because the refusal might have been outdated.
    at_once: bool,
}

#[derive(Default)]
struct State {
    rounds: Option<Rounds>,
    /// When the mode was last reported.
    reported: Option<Instant>,
    /// When the registry last accepted a change.
    taken: Option<Instant>,
    /// Whether the time is up: nothing waits any more.
    is_over: bool,
}

impl ReadOnly {
    pub fn new(registry: &str, limits: &RequestLimits, events: &Events) -> ReadOnly {
        let (state, ended) = Default::default();
        ReadOnly { registry: registry.to_owned(), limits: limits.clone(), events: events.clone(), state, ended }
    }

    /// Waits, after the registry answered a request with `refusal`, until that request may be sent again. The request
    /// was not sent before `began`, and has `waited` so far.
    ///
    /// # Errors
    /// `refusal`, if the time is up.
    pub async fn wait(&self, began: Instant, waited: &mut Waited, refusal: Error) -> Result<()> {
        let ended = self.ended.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        let Some(delay) = self.delay(began, waited, &refusal) else { return Err(refusal) };
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = ended => {}
        }
        Ok(())
    }

    /// Returns how long to wait, or `None` if the time is up.
    fn delay(&self, began: Instant, waited: &mut Waited, refusal: &Error) -> Option<Duration> {
        let now = Instant::now();
        let mut guard = self.state();
        let State { rounds, reported, taken, is_over } = &mut *guard;
        // The registry has accepted another change since: the refusal may be outdated.
        if taken.is_some_and(|taken| taken > began) && !std::mem::replace(&mut waited.at_once, true) {
            return Some(Duration::ZERO);
        }
        let left = |since: Instant| self.limits.max_wait.saturating_sub(now.saturating_duration_since(since));
        let own = left(*waited.since.get_or_insert(now));
        let rounds = rounds.get_or_insert_with(|| Rounds::new(&self.limits, now));
        *is_over |= left(rounds.since).is_zero();
        let left = left(rounds.since).min(own);
        if *is_over || left.is_zero() {
            return None;
        }
        let (delay, begun) = rounds.wait(now, Some(left));
        let is_news = begun == Some(1) && reported.is_none_or(|before| now.saturating_duration_since(before) >= OFTEN);
        if is_news {
            *reported = Some(now);
        }
        drop(guard);
        if is_news {
            let (registry, left, why) = (&self.registry, duration(left), refusal.chain());
            let text =
                format!("{registry} is in read-only mode: waiting up to {left} (--max-wait) for it to end: {why}");
            self.events.report(Event::Warning(text));
        }
        Some(delay)
    }

    /// Records that the registry accepted a change that was sent at that time. A change that was under way when the
    /// mode began proves nothing.
    pub fn lifted(&self, sent: Instant) {
        let (ended, is_news) = {
            let mut state = self.state();
            state.taken = Some(Instant::now());
            let ended = state.rounds.take_if(|rounds| rounds.since <= sent);
            let is_news = ended.as_ref().is_some_and(|rounds| state.reported.is_some_and(|at| at >= rounds.since));
            (ended, is_news)
        };
        let Some(rounds) = ended else { return };
        self.ended.notify_waiters();
        if is_news {
            let text = format!("{} accepts changes again, after {}", self.registry, duration(rounds.since.elapsed()));
            self.events.report(Event::Notice(text));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    use futures_util::FutureExt;

    use crate::base::error::Kind;
    use crate::base::progress::Recorder;

    fn mode(max_wait: Duration, first_delay: Duration) -> (Arc<ReadOnly>, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        let events: Events = recorder.clone();
        let limits = RequestLimits { max_wait, first_delay, ..RequestLimits::default() };
        (Arc::new(ReadOnly::new("h.io", &limits, &events)), recorder)
    }

    fn refusal() -> Error {
        Error::new(Kind::Refused, "uploading: 403")
    }

    #[tokio::test]
    async fn all_wait_together_and_continue_when_it_has_passed() {
        let long = Duration::from_secs(600);
        let (mode, events) = mode(long, long);
        let before = Instant::now();
        let waiting = || {
            let mode = mode.clone();
            Box::pin(async move { mode.wait(Instant::now(), &mut Waited::default(), refusal()).await })
        };
        let (mut one, mut other) = (waiting(), waiting());
        assert!(one.as_mut().now_or_never().is_none() && other.as_mut().now_or_never().is_none());
        mode.lifted(before);
        assert!(one.as_mut().now_or_never().is_none(), "that was on its way before");
        assert!(mode.wait(before, &mut Waited::default(), refusal()).await.is_ok(), "a refusal that arrives late");
        mode.lifted(Instant::now());
        assert!(one.await.is_ok() && other.await.is_ok());
        let reported: Vec<String> = events.events().iter().map(|event| format!("{event:?}")).collect();
        assert_eq!(reported.len(), 2, "{reported:?}");
        assert!(reported[0].contains("read-only mode") && reported[1].contains("again"), "{reported:?}");
    }

    #[tokio::test]
    async fn a_mode_that_lasts_is_asked_about_again_and_reported_once() {
        let (mode, events) = mode(Duration::from_secs(600), Duration::from_millis(1));
        for _ in 0..3 {
            assert!(mode.wait(Instant::now(), &mut Waited::default(), refusal()).await.is_ok());
        }
        assert_eq!(events.events().len(), 1);
    }

    #[tokio::test]
    async fn when_the_time_is_up_the_refusal_counts_for_all() {
        let (mode, events) = mode(Duration::ZERO, Duration::from_millis(1));
        for _ in 0..2 {
            let refused = mode.wait(Instant::now(), &mut Waited::default(), refusal()).await;
            assert_eq!(refused.unwrap_err().to_string(), refusal().to_string());
        }
        assert!(events.events().is_empty(), "nothing is waited for");
    }

    #[tokio::test]
    async fn where_two_cores_differ_one_request_does_not_go_on_for_ever() {
        let (mode, events) = mode(Duration::from_millis(50), Duration::from_millis(1));
        let (mut waited, mut tries) = (Waited::default(), 0);
        loop {
            let began = Instant::now();
            // Meanwhile the other core accepts changes.
            mode.lifted(began);
            match mode.wait(began, &mut waited, refusal()).await {
                Ok(()) => tries += 1,
                Err(_) => break,
            }
            assert!(tries < 100, "each time at once, or a round of its own");
        }
        assert!(tries > 1);
        mode.lifted(Instant::now());
        let other = mode.wait(Instant::now(), &mut Waited::default(), refusal()).await;
        assert!(other.is_ok(), "the others are not given up for it");
        assert!(events.events().len() <= 2, "{:?}", events.events());
    }
}
