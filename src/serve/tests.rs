//! Counts what a push costs.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::Options;
use super::catalog::Catalog;
use super::journal::{JOURNAL, SHORT, line};
use super::names::Change;
use crate::base::progress::Silent;
use crate::bundle::INDEX_JSON;
use crate::files::REF_NAME;
use crate::oci::{Descriptor, Digest};

/// A layout with this many tags in one repository, half of them for one manifest.
fn layout(root: &Path, tags: u32) {
    let descriptor = |n: u32| {
        let digest = Digest::sha256(&if n.is_multiple_of(2) { [0; 4] } else { n.to_le_bytes() });
        let name = format!("docker.io/team/app:old{n}");
        json!({"mediaType": "m", "digest": digest, "size": 1, "annotations": {REF_NAME: name}})
    };
    let manifests: Vec<_> = (0..tags).map(descriptor).collect();
    std::fs::write(root.join(INDEX_JSON), json!({"schemaVersion": 2, "manifests": manifests}).to_string()).unwrap();
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[derive(Default, Debug)]
struct Cost {
    /// Maximum number of entries that one push examined, except when it wrote the whole index.
    entries: u64,
    /// Bytes written by all pushes, and by the changes alone.
    written: u64,
    changes: u64,
    /// How often the index was written.
    folded: u64,
}

/// Pushes to a layout with `tags`: new tags, tags that move, tags of a manifest that has thousands.
fn pushes(tags: u32, count: u32) -> Cost {
    let work = tempfile::tempdir().unwrap();
    layout(work.path(), tags);
    let options = Options { writable: true, ..Options::at(([127, 0, 0, 1], 0).into()) };
    let catalog = Catalog::open(work.path(), &options, Arc::new(Silent)).unwrap();
    let writer = catalog.writer().unwrap();
    let (index, journal) = (work.path().join(INDEX_JSON), work.path().join(JOURNAL));
    let mut cost = Cost::default();
    for n in 0..count {
        let name = if n.is_multiple_of(3) { format!("old{}", n % tags) } else { format!("new{n}") };
        let digest = Digest::sha256(&if n.is_multiple_of(2) { [0; 4] } else { (n + 1_000_000).to_le_bytes() });
        let (repository, tag) = ("docker.io/team/app".parse().unwrap(), name.parse().unwrap());
        let change = Change::Tag { repository, tag, manifest: Descriptor::new("m", digest, 1), unlisted: vec![] };
        let (before, visits) = (length(&journal), catalog.names().visits());
        writer.commit(&mut writer.turn(), &change).unwrap();
        let own = line(&change).unwrap().len() as u64;
        (cost.changes, cost.written) = (cost.changes + own, cost.written + own);
        if length(&journal) == before + own {
            cost.entries = cost.entries.max(catalog.names().visits() - visits);
        } else {
            cost.folded += 1;
            cost.written += length(&index);
        }
    }
    catalog.close();
    let last = catalog.names().digest("team/app", None, &"new1".parse().unwrap());
    assert_eq!(last, Some(Digest::sha256(&1_000_001_u32.to_le_bytes())));
    cost
}

#[test]
fn a_push_costs_the_same_with_three_tags_and_with_thirty_thousand() {
    let (few, many) = (pushes(3, 60), pushes(30_000, 60));
    assert!(few.written <= 60 * SHORT, "{few:?}");
    assert_eq!((many.folded, many.written), (0, many.changes), "{many:?}");
    assert!(many.entries <= 24, "{many:?}");
}

#[test]
fn a_layout_that_grows_by_pushes_is_not_rewritten_for_each_push() {
    let grown = pushes(400, 1_500);
    assert!(grown.folded > 0 && grown.entries <= 24, "{grown:?}");
    assert!(grown.written < 4 * grown.changes, "{grown:?}");
}
