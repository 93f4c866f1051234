//! A storage in a plain tar.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FoundFile, Kind};
use crate::archive::tar::{self, Entries, Place};
use crate::base::error::{Error, Result};
use crate::content::Slice;

/// Bytes of names, and number of problems, that are kept: more than any real storage needs, less than would hurt.
const MAX_NAMES: usize = 512 * 1024 * 1024;
/// Approximate size of a name in addition to its bytes.
const PER_NAME: usize = 64;
const MAX_PROBLEMS: usize = 1000;

#[derive(Debug)]
pub struct Packed {
    file: Arc<File>,
    entries: BTreeMap<String, Entry>,
    problems: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    File(Place),
    Directory,
    Other,
}

impl Packed {
    /// Scans the tar.
    ///
    /// # Errors
    /// It cannot be read, or contains more than one storage.
    pub fn open(path: &Path, file: Arc<File>, length: u64) -> Result<Option<(PathBuf, Packed)>> {
        let mut seen = Seen::default();
        tar::scan(path, &*file, length, &mut seen)?;
        seen.report_absolute();
        let mut roots = seen.roots.into_iter();
        match (roots.next(), roots.next()) {
            (None, _) => match seen.absolute {
                Some((_, number)) => Err(Error::input(format!("{}: {}", path.display(), absolute(number)))),
                None => Ok(None),
            },
            (Some(root), None) => {
                Ok(Some((path.join(root), Packed { file, entries: seen.entries, problems: seen.problems })))
            }
            (Some(one), Some(other)) => {
                let [one, other] = [&one, &other].map(|root| if root.is_empty() { "." } else { root });
                let text = format!("{} contains two storages, in {one} and in {other}", path.display());
                Err(Error::input(format!("{text}; unpack the right one, or pack it alone")))
            }
        }
    }

    pub fn problems(&self) -> &[(String, String)] {
        &self.problems
    }

    pub fn list(&self, directory: &str) -> Vec<(String, Kind)> {
        let prefix = format!("{directory}/");
        let mut names: BTreeMap<&str, Kind> = BTreeMap::new();
        let mut from = Bound::Included(prefix.clone());
        while let Some((path, entry)) = self.entries.range((from, Bound::Unbounded)).next() {
            let Some(rest) = path.strip_prefix(&prefix) else { break };
            let (name, kind) = match (rest.split_once('/'), entry) {
                (Some((name, _)), _) => (name, Kind::Directory),
                (None, Entry::File(_)) => (rest, Kind::File),
                (None, Entry::Directory) => (rest, Kind::Directory),
                (None, Entry::Other) => (rest, Kind::Other),
            };
            // Skips everything below a directory at once: '0' follows '/'.
            from = match rest.contains('/') {
                true => Bound::Included(format!("{prefix}{name}0")),
                false => Bound::Excluded(path.clone()),
            };
            names.entry(name).or_insert(kind);
        }
        names.into_iter().filter(|(name, _)| !name.is_empty()).map(|(name, kind)| (name.to_owned(), kind)).collect()
    }

    pub fn file(&self, path: &str, shown: PathBuf) -> FoundFile {
        match self.entries.get(path) {
            Some(Entry::File(place)) => FoundFile::File(Slice::new(self.file.clone(), shown, place.offset, place.size)),
            Some(Entry::Directory) => FoundFile::Odd("it is a directory"),
            Some(Entry::Other) => FoundFile::Odd("it is not a regular file"),
            None if self.list(path).is_empty() => FoundFile::Nothing,
            None => FoundFile::Odd("it is a directory"),
        }
    }
}

/// The results of the scan.
#[derive(Default)]
struct Seen {
    /// By path below the root. If an entry occurs several times, the last one counts, as for programs that unpack a tar.
    entries: BTreeMap<String, Entry>,
    roots: BTreeSet<String>,
    problems: Vec<(String, String)>,
    names: usize,
    /// The first absolute name, and the number of them.
    absolute: Option<(String, usize)>,
}

impl Seen {
    /// One problem for all of them, because a tar written with `tar -P` has no other names.
    fn report_absolute(&mut self) {
        if let Some((name, number)) = self.absolute.clone() {
            self.fault(name.as_bytes(), absolute(number));
        }
    }

    fn add(&mut self, name: &[u8], entry: Entry) {
        if name.starts_with(b"/") {
            let first = || (String::from_utf8_lossy(name).into_owned(), 0);
            self.absolute.get_or_insert_with(first).1 += 1;
            return;
        }
        let plain = match plain(name) {
            Ok(plain) => plain,
            Err(what) => return self.fault(name, what),
        };
        let Some((root, path)) = below_root(plain) else { return };
        if !self.roots.contains(root) && self.roots.len() < 2 {
            self.roots.insert(root.to_owned());
        }
        // These are most of a storage and tell little, because manifests list what an image needs. Empty links and links by
        // another algorithm are kept.
        let is_whole_layer = |place: &Place| place.size > 0 && !path.contains("/_layers/sha512/");
        let is_dull = match entry {
            Entry::File(place) => path.contains("/_layers/") && is_whole_layer(&place),
            _ => path.contains("/_layers/"),
        };
        if is_dull || path.contains("/_uploads/") {
            return;
        }
        self.names += path.len() + PER_NAME;
        self.entries.insert(path.to_owned(), entry);
    }
}

/// The path of a storage in the tar, and the rest of the name.
fn below_root(name: &str) -> Option<(&str, &str)> {
    const TREE: &str = "docker/registry/v2/";
    if let Some(at) = name.match_indices(TREE).map(|(at, _)| at).find(|at| *at == 0 || name[..*at].ends_with('/')) {
        let end = at + TREE.len();
        return Some((&name[..end - 1], &name[end..]));
    }
    // The tar was written from inside.
    ["registry/v2/", "v2/", ""].into_iter().find_map(|root| {
        let path = name.strip_prefix(root)?;
        let known = path.starts_with("repositories/") || path.starts_with("blobs/");
        known.then_some((root.trim_end_matches('/'), path))
    })
}

fn absolute(number: usize) -> String {
    let names = if number == 1 {
        "1 name is an absolute path".to_owned()
    } else {
        format!("{number} names are absolute paths")
    };
    format!("{names} and not read: pack it without -P (--absolute-names)")
}

/// A relative path of plain components; a leading `./` is tolerated.
fn plain(name: &[u8]) -> Result<&str, &'static str> {
    let name = std::str::from_utf8(name).map_err(|_| "its name is not UTF-8")?;
    let name = name.strip_prefix("./").unwrap_or(name);
    match name {
        // As in `.//etc`.
        _ if name.starts_with('/') => Err("its name is an absolute path"),
        _ if name.split('/').any(|part| part == "..") => Err("its name leads out of the storage"),
        _ => Ok(name),
    }
}

impl Entries for Seen {
    fn file(&mut self, name: &[u8], place: Place) {
        self.add(name, Entry::File(place));
    }

    fn directory(&mut self, name: &[u8]) {
        self.add(name.strip_suffix(b"/").unwrap_or(name), Entry::Directory);
    }

    /// Reported only when a file is looked for there.
    fn other(&mut self, name: &[u8], _: impl Into<String>) {
        self.add(name, Entry::Other);
    }

    fn cut(&mut self, name: &[u8], what: String) {
        self.fault(name, what);
    }

    fn fault(&mut self, name: &[u8], what: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let name = String::from_utf8_lossy(name).chars().take(300).flat_map(char::escape_debug).collect();
            self.problems.push((name, what.into()));
        }
    }

    fn count(&mut self, path: &Path) -> Result<()> {
        if self.names > MAX_NAMES {
            let text = format!(
                "the names in {} take more than {MAX_NAMES} bytes, more than a storage can have",
                path.display()
            );
            return Err(Error::damaged(text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(names: &[&str]) -> Result<Option<(PathBuf, Packed)>> {
        let mut tar = ::tar::Builder::new(Vec::new());
        for name in names {
            let (kind, data) = match name.ends_with('/') {
                true => (::tar::EntryType::Directory, ""),
                false => (::tar::EntryType::Regular, *name),
            };
            let mut header = ::tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(data.len() as u64);
            // The builder would reject bad names.
            //
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, data.as_bytes()).unwrap();
        }
        let bytes = tar.into_inner().unwrap();
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
        Packed::open(Path::new("x.tar"), Arc::new(file), bytes.len() as u64)
    }

    #[test]
    fn the_storage_is_found_wherever_it_was_packed_from() {
        for root in
            ["", "v2", "registry/v2", "docker/registry/v2", "./docker/registry/v2", "data/registry/docker/registry/v2"]
        {
            let name = |path: &str| if root.is_empty() { path.to_owned() } else { format!("{root}/{path}") };
            let names = [name("repositories/a/b/_manifests/tags/1/current/link"), name("blobs/sha256/x/data")];
            let (shown, tree) = packed(&[&names[0], &names[1]]).unwrap().unwrap();
            assert_eq!(shown, Path::new("x.tar").join(root.trim_start_matches("./")));
            assert_eq!(tree.list("repositories/a"), [("b".into(), Kind::Directory)], "{root}");
            assert!(matches!(tree.file("blobs/sha256/x/data", "x".into()), FoundFile::File(_)));
            assert!(matches!(tree.file("blobs/sha256/x", "x".into()), FoundFile::Odd("it is a directory")));
            assert!(matches!(tree.file("blobs/sha256/y", "x".into()), FoundFile::Nothing));
        }
        assert!(packed(&["etc/passwd", "docker/registry/v2x"]).unwrap().is_none());
        let two = packed(&["a/docker/registry/v2/repositories/x", "b/docker/registry/v2/repositories/x"]).unwrap_err();
        let message = "x.tar contains two storages, in a/docker/registry/v2 and in b/docker/registry/v2; unpack the right one, or pack it alone";
        assert_eq!(two.to_string(), message);
    }

    #[test]
    fn names_are_listed_once_whatever_sorts_between_them() {
        let names =
            ["repositories/a", "repositories/a-b/x", "repositories/c/d/e", "repositories/c/f/", "repositories/c-/"];
        let (_, tree) = packed(&names).unwrap().unwrap();
        let listed: Vec<String> = tree.list("repositories").into_iter().map(|(name, _)| name).collect();
        assert_eq!(listed, ["a", "a-b", "c", "c-"]);
        assert_eq!(tree.list("repositories/c"), [("d".into(), Kind::Directory), ("f".into(), Kind::Directory)]);
        assert_eq!(tree.list("repositories/none"), []);
    }

    #[test]
    fn names_that_lead_out_are_faults_and_never_offered() {
        let (_, tree) = packed(&["repositories/a", "repositories/../../x", "/repositories/b", "../repositories/c"])
            .unwrap()
            .unwrap();
        assert_eq!(tree.list("repositories"), [("a".into(), Kind::File)]);
        assert_eq!(tree.problems().len(), 3, "{:?}", tree.problems());
    }

    #[test]
    fn a_tar_of_absolute_names_is_one_problem_with_the_number_and_the_remedy() {
        let names = ["repositories/a", "/v2/repositories/b", "/v2/repositories/c", "/etc/passwd"];
        let (_, tree) = packed(&names).unwrap().unwrap();
        let [(path, what)] = tree.problems() else { panic!("{:?}", tree.problems()) };
        assert_eq!(path, "/v2/repositories/b");
        assert!(what.contains("3 names") && what.contains("-P"), "{what}");
        let only = packed(&names[1..]).unwrap_err().to_string();
        assert!(only.contains("x.tar: 3 names are absolute paths") && only.contains("-P"), "{only}");
    }

    #[test]
    fn short_names_count_for_what_they_take_in_memory() {
        let mut seen = Seen::default();
        seen.add(b"blobs/a", Entry::Directory);
        assert!(seen.names > 2 * "blobs/a".len());
    }
}
