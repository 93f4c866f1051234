//! Walks everything below a name.

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::dir::Dir;
use super::entry::Entry;
use crate::base::error::Result;

/// An entry of a walk.
pub(super) struct Walked<'a> {
    pub parent: &'a Dir,
    pub name: &'a OsStr,
    /// The directory with this name; `None` if it is anything else.
    pub dir: Option<&'a Dir>,
}

/// A directory that a walk is in.
struct Level {
    dir: Dir,
    /// Its name in the parent.
    name: OsString,
    /// Entries that are still to be visited.
    rest: Vec<Listed>,
}

struct Listed {
    name: OsString,
    /// According to the directory; it may have changed since.
    kind: FileType,
}

impl Dir {
    /// Calls `visit` for the name and everything below it, and for each directory after its content. Links are never followed,
    /// not even one that replaces a directory meanwhile. Nothing need have the name.
    pub(super) fn walk(&self, name: &OsStr, visit: &mut dyn FnMut(&Walked<'_>) -> Result<()>) -> Result<()> {
        let mut levels: Vec<Level> = Vec::new();
        let mut next = Some(Listed { name: name.to_owned(), kind: FileType::Unknown });
        loop {
            let parent = levels.last().map_or(self, |level| &level.dir);
            match next {
                Some(listed) => match parent.enter(&listed)? {
                    Entered::Directory(level) => levels.push(level),
                    Entered::Other => visit(&Walked { parent, name: &listed.name, dir: None })?,
                    Entered::Nothing => {}
                },
                None => {
                    let Some(done) = levels.pop() else { return Ok(()) };
                    let parent = levels.last().map_or(self, |level| &level.dir);
                    visit(&Walked { parent, name: &done.name, dir: Some(&done.dir) })?;
                }
            }
            next = levels.last_mut().and_then(|level| level.rest.pop());
            if next.is_none() && levels.is_empty() {
                return Ok(());
            }
        }
    }

    /// Calls `each` for every entry below the directory that is not a directory itself.
    ///
    /// # Errors
    /// The system refuses, or `each` fails.
    pub fn each_file(&self, each: &mut dyn FnMut(&Entry) -> Result<()>) -> Result<()> {
        let visit = &mut |found: &Walked<'_>| match found.dir {
            Some(_) => Ok(()),
            None => each(&Entry::in_dir(found.parent, found.name)),
        };
        self.names()?.iter().try_for_each(|name| self.walk(name, visit))
    }

    fn enter(&self, listed: &Listed) -> Result<Entered> {
        if !matches!(listed.kind, FileType::Directory | FileType::Unknown) {
            return Ok(Entered::Other);
        }
        let dir = match self.try_dir(&listed.name) {
            Ok(dir) => dir,
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Entered::Other),
            Err(Errno::NOENT) => return Ok(Entered::Nothing),
            Err(errno) => return Err(self.fail("opening", &listed.name, errno)),
        };
        let mut rest = Vec::new();
        dir.each_name(|name, _, kind| {
            rest.push(Listed { name: OsStr::from_bytes(name.to_bytes()).to_owned(), kind });
            ControlFlow::Continue(())
        })?;
        Ok(Entered::Directory(Level { dir, name: listed.name.clone(), rest }))
    }
}

enum Entered {
    Directory(Level),
    Other,
    /// The entry has disappeared meanwhile.
    Nothing,
}
