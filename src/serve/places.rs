//! The places for connections: only so many, and one that waits for a request gives way to a new one. A connection with a
//! [`Request`] in flight keeps its place, however slowly that goes on.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// A connection that has been answered counts as idle after so long: its client may be about to ask for more.
const KEPT: Duration = Duration::from_secs(1);
/// How often idle connections are looked for while all places are taken.
const LOOK: Duration = Duration::from_millis(100);

/// All places. A newcomer waits only while all of them are busy.
pub struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<Vec<Weak<Shared>>>,
}

/// One place; free again when it is dropped.
pub struct Place {
    shared: Arc<Shared>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A request in flight: until its answer has been made in full, or dropped, its connection keeps its place.
pub struct Request(Requests);

/// Counts the requests of one connection.
#[derive(Clone)]
pub struct Requests(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    is_taken_away: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Clone, Copy)]
struct State {
    /// When something happened last.
    touched: Instant,
    /// Requests in flight.
    requests: usize,
    /// The client does not take what it is sent.
    is_blocked: bool,
    /// It has sent the head of a request.
    has_asked: bool,
}

impl Default for State {
    fn default() -> State {
        State { touched: Instant::now(), requests: 0, is_blocked: false, has_asked: false }
    }
}

impl Places {
    pub fn new(most: usize) -> Places {
        Places { free: Arc::new(Semaphore::new(most)), taken: Mutex::default() }
    }

    /// A place for a new connection. If there is none, the oldest idle connection loses its own.
    pub async fn take(&self) -> Place {
        let permit = loop {
            let free = Arc::clone(&self.free);
            if let Ok(permit) = free.clone().try_acquire_owned() {
                break Some(permit);
            }
            self.take_away_idle(Instant::now());
            tokio::select! {
                // Never closed, so there is always a permit to be had.
                permit = free.acquire_owned() => break permit.ok(),
                () = tokio::time::sleep(LOOK) => {}
            }
        };
        let place = Place { shared: Arc::default(), _permit: permit };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|shared| shared.strong_count() > 0);
        taken.push(Arc::downgrade(&place.shared));
        place
    }

    /// First those that never sent a request.
    fn take_away_idle(&self, now: Instant) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = taken.iter().filter_map(Weak::upgrade).filter_map(|shared| Some((shared.idle(now)?, shared)));
        if let Some((_, shared)) = idle.min_by_key(|(order, _)| *order) {
            shared.is_taken_away.store(true, Ordering::Release);
            shared.waker.wake();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The order in which places are taken away; `None` for one that must not be.
    fn idle(&self, now: Instant) -> Option<(bool, Instant)> {
        let State { touched, requests, is_blocked, has_asked } = *self.state();
        let is_idle = requests == 0 && !is_blocked && (!has_asked || now.duration_since(touched) >= KEPT);
        (is_idle && !self.is_taken_away.load(Ordering::Acquire)).then_some((has_asked, touched))
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        state.touched = Instant::now();
        change(&mut state);
    }
}

impl Place {
    /// The client has sent the head of a request, or something after it.
    pub fn note_request(&self) {
        self.shared.note(|state| state.has_asked = true);
    }

    /// The client has taken a part of an answer, perhaps the last.
    pub fn note_answer(&self) {
        self.shared.note(|state| state.is_blocked = false);
    }

    /// The client does not take what it is sent.
    pub fn note_waiting(&self) {
        self.shared.note(|state| state.is_blocked = true);
    }

    pub fn requests(&self) -> Requests {
        Requests(Arc::clone(&self.shared))
    }

    /// # Errors
    /// Another connection needs the place.
    pub fn check(&self, context: &Context<'_>) -> io::Result<()> {
        self.shared.waker.register(context.waker());
        match self.shared.is_taken_away.load(Ordering::Acquire) {
            true => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "another connection needs its place")),
            false => Ok(()),
        }
    }
}

impl Requests {
    pub fn begin(&self) -> Request {
        self.0.note(|state| state.requests += 1);
        Request(self.clone())
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

    fn is_taken_away(place: &Place) -> bool {
        place.check(&Context::from_waker(std::task::Waker::noop())).is_err()
    }

    #[tokio::test]
    async fn the_oldest_connection_without_a_request_loses_its_place_and_a_busy_one_never() {
        let places = Places::new(3);
        let (busy, old, young) = (places.take().await, places.take().await, places.take().await);
        busy.note_request();
        assert!(places.take().now_or_never().is_none());
        assert_eq!([&busy, &old, &young].map(is_taken_away), [false, true, false]);
        drop(old);
        let new = places.take().await;
        // Who has just been answered may ask for more; who does not take what is sent is busy.
        young.note_request();
        young.note_answer();
        new.note_request();
        new.note_answer();
        new.note_waiting();
        assert!(places.take().now_or_never().is_none());
        assert_eq!([&busy, &young, &new].map(is_taken_away), [false, false, false]);
    }

    /// A download from a slow disk, and an upload whose client pauses after `100 Continue`, move nothing for a while.
    #[tokio::test]
    async fn a_request_in_flight_keeps_the_place_however_long_nothing_moves() {
        let places = Places::new(1);
        let place = places.take().await;
        let later = || Instant::now() + 2 * KEPT;
        place.note_request();
        let (one, other) = (place.requests().begin(), place.requests().begin());
        place.note_answer();
        drop(one);
        places.take_away_idle(later());
        assert!(!is_taken_away(&place));
        drop(other);
        // What the client has not taken yet is still to be sent.
        place.note_waiting();
        places.take_away_idle(later());
        assert!(!is_taken_away(&place));
        place.note_answer();
        places.take_away_idle(Instant::now());
        assert!(!is_taken_away(&place), "it may ask for more");
        places.take_away_idle(later());
        assert!(is_taken_away(&place));
    }
}
