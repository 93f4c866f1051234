//! A text that must not be seen.

use std::fmt;

use crate::base::progress::conceal;

/// A password or token. Prints as `***`, compares as text, and cannot be serialized. Where others repeat it, messages and logs
/// show `***` too.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        let text = text.into();
        // Whoever is shown it may repeat it.
        conceal(&text);
        Secret(text)
    }

    /// The text itself: for an `Authorization` header or a request body, nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
