//! Standard input, which can be read only once.

use std::sync::OnceLock;

use crate::base::error::{Error, Result};

/// Claims standard input for `what`. The same purpose may claim it again.
///
/// # Errors
/// Standard input is already claimed for another purpose.
pub fn take_stdin(what: &'static str) -> Result<()> {
    static TAKEN: OnceLock<&'static str> = OnceLock::new();
    let first = *TAKEN.get_or_init(|| what);
    if first == what {
        return Ok(());
    }
    Err(Error::input(format!("standard input cannot be both {first} and {what}: put one of them in a file")))
}
