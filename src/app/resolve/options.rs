//! What is carried of images.

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

/// What is carried of images. The default is what the command line does without options.
#[derive(Clone)]
pub struct ResolveOptions {
    /// The platforms to take of entries that name none themselves. Empty: all.
    pub platforms: Vec<Platform>,
    /// Take what an image has of the platforms that are asked for, and leave out one that has none of them.
    pub skip_missing_platform: bool,
    /// Leave out images that cannot be read. The lock records them.
    pub keep_going: bool,
    /// What becomes of an index when platforms are left out. `None`: what was done before, else the default.
    pub index: Option<IndexMode>,
    /// The platform that `docker load` takes of an index with several.
    pub load_platform: Option<Platform>,
    /// Whether signatures, SBOMs and other companions are carried.
    pub referrers: Referrers,
    /// Fetch layers that are kept outside registries.
    pub foreign_layers: bool,
    /// Neither a tag pattern that matches nothing nor a list without images is an error.
    pub allow_empty: bool,
    /// Tags that never move: what an earlier lock says of them is not asked again.
    pub immutable_tags: Vec<Pattern>,
    /// Warn of images that an import which allows only the same list would refuse.
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
    /// Whether some tags are believed to mean what an earlier lock says.
    pub fn trusts_tags(&self) -> bool {
        !self.immutable_tags.is_empty()
    }

    /// The list with these platforms, and the client for its registries.
    ///
    /// # Errors
    /// The list is empty and may not be; credentials, certificates or configuration cannot be used.
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
            let text = "nothing to carry: no file names an image; --allow-empty goes on without any";
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

/// The client for the registries that a lock names.
///
/// # Errors
/// Credentials, certificates or configuration cannot be used.
pub fn connect_for(lock: &Lock, registry: &RegistryOptions, environment: &Environment) -> Result<Registries> {
    let names = lock.images.iter().map(|image| image.reference.repository.registry().to_owned());
    let registries = registry.connect(names, &BTreeMap::new(), environment)?;
    registries.expect(lock.images.iter().map(|image| &image.reference.repository));
    Ok(registries)
}
