//! Limits how many requests of one kind a registry gets at once. A registry that refuses requests without saying for
//! how long may be getting too many at a time: the lane then becomes narrower, and wider again after a while
//! ([`Gate`](super::limit::Gate) decides when).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) struct Lane {
    places: Arc<Semaphore>,
    most: usize,
    state: Mutex<State>,
}

struct State {
    width: usize,
    /// Places in use that are not reissued when they become free.
    surplus: usize,
}

/// A place in a lane. Dropping the permit frees the place.
pub(super) struct Permit {
    place: Option<OwnedSemaphorePermit>,
    lane: Arc<Lane>,
}

impl Lane {
    /// A lane for `most` requests at once, and for at least one.
    pub fn new(most: usize) -> Arc<Lane> {
        let most = most.max(1);
        let state = Mutex::new(State { width: most, surplus: 0 });
        Arc::new(Lane { places: Arc::new(Semaphore::new(most)), most, state })
    }

    /// Waits for a place.
    pub async fn enter(self: &Arc<Lane>) -> Permit {
        let place = self.places.clone().acquire_owned().await.ok();
        Permit { place, lane: self.clone() }
    }

    /// Halves the width, down to one. `false` if the width was one already.
    pub fn narrow(&self) -> bool {
        let mut state = self.state();
        let width = state.width.div_ceil(2);
        let (fewer, is_narrower) = (state.width - width, width < state.width);
        state.width = width;
        state.surplus += fewer;
        state.surplus -= self.places.forget_permits(state.surplus);
        is_narrower
    }

    /// Adds a place, up to the original width.
    pub fn widen(&self) {
        let mut state = self.state();
        if state.width == self.most {
            return;
        }
        state.width += 1;
        match state.surplus.checked_sub(1) {
            Some(left) => state.surplus = left,
            None => self.places.add_permits(1),
        }
    }

    #[cfg(test)]
    pub fn width(&self) -> usize {
        self.state().width
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        if let (Some(left), Some(place)) = (state.surplus.checked_sub(1), self.place.take()) {
            state.surplus = left;
            place.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(lane: &Lane) -> usize {
        lane.places.available_permits()
    }

    /// Requests in progress are not interrupted, but their places are not reissued.
    #[tokio::test]
    async fn a_narrowed_lane_shrinks_as_requests_end_and_widens_to_its_original_width() {
        let lane = Lane::new(6);
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(lane.enter().await);
        }
        assert!(lane.narrow() && free(&lane) == 0, "the free place is gone, and two of the held ones follow");
        held.truncate(3);
        assert_eq!(free(&lane), 0, "three requests are in progress");
        held.clear();
        assert_eq!(free(&lane), 3);
        assert!(lane.narrow() && lane.narrow() && !lane.narrow(), "2, then 1, never 0");
        assert_eq!(free(&lane), 1);
        let last = lane.enter().await;
        (0..9).for_each(|_| lane.widen());
        assert_eq!(free(&lane), 5);
        drop(last);
        assert_eq!(free(&lane), 6, "never wider than at first");
    }

    #[tokio::test]
    async fn widening_a_lane_that_is_still_shrinking_loses_no_places() {
        let lane = Lane::new(4);
        let held = [lane.enter().await, lane.enter().await, lane.enter().await, lane.enter().await];
        lane.narrow();
        lane.widen();
        drop(held);
        assert_eq!(free(&lane), 3);
    }
}
