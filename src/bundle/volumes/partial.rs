//! The file of a volume while it is written, `*.partial`, with room for all of it; and in which order finished volumes get
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
    /// What it will be called.
    named: Entry,
    /// What had that name when it was begun: nothing else is replaced.
    former: Occupant,
}

impl PartialVolume {
    /// Opens the file of the volume that will be called `named`. What had that name is `former`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn open(named: Entry, former: Occupant, how: Open) -> Result<PartialVolume> {
        let entry = named.beside(".partial");
        let file = Arc::new(entry.open(how)?);
        Ok(PartialVolume { file, entry, named, former })
    }

    /// Gives it room for `length` bytes.
    ///
    /// # Errors
    /// There is not so much, or what else the disk says.
    pub fn reserve(&self, length: u64) -> Result<()> {
        fsops::reserve(&self.file, self.entry.path(), length)
    }

    /// Brings it to the medium.
    ///
    /// # Errors
    /// What the disk says.
    pub fn sync(&self) -> Result<Synced> {
        Ok(Synced::new(&self.file, self.entry.clone(), self.named.clone())?.over(self.former))
    }
}

/// Gives volumes their names, the first of them last: once that is there, all are.
///
/// # Errors
/// The system refuses; some may have their names.
pub fn publish(mut volumes: Vec<Synced>) -> Result<()> {
    let others = volumes.split_off(volumes.len().min(1));
    Synced::publish(others)?;
    Synced::publish(volumes)
}
