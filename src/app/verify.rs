//! Verifies every byte of a bundle and lists its problems.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::environment::Environment;
use super::failure::as_detail;
use super::hint::Hint;
use super::local::{check_writable, write_file};
use super::outcome::{JsonReport, Outcome, REPORT_VERSION};
use super::stream::BundleStream;
use super::trust::Trust;
use super::units::as_fingerprint;
use crate::base::document::Document;
use crate::base::error::{Error, Result};
use crate::bundle::volumes::Opened;
use crate::bundle::{Missing, Proven};
use crate::files::Layout;
use crate::signing::PublicKey;
use crate::verify::{self, Depth};

/// What to verify.
pub struct VerifyRequest {
    pub bundle: VerifyInput,
    /// The signatures that the bundle must have.
    pub trust: Trust,
    /// Where to write a list of what would repair the bundle.
    pub missing: Option<PathBuf>,
}

/// How the bundle is given.
pub enum VerifyInput {
    Files {
        /// A directory, a tar, or volumes in any order: all volumes of a set, or a single one.
        paths: Vec<PathBuf>,
        /// Prove the digest of every file, and check `chunks.b3` too.
        full: bool,
    },
    /// A stream, in which every file is proven by its digest.
    Stream(BundleStream),
}

/// The result of a verification.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    pub version: u32,
    /// Whether the bundle has no problem.
    pub ok: bool,
    #[serde(flatten)]
    pub found: verify::Report,
    /// The fingerprint of the key whose signature was verified.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_fingerprint")]
    pub signed_by: Option<PublicKey>,
    /// The name of the bundle in messages.
    #[serde(skip)]
    pub path: PathBuf,
    #[serde(skip)]
    pub outcome: Outcome,
    /// The list of what would repair the bundle, once it is written. `None` if it was not requested.
    #[serde(skip)]
    pub missing: Option<Missing>,
    /// What would put the bundle right, if a repair can.
    #[serde(flatten)]
    pub hint: Option<Hint>,
    /// Why the list of what would repair the bundle could not be written.
    #[serde(rename = "error", skip_serializing_if = "Option::is_none", serialize_with = "as_detail")]
    pub failure: Option<Error>,
    #[serde(skip)]
    pub elapsed: Duration,
}

impl JsonReport for VerifyReport {}

/// Verifies a bundle, or volumes of one.
///
/// # Errors
/// The input is not a bundle, cannot be read, or lacks a required signature. Damage is in the report.
pub fn verify(request: VerifyRequest, environment: &Environment) -> Result<VerifyReport> {
    let started = Instant::now();
    check_writable(&request.missing)?;
    let Admitted { opened, proven, depth } = admit(request.bundle, &request.trust, environment)?;
    let path = opened.layout().path().to_owned();
    let found = verify::check_proven(&opened, depth, proven.as_ref(), &environment.events)?;
    let elapsed = started.elapsed();
    let outcome = if found.is_clean() { Outcome::Done } else { Outcome::Damaged };
    let written = request.missing.map(|file| write_missing(&file, opened, &found)).transpose();
    let (missing, failure) = match written {
        Ok(missing) => (missing, None),
        Err(error) => (None, Some(error)),
    };
    let outcome = failure.as_ref().map_or(outcome, |error| Outcome::Failed(error.kind()));
    let (version, signed_by, hint) = (REPORT_VERSION, proven.map(|proven| proven.by), None);
    Ok(VerifyReport { version, ok: outcome.is_ok(), found, signed_by, path, outcome, missing, hint, failure, elapsed })
}

/// A bundle whose signature was checked.
struct Admitted {
    opened: Opened,
    /// What an accepted key has signed.
    proven: Option<Proven>,
    depth: Depth,
}

/// Opens the bundle and checks its signature. A stream is read to its end here.
fn admit(bundle: VerifyInput, trust: &Trust, environment: &Environment) -> Result<Admitted> {
    match bundle {
        VerifyInput::Stream(BundleStream { name, bytes }) => {
            let mut proven = None;
            let mut before_blobs = |layout: &Layout| {
                proven = trust.check(layout, environment)?;
                Ok(())
            };
            let layout = verify::pass(&name, bytes, &mut before_blobs, &environment.events)?;
            Ok(Admitted { opened: Opened::Whole(Box::new(layout)), proven, depth: Depth::Full })
        }
        VerifyInput::Files { paths, full } => {
            let opened = Opened::open_to_verify(&paths)?;
            let proven = trust.check(opened.layout(), environment)?;
            Ok(Admitted { opened, proven, depth: if full { Depth::Full } else { Depth::Chunks } })
        }
    }
}

fn write_missing(file: &Path, opened: Opened, found: &verify::Report) -> Result<Missing> {
    let missing = verify::missing_of(opened.into_layout(), found, super::TOOL)?;
    write_file(file, missing.to_file()?.as_bytes())?;
    Ok(missing)
}
