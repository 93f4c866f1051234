//! Tag patterns, version ranges and maps of names: a first line that says what, further lines that are asked about.
#![no_main]

use gapferry::pipeline::allowlist::Pattern;
use gapferry::pipeline::allowlist::semver::VersionRange;
use gapferry::pipeline::naming::Map;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| gapferry_fuzz::bounded(64 << 20, || {
    let (first, rest) = text.split_once('\n').unwrap_or((text, "1.2.3"));
    if let Ok(range) = first.parse::<VersionRange>() {
        let again: VersionRange = range.to_string().parse().expect("its own words");
        rest.lines().for_each(|tag| assert_eq!(range.contains_tag(tag), again.contains_tag(tag), "{range} {tag}"));
    }
    match Pattern::new(first) {
        Ok(pattern) => rest.lines().for_each(|tag| _ = pattern.is_match(tag)),
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
    if let Err(problems) = Map::parse(text.as_bytes(), "map") {
        assert!(!problems.is_empty());
    }
}));
