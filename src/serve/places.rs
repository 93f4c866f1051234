//! The places for connections: only so many, and one that waits for a request gives way to a new one.

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

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    is_taken_away: AtomicBool,
    waker: AtomicWaker,
}

struct State {
    /// Since when the client may send a request and has sent none; `None` while it is served.
    idle: Option<Instant>,
    /// It has sent one before.
    has_asked: bool,
}

impl Default for State {
    fn default() -> State {
        State { idle: Some(Instant::now()), has_asked: false }
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
            self.take_away_idle();
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
    fn take_away_idle(&self) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = taken.iter().filter_map(Weak::upgrade).filter_map(|shared| Some((shared.idle()?, shared)));
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
    fn idle(&self) -> Option<(bool, Instant)> {
        let State { idle, has_asked } = *self.state();
        let since = idle.filter(|since| !has_asked || since.elapsed() >= KEPT)?;
        (!self.is_taken_away.load(Ordering::Acquire)).then_some((has_asked, since))
    }
}

impl Place {
    /// The client has sent a request, or a part of what belongs to it.
    pub fn note_request(&self) {
        *self.shared.state() = State { idle: None, has_asked: true };
    }

    /// The client has taken a part of an answer, perhaps the last.
    pub fn note_answer(&self) {
        self.shared.state().idle = Some(Instant::now());
    }

    /// The client does not take what it is sent.
    pub fn note_waiting(&self) {
        self.shared.state().idle = None;
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
}
