//! The allowlist as a permission: what the isolated side lets in.

use super::{Allowlist, Rule};
use crate::lock::LockedImage;
use crate::oci::Platform;

impl Allowlist {
    /// Whether some rule covers the image. See [`Allowlist::refusal`].
    pub fn permits(&self, image: &LockedImage) -> bool {
        self.refusal(image).is_none()
    }

    /// Why an image may not enter, or nothing if a rule covers it.
    ///
    /// A rule covers an image whose source reference it selects; a digest in the rule has to be that of what is carried:
    /// what the source registry had before platforms were selected is only said, not shown. Where the rule names
    /// platforms, the image may carry no other.
    pub fn refusal(&self, image: &LockedImage) -> Option<String> {
        let covers = |rule: &&Rule| rule.select.covers(&image.reference, &image.digest);
        let mut covering = self.rules.iter().filter(covers).peekable();
        if covering.peek().is_none() {
            return Some(self.absence(image));
        }
        let mut refusal = None;
        for rule in covering {
            match foreign_platform(rule, image) {
                None => return None,
                Some(platform) => {
                    let text = format!("{} carries {platform}, which {} does not allow", image.reference, rule.at);
                    refusal.get_or_insert(text);
                }
            }
        }
        refusal
    }

    fn absence(&self, image: &LockedImage) -> String {
        let pinned = self.rules.iter().find(|rule| {
            let super::Select::One(own) = &rule.select else { return false };
            let same_name = own.repository == image.reference.repository && own.tag == image.reference.tag;
            same_name && own.tag.is_some()
        });
        match pinned {
            Some(rule) => format!("{} is {}, and {} pins another digest", image.reference, image.digest, rule.at),
            None => format!("{} is not on the allowlist", image.reference),
        }
    }
}

fn foreign_platform<'a>(rule: &Rule, image: &'a LockedImage) -> Option<&'a Platform> {
    let allowed = |platform: &Platform| rule.platforms.iter().any(|asked| asked.selects(platform));
    let strange = |platform: &&Platform| !platform.is_unknown() && !allowed(platform);
    if rule.platforms.is_empty() { None } else { image.platforms.iter().find(strange) }
}
