//! What the fuzz targets share: a count of memory in use, and files that exist in memory only.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is done by the system's allocator; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `job`, which may not have more than `limit` bytes in use at any time.
#[track_caller]
pub fn bounded<T>(limit: usize, job: impl FnOnce() -> T) -> T {
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = job();
    let used = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    assert!(used <= limit, "{used} bytes were in use, at most {limit} are allowed");
    result
}

/// A file with these bytes, and a path that it can be opened by while it is kept.
pub fn file(bytes: &[u8]) -> (File, PathBuf) {
    let descriptor = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = File::from(descriptor);
    file.write_all(bytes).expect("room in memory");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    (file, path)
}

/// A message is one line that cannot speak to the terminal.
#[track_caller]
pub fn is_harmless(message: &str) {
    let speaks = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!message.chars().any(speaks), "{message:?}");
}

/// A tar of these files.
pub fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, &bytes[..]).expect("a short name");
    }
    builder.into_inner().expect("memory")
}

/// A bundle that is whole, as it was written once.
pub const BUNDLE: &[u8] = include_bytes!("../../fixtures/bundle-format-1.tar");

/// The files of [`BUNDLE`].
pub fn bundle() -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(BUNDLE);
    let entries = archive.entries().expect("a tar");
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.expect("an entry");
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).expect("its content");
        (entry.path().expect("a name").display().to_string(), bytes)
    };
    entries.map(read).collect()
}

/// Makes the checksum of every block right that says it is a header: mutations seldom do.
pub fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}
