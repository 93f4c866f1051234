//! Reports what `docker load` and `podman load` will load of the images.

use crate::base::progress::units::count;
use crate::base::progress::{Event, Events};
use crate::bundle::load_platform;
use crate::pipeline::lock::Lock;

/// These programs load one platform of an image, and ignore the others silently.
pub fn report_loaders(lock: &Lock, events: &Events) {
    let platform = load_platform(lock);
    let several = lock.images.iter().filter(|image| image.platforms.len() > 1);
    let (taken, without): (Vec<_>, Vec<_>) =
        several.partition(|image| image.platforms.iter().any(|has| platform.selects(has)));
    let images = |number| format!("{} for several platforms", count(number, "image"));
    let pronoun = |number| if number == 1 { "it" } else { "them" };
    if !taken.is_empty() {
        let (number, of) = (taken.len(), pronoun(taken.len()));
        events.report(Event::Status(format!("{}: `docker load` loads {platform} of {of}", images(number))));
    }
    if !without.is_empty() {
        let (number, not) = (without.len(), pronoun(without.len()));
        let text = format!("without {platform}: `docker load` does not load {not} (--load-platform)");
        events.report(Event::Status(format!("{} {text}", images(number))));
    }
}
