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
    Images, Output, PlannedVolumes, Text,
};
use crate::base::error::{Error, Result};
use crate::base::progress::units::{bytes, count, duration};
use crate::bundle::MAX_MISSING;
use crate::pipeline::lock::{MAX_LOCK, MissingImage};
use crate::pipeline::walk::LockedCompanions;
use volumes::VolumeArgs;

const ABOUT: &str = "\
Exports images from registries into one self-verifying bundle.

gapferry first resolves every reference and reads every manifest. It then knows what to fetch: each blob once, \
however many images share it. Blobs are hashed as they arrive and written to their final position. The bundle is \
called OUT.partial until it is complete and flushed to disk.

If an image cannot be exported, the run stops before it writes anything and lists every failure. With --keep-going \
it exports the other images, records in the lock what is missing and why, and exits with code 1. Failures during the \
transfer are left out in the same way, except in a single pass (`-o -` and .tar.zst), which cannot take back what it \
has written and ends unfinished. A lock with missing images can be exported again with --locked and gives the same \
bytes. If a registry may have returned an incomplete list of tags, the lock records that too and the exit code is 1.

After an interruption, run the same command again. It reuses the manifests it has read (in OUT.walk until the bundle \
is finished) and every blob that is complete, which it verifies first. A partial blob continues where it stopped. If \
nothing has changed, a second run verifies the bundle and transfers nothing; damaged files are fetched again.

OUT is a directory unless it ends in .tar or .tar.zst. An existing bundle of that name is replaced only when the new \
one is complete, and blobs that both share are not fetched again. gapferry does not replace a bundle that contains \
files that gapferry did not write.

With --volume-size the bundle is written as several files, OUT.001.tar, OUT.002.tar and so on, for smaller media. \
Each volume is a tar that repeats bundle.json and all manifests, states its number and how many there are, and can \
be verified alone. To write one volume again, for example after a bad disc, use --only-volume N --locked LOCK: it \
fetches only what that volume contains.

`-o -` writes the tar to standard output in one pass, for ssh, tape or a data diode. An interrupted stream starts \
over.

OUT.tar.zst is the same tar, compressed with zstd in independent frames so that readers can still seek in it. Layers \
that are already compressed are stored unchanged. A compressed bundle cannot be resumed, repaired or signed later.

--include-tool and --tool-file add files below tools/. They are listed in SHA256SUMS, so a signature covers them. \
They are part of the bundle's identity: use the same tools with --only-volume and when you export the bundle again.";

const AFTER: &str = "\
Examples:
  gapferry export -f images.txt --platform linux/amd64 -o /mnt/usb/images.tar
  gapferry export -f images.txt -o burn/images.tar --volume-size dvd
  gapferry export nginx:1.27 registry.k8s.io/pause:3.10 -o images.tar
  gapferry export -f skopeo-sync.yaml -o bundle --dry-run

  # Sign the bundle, and keep a lock of what was exported.
  gapferry export -f images.txt -o images.tar --sign-key our.key \\
    --lock images.lock

  # Write the same bytes again; or only disc 3; or a stream.
  gapferry export --locked images.lock -o again.tar
  gapferry export --locked images.lock -o burn/images.tar \\
    --volume-size dvd --only-volume 3
  gapferry export --locked images.lock -o - | ssh inside 'cat >images.tar'

  # Export only what the other side does not have yet.
  gapferry export -f images.txt --since receipt.json -o next.tar

  # Fetch what a damaged bundle lacks.
  gapferry export --repair missing.json --locked images.lock -o repair.tar

Allowlist format:
  registry.k8s.io/pause:3.10
  nginx:1.27  platform=linux/amd64,linux/arm64  as=base/nginx:1.27
  ghcr.io/org/tool      # all tags

Index modes (with --platform):
  single  Tag the one remaining manifest; its digest is the one it has upstream.
          Default for one platform.
  trim    Write a smaller index with a new digest; the lock records both
          digests. Default for several platforms.
  sparse  Keep the index byte for byte and leave children out. Harbor,
          docker-registry 2 and zot reject it; distribution 3 accepts it with
          validation.manifests.indexes.platforms: none.
With single and trim, signatures and attestations of the whole index no longer
apply and are left out.";

/// Export images from registries into a bundle
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    pub allowlist: AllowlistArgs,
    /// Bundle to write: OUT.tar, OUT.tar.zst, a directory, or -
    ///
    /// A name that ends in .tar or .tar.zst is one file, `-` is a tar on standard output, and any other name is a
    /// directory.
    #[arg(short, long, value_name = "OUT", help_heading = "Output")]
    output: PathBuf,
    /// Also write the lock to FILE
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    lock: Option<PathBuf>,
    /// Export exactly what this lock names, or fail
    ///
    /// FILE can also be a bundle, which contains its lock; its signature is not checked. If a registry no longer has one of
    /// the digests, the export fails and names it.
    #[arg(long, value_name = "FILE", help_heading = "Images")]
    #[arg(conflicts_with_all = ["references", "files", "platforms", "index", "load_platform", "require_referrers", "foreign_layers", "immutable_tags", "skip_missing_platform"])]
    locked: Option<PathBuf>,
    /// With --locked: which companions to export
    ///
    /// When an image is signed again, its old signature often disappears from the source registry, and the lock still names
    /// it. `today` and `none` export the images of the lock anyway, under a new lock. gapferry lists the differences;
    /// --lock FILE writes the new lock.
    #[arg(long, value_name = "WHICH", default_value = "locked", hide_default_value = true, hide_short_help = true)]
    #[arg(help_heading = "Images", requires = "locked", conflicts_with_all = ["no_referrers", "repair"])]
    companions: LockedCompanions,
    /// Fetch only what this file from `verify --missing` lists
    #[arg(long, value_name = "FILE", help_heading = "Images", requires = "locked", hide_short_help = true)]
    #[arg(conflicts_with_all = ["lock", "dry_run", "read_back", "sign_key"])]
    repair: Option<PathBuf>,
    /// Print the plan and write nothing
    ///
    /// The plan lists images, platforms, bytes to fetch, bytes saved by sharing, and the space needed.
    #[arg(long, help_heading = "Output")]
    dry_run: bool,
    /// Print the result or the plan as JSON
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
            // Before asking for a passphrase.
            output.check_free()?;
        }
        let sign_key = self.sign.key(context)?;
        let (since, tools) = (self.since.read(context)?, self.tools.read()?);
        let images = match &self.locked {
            Some(path) => {
                self.registry.claim_stdin()?;
                Images::Locked { lock: read_lock(path)?, companions: self.companions() }
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
        // clap requires both.
        let no_lock = || Error::input("--repair is of no use without --locked");
        let missing = read_bounded(missing, MAX_MISSING + 1)?;
        let (since, tools) = (self.since.read(context)?, self.tools.read()?);
        self.registry.claim_stdin()?;
        Ok(ExportRepairRequest {
            missing,
            lock: read_lock(self.locked.as_ref().ok_or_else(no_lock)?)?,
            resolve: self.allowlist.options(),
            output: self.output.clone(),
            since,
            tools,
            registry: self.registry.options()?,
        })
    }

    /// Which companions to export with a lock.
    fn companions(&self) -> LockedCompanions {
        if self.allowlist.no_referrers() { LockedCompanions::None } else { self.companions }
    }
}

/// Reads a lock from a file, a bundle or standard input.
fn read_lock(path: &Path) -> Result<Text> {
    if path == Path::new("-") { read_bounded(path, MAX_LOCK + 1) } else { app::lock_text(path) }
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
    context.print(&match plan.identity_is_final {
        true => format!("identity {identity} (lock made {created})\nfingerprint {fingerprint}\n"),
        false => "identity and fingerprint are known after the export, because they include its time\n".to_owned(),
    })?;
    let Some(PlannedVolumes { volumes, recovery_count, .. }) = &plan.volumes else { return Ok(()) };
    let rows = volumes.iter().map(|volume| vec![volume.path.display().to_string(), bytes(volume.bytes)]);
    context.print(&format!("\n{}", table::render(&["VOLUME", "SIZE"], &rows.collect::<Vec<_>>())))?;
    match recovery_count {
        0 => Ok(()),
        number => context.print(&format!("and {}\n", count(*number as usize, "recovery volume"))),
    }
}

fn print(written: &Exported, context: &Context) {
    let what = |unchanged: bool| if unchanged { "unchanged" } else { "written" };
    let (images, size, moved) = (count(written.image_count, "image"), bytes(written.bytes), bytes(written.bytes_moved));
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
    context.say(&format!("it repairs the bundle with the identity {}", report.identity));
    if !report.lost.is_empty() {
        let text = "the bundle stays damaged there until another copy of it is brought";
        context.say(&format!("the source has lost {} too; {text}", count(report.lost.len(), "blob")));
    }
}
