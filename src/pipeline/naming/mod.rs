//! Names at the target: where an image of the bundle is pushed below `HOST[:PORT][/PREFIX]`.
//!
//! The first of these decides: `as=` of the allowlist, the first rule of `--map` that matches ([`Map`]), the [`Style`].
//! The tag stays, unless `as=` has one. An image without a tag is pushed under its digest. With the prefix `mirror`:
//!
//! | style | `docker.io/library/nginx:1.27` becomes |
//! |---|---|
//! | default | `HOST/mirror/library/nginx:1.27` |
//! | scoped | `HOST/mirror/docker.io/library/nginx:1.27` |
//! | flatten | `HOST/mirror/nginx:1.27` |
//!
//! The host of a scoped name becomes a valid path component: in lower case, with a hyphen for the colon before a port
//! (`reg:5000` → `reg-5000`), and with the eight groups of an IPv6 address (`[::1]:5000` →
//! `ipv6-0-0-0-0-0-0-0-1-5000`). This module does not ask the target. [`find_collisions`] checks that no two images get
//! the same name.

mod collisions;
mod map;

pub use collisions::{Collision, Collisions, find_collisions};
pub use map::Map;

use crate::base::error::{Error, Result};
use crate::oci::{NO_PASSWORD_HERE, Reference, Repository, without_password};
use crate::pipeline::lock::{LockedImage, Rename};

/// What happens to a source name that no rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// The path stays.
    #[default]
    Default,
    /// The source host becomes the first component of the path.
    Scoped,
    /// Only the last component of the path stays.
    Flatten,
}

/// Where images are pushed: a registry, and a path in front of every name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host[:port]`.
    pub registry: String,
    /// Path components in front of every name.
    pub prefix: Option<String>,
}

/// How to build names.
#[derive(Clone, Debug, Default)]
pub struct Naming {
    /// A path below the host, such as `mirror` or `a/b`.
    pub prefix: Option<String>,
    pub style: Style,
    pub map: Map,
}

/// Parses `HOST[:PORT][/PREFIX]`. The first component is always the host, and a slash at the end is allowed.
///
/// # Errors
/// [`crate::base::error::Kind::Input`], with what is wrong with the host or the prefix.
pub fn parse_target(text: &str) -> Result<Target> {
    let fail = |reason: &str| Error::input(format!("reading the target {text:?}: {reason}"));
    if let Some(masked) = without_password(text) {
        return Err(Error::input(format!("reading the target {masked:?}: {NO_PASSWORD_HERE}")));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(fail(&format!("write it without {scheme}://, as {rest}")));
    }
    let text = text.strip_suffix('/').unwrap_or(text);
    let (registry, prefix) = text.split_once('/').map_or((text, None), |(host, path)| (host, Some(path)));
    let probe = Repository::new(registry, prefix.unwrap_or("x"));
    let _checked = probe.map_err(|e| match prefix {
        Some(prefix) if prefix.contains([':', '@']) => fail("the prefix must be a path, without tag and digest"),
        _ => fail(&e.reason),
    })?;
    Ok(Target { registry: registry.to_owned(), prefix: prefix.map(str::to_owned) })
}

impl Naming {
    /// Returns the name of an image at `registry` (`host[:port]`), with its tag, or with its digest if there is no tag.
    ///
    /// # Errors
    /// [`crate::base::error::Kind::Input`] if the name would be invalid (too long, or a rule leaves nothing).
    pub fn target(&self, registry: &str, image: &LockedImage) -> Result<Reference> {
        let source = &image.reference.repository;
        let repository = self.place(registry, source, image.rename.as_ref(), &image.reference)?;
        let renamed = image.rename.as_ref().and_then(|rename| rename.tag.as_ref());
        Ok(match renamed.or(image.reference.tag.as_ref()) {
            Some(tag) => repository.with_tag(tag.clone()),
            None => repository.with_digest(image.digest),
        })
    }

    /// Returns where images of a repository with this `rename` go.
    ///
    /// # Errors
    /// As for [`Naming::target`].
    pub fn repository(&self, registry: &str, source: &Repository, rename: Option<&Rename>) -> Result<Repository> {
        self.place(registry, source, rename, source)
    }

    /// `shown` is its name in errors.
    fn place(
        &self,
        registry: &str,
        source: &Repository,
        rename: Option<&Rename>,
        shown: &dyn std::fmt::Display,
    ) -> Result<Repository> {
        let below = match rename {
            Some(rename) => rename.path.clone(),
            None => self.map.apply(source).unwrap_or_else(|| self.style.path(source)),
        };
        let path = match &self.prefix {
            Some(prefix) if below.is_empty() => prefix.clone(),
            Some(prefix) => format!("{prefix}/{below}"),
            None => below,
        };
        Repository::new(registry, &path).map_err(|e| Error::input(format!("naming {shown} at the target")).because(e))
    }
}

impl Style {
    fn path(self, source: &Repository) -> String {
        let path = source.path();
        match self {
            Style::Default => path.to_owned(),
            Style::Scoped => format!("{}/{path}", host_component(source.registry())),
            Style::Flatten => path.rsplit('/').next().unwrap_or(path).to_owned(),
        }
    }
}

/// Returns a registry's `host[:port]` as one path component. See the module documentation.
pub(crate) fn host_component(registry: &str) -> String {
    let ipv6 = registry.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let address = ipv6.and_then(|(address, port)| Some((address.parse::<std::net::Ipv6Addr>().ok()?, port)));
    let Some((address, port)) = address else {
        return registry.to_ascii_lowercase().replace(':', "-");
    };
    let mut name = "ipv6".to_owned();
    for group in address.segments() {
        name.push_str(&format!("-{group:x}"));
    }
    name + &port.replace(':', "-")
}

#[cfg(test)]
mod tests;
