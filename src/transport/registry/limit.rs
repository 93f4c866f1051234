//! The request limits of one registry: a gate that all requests to it pass.
//!
//! What a registry refuses to one worker, it refuses to all: one answer that asks for patience pauses every request to
//! that registry, and when patience ends, it ends for all. Docker Hub counts pulls, which are GETs of manifests (HEADs
//! are free), and states after each how many are left (`ratelimit-limit: 100;w=21600`,
//! `ratelimit-remaining: 4;w=21600`; docs.docker.com, "Docker Hub pull usage and limits"). The last pulls are made one
//! at a time, at growing intervals.
//!
//! A refusal that states no limit may mean that too many requests run at once. All requests then pause, longer each
//! time until one succeeds, and fewer run at once. Every [`EASE`] successful requests allow one more.
//!
//! A pull succeeds after each of these waits, so the waits do not add up towards the user's limit, which bounds the
//! time without progress. If they may exceed it in all, one warning says so and gives the total.
//!
//! **Threats.** The numbers come from outside: times are bounded, and no wait is longer than the user allows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::config::{LONGEST_DELAY, RequestLimits};
use super::lane::Lane;
use super::reply::Reply;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::units::duration;
use crate::base::progress::{Event, Events};

/// Pulls are spaced out once one in so many is left of the limit.
const SCARCE: u64 = 20;
/// The longest window that is accepted.
const LONGEST_WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);

/// When nothing was refused for this long after a wait, the next refusal starts a new count.
const FORGOTTEN: Duration = Duration::from_secs(120);

/// How many requests must succeed, after the last refusal that stated no limit, before one more may run at once.
const EASE: u32 = 32;

/// See the module documentation.
pub(super) struct Gate {
    registry: String,
    /// Where requests wait for a place.
    lanes: Vec<Arc<Lane>>,
    max_wait: Duration,
    events: Events,
    state: Mutex<State>,
    /// Held by the only pull in progress while few are left.
    turn: tokio::sync::Mutex<()>,
}

/// A pause shorter than this, and no longer than the last reported one, is reported at most once per [`OFTEN`].
const SHORT: Duration = Duration::from_secs(5);
const OFTEN: Duration = Duration::from_secs(30);

#[derive(Default)]
struct State {
    closed_until: Option<Instant>,
    /// When a pause was last reported, and its length.
    reported: Option<(Instant, Duration)>,
    /// Set while there are only refusals.
    refused: Option<Refused>,
    /// Why nothing more is requested in this run.
    given_up: Option<String>,
    budget: Option<Budget>,
    /// Whether the warning about slow pulls was reported.
    slow_reported: bool,
    unstated: Unstated,
}

/// Refusals that state no limit.
#[derive(Default)]
struct Unstated {
    /// The last of them, not counting requests that were already in progress by then.
    at: Option<Instant>,
    /// How long all requests paused after it, unless one has succeeded since.
    pause: Option<Duration>,
    /// How many requests have succeeded since the width of the lanes last changed.
    succeeded: u32,
    is_reported: bool,
}

struct Refused {
    since: Instant,
    /// Whether a pull was refused. Then the success of other requests proves nothing.
    pull: bool,
}

/// What the registry stated about its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Budget {
    limit: u64,
    remaining: u64,
    window: Duration,
}

/// The right to pull. While few pulls are left, only one request has it.
pub(super) type Turn<'a> = Option<tokio::sync::MutexGuard<'a, ()>>;

impl Gate {
    pub fn new(registry: &str, limits: &RequestLimits, events: &Events) -> Gate {
        let (state, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        let (registry, lanes, max_wait) = (registry.to_owned(), Vec::new(), limits.max_wait);
        Gate { registry, lanes, max_wait, events: events.clone(), state, turn }
    }

    /// The same gate, for requests that wait for a place in these lanes.
    pub fn over(self, lanes: &[&Arc<Lane>]) -> Gate {
        Gate { lanes: lanes.iter().map(|lane| Arc::clone(lane)).collect(), ..self }
    }

    /// Returns when a request may be sent.
    ///
    /// # Errors
    /// [`Kind::RateLimited`] if nothing more may be requested in this run.
    pub async fn pass(&self, what: &str) -> Result<()> {
        while let Some(delay) = self.closed_for(Instant::now()).map_err(|why| limited(what, &why))? {
            tokio::time::sleep(delay).await;
        }
        Ok(())
    }

    /// Returns when a manifest may be pulled. While few pulls are left, one is made at a time.
    ///
    /// # Errors
    /// As for [`Gate::pass`].
    pub async fn pull(&self, what: &str) -> Result<Turn<'_>> {
        self.pass(what).await?;
        if self.pause().is_none() {
            return Ok(None);
        }
        let turn = self.turn.lock().await;
        self.pass(what).await?;
        // Other pulls may have brought a newer budget meanwhile.
        if let Some((delay, budget)) = self.pause() {
            let why = format!("{} {budget}", self.registry);
            self.report_slow_pulls(&why, budget);
            self.events.report(Event::Waiting { what: what.to_owned(), why, delay });
            tokio::time::sleep(delay).await;
        }
        Ok(Some(turn))
    }

    /// Warns once, and only if the window of the limit is longer than the allowed wait.
    fn report_slow_pulls(&self, why: &str, budget: Budget) {
        if budget.window <= self.max_wait || std::mem::replace(&mut self.state().slow_reported, true) {
            return;
        }
        let (rest, refill) = (duration(budget.rest()), duration(budget.refill()));
        let text = format!(
            "{why}: pulls are spaced out, {rest} for those that are left, then {refill} for each; if you stop gapferry and \
             run it again later, it keeps what it has done"
        );
        self.events.report(Event::Warning(text));
    }

    /// Closes the gate for all requests after an answer that asked for patience: for `most`, or for the rest of the
    /// allowed time if that is at least `least`. Returns for how long, and whether to report it.
    ///
    /// # Errors
    /// Less than `least` is left, counted since the last successful request; or nothing.
    pub fn close(&self, least: Duration, most: Duration, pull: bool) -> Result<(Duration, bool), ()> {
        let now = Instant::now();
        let mut state = self.state();
        if state.closed_until.is_some_and(|until| now.saturating_duration_since(until) > FORGOTTEN) {
            state.refused = None;
        }
        let since = state.refused.get_or_insert(Refused { since: now, pull }).since;
        let left = self.max_wait.checked_sub(now.saturating_duration_since(since)).ok_or(())?;
        if left < least {
            return Err(());
        }
        let delay = most.min(left);
        let until = now.checked_add(delay).ok_or(())?;
        let known = state.closed_until.is_some_and(|known| known + Duration::from_secs(1) >= until && known > now);
        state.closed_until = state.closed_until.max(Some(until));
        // A registry may ask for a one-second wait again and again: reporting each would bury the other lines.
        let is_repeated =
            state.reported.is_some_and(|(reported, of)| delay <= of && now.saturating_duration_since(reported) < OFTEN);
        let news = !(known || delay < SHORT && is_repeated);
        if news {
            state.reported = Some((now, delay));
        }
        Ok((delay, news))
    }

    /// Refuses all further requests of this run: they would get the same answer.
    pub fn give_up(&self, why: &str) {
        self.state().given_up.get_or_insert_with(|| why.to_owned());
    }

    /// Records what an answer of the registry itself states about its limits.
    pub fn note(&self, reply: &Reply, pull: bool) {
        let budget = Budget::read(reply.header("ratelimit-limit"), reply.header("ratelimit-remaining"));
        let mut state = self.state();
        state.budget = budget.or(state.budget);
        drop(state);
        if matches!(reply.status(), 200..=399 | 404) {
            self.succeeded(pull);
        }
    }

    /// The registry has answered a pull or another request.
    fn succeeded(&self, pull: bool) {
        let mut state = self.state();
        if state.refused.as_ref().is_none_or(|refused| pull || !refused.pull) {
            state.refused = None;
            state.unstated.pause = None;
        }
        if state.unstated.at.is_some() {
            state.unstated.succeeded += 1;
            if state.unstated.succeeded >= EASE {
                state.unstated.succeeded = 0;
                self.lanes.iter().for_each(|lane| lane.widen());
            }
        }
    }

    /// A request that began at `began` was refused and no limit was stated. Returns how long all requests pause: for
    /// `first`, or twice as long as after the last refusal if nothing has succeeded since. Fewer requests run at once
    /// from now on.
    pub fn refused_without_limit(&self, began: Instant, first: Duration) -> Duration {
        let mut state = self.state();
        let unstated = &mut state.unstated;
        let last = unstated.pause;
        // A request that was in progress when another was refused belongs to the same refusal.
        if unstated.at.is_some_and(|at| began <= at) {
            return *unstated.pause.get_or_insert(first);
        }
        let pause = last.map_or(first, |last| last.saturating_mul(2)).min(LONGEST_DELAY);
        (unstated.at, unstated.pause, unstated.succeeded) = (Some(Instant::now()), Some(pause), 0);
        let is_narrower = self.lanes.iter().filter(|lane| lane.narrow()).count() > 0;
        if is_narrower && !std::mem::replace(&mut unstated.is_reported, true) {
            drop(state);
            let text = format!(
                "{} refuses requests (429) without saying for how long; gapferry now sends fewer at once; if the registry \
                 limits concurrent requests, use --per-host 1 from the start",
                self.registry
            );
            self.events.report(Event::Warning(text));
        }
        pause
    }

    /// The average time until another pull is allowed, if the registry states its limit.
    pub fn refill(&self) -> Option<Duration> {
        self.state().budget.map(|budget| budget.refill())
    }

    /// Whether this registry is known to count pulls.
    pub fn counts_pulls(&self) -> bool {
        self.registry == "docker.io" || self.state().budget.is_some()
    }

    fn closed_for(&self, now: Instant) -> Result<Option<Duration>, String> {
        let state = self.state();
        if let Some(why) = &state.given_up {
            return Err(why.clone());
        }
        Ok(state.closed_until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero()))
    }

    /// How long to delay a pull because few are left. A delay beyond the allowed wait is pointless: the registry then
    /// decides.
    fn pause(&self) -> Option<(Duration, Budget)> {
        let budget = self.state().budget?;
        budget.pause().filter(|delay| *delay <= self.max_wait).map(|delay| (delay, budget))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limited(what: &str, why: &str) -> Error {
    Error::new(Kind::RateLimited, format!("{what}: not attempted: {why}"))
}

impl Budget {
    /// Parses `100;w=21600` and `4;w=21600`. `None` without a window, or for any other form.
    fn read(limit: Option<&str>, remaining: Option<&str>) -> Option<Budget> {
        let (limit, window) = quota(limit?)?;
        let (remaining, other) = quota(remaining?)?;
        let window = Duration::from_secs(window.or(other)?).min(LONGEST_WINDOW);
        (limit > 0 && !window.is_zero()).then_some(Budget { limit, remaining, window })
    }

    /// The average time per pull.
    fn refill(self) -> Duration {
        self.window.div_f64(self.limit as f64)
    }

    /// No delay while many are left, growing to [`Budget::refill`] when none is left.
    fn pause(self) -> Option<Duration> {
        let few = self.limit / SCARCE;
        let missing = (few + 1).checked_sub(self.remaining).filter(|missing| *missing > 0)?;
        Some(self.refill().mul_f64(missing as f64 / (few + 1) as f64))
    }

    /// The sum of all pauses until none is left: they grow evenly from the present one to nearly a refill.
    fn rest(self) -> Duration {
        let last = Budget { remaining: 1, ..self };
        let ends = self.pause().unwrap_or_default() + last.pause().unwrap_or_default();
        ends.mul_f64(self.remaining as f64 / 2.0)
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Budget { limit, remaining, window } = self;
        write!(f, "allows {limit} pulls in {}, and {remaining} are left", duration(*window))
    }
}

/// For the fuzz targets: how long these headers delay a pull.
#[cfg(fuzzing)]
pub(super) fn pause(limit: &str, remaining: &str) -> Option<Duration> {
    Budget::read(Some(limit), Some(remaining))?.pause()
}

/// A number and its window in seconds, if given. Of several quotas, the first.
fn quota(header: &str) -> Option<(u64, Option<u64>)> {
    let mut parts = header.split(',').next()?.split(';').map(str::trim);
    let number = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok());
    Some((number, window))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::{Recorder, Silent};

    fn gate(max_wait: u64) -> Gate {
        let max_wait = Duration::from_secs(max_wait);
        let events: Events = Arc::new(Silent);
        Gate::new("docker.io", &RequestLimits { max_wait, ..RequestLimits::default() }, &events)
    }

    fn budget(remaining: u64) -> Budget {
        Budget { limit: 100, remaining, window: Duration::from_secs(21600) }
    }

    fn close(gate: &Gate, seconds: u64) -> Result<bool, ()> {
        let wanted = Duration::from_secs(seconds);
        gate.close(wanted, wanted, true).map(|(_, news)| news)
    }

    #[test]
    fn docker_hubs_limit_is_parsed_and_malformed_limits_are_ignored() {
        let read = |limit, remaining| Budget::read(Some(limit), Some(remaining));
        assert_eq!(read("100;w=21600", "76;w=21600"), Some(budget(76)));
        assert_eq!(read("100, 100;w=60", "76"), None);
        assert_eq!(read(" 100 ; w=21600", "76"), Some(budget(76)));
        for (limit, remaining) in [("", ""), ("0;w=1", "0;w=1"), ("5;w=0", "1;w=0"), ("-1;w=9", "1"), ("5", "5")] {
            assert_eq!(read(limit, remaining), None, "{limit} {remaining}");
        }
        assert_eq!(read("1;w=18446744073709551615", "0").unwrap().window, LONGEST_WINDOW);
        assert_eq!(Budget::read(Some("100;w=21600"), None), None);
    }

    #[test]
    fn short_pauses_in_a_row_are_reported_once() {
        let gate = gate(600);
        assert_eq!(close(&gate, 4), Ok(true));
        // As if the pause were over.
        let again = |seconds| {
            gate.state().closed_until = None;
            close(&gate, seconds)
        };
        assert_eq!((again(4), again(1)), (Ok(false), Ok(false)), "reporting each would bury the other lines");
        assert_eq!((again(60), again(60)), (Ok(true), Ok(true)));
    }

    /// At a server that takes one request at a time, the pauses of six workers grew to a minute each and never shrank.
    #[tokio::test]
    async fn refusals_without_a_limit_pause_all_requests_and_send_fewer_at_once_until_some_succeed() {
        let (recorder, lane) = (Arc::new(Recorder::default()), Lane::new(4));
        let events: Events = recorder.clone();
        let gate = Gate::new("r.io", &RequestLimits::default(), &events).over(&[&lane]);
        let (first, before) = (Duration::from_secs(1), Instant::now());
        let refuse = |began| gate.refused_without_limit(began, first).as_secs();
        assert_eq!([refuse(before), refuse(before), refuse(before)], [1, 1, 1], "three requests that were in progress");
        assert_eq!(lane.width(), 2);
        let later = || Instant::now() + Duration::from_millis(1);
        let again = |gate: &Gate| {
            gate.state().unstated.at = Some(before);
            gate.refused_without_limit(later(), first).as_secs()
        };
        assert_eq!([again(&gate), again(&gate)], [2, 4], "nothing has succeeded");
        assert_eq!(lane.width(), 1);
        gate.succeeded(false);
        assert_eq!(again(&gate), 1, "short again after a success");
        (0..EASE).for_each(|_| gate.succeeded(false));
        assert_eq!(lane.width(), 2);
        (0..9).for_each(|_| assert!(again(&gate) <= LONGEST_DELAY.as_secs()));
        assert_eq!(again(&gate), LONGEST_DELAY.as_secs());
        let warnings = recorder.events();
        assert!(matches!(&warnings[..], [Event::Warning(text)] if text.contains("--per-host")), "{warnings:?}");
    }

    #[test]
    fn the_last_pulls_are_made_at_growing_intervals() {
        assert_eq!(budget(100).pause(), None);
        assert_eq!(budget(6).pause(), None);
        assert_eq!(budget(5).pause(), Some(Duration::from_secs(36)));
        assert_eq!(budget(0).pause(), Some(Duration::from_secs(216)));
        assert_eq!(budget(5).rest(), Duration::from_secs(36 + 72 + 108 + 144 + 180));
        assert_eq!((budget(1).rest(), budget(0).rest()), (Duration::from_secs(180), Duration::ZERO));
        assert_eq!(Budget { limit: 1, remaining: 7, window: Duration::from_secs(9) }.pause(), None);
    }

    #[test]
    fn a_pause_longer_than_allowed_is_skipped_so_that_the_registry_decides() {
        let gate = gate(60);
        gate.state().budget = Some(budget(5));
        assert!(gate.pause().is_some());
        gate.state().budget = Some(budget(1));
        assert!(gate.pause().is_none());
    }

    #[test]
    fn one_refusal_pauses_all_requests_and_is_reported_once() {
        let gate = gate(600);
        assert_eq!(close(&gate, 60), Ok(true));
        assert_eq!(close(&gate, 60), Ok(false), "six workers get the same answer");
        assert_eq!(close(&gate, 120), Ok(true));
        let left = gate.closed_for(Instant::now()).unwrap().unwrap();
        assert!(left > Duration::from_secs(60), "{left:?}");
    }

    #[test]
    fn a_refusal_long_after_the_last_one_gets_the_full_wait_again() {
        let gate = gate(600);
        let long_ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        gate.state().refused = Some(Refused { since: long_ago(5000), pull: true });
        gate.state().closed_until = Some(long_ago(1));
        assert_eq!(close(&gate, 5), Err(()));
        gate.state().closed_until = Some(long_ago(3000));
        assert_eq!(close(&gate, 5), Ok(true));
    }

    #[test]
    fn the_last_wait_may_use_all_of_the_remaining_time() {
        let gate = gate(600);
        let since = Instant::now().checked_sub(Duration::from_secs(217)).unwrap();
        gate.state().refused = Some(Refused { since, pull: true });
        assert_eq!(close(&gate, 432), Err(()), "more than is left");
        let (delay, _) = gate.close(Duration::from_nanos(1), Duration::from_secs(432), true).unwrap();
        assert!(delay <= Duration::from_secs(383) && delay > Duration::from_secs(300), "{delay:?}");
    }

    #[test]
    fn a_registry_that_asks_for_too_much_patience_is_given_up_for_all_requests() {
        let gate = gate(100);
        assert_eq!(close(&gate, 101), Err(()));
        assert_eq!(close(&gate, u64::MAX), Err(()));
        gate.give_up("docker.io asks to wait 6 h");
        assert!(gate.closed_for(Instant::now()).is_err_and(|why| why.contains("6 h")));
    }
}
