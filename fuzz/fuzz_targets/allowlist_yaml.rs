//! The YAML notations, ours and skopeo's: read or refused, bounded in memory, each problem on one line.
#![no_main]

use gapferry::pipeline::allowlist::Allowlist;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| gapferry_fuzz::bounded(256 << 20 | 600 * data.len(), || {
    match Allowlist::parse_sources(&[], &[("a.yaml".to_owned(), data.to_vec())]) {
        Ok(list) => {
            list.rules.iter().for_each(|rule| gapferry_fuzz::is_harmless(&rule.select.repository().to_string()))
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            problems.iter().for_each(|problem| gapferry_fuzz::is_harmless(&problem.to_string()));
        }
    }
}));
