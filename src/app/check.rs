//! Checks every byte of a registry's storage and lists its problems.

use super::units::as_path;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::environment::Environment;
use super::migrate::REGISTRY;
use super::migrate::counted::{Counted, companion_tag};
use super::outcome::{JsonReport, Outcome, REPORT_VERSION};
use super::storage_problems::problem_counts;
use crate::base::error::Result;
use crate::oci::{Digest, Repository};
use crate::transport::storage::{Audit, AuditDepth, AuditScope, Storage, StorageProblem, StorageProblemKind, Survey};

/// The storage to check.
#[derive(Clone, Debug)]
pub struct CheckRequest {
    /// A directory at or above `docker/registry/v2`, or an uncompressed tar of one.
    pub storage: PathBuf,
}

/// The result of the check.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    pub version: u32,
    /// Whether the storage has no problem.
    pub ok: bool,
    /// The storage, as named in the request.
    #[serde(serialize_with = "as_path")]
    pub storage: PathBuf,
    /// Number of repositories.
    pub repository_count: usize,
    /// Number of tags.
    pub image_count: usize,
    /// Number of manifests that have no tag and that no tagged manifest leads to.
    pub untagged: usize,
    /// Number of distinct blobs read.
    pub blobs: usize,
    /// Size of these blobs in bytes.
    pub bytes: u64,
    /// Number of images that the problems affect.
    pub affected: usize,
    pub problems: Vec<StorageProblem>,
    /// Number of problems by code.
    pub counts: BTreeMap<StorageProblemKind, usize>,
    /// What kinds of tags there are, and the manifests without one.
    #[serde(skip)]
    pub counted: Counted,
    #[serde(skip)]
    pub outcome: Outcome,
    #[serde(skip)]
    pub elapsed: Duration,
}

impl JsonReport for CheckReport {}

/// Checks a whole storage.
///
/// # Errors
/// `storage` is not a storage, or cannot be read.
pub fn check(request: &CheckRequest, environment: &Environment) -> Result<CheckReport> {
    let started = Instant::now();
    let storage = Storage::open(&request.storage, REGISTRY)?;
    let survey = storage.survey()?;
    let audit = storage.audit(&survey, AuditScope::Everything, AuditDepth::Digest, None, &environment.events);
    let outcome = if audit.problems.is_empty() { Outcome::Done } else { Outcome::Damaged };
    let affected = audit.problems.iter().flat_map(|problem| &problem.images).collect::<HashSet<_>>().len();
    Ok(CheckReport {
        version: REPORT_VERSION,
        ok: outcome.is_ok(),
        storage: request.storage.clone(),
        repository_count: survey.repositories.len(),
        image_count: survey.tags.len(),
        untagged: audit.untagged.len(),
        blobs: audit.blobs,
        bytes: audit.bytes,
        affected,
        counts: problem_counts(&audit.problems),
        counted: counted(&survey, &audit),
        problems: audit.problems,
        outcome,
        elapsed: started.elapsed(),
    })
}

fn counted(survey: &Survey, audit: &Audit) -> Counted {
    let holdings: HashMap<_, _> = survey.repositories.iter().map(|holding| (&holding.repository, holding)).collect();
    let has = |repository: &Repository, digest: &Digest| holdings.get(repository).is_some_and(|here| here.has(digest));
    let mut counted: Counted = survey.tags.iter().map(|found| companion_tag(found, has)).collect();
    counted.images += audit.untagged.len();
    counted
}
