//! `export -o -`: to standard output, in one pass.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::{Args, TOOL, finish, print_plan};
use crate::bundle::stream::{Outlet, Stream};
use crate::bundle::{Contents, Finished, Options, Survey};
use crate::cli::context::{Context, write_file};
use crate::cli::exit::Outcome;
use crate::cli::signing::signed_by;
use crate::content::Source;
use crate::error::{Error, Kind, Result};
use crate::graph::Graph;
use crate::progress::units::bytes;
use crate::signing::PrivateKey;
use crate::transport::registry::Registries;

/// What stands for standard output and input.
const STANDARD: &str = "-";

/// Whether a stream is asked for.
///
/// # Errors
/// It is, and something else that does not go with it.
pub fn is_wanted(args: &Args) -> Result<bool> {
    if args.output != Path::new(STANDARD) {
        return Ok(false);
    }
    let refuse = |why: &str| Err(Error::input(format!("writing to standard output: {why}")));
    if args.dry_run {
        return Ok(true);
    }
    if args.json {
        return refuse("the bundle goes there, so --json cannot (--lock FILE says what is in it)");
    }
    if std::io::stdout().is_terminal() {
        return refuse("it is a terminal; pipe it somewhere (| ssh …, > FILE), or name an output");
    }
    Ok(true)
}

/// Writes the bundle as it is fetched.
pub async fn run(
    args: &Args,
    contents: &Contents,
    graph: &Graph,
    (source, registries): (&dyn Source, &Registries),
    (started, key): (Instant, Option<Arc<PrivateKey>>),
    context: &Context,
) -> Result<Outcome> {
    let options = Options { key: key.clone(), ..Options::copying(TOOL) };
    let (jobs, events) = (args.registry.jobs(), &context.events);
    let stream = Stream { contents, options: &options, graph, source, jobs, events };
    let total = stream.length()?;
    if args.dry_run {
        let survey = Survey { total, present: 0, needed: 0, free: 0 };
        return print_plan(args, &contents.lock, graph, &survey, false, registries, context);
    }
    context.say(&format!("standard output: {} in all", bytes(total)));
    let streamed = stream.write(Stdout::open()?).await?;
    let locked = args.lock.as_ref().map_or(Ok(()), |path| write_file(path, contents.lock.to_json().as_bytes()));
    let blobs = contents.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
    let finished =
        Finished { path: "standard output".into(), identity: streamed.identity, size: streamed.size, unchanged: false };
    let ended = finish(args, graph, &finished, blobs, registries, started, context)?;
    if let Some(key) = key {
        context.say(&signed_by(key.public()));
    }
    locked.map(|()| ended)
}

/// Standard output as it is, without the buffer that ends at lines.
struct Stdout(File);

impl Stdout {
    fn open() -> Result<Stdout> {
        let own = std::io::stdout().as_fd().try_clone_to_owned();
        own.map(|fd| Stdout(File::from(fd))).map_err(failed)
    }
}

impl Outlet for Stdout {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(failed)
    }

    fn finish(&mut self) -> Result<()> {
        // A file is on its medium before it is called done; what is none cannot be synced.
        match self.0.metadata() {
            Ok(metadata) if metadata.is_file() => self.0.sync_all().map_err(failed),
            _ => Ok(()),
        }
    }
}

fn failed(error: std::io::Error) -> Error {
    let text = match error.kind() {
        std::io::ErrorKind::BrokenPipe => {
            "writing to standard output: whoever read it has gone; what has gone out is cut short, and every reader will say so"
        }
        _ => "writing to standard output",
    };
    Error::new(Kind::Disk, text).because(error)
}
