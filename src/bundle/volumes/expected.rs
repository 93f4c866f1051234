//! The content of volumes that are not available: where each file goes follows from what every volume repeats.
//!
//! # Threats
//! The description of a volume may be forged. The computed layout is used only if it matches every available volume, and only
//! to say what is missing. A layout that takes too long, or has more volumes than the set states, is given up.

use std::collections::{BTreeSet, HashSet};

use super::layout::Held;
use super::opened::Volumes;
use super::plan::{Effort, SetPlan, SetRequest};
use super::set::is_held;
use crate::bundle::format::head_of;
use crate::bundle::open::json_of;
use crate::bundle::{BUNDLE_JSON, BundleJson};
use crate::files::Layout;

/// Number of volumes to examine while files are placed, over all layouts that are tried.
const MOST_STEPS: u64 = 100_000_000;
/// Maximum number of different layouts to try.
const MOST_HEADS: usize = 4;

impl Volumes {
    /// The content of each volume of the set, available or not, by number from 1. `None` if it cannot be known.
    pub fn held(&self) -> Option<Vec<Vec<Held>>> {
        let bytes = json_of(self.layout(), self.set.identity)?;
        let bundle = BundleJson::parse(&bytes, BUNDLE_JSON).ok()?;
        let repeated = self.repeated();
        let (manifests, others): (Vec<_>, Vec<_>) =
            bundle.files.into_iter().map(|file| (file.path, file.size)).partition(|(path, _)| repeated.contains(path));
        let files: Vec<(String, u64)> = others.into_iter().filter(|(path, _)| is_held(path)).collect();
        let (limit, recovery) = (self.set.limit, self.set.recovery);
        let mut wanted = SetRequest { metadata: Vec::new(), manifests, files, limit, recovery };
        let mut effort = Effort { volumes: self.set.of, steps: MOST_STEPS };
        self.heads().into_iter().find_map(|metadata| {
            wanted.metadata = metadata;
            let held = SetPlan::held(&wanted, &mut effort)?;
            (held.len() == self.set.of as usize && self.agrees(&held)).then_some(held)
        })
    }

    /// What the available volumes repeat before their manifests, with sizes: some may have lost a signature, which takes
    /// space.
    fn heads(&self) -> Vec<Vec<(String, u64)>> {
        let head = |layout: &Layout| {
            let sizes = head_of(layout, true).into_iter().filter_map(|path| Some((layout.size_of(&path)?, path)));
            sizes.map(|(size, path)| (path, size)).collect::<Vec<(String, u64)>>()
        };
        let parts = self.layout().parts().iter().take(self.volumes.len());
        let mut heads: Vec<Vec<(String, u64)>> = Vec::new();
        for layout in std::iter::once(self.layout()).chain(parts) {
            let head = head(layout);
            if heads.len() < MOST_HEADS && !heads.iter().any(|other| other.len() == head.len()) {
                heads.push(head);
            }
        }
        heads
    }

    /// The manifests: what is in a volume that does not list it.
    fn repeated(&self) -> BTreeSet<String> {
        let of_one = |at: usize| {
            let listed: HashSet<&str> = self.volumes[at].json.files.iter().map(|file| file.path.as_str()).collect();
            let all = self.layout_of(at).into_iter().flat_map(Layout::entries).map(|(path, _)| path);
            all.filter(|path| path.starts_with("blobs/") && !listed.contains(path))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        (0..self.volumes.len()).flat_map(of_one).collect()
    }

    fn agrees(&self, held: &[Vec<Held>]) -> bool {
        self.volumes.iter().all(|volume| {
            let planned = held.get(volume.json.number as usize - 1).map_or(&[][..], Vec::as_slice);
            let is_it = |(held, file): (&Held, &super::VolumeFile)| {
                let place = |number, of, first, size| (number, of, first, size);
                let here = file.segment.as_ref().map(|s| place(s.number, s.of, s.first, s.size));
                held.path == file.path && held.cut.map(|c| place(c.number, c.of, c.first, held.size)) == here
            };
            planned.len() == volume.json.files.len() && planned.iter().zip(&volume.json.files).all(is_it)
        })
    }
}
