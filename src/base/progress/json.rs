//! One JSON object per line on standard error, for programs that read logs.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::tally::Tally;
use super::{Event, Reporter, shown_json};

/// Interval between progress lines of a phase.
const EVERY: Duration = Duration::from_secs(1);

pub struct Json {
    quiet: bool,
    state: Mutex<(Tally, Instant)>,
}

impl Json {
    /// With `quiet`, prints only warnings, failures and waits.
    pub fn new(quiet: bool) -> Json {
        Json { quiet, state: Mutex::new((Tally::default(), Instant::now())) }
    }
}

impl Reporter for Json {
    fn report(&self, event: Event) {
        let progress = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.0.count(&event);
            let due = state.1.elapsed() >= EVERY;
            if due {
                state.1 = Instant::now();
            }
            due.then(|| {
                let Tally { phase, items, items_done, bytes, bytes_done, bytes_moved } = &state.0;
                let phase = phase.map(super::Phase::label);
                json!({ "event": "progress", "phase": phase, "items": items, "itemsDone": items_done,
                        "bytes": bytes, "bytesDone": bytes_done, "bytesMoved": bytes_moved })
            })
        };
        let described = described(&event).filter(|_| !self.quiet || event.is_urgent());
        let progress = progress.filter(|_| !self.quiet);
        for line in described.into_iter().chain(progress) {
            // If standard error is closed, there is no other place to report it.
            let _ = writeln!(std::io::stderr().lock(), "{}", shown_json(line));
        }
    }
}

fn described(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Phase { phase, items, bytes } => {
            json!({ "event": "phase", "phase": phase.label(), "items": items, "bytes": bytes })
        }
        Event::BlobStarted { digest, size, present } => {
            json!({ "event": "blob-started", "digest": digest, "size": size, "present": present })
        }
        Event::BlobRestarted { digest, .. } => json!({ "event": "blob-restarted", "digest": digest }),
        Event::BlobFinished { digest } => json!({ "event": "blob-finished", "digest": digest }),
        Event::Status(text) | Event::Notice(text) => json!({ "event": "notice", "text": text }),
        Event::Warning(text) => json!({ "event": "warning", "text": text }),
        Event::Incomplete(text) => json!({ "event": "warning", "text": text, "incomplete": true }),
        Event::Failure(text) => json!({ "event": "failure", "text": text }),
        Event::Waiting { what, why, delay } => {
            json!({ "event": "waiting", "what": what, "why": why, "seconds": delay.as_secs_f64() })
        }
        Event::Http(exchange) => exchange.to_json(),
        Event::ItemDone | Event::BlobAdvanced { .. } => return None,
    })
}
