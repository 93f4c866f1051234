//! The files of a set that is being written, or was not finished: unfinished volumes, and a journal for each selection of
//! volumes.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::layout::VolumePlan;
use super::names::SetName;
use super::set::{Set, VolumeSelection};
use crate::base::fsops::{self, Entry};
use crate::oci::Digest;

/// The suffix of an unfinished volume.
pub const PARTIAL: &str = ".partial";
/// What surrounds the distinguishing part in the names of journals.
const JOURNAL: (&str, &str) = (".volumes", ".partial.journal");
/// Number of digits that represent the selected volumes; thousands of numbers are too long for a name.
const DIGITS: usize = 16;

/// Where a volume is written.
pub fn partial_of(set: &Set, volume: &VolumePlan) -> PathBuf {
    fsops::beside(&set.path_of(volume), PARTIAL)
}

/// The journal of the selected volumes. Each selection has its own, so that a finished run removes no other.
pub fn journal_of(name: &SetName, selection: &VolumeSelection) -> PathBuf {
    let which = match selection {
        VolumeSelection::All => String::new(),
        VolumeSelection::Only(numbers) => {
            let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
            format!("-{}", &Digest::sha256(numbers.join(",").as_bytes()).hex()[..DIGITS])
        }
    };
    let (begin, end) = JOURNAL;
    fsops::beside(name.base(), &format!("{begin}{which}{end}"))
}

/// The unfinished volumes with this name.
pub fn partials(name: &SetName) -> Vec<PathBuf> {
    let is_partial = |path: &Path| path.as_os_str().as_bytes().ends_with(PARTIAL.as_bytes());
    files(name, |path| is_partial(path) && name.has_part(&path.with_extension("")))
}

/// The journals with this name, for any selection.
pub fn journals(name: &SetName) -> Vec<PathBuf> {
    files(name, |path| is_journal(name, path))
}

fn is_journal(name: &SetName, path: &Path) -> bool {
    let bytes = |path: &Path| path.file_name().unwrap_or_default().as_bytes().to_vec();
    let (file, base, (begin, end)) = (bytes(path), bytes(name.base()), JOURNAL);
    let which = file.strip_prefix(&base[..]).and_then(|rest| rest.strip_prefix(begin.as_bytes()));
    match which.and_then(|rest| rest.strip_suffix(end.as_bytes())) {
        Some([]) => true,
        Some([b'-', digits @ ..]) => digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    }
}

/// Removes the journals of volumes that have their names: a run that was killed at that moment has left them.
pub fn remove_orphaned_journals(name: &SetName) {
    if !partials(name).is_empty() {
        return;
    }
    for journal in journals(name) {
        // It does no harm.
        let _ = Entry::of(&journal).and_then(|journal| journal.remove());
    }
}

/// The files in the directory of a set that `is_wanted`, in order. Their paths begin like that of the set: without `./` if no
/// directory was named.
pub fn files(name: &SetName, is_wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(fsops::parent(name.base())).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()));
    let paths = files.map(|entry| name.base().with_file_name(entry.file_name()));
    let mut paths: Vec<PathBuf> = paths.filter(|path| is_wanted(path)).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_belongs_to_one_selection_of_one_set() {
        let set = SetName::of(Path::new("usb/images.tar"));
        let of = |selection| journal_of(&set, &selection);
        let some = |numbers: &[u32]| of(VolumeSelection::Only(numbers.iter().copied().collect()));
        let all =
            [of(VolumeSelection::All), some(&[2]), some(&[2, 3]), some(&[23]), some(&(1..9_999).collect::<Vec<_>>())];
        for (at, journal) in all.iter().enumerate() {
            assert!(is_journal(&set, journal) && !all[..at].contains(journal), "{}", journal.display());
            assert!(journal.file_name().is_some_and(|name| name.len() < 255));
            let other = SetName::of(Path::new("usb/images.volumes.tar"));
            assert!(!is_journal(&other, journal) && !is_journal(&set, &journal_of(&other, &VolumeSelection::All)));
        }
        assert!(!is_journal(&set, Path::new("usb/images.volumes-2.partial.journal")));
        assert!(!is_journal(&set, Path::new("usb/images.tar.partial.journal")));
    }
}
