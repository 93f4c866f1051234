//! `export --repair`: of a lock only what a damaged bundle lacks.

use super::{Args, Ask, TOOL, ask};
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::base::progress::units::{bytes, count};
use crate::bundle::{
    Contents, MAX_MISSING, Missing, Tool, is_tar, preflight, refuse_unwanted, walk_file, write_repair,
};
use crate::cli::allowlist::{read_bounded, settle, tell_obstacle};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::render::named;
use crate::content::{Cached, Checkpoint};
use crate::pipeline::graph::Graph;
use crate::pipeline::resolve::{self, Search};
use crate::pipeline::walk::{LockedCompanions, Origin, Walk};

/// Writes the repair that `--repair` asks for; `None`: it does not.
pub async fn run(args: &Args, context: &Context) -> Result<Option<Outcome>> {
    let Some(file) = &args.repair else { return Ok(None) };
    if !is_tar(&args.output) {
        return Err(Error::input(format!(
            "writing {}: a repair is a tar; end its name in .tar",
            args.output.display()
        )));
    }
    let (name, text) = read_bounded(file, MAX_MISSING + 1)?;
    let missing = Missing::parse(&text, &name)?;
    preflight::check_free(&args.output)?;
    let baseline = args.since.read(context)?;
    let tools = args.tools.read()?;
    refuse_unwanted(&missing, &tools)?;
    tell_left(&missing, &tools, context);
    let (registries, ask) = ask(args, context)?;
    // The command line does not take one without the other.
    let Ask::Locked(lock, written) = ask else { return Err(Error::input("--repair is of no use without --locked")) };
    let kept = Checkpoint::new(&registries, Some(walk_file(&args.output)));
    tell_obstacle(&kept, context);
    let made = async {
        let (source, jobs, events) = (Cached::new(&kept, None), args.registry.jobs(), &context.events);
        // A companion that is gone costs nothing, unless it is asked for.
        let walk = args.allowlist.walk(&source, context).with_written(written);
        let walk = walk.with_companions(LockedCompanions::Remaining);
        let graph = match missing.needs_manifests() {
            true => resolve::assemble(&walk, &lock, Origin::Registry, jobs, events).await,
            false => Ok(Graph::default()),
        };
        let graph = graph.map_err(|failures| {
            let why = "index.json and manifest.json are made of all manifests; another copy of the bundle has them too";
            failures.into_error("following the lock").while_doing(why)
        })?;
        let wanted = missing.blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
        let located = resolve::locate(&walk, (&lock, &graph.images), wanted, jobs, events).await;
        let is_whole = located.as_ref().is_ok_and(|found| found.lost.is_empty());
        if missing.needs_manifests() || !is_whole {
            tell_denied(&walk, context);
        }
        let Search { located, lost, why } = located?;
        if let Some(why) = why {
            let is_empty = located.manifests.is_empty() && located.blobs.is_empty();
            if is_empty && tools.is_empty() && missing.metadata.is_empty() {
                return Err(why);
            }
            tell_lost(&why, context);
        }
        let mut contents = Contents::new(*lock, &graph)?.carrying(tools);
        // Of an increment anything can be asked for; but index.json is that of the increment.
        contents.basis = baseline.map(|baseline| baseline.basis(&contents)).unwrap_or_default();
        let repair = write_repair(&args.output, &missing, (&contents, located, TOOL), (&source, jobs), events).await?;
        Ok::<_, Error>((repair, lost))
    };
    let (repair, lost) = settle(&kept, made.await, context)?;
    context.end();
    if args.json {
        context.print_json(&serde_json::json!({
            "repair": args.output, "identity": missing.identity, "blobs": repair.blobs, "bytes": repair.size, "lost": lost,
        }))?;
    }
    let (output, blobs) = (args.output.display(), count(repair.blobs, "blob"));
    context.say(&format!("{output}: written, {blobs}, {}", bytes(repair.size)));
    context.say(&format!("for the bundle with the identity {}", missing.identity));
    if !lost.is_empty() {
        let text = "the bundle stays damaged there until another copy of it is brought";
        context.say(&format!("the source has lost {} too; {text}", count(lost.len(), "blob")));
        return Ok(Some(Outcome::SomeImagesFailed));
    }
    Ok(Some(Outcome::Done))
}

/// The rest is written all the same.
fn tell_lost(why: &Error, context: &Context) {
    why.lines().into_iter().for_each(|line| context.events.report(Event::Warning(line.trim_start().to_owned())));
}

/// A registry that denies a companion may have it.
fn tell_denied(walk: &Walk<'_>, context: &Context) {
    let denied = walk.denied_companions();
    if !denied.is_empty() {
        let text =
            "denied, so they count as gone; if they are there, an account that may read them makes a complete repair";
        let companions = count(denied.len(), "companion");
        context.events.report(Event::Warning(format!("{companions} of the lock: {text} ({})", named(&denied))));
    }
}

/// Whoever mends the bundle should know that it will not be whole.
fn tell_left(missing: &Missing, tools: &[Tool], context: &Context) {
    let is_left = |path: &String| tools.iter().all(|tool| tool.path() != *path);
    let left: Vec<String> = missing.tools.iter().map(|tool| tool.path.clone()).filter(is_left).collect();
    if !left.is_empty() {
        let text = format!(
            "the bundle also lacks {}, which is not in this repair: --include-tool and --tool-file take the same file along; \
             without it the bundle does not become whole, nor does a volume that holds some of it",
            left.join(", ")
        );
        context.events.report(Event::Warning(text));
    }
}
