//! Collects what a scan finds: safe names as entries, everything odd as a fault, both bounded.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::path::Path;

use super::LayoutProblem;
use crate::archive::tar::{Entries, Place};
use crate::base::error::{Error, Result};

/// More entries than any real layout has.
const MAX_ENTRIES: usize = 1_000_000;
/// Maximum total length of names in bytes. This and the number of entries bound the memory for a list of them.
const MAX_NAMES: usize = 160 * 1024 * 1024;
/// Maximum number of components of a name; those of a layout have three.
pub const MAX_DEPTH: usize = 16;
/// More oddities than anyone would read.
const MAX_FAULTS: usize = 100;

/// Entries and faults so far.
#[derive(Clone, Default)]
pub struct FoundFiles {
    pub entries: BTreeMap<String, Place>,
    pub faults: Vec<LayoutProblem>,
    /// Directories with an entry of their own.
    directories: Vec<String>,
    /// Problems that are only counted.
    unreported: usize,
    /// Entries of any kind, and bytes of the names that are kept.
    seen: usize,
    names: usize,
}

impl Entries for FoundFiles {
    fn file(&mut self, path: &[u8], place: Place) {
        match safe_path(path) {
            Err(what) => self.fault(path, what),
            Ok(path) if self.entries.contains_key(&path) => self.fault(path.as_bytes(), "it exists twice"),
            Ok(path) => {
                self.names += path.len();
                self.entries.insert(path, place);
            }
        }
    }

    /// A directory. It is not needed, but unpacking would create it.
    fn directory(&mut self, path: &[u8]) {
        let plain = path.strip_suffix(b"/").unwrap_or(path);
        if matches!(plain, b"." | b"") && path != b"/" {
            return;
        }
        match safe_path(plain) {
            Err(what) => self.fault(path, what),
            Ok(plain) => {
                self.names += plain.len();
                self.directories.push(plain);
            }
        }
    }

    fn other(&mut self, path: &[u8], what: impl Into<String>) {
        self.fault(path, what);
    }

    fn cut(&mut self, path: &[u8], what: String) {
        self.note(path, what, true);
    }

    fn fault(&mut self, path: &[u8], what: impl Into<String>) {
        self.note(path, what.into(), false);
    }

    fn count(&mut self, path: &Path) -> Result<()> {
        self.seen += 1;
        if self.seen > MAX_ENTRIES {
            return Err(Error::damaged(format!(
                "{} has more than {MAX_ENTRIES} entries, more than a bundle can have",
                path.display()
            )));
        }
        if self.names > MAX_NAMES {
            let text = format!(
                "the names in {} take more than {MAX_NAMES} bytes, more than a bundle can have",
                path.display()
            );
            return Err(Error::damaged(text));
        }
        Ok(())
    }
}

impl FoundFiles {
    fn note(&mut self, path: &[u8], what: String, is_cut: bool) {
        // A layout full of faults must not fill the memory either.
        if self.faults.len() == MAX_FAULTS {
            self.unreported += 1;
            return;
        }
        let path = String::from_utf8_lossy(path).chars().take(300).flat_map(char::escape_debug).collect();
        self.faults.push(LayoutProblem { path, what, is_cut });
    }

    pub fn finish(mut self) -> (BTreeMap<String, Place>, Vec<LayoutProblem>) {
        self.find_collisions();
        if self.unreported > 0 {
            let what = format!("and {} more that do not belong there", self.unreported);
            self.faults.push(LayoutProblem { path: String::new(), what, is_cut: false });
        }
        (self.entries, self.faults)
    }

    /// Finds files that unpacking would put in the same place, or where it needs a directory; on a case-insensitive file
    /// system there are more of these. This happens at the end, when the order does not matter, and among hashes, because a
    /// second copy of every name would take more memory than the names.
    fn find_collisions(&mut self) {
        let state = RandomState::new();
        let mut files: Vec<u64> = self.entries.keys().map(|name| hash(&state, name)).collect();
        files.sort_unstable();
        let mut odd = Odd { room: MAX_FAULTS - self.faults.len(), ..Odd::default() };
        self.files_with_one_name(&state, &files, &mut odd);
        self.files_and_directories(&state, &files, &mut odd);
        odd.reported.into_iter().for_each(|(name, what)| self.fault(name.as_bytes(), what));
        self.unreported += odd.unreported;
    }

    /// Names that differ only in case.
    fn files_with_one_name(&self, state: &RandomState, files: &[u64], odd: &mut Odd) {
        let common: HashSet<u64> = files.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        if common.is_empty() {
            return;
        }
        // In the order of the tar; the later one is to blame.
        let mut names: Vec<(u64, &str)> = self.entries.iter().map(|(name, place)| (place.offset, &**name)).collect();
        names.retain(|(_, name)| common.contains(&hash(state, name)));
        names.sort_unstable();
        let mut first: HashMap<u64, &str> = HashMap::new();
        for (_, name) in names {
            match first.entry(hash(state, name)) {
                Entry::Occupied(other) => odd.add(name, || differs_in_case(other.get())),
                Entry::Vacant(place) => drop(place.insert(name)),
            }
        }
    }

    /// Files whose name is also that of a directory, or a parent of another entry.
    fn files_and_directories(&self, state: &RandomState, files: &[u64], odd: &mut Odd) {
        let mut directories: HashMap<u64, &str> = HashMap::new();
        for name in self.entries.keys() {
            note_above(&mut directories, state, files, name);
        }
        for name in &self.directories {
            note_above(&mut directories, state, files, name);
            if files.binary_search(&hash(state, name)).is_ok() {
                directories.insert(hash(state, name), name);
            }
        }
        if directories.is_empty() {
            return;
        }
        for name in self.entries.keys() {
            match directories.get(&hash(state, name)) {
                None => {}
                Some(directory) if directory == name => odd.add(name, || "it is a file and a directory".to_owned()),
                Some(directory) => odd.add(name, || differs_in_case(&format!("the directory {directory}"))),
            }
        }
    }
}

fn differs_in_case(other: &str) -> String {
    format!("its name differs from {other} only in case")
}

/// Names that collide: those to report, and the number of the others.
#[derive(Default)]
struct Odd {
    room: usize,
    reported: Vec<(String, String)>,
    unreported: usize,
}

impl Odd {
    fn add(&mut self, name: &str, what: impl FnOnce() -> String) {
        if self.reported.len() < self.room {
            self.reported.push((name.to_owned(), what()));
        } else {
            self.unreported += 1;
        }
    }
}

/// Hash of a name in lower case. The state is random in every run, so names with equal hashes cannot be chosen.
fn hash(state: &RandomState, name: &str) -> u64 {
    let mut hasher = state.build_hasher();
    name.chars().flat_map(char::to_lowercase).for_each(|c| c.hash(&mut hasher));
    hasher.finish()
}

/// Records, by its hash, every directory above `name` that is one of `files`, which are given by their sorted hashes.
fn note_above<'a>(directories: &mut HashMap<u64, &'a str>, state: &RandomState, files: &[u64], name: &'a str) {
    let mut hasher = state.build_hasher();
    for (at, c) in name.char_indices() {
        if c == '/' && files.binary_search(&hasher.finish()).is_ok() {
            directories.insert(hasher.finish(), &name[..at]);
        }
        c.to_lowercase().for_each(|c| c.hash(&mut hasher));
    }
}

/// Accepts a relative path of plain components; a leading `./` is allowed.
fn safe_path(path: &[u8]) -> Result<String, &'static str> {
    let text = std::str::from_utf8(path).map_err(|_| "its name is not UTF-8")?;
    let text = text.strip_prefix("./").unwrap_or(text);
    if text.is_empty() || text.len() > 1024 {
        return Err("its name is empty or too long");
    }
    if text.starts_with('/') {
        return Err("its name is an absolute path");
    }
    if text.split('/').any(|component| component == "..") {
        return Err("its name leads out of the bundle");
    }
    if text.split('/').any(|component| component.is_empty() || component == ".") {
        return Err("its name is not a plain path");
    }
    if text.split('/').count() > MAX_DEPTH {
        return Err("its name nests deeper than in any layout");
    }
    if text.chars().any(|c| c.is_control() || c == '\\') {
        return Err("its name has characters that no layout uses");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(found: &mut FoundFiles, name: &str, offset: u64) {
        found.file(name.as_bytes(), Place { offset, size: 0 });
    }

    #[test]
    fn of_names_that_differ_in_case_the_later_is_blamed_and_named_with_the_former() {
        let mut found = FoundFiles::default();
        for (at, name) in
            ["index.json", "Blobs/x", "blobs/X", "INDEX.json", "İ", "other", "Index.JSON"].iter().enumerate()
        {
            add(&mut found, name, at as u64);
        }
        let (entries, faults) = found.finish();
        let reported: Vec<_> = faults.iter().map(|fault| (fault.path.as_str(), fault.what.as_str())).collect();
        assert_eq!(entries.len(), 7);
        assert_eq!(
            reported,
            [
                ("blobs/X", "its name differs from Blobs/x only in case"),
                ("INDEX.json", "its name differs from index.json only in case"),
                ("Index.JSON", "its name differs from index.json only in case"),
            ]
        );
    }

    /// The message about these names, directories with a final `/`. It must not depend on their order.
    #[track_caller]
    fn message_of(names: &[&str]) -> Vec<String> {
        let reported = |names: &mut dyn Iterator<Item = &&str>| {
            let mut found = FoundFiles::default();
            for name in names {
                match name.ends_with('/') {
                    true => found.directory(name.as_bytes()),
                    false => add(&mut found, name, 0),
                }
            }
            let faults = found.finish().1.into_iter();
            faults.map(|fault| format!("{}: {}", fault.path, fault.what)).collect::<Vec<_>>()
        };
        let forth = reported(&mut names.iter());
        assert_eq!(reported(&mut names.iter().rev()), forth);
        forth
    }

    #[test]
    fn a_file_where_unpacking_needs_a_directory_is_a_problem_whichever_comes_first() {
        for names in [&["a", "a/"][..], &["a", "a/b"], &["a", "a/b/"], &["a", "a-", "a.b", "a/b/c/d", "a0"]] {
            assert_eq!(message_of(names), ["a: it is a file and a directory"], "{names:?}");
        }
        assert_eq!(message_of(&["a/b", "a/b/c", "a/"]), ["a/b: it is a file and a directory"]);
        for names in
            [&["index.json", "INDEX.json/"][..], &["index.json", "INDEX.json/x"], &["index.json", "Index.JSON/x/"]]
        {
            let reported = message_of(names);
            assert!(reported.len() == 1 && reported[0].starts_with("index.json: "), "{reported:?}");
            assert!(reported[0].ends_with("only in case") && reported[0].contains("the directory I"), "{reported:?}");
        }
        assert_eq!(message_of(&["blobs/", "blobs/sha256/", "blobs/sha256/x", "blob", "Blobs/y"]), [""; 0]);
    }

    #[test]
    fn a_directory_that_unpacking_would_make_elsewhere_is_a_problem() {
        let faults = |name: &str| {
            let mut found = FoundFiles::default();
            found.directory(name.as_bytes());
            found.finish().1.into_iter().map(|fault| fault.what).collect::<Vec<_>>()
        };
        for plain in ["./", ".", "blobs/", "./blobs/sha256/", "blobs"] {
            assert_eq!(faults(plain), [""; 0], "{plain}");
        }
        for (name, says) in [
            ("../up/", "leads out"),
            ("../", "leads out"),
            ("/", "empty"),
            ("/root/", "absolute"),
            ("a/../../up/", "leads out"),
            ("a//b/", "plain path"),
            ("a\u{1b}[2J/", "characters"),
        ] {
            let reported = faults(name);
            assert!(reported.len() == 1 && reported[0].contains(says), "{name}: {reported:?}");
        }
    }

    #[test]
    fn a_layout_made_of_oddities_names_the_first_and_counts_the_others() {
        let mut found = FoundFiles::default();
        (0..5_000).for_each(|_| found.fault(b"link", "it is a symbolic link"));
        let (_, faults) = found.finish();
        assert_eq!(faults.len(), MAX_FAULTS + 1);
        assert_eq!(faults[MAX_FAULTS].what, format!("and {} more that do not belong there", 5_000 - MAX_FAULTS));
    }

    #[test]
    fn names_that_collide_without_end_are_counted_and_not_written_down() {
        let mut found = FoundFiles::default();
        // All upper and lower cases of one name.
        for bits in 0..1u32 << 12 {
            let name: String = (0..12).map(|at| if bits >> at & 1 == 0 { 'x' } else { 'X' }).collect();
            add(&mut found, &name, u64::from(bits));
        }
        let mut odd = Odd { room: 3, ..Odd::default() };
        let state = RandomState::new();
        let files: Vec<u64> = found.entries.keys().map(|name| hash(&state, name)).collect();
        found.files_with_one_name(&state, &files, &mut odd);
        assert_eq!((odd.reported.len(), odd.unreported), (3, (1 << 12) - 4));
        let (_, faults) = found.finish();
        assert_eq!(faults.len(), MAX_FAULTS + 1);
        assert_eq!(
            faults[MAX_FAULTS].what,
            format!("and {} more that do not belong there", (1 << 12) - 1 - MAX_FAULTS)
        );
    }

    #[test]
    fn a_name_of_a_thousand_directories_is_refused_before_anything_looks_at_each() {
        let mut found = FoundFiles::default();
        add(&mut found, &("d/".repeat(400) + "x"), 0);
        add(&mut found, &(["d/"; MAX_DEPTH - 1].concat() + "x"), 0);
        let (entries, faults) = found.finish();
        assert_eq!((entries.len(), faults.len()), (1, 1));
        assert!(faults[0].what.contains("deeper"), "{faults:?}");
    }

    #[test]
    fn entries_and_their_names_are_bounded_whatever_they_are() {
        let mut found = FoundFiles::default();
        let refused = (0..=MAX_ENTRIES).find_map(|_| found.count(Path::new("b.tar")).err()).unwrap();
        assert_eq!(refused.to_string(), "b.tar has more than 1000000 entries, more than a bundle can have");
        for one_more in ["a file", "a directory/"] {
            let mut found = FoundFiles { names: MAX_NAMES, ..FoundFiles::default() };
            match one_more.strip_suffix('/') {
                Some(directory) => found.directory(directory.as_bytes()),
                None => add(&mut found, one_more, 0),
            }
            let refused = found.count(Path::new("b.tar")).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "the names in b.tar take more than 167772160 bytes, more than a bundle can have"
            );
        }
    }
}
