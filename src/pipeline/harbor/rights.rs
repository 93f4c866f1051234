//! Whether this account may push to a project, found out without pushing.
//!
//! Harbor grants a registry token exactly the actions an account has on the project of a scope, whatever the scope asks
//! for (`src/core/service/token/creator.go`), to users, OIDC secrets and robots alike; so the token's `access` claim is
//! the answer, for many projects in one request, and the same token serves the push. Where the token service can't be asked,
//! users have `/users/current/permissions`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::base::error::Result;
use crate::oci::Repository;

use super::{Client, json};

/// What is known of the right to push to one project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushRight {
    Allowed,
    /// It may pull and not push.
    Denied,
    /// It may do nothing there: no right at all, or no such project.
    Nothing,
    /// Could not be found out.
    Unknown,
}

impl Client<'_> {
    /// The right to push to each of `projects`, given as project → some repository in it.
    pub(super) async fn push_rights(
        &self,
        projects: &BTreeMap<String, Repository>,
    ) -> Result<BTreeMap<String, PushRight>> {
        let repositories: Vec<Repository> = projects.values().cloned().collect();
        let grants = self.api.grants(&repositories).await?;
        let right = |repository: &Repository| grants.get(repository).map_or(PushRight::Unknown, push_right);
        Ok(projects.iter().map(|(project, repository)| (project.clone(), right(repository))).collect())
    }

    /// The same for one project whose number is known, by the users' own API.
    pub(super) async fn push_permission(&self, project: u64) -> Result<PushRight> {
        #[derive(Deserialize)]
        struct Permission {
            resource: String,
            action: String,
        }
        let path = format!("/api/v2.0/users/current/permissions?scope=/project/{project}&relative=true");
        let answer = self.get(path).await?;
        let permissions = json::<Option<Vec<Permission>>>(&answer).flatten().unwrap_or_default();
        let may = |wanted: &str| {
            let on_repositories = |resource: &str| resource.rsplit('/').next() == Some("repository");
            permissions.iter().any(|permission| on_repositories(&permission.resource) && permission.action == wanted)
        };
        // An empty list is also what a scope gets that the server does not understand.
        Ok(match (may("push"), permissions.is_empty()) {
            (true, _) => PushRight::Allowed,
            (false, true) => PushRight::Unknown,
            (false, false) => PushRight::Denied,
        })
    }
}

fn push_right(actions: &BTreeSet<String>) -> PushRight {
    match actions.contains("push") || actions.contains("*") {
        true => PushRight::Allowed,
        false if actions.is_empty() => PushRight::Nothing,
        false => PushRight::Denied,
    }
}
