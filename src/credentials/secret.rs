//! Text that must not be shown.

use std::fmt;

use crate::base::progress::conceal;

/// A password or token. It prints as `***`, compares as text and cannot be serialized. If others repeat it, messages and logs
/// also show `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        let text = text.into();
        // Others who receive it may repeat it.
        conceal(&text);
        Secret(text)
    }

    /// The text itself, only for an `Authorization` header or a request body.
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
