//! Resolves references without transferring content.

use super::units::as_optional_path;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::environment::Environment;
use super::local::{check_writable, write_file};
use super::outcome::{JsonReport, Outcome, REPORT_VERSION};
use super::registry::RegistryOptions;
use super::resolve::{self, Earlier, ResolveOptions, Resolver};
use crate::base::document::Document;
use crate::base::error::Result;
use crate::bundle::{Contents, walk_file};
use crate::content::{Cached, Checkpoint};
use crate::oci::Digest;
use crate::pipeline::allowlist::Allowlist;
use crate::pipeline::lock::{Lock, MissingImage};
use crate::pipeline::walk::Modes;
use crate::signing::FingerprintWords;
use crate::transport::registry::Served;

/// What to resolve.
pub struct LockRequest {
    pub images: Allowlist,
    /// What a bundle would contain of the images.
    pub resolve: ResolveOptions,
    /// Where to write the lock. An existing lock supplies the digests of immutable tags and its index modes.
    pub output: Option<PathBuf>,
    pub registry: RegistryOptions,
}

/// The result of resolving.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockReport {
    pub version: u32,
    /// Whether nothing is missing.
    pub ok: bool,
    /// The lock file.
    #[serde(serialize_with = "as_optional_path")]
    pub output: Option<PathBuf>,
    /// When the references were resolved.
    pub created: Timestamp,
    /// Number of images.
    pub image_count: usize,
    /// Images that were requested and cannot be fetched.
    pub missing: Vec<MissingImage>,
    /// The identity of a bundle of exactly this lock. `null` if images of immutable tags were not read.
    pub identity: Option<Digest>,
    /// The identity as words.
    pub fingerprint: Option<String>,
    #[serde(skip)]
    pub lock: Lock,
    /// Content that came from another place than its name says.
    #[serde(skip)]
    pub mirrors: Vec<Served>,
    #[serde(skip)]
    pub outcome: Outcome,
}

impl JsonReport for LockReport {}

/// Resolves an allowlist to a lock.
///
/// # Errors
/// An image cannot be fetched and may not be left out, or the lock cannot be written. Manifests that were read stay for the
/// next run.
pub async fn lock(request: &LockRequest, environment: &Environment) -> Result<LockReport> {
    let (environment, watch) = environment.watched();
    check_writable(&request.output)?;
    let (list, registries) = request.resolve.connect(&request.images, &request.registry, &environment)?;
    let resolver = Resolver { options: &request.resolve, jobs: request.registry.jobs, environment: &environment };
    // Nothing can be resumed from a pipe or a device.
    let file = request.output.as_deref().filter(|path| path.is_file() || !path.exists());
    let earlier = resolver.earlier(file, None, Modes::default())?;
    let kept = Checkpoint::new(&registries, file.map(walk_file));
    resolve::report_obstacle(&kept, &environment.events);
    let cached = Cached::new(&kept, None);
    let resolved = resolve(&resolver, &list, earlier, &cached).await;
    // The manifests that were read are needed until the lock is written.
    let written = resolved.and_then(|resolved| {
        let file = resolved.0.to_file()?;
        request.output.as_ref().map_or(Ok(()), |path| write_file(path, file.as_bytes()))?;
        Ok(resolved)
    });
    let (lock, identity) = resolve::finish_walk_file(&kept, written, &environment.events)?;
    let outcome = match resolver.outcome(&lock.missing) {
        Outcome::Done if watch.is_incomplete() => Outcome::SomeImagesFailed,
        outcome => outcome,
    };
    Ok(LockReport {
        version: REPORT_VERSION,
        ok: outcome.is_ok(),
        output: request.output.clone(),
        created: lock.created,
        image_count: lock.images.len(),
        missing: lock.missing.clone(),
        identity,
        fingerprint: identity.map(|identity| FingerprintWords::of(&identity).to_string()),
        lock,
        mirrors: registries.served(),
        outcome,
    })
}

/// Returns the lock, and the identity of a bundle of exactly this lock without tools or parents. There is no identity if
/// tags are trusted: images of immutable tags are then taken from the earlier lock without reading them.
async fn resolve(
    resolver: &Resolver<'_>,
    list: &Allowlist,
    earlier: Earlier,
    cached: &Cached<'_>,
) -> Result<(Lock, Option<Digest>)> {
    if resolver.options.trusts_tags() {
        return Ok((resolver.pin(list, earlier, cached).await?, None));
    }
    let (lock, graph) = resolver.resolve(list, earlier, cached).await?;
    let identity = Contents::new(lock.clone(), &graph)?.identity()?;
    Ok((lock, Some(identity)))
}
