//! Whether a place is worth asking: one that fails again and again is left out for a while, so that a mirror that is down
//! does not cost its patience for every image.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::oci::Repository;
use crate::progress::{Event, Events};

/// Failures in a row of the network or for a limit, each after its own retries.
const MOST_FAILURES: u32 = 3;
/// How long a place is left out before one question tries it again.
const PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    why: String,
    /// No question until then.
    pause: Option<Instant>,
}

/// Why a place was not asked.
#[derive(Debug, thiserror::Error)]
#[error("left out for a while, after failing {MOST_FAILURES} times in a row, at last with: {0}")]
struct LeftOut(String);

impl Standing {
    /// # Errors
    /// The place is not to be asked now.
    pub fn check(&self, repository: &Repository) -> Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.pause {
            Some(until) if Instant::now() < until => {
                let left_out = LeftOut(state.why.clone());
                Err(Error::new(Kind::Network, format!("asking {repository}")).because(left_out))
            }
            // This question finds out; the others go on without it.
            Some(_) => {
                state.pause = Some(Instant::now() + PAUSE);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Remembers how a question to `registry` ended.
    pub fn note(&self, failure: Option<&Error>, registry: &str, events: &Events) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = failure.filter(|error| matches!(error.kind(), Kind::Network | Kind::RateLimited)) else {
            *state = State::default();
            return;
        };
        state.failures += 1;
        state.why = error.chain();
        if state.failures < MOST_FAILURES {
            return;
        }
        let news = state.pause.is_none();
        state.pause = Some(Instant::now() + PAUSE);
        drop(state);
        if news {
            let text =
                format!("{registry} failed {MOST_FAILURES} times in a row and is left out for {} s", PAUSE.as_secs());
            events.report(Event::Warning(text));
        }
    }
}

/// Whether the error only says that a place was not asked.
pub(super) fn is_left_out(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<LeftOut>())
}
