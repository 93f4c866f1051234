//! Reports the images that `docker load` and `podman load` will not load.

use crate::base::progress::units::count;
use crate::base::progress::{Event, Events};
use crate::bundle::load_platform;
use crate::pipeline::lock::Lock;

/// These programs load one platform of an image, and silently skip an image that does not have it.
pub fn report_loaders(lock: &Lock, events: &Events) {
    let platform = load_platform(lock);
    let several = lock.images.iter().filter(|image| image.platforms.len() > 1);
    let without = several.filter(|image| !image.platforms.iter().any(|has| platform.selects(has))).count();
    if without > 0 {
        let (images, them) = (count(without, "image"), if without == 1 { "it" } else { "them" });
        let text =
            format!("for several platforms without {platform}: `docker load` does not load {them} (--load-platform)");
        events.report(Event::Status(format!("{images} {text}")));
    }
}
