//! How many requests one registry allows: a gate that all requests to it pass.
//!
//! A registry that refuses one worker refuses all of them. One answer that asks for a pause therefore pauses every
//! request to that registry, and when the user's patience ends, it ends for all. Docker Hub counts pulls, which are
//! GETs of manifests (HEADs are free). After each pull it says how many are left (`ratelimit-limit: 100;w=21600`,
//! `ratelimit-remaining: 4;w=21600`; docs.docker.com, "Docker Hub pull usage and limits"). The last of them are made
//! one at a time, with growing pauses.
//!
//! A refusal that does not mention a limit may mean one request too many at a time. All requests then pause, longer
//! each time until one succeeds, and fewer run at once. After every [`EASE`] successful requests one more may run.
//!
//! A pull makes progress after each of these pauses, so they are not added up against the user's limit, which is a time
//! without progress. If the pauses may add up to more, one warning says so, with the total time.
//!
//! **Threats.** The numbers come from outside. Times are limited, and no pause is longer than the user allows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::config::{LONGEST_DELAY, RequestLimits};
use super::lane::Lane;
use super::reply::Reply;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::units::duration;
use crate::base::progress::{Event, Events};

/// Number of remaining pulls from which on pulls are spread out.
const SCARCE: u64 = 20;
/// The longest window that is believed.
const LONGEST_WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);

/// If nothing was refused for this long after a pause, the pause is forgotten, and the next refusal starts from the
/// beginning.
const FORGOTTEN: Duration = Duration::from_secs(120);

/// Number of requests that must succeed after a refusal without a stated limit before one more may run at once.
const EASE: u32 = 32;

/// See the module documentation.
pub(super) struct Gate {
    registry: String,
    /// The lanes in which requests wait for their turn.
    lanes: Vec<Arc<Lane>>,
    max_wait: Duration,
    events: Events,
    state: Mutex<State>,
    /// Held by the one pull under way while few are left.
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
    /// The time since which every answer was a refusal.
    refused: Option<Refused>,
    /// Set if nothing more is requested in this run; the reason.
    given_up: Option<String>,
    budget: Option<Budget>,
    /// Whether the warning about slow pulls was reported.
    slow_reported: bool,
    unstated: Unstated,
}

/// Refusals that do not state a limit.
#[derive(Default)]
struct Unstated {
    /// The last such refusal, apart from those of requests that were already under way by then.
    at: Option<Instant>,
    /// The length of the pause that followed, if nothing has succeeded since.
    pause: Option<Duration>,
    /// Number of requests that have succeeded since the lanes were last changed.
    succeeded: u32,
    is_reported: bool,
}

struct Refused {
    since: Instant,
    /// Whether pulls were refused: the success of other requests then proves nothing.
    pull: bool,
}

/// The limit as the registry states it.
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

    /// The same gate for requests that wait in these lanes.
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

    /// Returns when a manifest may be pulled; while few pulls are left, one at a time.
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
        // Others have pulled meanwhile and know the current numbers.
        if let Some((delay, budget)) = self.pause() {
            let why = format!("{} {budget}", self.registry);
            self.report_slow_pulls(&why, budget);
            self.events.report(Event::Waiting { what: what.to_owned(), why, delay });
            tokio::time::sleep(delay).await;
        }
        Ok(Some(turn))
    }

    /// Reports the pauses once, and only if they are longer than what passes without a message.
    fn report_slow_pulls(&self, why: &str, budget: Budget) {
        if budget.window <= self.max_wait || std::mem::replace(&mut self.state().slow_reported, true) {
            return;
        }
        let (rest, refill) = (duration(budget.rest()), duration(budget.refill()));
        let text = format!(
            "{why}: they are taken slowly, {rest} in all, and any further one in {refill}; what is done is kept if this \
             is stopped and continued later"
        );
        self.events.report(Event::Warning(text));
    }

    /// Closes the gate for all requests after an answer that asks for a pause: for `most`, or for the rest of the
    /// user's patience if that is at least `least`. Returns the length, and whether the pause is new.
    ///
    /// # Errors
    /// Less than `least` is left since the last successful request.
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
        // A registry may ask for one second again and again. One line for each would bury the rest of the output.
        let is_repeated =
            state.reported.is_some_and(|(reported, of)| delay <= of && now.saturating_duration_since(reported) < OFTEN);
        let news = !(known || delay < SHORT && is_repeated);
        if news {
            state.reported = Some((now, delay));
        }
        Ok((delay, news))
    }

    /// Ends all requests of this run: they would get the same answer.
    pub fn give_up(&self, why: &str) {
        self.state().given_up.get_or_insert_with(|| why.to_owned());
    }

    /// Records what an answer of the registry itself says about its limits.
    pub fn note(&self, reply: &Reply, pull: bool) {
        let budget = Budget::read(reply.header("ratelimit-limit"), reply.header("ratelimit-remaining"));
        let mut state = self.state();
        state.budget = budget.or(state.budget);
        drop(state);
        if matches!(reply.status(), 200..=399 | 404) {
            self.succeeded(pull);
        }
    }

    /// Records that the registry has answered a pull or another request.
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

    /// Records that a request that began at `began` was refused without a stated limit. Returns how long all requests
    /// pause: `first`, or twice the last pause if nothing has succeeded since. Fewer requests run at once from now on.
    pub fn refused_without_limit(&self, began: Instant, first: Duration) -> Duration {
        let mut state = self.state();
        let unstated = &mut state.unstated;
        let last = unstated.pause;
        // The request was already under way when another was refused: that counts as one refusal.
        if unstated.at.is_some_and(|at| began <= at) {
            return *unstated.pause.get_or_insert(first);
        }
        let pause = last.map_or(first, |last| last.saturating_mul(2)).min(LONGEST_DELAY);
        (unstated.at, unstated.pause, unstated.succeeded) = (Some(Instant::now()), Some(pause), 0);
        let is_narrower = self.lanes.iter().filter(|lane| lane.narrow()).count() > 0;
        if is_narrower && !std::mem::replace(&mut unstated.is_reported, true) {
            drop(state);
            let text = format!(
                "{} refuses requests (429) and does not say for how long: fewer are sent at once from now on; if it \
                 limits concurrent requests, --per-host 1 respects that from the start",
                self.registry
            );
            self.events.report(Event::Warning(text));
        }
        pause
    }

    /// Returns the average time until another pull is allowed, if the registry states its limit.
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

    /// Returns how long to delay a pull because few are left. A delay longer than the user allows is useless: the
    /// registry then decides.
    fn pause(&self) -> Option<(Duration, Budget)> {
        let budget = self.state().budget?;
        budget.pause().filter(|delay| *delay <= self.max_wait).map(|delay| (delay, budget))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limited(what: &str, why: &str) -> Error {
    Error::new(Kind::RateLimited, format!("{what}: not asked any more: {why}"))
}

impl Budget {
    /// Parses `100;w=21600` and `4;w=21600`. Anything without a window, or in another form, is not a budget.
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

    /// From zero, while many pulls are left, to [`Budget::refill`] when none is left.
    fn pause(self) -> Option<Duration> {
        let few = self.limit / SCARCE;
        let missing = (few + 1).checked_sub(self.remaining).filter(|missing| *missing > 0)?;
        Some(self.refill().mul_f64(missing as f64 / (few + 1) as f64))
    }

    /// The sum of all pauses until no pull is left: the current one, the following ones, which grow evenly, and almost
    /// one refill at the end.
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

/// For the fuzz targets: the delay of a pull that these headers cause.
#[cfg(fuzzing)]
pub(super) fn pause(limit: &str, remaining: &str) -> Option<Duration> {
    Budget::read(Some(limit), Some(remaining))?.pause()
}

/// Parses a number, with the window in seconds if there is one. Of several, the first counts.
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
    fn docker_hubs_limit_is_read_and_nonsense_is_none() {
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
        assert_eq!((again(4), again(1)), (Ok(false), Ok(false)), "a line for each would bury the rest");
        assert_eq!((again(60), again(60)), (Ok(true), Ok(true)));
    }

    /// With a server that takes one request at a time, the pauses of six workers grew to a minute each and never
    /// shrank.
    #[tokio::test]
    async fn refusals_without_a_word_are_one_pause_for_all_and_fewer_requests_at_once_until_it_goes_well() {
        let (recorder, lane) = (Arc::new(Recorder::default()), Lane::new(4));
        let events: Events = recorder.clone();
        let gate = Gate::new("r.io", &RequestLimits::default(), &events).over(&[&lane]);
        let (first, before) = (Duration::from_secs(1), Instant::now());
        let refuse = |began| gate.refused_without_limit(began, first).as_secs();
        assert_eq!([refuse(before), refuse(before), refuse(before)], [1, 1, 1], "three that were under way");
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
    fn the_last_pulls_are_taken_ever_more_slowly() {
        assert_eq!(budget(100).pause(), None);
        assert_eq!(budget(6).pause(), None);
        assert_eq!(budget(5).pause(), Some(Duration::from_secs(36)));
        assert_eq!(budget(0).pause(), Some(Duration::from_secs(216)));
        assert_eq!(budget(5).rest(), Duration::from_secs(36 + 72 + 108 + 144 + 180));
        assert_eq!((budget(1).rest(), budget(0).rest()), (Duration::from_secs(180), Duration::ZERO));
        assert_eq!(Budget { limit: 1, remaining: 7, window: Duration::from_secs(9) }.pause(), None);
    }

    #[test]
    fn a_pause_longer_than_allowed_is_left_to_the_registry() {
        let gate = gate(60);
        gate.state().budget = Some(budget(5));
        assert!(gate.pause().is_some());
        gate.state().budget = Some(budget(1));
        assert!(gate.pause().is_none());
    }

    #[test]
    fn a_refusal_to_one_closes_the_gate_for_all_and_is_reported_once() {
        let gate = gate(600);
        assert_eq!(close(&gate, 60), Ok(true));
        assert_eq!(close(&gate, 60), Ok(false), "six workers get the same answer");
        assert_eq!(close(&gate, 120), Ok(true));
        let left = gate.closed_for(Instant::now()).unwrap().unwrap();
        assert!(left > Duration::from_secs(60), "{left:?}");
    }

    #[test]
    fn a_refusal_long_after_the_last_one_begins_anew() {
        let gate = gate(600);
        let long_ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        gate.state().refused = Some(Refused { since: long_ago(5000), pull: true });
        gate.state().closed_until = Some(long_ago(1));
        assert_eq!(close(&gate, 5), Err(()));
        gate.state().closed_until = Some(long_ago(3000));
        assert_eq!(close(&gate, 5), Ok(true));
    }

    #[test]
    fn the_last_wait_takes_all_that_is_left_of_the_patience() {
        let gate = gate(600);
        let since = Instant::now().checked_sub(Duration::from_secs(217)).unwrap();
        gate.state().refused = Some(Refused { since, pull: true });
        assert_eq!(close(&gate, 432), Err(()), "more than is left");
        let (delay, _) = gate.close(Duration::from_nanos(1), Duration::from_secs(432), true).unwrap();
        assert!(delay <= Duration::from_secs(383) && delay > Duration::from_secs(300), "{delay:?}");
    }

    #[test]
    fn patience_ends_for_all_together() {
        let gate = gate(100);
        assert_eq!(close(&gate, 101), Err(()));
        assert_eq!(close(&gate, u64::MAX), Err(()));
        gate.give_up("docker.io asks to wait 6 h");
        assert!(gate.closed_for(Instant::now()).is_err_and(|why| why.contains("6 h")));
    }
}
