//! Bars on a terminal: one for the phase, some for blobs in transfer. Lines are printed above them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::tally::{Tally, speed};
use super::units::duration;
use super::{Event, Phase, Reporter, shown_line};
use crate::oci::Digest;

/// Maximum number of blobs with their own bar.
const BLOB_BARS: usize = 4;
/// Smaller blobs, in bytes, finish before a bar could be read.
const WORTH_A_BAR: u64 = 4 * 1024 * 1024;

pub struct Terminal {
    bars: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    main: Option<ProgressBar>,
    tally: Tally,
    /// Bytes that have moved in this phase, for the bar, which draws itself in a thread of its own.
    moved: Arc<AtomicU64>,
    blobs: HashMap<Digest, ProgressBar>,
}

impl Default for Terminal {
    fn default() -> Terminal {
        Terminal { bars: MultiProgress::new(), state: Mutex::default() }
    }
}

impl Terminal {
    /// Hides the bars while something else is printed.
    pub fn aside<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bars.suspend(print)
    }

    /// Removes the bars at the end of the job; the next output stands alone.
    pub fn clear(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.end(&self.bars);
    }

    fn say(&self, line: &str) {
        self.aside(|| eprintln_quietly(line));
    }
}

impl State {
    fn end(&mut self, bars: &MultiProgress) {
        for (_, bar) in self.blobs.drain() {
            bars.remove(&bar);
        }
        if let Some(main) = self.main.take() {
            main.finish_and_clear();
            bars.remove(&main);
        }
    }

    fn begin(&mut self, bars: &MultiProgress, phase: Phase, items: u64, bytes: u64) {
        self.end(bars);
        self.moved = Arc::default();
        let (length, style) = if bytes > 0 { (bytes, bytes_style(&self.moved)) } else { (items, items_style()) };
        if length == 0 {
            return;
        }
        let main = bars.add(ProgressBar::new(length).with_style(style).with_prefix(phase.label()));
        main.enable_steady_tick(Duration::from_millis(200));
        self.main = Some(main);
    }

    fn blob(&mut self, bars: &MultiProgress, digest: Digest, size: u64, present: u64) {
        if size < WORTH_A_BAR || self.blobs.len() >= BLOB_BARS {
            return;
        }
        let bar = bars.add(ProgressBar::new(size).with_style(blob_style()).with_prefix(digest.short()));
        bar.set_position(present);
        self.blobs.insert(digest, bar);
    }

    /// Moves the bar of the phase to what the tally says.
    fn advance(&self) {
        self.moved.store(self.tally.bytes_moved, Ordering::Relaxed);
        let done = if self.tally.bytes > 0 { self.tally.bytes_done } else { self.tally.items_done };
        self.main.iter().for_each(|main| main.set_position(done));
    }
}

impl Reporter for Terminal {
    fn report(&self, event: Event) {
        match event {
            Event::Status(text) => return self.say(&text),
            Event::Notice(text) => return self.say(&format!("note: {text}")),
            Event::Warning(text) | Event::Incomplete(text) => return self.say(&format!("warning: {text}")),
            Event::Waiting { what, why, delay } => {
                return self.say(&format!("waiting {} before {what}: {why}", duration(delay)));
            }
            Event::Http(exchange) => return self.say(&exchange.to_string()),
            _ => {}
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tally.count(&event);
        match event {
            Event::Phase { phase, items, bytes } => state.begin(&self.bars, phase, items, bytes),
            Event::BlobStarted { digest, size, present } => state.blob(&self.bars, digest, size, present),
            Event::BlobAdvanced { digest, bytes } => {
                state.blobs.get(&digest).into_iter().for_each(|bar| bar.inc(bytes));
            }
            Event::BlobRestarted { digest, .. } => {
                state.blobs.get(&digest).into_iter().for_each(|bar| bar.set_position(0));
            }
            Event::BlobFinished { digest } => {
                if let Some(bar) = state.blobs.remove(&digest) {
                    self.bars.remove(&bar);
                }
            }
            Event::ItemDone
            | Event::Failure(_)
            | Event::Status(_)
            | Event::Notice(_)
            | Event::Warning(_)
            | Event::Incomplete(_)
            | Event::Waiting { .. }
            | Event::Http(_) => {}
        }
        state.advance();
    }
}

/// If standard error is closed, there is no other place to report it.
fn eprintln_quietly(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{}", shown_line(line));
}

fn style(template: &str) -> ProgressStyle {
    // The templates below are constants; an invalid one would show as a plain bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

fn bytes_style(moved: &Arc<AtomicU64>) -> ProgressStyle {
    let moved = moved.clone();
    let speed = move |state: &ProgressState, line: &mut dyn fmt::Write| {
        let left = state.len().unwrap_or_default().saturating_sub(state.pos());
        let _ = line.write_str(&speed(moved.load(Ordering::Relaxed), left, state.elapsed()));
    };
    style("{prefix} [{wide_bar}] {binary_bytes} of {binary_total_bytes} {speed}").with_key("speed", speed)
}

fn items_style() -> ProgressStyle {
    style("{prefix} [{wide_bar}] {pos} of {len}, {eta} left")
}

fn blob_style() -> ProgressStyle {
    style("  {prefix} [{wide_bar}] {binary_bytes:>10} of {binary_total_bytes:>10}")
}
