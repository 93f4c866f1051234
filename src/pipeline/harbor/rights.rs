//! Finds out whether this account may push to a project, without pushing.
//!
//! Harbor grants a registry token exactly the actions that an account has on the project of a scope, whatever the scope
//! requests (`src/core/service/token/creator.go`), to users, OIDC secrets and robots alike. So the `access` claim of
//! the token is the answer, for many projects in one request, and the push uses the same token. If the token service
//! cannot be asked, users have `/users/current/permissions`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::base::error::Result;
use crate::oci::Repository;

use super::{Client, json};

/// What is known about the right to push to one project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushRight {
    Allowed,
    /// It may pull and not push.
    Denied,
    /// It has no rights there, or there is no such project.
    Nothing,
    /// It could not be found out.
    Unknown,
}

impl Client<'_> {
    /// Returns the right to push to each of `projects`, given as project → some repository in it.
    pub(super) async fn push_rights(
        &self,
        projects: &BTreeMap<String, Repository>,
    ) -> Result<BTreeMap<String, PushRight>> {
        let repositories: Vec<Repository> = projects.values().cloned().collect();
        let grants = self.api.grants(&repositories).await?;
        let right = |repository: &Repository| grants.get(repository).map_or(PushRight::Unknown, push_right);
        Ok(projects.iter().map(|(project, repository)| (project.clone(), right(repository))).collect())
    }

    /// Does the same for one project whose number is known, with the API for users.
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
        // A scope that the server does not understand also gets an empty list.
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
