//! What was proven so far, so that an interrupted proof can continue: lines of text next to the receipt.
//!
//! A torn last line is dropped. The file names the registry and the time when the proof began. It is removed at the
//! end: what was right then may be wrong by the next time.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::base::error::{Error, Result};
use crate::base::fsops::{Entry, Open};
use crate::base::progress::{Event, Events};
use crate::oci::{Digest, Repository};

const MAGIC: &str = "gapferry-prove 1";
/// Space for millions of lines; a larger file is not ours.
const MAX_STATE: u64 = 1 << 30;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct ProveState {
    /// Digests, and where they were read if that matters.
    proven: HashSet<(Digest, Option<String>)>,
    begun: Option<Timestamp>,
    file: Option<(Mutex<File>, Entry)>,
}

impl ProveState {
    /// Continues with the file, or creates it; `now` is the start time.
    ///
    /// # Errors
    /// It is something else or belongs to another registry, or it cannot be written.
    pub fn open(path: &Path, registry: &str, now: Timestamp, events: &Events) -> Result<ProveState> {
        let entry = Entry::of(path)?;
        let mut file = entry.open(Open::Append)?;
        let mut bytes = Vec::new();
        let read = entry.open(Open::Read)?.take(MAX_STATE + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::disk("reading", path, e))?;
        let (mut text, shown) = (String::from_utf8_lossy(&bytes), path.display());
        if is_torn(&text) {
            let why = "it does not say what was proven before, as after a power cut";
            events.report(Event::Warning(format!("{shown}: {why}; everything is read again")));
            file.set_len(0).map_err(|e| Error::disk("emptying", path, e))?;
            text = "".into();
        }
        let mut state = match text.is_empty() {
            true => ProveState { begun: Some(now), ..ProveState::default() },
            false => ProveState::parse(&text, registry).map_err(|why| Error::input(format!("{shown}: {why}")))?,
        };
        let start = if text.is_empty() { format!("{MAGIC} {registry} {now}\n") } else { "\n".to_owned() };
        // The line feed ends a line that was torn by a kill.
        file.write_all(start.as_bytes()).map_err(|e| Error::disk("writing", path, e))?;
        state.file = Some((Mutex::new(file), entry));
        Ok(state)
    }

    fn parse(text: &str, registry: &str) -> Result<ProveState, String> {
        let whole = text.get(..text.rfind('\n').map_or(0, |end| end + 1)).unwrap_or_default();
        let mut lines = whole.lines();
        let first: Vec<&str> =
            lines.next().unwrap_or_default().strip_prefix(MAGIC).unwrap_or_default().split_whitespace().collect();
        let [of, begun] = first[..] else { return Err("it is not the state of a proof".to_owned()) };
        if of != registry {
            return Err(format!("it is the state of a proof of {of}, not of {registry}; name another with --state"));
        }
        let begun = begun.parse::<Timestamp>().map_err(|_| "it does not say when the proof began".to_owned())?;
        let mut proven = HashSet::new();
        for line in lines {
            let (digest, place) =
                line.split_once(' ').map_or((line, None), |(digest, place)| (digest, Some(place.to_owned())));
            if let Ok(digest) = digest.parse() {
                proven.insert((digest, place));
            }
        }
        Ok(ProveState { proven, begun: Some(begun), file: None })
    }

    /// Returns when the proof that continues here began, if a part of it was done then.
    pub fn earlier(&self) -> Option<Timestamp> {
        self.begun.filter(|_| !self.proven.is_empty())
    }

    /// Whether it was read in `place`, or anywhere if that is `None`.
    pub fn is_proven(&self, digest: &Digest, place: Option<&Repository>) -> bool {
        self.proven.contains(&(*digest, place.map(Repository::to_string)))
    }

    /// # Errors
    /// It cannot be written.
    pub fn note(&self, digest: &Digest, place: Option<&Repository>) -> Result<()> {
        let Some((file, entry)) = &self.file else { return Ok(()) };
        let line = place.map_or_else(|| format!("{digest}\n"), |place| format!("{digest} {place}\n"));
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).map_err(|e| Error::disk("writing", entry.path(), e))
    }

    /// Removes the file, because the proof is complete: the next one starts from the beginning.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn finish(self) -> Result<()> {
        self.file.map_or(Ok(()), |(_, entry)| entry.remove())
    }
}

/// Whether not even the first line of a state reached the medium: the file is cut, or its blocks were allocated and not
/// written.
fn is_torn(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    let is_cut = !text.contains('\n') && (MAGIC.starts_with(first) || first.starts_with(MAGIC));
    let is_blank = text.bytes().all(|byte| matches!(byte, 0 | b'\n'));
    !text.is_empty() && (is_cut || is_blank || first.starts_with(MAGIC) && first.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Recorder;
    use std::sync::Arc;

    #[test]
    fn a_torn_line_loses_only_itself_and_another_registry_is_refused() {
        let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let place = Repository::new("r:1", "a/b").unwrap();
        let text = format!("{MAGIC} r:1 2026-11-20T10:00:00Z\n{one}\n\n{two} {place}\n{}", &one.to_string()[..20]);
        let state = ProveState::parse(&text, "r:1").unwrap();
        assert!(state.is_proven(&one, None) && !state.is_proven(&one, Some(&place)));
        assert!(state.is_proven(&two, Some(&place)) && !state.is_proven(&two, None));
        assert_eq!(state.earlier().map(|begun| begun.to_string()).as_deref(), Some("2026-11-20T10:00:00Z"));
        assert!(ProveState::parse(&text, "other").unwrap_err().contains("of a proof of r:1"));
        assert!(ProveState::parse("something else\n", "r:1").is_err());
    }

    #[test]
    fn a_state_of_which_nothing_came_to_the_medium_begins_anew_and_a_strange_file_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (path, now) = (directory.path().join("r.json.proving"), "2026-11-20T10:00:00Z".parse().unwrap());
        for torn in ["gapf", "gapferry-prove 1 r:", "gapferry-prove 1 r:1 2026-11-2", "\0\0\0", "\0\0\n\0"] {
            std::fs::write(&path, torn).unwrap();
            let recorder = Arc::new(Recorder::default());
            let events: Events = recorder.clone();
            ProveState::open(&path, "r:1", now, &events).unwrap();
            let begun = std::fs::read_to_string(&path).unwrap();
            assert_eq!(begun, format!("{MAGIC} r:1 2026-11-20T10:00:00Z\n"), "{torn:?}");
            assert!(matches!(&recorder.events()[..], [Event::Warning(_)]), "{torn:?}");
        }
        for other in ["something else\n", "something else"] {
            std::fs::write(&path, other).unwrap();
            let events: Events = Arc::new(Recorder::default());
            assert!(ProveState::open(&path, "r:1", now, &events).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), other);
        }
    }
}
