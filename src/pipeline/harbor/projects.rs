//! Names of projects, and creating them.

use crate::base::error::{Error, Kind, Result};
use crate::content::{Api, ApiAnswer, ApiRequest};
use crate::oci::Repository;

use super::{Client, Harbor, message};

/// How to create projects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectOptions {
    /// Anyone may pull.
    pub public: bool,
    /// Storage limit in bytes; `None` keeps Harbor's default. Harbor ignores it unless an administrator asks.
    pub quota: Option<u64>,
}

/// A project that exists now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub name: String,
    /// It existed before, or another client has created it in the meantime.
    pub existed: bool,
}

/// Returns the project of a repository: its first component. `None` if it has only one, which Harbor rejects.
pub fn project_of(repository: &Repository) -> Option<&str> {
    repository.in_project().map(|(project, _)| project)
}

/// Whether Harbor accepts `name` for a project: `^[a-z0-9]+(?:[._-][a-z0-9]+)*$`, at most 255 characters. Stricter than
/// a component of a repository, which may have double separators.
pub fn is_project_name(name: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 255 && name.split(['.', '_', '-']).all(word)
}

/// Creates the projects `names`, all of them or as many as Harbor allows. Existing projects are fine.
///
/// # Errors
/// Before any request: a name that Harbor would reject, or read-only mode. Afterwards: every failure in one error, with
/// what was created anyway.
pub async fn create_projects(
    api: &dyn Api,
    harbor: &Harbor,
    names: &[String],
    options: ProjectOptions,
) -> Result<Vec<Created>> {
    check(harbor, names)?;
    let client = Client { api, account: harbor.account() };
    let mut created = Vec::new();
    let mut failed: Vec<Error> = Vec::new();
    for name in names {
        match client.with_account_of(name).create(name, options).await {
            Ok(project) => created.push(project),
            Err(error) => failed.push(error),
        }
    }
    let Some(first) = failed.first() else { return Ok(created) };
    let new: Vec<&str> =
        created.iter().filter(|project| !project.existed).map(|project| project.name.as_str()).collect();
    let mut text = format!("creating {} of {} projects on {}", failed.len(), names.len(), harbor.registry());
    if !new.is_empty() {
        text.push_str(&format!(" (created: {})", new.join(", ")));
    }
    let reasons: Vec<String> = failed.iter().map(Error::chain).collect();
    Err(Error::new(first.kind(), text).because(reasons.join("; ")))
}

fn check(harbor: &Harbor, names: &[String]) -> Result<()> {
    let bad: Vec<&str> = names.iter().map(String::as_str).filter(|name| !is_project_name(name)).collect();
    if !bad.is_empty() {
        let text = format!(
            "creating projects on {}: Harbor rejects these project names: {} (lower-case letters and digits, separated by \
             single `.`, `_` or `-`)",
            harbor.registry(),
            bad.join(", ")
        );
        return Err(Error::input(text));
    }
    if harbor.read_only() == Some(true) {
        let text = format!("creating projects on {}: it is in read-only mode", harbor.registry());
        return Err(Error::new(Kind::Refused, text));
    }
    Ok(())
}

impl Client<'_> {
    async fn create(&self, name: &str, options: ProjectOptions) -> Result<Created> {
        let mut body = serde_json::json!({
            "project_name": name,
            "metadata": { "public": options.public.to_string() },
        });
        if let Some(bytes) = options.quota {
            body["storage_limit"] = bytes.min(i64::MAX as u64).into();
        }
        let request = ApiRequest {
            method: "POST",
            path: "/api/v2.0/projects".into(),
            headers: vec![("X-Resource-Name-In-Location", "true".into())],
            json: Some(body),
        };
        let answer = self.call(request).await.map_err(|e| e.while_doing(format!("creating project {name}")))?;
        match answer.status {
            201 | 200 => Ok(Created { name: name.to_owned(), existed: false }),
            409 => Ok(Created { name: name.to_owned(), existed: true }),
            _ => Err(refused(name, &answer)),
        }
    }
}

fn refused(name: &str, answer: &ApiAnswer) -> Error {
    let (kind, reason) = match answer.status {
        401 => (Kind::Unauthorized, "the credentials are not accepted"),
        403 => (Kind::Refused, "this account may not create projects"),
        400 | 422 => (Kind::Input, "Harbor rejects it"),
        500.. => (Kind::Network, "the server failed"),
        _ => (Kind::Refused, "Harbor refused"),
    };
    let answer_text = message(&answer.body).map_or(String::new(), |text| format!(": {text}"));
    Error::new(kind, format!("creating project {name}: {reason} ({}{answer_text})", answer.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_reported_apart_before_harbor_is_asked() {
        for good in ["a", "0", "library", "a.b-c_d", "12345"] {
            assert!(is_project_name(good), "{good}");
        }
        for bad in ["", "A", "a--b", "a__b", "-a", "a-", "a/b", "ä", &"a".repeat(256)] {
            assert!(!is_project_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_repository_without_a_project_has_none() {
        assert_eq!(project_of(&Repository::new("h", "a/b/c").unwrap()), Some("a"));
        assert_eq!(project_of(&Repository::new("h", "a").unwrap()), None);
    }
}
