//! Runs blocking work on its own threads, so that it does not hold up network traffic.

use std::panic::resume_unwind;

use tokio::task::{JoinError, spawn_blocking};

use super::error::{Error, Kind, Result};

/// Runs `work` on a thread that may block. A panic in it is a bug in this program and is resumed here.
///
/// # Errors
/// The error of the work. [`Kind::Interrupted`] with `attempted` if the process is ending and the work was never started.
pub async fn blocking<T: Send + 'static>(
    attempted: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    joined(attempted, spawn_blocking(work).await)
}

/// The outcome of work that [`spawn_blocking`] started.
///
/// # Errors
/// As for [`blocking`].
pub fn joined<T>(attempted: &str, ended: std::result::Result<Result<T>, JoinError>) -> Result<T> {
    ended.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(error) => Err(Error::new(Kind::Interrupted, attempted).because(error)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exit code 130 and “run again to continue” would hide a bug.
    #[tokio::test]
    async fn a_panic_in_a_thread_is_not_reported_as_an_interruption() {
        let work = tokio::spawn(blocking("writing", || -> Result<()> { panic!("a defect") }));
        let ended = work.await.unwrap_err();
        assert_eq!(ended.into_panic().downcast_ref::<&str>(), Some(&"a defect"));
        assert_eq!(blocking("writing", || Ok(1)).await.unwrap(), 1);
    }
}
