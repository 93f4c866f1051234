//! Checks images against the files: every child exists or was left out on purpose, and nothing else exists.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::manifests::ManifestReader;
use super::{Problem, ProblemKind, Problems};
use crate::bundle::{Assumed, AssumedKind, BUNDLE_JSON, BundleJson, problem_of_order};
use crate::files::{IMAGE_NAME, Layout};
use crate::oci::{Described, Descriptor, Digest, Kind, Manifest, ManifestError, Platform, Role, media_type};
use crate::pipeline::lock::{AbsentReason, Attached, LockedImage};
use crate::pipeline::select::offered_platform;
use crate::pipeline::walk::{MAX_CONFIG, platform_of_config};

/// The most visits of a manifest or blob, all images together: enough for 100,000 images of forty each.
const MOST_VISITS: usize = 4_000_000;

/// Which files each image needs.
#[derive(Default)]
pub struct NeededFiles {
    /// Images share one allocation for the same path.
    pub images: Vec<(String, BTreeSet<Arc<str>>)>,
    /// Names of images that need content of the target, as far as the manifests show it.
    pub partial: BTreeSet<String>,
    /// Whether the images refer to so many blobs that not all were followed.
    pub too_much: bool,
    /// Whether every manifest that must be in the bundle could be read.
    pub complete: bool,
}

/// Follows every image of the lock to its last blob.
pub fn check(layout: &Layout, bundle: &BundleJson, problems: &mut Problems) -> NeededFiles {
    let mut reach = NeededFiles::default();
    let assumed = assumed(bundle, problems);
    let mut walk = Walk::new(layout, assumed);
    reach.complete = true;
    for image in &bundle.lock.images {
        if let Some(pinned) = image.reference.digest.filter(|pinned| *pinned != image.digest) {
            let problem = Problem::new(BUNDLE_JSON, ProblemKind::Disagreement).expected(&image.reference);
            problems.push(problem.found(format!("{} instead of {pinned}", image.digest)));
        }
        platforms_agree(layout, image, problems);
        let mut follow = Follow::new(&mut walk, LeftOut::of(image));
        follow.run(image.descriptor());
        if let Some(fault) = image.doubled_tag() {
            let found = format!("{}: {fault}", image.name());
            follow.problems.push(Problem::new(BUNDLE_JSON, ProblemKind::Disagreement).found(found));
        }
        for attached in image.companions() {
            follow.companion(image, attached);
        }
        follow.subjects(image);
        reach.complete &= follow.complete;
        problems.extend(follow.problems);
        if !follow.whole {
            reach.partial.insert(image.name());
        }
        reach.images.push((image.name(), follow.paths));
        if walk.visits > MOST_VISITS {
            (reach.too_much, reach.complete) = (true, false);
            let found = format!("its images refer to more than {MOST_VISITS} blobs; the others were not followed");
            problems.push(Problem::new(BUNDLE_JSON, ProblemKind::Malformed).found(found));
            return reach;
        }
    }
    if reach.complete {
        unreachable(bundle, &reach, problems);
        problems.extend(order(layout, bundle, &walk.manifests));
    }
    reach
}

/// Returns the files needed by the images that `index.json` names, for a bundle whose `bundle.json` cannot be read. A
/// missing file is not reported: nothing shows whether it was left out on purpose.
pub fn by_index(layout: &Layout) -> NeededFiles {
    let listed = layout.index().unwrap_or_default();
    let mut walk = Walk::new(layout, HashMap::new());
    let mut reach = NeededFiles::default();
    for descriptor in listed {
        let Some(name) = descriptor.annotations().get(IMAGE_NAME) else { continue };
        let mut follow = Follow::new(&mut walk, LeftOut::default());
        follow.run(descriptor.clone());
        reach.images.push((name.clone(), follow.paths));
        reach.too_much = walk.visits > MOST_VISITS;
        if reach.too_much {
            break;
        }
    }
    reach
}

/// Returns what an increment expects at the target. Content listed twice, or contained in the bundle, is a problem.
fn assumed(bundle: &BundleJson, problems: &mut Problems) -> HashMap<Digest, Assumed> {
    let mut contradiction =
        |found: String| problems.push(Problem::new(BUNDLE_JSON, ProblemKind::Disagreement).found(found));
    if bundle.is_increment() && bundle.parents.is_empty() {
        contradiction("it expects content at the target but has no parent".to_owned());
    }
    let mut assumed = HashMap::new();
    for one in &bundle.assumed {
        if assumed.insert(one.digest, *one).is_some() {
            contradiction(format!("{} is listed twice as expected at the target", one.digest));
        }
    }
    for digest in bundle.files.iter().filter_map(|file| Digest::of_blob_path(&file.path)) {
        if assumed.remove(&digest).is_some() {
            contradiction(format!("{digest} is expected at the target and also contained in the bundle"));
        }
    }
    assumed
}

/// What an image may lack. An entry of the lock counts only where it can be true: otherwise a bundle could claim that any
/// layer was left out on purpose and still be complete.
#[derive(Default)]
struct LeftOut {
    manifests: HashSet<Digest>,
    foreign_layers: HashSet<Digest>,
}

impl LeftOut {
    fn of(image: &LockedImage) -> LeftOut {
        let because = |reason: AbsentReason| {
            image.absent.iter().filter(move |absent| absent.reason == reason).map(|absent| absent.digest)
        };
        LeftOut {
            manifests: because(AbsentReason::PlatformNotSelected).chain(because(AbsentReason::NotFound)).collect(),
            foreign_layers: because(AbsentReason::ForeignLayer).collect(),
        }
    }

    /// `role` is what the content is to its parent; `None` for the image itself and for a companion.
    fn covers(&self, digest: &Digest, role: Option<Role>) -> bool {
        match role {
            Some(Role::Manifest) => self.manifests.contains(digest),
            Some(Role::ForeignLayer) => self.foreign_layers.contains(digest),
            Some(Role::Config | Role::Layer) | None => false,
        }
    }
}

/// State shared by the walks of all images.
struct Walk<'a> {
    layout: &'a Layout,
    /// Content expected at the target.
    assumed: HashMap<Digest, Assumed>,
    names: HashSet<Arc<str>>,
    visits: usize,
    /// Every manifest that was read.
    manifests: HashSet<Digest>,
}

impl<'a> Walk<'a> {
    fn new(layout: &'a Layout, assumed: HashMap<Digest, Assumed>) -> Walk<'a> {
        Walk { layout, assumed, names: HashSet::new(), visits: 0, manifests: HashSet::new() }
    }

    fn assumes(&self, descriptor: &Descriptor, role: Option<Role>) -> bool {
        let kind = match role {
            None | Some(Role::Manifest) => AssumedKind::Manifest,
            Some(Role::Config | Role::Layer | Role::ForeignLayer) => AssumedKind::Blob,
        };
        let Described { digest, size, .. } = **descriptor;
        let is_size = |assumed: u64| assumed == size || role == Some(Role::Manifest);
        self.assumed.get(&digest).is_some_and(|assumed| assumed.kind == kind && is_size(assumed.size))
    }

    fn name(&mut self, path: String) -> Arc<str> {
        if let Some(known) = self.names.get(path.as_str()) {
            return known.clone();
        }
        let name: Arc<str> = path.into();
        self.names.insert(name.clone());
        name
    }
}

/// The walk of one image.
struct Follow<'a, 'w> {
    walk: &'w mut Walk<'a>,
    left_out: LeftOut,
    paths: BTreeSet<Arc<str>>,
    problems: Vec<Problem>,
    /// Whether every manifest that must be in the bundle could be read.
    complete: bool,
    /// Whether nothing is expected at the target.
    whole: bool,
    /// Every manifest met, with its subject. The subject is `None` if the manifest has none or could not be read.
    met: HashMap<Digest, Option<Digest>>,
    /// Whether a manifest of the image could not be read.
    unread: bool,
}

impl<'a, 'w> Follow<'a, 'w> {
    fn new(walk: &'w mut Walk<'a>, left_out: LeftOut) -> Follow<'a, 'w> {
        let (paths, problems, met) = Default::default();
        Follow { walk, left_out, paths, problems, complete: true, whole: true, met, unread: false }
    }

    /// Follows a companion of the image, and reports a problem if it may not be one.
    fn companion(&mut self, image: &LockedImage, attached: &Attached) {
        let in_tree = self.met.contains_key(&attached.subject);
        self.run(attached.descriptor());
        let declared = self.met.get(&attached.digest).copied().flatten();
        // An increment may leave the subject's parents to the target. The import, which reads them there, then reports the
        // problem.
        let fault = if self.unread { attached.tag_problem() } else { attached.fault(in_tree, declared) };
        if let Some(fault) = fault {
            let found = format!("{}: {fault}", image.name());
            self.problems.push(Problem::new(BUNDLE_JSON, ProblemKind::Disagreement).found(found));
        }
    }

    /// Reports manifests below the image or a companion whose subject is not part of the image.
    fn subjects(&mut self, image: &LockedImage) {
        // The import reads all of them, and then reports the problem.
        if self.unread {
            return;
        }
        // The companions themselves were checked before.
        let companions: HashSet<Digest> = image.companions().iter().map(|own| own.digest).collect();
        let is_own = |subject: &Digest| self.met.contains_key(subject) || self.left_out.manifests.contains(subject);
        let named = self.met.iter().filter_map(|(digest, subject)| Some((*digest, (*subject)?)));
        let foreign = named.filter(|(digest, subject)| !companions.contains(digest) && !is_own(subject));
        let faults = foreign.filter_map(|(digest, subject)| image.subject_problem(digest, subject));
        let Some(fault) = faults.min() else { return };
        let found = format!("{}: {fault}", image.name());
        self.problems.push(Problem::new(BUNDLE_JSON, ProblemKind::Disagreement).found(found));
    }

    /// Follows a root manifest: the image's own, or a companion.
    fn run(&mut self, root: Descriptor) {
        let mut ahead: Vec<(Descriptor, Option<Role>)> = vec![(root, None)];
        // Each digest is followed once, so a cycle would end too.
        while let Some((descriptor, role)) = ahead.pop().filter(|_| self.walk.visits <= MOST_VISITS) {
            self.walk.visits += 1;
            if let Entry::Vacant(entry) = self.met.entry(descriptor.digest) {
                entry.insert(None);
                let children = self.manifest(&descriptor, role);
                ahead.extend(children.into_iter().map(|child| (child, Some(Role::Manifest))));
            }
        }
    }

    /// Visits one manifest and its blobs. Returns its child manifests.
    fn manifest(&mut self, descriptor: &Descriptor, role: Option<Role>) -> Vec<Descriptor> {
        if !self.visit(descriptor, role) {
            let elsewhere = self.walk.assumed.contains_key(&descriptor.digest);
            let left_out = self.left_out.covers(&descriptor.digest, role);
            self.complete &= elsewhere || left_out;
            self.unread |= !left_out;
            if left_out {
                self.met.remove(&descriptor.digest);
            }
            return Vec::new();
        }
        let path = descriptor.digest.blob_path();
        let manifest: Manifest =
            match self.walk.layout.manifest_by_digest(&descriptor.digest, Some(&descriptor.media_type)) {
                Ok(Some(manifest)) => manifest,
                Ok(None) => return Vec::new(),
                Err(error) => {
                    (self.complete, self.unread) = (false, true);
                    let found = std::error::Error::source(&error).map_or_else(|| error.chain(), ToString::to_string);
                    // The check of files reports a wrong digest more precisely. This is for manifests with the right
                    // digest.
                    if !matches!(error.find(), Some(ManifestError::Digest { .. })) {
                        self.problems.push(Problem::new(&path, ProblemKind::Malformed).found(found));
                    }
                    return Vec::new();
                }
            };
        self.walk.manifests.insert(descriptor.digest);
        self.met.insert(descriptor.digest, manifest.subject().map(|subject| subject.digest));
        let (mut manifests, children) = (Vec::new(), manifest.children());
        self.walk.visits += children.len();
        for child in children {
            if child.role == Role::Manifest {
                manifests.push(child.descriptor);
            } else {
                self.visit(&child.descriptor, Some(child.role));
            }
        }
        manifests
    }

    /// Notes that the image needs this content. Returns `false` if it is not in the bundle.
    fn visit(&mut self, descriptor: &Descriptor, role: Option<Role>) -> bool {
        let path = descriptor.digest.blob_path();
        if self.left_out.covers(&descriptor.digest, role) {
            // The file can exist because another image has it.
            return false;
        }
        let there = match self.walk.layout.size_of(&path) {
            None if self.walk.assumes(descriptor, role) => {
                self.whole = false;
                return false;
            }
            None => {
                // Same text as in the check of files, so that one missing file is one problem.
                let expected = format!("{} bytes", descriptor.size);
                self.problems.push(Problem::new(&path, ProblemKind::Missing).expected(expected));
                false
            }
            // An index may state a wrong size for a manifest. The digest proves the manifest.
            Some(size) if size != descriptor.size && role != Some(Role::Manifest) => {
                let problem =
                    Problem::new(&path, ProblemKind::WrongSize).expected(format!("{} bytes", descriptor.size));
                self.problems.push(problem.found(format!("{size} bytes")));
                true
            }
            Some(_) => true,
        };
        self.paths.insert(self.walk.name(path));
        there
    }
}

/// Checks that an image has the platforms that the lock lists: an allowlist is compared with the lock.
fn platforms_agree(layout: &Layout, image: &LockedImage, problems: &mut Problems) {
    let carried = match platforms(layout, image) {
        Ok(Some(carried)) => carried,
        // Other checks report manifests that cannot be read.
        Ok(None) => return,
        Err(problem) => return problems.push(problem),
    };
    if carried != image.platforms {
        let list = |platforms: &[Platform]| platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ");
        let what = format!("{} with {:?}", image.name(), list(&carried));
        let problem = Problem::new(BUNDLE_JSON, ProblemKind::Disagreement).expected(what);
        problems.push(problem.found(format!("{:?} in the lock", list(&image.platforms))));
    }
}

fn platforms(layout: &Layout, image: &LockedImage) -> Result<Option<Vec<Platform>>, Problem> {
    let Ok(Some(root)) = layout.manifest_by_digest(&image.digest, Some(&image.media_type)) else { return Ok(None) };
    if root.kind() == Kind::Index {
        let absent = |digest: &Digest| image.absent.iter().any(|absent| absent.digest == *digest);
        let children = root.children();
        let carried = children.iter().filter(|child| !absent(&child.descriptor.digest));
        return Ok(Some(carried.filter_map(offered_platform).cloned().collect()));
    }
    let Some(config) = root.config().filter(|config| media_type::is_image_config(&config.media_type)) else {
        return Ok(Some(Vec::new()));
    };
    let path = config.digest.blob_path();
    let malformed = |found: String| Problem::new(&path, ProblemKind::Malformed).found(found);
    if config.size > MAX_CONFIG {
        return Err(malformed(format!("the config of an image has {} bytes, more than {MAX_CONFIG}", config.size)));
    }
    let Ok(Some(bytes)) = layout.read(&path, MAX_CONFIG) else { return Ok(None) };
    // The check of files reports a damaged config.
    if !config.digest.is_of(&bytes) {
        return Ok(None);
    }
    let platform = platform_of_config(&bytes).map_err(|error| malformed(error.chain()))?;
    Ok(Some(platform.into_iter().collect()))
}

/// Reports blobs that are not in the order of the format.
fn order(layout: &Layout, bundle: &BundleJson, manifests: &HashSet<Digest>) -> Option<Problem> {
    let all = ManifestReader::new(layout);
    let found = problem_of_order(bundle, |digest| manifests.contains(digest), &all.find())?;
    // Other checks report a manifest that can no longer be read.
    all.is_sound().then(|| Problem::new(BUNDLE_JSON, ProblemKind::Disagreement).found(found))
}

/// Reports blobs that are declared and that no image needs.
fn unreachable(bundle: &BundleJson, reach: &NeededFiles, problems: &mut Problems) {
    let needed: BTreeSet<&str> = reach.images.iter().flat_map(|(_, paths)| paths.iter().map(|path| &**path)).collect();
    for file in bundle.files.iter().filter(|file| file.path.starts_with("blobs/")) {
        if !needed.contains(file.path.as_str()) {
            problems.push(Problem::new(&file.path, ProblemKind::Undeclared).found("no image of the lock needs it"));
        }
    }
}
