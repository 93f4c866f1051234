//! The target of a login: `HOST[:PORT][/NAMESPACE]`.

use std::fmt;

use crate::base::error::Result;
use crate::credentials::canonical;
use crate::pipeline::naming::parse_target;

/// The names under which docker stores credentials for Docker Hub, and which people therefore type.
const HUB_URLS: [&str; 3] = ["https://index.docker.io/v1/", "https://index.docker.io/v1", "https://docker.io"];

/// A registry, or a namespace or repository at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginTarget {
    /// `host[:port]`, `docker.io` for Docker Hub.
    pub registry: String,
    /// The path, empty for the whole registry.
    pub path: String,
}

impl LoginTarget {
    /// Parses `HOST[:PORT][/NAMESPACE]`. Accepts the names that docker uses for Docker Hub.
    ///
    /// # Errors
    /// The text has another form. The message does not repeat a password in the wrong place.
    pub fn parse(text: &str) -> Result<LoginTarget> {
        let target = parse_target(if HUB_URLS.contains(&text) { "docker.io" } else { text })?;
        let (registry, path) = (canonical(&target.registry).to_owned(), target.prefix.unwrap_or_default());
        Ok(LoginTarget { registry, path })
    }
}

impl fmt::Display for LoginTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.registry),
            path => write!(f, "{}/{path}", self.registry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_target_is_a_registry_or_a_namespace_and_docker_hub_has_one_name() {
        for (text, shown) in [
            ("harbor.internal", "harbor.internal"),
            ("harbor.internal:5000/team/", "harbor.internal:5000/team"),
            ("[::1]:5000", "[::1]:5000"),
            ("docker.io", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("registry-1.docker.io/team", "docker.io/team"),
            ("https://index.docker.io/v1/", "docker.io"),
        ] {
            assert_eq!(LoginTarget::parse(text).unwrap().to_string(), shown);
        }
        for text in
            ["", "https://r.io", "r.io/UPPER", "r.io/a:1", "r.io/a//b", "me:hunter2@r.io", "me:hunter2@r.io:5000"]
        {
            let error = LoginTarget::parse(text).err().unwrap_or_else(|| panic!("{text} is accepted"));
            assert!(!error.chain().contains("hunter2"), "{error}");
        }
    }
}
