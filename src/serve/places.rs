//! A limited number of places for connections. While all are taken, a new connection gets the place of one that waits for a
//! request, or otherwise of the one with the slowest client.
//!
//! # Slow clients
//! A connection with a running [`Request`] keeps its place however long the server takes. For each second in which its client
//! is awaited, because it sends no more of a body or takes no more of a response, its debt grows by a second; with each byte
//! it pays, at the pace of [`Limits`]. A client whose debt exceeds their patience is slow.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::limits::Limits;

/// A connection that has been answered counts as idle after this time: its client may be about to ask for more.
const KEPT: Duration = Duration::from_secs(1);
/// How often to look for idle connections while all places are taken.
const LOOK: Duration = Duration::from_millis(100);
/// The cost of each request, so that many short ones add up.
const FOR_REQUEST: Duration = Duration::from_secs(1);
/// After this time a new connection gets the place of one that has just been answered.
const URGENT: Duration = Duration::from_secs(2);

/// All places. A new connection waits only while all of them are busy.
pub struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<Vec<Weak<Shared>>>,
    pace: Pace,
}

/// How fast a client must be while others wait.
#[derive(Clone, Copy)]
struct Pace {
    /// Bytes per second, at least 1.
    bytes: u64,
    patience: Duration,
}

/// A place, free again when it is dropped.
pub struct ConnectionPlace {
    shared: Arc<Shared>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A running request: its connection keeps its place until the response has been completely produced or dropped.
pub struct Request(Requests);

/// Counts the requests of one connection.
#[derive(Clone)]
pub struct Requests(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    pace: Pace,
    is_taken_away: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Clone, Copy)]
struct State {
    /// Time of the last activity.
    touched: Instant,
    /// Number of running requests.
    requests: usize,
    /// Number of requests that ever started.
    begun: u64,
    /// Since when the client is awaited in a request.
    awaited: Option<Instant>,
    /// How far the client lags behind the pace, without the time since `awaited`.
    debt: Duration,
    /// Whether the client does not take what it is sent.
    is_blocked: bool,
    /// Whether it has sent the head of a request.
    has_asked: bool,
}

/// The order in which places are taken away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Rank {
    /// It has not sent a request for a while.
    Silent,
    /// Its last request was answered a while ago.
    Idle,
    /// Its client is slow.
    Slow,
    /// It is new and has sent no request yet.
    New,
    /// It has just been answered. It is spared unless there has been no other candidate for a while.
    Answered,
}

impl State {
    fn new(now: Instant) -> State {
        let (requests, begun, awaited, debt) = Default::default();
        State { touched: now, requests, begun, awaited, debt, is_blocked: false, has_asked: false }
    }

    fn is_busy(&self) -> bool {
        self.requests > 0 || self.is_blocked
    }

    fn debt(&self, now: Instant) -> Duration {
        self.debt + self.awaited.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// `None` for a place that must not be taken away.
    fn rank(&self, now: Instant, pace: Pace) -> Option<Rank> {
        if self.is_busy() {
            return (self.debt(now) >= pace.patience).then_some(Rank::Slow);
        }
        let is_recent = now.duration_since(self.touched) < KEPT;
        Some(match (self.has_asked, is_recent) {
            (false, false) => Rank::Silent,
            (false, true) => Rank::New,
            (true, false) => Rank::Idle,
            (true, true) => Rank::Answered,
        })
    }
}

impl Places {
    pub fn new(limits: &Limits) -> Places {
        let pace = Pace { bytes: limits.pace.max(1), patience: limits.patience };
        Places { free: Arc::new(Semaphore::new(limits.connections)), taken: Mutex::default(), pace }
    }

    /// A place for a new connection. If all are taken, another connection loses its place.
    pub async fn take(&self) -> ConnectionPlace {
        let begun = Instant::now();
        let permit = loop {
            let free = Arc::clone(&self.free);
            if let Ok(permit) = free.clone().try_acquire_owned() {
                break Some(permit);
            }
            let now = Instant::now();
            let is_urgent = now.duration_since(begun) >= URGENT;
            self.take_away(now, if is_urgent { Rank::Answered } else { Rank::New });
            tokio::select! {
                // Never closed, so a permit can always be obtained.
                permit = free.acquire_owned() => break permit.ok(),
                () = tokio::time::sleep(LOOK) => {}
            }
        };
        let place = ConnectionPlace { shared: Arc::new(Shared::new(self.pace)), _permit: permit };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|shared| shared.strong_count() > 0);
        taken.push(Arc::downgrade(&place.shared));
        place
    }

    /// Takes away one place of rank `last` or earlier.
    fn take_away(&self, now: Instant, last: Rank) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let order = |shared: &Arc<Shared>| shared.order(now).filter(|(rank, ..)| *rank <= last);
        let all = taken.iter().filter_map(Weak::upgrade).filter_map(|shared| Some((order(&shared)?, shared)));
        if let Some((_, shared)) = all.min_by_key(|(order, _)| *order) {
            shared.is_taken_away.store(true, Ordering::Release);
            shared.waker.wake();
        }
    }
}

impl Shared {
    fn new(pace: Pace) -> Shared {
        let state = Mutex::new(State::new(Instant::now()));
        Shared { state, pace, is_taken_away: AtomicBool::new(false), waker: AtomicWaker::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The order in which places are taken away: by rank, then the slowest, then the oldest; `None` for one that must be kept.
    fn order(&self, now: Instant) -> Option<(Rank, std::cmp::Reverse<Duration>, Instant)> {
        let state = *self.state();
        let rank = state.rank(now, self.pace).filter(|_| !self.is_taken_away.load(Ordering::Acquire))?;
        let debt = if rank == Rank::Slow { state.debt(now) } else { Duration::ZERO };
        Some((rank, std::cmp::Reverse(debt), state.touched))
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        state.touched = Instant::now();
        change(&mut state);
    }

    /// The client is awaited.
    fn note_awaited(&self, now: Instant) {
        self.state().awaited.get_or_insert(now);
    }

    /// The client has sent or taken this many bytes.
    fn note_moved(&self, bytes: usize, now: Instant) {
        let mut state = self.state();
        let paid = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / self.pace.bytes);
        state.debt = state.debt(now).saturating_sub(paid);
        state.awaited = None;
    }
}

impl ConnectionPlace {
    /// The client has sent something.
    pub fn note_read(&self, bytes: usize) {
        let now = Instant::now();
        self.shared.note_moved(bytes, now);
        let mut state = self.shared.state();
        // The head of the first request does not count before it is complete.
        if state.has_asked {
            state.touched = now;
        }
    }

    /// The client has taken part of a response, perhaps the last.
    pub fn note_answer(&self, bytes: usize) {
        self.shared.note(|state| state.is_blocked = false);
        self.shared.note_moved(bytes, Instant::now());
    }

    /// The client does not take what it is sent.
    pub fn note_waiting(&self) {
        self.shared.note(|state| state.is_blocked = true);
        self.shared.note_awaited(Instant::now());
    }

    /// Number of requests that ever started.
    pub fn begun(&self) -> u64 {
        self.shared.state().begun
    }

    /// Whether a request or its response is in progress.
    pub fn is_busy(&self) -> bool {
        self.shared.state().is_busy()
    }

    pub fn requests(&self) -> Requests {
        Requests(Arc::clone(&self.shared))
    }

    /// Checks that the place is not needed.
    ///
    /// # Errors
    /// Another connection needs the place.
    pub fn check(&self, context: &Context<'_>) -> io::Result<()> {
        self.shared.waker.register(context.waker());
        match self.shared.is_taken_away.load(Ordering::Acquire) {
            true => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server needed the place of this connection for another one",
            )),
            false => Ok(()),
        }
    }
}

impl Requests {
    pub fn begin(&self) -> Request {
        self.0.note(|state| {
            (state.requests, state.begun, state.has_asked) = (state.requests + 1, state.begun + 1, true);
            (state.awaited, state.debt) = (None, state.debt.saturating_sub(FOR_REQUEST));
        });
        Request(self.clone())
    }

    /// Whether more of a request's body is awaited from the client.
    pub fn note_body(&self, is_awaited: bool) {
        match is_awaited {
            true => self.0.note_awaited(Instant::now()),
            false => self.0.note_moved(0, Instant::now()),
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.0.note(|state| state.requests -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures_util::FutureExt;

    fn is_taken_away(place: &ConnectionPlace) -> bool {
        place.check(&Context::from_waker(std::task::Waker::noop())).is_err()
    }

    fn places(connections: usize) -> Places {
        Places::new(&Limits { connections, ..Limits::default() })
    }

    fn later(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn the_oldest_connection_without_a_request_loses_its_place_and_a_busy_one_never() {
        let places = places(3);
        let (busy, old, young) = (places.take().await, places.take().await, places.take().await);
        let _request = busy.requests().begin();
        assert!(places.take().now_or_never().is_none());
        assert_eq!([&busy, &old, &young].map(is_taken_away), [false, true, false]);
        drop(old);
        let new = places.take().await;
        // A client that has just been answered may ask for more; one that does not take what is sent is busy.
        for place in [&young, &new] {
            drop(place.requests().begin());
            place.note_answer(1);
        }
        new.note_waiting();
        assert!(places.take().now_or_never().is_none());
        assert_eq!([&busy, &young, &new].map(is_taken_away), [false, false, false]);
        // Endless small requests do not keep other clients out.
        places.take_away(Instant::now(), Rank::Answered);
        assert_eq!([&busy, &young, &new].map(is_taken_away), [false, true, false]);
    }

    /// A download from a slow disk moves nothing for a while.
    #[tokio::test]
    async fn a_request_in_flight_keeps_the_place_however_long_the_server_takes() {
        let places = places(1);
        let place = places.take().await;
        let (one, other) = (place.requests().begin(), place.requests().begin());
        place.note_answer(1);
        drop(one);
        places.take_away(later(3600), Rank::Answered);
        assert!(!is_taken_away(&place));
        drop(other);
        // What the client has not taken is still to be sent.
        place.note_waiting();
        places.take_away(later(5), Rank::Answered);
        assert!(!is_taken_away(&place));
        place.note_answer(1);
        places.take_away(Instant::now(), Rank::New);
        assert!(!is_taken_away(&place), "it may ask for more");
        places.take_away(later(2), Rank::New);
        assert!(is_taken_away(&place));
    }

    /// All places are taken by clients that move a few bytes now and then: others get in, and clients that keep the pace stay.
    #[tokio::test]
    async fn the_slowest_client_loses_its_place_and_a_fast_enough_one_does_not() {
        let pace = Limits::default().pace;
        let places = places(3);
        let (sending, taking, fast) = (places.take().await, places.take().await, places.take().await);
        let requests: Vec<Request> = [&sending, &taking, &fast].map(|place| place.requests().begin()).into();
        let wait = |seconds: u64, place: &ConnectionPlace, bytes: u64| {
            place.shared.state().awaited = Some(Instant::now());
            place.shared.note_moved(usize::try_from(bytes).unwrap(), later(seconds));
        };
        for _ in 0..30 {
            wait(1, &sending, 16);
            wait(2, &taking, 16);
            wait(1, &fast, 2 * pace);
        }
        requests[0].0.note_body(true);
        for (slowest, gone) in [(&taking, [false, true, false]), (&sending, [true, true, false])] {
            places.take_away(Instant::now(), Rank::New);
            assert!(is_taken_away(slowest));
            assert_eq!([&sending, &taking, &fast].map(is_taken_away), gone);
        }
        places.take_away(Instant::now(), Rank::Answered);
        assert!(!is_taken_away(&fast));
        // Many bytes in the past are no credit.
        wait(1, &fast, 1_000_000 * pace);
        wait(11, &fast, 16);
        places.take_away(Instant::now(), Rank::New);
        assert!(is_taken_away(&fast));
    }

    /// Requests that end before they are slow, one after the other on one connection.
    #[tokio::test]
    async fn slow_requests_add_up() {
        let places = places(1);
        let place = places.take().await;
        for _ in 0..2 {
            let _request = place.requests().begin();
            place.shared.state().awaited = Some(Instant::now());
            place.shared.note_moved(16, later(9));
        }
        let _request = place.requests().begin();
        places.take_away(Instant::now(), Rank::New);
        assert!(is_taken_away(&place));
    }
}
