//! Which platforms of an image travel: a selection from its index, and what it states itself.

use super::tree::{self, Tree};
use super::{MAX_CONFIG, Walk, Wanted, modes};
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::oci::{Kind as ManifestKind, Manifest, Platform, media_type};
use crate::pipeline::lock::{Absent, IndexMode, Selection};
use crate::pipeline::select::{self, SelectedRoot};

impl Walk<'_> {
    pub(super) async fn apply_platforms(
        &self,
        found: &Manifest,
        wanted: &Wanted,
    ) -> Result<(Manifest, Vec<Absent>, Option<Selection>)> {
        if wanted.platforms.is_empty() {
            return Ok((found.clone(), Vec::new(), None));
        }
        if !select::is_selectable(found) {
            if found.kind() == ManifestKind::Index && !found.children().is_empty() {
                let text = "its index names no platforms, so all of it is carried; an import that --allow limits to \
                            platforms refuses it";
                self.events.report(Event::Warning(format!("{}: {text}", wanted.reference)));
            }
            return Ok((found.clone(), Vec::new(), None));
        }
        let (asked, earlier) = (self.options.index, self.modes.of(wanted));
        let default = self.default_mode(found, wanted, asked.or(earlier)).await?;
        let modes::Mode { index, kept } = modes::decide(asked, earlier, default);
        if kept {
            self.note_kept_mode(&wanted.reference, index);
        }
        let selected = select::select(found, &wanted.platforms, index)?;
        if !selected.changed {
            return Ok((found.clone(), Vec::new(), None));
        }
        if wanted.reference.digest.is_some() && index != IndexMode::Sparse {
            let text = "it is pinned by digest, and selecting platforms would change the digest";
            return Err(Error::input(format!("{text}; use --index sparse, or name it by tag")));
        }
        let root = match selected.root {
            SelectedRoot::Manifest(root) => root,
            SelectedRoot::Child(child) => {
                tree::need_child(self.source, &wanted.reference.repository, found.digest(), child).await?
            }
        };
        let selection = Selection { platforms: wanted.platforms.clone(), index, original: found.descriptor().bare() };
        Ok((root, selected.absent, Some(selection)))
    }

    /// The default for an index: for one platform, that manifest gets the tag, so that the tag has a digest that exists
    /// upstream. Only if the manifest itself states that platform: without the index nothing else would state it,
    /// neither for a runtime nor for an import that allows only some platforms.
    ///
    /// `chosen` is a mode that takes precedence. If that is `sparse`, the manifest need not exist.
    async fn default_mode(&self, index: &Manifest, wanted: &Wanted, chosen: Option<IndexMode>) -> Result<IndexMode> {
        let default = select::default_mode(index, &wanted.platforms);
        if default != IndexMode::Single || self.options.index.is_some() || chosen == Some(IndexMode::Sparse) {
            return Ok(default);
        }
        let SelectedRoot::Child(child) = select::select(index, &wanted.platforms, IndexMode::Single)?.root else {
            return Ok(default);
        };
        let child = tree::need_child(self.source, &wanted.reference.repository, index.digest(), child).await?;
        let platforms = self.platforms_of_single(wanted, &child).await?;
        let Some(other) = other_platform(&wanted.platforms, &platforms) else { return Ok(default) };
        if chosen.is_none() {
            let asked = wanted.platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ");
            let text = format!(
                "the config of its manifest for {asked} says {other}, so its index is trimmed to it (--index trim)"
            );
            self.events.report(Event::Notice(format!("{}: {text}", wanted.reference)));
        }
        Ok(IndexMode::Trim)
    }

    /// Does the same without the platforms that the index lacks, if that is allowed; not without all of them.
    pub(super) fn without_lacking(&self, found: &Manifest, wanted: &Wanted) -> Wanted {
        let has = match self.options.available_platforms && select::is_selectable(found) {
            true => select::available(found, &wanted.platforms),
            false => Vec::new(),
        };
        if has.is_empty() || has.len() == wanted.platforms.len() {
            return wanted.clone();
        }
        let lacking = wanted.platforms.iter().filter(|asked| !has.contains(asked)).map(Platform::to_string);
        let lacking = lacking.collect::<Vec<_>>().join(", ");
        self.events.report(Event::Notice(format!("{}: it has no {lacking}, which is left out", wanted.reference)));
        Wanted { platforms: has, ..wanted.clone() }
    }

    /// Returns the carried platforms. For a single image, its config is read.
    pub(super) async fn platforms(&self, wanted: &Wanted, tree: &Tree, root: &Manifest) -> Result<Vec<Platform>> {
        if root.kind() == ManifestKind::Index {
            let carried = |digest| tree.holds(digest);
            let children = root.children();
            let platforms = children.iter().filter(|child| carried(child.descriptor.digest));
            return Ok(platforms.filter_map(select::offered_platform).cloned().collect());
        }
        self.platforms_of_single(wanted, root).await
    }

    async fn platforms_of_single(&self, wanted: &Wanted, root: &Manifest) -> Result<Vec<Platform>> {
        // Nothing fails because of information that is only displayed.
        let known = self.platforms.get(&root.digest());
        if let Some(known) = known.filter(|known| check_has(&wanted.platforms, known).is_ok()) {
            return Ok(known.clone());
        }
        match root.config() {
            Some(config) if media_type::is_image_config(&config.media_type) => {
                let bytes = self.source.small_blob(&wanted.reference.repository, config, MAX_CONFIG).await?;
                Ok(platform_of_config(&bytes)?.into_iter().collect())
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// Returns a platform that an image `says` it is for and that was not requested.
pub fn other_platform<'p>(asked: &[Platform], says: &'p [Platform]) -> Option<&'p Platform> {
    says.iter().find(|says| !asked.iter().any(|asked| asked.selects(says)))
}

/// Checks that every requested platform is there. Content without a platform (a chart, an SBOM) runs anywhere.
pub(super) fn check_has(asked: &[Platform], carried: &[Platform]) -> Result<()> {
    let lacks = |asked: &&Platform| !carried.iter().any(|has| asked.selects(has));
    let missing: Vec<String> = asked.iter().filter(lacks).map(Platform::to_string).collect();
    if missing.is_empty() || carried.is_empty() { Ok(()) } else { Err(select::lacks(&missing, carried.iter())) }
}

/// Checks that one of the requested platforms is there.
pub(super) fn check_has_any(asked: &[Platform], carried: &[Platform]) -> Result<()> {
    match asked.iter().any(|asked| check_has(std::slice::from_ref(asked), carried).is_ok()) {
        true => Ok(()),
        false => check_has(asked, carried),
    }
}

/// Returns the platform in an image config, if there is one. A config that is not a JSON object belongs to some
/// artifact.
///
/// # Errors
/// Programs would read different platforms in it.
pub fn platform_of_config(bytes: &[u8]) -> Result<Option<Platform>> {
    match serde_json::from_slice::<Platform>(bytes) {
        Ok(platform) => Ok((!platform.is_unknown()).then_some(platform)),
        Err(error) if error.is_data() && bytes.trim_ascii_start().starts_with(b"{") => {
            Err(Error::damaged("reading the platform in its config").because(error))
        }
        Err(_) => Ok(None),
    }
}
