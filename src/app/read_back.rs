//! What was written is read from the medium before it is called done.

use std::path::PathBuf;

use crate::base::blocking::blocking;
use crate::base::error::Result;
use crate::base::progress::{Event, Events};
use crate::bundle;
use crate::oci::Digest;

/// Reads back these files or directories: a bundle with this identity, or volumes of it.
///
/// # Errors
/// One of them is not what was written: it is called `.partial` again.
pub async fn read_back(paths: impl IntoIterator<Item = PathBuf>, identity: Digest, events: &Events) -> Result<()> {
    for path in paths {
        let (shown, own) = (path.display().to_string(), events.clone());
        if blocking(&format!("reading back {shown}"), move || bundle::read_back(&path, identity, &own)).await? {
            events.report(Event::Status(format!("{shown}: read back")));
            continue;
        }
        let text = "read back, but perhaps from memory, which the system would not let go of: unmount it, or take the medium \
                    out, and `gapferry verify` it";
        events.report(Event::Warning(format!("{shown}: {text}")));
    }
    Ok(())
}
