use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::*;
use crate::base::error::Kind;

/// A directory of ours, and next to it one of a user who must not lose anything.
fn fixture() -> (tempfile::TempDir, Dir, PathBuf) {
    let work = tempfile::tempdir().unwrap();
    let (ours, victim) = (work.path().join("ours"), work.path().join("victim"));
    fs::create_dir_all(&ours).unwrap();
    fs::create_dir_all(&victim).unwrap();
    fs::write(victim.join("kept"), "kept").unwrap();
    let dir = Dir::open(&ours).unwrap();
    (work, dir, victim)
}

fn is_unharmed(victim: &Path) -> bool {
    fs::read(victim.join("kept")).is_ok_and(|bytes| bytes == b"kept")
}

fn write(dir: &Dir, name: &str, text: &str) -> Entry {
    let entry = Entry::in_dir(dir, name);
    fs::write(entry.path(), text).unwrap();
    entry
}

fn read(entry: &Entry) -> String {
    fs::read_to_string(entry.path()).unwrap()
}

#[test]
fn a_link_in_place_of_an_unfinished_file_does_not_lead_the_writing_elsewhere() {
    let (_work, dir, victim) = fixture();
    symlink(victim.join("kept"), dir.path_of("out.partial")).unwrap();
    for how in [Open::Read, Open::Change, Open::Keep, Open::Empty, Open::Append] {
        let error = dir.open_file("out.partial", how).unwrap_err();
        let message = "it is not a regular file, so gapferry did not create it; remove it";
        assert_eq!(error.to_string(), format!("opening {}: {message}", dir.path_of("out.partial").display()));
    }
    assert!(dir.create_new("out.partial", 0o666).is_err() && is_unharmed(&victim));
    dir.remove("out.partial").unwrap();
    assert!(is_unharmed(&victim) && !dir.path_of("out.partial").exists());
}

#[test]
fn a_pipe_in_place_of_a_file_to_read_does_not_keep_the_program_waiting() {
    let (work, dir, victim) = fixture();
    let pipe = work.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe, victim.clone(), PathBuf::from("/dev/null")] {
        let (sender, opened) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(open_plain(&path)));
        let opened = opened.recv_timeout(std::time::Duration::from_secs(60)).expect("it does not wait");
        assert_eq!(opened.unwrap_err().to_string(), "it is not a regular file");
    }
    symlink(victim.join("kept"), dir.path_of("link")).unwrap();
    assert!(open_plain(&dir.path_of("link")).is_ok());
}

#[test]
fn nothing_in_a_linked_directory_is_opened_made_or_removed() {
    let (_work, dir, victim) = fixture();
    symlink(&victim, dir.path_of("blobs")).unwrap();
    assert!(dir.dir("blobs").is_err() && dir.make("blobs", 0o777).is_err());
    assert!(dir.make_parents("blobs/new/file", 0o777).is_err());
    for name in ["blobs/kept", "../victim/kept", "..", ".", ""] {
        assert!(dir.remove(name).is_err() && dir.remove_tree(name).is_err(), "{name}");
        assert!(dir.open_file(name, Open::Empty).is_err() && dir.create_new(name, 0o666).is_err(), "{name}");
    }
    dir.remove_tree("blobs").unwrap();
    assert!(is_unharmed(&victim) && fs::read_dir(&victim).unwrap().count() == 1);
    assert!(dir.path_of("blobs").symlink_metadata().is_err());
}

#[test]
fn no_link_is_followed_by_either_way_of_opening() {
    let (_work, dir, victim) = fixture();
    let root = dir.path().to_owned();
    fs::create_dir_all(root.join("repositories/real")).unwrap();
    fs::write(root.join("repositories/real/file"), "content").unwrap();
    symlink(&victim, root.join("out")).unwrap();
    symlink(victim.join("kept"), root.join("repositories/file")).unwrap();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for (path, good) in [
        ("repositories/real/file", true),
        ("out/kept", false),
        ("repositories/file", false),
        ("repositories/real/../real/file", true),
        ("../x", false),
        ("/etc/passwd", false),
    ] {
        assert_eq!(dir.open_below(path, OFlags::NONBLOCK).is_ok(), good, "{path}");
        // Without support by the system, only plain components are resolved.
        assert_eq!(dir.open_step_by_step(path, flags).is_ok(), good && !path.contains(".."), "{path}");
    }
}

#[test]
fn a_whole_tree_is_removed_and_what_its_links_lead_to_is_not() {
    let (_work, dir, victim) = fixture();
    let deep = (0..200).fold(dir.path_of("tree"), |path, _| path.join("d"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "x").unwrap();
    symlink(&victim, deep.join("link")).unwrap();
    symlink(&victim, dir.path_of("tree/d/link")).unwrap();
    dir.remove_tree("tree").unwrap();
    dir.remove_tree("tree").unwrap();
    assert!(dir.names().unwrap().is_empty() && is_unharmed(&victim));
}

#[test]
fn an_open_directory_stays_the_same_when_its_name_leads_elsewhere() {
    let (work, dir, victim) = fixture();
    let mark = dir.make("mark", 0o777).unwrap().dir;
    write(&mark, "left", "x");
    fs::rename(dir.path_of("mark"), work.path().join("away")).unwrap();
    symlink(&victim, dir.path_of("mark")).unwrap();
    for name in mark.names().unwrap() {
        mark.remove(name).unwrap();
    }
    assert!(is_unharmed(&victim) && fs::read_dir(work.path().join("away")).unwrap().count() == 0);
    assert!(!Entry::in_dir(&dir, "mark").is_still(&mark).unwrap());
}

#[test]
fn a_published_file_replaces_the_old_one_and_leaves_no_other_name() {
    let (_work, dir, _) = fixture();
    let (partial, out) = (write(&dir, "out.partial", "new"), write(&dir, "out", "old"));
    publish(&partial.open(Open::Change).unwrap(), &partial, &out).unwrap();
    assert_eq!((read(&out).as_str(), dir.names().unwrap().len()), ("new", 1));
}

#[test]
fn a_set_of_files_is_published_in_its_order_and_stops_at_the_first_that_cannot_be() {
    let (_work, dir, _) = fixture();
    fs::create_dir(dir.path_of("2")).unwrap();
    let synced = ["1", "2", "3"].map(|name| {
        let (partial, named) = (write(&dir, &format!("{name}.partial"), name), Entry::in_dir(&dir, name));
        Synced::new(&partial.open(Open::Change).unwrap(), partial, named).unwrap()
    });
    assert!(Synced::publish(synced).is_err());
    assert!(dir.path_of("1").is_file() && dir.path_of("2.partial").is_file() && dir.path_of("3.partial").is_file());
}

#[test]
fn a_new_bundle_takes_the_place_of_the_old_directory_and_of_what_a_killed_run_left() {
    let (_work, dir, _) = fixture();
    let (partial, out) = (Entry::in_dir(&dir, "out.partial"), Entry::in_dir(&dir, "out"));
    for text in ["first", "second"] {
        fs::create_dir(partial.path()).unwrap();
        fs::write(partial.path().join("file"), text).unwrap();
        replace_directory(&partial, &out, out.occupant()).unwrap();
        assert_eq!(fs::read_to_string(out.path().join("file")).unwrap(), text);
        assert_eq!(dir.names().unwrap(), ["out"]);
    }
}

/// Someone creates a file where a bundle will be, hours after the export checked the name.
#[test]
fn what_has_taken_a_name_meanwhile_is_not_replaced() {
    let (_work, dir, _) = fixture();
    let (partial, out) = (write(&dir, "out.partial", "new"), Entry::in_dir(&dir, "out"));
    let nothing = out.occupant();
    write(&dir, "out", "theirs");
    let publish = |expected| publish_over(&partial.open(Open::Change).unwrap(), &partial, &out, expected);
    assert_eq!(publish(nothing).unwrap_err().kind(), Kind::Input);
    let theirs = out.occupant();
    write(&dir, "other", "another");
    Entry::in_dir(&dir, "other").rename(&out).unwrap();
    assert!(publish(theirs).is_err());
    assert_eq!((read(&out).as_str(), read(&partial).as_str()), ("another", "new"));
    publish(out.occupant()).unwrap();
    assert_eq!(read(&out), "new");
    let (partial, out) = (Entry::in_dir(&dir, "d.partial"), Entry::in_dir(&dir, "d"));
    let nothing = out.occupant();
    for entry in [&partial, &out] {
        fs::create_dir(entry.path()).unwrap();
    }
    fs::write(out.path().join("thesis"), "theirs").unwrap();
    assert!(replace_directory(&partial, &out, nothing).is_err());
    assert!(out.path().join("thesis").exists() && partial.path().exists());
}

/// It would permanently take the space of a whole bundle.
#[test]
fn an_old_directory_that_a_run_killed_between_two_renames_left_goes_with_the_next() {
    let (_work, dir, _) = fixture();
    let (partial, out) = (Entry::in_dir(&dir, "out.partial"), Entry::in_dir(&dir, "out"));
    for left in ["out.partial", "out.partial.old"] {
        fs::create_dir(dir.path_of(left)).unwrap();
        fs::write(dir.path_of(left).join("file"), left).unwrap();
    }
    replace_directory(&partial, &out, out.occupant()).unwrap();
    assert_eq!(fs::read_to_string(out.path().join("file")).unwrap(), "out.partial");
    assert_eq!(dir.names().unwrap(), ["out"]);
}

#[test]
fn a_replacement_that_is_not_finished_leaves_the_file_as_it_was_and_nothing_beside_it() {
    let (_work, dir, _) = fixture();
    let file = write(&dir, "state", "old");
    let mut new = Replacement::of(file.path()).unwrap();
    std::io::Write::write_all(new.file(), b"half").unwrap();
    assert_eq!(dir.names().unwrap().len(), 2);
    drop(new);
    assert_eq!((read(&file).as_str(), dir.names().unwrap().len()), ("old", 1));
    let mut new = Replacement::of(file.path()).unwrap();
    std::io::Write::write_all(new.file(), b"whole").unwrap();
    assert_eq!(new.file().metadata().unwrap().permissions().mode() & 0o777, 0o600, "it may hold a secret");
    new.commit().unwrap();
    assert_eq!((read(&file).as_str(), dir.names().unwrap().len()), ("whole", 1));
}

#[test]
fn what_killed_runs_left_of_replacements_goes_and_nothing_else() {
    let (_work, dir, _) = fixture();
    write(&dir, ".gapferry-0123", "half");
    write(&dir, "sha256-ab.1", "whole");
    Replacement::remove_left(&dir).unwrap();
    assert_eq!(dir.names().unwrap(), ["sha256-ab.1"]);
}

#[test]
fn two_runs_do_not_write_one_output() {
    let (_work, dir, _) = fixture();
    let out = dir.path_of("out");
    let lock = WriteLock::take(&out).unwrap();
    assert!(WriteLock::take(&out).is_err() && WriteLock::check(&out).is_err());
    assert!(WriteLock::take(&dir.path_of("other")).is_ok());
    drop(lock);
    WriteLock::check(&out).unwrap();
    assert!(dir.names().unwrap().is_empty(), "no lock is left behind");
    let locked = LockedDir::take(dir.clone(), dir.path()).unwrap();
    assert!(LockedDir::try_take(Dir::open(dir.path()).unwrap()).is_none());
    drop(locked);
    assert!(LockedDir::try_take(Dir::open(dir.path()).unwrap()).is_some());
}

#[test]
fn a_link_is_made_to_the_file_that_was_meant_and_to_no_other() {
    let (_work, dir, victim) = fixture();
    write(&dir, "data", "meant");
    let identity = Identity::of(&dir.stat("data").unwrap().unwrap());
    let file = Linkable { directory: dir.clone(), path: "data".to_owned(), identity };
    assert_eq!(file.link_at(&dir, "one").unwrap(), Linked::Done);
    fs::rename(dir.path_of("data"), dir.path_of("aside")).unwrap();
    fs::hard_link(victim.join("kept"), dir.path_of("data")).unwrap();
    assert_eq!(file.link_at(&dir, "two").unwrap(), Linked::Changed);
    assert!(!dir.path_of("two").exists() && is_unharmed(&victim));
}

/// Only as root: other users cannot change the owner of files.
#[test]
fn a_file_that_a_user_put_in_place_of_ours_is_not_given_to_that_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_work, dir, victim) = fixture();
    let owner = Owner { user: 10_000, group: 10_000 };
    let uid = |path: &Path| std::os::unix::fs::MetadataExt::uid(&path.symlink_metadata().unwrap());
    fs::create_dir_all(dir.path_of("tree/given")).unwrap();
    fs::write(dir.path_of("tree/file"), "ours").unwrap();
    symlink(&victim, dir.path_of("tree/link")).unwrap();
    fs::hard_link(victim.join("kept"), dir.path_of("tree/hard")).unwrap();
    assert_eq!(dir.give_tree("tree", owner).unwrap(), 1, "a hard link stays");
    for (path, expected) in [("tree", 10_000), ("tree/given", 10_000), ("tree/file", 10_000), ("tree/hard", 0)] {
        assert_eq!(uid(&dir.path_of(path)), expected, "{path}");
    }
    // The directory is theirs now; the file, which has lost its other names, is root's.
    fs::write(dir.path_of("tree/given/roots"), "root's").unwrap();
    assert_eq!(dir.give_tree("tree", owner).unwrap(), 1);
    assert_eq!(uid(&dir.path_of("tree/given/roots")), 0);
    assert_eq!((uid(&victim), uid(&victim.join("kept"))), (0, 0));
}

#[test]
fn a_child_process_that_is_just_being_started_does_not_keep_the_lock_of_a_file() {
    let (_work, dir, _) = fixture();
    let file = write(&dir, "kept", "x");
    let open = || file.open(Open::Read).unwrap();
    let locked = LockedFile::try_take(open()).unwrap();
    assert!(LockedFile::try_take(open()).is_none());
    // As after fork: another descriptor for the same open file.
    let _childs = locked.file().try_clone().unwrap();
    drop(locked);
    assert!(LockedFile::try_take(open()).is_some());
}

/// In a directory that others can write, an unfinished file may be a hard link to another user's file.
#[test]
fn a_file_that_has_another_name_is_not_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("precious");
    std::fs::write(&other, "precious").unwrap();
    std::fs::hard_link(&other, directory.path().join("b.tar.partial")).unwrap();
    let dir = Dir::open(directory.path()).unwrap();
    for how in [Open::Keep, Open::Empty, Open::Append] {
        let error = dir.open_file("b.tar.partial", how).unwrap_err();
        assert!(error.chain().contains("hard link"), "{}", error.chain());
    }
    assert!(dir.open_file("b.tar.partial", Open::Read).is_ok());
    assert_eq!(std::fs::read(&other).unwrap(), b"precious");
}
