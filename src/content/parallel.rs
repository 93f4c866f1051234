//! Work on many threads, for whoever has many things to hash or to ask for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Does `work` for every item on as many threads as there are cores; results come in the items' order. Hashing is the work it
/// is for.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    on_threads(items, std::thread::available_parallelism().map_or(1, usize::from), work)
}

/// The same with a buffer of `length` bytes for each thread: a fresh one for each item would cost as much as reading it.
pub fn in_parallel_buffered<T: Sync, R: Send>(
    items: &[T],
    length: usize,
    work: impl Fn(&mut [u8], &T) -> R + Sync,
) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    with_own(items, threads, || vec![0; length], |buffer, item| work(buffer, item))
}

/// The same on so many threads: for work that mostly waits.
pub fn on_threads<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    with_own(items, threads, || (), |(), item| work(item))
}

/// The same where each thread has something of its own that is worth keeping from one item to the next: a buffer.
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
                // All at once: what is done a hundred thousand times a second is not worth a lock each.
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
