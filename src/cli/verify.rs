//! `gapferry verify`: verifies every byte of a bundle and lists every problem.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::allowlist::missing_lines;
use super::context::Context;
use super::exit::CommandOutcome;
use super::render::problem as shown;
use super::signing::{KeyArgs, signed_by};
use super::{hint, piped};
use crate::app::{self, VerifyInput, VerifyReport, VerifyRequest};
use crate::base::error::Result;
use crate::base::progress::units::{bytes, count, duration};
use crate::bundle::Missing;
use crate::bundle::volumes::Part;
use crate::verify::{BlobProof, Report, SetReport, VolumeReport, VolumeState};

const ABOUT: &str = "\
Verifies every byte of a bundle and lists every problem. The bundle is a directory or a tar; a tar is read in place \
and never extracted.

gapferry checks the digest manifest, the size and bytes of every file, that every child of every manifest is present \
or was left out on purpose, that there are no undeclared files, and that bundle.json, SHA256SUMS, index.json and \
manifest.json agree. Blobs are verified with the BLAKE3 values in chunks.b3, one mebibyte at a time, which also \
locates damage; everything else, and with --full everything, is verified by digest. gapferry does not stop at the \
first problem: it lists each one with its path, what was expected, what was found, the images affected and what to \
do.

BLAKE3 values protect against accidents only, because an attacker who replaces a blob can also replace its values. \
With --key they are used only if an accepted key also signed chunks.b3; otherwise blobs are verified by digest. The \
report says which method was used, and why. If only chunks.b3 is damaged, no image is affected. \
`import` never relies on chunks.b3. If a set has recovery volumes, --full also compares the volumes with them.

--missing FILE writes what is needed to repair the bundle: bad or absent blobs and, for large blobs, the bad \
mebibytes. The file is always written; if nothing is missing, it says so. Problems that cannot be repaired, such as \
undeclared files, are not in it.

Volumes are given in any order. With all of them, gapferry lists volumes that are missing, damaged or from another \
set, each with the images it affects. A single volume, or a recovery volume, is verified on its own.

`-` or a named pipe is read in one pass. Every file is verified by digest, as with --full. JSON files are \
buffered in an unnamed file in TMPDIR. A signature must come before the blobs, as in every bundle that gapferry signed \
while it wrote it.

With --key, the signature is checked before any other file is opened. A bundle that is unsigned, signed by another \
key or changed since is rejected.

Exit codes: 0 no problems; 3 damaged, or not signed by --key; 2 not a bundle.";

const AFTER: &str = "\
Examples:
  gapferry verify /mnt/usb/images.tar
  gapferry verify images.tar --key their.pub
  gapferry verify images.*.tar
  ssh outside cat images.tar | gapferry verify -
  gapferry verify images.tar --missing missing.json
  gapferry verify bundle --json | jq -r '.problems[].path'

Without gapferry, in a directory (or after `tar xf`):
  sha256sum -c SHA256SUMS

Who made it, with an ECDSA key, by openssl or cosign:
  openssl dgst -sha256 -verify their.pub -signature SHA256SUMS.sig SHA256SUMS
  cosign verify-blob --key their.pub --signature SHA256SUMS.sig \\
    --insecure-ignore-tlog SHA256SUMS
With an Ed25519 key:
  openssl pkeyutl -verify -pubin -inkey their.pub -rawin \\
    -in SHA256SUMS -sigfile SHA256SUMS.sig";

/// Verify every byte of a bundle and list every problem
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Bundle: directory, tar, volumes, or `-`
    #[arg(required = true)]
    bundle: Vec<PathBuf>,
    /// Verify every file by digest, and chunks.b3 (slower)
    #[arg(long)]
    full: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write what would repair the bundle to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    missing: Option<PathBuf>,
    #[command(flatten)]
    keys: KeyArgs,
}

pub fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    let (json, missing) = (args.json, args.missing.clone());
    let request = args.request(context)?;
    let is_passing = matches!(request.bundle, VerifyInput::Stream(_));
    let mut report = app::verify(request, &context.environment)?;
    // A stream that has passed cannot be repaired.
    report.hint = hint::for_verified(&report.found).filter(|_| !is_passing);
    context.end();
    match json {
        true => context.print_json(&report)?,
        false => print(&report, context)?,
    }
    if let Some((path, missing)) = missing.zip(report.missing) {
        report_missing(&path, &missing, context);
    }
    if let Some(hint) = report.hint {
        context.hint(hint);
    }
    report.failure.map_or(Ok(report.outcome.into()), Err)
}

impl Args {
    fn request(self, context: &Context) -> Result<VerifyRequest> {
        let stream = match &self.bundle[..] {
            [only] => piped::open(only)?,
            _ => None,
        };
        let bundle = match stream {
            Some(stream) => VerifyInput::Stream(stream),
            None => VerifyInput::Files { paths: self.bundle, full: self.full },
        };
        Ok(VerifyRequest { bundle, trust: self.keys.trust(context)?, missing: self.missing })
    }
}

fn report_missing(path: &Path, missing: &Missing, context: &Context) {
    let path = path.display();
    context.say(&match missing.is_empty() {
        true => format!("{path}: nothing is missing"),
        false => format!(
            "{path}: {}, {} to fetch, {}{}",
            count(missing.blobs.len(), "blob"),
            bytes(missing.bytes()),
            count(missing.metadata.len(), "metadata file"),
            if missing.tools.is_empty() { String::new() } else { format!(", {}", count(missing.tools.len(), "tool")) },
        ),
    });
}

fn print(VerifyReport { found, signed_by: by, path, elapsed, .. }: &VerifyReport, context: &Context) -> Result<()> {
    for problem in &found.problems {
        context.print(&shown(problem))?;
    }
    let (problems, bundle) = (found.problems.len(), path.display());
    let volumes = found.set.as_ref().map(volumes).unwrap_or_default();
    let summary = if problems == 0 {
        let (size, time) = (bytes(found.bytes), duration(*elapsed));
        let identity = found.identity.map(|identity| format!("\nidentity {identity}")).unwrap_or_default();
        let (images, files) = (count(found.image_count, "image"), count(found.files, "file"));
        let signed = by.as_ref().map(|by| format!("\n{}", signed_by(by))).unwrap_or_default();
        let basis = app::basis_line(&found.parents, found.expects.blobs, found.expects.bytes);
        let basis = basis.map(|line| line + "\n").unwrap_or_default();
        let missing: String = missing_lines(&found.missing).iter().map(|line| format!("{line}\n")).collect();
        let proof = proved(found, !signed.is_empty());
        format!("OK: {bundle}: {volumes}{images}, {files}, {size}, {time}{identity}{signed}\n{proof}{basis}{missing}")
    } else {
        let affected: BTreeSet<&String> = found.problems.iter().flat_map(|problem| problem.images.iter()).collect();
        let (problems, affected) = (count(problems, "problem"), affected.len());
        format!(
            "DAMAGED: {bundle}: {volumes}{problems}, {affected} of {} affected\n",
            count(found.image_count, "image")
        )
    };
    context.print(&summary)?;
    context.print(&found.set.as_ref().map(without_recovery).unwrap_or_default())
}

/// Says how the blobs were verified, as a complete line.
fn proved(report: &Report, is_signed: bool) -> String {
    let Some(proof) = report.proof else { return String::new() };
    let by = match proof {
        BlobProof::Digest => "blobs verified by digest",
        BlobProof::Blake3 => {
            "blobs verified by BLAKE3 (chunks.b3), which detects accidents only; --full verifies digests"
        }
        BlobProof::Blake3Signed => "blobs verified by BLAKE3 (chunks.b3), which an accepted key has signed",
    };
    let reason = report.proof_reason.map(|why| format!(": {why}")).unwrap_or_default();
    let of_set = match is_signed && report.set.is_some() {
        true => "no signature covers what volumes say of themselves (volumes/)\n",
        false => "",
    };
    format!("{by}{reason}\n{of_set}")
}

/// Notes absent recovery volumes. Only a repair needs them.
fn without_recovery(set: &SetReport) -> String {
    if set.volumes.len() < 2 || set.missing_recovery.is_empty() {
        return String::new();
    }
    let label = |number: &u32| Part::Recovery(*number).label(set.recovery_count);
    let labels = set.missing_recovery.iter().take(10).map(label).collect::<Vec<_>>().join(", ");
    let more = set.missing_recovery.len().saturating_sub(10);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let (are, of) = (if set.missing_recovery.len() == 1 { "is" } else { "are" }, set.recovery_count);
    format!("note: {labels}{more} of {of} for recovery {are} not here; only `gapferry repair` needs them\n")
}

/// Summarizes the volumes that were given.
fn volumes(set: &SetReport) -> String {
    match &set.volumes[..] {
        [VolumeReport { volume: Some(label), .. }] if label.starts_with('r') => {
            format!("recovery volume {label} of {}, ", set.recovery_count)
        }
        [VolumeReport { volume: Some(label), .. }] => {
            let number = label.trim_start_matches('0');
            format!("volume {number} of {}, ", set.of)
        }
        _ => {
            let is = |state| set.volumes.iter().filter(|volume| volume.state == state).count();
            let parts = [(is(VolumeState::Good), "good"), (is(VolumeState::Damaged), "damaged")];
            let missing = if set.volumes.iter().all(is_recovery) { 0 } else { set.missing_volumes.len() };
            let parts = parts.into_iter().chain([(is(VolumeState::Foreign), "of another set"), (missing, "missing")]);
            let parts: Vec<String> =
                parts.filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
            let recovery = if set.recovery_count > 0 {
                format!(" and {} for recovery", set.recovery_count)
            } else {
                String::new()
            };
            format!("{}{recovery} ({}), ", count(set.of as usize, "volume"), parts.join(", "))
        }
    }
}

fn is_recovery(volume: &VolumeReport) -> bool {
    volume.volume.as_ref().is_some_and(|label| label.starts_with('r'))
}
