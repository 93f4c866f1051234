//! `gapferry export`: registries → bundle.

mod keep_going;
mod repair;
mod stream;
mod volumes;
mod write;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::allowlist::{AllowlistArgs, connect_for, missing_lines, read_bounded, settle, tell_obstacle};
use super::companions::listed;
use super::context::{Context, check_writable, write_file};
use super::exit::Outcome;
use super::mirrors;
use super::read_back::ReadBackArgs;
use super::registry::RegistryArgs;
use super::render::images_table;
use super::signing::{SignArgs, settle as settle_signature};
use super::since::{self, SinceArgs};
use super::tools::ToolArgs;
pub use crate::app::TOOL;
use crate::base::document::Document;
use crate::base::error::{Error, Result};
use crate::base::position::Written;
use crate::base::progress::Event;
use crate::base::progress::units::{bytes, count, duration};
use crate::bundle::preflight::Whole;
use crate::bundle::{
    Bundle, Contents, FileSet, Finished, Former, Options, Survey, Tool, load_platform, plan_volumes, preflight,
    walk_file,
};
use crate::content::{Cached, Checkpoint, Source};
use crate::increment::Baseline;
use crate::oci::{Digest, Manifest};
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::{self, Attached, Lock, LockedImage, MAX_LOCK, MissingImage};
use crate::pipeline::walk::LockedCompanions;
use crate::signing::{PrivateKey, Spoken};
use crate::transport::registry::Registries;
use keep_going::{Faults, May};
use volumes::{Resolved, VolumeArgs};
pub use write::{Job, Lost, stopped, write};

const ABOUT: &str = "\
Exports images from registries into one self-verifying bundle.

First every reference is resolved and every manifest read; then it is known what has to be fetched, and each blob is \
fetched once however many images share it, hashed while it arrives, and written where it belongs. The bundle gets its name \
when it is whole and on the medium: until then it is called OUT.partial.

An image that cannot be had ends the run before anything is written, with all failures in one list. With --keep-going the others \
are carried: the lock records what is missing and why, the exit code is 1, and what fails while it is fetched is left out too (not \
where one pass cannot take back what has gone out: `-o -` and .tar.zst end unfinished then). A lock that lacks images is exported by \
--locked as it is: the same bytes again, lacking the same. A list of tags that may be short is recorded in the lock as well, and the \
exit code is 1.

After any interruption, run the same command again: manifests that were read are kept (in OUT.walk, until the bundle is \
there), so are finished blobs (after they were hashed), and an unfinished one continues where it stopped. Run again with nothing changed, it proves the bundle and moves nothing; what is damaged in it \
is fetched again.

If OUT ends in .tar the bundle is one file, else a directory. An older bundle of that name is replaced only when the new one \
is complete, and what both have in common is not fetched again.

With --volume-size it is several files, OUT.001.tar, OUT.002.tar and so on, for media that are smaller: each a tar of its own \
that repeats bundle.json and all manifests, says which one of how many it is, and can be verified alone. They are written in \
place while blobs arrive, and get their names when all are whole. One disc is bad? --only-volume N --locked LOCK writes volume \
N again, the same, and fetches only what it holds (of a blob that is cut, all of it).

`-o -` writes the tar to standard output in one pass, for ssh, a tape or a diode: nothing is kept beside it, so after an \
interruption it begins again, and what has gone out is cut short for every reader. Blobs are fetched ahead, up to 32 MiB, while \
one is written.

If OUT ends in .tar.zst the same tar is compressed on its way into a file, by zstd in frames of a mebibyte, so that it is still \
read by offset; layers that are compressed already are stored. It cannot be continued, repaired or signed afterwards: interrupted, \
all blobs are fetched again.

--include-tool takes this program along, and --tool-file any other file, below tools/: SHA256SUMS names them, so a signature \
covers them too. The same lock and the same tools give the same bytes, and another tool makes another bundle: give the same ones \
with --only-volume, and where a bundle is exported again.";

const AFTER: &str = "\
Examples:
  gapferry export nginx:1.27 registry.k8s.io/pause:3.10 -o images.tar
  gapferry export -f images.txt --platform linux/amd64 -o /mnt/usb/images.tar --lock images.lock
  gapferry export --locked images.lock -o again.tar      # the same bytes
  gapferry export -f skopeo-sync.yaml -o bundle --dry-run
  gapferry export -f images.txt -o images.tar --sign-key ours.pem      # who made it
  gapferry export -f images.txt -o burn/images.tar --volume-size dvd --lock images.lock
  gapferry export --locked images.lock -o burn/images.tar --volume-size dvd --only-volume 3     # one bad disc
  gapferry export --locked images.lock -o - | ssh inside 'cat > images.tar'
  gapferry export -f images.txt --since receipt.json -o next.tar       # only what has not arrived
  gapferry export --repair missing.json --locked images.lock -o repair.tar     # what a damaged one lacks
  gapferry export -f images.txt -o images.tar --include-tool --tool-file arm64/gapferry-arm64

An allowlist as text:
  registry.k8s.io/pause:3.10
  nginx:1.27  platform=linux/amd64,linux/arm64  as=base/nginx:1.27
  ghcr.io/org/tool      # all its tags

Index modes (with --platform):
  single  the one manifest that remains takes the tag, with the digest it has upstream: the default for one platform
  trim    a smaller index is written; its digest is new, old and new stand in the lock: the default for several platforms
  sparse  the index stays byte for byte, children are missing on purpose; Harbor, docker-registry 2 and zot refuse it,
          distribution 3 takes it with validation.manifests.indexes.platforms: none
With single and trim, signatures and attestations of the whole index do not fit and stay behind.";

/// Export images from registries into a bundle
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    pub allowlist: AllowlistArgs,
    /// The bundle: a file if it ends in .tar or .tar.zst, `-`: a tar to standard output, else a directory
    #[arg(short, long, value_name = "OUT", help_heading = "Output")]
    output: PathBuf,
    /// Also write the lock: what each reference meant
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    lock: Option<PathBuf>,
    /// Export exactly this lock, or fail and name what moved
    #[arg(long, value_name = "FILE", help_heading = "What to carry")]
    #[arg(conflicts_with_all = ["references", "files", "platforms", "index", "load_platform", "require_referrers", "foreign_layers", "immutable_tags", "skip_missing_platform"])]
    locked: Option<PathBuf>,
    /// With --locked: the lock's own companions, today's, or none (as --no-referrers)
    ///
    /// Signing an image again replaces its signature at the source, and the one that the lock names is lost there in the end. today
    /// and none carry the images of the lock all the same, under a new lock; what differs is said, and --lock FILE writes it.
    #[arg(long, value_name = "WHICH", default_value = "locked", hide_default_value = true, hide_short_help = true)]
    #[arg(help_heading = "What to carry", requires = "locked", conflicts_with_all = ["no_referrers", "repair"])]
    companions: LockedCompanions,
    /// Fetch only what `verify --missing` has written to FILE, for `gapferry repair`
    #[arg(long, value_name = "FILE", help_heading = "What to carry", requires = "locked")]
    #[arg(conflicts_with_all = ["lock", "dry_run", "read_back", "sign_key"])]
    repair: Option<PathBuf>,
    /// Print the plan and write nothing
    ///
    /// Images, platforms, bytes to fetch, bytes saved by sharing, and the room it needs.
    #[arg(long, help_heading = "Output")]
    dry_run: bool,
    /// Print the result (or the plan) as JSON on standard output
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    since: SinceArgs,
    #[command(flatten)]
    tools: ToolArgs,
    #[command(flatten)]
    volumes: VolumeArgs,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    read_back: ReadBackArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Args {
    /// Which companions go with the images of a lock.
    fn companions(&self) -> LockedCompanions {
        if self.allowlist.no_referrers() { LockedCompanions::None } else { self.companions }
    }
}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let started = Instant::now();
    if let Some(ended) = repair::run(&args, context).await? {
        return Ok(ended);
    }
    check_writable(&args.lock)?;
    let to = stream::To::of(&args)?;
    args.volumes.check(args.locked.is_some())?;
    let in_volumes = args.volumes.wanted().is_some();
    if to.is_some() && in_volumes {
        return Err(Error::input("volumes cannot be one stream, or compressed: name an output that ends in .tar"));
    }
    if !args.dry_run {
        match to {
            Some(to) => to.check_free(&args.output)?,
            None if in_volumes => plan_volumes::check_free(&args.output)?,
            None => preflight::check_free(&args.output)?,
        }
    }
    let present = || match to {
        Some(to) => Ok(to.former(&args.output)),
        None if in_volumes => Ok(plan_volumes::former(&args.output)),
        None => preflight::former(&args.output),
    };
    let former = present()?;
    let was_signed = former.as_ref().is_some_and(Bundle::has_signature);
    let key = args.sign.key(context)?;
    let baseline = args.since.read(context)?;
    let tools = args.tools.read()?;
    let (registries, ask) = ask(&args, context)?;
    let kept = match args.dry_run {
        true => Checkpoint::reading(&registries, &walk_file(&args.output)),
        false => Checkpoint::new(&registries, (to != Some(stream::To::Standard)).then(|| walk_file(&args.output))),
    };
    tell_obstacle(&kept, context);
    let begun = (started, key);
    let outcome = export(&args, (ask, baseline, tools), former, &registries, &kept, begun, context).await;
    if was_signed && outcome.is_ok() && !present()?.is_some_and(|bundle| bundle.has_signature()) {
        let text =
            "the bundle that was replaced was signed, and this one is not: --sign-key or `gapferry sign` signs it";
        context.events.report(Event::Warning(format!("{}: {text}", args.output.display())));
    }
    settle(&kept, outcome, context)
}

async fn export(
    args: &Args,
    (ask, mut baseline, tools): (Ask, Option<Baseline>, Vec<Tool>),
    former: Option<Bundle>,
    registries: &Registries,
    kept: &Checkpoint<'_>,
    (started, key): (Instant, Option<Arc<PrivateKey>>),
    context: &Context,
) -> Result<Outcome> {
    let replaced = former.as_ref().map(Bundle::former);
    let (former_lock, former_layout) = former.map(Bundle::into_lock_and_layout).unzip();
    let platforms = baseline.as_ref().map(Baseline::platforms).unwrap_or_default();
    let modes = baseline.as_mut().map(Baseline::take_modes).unwrap_or_default();
    let at_hand = baseline.as_mut().map(Baseline::take_at_hand).unwrap_or_default();
    let source = Cached::new(kept, former_layout.map(|layout| Box::new(layout) as Box<dyn Source>));
    let mut source = source.with_local(at_hand);
    let (mut prescribed, mut promised) = (Vec::new(), 0);
    let (mut lock, mut graph) = match ask {
        Ask::Locked(lock, written) => {
            prescribed.clone_from(&lock.missing);
            if args.companions() == LockedCompanions::Locked {
                promised = companions_in(&lock);
            }
            let given = lock.clone();
            let (lock, companions) = ((*lock, written), args.companions());
            let followed = args.allowlist.follow(lock, companions, &source, &args.registry, context).await?;
            args.volumes.check_same_set(&given, &followed.0)?;
            followed
        }
        Ask::Resolve(sources) => {
            let earlier = args.allowlist.earlier(args.lock.as_ref(), former_lock, modes)?;
            args.allowlist.resolve(&sources, (earlier, platforms), &source, &args.registry, context).await?
        }
    };
    source.forget_local();
    args.allowlist.refuse_empty(&lock)?;
    let lost = Lost::default();
    // A volume that is written again belongs to the set of its lock, and --locked asks for all of a lock.
    let images = args.allowlist.leave_out().failed && !args.volumes.is_one_again();
    let optional = !args.allowlist.requires_referrers() && !args.volumes.is_one_again();
    let may = May { images, companions: optional && (images || args.locked.is_none()) };
    if may.images {
        Faults::of_sizes(&graph, &source).await?.leave_out(&mut lock, &mut graph, may, context)?;
    }
    let (baseline, tools) = (baseline.as_ref(), &tools[..]);
    let from = From { source: &source, registries, baseline, tools, former: replaced, lost: &lost };
    loop {
        let has_companions = || companions_in(&lock) > 0;
        let kept = (may.images || may.companions && has_companions()).then(|| graph.clone());
        let ended = produce(args, (&lock, graph), &from, (started, key.clone()), context).await;
        let Err(error) = ended else {
            let missing = lock.missing.split_off(prescribed.len().min(lock.missing.len()));
            if !missing.is_empty() || !prescribed.is_empty() {
                let all: Vec<MissingImage> = prescribed.iter().chain(&missing).cloned().collect();
                context.say_lines(&missing_lines(&all));
            }
            return ended.map(|_| match companions_in(&lock) < promised {
                true => Outcome::SomeImagesFailed,
                false => args.allowlist.ended(&missing),
            });
        };
        graph = kept.ok_or(error.clone())?;
        let lost = Faults::of_lost(lost.take());
        // If nothing is left, or nothing may be left out, the error of the transfer says why.
        if !lost.leave_out(&mut lock, &mut graph, may, context).unwrap_or_default() {
            return Err(error);
        }
    }
}

/// How many companions the images of a lock have.
fn companions_in(lock: &Lock) -> usize {
    lock.images.iter().map(|image| image.companions().len()).sum()
}

/// What an export reads from.
struct From<'a> {
    source: &'a dyn Source,
    registries: &'a Registries,
    baseline: Option<&'a Baseline>,
    tools: &'a [Tool],
    /// The bundle that is to be replaced.
    former: Option<Former>,
    lost: &'a Lost,
}

/// Writes what was resolved, in the form that was asked for.
async fn produce(
    args: &Args,
    (lock, graph): (&Lock, Graph),
    from: &From<'_>,
    (started, key): (Instant, Option<Arc<PrivateKey>>),
    context: &Context,
) -> Result<Outcome> {
    let From { source, registries, lost, .. } = *from;
    if args.lock.is_some() {
        // Before anything is fetched.
        lock.to_file()?;
    }
    let contents = Contents::new(lock.clone(), &graph)?.carrying(from.tools.to_vec());
    let basis = from.baseline.map(|baseline| baseline.basis(&contents)).unwrap_or_default();
    since::tell(&basis, context);
    report_loaders(lock, context);
    let (graph, mut contents) = (basis.left_of(graph), contents.building_on(basis));
    // A prescribed time has to be in the bundle; another time of resolution alone is no reason to write a new one.
    if args.locked.is_none() && !context.now()?.1 {
        contents = contents.continuing(from.former)?;
    }
    let lock = &contents.lock.clone();
    if let Some(to) = stream::To::of(args)? {
        return stream::run(args, to, &contents, &graph, (source, registries), (started, key), context).await;
    }
    if let Some(volumes) = args.volumes.wanted() {
        let resolved = Resolved { contents, graph: &graph, source, registries, lost };
        return volumes::run(args, volumes, resolved, (started, key), context).await;
    }
    let files = FileSet::new(&contents, key.clone())?;
    let whole = if args.dry_run { Whole::BySizes } else { Whole::Proven(&context.events) };
    let up_to_date = preflight::up_to_date(&args.output, files.identity, whole);
    let options = Options::copying();
    let jobs = args.registry.jobs();
    if args.dry_run {
        let survey = preflight::survey(&args.output, &files, &options)?;
        let (survey, up_to_date, identity) = (&survey, up_to_date.is_some(), files.identity);
        return print_plan(args, lock, &graph, &Planned { survey, up_to_date, identity }, registries, context);
    }
    let (finished, moved) = match up_to_date {
        Some(finished) => (finished, 0),
        None => {
            let job = Job { output: &args.output, files, options, graph: &graph, source, jobs, lost };
            let written = write(job, context).await?;
            (written.finished, written.moved)
        }
    };
    let locked = write_lock(args, lock);
    args.read_back.prove([finished.path.clone()], context).await?;
    // The bundle is there whatever became of the lock; that it is missing comes last.
    let ended = finish(args, (lock, &graph), &finished, moved, registries, started, context)?;
    settle_signature(&finished, key.as_deref(), context)?;
    locked.map(|()| ended)
}

/// `docker load` and `podman load` take one platform of an image, and say nothing of the others.
fn report_loaders(lock: &Lock, context: &Context) {
    let platform = load_platform(lock);
    let several = lock.images.iter().filter(|image| image.platforms.len() > 1);
    let (taken, without): (Vec<_>, Vec<_>) =
        several.partition(|image| image.platforms.iter().any(|has| platform.selects(has)));
    let images = |number| format!("{} for several platforms", count(number, "image"));
    let pronoun = |number| if number == 1 { "it" } else { "them" };
    if !taken.is_empty() {
        let (number, of) = (taken.len(), pronoun(taken.len()));
        context.say(&format!("{}: `docker load` takes {platform} of {of}", images(number)));
    }
    if !without.is_empty() {
        let (number, not) = (without.len(), pronoun(without.len()));
        context.say(&format!(
            "{} without {platform}: `docker load` does not take {not} (--load-platform)",
            images(number)
        ));
    }
}

fn write_lock(args: &Args, lock: &Lock) -> Result<()> {
    let Some(path) = &args.lock else { return Ok(()) };
    write_file(path, lock.to_file()?.as_bytes())
}

/// Where the images come from.
enum Ask {
    Locked(Box<Lock>, Written),
    Resolve(Box<super::allowlist::Sources>),
}

fn ask(args: &Args, context: &Context) -> Result<(Registries, Ask)> {
    let Some(path) = &args.locked else {
        let sources = args.allowlist.read(&args.registry, context)?;
        return Ok((sources.registries.clone(), Ask::Resolve(Box::new(sources))));
    };
    args.registry.claim_stdin()?;
    let (name, bytes) = read_bounded(path, MAX_LOCK + 1)?;
    let lock = Lock::parse(&bytes, &name)?;
    let registries = connect_for(&lock, &args.registry, context)?;
    Ok((registries, Ask::Locked(Box::new(lock), lock::written(&bytes, &name))))
}

/// What would be written.
struct Planned<'a> {
    survey: &'a Survey,
    /// It is there already.
    up_to_date: bool,
    identity: Digest,
}

fn print_plan(
    args: &Args,
    lock: &Lock,
    graph: &Graph,
    &Planned { survey, up_to_date, identity }: &Planned<'_>,
    registries: &Registries,
    context: &Context,
) -> Result<Outcome> {
    let fingerprint = Spoken::of(&identity).to_string();
    let to_fetch = if up_to_date { 0 } else { blob_bytes(graph).saturating_sub(survey.present) };
    let saved = graph.unshared_size().saturating_sub(graph.total_size());
    let by_digest: HashMap<Digest, &Manifest> =
        graph.images.iter().flat_map(|image| &image.manifests).map(|own| (own.digest(), own)).collect();
    let manifest_of = |_: &LockedImage, attached: &Attached| by_digest.get(&attached.digest).map(|own| (*own).clone());
    let images = listed(&lock.images, &manifest_of);
    if args.json {
        context.print_json(&serde_json::json!({
            "output": args.output, "identity": identity, "fingerprint": fingerprint, "created": lock.created,
            "upToDate": up_to_date, "images": images, "missing": lock.missing,
            "bytes": survey.total, "bytesToFetch": to_fetch, "bytesSavedBySharing": saved,
            "bytesNeeded": survey.needed, "bytesFree": survey.free, "leftBehind": graph.left_behind,
            "readFrom": mirrors::plan_json(lock, registries),
        }))?;
        return Ok(Outcome::Done);
    }
    context.print(&images_table(&images))?;
    let places = mirrors::plan(lock, registries);
    if !places.is_empty() {
        context.print(&format!("\n{places}"))?;
    }
    let text = format!(
        "\n{}, {} in the bundle; {} to fetch, {} saved by sharing\n",
        count(lock.images.len(), "image"),
        bytes(survey.total),
        bytes(to_fetch),
        bytes(saved),
    );
    context.print(&text)?;
    if stream::To::of(args)?.is_none() {
        let needed = bytes(if up_to_date { 0 } else { survey.needed });
        context.print(&format!("{} needs {needed} more, {} free\n", args.output.display(), bytes(survey.free)))?;
    }
    context.print(&format!("identity {identity}, of a lock made {}\nfingerprint {fingerprint}\n", lock.created))?;
    Ok(Outcome::Done)
}

/// Bytes of every distinct blob, manifests apart.
fn blob_bytes(graph: &Graph) -> u64 {
    graph.blobs().iter().map(|blob| blob.size).fold(0, u64::saturating_add)
}

fn finish(
    args: &Args,
    (lock, graph): (&Lock, &Graph),
    finished: &Finished,
    moved: u64,
    registries: &Registries,
    started: Instant,
    context: &Context,
) -> Result<Outcome> {
    context.end();
    let saved = graph.unshared_size().saturating_sub(graph.total_size());
    let seconds = started.elapsed();
    if args.json {
        context.print_json(&serde_json::json!({
            "bundle": finished.path, "identity": finished.identity, "bytes": finished.size,
            "unchanged": finished.unchanged, "images": graph.images.len(), "missing": lock.missing, "bytesMoved": moved,
            "bytesSavedBySharing": saved, "leftBehind": graph.left_behind, "seconds": seconds.as_secs_f64(),
            "mirrors": mirrors::report_json(registries),
        }))?;
    }
    let what = if finished.unchanged { "unchanged" } else { "written" };
    context.say(&format!(
        "{}: {what}, {}, {}; {} fetched, {} saved by sharing, {}",
        finished.path.display(),
        count(graph.images.len(), "image"),
        bytes(finished.size),
        bytes(moved),
        bytes(saved),
        duration(seconds),
    ));
    mirrors::tell(registries, context);
    context.say(&format!("identity {}", finished.identity));
    Ok(Outcome::Done)
}
