//! Parse, run, print the error and its hint, exit code — nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    give_memory_back();
    gapferry::cli::main()
}

/// glibc keeps freed memory, in a pool for each thread, for later allocations of the same kind. Ours come in phases that
/// have little in common: with 5,000 images that was a third of the peak. Blocks of 1 MiB and more go back at once, and
/// the ends of the two pools that are left: with a single one, reading a storage on two cores took a third longer.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_memory_back() {
    const LARGE: libc::c_int = 1024 * 1024;
    let settings = [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE)];
    for (setting, value) in settings {
        // SAFETY: called before there is a second thread; a setting that is not taken changes nothing.
        unsafe { libc::mallopt(setting, value) };
    }
}
