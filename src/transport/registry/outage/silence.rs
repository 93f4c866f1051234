//! The time during which some kind of request only fails: what has failed, since when, and when the requests are sent
//! again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{BELIEVED, FORGOTTEN, WORTH_A_LINE, Work};
use crate::base::error::Stopped;
use crate::transport::registry::config::RequestLimits;
use crate::transport::registry::rounds::Rounds;

/// The state while some kind of request has only failed since it last succeeded.
pub(super) struct Silence {
    /// The object of the request that failed first.
    pub first: String,
    /// Why a request last failed.
    pub why: String,
    /// When a request last failed.
    failed: Instant,
    /// Since when each kind of request has only failed.
    failing: [Option<Instant>; Work::ALL.len()],
    /// One of the requests got no answer, and neither did any other since.
    pub unanswered: bool,
    /// The server reports itself down: what it still answers may come from a cache.
    pub admitted: bool,
    /// Another request has failed too, so the server is the cause and not the request.
    pub several: bool,
    /// When the first request used up its own tries.
    pub spent: Option<Instant>,
    /// The objects of the requests that failed for good.
    ended: HashSet<String>,
    pub is_reported: bool,
    /// When the budget starts to count.
    since: Instant,
    /// How long the silence has lasted, and when the requests are sent again.
    pub rounds: Rounds,
}

/// The result of the last probe.
#[derive(Clone, Copy)]
pub(super) struct ProbeResult {
    pub at: Instant,
    pub is_up: bool,
}

/// A failure that may mean that the whole server is down.
pub(in crate::transport::registry) struct Suspicion<'a> {
    /// The object of the request. Two requests for the same blob are no more evidence than one, whatever their
    /// repositories.
    pub what: &'a str,
    pub work: Work,
    /// The request is for nothing in particular: if a gateway answers it, no other request would fare better.
    pub of_whole: bool,
    /// Why it failed.
    pub why: &'a str,
    /// The answer reports a full disk on the server.
    pub is_full: bool,
    /// When this request first failed.
    pub since: Instant,
    /// The earliest time at which the failed try was made.
    pub began: Instant,
    /// When the try failed.
    pub at: Instant,
    pub evidence: Evidence,
    /// The next wait by the request's own count; `None` if its tries are used up.
    pub own: Option<Duration>,
}

/// What a failure says about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport::registry) enum Evidence {
    /// There was no answer at all.
    NoAnswer,
    /// The server answered with an error of its own, which may concern only this request.
    Status,
    /// Like [`Evidence::Status`], but the requested object may be damaged on the server: this concerns the object,
    /// whatever else fails.
    Object,
    /// A gateway answered in place of the server, which also may concern only this request.
    Gateway,
    /// The server reports itself down.
    Admitted,
}

impl Evidence {
    /// Whether an answer came that says that the request failed.
    pub fn is_answer(self) -> bool {
        matches!(self, Evidence::Status | Evidence::Object | Evidence::Gateway)
    }
}

impl Suspicion<'_> {
    /// Whether the failure suggests that all such requests fail and not only this one, provided that others fail as
    /// well. `proven` is when such a request last succeeded.
    pub fn is_of_kind(&self, proven: Option<Instant>) -> bool {
        match self.evidence {
            // A server that has done such work before may fail on two objects.
            Evidence::Status => self.work.is_of_held() && proven.is_none(),
            Evidence::Object => false,
            Evidence::NoAnswer | Evidence::Gateway | Evidence::Admitted => {
                proven.is_none_or(|proven| proven < self.first())
            }
        }
    }

    /// When the request was first sent, as far as is known.
    fn first(&self) -> Instant {
        self.since.min(self.began)
    }

    /// Whether the failed try was not the first.
    fn is_repeated(&self) -> bool {
        self.since < self.began
    }
}

/// What a failed request does next.
#[derive(Debug)]
pub(in crate::transport::registry) enum Next {
    /// The request tries again after a wait of its own.
    Alone(Duration),
    /// The request tries again together with all others.
    Together(Round),
    /// The request's own tries are used up.
    Exhausted,
    /// The registry has to be probed before this can be decided.
    Unsure,
    /// The server is given up: it gets no more requests in this run.
    GivenUp(Stopped),
}

/// A wait that all requests share.
#[derive(Debug)]
pub(in crate::transport::registry) struct Round {
    pub delay: Duration,
    /// How often the server had answered or been given up when this was decided.
    pub changes: u64,
}

impl Silence {
    /// `since` is when the first request failed, or when the wait for a missing answer began.
    pub fn begin(first: &str, since: Instant, now: Instant, limits: &RequestLimits) -> Silence {
        let (why, failing, unanswered, admitted, several, spent, ended, is_reported) = Default::default();
        let (first, failed, rounds) = (first.to_owned(), now, Rounds::new(limits, since));
        Silence { first, why, failed, failing, unanswered, admitted, several, spent, ended, is_reported, since, rounds }
    }

    /// Records a failure. `heard` is when the server last answered anything; `failing` is since when such requests only
    /// fail, judging from this one.
    pub fn note(&mut self, suspicion: &Suspicion<'_>, heard: Option<Instant>, failing: Instant, now: Instant) {
        (self.why, self.failed) = (suspicion.why.to_owned(), now);
        let is_silent = heard.is_none_or(|heard| heard <= suspicion.began);
        self.unanswered |= suspicion.evidence == Evidence::NoAnswer && is_silent;
        self.admitted |= suspicion.evidence == Evidence::Admitted;
        // A missed sign of life does not count as a request.
        let is_sign = suspicion.what.is_empty();
        if self.first.is_empty() {
            suspicion.what.clone_into(&mut self.first);
        }
        self.several |= !is_sign && self.first != suspicion.what
            || suspicion.of_whole && suspicion.evidence.is_answer()
            || suspicion.evidence == Evidence::Admitted;
        // A token may be one that grants nothing, so it does not show that the server is back.
        let work =
            if suspicion.evidence == Evidence::Admitted { suspicion.work.max(Work::Enter) } else { suspicion.work };
        self.failing[work as usize].get_or_insert(failing);
    }

    /// Records an answer to such a request. True if the silence is over.
    pub fn is_ended_by(&mut self, work: Work) -> bool {
        self.unanswered = false;
        for failed in Work::ALL.into_iter().filter(|failed| work.proves(*failed)) {
            self.failing[failed as usize] = None;
        }
        self.failing.iter().all(Option::is_none)
    }

    /// A transfer that began at `began` moves. This restarts the budget, unless the transfer began after others had
    /// failed: then it may fail at its end, as they did.
    pub fn moved(&mut self, began: Instant, now: Instant) {
        self.unanswered = false;
        if began < self.rounds.since {
            self.since = now;
            self.failing.iter_mut().flatten().for_each(|since| *since = now);
        }
    }

    /// A transfer of this kind brings bytes that none has brought before.
    pub fn advanced(&mut self, work: Work, now: Instant) {
        self.unanswered = false;
        for failed in Work::ALL.into_iter().filter(|failed| work.proves(*failed)) {
            self.failing[failed as usize].iter_mut().for_each(|since| *since = now);
        }
    }

    /// Whether this silence is over, so that a failure starts another: nothing had failed for long when the failed try
    /// `began`, and something was answered after the last failure.
    pub fn is_forgotten(&self, heard: Option<Instant>, began: Instant) -> bool {
        began.saturating_duration_since(self.failed) > FORGOTTEN && heard.is_some_and(|heard| heard > self.failed)
    }

    /// The server asks for a wait that ends `by` later than those it asked for before. This does not count as time
    /// without an answer.
    pub fn put_off(&mut self, by: Duration) {
        self.since += by;
        self.failing.iter_mut().flatten().for_each(|since| *since += by);
    }

    /// Since when no answer that counts has come to any request.
    pub fn quiet_since(&self, heard: Option<Instant>) -> Instant {
        heard.filter(|_| !self.admitted).map_or(self.since, |heard| heard.max(self.since))
    }

    /// Since when such requests have only failed.
    pub fn failing_since(&self, work: Work) -> Instant {
        self.failing[work as usize].unwrap_or(self.since)
    }

    /// Whether a single failed request says something about the server.
    pub fn is_plain(&self) -> bool {
        self.unanswered || self.admitted
    }

    /// Whether to report that all requests wait, now that this round begins. A shorter outage is not worth a line.
    pub fn is_news(&mut self, round: Option<u32>) -> bool {
        round.is_some_and(|round| round >= WORTH_A_LINE) && !std::mem::replace(&mut self.is_reported, true)
    }

    /// Whether others had failed for good, or continued beyond their own tries, before this request first failed.
    pub fn has_ended_others(&self, suspicion: &Suspicion<'_>) -> bool {
        let is_new = suspicion.evidence != Evidence::Object && !self.ended.contains(suspicion.what);
        self.several && is_new && self.spent.is_some_and(|spent| spent < suspicion.first())
    }

    /// Records that a request failed for good.
    pub fn note_ended(&mut self, suspicion: &Suspicion<'_>, now: Instant) {
        self.spent.get_or_insert(now);
        self.ended.insert(suspicion.what.to_owned());
    }

    /// Interprets a probe for a request that failed while every failed request got an answer, of the registry or a
    /// gateway. `of_kind`: all such requests may fail, whatever the probe says. `None` if the registry counts as down.
    pub fn probe(
        &mut self,
        probed: Option<ProbeResult>,
        suspicion: &Suspicion<'_>,
        used_up: bool,
        of_kind: bool,
        now: Instant,
    ) -> Option<Next> {
        if !self.several || self.is_plain() {
            return None;
        }
        let is_waiting = self.rounds.left(now).is_some();
        match probed.filter(|probed| probed.counts_for(suspicion)) {
            None if used_up || !is_waiting => return Some(Next::Unsure),
            Some(probed) if probed.is_up => {}
            _ => return None,
        }
        let began_after_others_ended = self.has_ended_others(suspicion);
        match suspicion.own {
            _ if used_up && of_kind => None,
            Some(_) if used_up && began_after_others_ended && suspicion.is_repeated() => None,
            Some(own) => Some(Next::Alone(own)),
            None if used_up && began_after_others_ended => None,
            None if of_kind => {
                self.spent.get_or_insert(now);
                None
            }
            None => {
                self.note_ended(suspicion, now);
                Some(Next::Exhausted)
            }
        }
    }
}

impl ProbeResult {
    /// Whether the probe shows if the registry was up at that failure.
    fn counts_for(&self, suspicion: &Suspicion<'_>) -> bool {
        self.at >= suspicion.at || self.is_up && self.at.elapsed() < BELIEVED
    }
}
