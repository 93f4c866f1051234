//! The time in which some kind of request only fails: what has failed, since when, and when the requests are sent again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{BELIEVED, FORGOTTEN, WORTH_A_LINE, Work};
use crate::base::error::Stopped;
use crate::transport::registry::config::RequestLimits;
use crate::transport::registry::rounds::Rounds;

/// Some kind of request has only failed since it last succeeded.
pub(super) struct Silence {
    /// What the request was for that failed first.
    pub first: String,
    /// Why one failed last, and when.
    pub why: String,
    failed: Instant,
    /// By kind of request: since when it only fails.
    failing: [Option<Instant>; Work::ALL.len()],
    /// No answer came to one of them, and none to any other request since.
    pub unanswered: bool,
    /// The server says itself that it is down: what it still answers may come from a cache.
    pub admitted: bool,
    /// Another one has failed too: then it is the server, not the request.
    pub several: bool,
    /// When the first request used up its own tries.
    pub spent: Option<Instant>,
    /// What the requests were for that failed for good.
    ended: HashSet<String>,
    pub is_reported: bool,
    /// From when on its budget counts.
    since: Instant,
    /// How long it has lasted, and when the requests are sent again.
    pub rounds: Rounds,
}

/// What the last probe found.
#[derive(Clone, Copy)]
pub(super) struct ProbeResult {
    pub at: Instant,
    pub is_up: bool,
}

/// A failure that may mean that the whole server is down.
pub(in crate::transport::registry) struct Suspicion<'a> {
    /// What the request is for. Two that are for the same blob, in whichever repositories, are no more evidence than one.
    pub what: &'a str,
    pub work: Work,
    /// It asks for nothing in particular: if a gateway answers it, no other request would fare better.
    pub of_whole: bool,
    /// Why it failed.
    pub why: &'a str,
    /// The answer says that a disk of the server is full.
    pub is_full: bool,
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
pub(in crate::transport::registry) enum Evidence {
    /// No answer came at all.
    NoAnswer,
    /// It answered with an error of its own: that may be about this request alone.
    Status,
    /// The same, where what was asked for may be damaged there: that is about this object, whatever else fails.
    Object,
    /// A gateway answered for it, which may be about this request alone, too.
    Gateway,
    /// It says itself that it is down.
    Admitted,
}

impl Evidence {
    /// An answer came, which says that what was asked for failed.
    pub fn is_answer(self) -> bool {
        matches!(self, Evidence::Status | Evidence::Object | Evidence::Gateway)
    }
}

impl Suspicion<'_> {
    /// Whether it says that all such requests fail, and not this one alone, as long as others fail as well. `proven` is when one
    /// succeeded last.
    pub fn is_of_kind(&self, proven: Option<Instant>) -> bool {
        match self.evidence {
            // A server that has done such work before may fail at two objects.
            Evidence::Status => self.work.is_of_held() && proven.is_none(),
            Evidence::Object => false,
            Evidence::NoAnswer | Evidence::Gateway | Evidence::Admitted => {
                proven.is_none_or(|proven| proven < self.first())
            }
        }
    }

    /// When the request was sent first, as far as is known.
    fn first(&self) -> Instant {
        self.since.min(self.began)
    }

    /// Whether the try that failed was not the first.
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
    /// Nothing more is asked in this run.
    GivenUp(Stopped),
}

/// A wait that all share.
#[derive(Debug)]
pub(in crate::transport::registry) struct Round {
    pub delay: Duration,
    /// How often the server had answered, or was given up, when this was decided.
    pub changes: u64,
}

impl Silence {
    /// `since`: when the first failure was, or the wait for the answer that did not come began.
    pub fn begin(first: &str, since: Instant, now: Instant, limits: &RequestLimits) -> Silence {
        let (why, failing, unanswered, admitted, several, spent, ended, is_reported) = Default::default();
        let (first, failed, rounds) = (first.to_owned(), now, Rounds::new(limits, since));
        Silence { first, why, failed, failing, unanswered, admitted, several, spent, ended, is_reported, since, rounds }
    }

    /// Notes a failure; the server was last `heard` then. `failing`: since when such requests only fail, as far as this one tells.
    pub fn note(&mut self, suspicion: &Suspicion<'_>, heard: Option<Instant>, failing: Instant, now: Instant) {
        (self.why, self.failed) = (suspicion.why.to_owned(), now);
        let is_silent = heard.is_none_or(|heard| heard <= suspicion.began);
        self.unanswered |= suspicion.evidence == Evidence::NoAnswer && is_silent;
        self.admitted |= suspicion.evidence == Evidence::Admitted;
        // A sign of life that was missed is no request of its own.
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

    /// Notes an answer to such a request. Whether the silence is over.
    pub fn is_ended_by(&mut self, work: Work) -> bool {
        self.unanswered = false;
        for failed in Work::ALL.into_iter().filter(|failed| work.proves(*failed)) {
            self.failing[failed as usize] = None;
        }
        self.failing.iter().all(Option::is_none)
    }

    /// A transfer moves that began at `began`. The budget counts anew, unless it began after others had failed: then it may fail at
    /// its end, as they did.
    pub fn moved(&mut self, began: Instant, now: Instant) {
        self.unanswered = false;
        if began < self.rounds.since {
            self.since = now;
            self.failing.iter_mut().flatten().for_each(|since| *since = now);
        }
    }

    /// A transfer of this kind brings what none has brought before.
    pub fn advanced(&mut self, work: Work, now: Instant) {
        self.unanswered = false;
        for failed in Work::ALL.into_iter().filter(|failed| work.proves(*failed)) {
            self.failing[failed as usize].iter_mut().for_each(|since| *since = now);
        }
    }

    /// Nothing had failed for long when a try `began` that fails now, and something was answered: it begins another one.
    pub fn is_forgotten(&self, heard: Option<Instant>, began: Instant) -> bool {
        began.saturating_duration_since(self.failed) > FORGOTTEN && heard.is_some_and(|heard| heard > self.failed)
    }

    /// The server asks for a wait of its own choice, `by` longer than those it asked for before: that is no time without an answer.
    pub fn put_off(&mut self, by: Duration) {
        self.since += by;
        self.failing.iter_mut().flatten().for_each(|since| *since += by);
    }

    /// Since when no answer to anything has come that counts.
    pub fn quiet_since(&self, heard: Option<Instant>) -> Instant {
        heard.filter(|_| !self.admitted).map_or(self.since, |heard| heard.max(self.since))
    }

    /// Since when such requests only fail.
    pub fn failing_since(&self, work: Work) -> Instant {
        self.failing[work as usize].unwrap_or(self.since)
    }

    /// Whether one request that fails says more than that this request fails.
    pub fn is_plain(&self) -> bool {
        self.unanswered || self.admitted
    }

    /// Whether to report that all wait, now that this round begins: what passes at once is not worth a line.
    pub fn is_news(&mut self, round: Option<u32>) -> bool {
        round.is_some_and(|round| round >= WORTH_A_LINE) && !std::mem::replace(&mut self.is_reported, true)
    }

    /// Whether others had failed for good, or gone on beyond their own tries, before this request failed first.
    pub fn has_ended_others(&self, suspicion: &Suspicion<'_>) -> bool {
        let is_new = suspicion.evidence != Evidence::Object && !self.ended.contains(suspicion.what);
        self.several && is_new && self.spent.is_some_and(|spent| spent < suspicion.first())
    }

    /// Notes that a request failed for good.
    pub fn note_ended(&mut self, suspicion: &Suspicion<'_>, now: Instant) {
        self.spent.get_or_insert(now);
        self.ended.insert(suspicion.what.to_owned());
    }

    /// What a probe means for a request that failed while a gateway answered all of them. `of_kind`: all such requests may fail,
    /// whatever the probe says. `None`: the registry counts as down.
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
    /// Whether it tells whether the registry was up at that failure.
    fn counts_for(&self, suspicion: &Suspicion<'_>) -> bool {
        self.at >= suspicion.at || self.is_up && self.at.elapsed() < BELIEVED
    }
}
