//! Plain lines on standard error, for logs: each phase, its progress from time to time, and messages.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::tally::{Tally, speed};
use super::units::{bytes, count, duration};
use super::{Event, Phase, Reporter, shown_line};

/// Interval between progress lines of a long phase.
const EVERY: Duration = Duration::from_secs(10);

pub struct Lines {
    quiet: bool,
    state: Mutex<State>,
}

struct State {
    tally: Tally,
    last: Instant,
    began: Instant,
}

impl Lines {
    /// With `quiet`, prints only warnings and waits.
    pub fn new(quiet: bool) -> Lines {
        let now = Instant::now();
        Lines { quiet, state: Mutex::new(State { tally: Tally::default(), last: now, began: now }) }
    }
}

impl Reporter for Lines {
    fn report(&self, event: Event) {
        let line = match &event {
            _ if self.quiet && !event.is_urgent() => None,
            Event::Status(text) => Some(text.clone()),
            Event::Notice(text) => Some(format!("note: {text}")),
            Event::Warning(text) | Event::Incomplete(text) => Some(format!("warning: {text}")),
            Event::Waiting { what, why, delay } => Some(format!("waiting {} before {what}: {why}", duration(*delay))),
            // Requested by an option of its own.
            Event::Http(exchange) => Some(exchange.to_string()),
            _ => None,
        };
        let progress = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.tally.count(&event) {
                (state.last, state.began) = (Instant::now(), Instant::now());
                opening(&state.tally)
            } else if state.last.elapsed() >= EVERY {
                state.last = Instant::now();
                Some(status(&state.tally, state.began.elapsed()))
            } else {
                None
            }
        };
        let progress = progress.filter(|_| !self.quiet);
        for line in line.into_iter().chain(progress) {
            // If standard error is closed, there is no other place to report it.
            let _ = writeln!(std::io::stderr().lock(), "{}", shown_line(&line));
        }
    }
}

/// The size of a phase at its start; short phases do not get a line.
fn opening(tally: &Tally) -> Option<String> {
    let phase = tally.phase?;
    let items = |what: &str| count(usize::try_from(tally.items).unwrap_or(usize::MAX), what);
    let what = match phase {
        Phase::Resolve | Phase::Publish | Phase::Sync | Phase::Inventory => return None,
        Phase::Walk => format!("of {}", items("image")),
        Phase::Recheck | Phase::Transfer => format!("{}, {}", items("blob"), bytes(tally.bytes)),
        Phase::Verify => format!("{}, {}", items("file"), bytes(tally.bytes)),
    };
    (tally.items > 0).then(|| format!("{} {what}", phase.label()))
}

fn status(tally: &Tally, elapsed: Duration) -> String {
    let label = tally.phase.map_or("working", Phase::label);
    let items = format!("{} of {}", tally.items_done, tally.items);
    if tally.bytes == 0 {
        return format!("{label}: {items}");
    }
    let speed = speed(tally.bytes_moved, tally.bytes.saturating_sub(tally.bytes_done), elapsed);
    let comma = if speed.is_empty() { "" } else { ", " };
    format!("{label}: {items}, {} of {}{comma}{speed}", bytes(tally.bytes_done), bytes(tally.bytes))
}
