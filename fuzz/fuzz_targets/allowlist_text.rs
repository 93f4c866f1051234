//! The text notation: read or refused, each problem on one line, each rule a name that reads back the same.
#![no_main]

use gapferry::pipeline::allowlist::{Allowlist, Select};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| gapferry_fuzz::bounded(4 << 20 | 600 * data.len(), || {
    let arguments: Vec<String> = std::str::from_utf8(data).iter().map(|text| (*text).to_owned()).collect();
    for read in [
        Allowlist::parse_sources(&[], &[("a.txt".to_owned(), data.to_vec())]),
        Allowlist::parse_sources(&arguments, &[]),
    ] {
        match read {
            Ok(list) => {
                for rule in &list.rules {
                    let plain = match &rule.select {
                        Select::AllTags(repository) => repository.to_string(),
                        one => one.to_string(),
                    };
                    gapferry_fuzz::is_harmless(&plain);
                    let same = Allowlist::parse_sources(&[plain], &[]).expect("its own words");
                    assert_eq!(same.rules[0].select, rule.select);
                }
            }
            Err(problems) => {
                assert!(!problems.is_empty());
                problems.iter().for_each(|problem| gapferry_fuzz::is_harmless(&problem.to_string()));
            }
        }
    }
}));
