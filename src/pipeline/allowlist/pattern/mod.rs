//! Tag patterns in Go's dialect (RE2), found anywhere in the tag unless anchored, as `images-by-tag-regex` has them.
//!
//! The engine below is the `regex` crate: linear in the text like Go's. Where the two dialects differ, the pattern is
//! rewritten before it is compiled (`dialect`).

mod compiled;
mod dialect;

use std::fmt;

use regex::Regex;

/// Longest accepted pattern, in bytes.
const MAX_LENGTH: usize = 4096;

/// A pattern; prints as it was written. A file may have tens of thousands: compiled, only some of them are kept (`compiled`).
#[derive(Clone, Debug)]
pub struct Pattern {
    written: String,
    /// For the engine.
    rewritten: String,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern {text:?}: {reason}")]
pub struct PatternError {
    text: String,
    reason: String,
}

impl Pattern {
    /// Compiles a pattern that is found anywhere in a text.
    pub fn new(written: &str) -> Result<Pattern, PatternError> {
        Pattern::compile(written, |body| body)
    }

    /// Compiles a pattern that has to match a text from its first to its last character.
    pub(crate) fn whole(written: &str) -> Result<Pattern, PatternError> {
        Pattern::compile(written, |body| format!(r"\A(?:{body})\z"))
    }

    fn compile(written: &str, wrap: impl Fn(String) -> String) -> Result<Pattern, PatternError> {
        let fail = |reason: String| PatternError { text: written.chars().take(200).collect(), reason };
        if written.len() > MAX_LENGTH {
            return Err(fail(format!("longer than {MAX_LENGTH} bytes")));
        }
        let body = dialect::from_go(written).map_err(fail)?;
        // Alone first: a pattern with a stray parenthesis must not become valid inside the wrapping.
        let rewritten = wrap(body.clone());
        compiled::check(&body).and_then(|()| compiled::check(&rewritten)).map_err(|e| fail(one_line(&e)))?;
        Ok(Pattern { written: written.to_owned(), rewritten })
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.regex().is_some_and(|regex| regex.is_match(text))
    }

    /// The compiled form, for callers that need its groups. There is one: it was compiled before.
    pub(crate) fn regex(&self) -> Option<Regex> {
        compiled::get(&self.rewritten)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.written == other.written
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// The crate draws the pattern with a pointer below; a problem is one line.
fn one_line(error: &regex::Error) -> String {
    let text = match error {
        regex::Error::CompiledTooBig(_) => return "too large when compiled".into(),
        other => other.to_string(),
    };
    let last = text.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

#[cfg(test)]
mod tests;
