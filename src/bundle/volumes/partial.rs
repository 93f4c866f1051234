//! The file of a volume while it is written, `*.partial`, with reserved space; and the order in which finished volumes get
//! their names.

use std::fs::File;
use std::sync::Arc;

use crate::base::error::Result;
use crate::base::fsops::{self, Entry, Occupant, Open, Synced};

/// See the module documentation.
#[derive(Debug)]
pub struct PartialVolume {
    pub file: Arc<File>,
    /// The file that is written.
    pub entry: Entry,
    /// Its final name.
    named: Entry,
    /// What had that name at the start; nothing else is replaced.
    former: Occupant,
}

impl PartialVolume {
    /// Opens the file of the volume with the final name `named`. `former` is what had that name.
    ///
    /// # Errors
    /// The disk fails.
    pub fn open(named: Entry, former: Occupant, how: Open) -> Result<PartialVolume> {
        let entry = named.beside(".partial");
        let file = Arc::new(entry.open(how)?);
        Ok(PartialVolume { file, entry, named, former })
    }

    /// Reserves `length` bytes.
    ///
    /// # Errors
    /// There is not enough space, or the disk fails.
    pub fn reserve(&self, length: u64) -> Result<()> {
        fsops::reserve(&self.file, self.entry.path(), length)
    }

    /// Syncs it.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sync(&self) -> Result<Synced> {
        Ok(Synced::new(&self.file, self.entry.clone(), self.named.clone())?.over(self.former))
    }
}

/// Gives the volumes their names, the first one last: once it exists, all do.
///
/// # Errors
/// The system refuses; some volumes may have their names.
pub fn publish(mut volumes: Vec<Synced>) -> Result<()> {
    let others = volumes.split_off(volumes.len().min(1));
    Synced::publish(others)?;
    Synced::publish(volumes)
}
