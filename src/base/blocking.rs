//! Work that blocks, on threads of its own, while others wait for the network.

use std::panic::resume_unwind;

use tokio::task::{JoinError, spawn_blocking};

use super::error::{Error, Kind, Result};

/// Runs `work` on a thread that may block. A panic there is a defect of this program and goes on here.
///
/// # Errors
/// That of the work. [`Kind::Interrupted`], of what was `attempted`: the process ends and the work was not begun.
pub async fn blocking<T: Send + 'static>(
    attempted: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    joined(attempted, spawn_blocking(work).await)
}

/// What came of work that [`spawn_blocking`] had begun.
///
/// # Errors
/// As [`blocking`].
pub fn joined<T>(attempted: &str, ended: std::result::Result<Result<T>, JoinError>) -> Result<T> {
    ended.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(error) => Err(Error::new(Kind::Interrupted, attempted).because(error)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exit code 130 and “run again to continue” would hide it.
    #[tokio::test]
    async fn a_defect_in_a_thread_is_not_called_an_interruption() {
        let work = tokio::spawn(blocking("writing", || -> Result<()> { panic!("a defect") }));
        let ended = work.await.unwrap_err();
        assert_eq!(ended.into_panic().downcast_ref::<&str>(), Some(&"a defect"));
        assert_eq!(blocking("writing", || Ok(1)).await.unwrap(), 1);
    }
}
