//! Which way a registry is read: the mirrors that stand before it, the place it has moved to, what is blocked.
//!
//! The words are those of `registries.conf` version 2 (containers-registries.conf(5)), which podman, skopeo and CRI-O read:
//! the longest prefix that fits a repository counts; its mirrors are asked in order and then its own location. The room
//! knows names only: it opens no connection, and what a mirror's answer is worth is for the transport to judge. Short names
//! (`unqualified-search-registries`, aliases) are not decided here: they mean what they mean to Docker.

mod file;
mod places;
mod prefix;
#[cfg(test)]
mod tests;

use crate::base::error::{Error, Kind, Result};
use crate::base::position::Position;
use crate::oci::Repository;
use prefix::Prefix;

/// Everything that `registries.conf` and its drop-ins say. The default says nothing: every registry is read as it is named.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    rules: Vec<Rule>,
    /// Keys that mean nothing here, tables that are overridden: worth showing.
    pub warnings: Vec<String>,
}

/// One `[[registry]]`.
#[derive(Clone, Debug)]
struct Rule {
    at: Position,
    prefix: Prefix,
    /// What stands instead of the prefix; nothing with a `*.` prefix keeps the name.
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

/// What is asked of a place (`pull-from-mirror`, `mirror-by-digest-only`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    #[default]
    All,
    Digests,
    Tags,
}

/// One place where a repository can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSource {
    /// The repository as it is called there.
    pub repository: Repository,
    /// Any certificate will do, and plain HTTP where there is no TLS.
    pub insecure: bool,
    pub serves: Serves,
}

impl Routes {
    /// The places where `repository` is read, in the order to ask them; the last is the registry itself.
    ///
    /// # Errors
    /// It is blocked, or a rule makes no name of it; the rule's file and line are named.
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
    /// It is blocked.
    pub fn push(&self, repository: &Repository) -> Result<PullSource> {
        let rule = self.rule(repository);
        rule.map_or(Ok(()), |rule| rule.allow(repository))?;
        let insecure = rule.is_some_and(|rule| rule.insecure);
        Ok(PullSource { repository: repository.clone(), insecure, serves: Serves::All })
    }

    /// Whether that is said of a whole registry, `host[:port]`.
    pub fn is_insecure(&self, registry: &str) -> bool {
        let any = Repository::new(registry, "any").ok();
        any.and_then(|any| self.rule(&any)).is_some_and(|rule| rule.insecure)
    }

    /// The longest prefix that fits.
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
