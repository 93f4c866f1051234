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
//! server announced itself (Retry-After) begin it anew. A server from which nothing at all has come in this run gets no budget:
//! the tries of one request are enough to notice a wrong name.

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
    probed: Option<Probed>,
    stopped: Option<Stopped>,
}

/// Since the last successful answer there were only failures.
struct Silence {
    /// The request that failed first.
    first: String,
    /// Another one has failed too: then it is the server, not the request.
    several: bool,
    /// No answer at all came to one of them.
    no_answer: bool,
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
    /// No answer came at all; otherwise a gateway answered for the registry.
    pub no_answer: bool,
    /// The next wait by the request's own count; `None` when its tries are used up.
    pub own: Option<Duration>,
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
        let ended = {
            let mut state = self.state();
            (state.last_answer, state.is_known) = (Some(Instant::now()), true);
            state.silence.take()
        };
        let Some(silence) = ended else { return };
        self.changed.notify_waiters();
        if silence.rounds.count >= WORTH_A_LINE {
            let text = format!("{} answers again, after {}", self.place, duration(silence.rounds.since.elapsed()));
            self.events.report(Event::Notice(text));
        }
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
        if !suspicion.no_answer && state.last_answer.is_some_and(|answer| answer > suspicion.began) {
            return suspicion.own.map_or(Next::Exhausted, Next::Alone);
        }
        state.is_known |= !suspicion.no_answer;
        let budget = self.limits.retry_budget.filter(|_| state.is_known);
        let continuous = state.last_answer.is_none_or(|answer| answer < suspicion.since);
        let silence = state.silence.get_or_insert_with(|| Silence::begin(suspicion.what, &self.limits, now));
        silence.several |= silence.first != suspicion.what || suspicion.of_whole && !suspicion.no_answer;
        silence.no_answer |= suspicion.no_answer;
        let certain = suspicion.no_answer || silence.several;
        let left = budget.map(|budget| budget.saturating_sub(now.saturating_duration_since(silence.rounds.since)));
        let used_up = left.map_or(silence.spent.is_some(), |left| left.is_zero());
        if let Some(next) = silence.probe(state.probed, suspicion, used_up, now) {
            return next;
        }
        // Beyond its own tries a request goes on only while the registry is silent, and there is a budget for that.
        let own = suspicion.own.or_else(|| left.filter(|_| certain && continuous).map(|_| LONGEST));
        // Without a budget, the tries of one request among several that fail are the measure.
        let is_last = own.is_none() && left.is_none() && suspicion.no_answer && silence.several && continuous;
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
                state.silence.as_ref().and_then(|silence| silence.rounds.left(Instant::now()))
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
        let (several, no_answer, spent) = Default::default();
        Silence { first: first.to_owned(), several, no_answer, spent, rounds: Rounds::new(limits, now) }
    }

    /// What a probe means for a request that failed while a gateway answered all of them. `None`: the registry counts as down.
    fn probe(
        &mut self,
        probed: Option<Probed>,
        suspicion: &Suspicion<'_>,
        used_up: bool,
        now: Instant,
    ) -> Option<Next> {
        if !self.several || self.no_answer {
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
mod tests {
    use super::*;
    use crate::progress::Recorder;
    use std::sync::Arc;

    fn outage(retries: u32, retry_budget: Option<Duration>) -> (Outage, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        let events: Events = recorder.clone();
        let first_delay = Duration::from_millis(1);
        (
            Outage::new("r.io:5000", &Limits { retries, retry_budget, first_delay, ..Limits::default() }, &events),
            recorder,
        )
    }

    fn fail(outage: &Outage, what: &str, no_answer: bool, own: bool) -> Next {
        fail_since(outage, what, Instant::now(), no_answer, own)
    }

    fn fail_since(outage: &Outage, what: &str, since: Instant, no_answer: bool, own: bool) -> Next {
        let own = own.then_some(Duration::from_millis(1));
        let now = Instant::now();
        outage.failed(&Suspicion { what, of_whole: false, why: "refused", since, began: now, at: now, no_answer, own })
    }

    #[test]
    fn one_request_that_fails_does_not_make_the_others_wait() {
        let (outage, events) = outage(5, Some(Duration::from_secs(100)));
        outage.answered();
        for _ in 0..3 {
            assert!(matches!(fail(&outage, "a", true, true), Next::Alone(_)));
        }
        assert!(matches!(fail(&outage, "a", false, false), Next::Exhausted), "a gateway's 502 for one manifest");
        assert!(events.events().is_empty());
    }

    #[test]
    fn when_several_fail_all_wait_together_and_one_line_says_so() {
        let (outage, events) = outage(5, Some(Duration::from_secs(100)));
        outage.answered();
        assert!(matches!(fail(&outage, "a", true, true), Next::Alone(_)));
        // Several rounds of a millisecond or so, until it is worth a line, and some more.
        let round = || {
            for what in ["b", "a", "c", "b"] {
                assert!(matches!(fail(&outage, what, true, false), Next::Together(_)), "{what}");
            }
        };
        while events.events().is_empty() {
            round();
        }
        (0..100).for_each(|_| round());
        outage.answered();
        let told: Vec<String> = events.events().iter().map(|event| format!("{event:?}")).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].contains("r.io:5000 does not answer (refused)") && told[1].contains("answers again"),
            "{told:?}"
        );
    }

    #[test]
    fn an_empty_budget_ends_it_for_all() {
        let (outage, _) = outage(5, Some(Duration::ZERO));
        outage.answered();
        assert!(matches!(fail(&outage, "a", true, true), Next::GivenUp(_)));
        assert!(matches!(fail(&outage, "b", false, true), Next::GivenUp(_)));
    }

    #[test]
    fn a_registry_that_was_never_heard_has_the_tries_of_one_request() {
        let (outage, _) = outage(1, Some(Duration::from_secs(100)));
        assert!(matches!(fail(&outage, "a", true, true), Next::Alone(_)));
        assert!(matches!(fail(&outage, "a", true, false), Next::Exhausted));
        assert!(matches!(fail(&outage, "b", true, true), Next::GivenUp(_)), "the others need not find out again");
    }

    #[test]
    fn a_request_that_failed_before_the_last_answer_ends_by_its_own_count() {
        let (outage, _) = outage(1, Some(Duration::from_secs(100)));
        let since = Instant::now();
        outage.answered();
        let now = Instant::now();
        let suspicion = Suspicion {
            what: "a",
            of_whole: false,
            why: "reset",
            since,
            began: now,
            at: now,
            no_answer: true,
            own: None,
        };
        assert!(matches!(outage.failed(&suspicion), Next::Exhausted));
    }

    #[test]
    fn a_gateways_answers_that_arrive_late_are_no_news_of_a_registry_that_answers() {
        let (outage, events) = outage(5, Some(Duration::ZERO));
        let began = Instant::now();
        outage.answered();
        for what in ["a", "b", "c"] {
            let own = Some(Duration::from_millis(1));
            let late = Suspicion {
                what,
                of_whole: false,
                why: "502",
                since: began,
                began,
                at: Instant::now(),
                no_answer: false,
                own,
            };
            assert!(matches!(outage.failed(&late), Next::Alone(_)), "{what}");
        }
        assert!(events.events().is_empty());
        assert!(matches!(fail(&outage, "d", true, true), Next::GivenUp(_)), "what was asked later is");
    }

    #[test]
    fn while_a_gateway_answers_the_probe_decides() {
        let (outage, events) = outage(5, Some(Duration::from_secs(100)));
        outage.answered();
        assert!(matches!(fail(&outage, "a", false, true), Next::Alone(_)), "one alone says nothing");
        assert!(matches!(fail(&outage, "b", false, true), Next::Unsure));
        let failed = Instant::now();
        assert!(outage.is_unprobed_since(failed));
        outage.note_probe(Instant::now(), true);
        assert!(!outage.is_unprobed_since(failed));
        assert!(matches!(fail(&outage, "b", false, true), Next::Alone(_)));
        assert!(matches!(fail(&outage, "a", false, false), Next::Exhausted), "by its own count");
        outage.note_probe(Instant::now(), false);
        let down = Suspicion {
            what: "b",
            of_whole: false,
            why: "502",
            since: failed,
            began: failed,
            at: failed,
            no_answer: false,
            own: None,
        };
        assert!(matches!(outage.failed(&down), Next::Together(_)), "all wait");
        assert!(events.events().is_empty());
    }

    #[test]
    fn a_registry_that_answers_nothing_but_the_probe_is_given_up_in_the_end() {
        let (outage, _) = outage(5, Some(Duration::ZERO));
        outage.answered();
        outage.note_probe(Instant::now(), true);
        let first = Instant::now();
        assert!(matches!(fail_since(&outage, "a", first, false, true), Next::Alone(_)));
        for what in ["b", "c", "b", "d"] {
            assert!(matches!(fail_since(&outage, what, first, false, false), Next::Exhausted), "{what}");
        }
        let later = loop {
            let now = Instant::now();
            if now > first && outage.state().silence.as_ref().unwrap().spent.unwrap() < now {
                break now;
            }
        };
        assert!(matches!(fail_since(&outage, "e", later, false, true), Next::Alone(_)));
        assert!(matches!(fail_since(&outage, "e", later, false, false), Next::GivenUp(_)));
    }

    #[tokio::test]
    async fn what_comes_after_the_end_is_not_tried() {
        let (outage, _) = outage(5, Some(Duration::ZERO));
        outage.answered();
        assert!(outage.pass("x").await.is_ok());
        fail(&outage, "a", true, true);
        let error = outage.pass("reading y").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Network);
        assert!(error.stopped().is_some() && error.chain().contains("r.io:5000"), "{error:?}");
        outage.over().await;
    }
}
