//! Reads what an export builds on: receipts, inventories and earlier bundles, which are recognized by their contents.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use super::local::Input;
use super::receipts::{Signature, read_receipt};
use crate::base::error::{Error, Result};
use crate::base::fsops;
use crate::base::progress::units::{bytes, count};
use crate::base::progress::{Event, Events, plain_piece};
use crate::bundle::{self, Basis, Bundle, Parent, ParentKind, refuse_unfinished};
use crate::files::Layout;
use crate::increment::Baseline;
use crate::oci::Reference;
use crate::signing::PublicKey;

/// Reads what an export builds on. If there are keys, one of them must have signed each file.
///
/// # Errors
/// A file cannot be read, or is not a receipt, an inventory or a bundle.
pub fn read_baseline(since: &[Input], keys: &[PublicKey], events: &Events) -> Result<Baseline> {
    let mut baseline = Baseline::default();
    since.iter().try_for_each(|input| add(&mut baseline, input, keys, events))?;
    for parent in baseline.parents().iter().filter(|parent| parent.kind == ParentKind::Bundle) {
        let text = format!("assuming that {parent} has arrived; a receipt would confirm it");
        events.report(Event::Notice(text));
    }
    if baseline.targets() > 1 {
        let text = format!(
            "the receipts are of {} registries: only content that all of them have is left out",
            baseline.targets()
        );
        events.report(Event::Notice(text));
    }
    Ok(baseline)
}

fn add(baseline: &mut Baseline, input: &Input, keys: &[PublicKey], events: &Events) -> Result<()> {
    let signed_by = |by: &PublicKey| events.report(Event::Status(format!("{}: signed by {by}", input.name())));
    if let Some(path) = bundle_at(input)? {
        let attempt = |e: Error| e.while_doing(format!("reading {}, which is not a receipt", path.display()));
        refuse_unfinished(path)?;
        let layout = Layout::open(path).map_err(attempt)?;
        let proven = match keys {
            [] => None,
            keys => Some(bundle::check_signature(&layout, keys)?),
        };
        proven.iter().for_each(|proven| signed_by(&proven.by));
        baseline.add_bundle(Bundle::proven(layout, proven).map_err(attempt)?);
        return Ok(());
    }
    let (read, signature) = read_receipt(input, keys)?;
    match signature {
        Signature::Absent => {}
        Signature::Unchecked => {
            let text = format!("{} is signed, but without --since-key the signature is not checked", input.name());
            events.report(Event::Notice(text));
        }
        Signature::By(key) => signed_by(&key),
    }
    baseline.add_receipt(read.receipt);
    Ok(())
}

/// Returns the path if it is a bundle. Input that can be read only once can only be a receipt.
fn bundle_at(input: &Input) -> Result<Option<&Path>> {
    let Input::File(path) = input else { return Ok(None) };
    let is_piped = path.metadata().is_ok_and(|it| !it.is_file() && !it.is_dir());
    let is_bundle = !is_piped && (path.is_dir() || !is_json(path)?);
    Ok(is_bundle.then_some(path))
}

/// Whether the file starts like a JSON object, which no tar does.
fn is_json(path: &Path) -> Result<bool> {
    let mut start = [0; 64];
    let read = fsops::open_plain(path).and_then(|mut file| file.read(&mut start));
    let read = read.map_err(|e| Error::disk("opening", path, e))?;
    Ok(start.get(..read).is_some_and(|start| start.trim_ascii_start().starts_with(b"{")))
}

/// Describes what a bundle builds on in one line. `None` if it is complete in itself.
pub fn basis_line(parents: &[Parent], blobs: usize, size: u64) -> Option<String> {
    if parents.is_empty() {
        return None;
    }
    let parents: Vec<String> = parents.iter().map(ToString::to_string).collect();
    let (parents, blobs) = (parents.join(" and "), count(blobs, "blob"));
    Some(format!("it builds on {} and expects {blobs}, {}, at the target", plain_piece(&parents), bytes(size)))
}

/// Reports what is left out, and which images are no longer wanted.
pub(super) fn report_basis(basis: &Basis, events: &Events) {
    let Some(line) = basis_line(&basis.parents, basis.assumed.len(), basis.assumed_bytes()) else { return };
    let status = |line: String| events.report(Event::Status(line));
    status(line);
    if !basis.removed.is_empty() {
        // An image that went to several targets is listed once for each of them.
        let gone: BTreeSet<&Reference> = basis.removed.iter().map(|image| &image.reference).collect();
        status(format!("{} no longer wanted (`import --prune`):", count(gone.len(), "image")));
        gone.iter().take(5).for_each(|image| status(format!("  {image}")));
        if let Some(more) = gone.len().checked_sub(5).filter(|more| *more > 0) {
            status(format!("  and {more} more"));
        }
    }
}
