//! Tag patterns in Go's dialect (RE2). They match anywhere in the tag unless anchored, as in `images-by-tag-regex`.
//!
//! The engine is the `regex` crate, which is linear in the length of the text, like Go's. Where the dialects differ,
//! the pattern is rewritten before it is compiled (`dialect`).

mod compiled;
mod dialect;

use std::fmt;

use regex::Regex;

/// Maximum length of a pattern in bytes.
const MAX_LENGTH: usize = 4096;

/// A pattern. It prints as it was written. A file may have tens of thousands of them; only some stay compiled
/// (`compiled`).
#[derive(Clone, Debug)]
pub struct Pattern {
    written: String,
    /// The pattern in the dialect of the engine.
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
    /// Compiles a pattern that matches anywhere in a text.
    pub fn new(written: &str) -> Result<Pattern, PatternError> {
        Pattern::compile(written, |body| body)
    }

    /// Compiles a pattern that has to match a whole text.
    pub(crate) fn whole(written: &str) -> Result<Pattern, PatternError> {
        Pattern::compile(written, |body| format!(r"\A(?:{body})\z"))
    }

    fn compile(written: &str, wrap: impl Fn(String) -> String) -> Result<Pattern, PatternError> {
        let fail = |reason: String| PatternError { text: written.chars().take(200).collect(), reason };
        if written.len() > MAX_LENGTH {
            return Err(fail(format!("longer than {MAX_LENGTH} bytes")));
        }
        let body = dialect::from_go(written).map_err(fail)?;
        // Compile it alone first: wrapping must not make a pattern with a stray parenthesis valid.
        let rewritten = wrap(body.clone());
        compiled::check(&body).and_then(|()| compiled::check(&rewritten)).map_err(|e| fail(one_line(&e)))?;
        Ok(Pattern { written: written.to_owned(), rewritten })
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.regex().is_some_and(|regex| regex.is_match(text))
    }

    /// Returns the compiled form, for callers that need its groups. It was compiled before, so it exists.
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

/// The crate draws a pointer below the pattern; a problem must be one line.
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
