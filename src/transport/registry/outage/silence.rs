//! The time in which some kind of request only fails: what has failed, since when, and when the requests are sent
//! again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{BELIEVED, FORGOTTEN, WORTH_A_LINE, Work};
use crate::base::error::Stopped;
use crate::transport::registry::config::RequestLimits;
use crate::transport::registry::rounds::Rounds;

/// Some kind of request has only failed since its last success.
pub(super) struct Silence {
    /// The purpose of the request that failed first.
    pub first: String,
    /// Why and when a request failed last.
    pub why: String,
    failed: Instant,
    /// Since when requests only fail, by kind.
    failing: [Option<Instant>; Work::ALL.len()],
    /// Whether one of them got no answer, and no other request has got one since.
    pub unanswered: bool,
    /// Whether the server itself says that it is down: what it still answers may come from a cache.
    pub admitted: bool,
    /// Whether another request has failed too: the cause is then the server, not the request.
    pub several: bool,
    /// When the first request used up its own tries.
    pub spent: Option<Instant>,
    /// The purposes of the requests that failed for good.
    ended: HashSet<String>,
    pub is_reported: bool,
    /// When its budget started to count.
    since: Instant,
    /// How long it has lasted, and when the requests are sent again.
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
    /// The purpose of the request. Two requests for the same blob, in whatever repositories, are no more evidence than
    /// one.
    pub what: &'a str,
    pub work: Work,
    /// Whether it requests nothing in particular: if a gateway answers it, no other request would fare better.
    pub of_whole: bool,
    /// Why it failed.
    pub why: &'a str,
    /// Whether the answer says that a disk of the server is full.
    pub is_full: bool,
    /// When this request first failed.
    pub since: Instant,
    /// The failed try was not made before this.
    pub began: Instant,
    /// When that try failed.
    pub at: Instant,
    pub evidence: Evidence,
    /// The next wait by the request's own count. `None` if its tries are used up.
    pub own: Option<Duration>,
}

/// What a failure shows about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport::registry) enum Evidence {
    /// There was no answer at all.
    NoAnswer,
    /// The server answered with an error of its own, which may concern this request alone.
    Status,
    /// The same, for an object that may be damaged there: the error concerns this object, whatever else fails.
    Object,
    /// A gateway answered for it, which may concern this request alone, too.
    Gateway,
    /// The server itself says that it is down.
    Admitted,
}

impl Evidence {
    /// Whether there was an answer, which says that the request failed.
    pub fn is_answer(self) -> bool {
        matches!(self, Evidence::Status | Evidence::Object | Evidence::Gateway)
    }
}

impl Suspicion<'_> {
    /// Whether it shows that all such requests fail, and not this one alone, as long as others fail too. `proven` is
    /// the time of the last success.
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

/// What a request does after it failed.
#[derive(Debug)]
pub(in crate::transport::registry) enum Next {
    /// It tries again after a wait of its own.
    Alone(Duration),
    /// It tries again with all others.
    Together(Round),
    /// Its own tries are used up.
    Exhausted,
    /// The registry has to be probed; then this is decided again.
    Unsure,
    /// Nothing more is requested in this run.
    GivenUp(Stopped),
}

/// A wait that all requests share.
#[derive(Debug)]
pub(in crate::transport::registry) struct Round {
    pub delay: Duration,
    /// How often the server had answered, or was given up, when this was decided.
    pub changes: u64,
}

impl Silence {
    /// `since` is the time of the first failure, or of the start of the wait for an answer that was not received.
    pub fn begin(first: &str, since: Instant, now: Instant, limits: &RequestLimits) -> Silence {
        let (why, failing, unanswered, admitted, several, spent, ended, is_reported) = Default::default();
        let (first, failed, rounds) = (first.to_owned(), now, Rounds::new(limits, since));
        Silence { first, why, failed, failing, unanswered, admitted, several, spent, ended, is_reported, since, rounds }
    }

    /// Records a failure. `heard` is when the server was last heard; `failing` is since when such requests only fail,
    /// as far as this one shows.
    pub fn note(&mut self, suspicion: &Suspicion<'_>, heard: Option<Instant>, failing: Instant, now: Instant) {
        (self.why, self.failed) = (suspicion.why.to_owned(), now);
        let is_silent = heard.is_none_or(|heard| heard <= suspicion.began);
        self.unanswered |= suspicion.evidence == Evidence::NoAnswer && is_silent;
        self.admitted |= suspicion.evidence == Evidence::Admitted;
        // A missed sign of life is not a request of its own.
        let is_sign = suspicion.what.is_empty();
        if self.first.is_empty() {
            suspicion.what.clone_into(&mut self.first);
        }
        self.several |= !is_sign && self.first != suspicion.what
            || suspicion.of_whole && suspicion.evidence.is_answer()
            || suspicion.evidence == Evidence::Admitted;
        // A token proves nothing while it may be one that grants nothing.
        let work =
            if suspicion.evidence == Evidence::Admitted { suspicion.work.max(Work::Enter) } else { suspicion.work };
        self.failing[work as usize].get_or_insert(failing);
    }

    /// Records an answer to such a request. Returns whether the silence is over.
    pub fn is_ended_by(&mut self, work: Work) -> bool {
        self.unanswered = false;
        for failed in Work::ALL.into_iter().filter(|failed| work.proves(*failed)) {
            self.failing[failed as usize] = None;
        }
        self.failing.iter().all(Option::is_none)
    }

    /// Records that a transfer that began at `began` makes progress. The budget starts again, unless the transfer began
    /// after others had failed: it may then fail at its end, as they did.
    pub fn moved(&mut self, began: Instant, now: Instant) {
        self.unanswered = false;
        if began < self.rounds.since {
            self.since = now;
            self.failing.iter_mut().flatten().for_each(|since| *since = now);
        }
    }

    /// Records that a transfer of this kind delivers something new.
    pub fn advanced(&mut self, work: Work, now: Instant) {
        self.unanswered = false;
        for failed in Work::ALL.into_iter().filter(|failed| work.proves(*failed)) {
            self.failing[failed as usize].iter_mut().for_each(|since| *since = now);
        }
    }

    /// Whether a failing try `began` after the silence was forgotten: nothing had failed for long, and something was
    /// answered. It then starts a new silence.
    pub fn is_forgotten(&self, heard: Option<Instant>, began: Instant) -> bool {
        began.saturating_duration_since(self.failed) > FORGOTTEN && heard.is_some_and(|heard| heard > self.failed)
    }

    /// Records that the server asks for a wait, `by` longer than those that it asked for before. That is not time
    /// without an answer.
    pub fn put_off(&mut self, by: Duration) {
        self.since += by;
        self.failing.iter_mut().flatten().for_each(|since| *since += by);
    }

    /// Since when no answer that counts was received to anything.
    pub fn quiet_since(&self, heard: Option<Instant>) -> Instant {
        heard.filter(|_| !self.admitted).map_or(self.since, |heard| heard.max(self.since))
    }

    /// Since when such requests only fail.
    pub fn failing_since(&self, work: Work) -> Instant {
        self.failing[work as usize].unwrap_or(self.since)
    }

    /// Whether the failure of one request says more than that this request fails.
    pub fn is_plain(&self) -> bool {
        self.unanswered || self.admitted
    }

    /// Whether to report that all requests wait, at the start of this round. A wait that passes at once is not worth a
    /// line.
    pub fn is_news(&mut self, round: Option<u32>) -> bool {
        round.is_some_and(|round| round >= WORTH_A_LINE) && !std::mem::replace(&mut self.is_reported, true)
    }

    /// Whether others had failed for good, or continued beyond their own tries, before this request failed first.
    pub fn has_ended_others(&self, suspicion: &Suspicion<'_>) -> bool {
        let is_new = suspicion.evidence != Evidence::Object && !self.ended.contains(suspicion.what);
        self.several && is_new && self.spent.is_some_and(|spent| spent < suspicion.first())
    }

    /// Records that a request failed for good.
    pub fn note_ended(&mut self, suspicion: &Suspicion<'_>, now: Instant) {
        self.spent.get_or_insert(now);
        self.ended.insert(suspicion.what.to_owned());
    }

    /// Interprets a probe for a request that failed while a gateway answered all of them. `of_kind` means that all such
    /// requests may fail, whatever the probe shows. `None` if the registry counts as down.
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
