//! Compares the storage limits of projects with what a push will add.

use std::collections::BTreeMap;

use futures_util::stream::{StreamExt, TryStreamExt};
use serde::Deserialize;

use crate::base::error::Result;
use crate::base::progress::units::bytes as readable;
use crate::content::Api;

use super::preflight::{PreflightProblem, Severity};
use super::{AT_ONCE, Client, Harbor, json};

/// A storage limit that will probably be exceeded, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaShort {
    pub project: String,
    pub limit: u64,
    pub used: u64,
    /// What the push would add.
    pub needed: u64,
}

impl QuotaShort {
    /// Only a warning: a project counts each blob once, and may already have some of them in other repositories.
    pub fn problem(&self) -> PreflightProblem {
        let QuotaShort { project, limit, used, needed } = self;
        let (limit, used, needed) = (readable(*limit), readable(*used), readable(*needed));
        PreflightProblem {
            severity: Severity::Warns,
            text: format!("project {project} will probably exceed its quota: {used} of {limit} used, {needed} to add"),
            remedy: "raise the quota, or delete what is not needed and run Harbor's garbage collection".to_owned(),
        }
    }
}

/// Returns the projects of `bytes` (project → bytes that a push will add) whose quota is probably too small. Quotas
/// that this account may not read are left out: the push will show.
///
/// # Errors
/// Harbor did not answer.
pub async fn quotas(api: &dyn Api, harbor: &Harbor, bytes: &BTreeMap<String, u64>) -> Result<Vec<QuotaShort>> {
    let client = Client { api, account: harbor.account() };
    let adding = bytes.iter().filter(|(_, needed)| **needed > 0);
    let asked: Result<Vec<Option<QuotaShort>>> = futures_util::stream::iter(adding)
        .map(|(project, needed)| async move { client.with_account_of(project).quota(project, *needed).await })
        .buffered(AT_ONCE)
        .try_collect()
        .await;
    let asked = asked.map_err(|e| e.while_doing(format!("reading the quotas of {}", harbor.registry())))?;
    Ok(asked.into_iter().flatten().collect())
}

/// Returns the storage limit of a project in bytes. `Some(None)` means no limit, `None` that this account may not read
/// it.
///
/// # Errors
/// Harbor did not answer.
pub async fn storage_limit(api: &dyn Api, harbor: &Harbor, project: &str) -> Result<Option<Option<u64>>> {
    let client = Client { api, account: harbor.account() };
    Ok(client.with_account_of(project).storage(project).await?.map(|quota| u64::try_from(quota.hard.storage).ok()))
}

#[derive(Deserialize)]
struct Quota {
    hard: Amounts,
    used: Amounts,
}

#[derive(Deserialize)]
struct Amounts {
    storage: i64,
}

impl Client<'_> {
    async fn storage(&self, project: &str) -> Result<Option<Quota>> {
        #[derive(Deserialize)]
        struct Summary {
            quota: Option<Quota>,
        }
        Ok(json::<Summary>(&self.project(project, "/summary").await?).and_then(|summary| summary.quota))
    }

    async fn quota(&self, project: &str, needed: u64) -> Result<Option<QuotaShort>> {
        let Some(quota) = self.storage(project).await? else { return Ok(None) };
        // A limit of -1 means unlimited.
        let Ok(limit) = u64::try_from(quota.hard.storage) else { return Ok(None) };
        let used = u64::try_from(quota.used.storage).unwrap_or(0);
        let short = used.saturating_add(needed) > limit;
        Ok(short.then(|| QuotaShort { project: project.to_owned(), limit, used, needed }))
    }
}
