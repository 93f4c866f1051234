//! When a registry takes no change for now (Harbor's read-only mode, which an administrator or its own check of quotas sets):
//! whatever would change it waits together until that has passed, and not longer than the user allows.
//!
//! There is nothing that every account may ask, so one request is made again and again, ever more rarely, and all others wait
//! for what becomes of it. When the time is up, the refusal counts.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backon::ExponentialBackoff;
use tokio::sync::Notify;

use super::retry::patience;
use super::wire::Limits;
use crate::error::{Error, Result};
use crate::progress::units::duration;
use crate::progress::{Event, Events};

/// The longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(30);

/// See the module documentation. One for each registry that is spoken to.
pub(super) struct ReadOnly {
    /// `host[:port]`.
    registry: String,
    limits: Limits,
    events: Events,
    state: Mutex<State>,
    /// It has passed, the time is up, or another request has to try.
    changed: Notify,
}

#[derive(Default)]
struct State {
    begun: Option<Begun>,
    /// The time is up: nothing waits any more.
    is_over: bool,
}

struct Begun {
    since: Instant,
    backoff: ExponentialBackoff,
    /// A request is made again and again, for all.
    is_tried: bool,
}

enum Turn {
    Try(Duration),
    Wait,
    Over,
}

impl ReadOnly {
    pub fn new(registry: &str, limits: &Limits, events: &Events) -> ReadOnly {
        let (state, changed) = Default::default();
        ReadOnly { registry: registry.to_owned(), limits: limits.clone(), events: events.clone(), state, changed }
    }

    /// A request that `refusal` was the answer to waits until it is worth making again. `tries`: it is the one that is made for
    /// all; such a request calls [`ReadOnly::leave`] at its end.
    ///
    /// # Errors
    /// `refusal`, when the time is up.
    pub async fn wait(&self, tries: &mut bool, refusal: Error) -> Result<()> {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        match self.turn(tries, &refusal) {
            Turn::Over => return Err(refusal),
            Turn::Try(delay) => tokio::time::sleep(delay).await,
            Turn::Wait => {
                changed.await;
                if self.state().is_over {
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    fn turn(&self, tries: &mut bool, refusal: &Error) -> Turn {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.is_over {
            return Turn::Over;
        }
        let is_news = state.begun.is_none();
        let begun = state.begun.get_or_insert_with(|| Begun {
            since: Instant::now(),
            backoff: patience(&self.limits),
            is_tried: false,
        });
        let left = self.limits.max_wait.saturating_sub(begun.since.elapsed());
        if left.is_zero() {
            state.is_over = true;
            drop(guard);
            self.changed.notify_waiters();
            return Turn::Over;
        }
        if begun.is_tried && !*tries {
            return Turn::Wait;
        }
        (begun.is_tried, *tries) = (true, true);
        let delay = begun.backoff.next().unwrap_or(LONGEST).min(left);
        drop(guard);
        if is_news {
            let (registry, left, why) = (&self.registry, duration(left), refusal.chain());
            let text =
                format!("{registry} is in read-only mode: waiting up to {left} (--max-wait) for it to end: {why}");
            self.events.report(Event::Warning(text));
        }
        Turn::Try(delay)
    }

    /// The registry has taken a change that was sent at that time. One that was on its way when the mode began proves nothing.
    pub fn lifted(&self, sent: Instant) {
        let begun = self.state().begun.take_if(|begun| begun.since <= sent);
        let Some(begun) = begun else { return };
        self.changed.notify_waiters();
        let text = format!("{} takes changes again, after {}", self.registry, duration(begun.since.elapsed()));
        self.events.report(Event::Notice(text));
    }

    /// The request that was made for all is not made any more.
    pub fn leave(&self) {
        if let Some(begun) = &mut self.state().begun {
            begun.is_tried = false;
        }
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    use crate::error::Kind;
    use crate::progress::Recorder;
    use std::sync::Arc;

    fn mode(max_wait: Duration) -> (Arc<ReadOnly>, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        let events: Events = recorder.clone();
        let limits = Limits { max_wait, first_delay: Duration::from_millis(1), ..Limits::default() };
        (Arc::new(ReadOnly::new("h.io", &limits, &events)), recorder)
    }

    fn refusal() -> Error {
        Error::new(Kind::Refused, "uploading: 403")
    }

    #[tokio::test]
    async fn one_request_tries_for_all_and_all_go_on_when_it_has_passed() {
        let (mode, events) = mode(Duration::from_secs(600));
        let before = Instant::now();
        let (mut one, mut other) = (false, false);
        for _ in 0..3 {
            assert!(mode.wait(&mut one, refusal()).await.is_ok());
        }
        let mut waiting = Box::pin(mode.wait(&mut other, refusal()));
        assert!(waiting.as_mut().now_or_never().is_none());
        mode.lifted(before);
        assert!(waiting.as_mut().now_or_never().is_none(), "that was on its way before");
        mode.lifted(Instant::now());
        mode.leave();
        assert!(waiting.await.is_ok());
        assert!(one && !other);
        let told: Vec<String> = events.events().iter().map(|event| format!("{event:?}")).collect();
        assert!(told.len() == 2 && told[0].contains("read-only mode") && told[1].contains("again"), "{told:?}");
    }

    #[tokio::test]
    async fn when_the_one_that_tries_ends_another_takes_its_place() {
        let (mode, _) = mode(Duration::from_secs(600));
        let (mut one, mut other) = (false, false);
        assert!(mode.wait(&mut one, refusal()).await.is_ok());
        mode.leave();
        assert!(mode.wait(&mut other, refusal()).await.is_ok() && other);
    }

    #[tokio::test]
    async fn when_the_time_is_up_the_refusal_counts_for_all() {
        let (mode, events) = mode(Duration::ZERO);
        for _ in 0..2 {
            assert!(mode.wait(&mut false, refusal()).await.unwrap_err().to_string().contains("403"));
        }
        assert!(events.events().is_empty(), "nothing is waited for");
    }
}
