//! A whole tar through the layout reader. What it offers lies within the file under a safe name; and a tar in which it
//! finds nothing wrong is read the same by another program.
#![no_main]

use std::collections::BTreeMap;
use std::io::Read;

use gapferry::files::Layout;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = gapferry_fuzz::with_checksums(data);
    let (_kept, path) = gapferry_fuzz::file(&bytes);
    let opened = gapferry_fuzz::bounded(4 << 20 | 32 * bytes.len(), || Layout::open(&path));
    let Ok(layout) = opened else { return };
    let mut ours = BTreeMap::new();
    for (name, size) in layout.entries() {
        let parts: Vec<&str> = name.split('/').collect();
        assert!(!parts.iter().any(|part| matches!(*part, "" | "." | "..")) && name.len() <= 1024, "{name}");
        gapferry_fuzz::is_harmless(name);
        let content = layout.read(name, bytes.len() as u64).expect("within the tar").expect("listed");
        assert_eq!(content.len() as u64, size);
        ours.insert(name.to_owned(), content.to_vec());
    }
    layout.problems().iter().for_each(|fault| gapferry_fuzz::is_harmless(&fault.path));
    if layout.problems().is_empty() {
        assert_eq!(ours, others(&bytes));
    }
});

/// What the `tar` crate reads.
fn others(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(bytes);
    let mut found = BTreeMap::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry that was found to be right");
        if entry.header().entry_type().is_file() && !entry.path_bytes().ends_with(b"/") {
            let name = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its content");
            found.insert(name.strip_prefix("./").unwrap_or(&name).to_owned(), content);
        }
    }
    found
}
