//! Whether and when a request is sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff};

use super::config::RequestLimits;
use super::facts::{Symptom, UnexpectedStatus};
use super::failure::{Failure, Retry, is_gateway, may_be_down};
use super::limit::Gate;
use super::outage::{Announced, Evidence, Next, Outage, ServerWork, Suspicion, Work, given_up};
use super::read_only::{ReadOnly, Waited};
use super::root::Root;
use super::spent::OfBlob;
use super::trace::Log;
use super::wire::Wire;
use crate::base::error::{Error, Kind, Reason, Result};
use crate::base::progress::units::duration;
use crate::base::progress::{Event, Events};

/// How often a request is repeated immediately: after a token was renewed, or after a stale session.
const MOST_AT_ONCE: u32 = 3;

/// The shortest wait. If less of the user's patience is left, it is used up.
const LEAST: Duration = Duration::from_nanos(1);

/// The tries of one request.
pub(super) struct Tries {
    what: String,
    /// Whether it is a pull, which registries count separately.
    pull: bool,
    gate: Arc<Gate>,
    outage: Arc<Outage>,
    read_only: Arc<ReadOnly>,
    /// Whether a garbage collection at the registry was reported.
    collection: Arc<AtomicBool>,
    /// The root, which shows whether the registry is up. Without it, a registry for which a gateway answers counts as
    /// down.
    root: Option<Arc<Root>>,
    /// Whether the request is for nothing in particular.
    of_whole: bool,
    /// The blob that it reads or stores.
    blob: Option<OfBlob>,
    events: Events,
    log: Arc<Log>,
    backoff: ExponentialBackoff,
    limits: RequestLimits,
    failed: u32,
    /// The current try was not made before this.
    began: Instant,
    /// When the request first failed.
    since: Option<Instant>,
    /// How long it has waited for answers that were not received.
    unanswered: Duration,
    at_once: u32,
    /// How often the registry refused because of its limit without saying for how long.
    limit_refusals: u32,
    asked: Duration,
    /// Whether the registry has said that it is full.
    is_full: bool,
    /// Its wait for the end of read-only mode.
    waited: Waited,
    /// Whether tries, perhaps more than its own, were spent on an outage of the whole registry.
    beyond: bool,
}

impl Tries {
    /// `what` is the attempt as errors name it: `reading blob … of …`.
    pub fn new(what: &str, pull: bool, gate: &Arc<Gate>, wire: &Wire) -> Tries {
        Tries {
            what: what.to_owned(),
            pull,
            gate: gate.clone(),
            outage: wire.outage.clone(),
            read_only: wire.read_only.clone(),
            collection: wire.collection.clone(),
            root: None,
            of_whole: false,
            blob: None,
            events: wire.events.clone(),
            log: wire.log.clone(),
            backoff: wire.limits.backoff().build(),
            limits: wire.limits.clone(),
            failed: 0,
            began: Instant::now(),
            since: None,
            unanswered: Duration::ZERO,
            at_once: 0,
            limit_refusals: 0,
            asked: Duration::ZERO,
            is_full: false,
            waited: Waited::default(),
            beyond: false,
        }
    }

    /// Sets the `root` to probe before the registry counts as down.
    pub fn with_root(mut self, root: &Arc<Root>) -> Tries {
        self.root = Some(root.clone());
        self
    }

    /// The request is for nothing in particular, only for the registry.
    pub fn of_whole_registry(mut self) -> Tries {
        self.of_whole = true;
        self
    }

    /// The request reads or stores this blob: all requests that do so share one set of tries.
    pub fn of_blob(mut self, blob: OfBlob) -> Tries {
        if blob.is_spent() {
            self.backoff = self.limits.backoff().with_max_times(0).build();
        }
        self.blob = Some(blob);
        self
    }

    /// The tries begin with an answer that is not the expected content: fewer tries are worthwhile.
    pub fn after_wrong_answer(mut self) -> Tries {
        self.backoff = self.limits.backoff().with_max_times(self.limits.wrong_retries as usize).build();
        self
    }

    /// Records that the request has succeeded.
    pub fn succeeded(&self) {
        self.blob.iter().for_each(OfBlob::clear);
    }

    /// Forgets earlier failures: the transfer has made progress since.
    pub fn renew(&mut self) {
        self.backoff = self.limits.backoff().build();
        self.failed = 0;
        self.since = None;
        self.unanswered = Duration::ZERO;
        self.at_once = 0;
        self.limit_refusals = 0;
        self.asked = Duration::ZERO;
        self.waited = Waited::default();
        self.beyond = false;
    }

    /// Waits until another try may be made.
    ///
    /// # Errors
    /// The failure itself, if no further try is allowed; [`Kind::RateLimited`] if the registry asks for a longer wait
    /// than is allowed.
    pub async fn again(&mut self, failure: Failure) -> Result<()> {
        self.wait_after(failure).await?;
        self.began = Instant::now();
        Ok(())
    }

    async fn wait_after(&mut self, failure: Failure) -> Result<()> {
        self.failed += 1;
        let failed = self.failed;
        self.log.note_failures(&self.what, self.failed);
        if failure.error.reason() == Some(&Reason::ReadOnly) {
            return self.read_only.wait(self.began, &mut self.waited, failure.error).await;
        }
        let is_full = matches!(failure.error.reason(), Some(Reason::Full { .. }));
        if is_full && std::mem::replace(&mut self.is_full, true) {
            return Err(failure.error);
        }
        let limited = failure.error.kind() == Kind::RateLimited;
        let registry = || ServerWork { outage: self.outage.clone(), work: Work::Enter };
        let server = failure.server.clone().unwrap_or_else(registry);
        let delay = match failure.retry {
            Retry::Never => return Err(failure.error),
            Retry::Now if self.at_once < MOST_AT_ONCE => {
                self.at_once += 1;
                return Ok(());
            }
            Retry::Now => return Err(failure.error),
            Retry::After(wanted) if limited => {
                // It answers, and refuses this account because of its limit.
                server.answered();
                return self.wait_as_asked(wanted, failure.error).await;
            }
            Retry::After(wanted) => return self.wait_for_server(&server, wanted, failure.error).await,
            Retry::Soon if limited => match self.gate.refill() {
                Some(refill) => return self.wait_for_refill(refill, failure.error).await,
                None => return self.wait_without_limit(failure.error).await,
            },
            Retry::Soon => self.backoff.next(),
            Retry::Down(evidence) => match self.look_at(&server, evidence, &failure).await {
                Next::Alone(delay) => Some(delay),
                Next::Exhausted | Next::Unsure => None,
                Next::GivenUp(stopped) => return Err(given_up(&self.what, stopped)),
                Next::Together(round) => {
                    server.outage.rest(round).await;
                    return Ok(());
                }
            },
        };
        let Some(delay) = delay else {
            // The answer of a gateway means that the server behind it does not answer.
            let is_own = |status: u16| may_be_down(status) && !is_gateway(status);
            let is_failure = failure.status.is_some_and(is_own) || self.is_unanswered();
            let may_be_of_object = is_failure && !self.of_whole;
            // A registry that has stored nothing in this run does not fail because of this object.
            let may_be_of_object = may_be_of_object && (server.work < Work::Complete || server.outage.has_stored());
            let is_of_object = may_be_of_object && failure.error.reason().is_none() && self.is_up(&server.outage).await;
            let why = self.reason(&failure.error);
            let error = match failed {
                1 if self.blob.as_ref().is_some_and(OfBlob::is_spent) => {
                    failure.error.while_doing("giving up after 1 try: other requests for this blob have failed")
                }
                1 => failure.error,
                tries => failure.error.while_doing(format!("giving up after {tries} tries")),
            };
            let error = if is_of_object { error.with_reason(Reason::Undelivered) } else { error };
            // A blob that is reported missing may exist in another repository, and another repository may still open
            // uploads.
            let is_of_blob = |blob: &&OfBlob| error.kind() != Kind::NotFound && blob.is_for(server.work);
            if let Some(blob) = self.blob.as_ref().filter(is_of_blob) {
                blob.note(&error, why);
            }
            return Err(error);
        };
        // A garbage collection blocks many blobs: it is reported for the first one.
        let is_collection = failure.error.reason() == Some(&Reason::BlobInCollection);
        let is_news = match is_collection {
            true => !self.collection.swap(true, Ordering::Relaxed),
            false => server.outage.is_news(delay),
        };
        if is_news {
            let (what, why) = (self.what.clone(), self.reason(&failure.error));
            self.events.report(Event::Waiting { what, why, delay });
        }
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Whether `server` has answered anything else since this request first failed. If it has not been asked anything
    /// else, its root is.
    async fn is_up(&self, server: &Arc<Outage>) -> bool {
        let Some(since) = self.since else { return false };
        if let Some(root) = self.root.as_ref().filter(|_| Arc::ptr_eq(server, &self.outage))
            && !server.is_up_since(since)
        {
            root.probe(Instant::now()).await;
        }
        server.is_up_since(since)
    }

    /// Whether it has waited for answers for longer than the budget allows.
    fn is_unanswered(&self) -> bool {
        self.limits.retry_budget.is_some_and(|budget| !self.unanswered.is_zero() && self.unanswered >= budget)
    }

    async fn look_at(&mut self, server: &ServerWork, evidence: Evidence, failure: &Failure) -> Next {
        let (why, of_whole) = (self.reason(&failure.error), self.of_whole);
        let is_disk_full = |answer: &UnexpectedStatus| answer.symptom == Some(Symptom::DiskFull);
        let is_full = failure.error.find().is_some_and(is_disk_full);
        let began = failure.asked.map_or(self.began, |asked| asked.max(self.began));
        let (work, server) = (server.work, &server.outage);
        let root = self.root.clone().filter(|_| Arc::ptr_eq(server, &self.outage));
        self.unanswered += failure.waited;
        loop {
            // A request that has waited as long as the server may be silent has no further try of its own.
            let (at, own) = (Instant::now(), self.backoff.next().filter(|_| !self.is_unanswered()));
            let since = *self.since.get_or_insert(at);
            let spent = own.is_none();
            let of_blob = self.blob.as_ref().map(|blob| blob.digest().to_string());
            let what = of_blob.as_ref().unwrap_or(&self.what);
            let suspicion = Suspicion { what, work, of_whole, why: &why, is_full, since, began, at, evidence, own };
            let mut next = server.failed(&suspicion);
            if matches!(next, Next::Unsure) {
                match &root {
                    Some(root) => root.probe(at).await,
                    None => server.note_probe(Instant::now(), false),
                }
                next = server.failed(&suspicion);
            }
            match next {
                // The server has answered others since: the tries that were spent on its outage no longer count.
                Next::Exhausted if self.beyond => self.renew(),
                next => {
                    self.beyond |= matches!(next, Next::Together(_)) || spent && !matches!(next, Next::Exhausted);
                    return next;
                }
            }
        }
    }

    /// Waits `wanted`, after which the server says that it will be back.
    async fn wait_for_server(&mut self, server: &ServerWork, wanted: Duration, error: Error) -> Result<()> {
        let asked = server.outage.announced(server.work, wanted, self.asked, &self.reason(&error));
        let delay = match asked {
            Announced::Wait(delay) => delay,
            Announced::Enough => {
                let allowed = duration(self.limits.max_wait);
                return Err(
                    error.while_doing(format!("giving up: it asks to wait longer than {allowed} in all (--max-wait)"))
                );
            }
            Announced::GivenUp(stopped) => return Err(given_up(&self.what, stopped)),
        };
        self.asked = self.asked.saturating_add(delay);
        // All requests got the same delay: spread them out.
        let delay = delay + self.limits.backoff().build().next().unwrap_or_default() / 4;
        tokio::select! {
            () = tokio::time::sleep(delay) => Ok(()),
            stopped = server.outage.over() => Err(given_up(&self.what, stopped)),
        }
    }

    async fn wait_as_asked(&mut self, wanted: Duration, error: Error) -> Result<()> {
        self.wait(wanted, wanted, error, format!("asks to wait {}", duration(wanted))).await
    }

    /// Pauses all requests to the registry for `most`, or for the rest of the user's patience if that is at least
    /// `least`. `demands` says in words what the registry asks for.
    async fn wait(&mut self, least: Duration, most: Duration, error: Error, demands: String) -> Result<()> {
        let left = self.limits.max_wait.saturating_sub(self.asked);
        let closed = match left < least {
            true => Err(()),
            false => self.gate.close(least, most.min(left), self.pull),
        };
        let Ok((delay, news)) = closed else { return Err(self.too_long(&demands, error)) };
        self.asked = self.asked.saturating_add(delay);
        // All requests got the same delay: spread them out.
        let delay = delay + self.limits.backoff().build().next().unwrap_or_default() / 4;
        if news {
            self.events.report(Event::Waiting { what: self.what.clone(), why: self.reason(&error), delay });
        }
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// The registry did not say how long to wait, but how many pulls it allows in which time: waits longer each time,
    /// as long as allowed.
    async fn wait_for_refill(&mut self, refill: Duration, error: Error) -> Result<()> {
        if self.limit_refusals == 0 {
            self.limit_refusals = 1;
            return self.wait_as_asked(refill, error).await;
        }
        let wanted = refill.saturating_mul(1 << self.limit_refusals.min(16));
        self.limit_refusals += 1;
        let demands = format!("still refuses, although it allows a pull in {}", duration(refill));
        self.wait(LEAST, wanted, error, demands).await
    }

    /// The registry said nothing about its limit: waits again and again, as long as allowed, with fewer requests at
    /// once.
    async fn wait_without_limit(&mut self, error: Error) -> Result<()> {
        let wanted = self.gate.refused_without_limit(self.began, self.limits.first_delay);
        self.wait(LEAST, wanted, error, "refuses without saying for how long".to_owned()).await
    }

    /// Returns why a try failed, without the attempt.
    fn reason(&self, error: &Error) -> String {
        let why = error.chain();
        why.strip_prefix(&self.what).map_or(why.as_str(), |rest| rest.trim_start_matches(": ")).to_owned()
    }

    fn too_long(&self, demands: &str, error: Error) -> Error {
        let allowed = duration(self.limits.max_wait);
        let why = format!("the registry {demands}, and --max-wait allows {allowed} in total");
        self.gate.give_up(&why);
        Error::new(Kind::RateLimited, format!("{}: {why}", self.what)).because(error)
    }
}

impl Drop for Tries {
    fn drop(&mut self) {
        self.log.note_failures(&self.what, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Recorder;
    use crate::transport::registry::Config;

    fn tries(retries: u32, max_wait: u64) -> (Tries, Arc<Recorder>) {
        let (max_wait, first_delay) = (Duration::from_millis(max_wait), Duration::from_millis(1));
        let retry_budget = Some(Duration::from_secs(60));
        let recorder = Arc::new(Recorder::default());
        let events: Events = recorder.clone();
        let wire =
            Wire::new(Config { retries, max_wait, first_delay, retry_budget, ..Config::default() }, events.clone());
        let gate = Arc::new(Gate::new("h", &wire.limits, &events));
        (Tries::new("x", false, &gate, &wire), recorder)
    }

    fn failed(retry: Retry) -> Failure {
        Failure::new(Error::new(Kind::Network, "x: 503"), retry)
    }

    #[tokio::test]
    async fn tries_end() {
        let (mut tries, _) = tries(2, 0);
        assert!(tries.again(failed(Retry::Soon)).await.is_ok());
        assert!(tries.again(failed(Retry::Soon)).await.is_ok());
        let error = tries.again(failed(Retry::Soon)).await.unwrap_err();
        assert_eq!(error.to_string(), "giving up after 3 tries");
        assert!(tries.again(failed(Retry::Never)).await.is_err());
    }

    #[tokio::test]
    async fn an_outage_that_has_passed_takes_no_tries() {
        let (mut tries, _) = tries(2, 0);
        let down = || failed(Retry::Down(Evidence::NoAnswer));
        tries.outage.answered(Work::Complete);
        let (now, own) = (Instant::now(), Some(Duration::ZERO));
        let (what, why, of_whole, evidence) = ("another", "503", false, Evidence::NoAnswer);
        let work = Work::Read;
        let another =
            Suspicion { what, work, of_whole, why, is_full: false, since: now, began: now, at: now, evidence, own };
        tries.outage.failed(&another);
        for _ in 0..5 {
            assert!(tries.again(down()).await.is_ok());
        }
        // Others are answered before the last failures of this request are considered.
        tries.outage.answered(Work::Complete);
        for _ in 0..2 {
            assert!(tries.again(down()).await.is_ok());
            tries.outage.answered(Work::Complete);
        }
        assert!(tries.again(down()).await.is_err(), "afterwards it has its own tries again, and no more");
    }

    /// Time in which a request waits for its turn, for example because of Docker Hub's limit, is not a silence of the
    /// registry.
    #[tokio::test]
    async fn a_silence_begins_when_the_request_was_sent() {
        let (mut tries, _) = tries(2, 0);
        tries.began = Instant::now().checked_sub(Duration::from_secs(300)).unwrap();
        tries.outage.answered_at(tries.began, Work::Read);
        let asked = Some(Instant::now());
        assert!(tries.again(Failure { asked, ..failed(Retry::Down(Evidence::NoAnswer)) }).await.is_ok());
    }

    #[tokio::test]
    async fn a_registry_that_asks_for_patience_gets_it_in_full_up_to_the_limit() {
        let (mut tries, recorder) = tries(0, 25);
        let wanted = Duration::from_millis(20);
        let limited = || Failure::new(Error::new(Kind::RateLimited, "x: 429"), Retry::After(wanted));
        assert!(tries.again(limited()).await.is_ok());
        match &recorder.events()[..] {
            [Event::Waiting { what, why, delay }] => {
                assert!(*delay >= wanted && what == "x" && why == "429", "{what} {why} {delay:?}");
            }
            other => panic!("{other:?}"),
        }
        let error = tries.again(limited()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::RateLimited);
    }

    #[tokio::test]
    async fn a_registry_that_is_away_for_longer_than_is_allowed_is_an_outage_and_no_limit() {
        let (mut tries, _) = tries(0, 25);
        let away = |wanted| failed(Retry::After(Duration::from_millis(wanted)));
        assert!(tries.again(away(1)).await.is_ok());
        let error = tries.again(away(26)).await.unwrap_err();
        assert!(error.kind() == Kind::Network && error.stopped().is_some(), "{error:?}");
    }
}
