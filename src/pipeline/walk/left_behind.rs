//! Signatures and other companions of a whole index, which are left behind if only some of its platforms are carried.

use std::sync::PoisonError;

use super::{Referrers, Walk, attached};
use crate::base::error::Error;
use crate::base::progress::Event;
use crate::oci::{Manifest, Reference, Role, Tag};
use crate::pipeline::companion::Kind;
use crate::pipeline::graph::LeftBehind;
use crate::pipeline::lock::{IndexMode, Selection};
use crate::pipeline::select;

/// Records what refers to `index` itself, unless the index is carried unchanged.
pub async fn note(walk: &Walk<'_>, reference: &Reference, index: &Manifest, selection: &Selection) {
    if selection.index == IndexMode::Sparse || walk.options.referrers == Referrers::Leave {
        return;
    }
    let mut left = LeftBehind::of(reference.clone());
    match attached::companions(walk, &reference.repository, index.digest()).await {
        Ok(companions) => {
            for attached::Companion { tag, manifest, .. } in &companions.found {
                let artifact_type = manifest.artifact_type();
                let kind = Kind::of(tag.as_ref(), artifact_type.as_deref(), Some(manifest));
                left.add(kind, number_in(tag.as_ref(), manifest));
            }
        }
        Err(error) => report_unknown(walk, reference, &error),
    }
    if selection.index == IndexMode::Single {
        let children = index.children();
        let carried = select::chosen(&children, &selection.platforms).unwrap_or_default();
        let subjects = children.iter().filter_map(|child| child.descriptor.attestation_subject());
        left.inside_index = subjects.filter(|subject| carried.contains(subject)).count();
    }
    if left != LeftBehind::of(reference.clone()) {
        walk.left_behind.lock().unwrap_or_else(PoisonError::into_inner).push(left);
    }
}

/// cosign's `.sig` and `.att` tags are lists with one layer per entry.
fn number_in(tag: Option<&Tag>, manifest: &Manifest) -> usize {
    let is_list = tag.is_some_and(|tag| [".sig", ".att"].iter().any(|suffix| tag.as_str().ends_with(suffix)));
    match is_list {
        true => manifest.children().iter().filter(|child| child.role == Role::Layer).count(),
        false => 1,
    }
}

fn report_unknown(walk: &Walk<'_>, reference: &Reference, error: &Error) {
    let text =
        format!("{reference}: it is unknown which companions of the whole index are left behind: {}", error.chain());
    walk.events.report(Event::Warning(text));
}
