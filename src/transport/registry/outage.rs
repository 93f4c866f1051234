//! When a server stops answering, a registry or one that a registry needs (`peers`): every request to it waits together, and in
//! the end it is given up as a whole.
//!
//! Requests that fail one by one keep their own count of tries (`retry`). This module looks at the server instead: how
//! long it has been without a successful answer, and whether one request fails or several. While several fail, all
//! requests share one schedule, so that a server that restarts is asked a few times and not a thousand. When the retry
//! budget is used up, whatever still waits for that server fails at once, for one reason.
//!
//! A registry that answers 500, or a gateway that answers 502, for one kind of request need not be down. Before all requests
//! wait on such evidence, and before the registry is given up, it is probed (`root`). While it answers the probe, each request
//! ends by its own count. Some gateways answer the probe themselves, so that proves nothing for ever: when the budget is used
//! up and a request that began after others had failed for good fails as they did, the registry is given up all the same.
//!
//! The budget counts only time without a successful answer. A transfer that moves, however slowly, and a wait that the
//! server announced itself (503 with Retry-After) begin it anew. A server from which nothing at all has come in this run gets no
//! budget: the tries of one request are enough to notice a wrong name.
//!
//! Announced waits have a bound of their own. A server that does nothing but announce them is given up when they would last longer
//! than `--max-wait` in all, counted from the first. So is one that answers some requests and puts others off: when a second
//! request has been put off for so long.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::outflow::Watch;
use super::rounds::{LONGEST, Rounds};
use super::wire::Limits;
use crate::error::{Error, Kind, Result, Stopped};
use crate::progress::units::duration;
use crate::progress::{Event, Events};

/// How often a running upload is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The round in which an outage is reported: what passes at once is not worth a line.
const WORTH_A_LINE: u32 = 2;
/// An announced wait shorter than this is reported only if another one follows.
const SHORT: Duration = Duration::from_secs(5);
/// Announced waits are reported at most once in this time: a server may ask for a second again and again.
const OFTEN: Duration = Duration::from_secs(30);
/// When nobody was put off for so long after an announced wait, it is over: another one begins anew.
const FORGOTTEN: Duration = Duration::from_secs(120);
/// How long a registry that answered a probe counts as up, whatever else fails.
const BELIEVED: Duration = Duration::from_secs(30);

/// See the module documentation. One for each server.
pub(super) struct Outage {
    /// `host[:port]`, and what it is needed for if it is not the registry itself.
    place: String,
    limits: Limits,
    events: Events,
    state: Mutex<State>,
    /// The server answered, or was given up.
    changed: Notify,
}

#[derive(Default)]
struct State {
    last_answer: Option<Instant>,
    /// It has answered, or a gateway for it: it exists.
    is_known: bool,
    silence: Option<Silence>,
    announced: Option<Waits>,
    /// When announced waits were last reported.
    reported: Option<Instant>,
    /// A request was put off for longer than is allowed, while others were answered.
    is_put_off: bool,
    probed: Option<Probed>,
    stopped: Option<Stopped>,
    /// The request whose own wait was reported last, and when.
    spoke: Option<(String, Instant)>,
}

/// Since the last successful answer the server has announced waits.
struct Waits {
    since: Instant,
    /// The end of the longest.
    until: Instant,
    /// How many began after another one.
    rounds: u32,
    is_reported: bool,
}

/// What a request does that was told when to come back.
pub(super) enum Announced {
    /// It tries again after that.
    Wait(Duration),
    /// It has been put off for longer than is allowed.
    Enough,
    /// Nothing more is asked in this run.
    GivenUp(Stopped),
}

/// Since the last successful answer there were only failures.
struct Silence {
    /// The request that failed first.
    first: String,
    /// Another one has failed too: then it is the server, not the request.
    several: bool,
    /// One of them said more than a status does: no answer came, or the server says itself that it is down.
    is_plain: bool,
    /// When the first request used up its own tries.
    spent: Option<Instant>,
    /// How long it has lasted, and when the requests are sent again.
    rounds: Rounds,
}

/// What the last probe found.
#[derive(Clone, Copy)]
struct Probed {
    at: Instant,
    is_up: bool,
}

/// A failure that may mean that the whole registry is down.
pub(super) struct Suspicion<'a> {
    /// The request, as errors name it.
    pub what: &'a str,
    /// It asks for nothing in particular: if a gateway answers it, no other request would fare better.
    pub of_whole: bool,
    /// Why it failed.
    pub why: &'a str,
    /// When this request failed first.
    pub since: Instant,
    /// The try that failed was not made before this.
    pub began: Instant,
    /// When the try that this is about failed.
    pub at: Instant,
    pub evidence: Evidence,
    /// The next wait by the request's own count; `None` when its tries are used up.
    pub own: Option<Duration>,
}

/// What a failure says of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// No answer came at all.
    NoAnswer,
    /// It answered with an error of its own, or a gateway for it: that may be about this request alone.
    Status,
    /// It says itself that it is down.
    Admitted,
}

/// What a request does after it failed.
pub(super) enum Next {
    /// It tries again after a wait of its own.
    Alone(Duration),
    /// It tries again with all others.
    Together(Duration),
    /// Its own tries are used up.
    Exhausted,
    /// The registry has to be probed; then this is decided again.
    Unsure,
    /// Nothing more is asked in this run.
    GivenUp(Stopped),
}

impl Outage {
    pub fn new(place: &str, limits: &Limits, events: &Events) -> Outage {
        let (state, changed) = Default::default();
        Outage { place: place.to_owned(), limits: limits.clone(), events: events.clone(), state, changed }
    }

    /// The registry has answered, or a transfer with it moves.
    pub fn answered(&self) {
        let (silence, waits) = {
            let mut state = self.state();
            (state.last_answer, state.is_known) = (Some(Instant::now()), true);
            (state.silence.take(), state.announced.take())
        };
        if silence.is_none() && waits.is_none() {
            return;
        }
        self.changed.notify_waiters();
        let silent = silence.filter(|silence| silence.rounds.count >= WORTH_A_LINE).map(|silence| silence.rounds.since);
        let put_off = waits.filter(|waits| waits.is_reported).map(|waits| waits.since);
        if let Some(since) = silent.into_iter().chain(put_off).min() {
            let text = format!("{} answers again, after {}", self.place, duration(since.elapsed()));
            self.events.report(Event::Notice(text));
        }
    }

    /// Decides what a request does that was told to come back after `wanted`, and `why`; it was put off for `before` already.
    pub fn announced(&self, wanted: Duration, before: Duration, why: &str) -> Announced {
        self.announced_at(Instant::now(), wanted, before, why)
    }

    fn announced_at(&self, now: Instant, wanted: Duration, before: Duration, why: &str) -> Announced {
        let allowed = self.limits.max_wait;
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(stopped) = &state.stopped {
            return Announced::GivenUp(stopped.clone());
        }
        (state.is_known, state.silence) = (true, None);
        state.announced.take_if(|waits| now.saturating_duration_since(waits.until) > FORGOTTEN);
        let waits = state.announced.get_or_insert(Waits { since: now, until: now, rounds: 0, is_reported: false });
        let waited = now.saturating_duration_since(waits.since);
        let is_put_off = before.saturating_add(wanted) > allowed;
        if waited.saturating_add(wanted) > allowed || is_put_off && state.is_put_off {
            let waited = if waited.is_zero() { String::new() } else { format!(", after {}", duration(waited)) };
            let (wanted, allowed) = (duration(wanted), duration(allowed));
            let why = format!(
                "asks to wait {wanted}{waited}, and at most {allowed} in all are allowed (--max-wait); nothing more is asked of it: {why}"
            );
            let stopped = Stopped { place: self.place.clone(), why };
            state.stopped = Some(stopped.clone());
            drop(guard);
            self.changed.notify_waiters();
            return Announced::GivenUp(stopped);
        }
        if is_put_off {
            state.is_put_off = true;
            return Announced::Enough;
        }
        waits.rounds += u32::from(now >= waits.until);
        waits.until = waits.until.max(now + wanted);
        let is_worth_it = wanted >= SHORT || waits.rounds >= WORTH_A_LINE;
        let is_news = is_worth_it
            && !waits.is_reported
            && state.reported.is_none_or(|before| now.saturating_duration_since(before) >= OFTEN);
        if is_news {
            (waits.is_reported, state.reported) = (true, Some(now));
            let (wanted, left) = (duration(wanted), duration(allowed.saturating_sub(waited)));
            drop(guard);
            let text = format!(
                "{} asks to wait {wanted} ({why}): everything that needs it waits, for at most {left} in all (--max-wait)",
                self.place
            );
            self.events.report(Event::Warning(text));
        }
        Announced::Wait(wanted)
    }

    /// Decides what a request does that failed.
    pub fn failed(&self, suspicion: &Suspicion<'_>) -> Next {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(stopped) = &state.stopped {
            return Next::GivenUp(stopped.clone());
        }
        // The registry has answered others since the gateway was asked: its answer is old news.
        if suspicion.evidence == Evidence::Status && state.last_answer.is_some_and(|answer| answer > suspicion.began) {
            return suspicion.own.map_or(Next::Exhausted, Next::Alone);
        }
        state.is_known |= suspicion.evidence != Evidence::NoAnswer;
        let budget = self.limits.retry_budget.filter(|_| state.is_known);
        let continuous = state.last_answer.is_none_or(|answer| answer < suspicion.since);
        let silence = state.silence.get_or_insert_with(|| Silence::begin(suspicion.what, &self.limits, now));
        silence.several |= silence.first != suspicion.what
            || suspicion.of_whole && suspicion.evidence == Evidence::Status
            || suspicion.evidence == Evidence::Admitted;
        let is_plain = suspicion.evidence != Evidence::Status;
        silence.is_plain |= is_plain;
        let certain = is_plain || silence.several;
        let left = budget.map(|budget| budget.saturating_sub(now.saturating_duration_since(silence.rounds.since)));
        let used_up = left.map_or(silence.spent.is_some(), |left| left.is_zero());
        if let Some(next) = silence.probe(state.probed, suspicion, used_up, now) {
            return next;
        }
        // Beyond its own tries a request goes on only while the registry is silent, and there is a budget for that.
        let own = suspicion.own.or_else(|| left.filter(|_| certain && continuous).map(|_| LONGEST));
        // Without a budget, the tries of one request among several that fail are the measure.
        let is_last = own.is_none() && left.is_none() && is_plain && silence.several && continuous;
        if used_up && certain || is_last {
            let silent = duration(now.saturating_duration_since(silence.rounds.since));
            let why = format!("has not answered for {silent} ({}); nothing more is asked of it", suspicion.why);
            let stopped = Stopped { place: self.place.clone(), why };
            state.stopped = Some(stopped.clone());
            drop(guard);
            self.changed.notify_waiters();
            return Next::GivenUp(stopped);
        }
        let Some(own) = own else {
            if certain {
                silence.spent.get_or_insert(now);
            }
            return Next::Exhausted;
        };
        if !silence.several {
            return Next::Alone(left.map_or(own, |left| own.min(left)));
        }
        let (delay, begun) = silence.rounds.wait(now, left);
        drop(guard);
        if begun == Some(WORTH_A_LINE) {
            self.announce(suspicion.why, left);
        }
        Next::Together(delay)
    }

    /// Whether it has answered anything since `then`, a probe included.
    pub fn is_up_since(&self, then: Instant) -> bool {
        let state = self.state();
        let is_up = |probed: Probed| probed.is_up && probed.at >= then;
        state.last_answer.is_some_and(|answer| answer > then) || state.probed.is_some_and(is_up)
    }

    /// Whether a wait of the request `what`, its own, is worth a line. Of many that fail in turn, one speaks for all.
    pub fn is_worth_a_line(&self, what: &str) -> bool {
        let (now, mut state) = (Instant::now(), self.state());
        let is_known = |(other, at): &(String, Instant)| other != what && now.saturating_duration_since(*at) < OFTEN;
        if state.spoke.as_ref().is_some_and(is_known) {
            return false;
        }
        state.spoke = Some((what.to_owned(), now));
        true
    }

    /// Whether nobody has probed the registry since `then`.
    pub fn is_unprobed_since(&self, then: Instant) -> bool {
        self.state().probed.is_none_or(|probed| probed.at < then)
    }

    /// Notes what a probe that began at `at` has found. That is no successful answer to what was asked for: the silence goes on.
    pub fn note_probe(&self, at: Instant, is_up: bool) {
        self.state().probed = Some(Probed { at, is_up });
    }

    fn announce(&self, why: &str, left: Option<Duration>) {
        let limit = left.map_or_else(String::new, |left| format!(", for at most {}", duration(left)));
        let text = format!("{} does not answer ({why}): everything that needs it waits{limit}", self.place);
        self.events.report(Event::Warning(text));
    }

    /// Returns when the registry may be asked.
    ///
    /// # Errors
    /// It was given up; the error is [`Kind::Network`] and [stopped](Error::stopped).
    pub async fn pass(&self, what: &str) -> Result<()> {
        loop {
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
            match left {
                Some(left) => self.rest(left).await,
                None => return Ok(()),
            }
        }
    }

    /// Waits for `delay`, or until the registry has answered somebody else.
    pub async fn rest(&self, delay: Duration) {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.changed.notified() => {}
        }
    }

    /// Ends when the registry is given up while a request to it is still open.
    pub async fn over(&self) -> Stopped {
        loop {
            let changed = self.changed.notified();
            if let Some(stopped) = &self.state().stopped {
                return stopped.clone();
            }
            changed.await;
        }
    }

    /// Notes as long as it is polled that an upload moves. Never ends.
    pub async fn follow(&self, upload: &Watch) -> Infallible {
        let mut sent = upload.sent();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = upload.sent();
            if std::mem::replace(&mut sent, now) < now {
                self.answered();
            }
        }
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

impl Silence {
    fn begin(first: &str, limits: &Limits, now: Instant) -> Silence {
        let (several, is_plain, spent) = Default::default();
        Silence { first: first.to_owned(), several, is_plain, spent, rounds: Rounds::new(limits, now) }
    }

    /// What a probe means for a request that failed while a gateway answered all of them. `None`: the registry counts as down.
    fn probe(
        &mut self,
        probed: Option<Probed>,
        suspicion: &Suspicion<'_>,
        used_up: bool,
        now: Instant,
    ) -> Option<Next> {
        if !self.several || self.is_plain {
            return None;
        }
        let is_waiting = self.rounds.left(now).is_some();
        match probed.filter(|probed| probed.counts_for(suspicion)) {
            None if used_up || !is_waiting => return Some(Next::Unsure),
            Some(probed) if probed.is_up => {}
            _ => return None,
        }
        let began_after_others_ended = self.spent.is_some_and(|spent| spent < suspicion.since);
        match suspicion.own {
            Some(own) => Some(Next::Alone(own)),
            None if used_up && began_after_others_ended => None,
            None => {
                self.spent.get_or_insert(now);
                Some(Next::Exhausted)
            }
        }
    }
}

impl Probed {
    /// Whether it tells whether the registry was up at that failure.
    fn counts_for(&self, suspicion: &Suspicion<'_>) -> bool {
        self.at >= suspicion.at || self.is_up && self.at.elapsed() < BELIEVED
    }
}

/// `what` was not tried, or not to its end.
pub(super) fn given_up(what: &str, stopped: Stopped) -> Error {
    Error::new(Kind::Network, what).because(stopped)
}

#[cfg(test)]
mod tests;
