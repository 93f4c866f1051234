//! Reads the output back from the medium before success is reported.

use std::path::PathBuf;

use crate::base::blocking::blocking;
use crate::base::error::Result;
use crate::base::progress::{Event, Events};
use crate::bundle;
use crate::oci::Digest;

/// Reads back files or directories: a bundle with this identity, or its volumes.
///
/// # Errors
/// An output differs from what was written. It is renamed to `.partial` again.
pub async fn read_back(paths: impl IntoIterator<Item = PathBuf>, identity: Digest, events: &Events) -> Result<()> {
    for path in paths {
        let (shown, own) = (path.display().to_string(), events.clone());
        if blocking(&format!("reading back {shown}"), move || bundle::read_back(&path, identity, &own)).await? {
            events.report(Event::Status(format!("{shown}: read back")));
            continue;
        }
        let text = "read back, but possibly from memory, because the system did not drop its cache: unmount the medium or \
                    remove it, then run `gapferry verify`";
        events.report(Event::Warning(format!("{shown}: {text}")));
    }
    Ok(())
}
