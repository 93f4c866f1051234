//! Selects platforms from an index, and decides what becomes of the index.
//!
//! A pure function of manifests. The walk reads and writes them.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::base::error::{Error, Reason, Result};
use crate::oci::{Child, Described, Descriptor, Digest, Kind, Manifest, Platform, Role, has_at_most_values};
use crate::pipeline::lock::{Absent, AbsentReason, IndexMode};

/// Maximum number of JSON values in an index that is rewritten. Real indexes have some thousands. Each value takes a
/// hundred bytes of memory during the rewrite.
const MOST_VALUES: usize = 100_000;

/// An image after selection.
#[derive(Debug)]
pub struct Selected {
    /// The manifest that gets the tag: the unchanged index, a smaller one, or the only remaining child, which the
    /// caller still has to fetch.
    pub root: SelectedRoot,
    /// Children of the index that are left out on purpose.
    pub absent: Vec<Absent>,
    /// Whether the selection differs from the whole index.
    pub changed: bool,
}

#[derive(Debug)]
pub enum SelectedRoot {
    Manifest(Manifest),
    Child(Descriptor),
}

impl SelectedRoot {
    pub fn digest(&self) -> Digest {
        match self {
            SelectedRoot::Manifest(manifest) => manifest.digest(),
            SelectedRoot::Child(child) => child.digest,
        }
    }
}

/// Selects the children of `index` whose platform is one of `platforms`, with their attestations.
///
/// # Errors
/// A platform that the index does not have (the message names those that it has); `single` with several left.
pub fn select(index: &Manifest, platforms: &[Platform], mode: IndexMode) -> Result<Selected> {
    let children = index.children();
    let chosen = chosen(&children, platforms)?;
    let (kept, dropped): (Vec<&Child>, Vec<&Child>) = children.iter().partition(|child| keeps(child, &chosen));
    if mode == IndexMode::Single {
        return single(&kept);
    }
    if dropped.is_empty() {
        return Ok(Selected { root: SelectedRoot::Manifest(index.clone()), absent: Vec::new(), changed: false });
    }
    let (root, absent) = match mode {
        IndexMode::Sparse => (index.clone(), dropped.iter().map(|child| left_out(child)).collect()),
        IndexMode::Trim | IndexMode::Single => (trim(index, &chosen)?, Vec::new()),
    };
    Ok(Selected { root: SelectedRoot::Manifest(root), absent, changed: true })
}

/// Returns the default mode. If one platform is selected, its manifest gets the tag, so that the digest exists
/// upstream. An index that has nothing else stays as it is.
pub fn default_mode(index: &Manifest, platforms: &[Platform]) -> IndexMode {
    let children = index.children();
    let one = |chosen: &BTreeSet<Digest>| chosen.len() == 1 && children.iter().any(|child| !keeps(child, chosen));
    match platforms {
        [_] if chosen(&children, platforms).is_ok_and(|chosen| one(&chosen)) => IndexMode::Single,
        _ => IndexMode::Trim,
    }
}

/// Returns the digests of the selected platform manifests.
///
/// # Errors
/// A platform that the index does not have.
pub fn chosen(children: &[Child], platforms: &[Platform]) -> Result<BTreeSet<Digest>> {
    let offered = || children.iter().filter_map(|child| Some((child.descriptor.digest, offered_platform(child)?)));
    let missing: Vec<String> = platforms
        .iter()
        .filter(|asked| !offered().any(|(_, has)| asked.selects(has)))
        .map(Platform::to_string)
        .collect();
    if !missing.is_empty() {
        return Err(lacks(&missing, offered().map(|(_, has)| has)));
    }
    Ok(platforms.iter().flat_map(|asked| asked.best(offered())).collect())
}

/// Returns the `platforms` that `index` has a manifest for.
pub fn available(index: &Manifest, platforms: &[Platform]) -> Vec<Platform> {
    let children = index.children();
    let has = |asked: &&Platform| children.iter().filter_map(offered_platform).any(|has| asked.selects(has));
    platforms.iter().filter(has).cloned().collect()
}

/// The error for a platform that an image does not have.
pub fn lacks<'a>(missing: &[String], has: impl Iterator<Item = &'a Platform>) -> Error {
    let mut has: Vec<String> = has.map(Platform::to_string).collect();
    has.dedup();
    let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
    let text = format!("it is not available for {}; available platforms: {has}", missing.join(", "));
    Error::input(text).with_reason(Reason::PlatformMissing)
}

/// Returns the platform of a child that is an image of the index, not an attestation or other artifact.
pub fn offered_platform(child: &Child) -> Option<&Platform> {
    let platform = child.descriptor.platform()?;
    (child.role == Role::Manifest && !platform.is_unknown()).then_some(platform)
}

/// Whether the child is selected, or is an attestation of a selected child.
fn keeps(child: &Child, chosen: &BTreeSet<Digest>) -> bool {
    match child.descriptor.attestation_subject() {
        Some(subject) => chosen.contains(&subject),
        None => chosen.contains(&child.descriptor.digest),
    }
}

fn single(kept: &[&Child]) -> Result<Selected> {
    let mut seen = BTreeSet::new();
    let images = kept.iter().filter(|child| child.descriptor.attestation_subject().is_none());
    // An index may name one manifest for several platforms.
    let images: Vec<&&Child> = images.filter(|child| seen.insert(child.descriptor.digest)).collect();
    match images.as_slice() {
        [only] => {
            Ok(Selected { root: SelectedRoot::Child(only.descriptor.clone()), absent: Vec::new(), changed: true })
        }
        several => {
            let names: Vec<String> =
                several.iter().filter_map(|c| c.descriptor.platform()).map(Platform::to_string).collect();
            Err(Error::input(format!(
                "--index single was requested, but {} platforms remain: {}",
                names.len(),
                names.join(", ")
            )))
        }
    }
}

fn left_out(child: &Child) -> Absent {
    let Described { digest, size, .. } = *child.descriptor;
    Absent { digest, size, reason: AbsentReason::PlatformNotSelected }
}

/// Returns the index without the children that were not selected. Every other field keeps its position and value, so
/// the same selection from the same index gives the same bytes anywhere.
fn trim(index: &Manifest, chosen: &BTreeSet<Digest>) -> Result<Manifest> {
    let fail = |e: serde_json::Error| Error::damaged("trimming the index").because(e);
    let bytes = index.bytes()?;
    if !has_at_most_values(&bytes, MOST_VALUES) {
        let text =
            format!("the index has more than {MOST_VALUES} values; --index sparse or single carries it unchanged");
        return Err(Error::damaged(text));
    }
    let mut json: serde_json::Value = serde_json::from_slice(&bytes).map_err(fail)?;
    if let Some(manifests) = json.get_mut("manifests").and_then(serde_json::Value::as_array_mut) {
        // children() and this array are the same list in the same order.
        let mut kept = index.children().into_iter().map(|child| keeps(&child, chosen));
        manifests.retain(|_| kept.next().unwrap_or(false));
    }
    let bytes = Bytes::from(serde_json::to_vec(&json).map_err(fail)?);
    let trimmed = Manifest::parse(bytes, Some(index.media_type()), None);
    trimmed.map_err(|e| Error::damaged("trimming the index").because(e))
}

/// Whether platforms can be selected from the manifest: it is an index that names platforms. A list of referrers or of
/// artifacts names none, and runs nowhere.
pub fn is_selectable(manifest: &Manifest) -> bool {
    manifest.kind() == Kind::Index && manifest.children().iter().any(|child| offered_platform(child).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type;

    fn digest(n: u8) -> Digest {
        Digest::sha256(&[n])
    }

    /// amd64 with an attestation, arm64 with one, and an unknown field.
    fn index() -> Manifest {
        let entry = |n: u8, platform: &str, annotations: String| {
            let (os, arch) = platform.split_once('/').unwrap();
            format!(
                r#"{{"mediaType":"{}","digest":"{}","size":10,"platform":{{"architecture":"{arch}","os":"{os}"}}{annotations}}}"#,
                media_type::OCI_MANIFEST,
                digest(n)
            )
        };
        let attests = |n: u8| {
            let digest = digest(n);
            format!(
                r#","annotations":{{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"{digest}"}}"#
            )
        };
        let json = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{},{},{},{}],"x-own":{{"b":1,"a":2}}}}"#,
            media_type::OCI_INDEX,
            entry(1, "linux/amd64", String::new()),
            entry(2, "linux/arm64", String::new()),
            entry(3, "unknown/unknown", attests(1)),
            entry(4, "unknown/unknown", attests(2)),
        );
        Manifest::parse(Bytes::from(json), None, None).unwrap()
    }

    fn platforms(texts: &[&str]) -> Vec<Platform> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn trimming_keeps_the_attestation_of_what_stays_and_every_other_field() {
        let selected = select(&index(), &platforms(&["linux/arm64"]), IndexMode::Trim).unwrap();
        let SelectedRoot::Manifest(root) = selected.root else { panic!("an index") };
        let left: Vec<Digest> = root.children().iter().map(|child| child.descriptor.digest).collect();
        assert_eq!(left, [digest(2), digest(4)]);
        assert!(std::str::from_utf8(&root.bytes().unwrap()).unwrap().ends_with(r#""x-own":{"b":1,"a":2}}"#));
        assert!(selected.absent.is_empty() && selected.changed);
    }

    #[test]
    fn a_sparse_index_keeps_its_digest_and_records_what_is_missing() {
        let selected = select(&index(), &platforms(&["linux/amd64"]), IndexMode::Sparse).unwrap();
        let SelectedRoot::Manifest(root) = selected.root else { panic!("an index") };
        assert_eq!(root.digest(), index().digest());
        let absent: Vec<Digest> = selected.absent.iter().map(|absent| absent.digest).collect();
        assert_eq!(absent, [digest(2), digest(4)]);
    }

    #[test]
    fn single_needs_exactly_one_platform() {
        let selected = select(&index(), &platforms(&["linux/amd64"]), IndexMode::Single).unwrap();
        assert!(matches!(selected.root, SelectedRoot::Child(child) if child.digest == digest(1)));
        let error = select(&index(), &platforms(&["linux/amd64", "linux/arm64"]), IndexMode::Single).unwrap_err();
        let message = "--index single was requested, but 2 platforms remain: linux/amd64, linux/arm64";
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn one_platform_is_single_by_default_and_several_or_all_are_not() {
        let default = |texts: &[&str]| default_mode(&index(), &platforms(texts));
        assert_eq!(default(&["linux/amd64"]), IndexMode::Single);
        assert_eq!(default(&["linux/amd64", "linux/arm64"]), IndexMode::Trim);
        let selected = select(&index(), &platforms(&["linux/amd64"]), IndexMode::Trim).unwrap();
        let SelectedRoot::Manifest(trimmed) = selected.root else { panic!("an index") };
        // Nothing is left out of an index that has only this platform.
        assert_eq!(default_mode(&trimmed, &platforms(&["linux/amd64"])), IndexMode::Trim);
        assert_eq!(default(&["linux/s390x"]), IndexMode::Trim);
    }

    #[test]
    fn selecting_everything_changes_nothing() {
        let all = platforms(&["linux/amd64", "linux/arm64"]);
        for mode in [IndexMode::Trim, IndexMode::Sparse] {
            let selected = select(&index(), &all, mode).unwrap();
            assert!(!selected.changed);
            assert!(matches!(selected.root, SelectedRoot::Manifest(root) if root.digest() == index().digest()));
        }
    }

    #[test]
    fn a_platform_it_lacks_is_an_error_that_names_what_it_has() {
        let error = select(&index(), &platforms(&["linux/amd64", "linux/s390x"]), IndexMode::Trim).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it is not available for linux/s390x; available platforms: linux/amd64, linux/arm64"
        );
    }
}
