//! How a registry is read: its mirrors, the place it has moved to, and whether it is blocked.
//!
//! This follows `registries.conf` version 2 (containers-registries.conf(5)), as read by podman, skopeo and CRI-O: the longest
//! matching prefix applies; its mirrors are asked in order, and then its own location. The module handles names only: it opens
//! no connection, and the transport judges the answers of mirrors. Short names (`unqualified-search-registries`, aliases) are
//! not decided here; they follow Docker.

mod file;
mod places;
mod prefix;
#[cfg(test)]
mod tests;

use crate::base::error::{Error, Kind, Result};
use crate::base::position::Position;
use crate::oci::Repository;
use prefix::Prefix;

/// The content of `registries.conf` and its drop-ins. The default is empty: every registry is read under its own name.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    rules: Vec<Rule>,
    /// Unknown keys and overridden tables, to be shown.
    pub warnings: Vec<String>,
}

/// One `[[registry]]`.
#[derive(Clone, Debug)]
struct Rule {
    at: Position,
    prefix: Prefix,
    /// What replaces the prefix; without it, a `*.` prefix keeps the name.
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

/// One `[[registry.mirror]]`.
#[derive(Clone, Debug)]
struct Mirror {
    at: Position,
    location: String,
    insecure: bool,
    serves: Serves,
}

/// What a place is used for (`pull-from-mirror`, `mirror-by-digest-only`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    #[default]
    All,
    Digests,
    Tags,
}

/// A place where a repository can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSource {
    /// The repository's name there.
    pub repository: Repository,
    /// Whether any certificate is accepted, and plain HTTP if there is no TLS.
    pub insecure: bool,
    pub serves: Serves,
}

impl Routes {
    /// The places to read `repository` from, in order; the last is the registry itself.
    ///
    /// # Errors
    /// The repository is blocked, or a rule produces an invalid name; the error names the rule's file and line.
    pub fn pull(&self, repository: &Repository) -> Result<Vec<PullSource>> {
        let own = PullSource { repository: repository.clone(), insecure: false, serves: Serves::All };
        let Some(rule) = self.rule(repository) else { return Ok(vec![own]) };
        rule.allow(repository)?;
        let mirrors = rule.mirrors.iter().map(|mirror| {
            let repository = rule.prefix.rewrite(repository, &mirror.location, &mirror.at)?;
            Ok(PullSource { repository, insecure: mirror.insecure, serves: mirror.serves })
        });
        let mut places = mirrors.collect::<Result<Vec<_>>>()?;
        let repository = match &rule.location {
            Some(location) => rule.prefix.rewrite(repository, location, &rule.at)?,
            None => own.repository,
        };
        places.push(PullSource { repository, insecure: rule.insecure, ..own });
        Ok(places)
    }

    /// Where `repository` is written: mirrors and locations are for reading (containers/image `docker/docker_image_dest.go`).
    ///
    /// # Errors
    /// The repository is blocked.
    pub fn push(&self, repository: &Repository) -> Result<PullSource> {
        let rule = self.rule(repository);
        rule.map_or(Ok(()), |rule| rule.allow(repository))?;
        let insecure = rule.is_some_and(|rule| rule.insecure);
        Ok(PullSource { repository: repository.clone(), insecure, serves: Serves::All })
    }

    /// Whether the rule for a whole registry, `host[:port]`, says so.
    pub fn is_insecure(&self, registry: &str) -> bool {
        let any = Repository::new(registry, "any").ok();
        any.and_then(|any| self.rule(&any)).is_some_and(|rule| rule.insecure)
    }

    /// The longest matching prefix.
    fn rule(&self, repository: &Repository) -> Option<&Rule> {
        let fitting = self.rules.iter().filter(|rule| rule.prefix.fits(repository));
        fitting.reduce(|best, rule| if rule.prefix.length() > best.prefix.length() { rule } else { best })
    }
}

impl Rule {
    fn allow(&self, repository: &Repository) -> Result<()> {
        if !self.blocked {
            return Ok(());
        }
        let text = format!("reaching {repository}: {} is blocked ({})", self.prefix, self.at);
        Err(Error::new(Kind::Refused, text))
    }
}
