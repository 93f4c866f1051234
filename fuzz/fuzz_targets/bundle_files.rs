//! A bundle in which one file was made anew by somebody who knows how: sums and sizes are right, only the content can
//! betray it. The first byte says which file.
#![no_main]

use std::sync::Arc;

use gapferry::bundle::{BUNDLE_JSON, BundleJson, CHUNKS, DOCKER_JSON, INDEX_JSON, OCI_LAYOUT, SUMS, is_signature};
use gapferry::verify::{Depth, check};
use gapferry::oci::Digest;
use gapferry::base::progress::{Events, Silent};
use libfuzzer_sys::fuzz_target;

type Files = Vec<(String, Vec<u8>)>;

fuzz_target!(|data: &[u8]| {
    let Some((which, content)) = data.split_first() else { return };
    let names = [BUNDLE_JSON, INDEX_JSON, DOCKER_JSON, SUMS, OCI_LAYOUT];
    let name = names[usize::from(*which) % names.len()];
    let mut files = gapferry_fuzz::bundle();
    *bytes(&mut files, name) = content.to_vec();
    if name != SUMS {
        make_sums_right(&mut files, name);
    }
    let tar = gapferry_fuzz::tar_of(&files);
    let (_kept, path) = gapferry_fuzz::file(&tar);
    let events: Events = Arc::new(Silent);
    let report = gapferry_fuzz::bounded(64 << 20 | 256 * tar.len(), || check(&path, Depth::Full, &events));
    if let Ok(report) = report {
        // One file was changed; it does not take more words to say so than it has bytes.
        assert!(report.problems.len() <= 100 + content.len(), "{} problems", report.problems.len());
    }
});

fn bytes<'a>(files: &'a mut Files, name: &str) -> &'a mut Vec<u8> {
    &mut files.iter_mut().find(|(path, _)| path == name).expect("part of the fixture").1
}

fn make_sums_right(files: &mut Files, name: &str) {
    let content = bytes(files, name).clone();
    if name != BUNDLE_JSON
        && let Ok(mut bundle) = BundleJson::parse(bytes(files, BUNDLE_JSON), BUNDLE_JSON)
    {
        for file in bundle.files.iter_mut().filter(|file| file.path == name) {
            (file.size, file.digest) = (content.len() as u64, Digest::sha256(&content));
        }
        let mut canonical = serde_json::to_vec_pretty(&bundle).expect("JSON");
        canonical.push(b'\n');
        *bytes(files, BUNDLE_JSON) = canonical;
    }
    let line = |(path, bytes): &(String, Vec<u8>)| format!("{}  {path}\n", Digest::sha256(bytes).hex());
    let is_first = |(path, _): &&(String, Vec<u8>)| path == BUNDLE_JSON;
    let (first, others): (Vec<_>, Vec<_>) =
        files.iter().filter(|(path, _)| path != SUMS && path != CHUNKS && !is_signature(path)).partition(is_first);
    let sums: String = first.into_iter().chain(others).map(line).collect();
    *bytes(files, SUMS) = sums.into_bytes();
}
