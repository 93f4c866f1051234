//! Writes a bundle in another form: directory, tar, compressed tar, volumes or a stream. Its identity and signatures stay
//! the same.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::environment::Environment;
use super::export::{ExportedVolume, PlannedVolume};
use super::import::refuse_incomplete;
use super::outcome::{JsonReport, REPORT_VERSION};
use super::output::Output;
use super::read_back::read_back;
use super::trust::Trust;
use super::units::{as_path, as_seconds};
use crate::base::blocking::blocking;
use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events};
use crate::bundle::Compressed;
use crate::bundle::convert::{Conversion, WrittenForm};
use crate::bundle::volumes::{Opened, RecoveryOf, Set, VolumeOptions, WrittenVolume, write_recovery};
use crate::bundle::{Finished, Form, Options, plan_volumes};
use crate::content::LinkMode;
use crate::oci::Digest;
use crate::signing::PublicKey;
use crate::verify::{self, Depth};

/// The attempted action in error messages.
const WRITING: &str = "writing the bundle";

/// A bundle, and the form to write.
pub struct ConvertRequest {
    /// A directory, a tar, or all volumes of a set in any order.
    pub bundle: Vec<PathBuf>,
    /// The accepted signatures.
    pub trust: Trust,
    pub output: Output,
    /// How blobs are taken from one directory into another.
    pub link: LinkMode,
    /// Plan the volumes and write nothing.
    pub dry_run: bool,
    /// Read the output back from the medium before reporting success.
    pub read_back: bool,
}

/// What a conversion wrote, or would write.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum ConvertReport {
    /// The result of a dry run.
    Planned(Box<VolumesPlan>),
    Written(Box<Converted>),
}

impl JsonReport for ConvertReport {}

/// The volumes that would be written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumesPlan {
    pub version: u32,
    pub ok: bool,
    /// Identity of the bundle.
    pub identity: Digest,
    pub volumes: Vec<PlannedVolume>,
    /// Number of recovery volumes.
    pub recovery_count: u32,
    /// For each volume, the number of blobs and tools that it would contain, whole or in part.
    #[serde(skip)]
    pub files: Vec<usize>,
}

/// A bundle in its new form.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Converted {
    pub version: u32,
    pub ok: bool,
    /// The output. For volumes, the name from which the names of the volumes are made.
    #[serde(serialize_with = "as_path")]
    pub output: PathBuf,
    /// Identity of the bundle.
    pub identity: Digest,
    /// Size of the output in bytes, without recovery volumes.
    pub bytes: u64,
    /// Whether the output already existed.
    pub unchanged: bool,
    /// The volumes written. Empty for other forms.
    pub volumes: Vec<ExportedVolume>,
    /// The recovery volumes written.
    pub recovery: Vec<ExportedVolume>,
    /// Number of volumes the bundle was read from, or 0 if it was not split.
    pub volumes_read: u32,
    /// Number of blobs that share their storage with the bundle that was read.
    pub blobs_linked: u64,
    /// Duration of the conversion.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
    /// The fingerprint of the key whose signature was verified.
    pub signed_by: Option<Digest>,
    /// The key itself.
    #[serde(skip)]
    pub key: Option<PublicKey>,
}

/// Writes a bundle in another form.
///
/// # Errors
/// The bundle is refused or incomplete ([`verify::Refusal::of`] returns its problems); a file differs from `bundle.json`;
/// another file is in the way; or the disk is full or fails. In all these cases, nothing gets the name of the output.
pub async fn convert(request: ConvertRequest, environment: &Environment) -> Result<ConvertReport> {
    let started = Instant::now();
    if request.read_back && request.output.form().is_none() {
        let text = "a stream cannot be read back; verify it where it arrives";
        return Err(Error::input(format!("writing {}: {text}", request.output.path().display())));
    }
    if !request.dry_run {
        request.output.check_free()?;
        request.output.note_new_directory(&environment.events);
    }
    let mut source = Source::open(&request.bundle, &request.trust, environment)?;
    if request.dry_run {
        return source.plan(&request.output).map(|plan| ConvertReport::Planned(Box::new(plan)));
    }
    let (key, volumes_read, identity) = (source.key.clone(), source.volumes, source.conversion.files.identity);
    let output = request.output.path().to_owned();
    if let Some(former) = request.output.former()?.filter(|former| former.identity() != identity) {
        let text = format!("replacing {}, which is another bundle ({})", output.display(), former.identity());
        environment.events.report(Event::Notice(text));
    }
    if let Some(Form::Directory | Form::Tar | Form::Compressed) = request.output.form() {
        source.conversion.keep_signatures_of(&output, &environment.events)?;
    }
    let written = source.write(&request, &environment.events).await?;
    if request.read_back {
        read_back(written.paths(&output), identity, &environment.events).await?;
    }
    let exported = |volumes: &[WrittenVolume]| volumes.iter().map(ExportedVolume::from).collect();
    Ok(ConvertReport::Written(Box::new(Converted {
        version: REPORT_VERSION,
        ok: true,
        identity,
        bytes: written.bytes,
        unchanged: written.unchanged,
        volumes: exported(&written.volumes),
        recovery: exported(&written.recovery),
        volumes_read,
        blobs_linked: written.linked,
        elapsed: started.elapsed(),
        signed_by: key.as_ref().map(PublicKey::fingerprint),
        key,
        output,
    })))
}

/// The bundle to convert, after its checks.
struct Source {
    conversion: Conversion,
    created: Timestamp,
    /// Number of volumes the bundle was split into, or 0.
    volumes: u32,
    /// The key whose signature was verified.
    key: Option<PublicKey>,
}

/// The result of writing.
#[derive(Default)]
struct Written {
    bytes: u64,
    unchanged: bool,
    volumes: Vec<WrittenVolume>,
    recovery: Vec<WrittenVolume>,
    linked: u64,
}

impl Written {
    fn paths(&self, output: &Path) -> Vec<PathBuf> {
        match self.volumes.is_empty() {
            true => vec![output.to_owned()],
            false => self.volumes.iter().chain(&self.recovery).map(|volume| volume.path.clone()).collect(),
        }
    }
}

impl Source {
    fn open(paths: &[PathBuf], trust: &Trust, environment: &Environment) -> Result<Source> {
        let nothing = "nothing was written";
        let opened = Opened::open(paths)?;
        let volumes = opened.volumes().map_or(0, |volumes| volumes.set.of);
        let signed = trust.check(opened.layout(), environment).map_err(|e| e.while_doing(nothing))?;
        if opened.volumes().is_some() {
            let report = verify::check_proven(&opened, Depth::Structure, signed.as_ref(), &environment.events)?;
            refuse_incomplete(&opened, &report).map_err(|e| e.while_doing(nothing))?;
        }
        let key = signed.as_ref().map(|signed| signed.by.clone());
        let (bundle, _) = opened.into_bundle(signed)?;
        let created = bundle.lock().created;
        Ok(Source { conversion: Conversion::of(bundle, &environment.events)?, created, volumes, key })
    }

    fn plan(&self, output: &Output) -> Result<VolumesPlan> {
        let Output::Volumes { path, volumes } = output else {
            return Err(Error::input("a dry run only plans volumes: a bundle in another form has the same size"));
        };
        let set = plan_volumes::plan(path, &self.conversion.files, volumes)?;
        let wanted = || set.wanted(&volumes.selection);
        Ok(VolumesPlan {
            version: REPORT_VERSION,
            ok: true,
            identity: set.identity,
            volumes: wanted().map(|volume| PlannedVolume::new(&set, volume)).collect(),
            recovery_count: volumes.shape.recovery,
            files: wanted().map(|volume| volume.files.len()).collect(),
        })
    }

    async fn write(self, request: &ConvertRequest, events: &Events) -> Result<Written> {
        let conversion = self.conversion;
        match &request.output {
            Output::Stream { name, sink } => {
                let sink = sink.take();
                let sink = sink.ok_or_else(|| Error::input(format!("{} was written already", name.display())))?;
                let bytes = conversion.stream(sink, events).await?.size;
                Ok(Written { bytes, ..Written::default() })
            }
            Output::Path(path) if Form::named(path) == Form::Compressed => {
                let unchanged = conversion.there(path, events)?.is_some();
                if !unchanged {
                    conversion.stream(Compressed::create(path)?, events).await?;
                }
                Ok(Written { bytes: path.metadata().map_or(0, |file| file.len()), unchanged, ..Written::default() })
            }
            Output::Path(path) => {
                let options = Options {
                    link: request.link,
                    device: device_of(&request.bundle),
                    ..Options::copying(Form::named(path))
                };
                let (out, events) = (path.clone(), events.clone());
                let written = blocking(WRITING, move || conversion.write(&out, options, &events)).await?;
                let WrittenForm { finished: Finished { size, unchanged, .. }, linked, .. } = written;
                Ok(Written { bytes: size, unchanged, linked, ..Written::default() })
            }
            Output::Volumes { path, volumes } => {
                let (out, options, events) = (path.clone(), volumes.clone(), events.clone());
                let created = self.created;
                blocking(WRITING, move || write_volumes(conversion, &out, options, created, &events)).await
            }
        }
    }
}

/// Writes the volumes, and then the recovery volumes computed from all of them.
fn write_volumes(
    mut conversion: Conversion,
    out: &Path,
    volumes: VolumeOptions,
    created: Timestamp,
    events: &Events,
) -> Result<Written> {
    let set = plan_volumes::prepare(out, &mut conversion.files, &volumes)?;
    let options = Options::copying(Form::Volumes(volumes.clone()));
    let WrittenForm { unchanged_volumes: there, lock, .. } = conversion.write(out, options, events)?;
    let written = set.wanted(&volumes.selection).map(|volume| WrittenVolume {
        path: set.path_of(volume),
        number: volume.number,
        size: volume.length,
        unchanged: there.contains(&volume.number),
    });
    let written: Vec<WrittenVolume> = written.collect();
    let unchanged = written.iter().all(|volume| volume.unchanged);
    let bytes = written.iter().map(|volume| volume.size).fold(0, u64::saturating_add);
    let recovery = match volumes.selection.is_all() && volumes.shape.recovery > 0 {
        true => write_recovery(&set.name, &recovery_of(&set, &volumes, created), lock, unchanged, events)?,
        false => Vec::new(),
    };
    Ok(Written { bytes, unchanged, volumes: written, recovery, linked: 0 })
}

fn recovery_of(set: &Set, volumes: &VolumeOptions, created: Timestamp) -> RecoveryOf {
    RecoveryOf {
        identity: set.identity,
        created,
        limit: volumes.shape.limit,
        volumes: u32::try_from(set.plan.volumes.len()).unwrap_or(u32::MAX),
        recovery: volumes.shape.recovery,
    }
}

/// Returns the device of a bundle that is a directory.
fn device_of(paths: &[PathBuf]) -> Option<u64> {
    let [only] = paths else { return None };
    only.metadata().ok().filter(std::fs::Metadata::is_dir).map(|directory| directory.dev())
}
