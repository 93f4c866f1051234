//! Prepares a target for a push. Only Harbor requires more than the distribution protocol.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::options::HarborOptions;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::units::bytes;
use crate::base::progress::{Event, Events};
use crate::content::Account;
use crate::oci::{Digest, Reference, Repository};
use crate::pipeline::harbor::{self, Detected, Harbor, Preflight, ProjectOptions};
use crate::pipeline::naming::Target;
use crate::pipeline::plan::{Action, Inventory, Plan, Targets};
use crate::transport::registry::Registries;

/// Number of requests to Harbor's own API at the same time.
const AT_ONCE: usize = 8;

/// What was requested.
pub(super) struct Asked<'a> {
    pub options: &'a HarborOptions,
    pub dry_run: bool,
    pub events: &'a Events,
}

/// A target whose requirements are known.
pub struct Prepared {
    harbor: Option<Harbor>,
    /// Projects that do not exist or are hidden from this account: their repositories cannot be asked about.
    closed: BTreeSet<String>,
    /// Notes for the plan: what would be created, and what could fail.
    pub notes: Vec<String>,
    /// In a dry run, whether the push would be refused because of the notes.
    pub is_refused: bool,
    /// What Harbor allows, for [`check_rights`].
    found: Option<Preflight>,
}

/// Detects what the target is and prepares it. With `dry_run`, only reports what would be done.
///
/// # Errors
/// Lists everything that would make pushes fail. Requirements of pushing into a particular project are left to
/// [`check_rights`], unless something else fails too.
pub async fn prepare(
    asked: &Asked<'_>,
    registries: &Registries,
    target: &Target,
    targets: &Targets,
) -> Result<Prepared> {
    let Asked { options, dry_run, events } = *asked;
    let limit = |at_once: u16| registries.limit_uploads_per_project(&target.registry, at_once.into());
    let mut harbor = match harbor::detect(registries, account(target, targets)).await? {
        Detected::Harbor(harbor) => harbor,
        Detected::Unclear(error) if options.create_projects => {
            let text = format!("creating projects at {}: Harbor's API does not answer", target.registry);
            return Err(Error::new(error.kind(), text).because(error));
        }
        Detected::Unclear(error) => {
            limit(options.uploads_per_project.unwrap_or(harbor::UPLOADS_PER_PROJECT));
            let text = "is Harbor, but its API does not answer, so projects, rights and quotas were not checked";
            events.report(Event::Warning(format!("{} {text}: {}", target.registry, error.chain())));
            return Ok(unchecked(registries, target, targets, dry_run).await);
        }
        Detected::Another => {
            options.uploads_per_project.map(limit);
            if options.create_projects {
                let text = format!("{} is not Harbor: --create-projects has no effect", target.registry);
                events.report(Event::Warning(text));
            }
            return Ok(unchecked(registries, target, targets, dry_run).await);
        }
    };
    limit(options.uploads_per_project.unwrap_or(harbor::UPLOADS_PER_PROJECT));
    let repositories: BTreeSet<Repository> = targets.iter().map(|to| to.repository.clone()).collect();
    let repositories: Vec<Repository> = repositories.into_iter().collect();
    let mut found = harbor::preflight(registries, &harbor, &repositories).await?;
    let notes = vec![format!("{} is Harbor {}", target.registry, harbor.version().unwrap_or("2.x"))];
    let wanted = found.to_create();
    if dry_run && !found.unauthorized {
        let closed = found.closed();
        return Ok(Prepared { harbor: Some(harbor), closed, notes, is_refused: false, found: Some(found) });
    }
    // Fail early if waiting cannot help.
    let left = if options.create_projects { found.once_created() } else { found.clone() };
    if found.read_only && left.once_writable().check().is_ok() {
        harbor = harbor::wait_until_writable(registries, harbor).await?;
        found.read_only = harbor.read_only() == Some(true);
    }
    let found = match options.create_projects && !wanted.is_empty() {
        true => create(asked, registries, &harbor, &found, &repositories).await?,
        false => found,
    };
    let anyway = found.for_pushes_to(&BTreeSet::new());
    if anyway.check().is_err() {
        found.check()?;
    }
    for problem in anyway.problems() {
        events.report(Event::Warning(problem.to_string()));
    }
    let closed = BTreeSet::new();
    Ok(Prepared { harbor: Some(harbor), closed, notes, is_refused: false, found: Some(found) })
}

/// Checks whether this account may push to the projects of the plan. In a dry run, problems become notes.
///
/// # Errors
/// Lists everything that would make pushes fail.
pub fn check_rights(asked: &Asked<'_>, prepared: &mut Prepared, plan: &Plan) -> Result<()> {
    let Some(found) = prepared.found.take() else { return Ok(()) };
    let pushed = plan.images.iter().filter(|step| matches!(step.action, Action::Push | Action::Wait));
    let projects = pushed.filter_map(|step| harbor::project_of(&step.to.repository)).map(str::to_owned).collect();
    let found = found.for_pushes_to(&projects);
    if !asked.dry_run {
        return found.check();
    }
    prepared.notes.extend(found.problems().iter().map(|problem| planned(asked.options, &found, problem)));
    let left = if asked.options.create_projects { found.once_missing_created() } else { found };
    prepared.is_refused = left.check().is_err();
    Ok(())
}

/// Returns a check for repositories that contain nothing, because Harbor lacks their project or hides it from this account.
/// Creates nothing.
///
/// # Errors
/// The registry gave no clear answer.
pub async fn closed(
    registries: &Registries,
    target: &Target,
    targets: &Targets,
) -> Result<impl Fn(&Repository) -> bool + use<>> {
    let found = look(registries, target, targets).await?;
    let closed = found.map(|found| found.closed()).unwrap_or_default();
    Ok(move |repository: &Repository| harbor::project_of(repository).is_some_and(|project| closed.contains(project)))
}

/// As [`closed`], but only for projects that certainly do not exist: hidden ones must be requested, and then be found
/// missing.
///
/// # Errors
/// The registry gave no clear answer.
pub async fn absent(
    registries: &Registries,
    target: &Target,
    targets: &Targets,
) -> Result<impl Fn(&Repository) -> bool + use<>> {
    let found = look(registries, target, targets).await?;
    let missing: BTreeSet<String> = found.into_iter().flat_map(|found| found.missing).collect();
    Ok(move |repository: &Repository| harbor::project_of(repository).is_some_and(|project| missing.contains(project)))
}

/// The account for requests about the whole registry. Credentials can be limited to a project.
fn account<'t>(target: &'t Target, targets: &'t Targets) -> Account<'t> {
    let path = targets.first().map_or("", |to| to.repository.path());
    Account { registry: &target.registry, path }
}

/// Handles a target without an API. A dry run checks whether the registry refuses the credentials, because it would refuse
/// the push too.
async fn unchecked(registries: &Registries, target: &Target, targets: &Targets, dry_run: bool) -> Prepared {
    let (closed, notes) = (BTreeSet::new(), Vec::new());
    let mut prepared = Prepared { harbor: None, closed, notes, is_refused: false, found: None };
    if dry_run {
        let asked = registries.check_auth(&target.registry, account(target, targets).path).await;
        if asked.is_err_and(|error| error.kind() == Kind::Unauthorized) {
            let registry = &target.registry;
            prepared.is_refused = true;
            prepared
                .notes
                .push(format!("{registry} does not accept the credentials, or received none: nothing will be pushed"));
        }
    }
    prepared
}

async fn look(registries: &Registries, target: &Target, targets: &Targets) -> Result<Option<Preflight>> {
    let Some(harbor) = harbor::detect(registries, account(target, targets)).await?.harbor() else { return Ok(None) };
    let repositories: BTreeSet<Repository> = targets.iter().map(|to| to.repository.clone()).collect();
    let repositories: Vec<Repository> = repositories.into_iter().collect();
    harbor::preflight(registries, &harbor, &repositories).await.map(Some)
}

impl Prepared {
    /// Whether nothing of this repository can be at the target.
    pub fn is_closed(&self, repository: &Repository) -> bool {
        harbor::project_of(repository).is_some_and(|project| self.closed.contains(project))
    }
}

impl Prepared {
    /// Returns the digests of tags that a policy forbids pulling, according to Harbor's own API. Tags that the API hides
    /// from this account are left out.
    ///
    /// # Errors
    /// Harbor's API did not answer.
    pub async fn read_blocked(
        &self,
        inventory: &Inventory,
        registries: &Registries,
    ) -> Result<Vec<(Reference, Digest)>> {
        let blocked = inventory.blocked.keys().filter(|_| self.harbor.is_some());
        stream::iter(blocked)
            .map(|tag| async move {
                let digest = harbor::tag_digest(registries, tag).await?;
                Ok(digest.map(|digest| (tag.clone(), digest)))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|known| async move { Ok(known) })
            .try_collect()
            .await
    }
}

impl Prepared {
    /// Returns which of `tags` are immutable, as far as Harbor shows that to this account.
    ///
    /// # Errors
    /// Harbor's API did not answer.
    pub async fn immutable(&self, tags: &BTreeSet<Reference>, registries: &Registries) -> Result<HashSet<Reference>> {
        match &self.harbor {
            Some(harbor) if !tags.is_empty() => harbor::immutable_tags(registries, harbor, tags).await,
            _ => Ok(HashSet::new()),
        }
    }
}

/// Describes a problem for a plan. Missing projects that `--create-projects` will create are no problems; what Harbor hides
/// can still be one.
fn planned(options: &HarborOptions, found: &Preflight, problem: &harbor::PreflightProblem) -> String {
    let is_created = options.create_projects && !found.once_missing_created().problems().contains(problem);
    if is_created { format!("{}: it will be created", problem.text) } else { problem.to_string() }
}

/// Creates missing projects, unless something else stops the import anyway. Returns the new state.
async fn create(
    asked: &Asked<'_>,
    registries: &Registries,
    harbor: &Harbor,
    found: &Preflight,
    repositories: &[Repository],
) -> Result<Preflight> {
    let Asked { options: wanted, events, .. } = *asked;
    found.once_created().check()?;
    let options = ProjectOptions { public: wanted.public, quota: wanted.quota };
    for project in harbor::create_projects(registries, harbor, &found.to_create(), options).await? {
        if !project.existed {
            events.report(Event::Notice(format!("project {} created", project.name)));
            check_quota(asked, registries, harbor, &project.name).await?;
        }
    }
    harbor::preflight(registries, harbor, repositories).await
}

/// Checks the quota of a created project: Harbor ignores the requested quota unless the account is an administrator.
async fn check_quota(asked: &Asked<'_>, registries: &Registries, harbor: &Harbor, project: &str) -> Result<()> {
    let Asked { options, events, .. } = *asked;
    let Some(wanted) = options.quota else { return Ok(()) };
    let Some(limit) = harbor::storage_limit(registries, harbor, project).await? else {
        let text = format!(
            "whether project {project} has the storage quota of {} could not be checked: this account may not read it, and \
             Harbor lets only administrators choose it",
            bytes(wanted)
        );
        events.report(Event::Warning(text));
        return Ok(());
    };
    if limit != Some(wanted) {
        let limit = limit.map_or("no storage quota".to_owned(), |limit| format!("a storage quota of {}", bytes(limit)));
        let text = format!(
            "project {project} has {limit}, not of {}: Harbor lets only administrators choose it; ask an administrator to set it",
            bytes(wanted)
        );
        events.report(Event::Warning(text));
    }
    Ok(())
}

/// Reports quotas that the planned push will probably exceed.
pub async fn check_quotas(
    prepared: &mut Prepared,
    registries: &Registries,
    plan: &Plan,
    events: &Events,
) -> Result<()> {
    let Some(harbor) = &prepared.harbor else { return Ok(()) };
    let mut adding: BTreeMap<String, u64> = BTreeMap::new();
    for step in &plan.blobs {
        // A project counts each blob once, however many of its repositories have it.
        let projects_of = |repositories: &[Repository]| -> BTreeSet<String> {
            repositories.iter().filter_map(harbor::project_of).map(str::to_owned).collect()
        };
        for project in projects_of(&step.missing).difference(&projects_of(&step.present)) {
            let sum = adding.entry(project.clone()).or_default();
            *sum = sum.saturating_add(step.blob.size);
        }
    }
    for short in harbor::quotas(registries, harbor, &adding).await? {
        let text = short.problem().to_string();
        events.report(Event::Warning(text.clone()));
        prepared.notes.push(text);
    }
    Ok(())
}
