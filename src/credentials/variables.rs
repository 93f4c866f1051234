//! Credentials in environment variables, one per registry.
//!
//! **Threats.** An allowlist may come from someone else and name a host whose variable belongs to another host. Names are
//! therefore derived so that two hosts never share one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::{CredentialOrigin, Credentials, FoundCredentials, Secret, canonical};
use crate::base::error::{Error, Result};

const PREFIX: &str = "GAPFERRY_CREDS_";

/// The variable for a registry (`host[:port]`): upper case, `-` as `__`, every other special character as `_`.
///
/// No label of a host name is empty or starts or ends with `-`, and a variable is used only if it cannot belong to another
/// host, so different hosts have different variables.
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

/// Whether no other host has the same variable. `1.2.3:4` would share that of `1.2.3.4`, and `a.5000` that of `a:5000`, so a
/// host that ends in a number has one only if it is a complete IPv4 address. `[::1.2.3.4]` would share that of `[::1:2:3:4]`,
/// so an IPv6 address has one only without dots.
fn has_own(registry: &str) -> bool {
    let host = registry.split(':').next().unwrap_or_default();
    match registry.strip_prefix('[') {
        Some(address) => !address.contains('.'),
        None if host.parse::<Ipv4Addr>().is_ok() => true,
        None => !host.rsplit('.').next().is_some_and(|label| label.bytes().all(|c| c.is_ascii_digit())),
    }
}

/// The variables with the credentials of single registries, `USER:PASS` each.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, Secret>);

impl Variables {
    /// Selects the variables that belong here; empty ones count as unset.
    pub fn of(environment: impl IntoIterator<Item = (String, String)>) -> Variables {
        let own = |(name, value): &(String, String)| name.starts_with(PREFIX) && !value.is_empty();
        Variables(environment.into_iter().filter(own).map(|(name, value)| (name, Secret::new(value))).collect())
    }

    /// Whether there is one for this registry.
    pub fn has(&self, registry: &str) -> bool {
        has_own(registry) && self.0.contains_key(&variable_name(registry))
    }

    pub(super) fn find(&self, registry: &str) -> Result<Option<FoundCredentials>> {
        let name = variable_name(registry);
        let Some(value) = self.0.get(&name).filter(|_| has_own(registry)) else { return Ok(None) };
        let parsed = Credentials::parse(value.expose());
        let credentials = parsed.map_err(|_| Error::input(format!("the variable {name} is not USER:PASS")))?;
        Ok(Some(FoundCredentials { credentials, origin: CredentialOrigin::Variable { name } }))
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
        // Some resolvers read 1.2.3 as 1.2.0.3.
        let pair = |name: &str| (format!("GAPFERRY_CREDS_{name}"), "me:pass".to_owned());
        let variables =
            Variables::of(["1_2_3_4", "1_2_3_4_5", "A_5000", "__FFFF_1_2_3_4_", "___FFFF_1_2_3_4_"].map(pair));
        for known in ["1.2.3.4", "1.2.3.4:5", "a:5000", "[::ffff:1:2:3:4]"] {
            assert!(variables.has(known) && variables.find(known).unwrap().is_some(), "{known}");
        }
        for other in ["1.2.3:4", "1.2.3.4.5", "a.5000", "[::ffff:1.2.3.4]"] {
            assert!(!variables.has(other) && variables.find(other).unwrap().is_none(), "{other}");
        }
    }

    #[test]
    fn a_malformed_variable_is_an_error_that_shows_only_its_name() {
        let variables = Variables::of([("GAPFERRY_CREDS_R_IO".to_owned(), "hunter2".to_owned())]);
        let error = variables.find("r.io").unwrap_err();
        assert_eq!(error.to_string(), "the variable GAPFERRY_CREDS_R_IO is not USER:PASS");
        assert!(!format!("{error:?} {variables:?}").contains("hunter2"), "{error:?}");
        assert!(!Variables::of([("GAPFERRY_CREDS_R_IO".to_owned(), String::new())]).has("r.io"));
    }
}
