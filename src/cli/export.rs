//! `gapferry export`: registries → bundle.

mod volumes;

use std::path::{Path, PathBuf};

use super::allowlist::{AllowlistArgs, missing_lines, read_bounded};
use super::context::Context;
use super::exit::CommandOutcome;
use super::mirrors;
use super::read_back::ReadBackArgs;
use super::registry::RegistryArgs;
use super::render::images_table;
use super::signing::{SignArgs, signed_by};
use super::since::SinceArgs;
use super::standard_output::{self, Besides, STANDARD};
use super::table;
use super::tools::ToolArgs;
use crate::app::{
    self, ExportPlan, ExportRepairRequest, ExportReport, ExportRequest, Exported, ExportedRepair, ExportedVolume,
    Images, Output, PlannedVolumes,
};
use crate::base::error::{Error, Result};
use crate::base::progress::units::{bytes, count, duration};
use crate::bundle::MAX_MISSING;
use crate::pipeline::lock::{MAX_LOCK, MissingImage};
use crate::pipeline::walk::LockedCompanions;
use volumes::VolumeArgs;

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
is complete, and what both have in common is not fetched again. One with files in it that are no part of it is not replaced.

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

pub async fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    let json = args.json;
    if let Some(missing) = &args.repair {
        let report = app::export_repair(args.repair_request(missing, context)?, &context.environment).await?;
        context.end();
        if json {
            context.print_json(&report)?;
        }
        print_repair(&report, context);
        return Ok(report.outcome.into());
    }
    let report = app::export(args.request(context)?, &context.environment).await?;
    context.end();
    if json {
        context.print_json(&report)?;
    }
    let outcome = report.outcome();
    match report {
        ExportReport::Planned(plan) => {
            if !json {
                print_plan(&plan, context)?;
            }
            say_missing(&plan.missing, context);
            Ok(outcome.into())
        }
        ExportReport::Written(written) => {
            print(&written, context);
            say_missing(&written.missing, context);
            written.failure.map_or(Ok(outcome.into()), Err)
        }
    }
}

impl Args {
    fn request(self, context: &Context) -> Result<ExportRequest> {
        let output = self.output()?;
        if !self.dry_run {
            // Before a passphrase is asked for.
            output.check_free()?;
        }
        let sign_key = self.sign.key(context)?;
        let (since, tools) = (self.since.read(context)?, self.tools.read()?);
        let images = match &self.locked {
            Some(path) => {
                self.registry.claim_stdin()?;
                Images::Locked { lock: read_bounded(path, MAX_LOCK + 1)?, companions: self.companions() }
            }
            None => Images::Listed(self.allowlist.read(&self.registry)?),
        };
        Ok(ExportRequest {
            images,
            resolve: self.allowlist.options(),
            output,
            lock: self.lock,
            dry_run: self.dry_run,
            since,
            tools,
            sign_key,
            read_back: self.read_back.read_back,
            registry: self.registry.options()?,
        })
    }

    fn output(&self) -> Result<Output> {
        let is_standard = self.output == Path::new(STANDARD);
        match self.volumes.wanted() {
            Some(_) if is_standard => {
                Err(Error::input("volumes cannot be one stream, or compressed: name an output that ends in .tar"))
            }
            Some(volumes) => Ok(Output::Volumes { path: self.output.clone(), volumes }),
            None if is_standard => standard_output::output(Besides {
                json: self.json,
                dry_run: self.dry_run,
                read_back: self.read_back.read_back,
            }),
            None => Ok(Output::Path(self.output.clone())),
        }
    }

    fn repair_request(&self, missing: &Path, context: &Context) -> Result<ExportRepairRequest> {
        // The command line does not take one without the other.
        let no_lock = || Error::input("--repair is of no use without --locked");
        let missing = read_bounded(missing, MAX_MISSING + 1)?;
        let (since, tools) = (self.since.read(context)?, self.tools.read()?);
        self.registry.claim_stdin()?;
        Ok(ExportRepairRequest {
            missing,
            lock: read_bounded(self.locked.as_ref().ok_or_else(no_lock)?, MAX_LOCK + 1)?,
            resolve: self.allowlist.options(),
            output: self.output.clone(),
            since,
            tools,
            registry: self.registry.options()?,
        })
    }

    /// Which companions go with the images of a lock.
    fn companions(&self) -> LockedCompanions {
        if self.allowlist.no_referrers() { LockedCompanions::None } else { self.companions }
    }
}

fn say_missing(missing: &[MissingImage], context: &Context) {
    context.say_lines(&missing_lines(missing));
}

fn print_plan(plan: &ExportPlan, context: &Context) -> Result<()> {
    context.print(&images_table(&plan.images))?;
    if !plan.read_from.is_empty() {
        let line = |from: &app::ReadFrom| format!("{} is read from {}\n", from.image, from.repository);
        context.print(&format!("\n{}", plan.read_from.iter().map(line).collect::<String>()))?;
    }
    context.print(&format!(
        "\n{}, {} in the bundle; {} to fetch, {} saved by sharing\n",
        count(plan.images.len(), "image"),
        bytes(plan.bytes),
        bytes(plan.bytes_to_fetch),
        bytes(plan.bytes_saved_by_sharing),
    ))?;
    if let Some((needed, free)) = plan.bytes_needed.zip(plan.bytes_free) {
        context.print(&format!("{} needs {} more, {} free\n", plan.output.display(), bytes(needed), bytes(free)))?;
    }
    let (identity, created, fingerprint) = (plan.identity, plan.created, &plan.fingerprint);
    context.print(&format!("identity {identity}, of a lock made {created}\nfingerprint {fingerprint}\n"))?;
    let Some(PlannedVolumes { volumes, recovery, .. }) = &plan.volumes else { return Ok(()) };
    let rows = volumes.iter().map(|volume| vec![volume.path.display().to_string(), bytes(volume.bytes)]);
    context.print(&format!("\n{}", table::render(&["VOLUME", "SIZE"], &rows.collect::<Vec<_>>())))?;
    match recovery {
        0 => Ok(()),
        number => context.print(&format!("and {}\n", count(*number as usize, "recovery volume"))),
    }
}

fn print(written: &Exported, context: &Context) {
    let what = |unchanged: bool| if unchanged { "unchanged" } else { "written" };
    let (images, size, moved) = (count(written.images, "image"), bytes(written.bytes), bytes(written.bytes_moved));
    let time = duration(written.elapsed);
    match &written.volumes {
        Some(volumes) => {
            for ExportedVolume { path, bytes: size, unchanged, .. } in volumes.volumes.iter().chain(&volumes.recovery) {
                context.say(&format!("{}: {}, {}", path.display(), what(*unchanged), bytes(*size)));
            }
            let (number, of) = (count(volumes.volumes.len(), "volume"), volumes.of);
            context.say(&format!("{number} of {of}, {images}, {size}; {moved} fetched, {time}"));
        }
        None => {
            let (path, what) = (written.output.display(), what(written.unchanged));
            let saved = bytes(written.bytes_saved_by_sharing);
            context
                .say(&format!("{path}: {what}, {images}, {size}; {moved} fetched, {saved} saved by sharing, {time}"));
        }
    }
    mirrors::report_mirrors(&written.mirrors, context);
    context.say(&format!("identity {}", written.identity));
    if let Some(by) = &written.signed_by {
        context.say(&signed_by(by));
    }
}

fn print_repair(report: &ExportedRepair, context: &Context) {
    let (output, blobs) = (report.output.display(), count(report.blobs, "blob"));
    context.say(&format!("{output}: written, {blobs}, {}", bytes(report.bytes)));
    context.say(&format!("for the bundle with the identity {}", report.identity));
    if !report.lost.is_empty() {
        let text = "the bundle stays damaged there until another copy of it is brought";
        context.say(&format!("the source has lost {} too; {text}", count(report.lost.len(), "blob")));
    }
}
