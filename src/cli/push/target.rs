//! What the target wants before anything is pushed. Only Harbor wants more than the distribution protocol.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::super::context::Context;
use crate::error::Result;
use crate::harbor::{self, Harbor, Preflight, ProjectOptions};
use crate::naming::Target;
use crate::oci::{Digest, Reference, Repository};
use crate::plan::{Inventory, Plan, Targets};
use crate::progress::Event;
use crate::progress::units::parse_bytes;
use crate::transport::registry::Registries;

/// Questions to Harbor's own API at the same time.
const AT_ONCE: usize = 8;

#[derive(Args)]
#[command(next_help_heading = "Harbor")]
pub struct HarborArgs {
    /// Create projects that are missing
    #[arg(long)]
    create_projects: bool,
    /// Uploads into one project at the same time, and as many mounts
    ///
    /// Default: 4 on Harbor, where more only fail and come again; elsewhere no limit.
    #[arg(long, value_name = "N", hide_short_help = true, value_parser = clap::value_parser!(u16).range(1..=256))]
    per_project: Option<u16>,
    /// Created projects can be pulled from by everybody
    #[arg(long, requires = "create_projects")]
    project_public: bool,
    /// Storage quota of created projects, such as 200GiB
    #[arg(long, value_name = "SIZE", requires = "create_projects", value_parser = parse_bytes)]
    project_quota: Option<u64>,
}

/// A target that was asked what it wants.
pub struct Prepared {
    harbor: Option<Harbor>,
    /// Projects that are not there yet, or not for us: nothing can be asked about their repositories.
    closed: BTreeSet<String>,
    /// For the plan: what would be created, what could go wrong.
    pub notes: Vec<String>,
}

/// Finds out what the target is and makes ready what it wants; with `dry_run` only says so.
///
/// # Errors
/// Everything that would make pushes fail, at once.
pub async fn prepare(
    args: &HarborArgs,
    registries: &Registries,
    target: &Target,
    targets: &Targets,
    dry_run: bool,
    context: &Context,
) -> Result<Prepared> {
    let limit = |at_once: u16| registries.limit_uploads_per_project(&target.registry, at_once.into());
    let Some(harbor) = harbor::detect(registries, &target.registry).await? else {
        args.per_project.map(limit);
        if args.create_projects {
            let text = format!("{} is not Harbor: --create-projects has no effect", target.registry);
            context.events.report(Event::Warning(text));
        }
        return Ok(Prepared { harbor: None, closed: BTreeSet::new(), notes: Vec::new() });
    };
    limit(args.per_project.unwrap_or(harbor::UPLOADS_PER_PROJECT));
    let repositories: BTreeSet<Repository> = targets.iter().map(|to| to.repository.clone()).collect();
    let repositories: Vec<Repository> = repositories.into_iter().collect();
    let found = harbor::preflight(registries, &harbor, &repositories).await?;
    let mut notes = vec![format!("{} is Harbor {}", target.registry, harbor.version().unwrap_or("2.x"))];
    let wanted = found.to_create();
    if dry_run && !found.unauthorized {
        notes.extend(found.problems().iter().map(|problem| told(args, &found, problem)));
        return Ok(Prepared { harbor: Some(harbor), closed: found.closed(), notes });
    }
    let found = match args.create_projects && !wanted.is_empty() {
        true => create(args, registries, &harbor, &found, &repositories, context).await?,
        false => found,
    };
    found.check()?;
    for problem in found.problems() {
        context.events.report(Event::Warning(problem.to_string()));
    }
    Ok(Prepared { harbor: Some(harbor), closed: BTreeSet::new(), notes })
}

/// Says of which repositories nothing is there: of projects that Harbor does not have, or not for us. Creates nothing.
///
/// # Errors
/// No clear answer.
pub async fn closed(
    registries: &Registries,
    target: &Target,
    targets: &Targets,
) -> Result<impl Fn(&Repository) -> bool + use<>> {
    let mut closed = BTreeSet::new();
    if let Some(harbor) = harbor::detect(registries, &target.registry).await? {
        let repositories: BTreeSet<Repository> = targets.iter().map(|to| to.repository.clone()).collect();
        let repositories: Vec<Repository> = repositories.into_iter().collect();
        closed = harbor::preflight(registries, &harbor, &repositories).await?.closed();
    }
    Ok(move |repository: &Repository| harbor::project_of(repository).is_some_and(|project| closed.contains(project)))
}

impl Prepared {
    /// Whether nothing of this repository can be at the target.
    pub fn is_closed(&self, repository: &Repository) -> bool {
        harbor::project_of(repository).is_some_and(|project| self.closed.contains(project))
    }
}

impl Prepared {
    /// What tags mean that a policy forbids pulling, by Harbor's own API. Those of which it says nothing to this account are
    /// left out.
    ///
    /// # Errors
    /// No answer was to be had.
    pub async fn read_blocked(
        &self,
        inventory: &Inventory,
        registries: &Registries,
    ) -> Result<Vec<(Reference, Digest)>> {
        let blocked = inventory.blocked.iter().filter(|_| self.harbor.is_some());
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

/// In a plan, what `--create-projects` will mend is no problem.
fn told(args: &HarborArgs, found: &Preflight, problem: &harbor::Problem) -> String {
    let mended = args.create_projects && !found.once_created().problems().contains(problem);
    if mended { format!("{}: it will be created", problem.text) } else { problem.to_string() }
}

/// Creates what is missing, unless something else stops the import anyway; gives what is found then.
async fn create(
    args: &HarborArgs,
    registries: &Registries,
    harbor: &Harbor,
    found: &Preflight,
    repositories: &[Repository],
    context: &Context,
) -> Result<Preflight> {
    found.once_created().check()?;
    let options = ProjectOptions { public: args.project_public, quota: args.project_quota };
    for project in harbor::create_projects(registries, harbor, &found.to_create(), options).await? {
        if !project.existed {
            context.events.report(Event::Notice(format!("project {} created", project.name)));
        }
    }
    harbor::preflight(registries, harbor, repositories).await
}

/// Quotas that the planned push will probably exceed.
pub async fn check_quotas(
    prepared: &mut Prepared,
    registries: &Registries,
    plan: &Plan,
    context: &Context,
) -> Result<()> {
    let Some(harbor) = &prepared.harbor else { return Ok(()) };
    let mut adding: BTreeMap<String, u64> = BTreeMap::new();
    for step in &plan.blobs {
        // A project counts each blob once, in whichever of its repositories it is.
        let projects_of = |repositories: &[Repository]| -> BTreeSet<String> {
            repositories.iter().filter_map(harbor::project_of).map(str::to_owned).collect()
        };
        for project in projects_of(&step.missing).difference(&projects_of(&step.present)) {
            let bytes = adding.entry(project.clone()).or_default();
            *bytes = bytes.saturating_add(step.blob.size);
        }
    }
    for short in harbor::quotas(registries, harbor, &adding).await? {
        let text = short.problem().to_string();
        context.events.report(Event::Warning(text.clone()));
        prepared.notes.push(text);
    }
    Ok(())
}
