//! A small file system for one test: full, read-only or gone when the test wants it.

use std::path::Path;
use std::process::Command;

use super::tempdir;

/// A separate file system, unmounted when dropped.
pub struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    /// `None` where mounting is not allowed; the test then reports that and ends.
    pub fn of(kibibytes: u64) -> Option<Disk> {
        let directory = tempdir();
        let options = format!("size={kibibytes}k");
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path()).output();
        match output {
            Ok(output) if output.status.success() => Some(Disk { directory }),
            Ok(output) => skipped(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => skipped(&error.to_string()),
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn make_read_only(&self) {
        self.remount("ro");
    }

    pub fn resize(&self, kibibytes: u64) {
        self.remount(&format!("size={kibibytes}k"));
    }

    fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        let status = Command::new("mount").args(["-o", &option]).arg(self.path()).status().unwrap();
        assert!(status.success());
    }
}

fn skipped(why: &str) -> Option<Disk> {
    eprintln!("skipped: only root can mount a small file system: {}", why.trim());
    None
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}
