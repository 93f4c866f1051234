//! A cache of compiled patterns, limited in memory.
//!
//! # Threats
//! A short pattern can take a mebibyte once it is compiled, and a file can contain thousands of such patterns. Each is
//! compiled once to validate it. Of the patterns in use, only as many as the limit allows stay compiled; the others are
//! compiled again when they are needed.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::{Error, Regex, RegexBuilder};

/// The size that a compiled pattern is charged, in bytes: the smallest of these that its program fits in. No pattern
/// takes more than the largest.
const SIZES: [usize; 3] = [16 << 10, 128 << 10, 1 << 20];
/// What the engine needs in addition, in bytes, and the largest table that it builds while it searches.
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
/// It is not a pattern, or it is too large.
pub fn check(pattern: &str) -> Result<(), Error> {
    compile(pattern).map(drop)
}

/// `None` if [`check`] rejects it.
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
    fn of_expensive_patterns_few_are_kept_and_all_of_them_match() {
        for at in 0..200 {
            let pattern = format!(r"^(?:\pL{{20}}|{at})$");
            assert!(get(&pattern).unwrap().is_match(&at.to_string()));
            let compiled = COMPILED.lock().unwrap();
            assert!(compiled.charged <= KEPT && compiled.patterns.len() < 200);
        }
        assert!(get(r"(\pL{900}){900}").is_none() && get("(").is_none());
    }
}
