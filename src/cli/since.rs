//! What an export builds on: receipts, inventories and earlier bundles, told apart by what is in them.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::context::Context;
use super::receipts;
use super::signing::{public, signed_by};
use crate::base::error::{Error, Result};
use crate::base::progress::units::{bytes, count};
use crate::base::progress::{Event, plain_piece};
use crate::bundle::{self, Basis, Bundle, Parent, ParentKind, refuse_unfinished};
use crate::files::Layout;
use crate::increment::Baseline;
use crate::oci::Reference;
use crate::signing::PublicKey;

#[derive(clap::Args)]
pub struct SinceArgs {
    /// Leave out what this receipt says has arrived
    ///
    /// Repeatable. A receipt (`import --receipt`) and an inventory (`gapferry inventory`) confirm what is there; `-` reads one from
    /// standard input. That a bundle has arrived is an assumption; one volume of a set stands for all of it. Import finds everything that was
    /// left out at the target before it pushes anything. Of receipts of several registries only what all of them have is left out.
    #[arg(long, value_name = "FILE", help_heading = "What to carry")]
    since: Vec<PathBuf>,
    /// Refuse what --since names if this public key has not signed it
    ///
    /// Repeatable: one of them has to have. The signature of a receipt or an inventory stands beside it, in FILE.sig, where
    /// `--sign-key` of import and inventory puts it.
    #[arg(long, value_name = "FILE", help_heading = "What to carry", requires = "since", hide_short_help = true)]
    since_key: Vec<PathBuf>,
}

impl SinceArgs {
    /// `None`: the bundle is to be complete in itself.
    ///
    /// # Errors
    /// A file that is none of the three, or cannot be read.
    pub fn read(&self, context: &Context) -> Result<Option<Baseline>> {
        let mut baseline = Baseline::default();
        let keys = self.since_key.iter().map(|key| public(key)).collect::<Result<Vec<PublicKey>>>()?;
        for path in &self.since {
            add(&mut baseline, path, &keys, context)?;
        }
        for parent in baseline.parents().iter().filter(|parent| parent.kind == ParentKind::Bundle) {
            let text = format!("that {parent} has arrived is an assumption; a receipt would confirm it");
            context.events.report(Event::Notice(text));
        }
        if baseline.targets() > 1 {
            let text = format!(
                "the receipts are of {} registries: only what all of them have is left out",
                baseline.targets()
            );
            context.events.report(Event::Notice(text));
        }
        Ok((!self.since.is_empty()).then_some(baseline))
    }
}

fn add(baseline: &mut Baseline, path: &Path, keys: &[PublicKey], context: &Context) -> Result<()> {
    // What is read once can only be a receipt.
    if !receipts::is_piped(path) && (path.is_dir() || !is_json(path)?) {
        let attempt = |e: Error| e.while_doing(format!("reading {}, which is no receipt", path.display()));
        refuse_unfinished(path)?;
        let layout = Layout::open(path).map_err(attempt)?;
        let mut proven = None;
        if !keys.is_empty() {
            let signed = bundle::check_signature(&layout, keys)?;
            context.say(&format!("{}: {}", path.display(), signed_by(&signed.by)));
            proven = Some(signed);
        }
        baseline.add_bundle(Bundle::proven(layout, proven).map_err(attempt)?);
        return Ok(());
    }
    baseline.add_receipt(receipts::read(path, keys, "--since-key", context)?.receipt);
    Ok(())
}

/// Whether it begins like a JSON object; no tar does.
fn is_json(path: &Path) -> Result<bool> {
    let mut start = [0; 64];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut start));
    let read = read.map_err(|e| Error::disk("opening", path, e))?;
    Ok(start.get(..read).is_some_and(|start| start.trim_ascii_start().starts_with(b"{")))
}

/// What a bundle builds on, a line with its end; nothing where it is complete in itself.
pub fn told(parents: &[Parent], blobs: usize, size: u64) -> String {
    if parents.is_empty() {
        return String::new();
    }
    let parents: Vec<String> = parents.iter().map(ToString::to_string).collect();
    format!(
        "builds on {}; expects {}, {}, at the target\n",
        plain_piece(&parents.join(" and ")),
        count(blobs, "blob"),
        bytes(size)
    )
}

/// What is left out, and what is gone.
pub fn tell(basis: &Basis, context: &Context) {
    if basis.parents.is_empty() {
        return;
    }
    context.say(told(&basis.parents, basis.assumed.len(), basis.assumed_bytes()).trim_end());
    if !basis.removed.is_empty() {
        // Of one that went to several targets each is told of in the bundle.
        let gone: BTreeSet<&Reference> = basis.removed.iter().map(|image| &image.reference).collect();
        let head = format!("{} of before not wanted any more (`import --prune`):", count(gone.len(), "image"));
        let names = gone.iter().take(5).map(|image| format!("  {image}"));
        let more = gone.len().checked_sub(5).filter(|more| *more > 0).map(|more| format!("  and {more} more"));
        context.say_lines(&std::iter::once(head).chain(names).chain(more).collect::<Vec<_>>());
    }
}
