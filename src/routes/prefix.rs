//! Prefixes of repositories, and replacing them with a location.

use std::fmt;

use crate::base::error::{Error, Result};
use crate::base::position::Position;
use crate::oci::Repository;

/// `host[:port][/path]`, or `*.domain[/path]` for all hosts below a domain. It matches only whole path components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefix(String);

impl Prefix {
    /// Parses a prefix.
    ///
    /// # Errors
    /// Says why the text is not a prefix.
    pub fn parse(text: &str) -> Result<Prefix, String> {
        let host_and_path = text.trim_end_matches('/');
        place(host_and_path.strip_prefix("*.").unwrap_or(host_and_path))?;
        Ok(Prefix(host_and_path.to_owned()))
    }

    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    pub fn length(&self) -> usize {
        self.0.len()
    }

    pub fn fits(&self, repository: &Repository) -> bool {
        self.rest(&repository.to_string()).is_some()
    }

    /// What follows the prefix in a matching name: nothing, or a path that starts with `/`.
    fn rest<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = match self.0.strip_prefix('*') {
            Some(domain) => {
                // The first dot is part of the domain; something must precede it in the host.
                let host = name.split('/').next().unwrap_or(name);
                let domain_host = domain.split('/').next().unwrap_or(domain);
                let before = host.strip_suffix(domain_host).filter(|before| !before.is_empty())?;
                name.get(before.len()..)?.strip_prefix(domain)?
            }
            None => name.strip_prefix(self.0.as_str())?,
        };
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }

    /// The name with `location` in place of the prefix. `at` is where the location was written.
    ///
    /// # Errors
    /// The result is not the name of a repository.
    pub fn rewrite(&self, repository: &Repository, location: &str, at: &Position) -> Result<Repository> {
        let name = repository.to_string();
        let name = format!("{location}{}", self.rest(&name).unwrap_or_default());
        let attempt = || format!("following {at}: {repository} would be read as {name}");
        let (registry, path) =
            name.split_once('/').ok_or_else(|| Error::input(format!("{}, no repository", attempt())))?;
        Repository::new(registry, path).map_err(|e| Error::input(attempt()).because(e))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parses a location, without a final slash.
///
/// # Errors
/// Says why the text is not a location.
pub(super) fn location(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    place(text)?;
    Ok(text.to_owned())
}

/// `host[:port][/path]`
fn place(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("write it without {scheme}://, as host[:port][/path]; plain HTTP is `insecure = true`"));
    }
    let (host, path) = text.split_once('/').unwrap_or((text, "any"));
    if path.contains([':', '@']) {
        return Err("a tag or digest is not allowed here; name the repository".into());
    }
    Repository::new(host, path).map(drop).map_err(|e| e.reason)
}
