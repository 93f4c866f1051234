//! Which content of images is exported.

use std::collections::BTreeMap;

use crate::app::environment::Environment;
use crate::app::registry::RegistryOptions;
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::oci::Platform;
use crate::pipeline::allowlist::{Allowlist, Pattern};
use crate::pipeline::lock::{IndexMode, Lock};
use crate::pipeline::walk::Referrers;
use crate::transport::registry::Registries;

/// Which content of images is exported. The default is that of the command line.
#[derive(Clone)]
pub struct ResolveOptions {
    /// The platforms of entries that name none. Empty for all.
    pub platforms: Vec<Platform>,
    /// Take the requested platforms that an image has, and leave out an image that has none of them.
    pub skip_missing_platform: bool,
    /// Leave out images that cannot be read. The lock records them.
    pub keep_going: bool,
    /// What happens to an index if platforms are left out. `None` for the mode used before, or the default.
    pub index: Option<IndexMode>,
    /// The platform of an index that `docker load` loads.
    pub load_platform: Option<Platform>,
    /// Whether signatures, SBOMs and other companions are exported.
    pub referrers: Referrers,
    /// Fetch layers that are stored outside registries.
    pub foreign_layers: bool,
    /// Accept tag patterns that match nothing, and lists without images.
    pub allow_empty: bool,
    /// Tags that never move: the registry is not asked about those in an earlier lock.
    pub immutable_tags: Vec<Pattern>,
    /// Warn about images that an import would refuse if it allows only the same list.
    pub note_refused: bool,
}

impl Default for ResolveOptions {
    fn default() -> ResolveOptions {
        ResolveOptions {
            platforms: Vec::new(),
            skip_missing_platform: false,
            keep_going: false,
            index: None,
            load_platform: None,
            referrers: Referrers::Look,
            foreign_layers: false,
            allow_empty: false,
            immutable_tags: Vec::new(),
            note_refused: false,
        }
    }
}

impl ResolveOptions {
    /// Whether the digests of some tags are taken from an earlier lock.
    pub fn trusts_tags(&self) -> bool {
        !self.immutable_tags.is_empty()
    }

    /// Returns the list with these platforms, and the client for its registries.
    ///
    /// # Errors
    /// The list is empty and must not be, or credentials, certificates or configuration cannot be used.
    pub(in crate::app) fn connect(
        &self,
        list: &Allowlist,
        registry: &RegistryOptions,
        environment: &Environment,
    ) -> Result<(Allowlist, Registries)> {
        let mut list = list.clone();
        for notice in &list.notices {
            environment.events.report(Event::Notice(notice.clone()));
        }
        if list.rules.is_empty() && !self.allow_empty {
            let text = "nothing to export: no file names an image; --allow-empty continues without images";
            return Err(Error::input(text));
        }
        for rule in list.rules.iter_mut().filter(|rule| rule.platforms.is_empty()) {
            rule.platforms.clone_from(&self.platforms);
        }
        let names = list.rules.iter().map(|rule| rule.select.repository().registry().to_owned());
        let registries = registry.connect(names, &list.registries, environment)?;
        registries.expect(list.rules.iter().map(|rule| rule.select.repository()));
        Ok((list, registries))
    }
}

/// Creates the client for the registries in a lock.
///
/// # Errors
/// Credentials, certificates or configuration cannot be used.
pub fn connect_for(lock: &Lock, registry: &RegistryOptions, environment: &Environment) -> Result<Registries> {
    let names = lock.images.iter().map(|image| image.reference.repository.registry().to_owned());
    let registries = registry.connect(names, &BTreeMap::new(), environment)?;
    registries.expect(lock.images.iter().map(|image| &image.reference.repository));
    Ok(registries)
}
