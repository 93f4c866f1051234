//! `export -o -` and `-o OUT.tar.zst`: in one pass.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::{Args, Planned, finish, print_plan, write_lock};
use crate::base::error::{Error, Result};
use crate::base::progress::units::bytes;
use crate::bundle::preflight::{self, Whole};
use crate::bundle::stream::{Compressed, Stream, places};
use crate::bundle::{Bundle, Contents, FileSet, Finished, Survey, check_signature};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::signing::signed_by;
use crate::cli::standard_output::StandardOutput;
use crate::content::Source;
use crate::files::Layout;
use crate::oci::Digest;
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::MissingReason;
use crate::signing::PrivateKey;
use crate::transport::registry::Registries;

/// What stands for standard output and input.
const STANDARD: &str = "-";

/// Where a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Standard output.
    Standard,
    /// A file, compressed.
    Compressed,
}

impl To {
    /// `None`: no stream is asked for.
    ///
    /// # Errors
    /// One is, and something else that does not go with it.
    pub fn of(args: &Args) -> Result<Option<To>> {
        if Compressed::is_meant(&args.output) {
            return Ok(Some(To::Compressed));
        }
        if args.output != Path::new(STANDARD) {
            return Ok(None);
        }
        let refuse = |why: &str| Err(Error::input(format!("writing to standard output: {why}")));
        if args.json && !args.dry_run {
            return refuse("the bundle goes there, so --json cannot (--lock FILE says what is in it)");
        }
        if args.read_back.read_back {
            return refuse("what went there cannot be read back; verify it where it arrives");
        }
        if std::io::stdout().is_terminal() && !args.dry_run {
            return refuse("it is a terminal; pipe it somewhere (| ssh …, > FILE), or name an output");
        }
        Ok(Some(To::Standard))
    }

    /// # Errors
    /// Something stands in the way.
    pub fn check_free(self, out: &Path) -> Result<()> {
        if self == To::Compressed { Compressed::check_free(out) } else { Ok(()) }
    }

    /// The bundle that is to be replaced, if there is one.
    pub fn former(self, out: &Path) -> Option<Bundle> {
        if self == To::Compressed { Bundle::open(out).ok() } else { None }
    }
}

/// Writes the bundle as it is fetched.
pub async fn run(
    args: &Args,
    to: To,
    contents: &Contents,
    graph: &Graph,
    (source, registries): (&dyn Source, &Registries),
    (started, key): (Instant, Option<Arc<PrivateKey>>),
    context: &Context,
) -> Result<Outcome> {
    let files = FileSet::new(contents, key.clone())?;
    let (jobs, events) = (args.registry.jobs(), &context.events);
    let stream = Stream { files: &files, source, places: places(graph), jobs, events };
    let total = stream.length()?;
    let up_to_date = up_to_date(args, to, files.identity, key.as_deref(), context)?;
    if args.dry_run {
        let survey = &Survey { total, present: 0, needed: total, free: 0 };
        let plan = Planned { survey, up_to_date: up_to_date.is_some(), identity: files.identity };
        return print_plan(args, &contents.lock, graph, &plan, registries, context);
    }
    let unfinished = |error: Error| match args.allowlist.leave_out().failed && MissingReason::of(&error).is_some() {
        // What has gone out names the image; nothing can be taken back.
        true => error.while_doing(
            "one pass cannot leave an image out any more: the output ends without its end mark, unfinished",
        ),
        false => error,
    };
    let (finished, moved) = match up_to_date {
        Some(finished) => (finished, 0),
        None => {
            let path = if to == To::Standard { PathBuf::from("standard output") } else { args.output.clone() };
            context.say(&format!("{}: {} in all", path.display(), bytes(total)));
            let (streamed, size) = match to {
                To::Standard => stream
                    .write(StandardOutput::open()?)
                    .await
                    .map(|streamed| (streamed, streamed.size))
                    .map_err(unfinished)?,
                To::Compressed => {
                    let streamed = stream.write(Compressed::create(&args.output)?).await.map_err(unfinished)?;
                    (streamed, path.metadata().map_or(0, |file| file.len()))
                }
            };
            let moved = contents.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
            (Finished { path, identity: streamed.identity, size, unchanged: false }, moved)
        }
    };
    let locked = write_lock(args, &contents.lock);
    if to != To::Standard {
        args.read_back.prove([finished.path.clone()], context).await?;
    }
    let ended = finish(args, (&contents.lock, graph), &finished, moved, registries, started, context)?;
    if let Some(key) = key {
        context.say(&signed_by(key.public()));
    }
    locked.map(|()| ended)
}

/// The file, if it is already what is wanted, with the signature that is wanted: it cannot be added.
fn up_to_date(
    args: &Args,
    to: To,
    identity: Digest,
    key: Option<&PrivateKey>,
    context: &Context,
) -> Result<Option<Finished>> {
    if to == To::Standard {
        return Ok(None);
    }
    let whole = if args.dry_run { Whole::BySizes } else { Whole::Proven(&context.events) };
    let finished = preflight::up_to_date(&args.output, identity, whole);
    let is_signed = |key: &PrivateKey| {
        let layout = Layout::open(&args.output);
        layout.and_then(|layout| check_signature(&layout, std::slice::from_ref(key.public()))).is_ok()
    };
    Ok(finished.filter(|_| key.is_none_or(is_signed)))
}
