//! Checks the files from which other programs load a bundle, `index.json` and `manifest.json`: they must be byte for byte
//! what follows from the lock and the manifests. If they differ, or manifests are damaged, their contents are compared.

use std::collections::HashSet;

use super::graph::NeededFiles;
use super::manifests::ManifestReader;
use super::{Problem, ProblemKind, Problems, docker, index};
use crate::base::canonical;
use crate::bundle::{
    BundleJson, DOCKER_JSON, INDEX_JSON, MAX_DOCKER_JSON, docker_json, index_json, load_platform, whole_images,
};
use crate::files::{Layout, MAX_INDEX};
use crate::oci::Digest;
use crate::pipeline::lock::LockedImage;

/// Reports how the two files differ from what follows from the lock and the manifests.
pub fn agree(layout: &Layout, bundle: &BundleJson, reach: &NeededFiles, problems: &mut Problems) {
    if reach.too_much {
        return;
    }
    let verdict = if reach.complete { bytes_agree(layout, bundle) } else { Verdicts::default() };
    if verdict.index != Verdict::Same {
        problems.extend(explained(INDEX_JSON, verdict.index, index::compare(layout, bundle, &reach.partial)));
    }
    if verdict.docker != Verdict::Same {
        problems.extend(explained(DOCKER_JSON, verdict.docker, docker::compare(layout, bundle, &reach.partial)));
    }
}

/// The result of a comparison byte by byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Verdict {
    Same,
    Other,
    /// The file is not the declared one, or a manifest could not be read.
    #[default]
    Unknown,
}

#[derive(Default)]
struct Verdicts {
    index: Verdict,
    docker: Verdict,
}

fn bytes_agree(layout: &Layout, bundle: &BundleJson) -> Verdicts {
    let found = ManifestReader::new(layout);
    let find = found.find();
    let assumed: HashSet<Digest> = bundle.assumed.iter().map(|assumed| assumed.digest).collect();
    let images: Vec<&LockedImage> = whole_images(&bundle.lock, &assumed, &find);
    let platform = load_platform(&bundle.lock);
    let compared = |path: &str, limit: u64, agrees: &dyn Fn(&[u8]) -> bool| {
        let bytes = layout.read(path, limit).ok().flatten();
        let is_declared =
            |bytes: &bytes::Bytes| bundle.files.iter().any(|file| file.path == path && file.digest.is_of(bytes));
        match bytes.filter(is_declared).map(|bytes| agrees(&bytes)) {
            _ if !found.is_sound() => Verdict::Unknown,
            Some(true) => Verdict::Same,
            Some(false) => Verdict::Other,
            None => Verdict::Unknown,
        }
    };
    Verdicts {
        index: compared(INDEX_JSON, MAX_INDEX, &|bytes| canonical::is_compact(bytes, &index_json(&images, &find))),
        docker: compared(DOCKER_JSON, MAX_DOCKER_JSON, &|bytes| {
            canonical::is_compact(bytes, &docker_json(&images, &platform, &find))
        }),
    }
}

/// Returns the differences. If the bytes differ and no difference was found, that alone is a problem.
fn explained(path: &str, verdict: Verdict, mut differences: Vec<Problem>) -> Vec<Problem> {
    if verdict == Verdict::Other && differences.is_empty() {
        let found = "it differs from the bytes that follow from the lock and the manifests";
        differences.push(Problem::new(path, ProblemKind::Disagreement).found(found));
    }
    differences
}
