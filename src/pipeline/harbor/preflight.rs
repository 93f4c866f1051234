//! Finds everything that would stop a push to Harbor before the first byte moves, all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures_util::stream::{StreamExt, TryStreamExt};
use serde::Deserialize;

use crate::base::error::{Error, Kind, Result};
use crate::content::{Api, ApiRequest};
use crate::oci::Repository;

use super::rights::PushRight;
use super::{AT_ONCE, Client, Harbor, is_project_name, json, project_of};

/// What was found. Empty lists and `false` mean that no obstacle is visible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    registry: String,
    /// The credentials, or their absence, are refused. Nothing else is known then.
    pub unauthorized: bool,
    /// The projects that these credentials are for, if other projects have others.
    pub unauthorized_for: Vec<String>,
    pub read_only: bool,
    /// Projects that do not exist.
    pub missing: Vec<String>,
    /// Projects that do not exist or that this account may not see: Harbor does not say which.
    pub hidden: Vec<String>,
    /// Projects that this account can see and not push to.
    pub denied: Vec<String>,
    /// Those of them in which this account has no rights at all.
    pub shut: Vec<String>,
    /// Projects that cache another registry and accept no pushes.
    pub proxy_cache: Vec<String>,
    /// Repositories that Harbor would reject: without a project, or below one that cannot be created.
    pub bad_names: Vec<Repository>,
    /// Projects whose rights could not be found out; the push will show.
    pub unknown: Vec<String>,
    /// Components of Harbor that report themselves unhealthy.
    pub ill: Vec<String>,
}

/// One problem, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreflightProblem {
    pub severity: Severity,
    pub text: String,
    pub remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The push cannot succeed.
    Stops,
    /// The push may succeed.
    Warns,
}

impl fmt::Display for PreflightProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.text, self.remedy)
    }
}

/// Asks Harbor about every project that `targets` need. What a push would add is not known yet:
/// [`quotas`](super::quotas) checks quotas once it is planned.
///
/// # Errors
/// Harbor did not answer. Obstacles are not errors: see [`Preflight::problems`] and [`Preflight::check`].
pub async fn preflight(api: &dyn Api, harbor: &Harbor, targets: &[Repository]) -> Result<Preflight> {
    let attempt = || format!("checking what {} allows", harbor.registry());
    look(api, harbor, targets).await.map_err(|error| error.while_doing(attempt()))
}

async fn look(api: &dyn Api, harbor: &Harbor, targets: &[Repository]) -> Result<Preflight> {
    let client = Client { api, account: harbor.account() };
    let mut found = Preflight {
        registry: harbor.registry().to_owned(),
        read_only: harbor.read_only() == Some(true),
        ill: harbor.ill().to_vec(),
        ..Preflight::default()
    };
    let targets: BTreeSet<&Repository> = targets.iter().collect();
    let mut projects: BTreeMap<String, Repository> = BTreeMap::new();
    for target in &targets {
        match project_of(target) {
            Some(project) => _ = projects.entry(project.to_owned()).or_insert_with(|| (*target).clone()),
            None => found.bad_names.push((*target).clone()),
        }
    }
    // Everything below takes "not allowed" as a fact about projects; with wrong credentials it would be one about
    // those.
    let accounts = api.accounts(&projects.values().cloned().collect::<Vec<_>>()).await?;
    for account in &accounts {
        let Some(one) = account.first() else { continue };
        if client.with_account_of(one.path()).get("/v2/").await?.status == 401 {
            found.unauthorized = true;
            let own = account.iter().filter(|_| accounts.len() > 1);
            found.unauthorized_for.extend(own.filter_map(project_of).map(str::to_owned));
        }
    }
    if found.unauthorized {
        return Ok(found);
    }
    let rights = client.push_rights(&projects).await?;
    let views: Vec<(String, View)> = futures_util::stream::iter(&projects)
        .map(|(project, one)| async move {
            let view = client.with_account_of(one.path()).view(project).await?;
            Ok::<_, Error>((project.clone(), view))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    for (project, view) in views {
        let mut right = rights.get(&project).copied().unwrap_or(PushRight::Unknown);
        if let (PushRight::Unknown, Some(id)) = (right, view.id) {
            let one = projects.get(&project).map_or("", Repository::path);
            right = client.with_account_of(one).push_permission(id).await?;
        }
        found.note_project(&project, &view, right, &targets);
    }
    Ok(found)
}

impl Preflight {
    fn note_project(&mut self, name: &str, view: &View, push: PushRight, targets: &BTreeSet<&Repository>) {
        let project = name.to_owned();
        let absent = view.existence == Existence::No && push != PushRight::Allowed;
        match push {
            _ if absent && is_project_name(name) => self.missing.push(project.clone()),
            _ if absent => {
                let below = targets.iter().filter(|target| project_of(target) == Some(name));
                self.bad_names.extend(below.map(|target| (*target).clone()));
            }
            PushRight::Allowed => {}
            PushRight::Nothing if view.existence == Existence::Unknown => self.hidden.push(project.clone()),
            PushRight::Denied => self.denied.push(project.clone()),
            PushRight::Nothing => {
                self.denied.push(project.clone());
                self.shut.push(project.clone());
            }
            PushRight::Unknown => self.unknown.push(project.clone()),
        }
        if view.proxy_cache {
            self.proxy_cache.push(project);
        }
    }

    /// Returns the projects worth creating: those that are missing, and those that may be.
    pub fn to_create(&self) -> Vec<String> {
        self.missing.iter().chain(&self.hidden).cloned().collect()
    }

    /// Returns the result as it would be if the projects of [`Preflight::to_create`] existed.
    pub fn once_created(&self) -> Preflight {
        Preflight { missing: Vec::new(), hidden: Vec::new(), ..self.clone() }
    }

    /// Returns the result as it would be if only the projects that are certainly missing existed.
    pub fn once_missing_created(&self) -> Preflight {
        Preflight { missing: Vec::new(), ..self.clone() }
    }

    /// Returns the result as it would be without read-only mode.
    pub fn once_writable(&self) -> Preflight {
        Preflight { read_only: false, ..self.clone() }
    }

    /// Returns the result for a push that adds only to these `projects`: content that already exists needs no right to
    /// push. If this account has no rights at all, it is unknown what exists.
    pub fn for_pushes_to(&self, projects: &BTreeSet<String>) -> Preflight {
        let gets_something = |project: &&String| projects.contains(*project);
        let is_in_the_way = |project: &&String| gets_something(project) || self.shut.contains(project);
        Preflight {
            denied: self.denied.iter().filter(is_in_the_way).cloned().collect(),
            proxy_cache: self.proxy_cache.iter().filter(gets_something).cloned().collect(),
            ..self.clone()
        }
    }

    /// Returns the projects whose repositories cannot be asked about, because Harbor answers as if the credentials were
    /// wrong. Projects that this account may only pull from can be asked about.
    pub fn closed(&self) -> BTreeSet<String> {
        self.missing.iter().chain(&self.hidden).chain(&self.shut).cloned().collect()
    }

    /// Returns everything found; what stops the push comes first.
    pub fn problems(&self) -> Vec<PreflightProblem> {
        let mut problems = self.stops();
        problems.extend(self.warnings());
        problems
    }

    /// # Errors
    /// If anything stops the push: one error that names all of it.
    pub fn check(&self) -> Result<()> {
        let stops = self.stops();
        if stops.is_empty() {
            return Ok(());
        }
        let kind = if self.unauthorized { Kind::Unauthorized } else { Kind::Refused };
        let text = format!("preparing {}: nothing was pushed, because", self.registry);
        Err(Error::new(kind, text).listing(stops.iter().map(|problem| format!("  {problem}"))))
    }

    fn stops(&self) -> Vec<PreflightProblem> {
        let mut list = Vec::new();
        let mut add = |text: String, remedy: &str| {
            list.push(PreflightProblem { severity: Severity::Stops, text, remedy: remedy.to_owned() });
        };
        if self.unauthorized {
            let of = match self.unauthorized_for.is_empty() {
                true => String::new(),
                false => format!(" for {}", self.unauthorized_for.join(", ")),
            };
            let text = format!("{} does not accept the credentials{of}, or got none", self.registry);
            add(text, "log in, or use --creds (a robot's full name is robot$project+name)");
        }
        if self.read_only {
            let text = format!("{} is in read-only mode", self.registry);
            add(text, "an administrator ends it under Configuration, System Settings");
        }
        for name in &self.missing {
            add(format!("project {name} does not exist"), "create it, or let --create-projects do so");
        }
        for name in &self.hidden {
            let remedy = "give it the right to push there; if the project is missing, --create-projects may help";
            add(format!("project {name} does not exist, or this account has no right there"), remedy);
        }
        for name in &self.denied {
            let remedy = "give it the role Developer or higher, or a robot the permission to push";
            add(format!("this account may not push to project {name}"), remedy);
        }
        for name in &self.proxy_cache {
            let remedy = "choose another project with --to HOST/PROJECT or --map";
            add(format!("project {name} is a proxy cache, which accepts no pushes"), remedy);
        }
        for name in &self.bad_names {
            match project_of(name) {
                None => add(
                    format!("{name} has no project, and Harbor's repositories need one"),
                    "add a prefix, as in --to HOST/PROJECT, or a --map rule",
                ),
                Some(project) => add(
                    format!("{name}: Harbor rejects the project name {project}"),
                    "choose another name with --map; double separators are not allowed there",
                ),
            }
        }
        list
    }

    fn warnings(&self) -> Vec<PreflightProblem> {
        let mut list = Vec::new();
        let mut add = |text: String, remedy: &str| {
            list.push(PreflightProblem { severity: Severity::Warns, text, remedy: remedy.to_owned() });
        };
        for name in &self.unknown {
            let text = format!("whether this account may push to project {name} could not be found out");
            add(text, "the push will show");
        }
        if !self.ill.is_empty() {
            add(format!("{} reports as unhealthy: {}", self.registry, self.ill.join(", ")), "look at Harbor's logs");
        }
        list
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existence {
    Yes,
    No,
    Unknown,
}

/// What the project API shows this account about one project.
struct View {
    existence: Existence,
    id: Option<u64>,
    proxy_cache: bool,
}

impl Client<'_> {
    async fn view(&self, project: &str) -> Result<View> {
        let path = format!("/api/v2.0/projects?project_name={project}");
        let head = self.call(ApiRequest { method: "HEAD", path, ..ApiRequest::default() }).await?;
        let existence = match head.status {
            200 => Existence::Yes,
            404 => Existence::No,
            _ => Existence::Unknown,
        };
        let mut view = View { existence, id: None, proxy_cache: false };
        if existence == Existence::Yes {
            self.details(project, &mut view).await?;
        }
        Ok(view)
    }

    async fn details(&self, project: &str, view: &mut View) -> Result<()> {
        #[derive(Deserialize)]
        struct Details {
            project_id: u64,
            registry_id: Option<u64>,
        }
        if let Some(details) = json::<Details>(&self.project(project, "").await?) {
            view.id = Some(details.project_id);
            view.proxy_cache = details.registry_id.is_some_and(|id| id > 0);
        }
        Ok(())
    }
}
