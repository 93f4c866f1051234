//! Whether a mirror is worth asking. One that fails repeatedly is left out for a while, so that not every image waits
//! for a mirror that is down. The same happens to one that repeatedly gives wrong bytes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Events};
use crate::oci::Repository;

/// How many times in a row a mirror may fail, by the network or by a rate limit, each time after its own retries. Wrong
/// blobs are counted in all.
const MOST_FAILURES: u32 = 3;
/// How long a mirror is left out before one request tries it again.
const PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct CircuitBreaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Failures in a row.
    failures: u32,
    /// Wrong blobs in all. Opening other blobs successfully does not reset this count.
    wrong: u32,
    why: String,
    /// The mirror is not asked before this time.
    pause: Option<Instant>,
}

/// Why a mirror was not asked.
#[derive(Debug, thiserror::Error)]
#[error("left out for a while after {MOST_FAILURES} failures, the last one: {0}")]
struct LeftOut(String);

impl CircuitBreaker {
    /// # Errors
    /// The mirror must not be asked now.
    pub fn check(&self, repository: &Repository) -> Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.pause {
            Some(until) if Instant::now() < until => {
                let left_out = LeftOut(state.why.clone());
                Err(Error::new(Kind::Network, format!("asking {repository}")).because(left_out))
            }
            // This request tries the mirror; the others go on without it.
            Some(_) => {
                state.pause = Some(Instant::now() + PAUSE);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Records how a request to `registry` ended.
    pub fn note(&self, failure: Option<&Error>, registry: &str, events: &Events) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = failure.filter(|error| matches!(error.kind(), Kind::Network | Kind::RateLimited)) else {
            state.failures = 0;
            if state.wrong < MOST_FAILURES {
                state.pause = None;
            }
            return;
        };
        state.failures += 1;
        if state.failures >= MOST_FAILURES {
            leave_out(state, error, &format!("{registry} failed {MOST_FAILURES} times in a row"), events);
        }
    }

    /// Records a wrong blob from `registry`.
    pub fn gave_wrong(&self, error: &Error, registry: &str, events: &Events) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.wrong += 1;
        if state.wrong >= MOST_FAILURES {
            leave_out(state, error, &format!("{registry} gave wrong bytes {MOST_FAILURES} times"), events);
        }
    }
}

fn leave_out(mut state: MutexGuard<'_, State>, error: &Error, what: &str, events: &Events) {
    state.why = error.chain();
    let news = state.pause.is_none();
    state.pause = Some(Instant::now() + PAUSE);
    drop(state);
    if news {
        events.report(Event::Warning(format!("{what} and is left out for {} s", PAUSE.as_secs())));
    }
}

/// Whether the error only means that a mirror was not asked.
pub(super) fn is_left_out(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<LeftOut>())
}
