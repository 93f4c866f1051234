//! A bundle in another form: directory, tar, compressed tar, volumes or a stream. Its identity and signatures stay.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::environment::Environment;
use super::import::refuse_incomplete;
use super::outcome::REPORT_VERSION;
use super::trust::Trust;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Events;
use crate::bundle::convert::{Conversion, Converted};
use crate::bundle::stream::{Compressed, Outlet};
use crate::bundle::volumes::{Opened, RecoveryOf, VolumeOptions, WrittenVolume, write_recovery};
use crate::bundle::{Finished, Options, plan_volumes, preflight};
use crate::content::LinkMode;
use crate::oci::Digest;
use crate::signing::PublicKey;
use crate::verify::{self, Depth};

/// A bundle, and the form that it is to have.
pub struct ConvertRequest {
    /// A directory, a tar, or all volumes of a set in any order.
    pub bundle: Vec<PathBuf>,
    /// Whose signature is demanded.
    pub trust: Trust,
    pub output: ConvertOutput,
    /// How a directory takes the blobs of a directory.
    pub link: LinkMode,
}

/// Where a bundle goes.
pub enum ConvertOutput {
    /// A tar if the name ends in `.tar`, a compressed one if it ends in `.tar.zst`, else a directory.
    File(PathBuf),
    /// Volumes, called after this path.
    Volumes { path: PathBuf, options: VolumeOptions },
    /// One tar, from its first byte to its last.
    Stream(Box<dyn Outlet>),
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConvertReport {
    pub version: u32,
    pub ok: bool,
    /// `None`: it was a stream.
    pub output: Option<PathBuf>,
    pub identity: Digest,
    /// Of all that was written, or was there already; recovery volumes apart.
    pub bytes: u64,
    /// It was there already, the same.
    pub unchanged: bool,
    /// In volumes only.
    pub volumes: Vec<WrittenVolume>,
    pub recovery: Vec<WrittenVolume>,
    /// Volumes that the bundle was read from; 0: it was not split.
    pub volumes_read: u32,
    /// Blobs that are links to files of the source, or share their bytes.
    pub blobs_linked: u64,
    /// The fingerprint of the key whose signature was found good.
    #[serde(serialize_with = "fingerprint")]
    pub signed_by: Option<PublicKey>,
    #[serde(skip)]
    pub took: Duration,
}

fn fingerprint<S: serde::Serializer>(key: &Option<PublicKey>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    key.as_ref().map(PublicKey::fingerprint).serialize(serializer)
}

impl ConvertReport {
    /// Every file or directory that was written, or was there already.
    pub fn paths(&self) -> Vec<PathBuf> {
        if self.volumes.is_empty() {
            return self.output.iter().cloned().collect();
        }
        self.volumes.iter().chain(&self.recovery).map(|volume| volume.path.clone()).collect()
    }
}

/// The volumes that there would be.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumesPlan {
    pub version: u32,
    pub ok: bool,
    pub identity: Digest,
    pub volumes: Vec<PlannedVolume>,
    /// Recovery volumes besides.
    pub recovery: u32,
}

/// A volume that would be written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedVolume {
    pub volume: PathBuf,
    pub number: u32,
    pub bytes: u64,
    /// Blobs and tools that it would hold, or parts of them.
    pub files: usize,
}

/// Writes a bundle in another form.
///
/// # Errors
/// The bundle is refused, or not all of it is there ([`verify::Refusal::of`] has its problems); a file of it is not what
/// `bundle.json` says; something is in the way; no room, or what else the disk says. Nothing has the name of the output.
pub async fn convert(request: ConvertRequest, environment: &Environment) -> Result<ConvertReport> {
    let started = Instant::now();
    let ConvertRequest { bundle, trust, output, link } = request;
    match &output {
        ConvertOutput::File(path) if Compressed::is_meant(path) => Compressed::check_free(path)?,
        ConvertOutput::File(path) => preflight::check_free(path)?,
        ConvertOutput::Volumes { path, .. } => plan_volumes::check_free(path)?,
        ConvertOutput::Stream(_) => {}
    }
    let events = environment.events.clone();
    let source = open(&bundle, &trust, environment)?;
    let Source { conversion, created, volumes: volumes_read, signed_by } = source;
    let identity = conversion.files.identity;
    let mut report = ConvertReport {
        version: REPORT_VERSION,
        ok: true,
        output: None,
        identity,
        bytes: 0,
        unchanged: false,
        volumes: Vec::new(),
        recovery: Vec::new(),
        volumes_read,
        blobs_linked: 0,
        signed_by,
        took: Duration::ZERO,
    };
    match output {
        ConvertOutput::Stream(outlet) => report.bytes = conversion.stream(outlet, &events).await?.size,
        ConvertOutput::File(path) if Compressed::is_meant(&path) => {
            let there = conversion.there(&path, &events)?;
            report.unchanged = there.is_some();
            if there.is_none() {
                conversion.stream(Compressed::create(&path)?, &events).await?;
            }
            report.bytes = path.metadata().map_or(0, |file| file.len());
            report.output = Some(path);
        }
        ConvertOutput::File(path) => {
            let device = device_of(&bundle);
            let options = Options { link, device, ..Options::copying() };
            let out = path.clone();
            let converted = blocking(move || conversion.write(&out, options, &events)).await?;
            let Converted { finished: Finished { size, unchanged, .. }, linked, .. } = converted;
            (report.bytes, report.unchanged, report.blobs_linked) = (size, unchanged, linked);
            report.output = Some(path);
        }
        ConvertOutput::Volumes { path, options } => {
            let of = RecoveryOf {
                identity,
                created,
                limit: options.shape.limit,
                volumes: 0,
                recovery: if options.selection.is_all() { options.shape.recovery } else { 0 },
            };
            let out = path.clone();
            let written = blocking(move || write_volumes(conversion, &out, options, of, &events)).await?;
            report.unchanged = written.volumes.iter().all(|volume| volume.unchanged);
            report.bytes = written.volumes.iter().map(|volume| volume.size).fold(0, u64::saturating_add);
            (report.volumes, report.recovery) = (written.volumes, written.recovery);
            report.output = Some(path);
        }
    }
    report.took = started.elapsed();
    Ok(report)
}

/// The volumes that a bundle would be split into; nothing is written.
///
/// # Errors
/// The bundle is refused or damaged; the volumes would be too small.
pub fn plan_conversion(
    bundle: &[PathBuf],
    trust: &Trust,
    (path, options): (&Path, &VolumeOptions),
    environment: &Environment,
) -> Result<VolumesPlan> {
    let source = open(bundle, trust, environment)?;
    let set = plan_volumes::plan(path, &source.conversion.files, options)?;
    let planned = set.wanted(&options.selection).map(|volume| PlannedVolume {
        volume: set.path_of(volume),
        number: volume.number,
        bytes: volume.length,
        files: volume.files.len(),
    });
    let volumes = planned.collect();
    Ok(VolumesPlan {
        version: REPORT_VERSION,
        ok: true,
        identity: set.identity,
        volumes,
        recovery: options.shape.recovery,
    })
}

/// A bundle that may be believed as far as it was looked at.
struct Source {
    conversion: Conversion,
    created: Timestamp,
    volumes: u32,
    signed_by: Option<PublicKey>,
}

fn open(paths: &[PathBuf], trust: &Trust, environment: &Environment) -> Result<Source> {
    let nothing = "nothing was written";
    let opened = Opened::open(paths)?;
    let volumes = opened.volumes().map_or(0, |volumes| volumes.set.of);
    let signed = trust.check(opened.layout(), environment).map_err(|e| e.while_doing(nothing))?;
    if opened.volumes().is_some() {
        let report = verify::check_proven(&opened, Depth::Structure, signed.as_ref(), &environment.events)?;
        refuse_incomplete(&opened, &report).map_err(|e| e.while_doing(nothing))?;
    }
    let signed_by = signed.as_ref().map(|signed| signed.by.clone());
    let (bundle, _) = opened.into_bundle(signed)?;
    let created = bundle.lock().created;
    Ok(Source { conversion: Conversion::of(bundle)?, created, volumes, signed_by })
}

struct Written {
    volumes: Vec<WrittenVolume>,
    recovery: Vec<WrittenVolume>,
}

/// The volumes, and then the recovery volumes that are made of all of them.
fn write_volumes(
    mut conversion: Conversion,
    out: &Path,
    options: VolumeOptions,
    of: RecoveryOf,
    events: &Events,
) -> Result<Written> {
    plan_volumes::keep_signatures(out, &mut conversion.files, &options)?;
    let set = plan_volumes::plan(out, &conversion.files, &options)?;
    let options = Options { volumes: Some(options), ..Options::copying() };
    let selection = options.volumes.as_ref().map(|volumes| volumes.selection.clone());
    let unchanged = conversion.write(out, options, events)?.unchanged_volumes;
    let written = selection.iter().flat_map(|selection| set.wanted(selection)).map(|volume| WrittenVolume {
        path: set.path_of(volume),
        number: volume.number,
        size: volume.length,
        unchanged: unchanged.contains(&volume.number),
    });
    let volumes: Vec<WrittenVolume> = written.collect();
    let recovery = match of.recovery {
        0 => Vec::new(),
        _ => {
            let of = RecoveryOf { volumes: u32::try_from(set.plan.volumes.len()).unwrap_or(u32::MAX), ..of };
            let unchanged = volumes.iter().all(|volume| volume.unchanged);
            write_recovery(&set.name, &of, unchanged, events)?
        }
    };
    Ok(Written { volumes, recovery })
}

/// The device of a bundle that is a directory.
fn device_of(paths: &[PathBuf]) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let [only] = paths else { return None };
    only.metadata().ok().filter(std::fs::Metadata::is_dir).map(|directory| directory.dev())
}

async fn blocking<T: Send + 'static>(job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let stopped = |e| Error::new(Kind::Interrupted, "writing the bundle").because(e);
    tokio::task::spawn_blocking(job).await.map_err(stopped)?
}
