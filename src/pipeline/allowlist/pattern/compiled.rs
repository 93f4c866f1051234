//! A cache of compiled patterns with bounded memory.
//!
//! # Threats
//! A short pattern can take a mebibyte once it is compiled, and a file can contain thousands of such patterns. Each
//! pattern is compiled once to validate it. The cache keeps patterns in use up to [`KEPT`] bytes; others are compiled
//! again when they are needed.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::{Error, Regex, RegexBuilder};

/// The bytes that a compiled pattern is charged for: the smallest of these limits that its program fits in. A pattern
/// that exceeds the largest is rejected.
const SIZES: [usize; 3] = [16 << 10, 128 << 10, 1 << 20];
/// Bytes that the engine needs in addition, and the maximum size of the tables that it builds while it searches.
const BESIDES: usize = 16 << 10;
const MAX_TABLE: usize = 256 << 10;
/// Limit for all cached patterns together, in bytes.
const KEPT: usize = 32 << 20;

static COMPILED: LazyLock<Mutex<Compiled>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Compiled {
    patterns: HashMap<String, Regex>,
    charged: usize,
}

/// # Errors
/// The text is not a valid pattern, or its compiled form is too large.
pub fn check(pattern: &str) -> Result<(), Error> {
    compile(pattern).map(drop)
}

/// The compiled pattern. `None` if [`check`] rejects it.
pub fn get(pattern: &str) -> Option<Regex> {
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = compiled.patterns.get(pattern) {
        return Some(known.clone());
    }
    let (regex, charge) = compile(pattern).ok()?;
    if compiled.charged + charge > KEPT {
        *compiled = Compiled::default();
    }
    compiled.charged += charge;
    compiled.patterns.insert(pattern.to_owned(), regex.clone());
    Some(regex)
}

fn compile(pattern: &str) -> Result<(Regex, usize), Error> {
    let [sizes @ .., largest] = SIZES;
    let build = |size: usize| {
        let regex = RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(MAX_TABLE.min(size)).build();
        regex.map(|regex| (regex, size + BESIDES + pattern.len()))
    };
    sizes.into_iter().find_map(|size| build(size).ok()).map_or_else(|| build(largest), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_bounded_and_every_expensive_pattern_still_matches() {
        for at in 0..200 {
            let pattern = format!(r"^(?:\pL{{20}}|{at})$");
            assert!(get(&pattern).unwrap().is_match(&at.to_string()));
            let compiled = COMPILED.lock().unwrap();
            assert!(compiled.charged <= KEPT && compiled.patterns.len() < 200);
        }
        assert!(get(r"(\pL{900}){900}").is_none() && get("(").is_none());
    }
}
