//! When a server stops answering, whether a registry or a server that a registry needs (`peers`), all requests to it
//! wait together, and in the end the server is given up as a whole.
//!
//! Requests that fail individually count their own tries (`retry`). This module looks at the server instead: how long
//! it has been without a successful answer, and whether one request fails or several. While several fail, all requests
//! share one schedule, so that a server that restarts gets a few requests and not a thousand. Once the retry budget is
//! used up, everything that still waits for the server fails at once, for one reason.
//!
//! If a registry answers 500 to one kind of request, or a gateway answers 502, the registry need not be down. Before
//! all requests wait on such evidence, and before the registry is given up, it is probed (`root`). While it answers the
//! probe, each request ends by its own count. Some gateways answer the probe themselves, so an answered probe does not
//! protect the registry for ever: if the budget is used up, and a request that began after others had failed for good
//! fails as they did, the registry is given up all the same.
//!
//! The probe does not count where a whole kind of request fails: no answer came, or a gateway's, or the registry has
//! never done such work in this run. Then requests continue beyond their own tries, together, until one succeeds or the
//! budget is used up.
//!
//! The budget counts only time without a successful answer, separately for each kind of request (`work`). A registry
//! that opens uploads and completes none is therefore given up too, and an answer from a cache does not show that the
//! registry is back. If no answer came, the silence is as old as the wait for it, and requests still waiting end with
//! the budget. A transfer that began before the failures and moves, however slowly, restarts the budget. A wait that
//! the server announced itself (`announced`) does not count. For a server from which nothing has come in this run, the
//! tries of one request are enough and the budget is the upper limit, because its name may be wrong.

mod announced;
mod signs;
mod silence;
mod work;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::config::{LONGEST_DELAY, RequestLimits};
use crate::base::error::{Error, Kind, Result, Stopped};
use crate::base::progress::units::duration;
use crate::base::progress::{Event, Events};

pub(super) use announced::Announced;
use announced::Waits;
pub(super) use silence::{Evidence, Next, Round, Suspicion};
use silence::{ProbeResult, Silence};
pub(super) use work::{ServerWork, Work};

/// How often a running upload is checked.
const LOOK: Duration = Duration::from_millis(100);
/// The round in which an outage is reported: a shorter one is not worth a line.
const WORTH_A_LINE: u32 = 2;
/// A wait of a single request that is shorter than this is not reported.
const SHORTEST: Duration = Duration::from_secs(1);
/// Announced waits, and waits of single requests, are reported at most once in this time: there may be very many.
const OFTEN: Duration = Duration::from_secs(30);
/// After this long without a failure or an announced wait, a silence or an announced wait is over, and another one
/// starts anew.
const FORGOTTEN: Duration = Duration::from_secs(120);
/// How long a registry that answered a probe counts as up, whatever else fails.
const BELIEVED: Duration = Duration::from_secs(30);

/// See the module documentation. Each server has one.
pub(super) struct Outage {
    /// `host[:port]`, and what the server is needed for if it is not the registry itself.
    place: String,
    limits: RequestLimits,
    events: Events,
    state: Mutex<State>,
    /// Notified when the server answers after a failure or an announced wait, or is given up.
    changed: Notify,
    /// How often that happened.
    changes: AtomicU64,
    /// Notified when an answer fails to arrive.
    silent: Notify,
    /// How many running downloads have brought something new.
    downloads: AtomicUsize,
}

/// Held by a download that has brought something new, until the download ends or is interrupted.
pub(super) struct Download(Arc<Outage>);

impl Drop for Download {
    fn drop(&mut self) {
        self.0.downloads.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct State {
    /// When the server last answered, by kind of request.
    answers: [Option<Instant>; Work::ALL.len()],
    /// When it last gave a sign of life.
    alive: Option<Instant>,
    /// When a transfer with it last made progress.
    moved: Option<Instant>,
    /// Whether it has stored something in this run.
    has_stored: bool,
    /// Whether it, or a gateway for it, has answered: then it exists.
    is_known: bool,
    silence: Option<Silence>,
    announced: Option<Waits>,
    /// When announced waits were last reported.
    reported: Option<Instant>,
    /// Whether a request was put off for longer than is allowed while others were answered.
    is_put_off: bool,
    probed: Option<ProbeResult>,
    stopped: Option<Stopped>,
    /// When a wait of a single request was last reported.
    last_report: Option<Instant>,
    /// When the next sign of life may be requested, and how many were missed since anything last came.
    next_sign: Option<Instant>,
    signs_missed: u32,
}

impl Outage {
    pub fn new(place: &str, limits: &RequestLimits, events: &Events) -> Outage {
        let (state, changed, changes, silent, downloads) = Default::default();
        let (place, limits, events) = (place.to_owned(), limits.clone(), events.clone());
        Outage { place, limits, events, state, changed, changes, silent, downloads }
    }

    /// The server as messages name it.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The server has answered a request of this kind.
    pub fn answered(&self, work: Work) {
        self.answered_at(Instant::now(), work);
    }

    pub(super) fn answered_at(&self, now: Instant, work: Work) {
        let (silence, waits, is_change) = {
            let mut state = self.state();
            (state.answers[work as usize], state.is_known, state.signs_missed) = (Some(now), true, 0);
            let was_unanswered = state.silence.as_ref().is_some_and(|silence| silence.unanswered);
            let silence = state.silence.take_if(|silence| silence.is_ended_by(work));
            // A token may come from a cache, so it does not answer another request that was put off.
            let waits = state.announced.take_if(|waits| work > Work::Token || waits.work == Work::Token);
            let is_change = was_unanswered || silence.is_some() || waits.is_some();
            (silence, waits, is_change)
        };
        if is_change {
            self.wake();
        }
        let silent = silence.filter(|silence| silence.is_reported).map(|silence| silence.rounds.since);
        let put_off = waits.filter(|waits| waits.is_reported).map(|waits| waits.began);
        if let Some(since) = silent.into_iter().chain(put_off).min() {
            let text =
                format!("{} answers again, after {}", self.place, duration(now.saturating_duration_since(since)));
            self.events.report(Event::Notice(text));
        }
    }

    /// A request for nothing in particular was answered: the server is alive, but the answers to other requests are
    /// still missing.
    pub fn is_alive(&self) {
        let mut state = self.state();
        (state.alive, state.is_known, state.signs_missed) = (Some(Instant::now()), true, 0);
        let was_unanswered = state.silence.as_mut().is_some_and(|silence| std::mem::take(&mut silence.unanswered));
        drop(state);
        if was_unanswered {
            self.wake();
        }
    }

    /// A transfer that began at `began` moves. It may still fail at its end, so this is a sign of life and not a
    /// success.
    pub fn moved(&self, began: Instant) {
        self.moved_at(Instant::now(), began);
    }

    fn moved_at(&self, now: Instant, began: Instant) {
        self.note_movement(now, |silence| silence.moved(began, now));
    }

    /// A download has brought something new.
    pub fn downloads(self: &Arc<Outage>) -> Download {
        self.downloads.fetch_add(1, Ordering::Relaxed);
        Download(self.clone())
    }

    /// A transfer of this kind has brought its share of new bytes. The budget of its kind restarts, whenever the
    /// transfer began and whatever becomes of it.
    pub fn advanced(&self, work: Work) {
        let now = Instant::now();
        self.note_movement(now, |silence| silence.advanced(work, now));
    }

    fn note_movement(&self, now: Instant, note: impl FnMut(&mut Silence)) {
        let mut state = self.state();
        (state.moved, state.is_known, state.signs_missed) = (Some(now), true, 0);
        state.silence.iter_mut().for_each(note);
        if let Some(waits) = &mut state.announced {
            waits.since = now;
        }
    }

    /// Decides what a failed request does next.
    pub fn failed(&self, suspicion: &Suspicion<'_>) -> Next {
        self.failed_at(Instant::now(), suspicion)
    }

    fn failed_at(&self, now: Instant, suspicion: &Suspicion<'_>) -> Next {
        let mut guard = self.state();
        let state = &mut *guard;
        let changes = self.changes.load(Ordering::SeqCst);
        if let Some(stopped) = &state.stopped {
            return Next::GivenUp(stopped.clone());
        }
        let (heard, work) = (state.heard(), suspicion.work);
        let proven = state.proven(work);
        // The registry has answered other requests since the gateway was asked: its answer is outdated.
        if suspicion.evidence.is_answer() && proven.is_some_and(|answer| answer > suspicion.began) {
            return suspicion.own.map_or(Next::Exhausted, Next::Alone);
        }
        state.is_known |= suspicion.evidence != Evidence::NoAnswer;
        let is_known = state.is_known;
        let probed = state.probed;
        let silence = state.noted(suspicion, &self.limits, heard, now);
        if silence.unanswered {
            self.silent.notify_waiters();
        }
        let is_plain = silence.is_plain() && !suspicion.evidence.is_answer();
        let certain = is_plain || silence.several;
        let since = if is_plain { silence.quiet_since(heard) } else { silence.failing_since(work) };
        let lasted = now.saturating_duration_since(since);
        let left = self.limits.retry_budget.map(|budget| budget.saturating_sub(lasted));
        let beyond = left.filter(|_| is_known);
        let used_up = left.is_some_and(|left| left.is_zero()) || beyond.is_none() && silence.spent.is_some();
        // While one blob arrives, the registry does deliver blobs, even if none is complete yet.
        let is_given = work == Work::Content && self.downloads.load(Ordering::Relaxed) > 0;
        let of_kind = beyond.is_some() && silence.several && !is_given && suspicion.is_of_kind(proven);
        if let Some(next) = silence.probe(probed, suspicion, used_up, of_kind, now) {
            return next;
        }
        // A request continues beyond its own tries only while a registry that has answered before is silent, or all
        // requests of the kind fail, and only if there is a budget for that.
        let is_silent = silence.admitted || heard.is_none_or(|heard| heard < suspicion.since);
        let goes_on = certain && (is_silent || of_kind);
        let own = suspicion.own.or_else(|| beyond.filter(|_| goes_on).map(|_| LONGEST_DELAY));
        // Without a budget, the tries of one request limit all, if several fail.
        let is_last = own.is_none() && beyond.is_none() && is_plain && silence.several && is_silent;
        if used_up && certain || is_last {
            let is_up = !is_plain && probed.is_some_and(|probed| probed.is_up);
            let is_heard = is_up || heard.is_some_and(|heard| heard > since);
            let does = if is_heard { work.undone() } else { "has not answered" };
            let stopped = state.stop(&self.place, used_up_by(does, lasted, suspicion.why), suspicion.is_full);
            drop(guard);
            self.wake();
            return Next::GivenUp(stopped);
        }
        let Some(own) = own else {
            if certain {
                silence.note_ended(suspicion, now);
            }
            return Next::Exhausted;
        };
        if !silence.several {
            return Next::Alone(left.filter(|_| certain).map_or(own, |left| own.min(left)));
        }
        let (delay, begun) = silence.rounds.wait(now, left);
        let is_news = silence.is_news(begun);
        drop(guard);
        if is_news {
            self.announce(suspicion.why, left);
        }
        Next::Together(Round { delay, changes })
    }

    /// Whether the server has answered anything since `then`, including a probe.
    pub fn is_up_since(&self, then: Instant) -> bool {
        let state = self.state();
        let is_up = |probed: ProbeResult| probed.is_up && probed.at >= then;
        state.heard().is_some_and(|heard| heard > then) || state.probed.is_some_and(is_up)
    }

    /// Whether the server, or a gateway for it, has answered in this run.
    pub fn is_known(&self) -> bool {
        self.state().is_known
    }

    /// Whether the server has answered anything since `then`, not counting probes.
    pub fn is_heard_since(&self, then: Instant) -> bool {
        self.state().heard().is_some_and(|heard| heard > then)
    }

    /// Whether a wait of a single request is worth a line. At most one in [`OFTEN`] is, and none while all wait.
    pub fn is_news(&self, delay: Duration) -> bool {
        let (now, mut state) = (Instant::now(), self.state());
        let is_known = delay < SHORTEST
            || state.silence.as_ref().is_some_and(|silence| silence.is_reported)
            || state.last_report.is_some_and(|last_report| now.saturating_duration_since(last_report) < OFTEN);
        if !is_known {
            state.last_report = Some(now);
        }
        !is_known
    }

    /// Whether the registry has not been probed since `then`.
    pub fn is_unprobed_since(&self, then: Instant) -> bool {
        self.state().probed.is_none_or(|probed| probed.at < then)
    }

    /// Records the result of a probe that began at `at`. A good one is not a successful answer to what was requested:
    /// the silence continues.
    pub fn note_probe(&self, at: Instant, is_up: bool) {
        self.state().probed = Some(ProbeResult { at, is_up });
    }

    /// The server has stored a blob or a manifest.
    pub fn note_stored(&self) {
        self.state().has_stored = true;
    }

    /// Whether the server has stored anything in this run.
    pub fn has_stored(&self) -> bool {
        self.state().has_stored
    }

    fn announce(&self, why: &str, left: Option<Duration>) {
        let limit = left.map_or_else(String::new, |left| format!(", for at most {}", duration(left)));
        let text = format!("{} does not answer ({why}): all requests to it wait{limit}", self.place);
        self.events.report(Event::Warning(text));
    }

    /// Returns when a request may be sent to the server.
    ///
    /// # Errors
    /// The server was given up; the error has [`Kind::Network`] and is [stopped](Error::stopped).
    pub async fn pass(&self, what: &str) -> Result<()> {
        loop {
            let changed = self.changed.notified();
            let left = {
                let state = self.state();
                if let Some(stopped) = &state.stopped {
                    return Err(given_up(what, stopped.clone()));
                }
                let now = Instant::now();
                let announced = state.announced.as_ref().map(|waits| waits.until.saturating_duration_since(now));
                let round = state.silence.as_ref().and_then(|silence| silence.rounds.left(now));
                round.or(announced.filter(|left| !left.is_zero()))
            };
            let Some(left) = left else { return Ok(()) };
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = changed => {}
            }
        }
    }

    /// Waits until the round is over, or until the registry has answered another request since the wait was decided.
    pub async fn rest(&self, round: Round) {
        let changed = self.changed.notified();
        if self.changes.load(Ordering::SeqCst) != round.changes {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(round.delay) => {}
            () = changed => {}
        }
    }

    fn wake(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outage").field(&self.place).finish()
    }
}

impl State {
    /// When anything last came from the server.
    fn heard(&self) -> Option<Instant> {
        self.answers.iter().chain([&self.alive, &self.moved]).flatten().max().copied()
    }

    /// When the server last gave an answer that proves that such requests work.
    fn proven(&self, work: Work) -> Option<Instant> {
        Work::ALL.into_iter().filter(|one| one.proves(work)).filter_map(|one| self.answers[one as usize]).max()
    }

    /// Adds this failure to the silence, and starts one if necessary.
    fn noted(
        &mut self,
        suspicion: &Suspicion<'_>,
        limits: &RequestLimits,
        heard: Option<Instant>,
        now: Instant,
    ) -> &mut Silence {
        let since = match suspicion.evidence {
            Evidence::NoAnswer => heard.map_or(suspicion.began, |heard| heard.max(suspicion.began)).min(now),
            _ => now,
        };
        // Answers to other requests do not shorten the wait for this kind. Time in which a transfer moved is not a
        // wait.
        let failing = match suspicion.evidence {
            Evidence::NoAnswer => {
                let ended = self.proven(suspicion.work).max(self.moved);
                ended.map_or(suspicion.began, |ended| ended.max(suspicion.began)).min(now)
            }
            _ => now,
        };
        self.silence.take_if(|silence| silence.is_forgotten(heard, suspicion.began));
        // A failure during an announced wait counts from the end of that wait.
        let put_off =
            self.announced.as_ref().map_or(Duration::ZERO, |waits| waits.until.saturating_duration_since(now));
        let silence = self.silence.get_or_insert_with(|| {
            let mut silence = Silence::begin(suspicion.what, since, now, limits);
            silence.put_off(put_off);
            silence
        });
        silence.note(suspicion, heard, failing + put_off, now);
        silence
    }

    fn stop(&mut self, place: &str, why: String, is_full: bool) -> Stopped {
        self.stopped.insert(Stopped { place: place.to_owned(), why, is_full }).clone()
    }
}

/// Why a server is given up that has not done something for this long.
fn used_up_by(does: &str, lasted: Duration, why: &str) -> String {
    format!("{does} for {} ({why}); gapferry sends it no more requests", duration(lasted))
}

/// The error of `what`, which was not attempted or not completed.
pub(super) fn given_up(what: &str, stopped: Stopped) -> Error {
    Error::new(Kind::Network, what).because(stopped)
}

#[cfg(test)]
mod tests;
