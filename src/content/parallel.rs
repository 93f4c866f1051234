//! Runs work in parallel on threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Runs `work` for every item on as many threads as there are cores. Results are in the order of the items. Meant for hashing.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    on_threads(items, std::thread::available_parallelism().map_or(1, usize::from), work)
}

/// Does the same with a buffer of `length` bytes per thread: a new one for each item would cost as much as reading it.
pub fn in_parallel_buffered<T: Sync, R: Send>(
    items: &[T],
    length: usize,
    work: impl Fn(&mut [u8], &T) -> R + Sync,
) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    with_own(items, threads, || vec![0; length], |buffer, item| work(buffer, item))
}

/// Does the same on this many threads, for work that mostly waits.
pub fn on_threads<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    with_own(items, threads, || (), |(), item| work(item))
}

/// Does the same with a state of its own for each thread, such as a buffer.
fn with_own<T: Sync, R: Send, S>(
    items: &[T],
    threads: usize,
    make: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                // Results are stored at the end, because locking a hundred thousand times a second is expensive.
                let (mut own, mut state) = (Vec::new(), make());
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    own.push((at, work(&mut state, item)));
                }
                done.lock().unwrap_or_else(PoisonError::into_inner).append(&mut own);
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
