//! `export --volume-size`: as volumes from the start.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::{Args, Job, Lost, blob_bytes, print_plan, stopped, write};
use crate::base::document::Document;
use crate::base::error::{Error, Result};
use crate::base::progress::units::{bytes, count, duration};
use crate::bundle::volumes::{
    RecoveryOf, Selection, Set, Shape, VolumeOptions, VolumePlan, WrittenVolume, write_recovery,
};
use crate::bundle::{Contents, FileSet, Finished, Options, Survey, plan_volumes, preflight};
use crate::cli::context::{Context, write_file};
use crate::cli::exit::Outcome;
use crate::cli::signing::signed_by;
use crate::cli::volume_size::{SIZES, parse, parse_number};
use crate::cli::{mirrors, table};
use crate::content::Source;
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::Lock;
use crate::signing::{PrivateKey, Spoken};
use crate::transport::registry::Registries;

#[derive(clap::Args)]
pub struct VolumeArgs {
    /// Write volumes OUT.001.tar… of at most SIZE: bytes, 4GB, fat32, cd, dvd, bd, bd-dl
    #[arg(long, value_name = "SIZE", value_parser = parse, long_help = SIZES, help_heading = "Output")]
    #[arg(conflicts_with = "repair")]
    volume_size: Option<u64>,
    /// Write N recovery volumes too, from which any N lost volumes can be made again
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Output")]
    #[arg(requires = "volume_size", hide_short_help = true)]
    recovery: u32,
    /// Write only volume N again, the same that it was: fetches no more than it holds
    ///
    /// All else has to be said as it was then: --volume-size, --recovery, --since. The identity that is printed is that of the others.
    /// Every volume repeats the lock and all manifests: --companions and --keep-going are refused where they change the lock.
    #[arg(long, value_name = "N", value_parser = parse_number, help_heading = "Output", hide_short_help = true)]
    #[arg(requires_all = ["volume_size", "locked"])]
    only_volume: Option<u32>,
}

impl VolumeArgs {
    /// What cannot be said otherwise.
    ///
    /// # Errors
    /// One is to be made again, and not of a lock: the others may be of other images by now.
    pub fn check(&self, is_locked: bool) -> Result<()> {
        // clap does not demand what conflicts with a reference that is given.
        match self.only_volume {
            Some(_) if !is_locked => Err(Error::input("--only-volume is of no use without --locked")),
            _ => Ok(()),
        }
    }

    /// A volume that is written again belongs to a set that exists, and each of its volumes repeats the lock and all manifests.
    /// `given` is the lock of that set, `followed` what became of it.
    ///
    /// # Errors
    /// With other images or companions it would be a volume of another set.
    pub fn check_same_set(&self, given: &Lock, followed: &Lock) -> Result<()> {
        match self.only_volume {
            Some(_) if given != followed => Err(Error::input(
                "--only-volume writes a volume of a set that exists, and every volume repeats the images and companions of its lock: \
                 with others it would be a volume of another set; write all volumes, without --only-volume",
            )),
            _ => Ok(()),
        }
    }

    /// Whether one volume of a set that exists is to be written.
    pub fn is_one_again(&self) -> bool {
        self.only_volume.is_some()
    }

    /// How volumes are to be written, if they are.
    pub fn wanted(&self) -> Option<VolumeOptions> {
        let shape = Shape { limit: self.volume_size?, recovery: self.recovery };
        Some(VolumeOptions { shape, selection: Selection::of(self.only_volume) })
    }
}

/// Images that were resolved, and where they are.
pub struct Resolved<'a> {
    pub contents: Contents,
    pub graph: &'a Graph,
    pub source: &'a dyn Source,
    pub registries: &'a Registries,
    pub lost: &'a Lost,
}

/// Writes the volumes, unless they are there.
pub async fn run(
    args: &Args,
    volumes: VolumeOptions,
    resolved: Resolved<'_>,
    (started, key): (Instant, Option<Arc<PrivateKey>>),
    context: &Context,
) -> Result<Outcome> {
    let Resolved { contents, graph, source, registries, lost } = resolved;
    let lock = contents.lock.clone();
    let mut files = FileSet::new(&contents, key.clone())?;
    plan_volumes::keep_signatures(&args.output, &mut files, &volumes)?;
    let set = plan_volumes::plan(&args.output, &files, &volumes)?;
    let there = plan_volumes::up_to_date(&set, &files, &volumes, !args.dry_run, &context.events)?;
    let options = Options { volumes: Some(volumes.clone()), ..Options::copying() };
    if args.dry_run {
        let survey = preflight::survey(&args.output, &files, &options)?;
        let planned = Planned { set: &set, volumes, survey, up_to_date: there.is_some() };
        return planned.print(args, &lock, graph, registries, context);
    }
    let (finished, moved) = match there {
        Some(finished) => (finished, 0),
        None => {
            let jobs = args.registry.jobs();
            let job = Job { output: &args.output, files, options, graph, source, jobs, lost };
            let written = write(job, context).await?;
            (written.finished, written.moved)
        }
    };
    let recovery = recover(&set, &volumes, &finished, lock.created, context).await?;
    let locked = args.lock.as_ref().map_or(Ok(()), |path| write_file(path, lock.to_file()?.as_bytes()));
    let of_set: Vec<&VolumePlan> = set.wanted(&volumes.selection).collect();
    let all = of_set.iter().map(|volume| set.path_of(volume));
    let all = all.chain(recovery.iter().map(|volume| volume.path.clone()));
    args.read_back.prove(all.collect::<Vec<_>>(), context).await?;
    context.end();
    if args.json {
        context.print_json(&json!({
            "volumes": described(&set, &of_set), "of": set.plan.volumes.len(), "identity": finished.identity,
            "recovery": recovery.iter().map(|volume| serde_json::json!(volume)).collect::<Vec<_>>(),
            "bytes": finished.size, "unchanged": finished.unchanged, "images": graph.images.len(), "missing": lock.missing, "bytesMoved": moved,
            "bytesSavedBySharing": graph.unshared_size().saturating_sub(graph.total_size()), "leftBehind": graph.left_behind,
            "seconds": started.elapsed().as_secs_f64(), "mirrors": mirrors::report_json(registries),
        }))?;
    }
    tell(&set, &of_set, &finished, context);
    for WrittenVolume { path, size, unchanged, .. } in &recovery {
        let what = if *unchanged { "unchanged" } else { "written" };
        context.say(&format!("{}: {what}, {}", path.display(), bytes(*size)));
    }
    context.say(&format!(
        "{} of {}, {}, {}; {} fetched, {}",
        count(of_set.len(), "volume"),
        set.plan.volumes.len(),
        count(graph.images.len(), "image"),
        bytes(finished.size),
        bytes(moved),
        duration(started.elapsed()),
    ));
    mirrors::tell(registries, context);
    context.say(&format!("identity {}", finished.identity));
    if let Some(key) = &key {
        context.say(&signed_by(key.public()));
    }
    locked.map(|()| Outcome::Done)
}

/// The recovery volumes of volumes that are there.
async fn recover(
    set: &Set,
    volumes: &VolumeOptions,
    finished: &Finished,
    created: jiff::Timestamp,
    context: &Context,
) -> Result<Vec<WrittenVolume>> {
    let Shape { limit, recovery } = volumes.shape;
    if recovery == 0 || !volumes.selection.is_all() {
        return Ok(Vec::new());
    }
    let number = u32::try_from(set.plan.volumes.len()).unwrap_or(u32::MAX);
    let of = RecoveryOf { identity: finished.identity, created, limit, volumes: number, recovery };
    let (name, unchanged, events) = (set.name.clone(), finished.unchanged, context.events.clone());
    let work = tokio::task::spawn_blocking(move || write_recovery(&name, &of, unchanged, &events));
    work.await.map_err(stopped)?
}

fn tell(set: &Set, volumes: &[&VolumePlan], finished: &Finished, context: &Context) {
    let what = if finished.unchanged { "unchanged" } else { "written" };
    for volume in volumes {
        context.say(&format!("{}: {what}, {}", set.path_of(volume).display(), bytes(volume.length)));
    }
}

fn described(set: &Set, volumes: &[&VolumePlan]) -> Vec<serde_json::Value> {
    let one = |volume: &&VolumePlan| json!({ "volume": set.path_of(volume), "number": volume.number, "bytes": volume.length });
    volumes.iter().map(one).collect()
}

/// What would be written.
struct Planned<'a> {
    set: &'a Set,
    volumes: VolumeOptions,
    survey: Survey,
    up_to_date: bool,
}

impl Planned<'_> {
    fn print(
        &self,
        args: &Args,
        lock: &Lock,
        graph: &Graph,
        registries: &Registries,
        context: &Context,
    ) -> Result<Outcome> {
        let Planned { set, survey, up_to_date, .. } = self;
        let volumes: Vec<&VolumePlan> = set.wanted(&self.volumes.selection).collect();
        let to_fetch = if *up_to_date { 0 } else { blob_bytes(graph).saturating_sub(survey.present) };
        if args.json {
            context.print_json(&json!({
                "output": args.output, "identity": set.identity, "fingerprint": Spoken::of(&set.identity).to_string(),
                "volumes": described(set, &volumes), "of": set.plan.volumes.len(),
                "recovery": self.volumes.shape.recovery, "upToDate": up_to_date, "images": lock.images, "missing": lock.missing, "bytes": survey.total, "bytesToFetch": to_fetch,
                "bytesNeeded": survey.needed, "bytesFree": survey.free, "leftBehind": graph.left_behind,
                "readFrom": mirrors::plan_json(lock, registries),
            }))?;
            return Ok(Outcome::Done);
        }
        let plan = super::Planned { survey, up_to_date: *up_to_date, identity: set.identity };
        print_plan(args, lock, graph, &plan, registries, context)?;
        let row = |volume: &&VolumePlan| vec![set.path_of(volume).display().to_string(), bytes(volume.length)];
        let rows: Vec<Vec<String>> = volumes.iter().map(row).collect();
        context.print(&format!("\n{}", table::render(&["VOLUME", "SIZE"], &rows)))?;
        if self.volumes.shape.recovery > 0 {
            let number = count(self.volumes.shape.recovery as usize, "recovery volume");
            context.print(&format!("and {number}\n"))?;
        }
        Ok(Outcome::Done)
    }
}
