//! Parse, run, print the error and its hint, exit code — nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    give_memory_back();
    #[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
    look_up_without_modules();
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

/// Makes a static binary resolve names from `/etc/hosts` and DNS alone, and users from `/etc/passwd`, whatever
/// `/etc/nsswitch.conf` says. glibc (2.34 and newer) has these built in. It would load every other module, such as mDNS or
/// systemd's, from the machine's own glibc, whose version need not fit: the program could crash.
#[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
fn look_up_without_modules() {
    use std::ffi::{CStr, c_char, c_int};

    unsafe extern "C" {
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }
    const LOOKUPS: [(&CStr, &CStr); 2] = [(c"hosts", c"files dns"), (c"passwd", c"files")];
    for (database, services) in LOOKUPS {
        // SAFETY: both are valid C strings, glibc copies what it keeps, and there is no second thread yet.
        unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
    }
}
