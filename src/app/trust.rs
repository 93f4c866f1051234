//! Which signatures are accepted.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::local::read_bounded;
use crate::app::site_policy::{MAX_CONFIG, SitePolicy};
use crate::base::error::{Error, Result};
use crate::base::position::refused;
use crate::base::progress::Event;
use crate::bundle::{self, Proven, SUMS, signatures_of};
use crate::files::Layout;
use crate::signing::{MAX_KEY_FILE, PublicKey};

/// The accepted keys, and whether a signature by one of them is required.
#[derive(Clone, Default)]
pub struct Trust {
    keys: Vec<PublicKey>,
    is_demanded: bool,
}

impl Trust {
    /// Requires a signature by one of these keys, if there are any.
    pub fn demanding(keys: Vec<PublicKey>) -> Trust {
        Trust { is_demanded: !keys.is_empty(), keys }
    }

    /// Reads the keys in these files, and the requirements in the configuration of the machine and of the user.
    ///
    /// # Errors
    /// A key or the configuration cannot be read, or the configuration requires a signature that no key could prove.
    pub fn load(keys: &[PathBuf], environment: &Environment) -> Result<Trust> {
        let policy = policy(environment)?;
        let is_demanded = demanded_by(keys, &policy)?.is_some();
        let keys = keys.iter().chain(&policy.keys).map(|key| public_key(key)).collect::<Result<Vec<PublicKey>>>()?;
        Ok(Trust { keys, is_demanded })
    }

    /// Whether a bundle without a signature by one of the keys is refused.
    pub fn is_demanded(&self) -> bool {
        self.is_demanded
    }

    /// Checks the signature before anything else of the bundle is trusted. If no signature is required and there is no key,
    /// a notice reports that the bundle is signed.
    ///
    /// # Errors
    /// None of the keys signed the bundle.
    pub fn check(&self, layout: &Layout, environment: &Environment) -> Result<Option<Proven>> {
        let path = layout.path().display();
        let is_signed = !signatures_of(layout, SUMS).is_empty();
        if self.is_demanded || is_signed && !self.keys.is_empty() {
            return bundle::check_signature(layout, &self.keys).map(Some);
        }
        if is_signed {
            let text = format!("{path} is signed, but without --key the signature is not checked");
            environment.events.report(Event::Notice(text));
        } else if !self.keys.is_empty() {
            environment.events.report(Event::Warning(format!("{path} is not signed")));
        }
        Ok(None)
    }
}

/// Returns what requires a signature: the file with the configuration, or `--key`.
///
/// # Errors
/// The configuration cannot be read, or requires a signature that no key could prove.
pub fn demand(keys: &[PathBuf], environment: &Environment) -> Result<Option<String>> {
    demanded_by(keys, &policy(environment)?)
}

fn demanded_by(keys: &[PathBuf], policy: &SitePolicy) -> Result<Option<String>> {
    match &policy.required_by {
        Some(file) if keys.is_empty() && policy.keys.is_empty() => {
            let text = format!(
                "{file} requires a signature (require-signature), but neither `keys` in it nor --key names a key"
            );
            Err(Error::input(text))
        }
        Some(file) => Ok(Some(file.clone())),
        None => Ok((!keys.is_empty()).then(|| "--key".to_owned())),
    }
}

/// Reads the configuration of the administrator and of the user, if they exist.
fn policy(environment: &Environment) -> Result<SitePolicy> {
    let set = |name| environment.variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let places = [Some(PathBuf::from("/etc")), own].into_iter().flatten();
    let mut files = Vec::new();
    for path in places.map(|place| place.join("gapferry/config.toml")) {
        match read_bounded(&path, MAX_CONFIG + 1) {
            Ok(text) if text.bytes.len() as u64 > MAX_CONFIG => {
                return Err(Error::input(format!("reading {}: more than {MAX_CONFIG} bytes", path.display())));
            }
            Ok(text) => files.push((path, text.bytes)),
            Err(error) if is_absent(&error) => {}
            // A file that cannot be read might require a signature.
            Err(error) => return Err(error),
        }
    }
    SitePolicy::parse(&files).map_err(|problems| refused("the configuration", &problems))
}

fn is_absent(error: &Error) -> bool {
    use rustix::io::Errno;
    matches!(error.os_error().map(Errno::from_raw_os_error), Some(Errno::NOENT | Errno::NOTDIR))
}

/// Reads a public key.
///
/// # Errors
/// The file cannot be read, or does not contain a public key.
pub fn public_key(path: &Path) -> Result<PublicKey> {
    let text = read_bounded(path, MAX_KEY_FILE + 1)?;
    PublicKey::parse(&text.bytes, &text.name)
}
