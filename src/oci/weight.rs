//! Counts the memory that descriptors take in the whole process.
//!
//! The content of manifests decides how many descriptors a run holds, and everything else that grows with it (plans, lists of
//! files, inventories) takes a few times as much. Bounding the descriptors bounds all of it.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of descriptors that any run may hold: about 250,000 of them.
const MOST: usize = 32 * 1024 * 1024;
/// Bytes per manifest, if that is more, because a large registry is not an attack: about fifteen descriptors.
const FOR_EACH: usize = 2 * 1024;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static MANIFESTS: AtomicUsize = AtomicUsize::new(0);
static EXEMPT: AtomicUsize = AtomicUsize::new(0);

/// Records that this much was allocated.
pub fn take(bytes: usize) {
    TAKEN.fetch_add(bytes, Ordering::Relaxed);
}

/// Records that this much was freed.
pub fn give_back(bytes: usize) {
    TAKEN.fetch_sub(bytes, Ordering::Relaxed);
}

/// Whether there is room for the manifest whose descriptors were counted last.
pub fn fits() -> bool {
    let counted = TAKEN.load(Ordering::Relaxed).saturating_sub(EXEMPT.load(Ordering::Relaxed));
    counted <= most(MANIFESTS.load(Ordering::Relaxed))
}

/// Bytes of descriptors with a limit of their own, for as long as this value lives.
#[derive(Debug)]
pub struct Exempt(usize);

impl Exempt {
    pub fn of(bytes: usize) -> Exempt {
        EXEMPT.fetch_add(bytes, Ordering::Relaxed);
        Exempt(bytes)
    }
}

impl Drop for Exempt {
    fn drop(&mut self) {
        EXEMPT.fetch_sub(self.0, Ordering::Relaxed);
    }
}

fn most(manifests: usize) -> usize {
    MOST.max(manifests.saturating_mul(FOR_EACH))
}

/// What a manifest takes in addition to its descriptors.
pub struct OfManifest(usize);

impl OfManifest {
    pub fn take(bytes: usize) -> OfManifest {
        take(bytes);
        MANIFESTS.fetch_add(1, Ordering::Relaxed);
        OfManifest(bytes)
    }
}

impl Drop for OfManifest {
    fn drop(&mut self) {
        give_back(self.0);
        MANIFESTS.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_thousand_images_have_a_limit_and_a_large_registry_has_room() {
        assert_eq!(most(5_000), MOST);
        // An ordinary image has an index, a manifest or two and ten layers, most of which it shares with others.
        assert!(most(400_000) >= 400_000 * 2_000);
    }
}
