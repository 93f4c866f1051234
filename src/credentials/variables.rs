//! Credentials in variables of the environment, one for each registry.
//!
//! **Threats.** An allowlist may come from somebody else and name a host whose variable would be that of another: a name is
//! made so that two hosts never share one.

use std::collections::BTreeMap;

use super::{Credentials, Found, Origin, Secret, canonical};
use crate::error::{Error, Result};

const PREFIX: &str = "GAPFERRY_CREDS_";

/// The variable for one registry (`host[:port]`): upper case, `-` as `__`, every other sign as `_`.
///
/// No label of a host name is empty or begins or ends with `-`, and none at the end is a number but in IPv4 addresses; so
/// hosts that differ have variables that differ.
pub fn variable_name(registry: &str) -> String {
    let mut name = PREFIX.to_owned();
    for c in canonical(registry).chars() {
        match c {
            '-' => name.push_str("__"),
            c if c.is_ascii_alphanumeric() => name.push(c.to_ascii_uppercase()),
            _ => name.push('_'),
        }
    }
    name
}

/// Those variables of an environment that hold the credentials of one registry, `USER:PASS` each.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, Secret>);

impl Variables {
    /// Takes what belongs here out of all variables; an empty one is as if it were not set.
    pub fn of(environment: impl IntoIterator<Item = (String, String)>) -> Variables {
        let own = |(name, value): &(String, String)| name.starts_with(PREFIX) && !value.is_empty();
        Variables(environment.into_iter().filter(own).map(|(name, value)| (name, Secret::new(value))).collect())
    }

    /// Whether there is one for this registry.
    pub fn has(&self, registry: &str) -> bool {
        self.0.contains_key(&variable_name(registry))
    }

    pub(super) fn find(&self, registry: &str) -> Result<Option<Found>> {
        let name = variable_name(registry);
        let Some(value) = self.0.get(&name) else { return Ok(None) };
        let parsed = Credentials::parse(value.expose());
        let credentials = parsed.map_err(|_| Error::input(format!("the variable {name} is not USER:PASS")))?;
        Ok(Some(Found { credentials, origin: Origin::Variable { name } }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_host_in_capitals() {
        for (registry, name) in [
            ("quay.io", "GAPFERRY_CREDS_QUAY_IO"),
            ("harbor.example.com:5000", "GAPFERRY_CREDS_HARBOR_EXAMPLE_COM_5000"),
            ("my-harbor.local", "GAPFERRY_CREDS_MY__HARBOR_LOCAL"),
            ("index.docker.io", "GAPFERRY_CREDS_DOCKER_IO"),
            ("[::1]:5000", "GAPFERRY_CREDS____1__5000"),
        ] {
            assert_eq!(variable_name(registry), name);
        }
    }

    #[test]
    fn no_host_is_sent_the_password_of_a_host_that_looks_alike() {
        let variables = Variables::of([("GAPFERRY_CREDS_MY_HARBOR_IO".to_owned(), "me:pass".to_owned())]);
        assert!(variables.has("my.harbor.io"));
        assert!(!variables.has("my-harbor.io") && !variables.has("my.harbor-io") && !variables.has("my.harbor.io:443"));
    }

    #[test]
    fn what_is_no_pair_is_an_error_that_names_the_variable_alone() {
        let variables = Variables::of([("GAPFERRY_CREDS_R_IO".to_owned(), "hunter2".to_owned())]);
        let error = variables.find("r.io").unwrap_err();
        assert!(error.to_string().contains("GAPFERRY_CREDS_R_IO"), "{error}");
        assert!(!format!("{error:?} {variables:?}").contains("hunter2"), "{error:?}");
        assert!(!Variables::of([("GAPFERRY_CREDS_R_IO".to_owned(), String::new())]).has("r.io"));
    }
}
