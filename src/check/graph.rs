//! Images against what is there: every child present or left out on purpose, and one story in every file.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Problem, ProblemKind};
use crate::bundle::{BundleJson, INDEX_JSON};
use crate::oci::{Descriptor, Digest, Manifest, Role};
use crate::transport::layout::{IMAGE_NAME, Layout, REF_NAME};

/// Which files each image needs.
#[derive(Default)]
pub struct Reach {
    pub images: Vec<(String, BTreeSet<String>)>,
}

/// Follows every image of the lock to its last blob.
pub fn check(layout: &Layout, bundle: &BundleJson, problems: &mut Vec<Problem>) -> Reach {
    let mut reach = Reach::default();
    let mut complete = true;
    for image in &bundle.lock.images {
        let absent = image.absent.iter().map(|absent| absent.digest).chain(bundle.assumed.iter().copied());
        let mut follow = Follow::new(layout, absent.collect());
        let attached = image.attached.iter().map(|attached| attached.descriptor());
        follow.run(std::iter::once(image.descriptor()).chain(attached).collect());
        complete &= follow.complete;
        problems.append(&mut follow.problems);
        reach.images.push((image.name(), follow.paths));
    }
    if complete {
        unreachable(bundle, &reach, problems);
    }
    index_agrees(layout, bundle, problems);
    reach
}

/// Which files the images need that `index.json` names: all there is to go by when `bundle.json` cannot be read. What is
/// missing is no problem here, as nobody says whether it was left out on purpose.
pub fn by_index(layout: &Layout) -> Reach {
    let listed = layout.index().unwrap_or_default();
    let named = listed.iter().filter_map(|d| Some((d.annotations.get(IMAGE_NAME)?.clone(), d)));
    let follow = |(name, descriptor): (String, &Descriptor)| {
        let mut follow = Follow::new(layout, HashSet::new());
        follow.run(vec![descriptor.clone()]);
        (name, follow.paths)
    };
    Reach { images: named.map(follow).collect() }
}

/// One image on its way down.
struct Follow<'a> {
    layout: &'a Layout,
    absent: HashSet<Digest>,
    paths: BTreeSet<String>,
    problems: Vec<Problem>,
    /// Whether every manifest could be read.
    complete: bool,
}

impl<'a> Follow<'a> {
    /// `absent` is what the image may lack.
    fn new(layout: &'a Layout, absent: HashSet<Digest>) -> Follow<'a> {
        Follow { layout, absent, paths: BTreeSet::new(), problems: Vec::new(), complete: true }
    }

    fn run(&mut self, mut ahead: Vec<Descriptor>) {
        let mut seen = HashSet::new();
        // Each digest once: a cycle, were there one, would end too.
        while let Some(descriptor) = ahead.pop() {
            if seen.insert(descriptor.digest) {
                ahead.extend(self.manifest(&descriptor));
            }
        }
    }

    /// Notes one manifest and its blobs; gives its child manifests.
    fn manifest(&mut self, descriptor: &Descriptor) -> Vec<Descriptor> {
        if !self.visit(descriptor) {
            self.complete &= self.absent.contains(&descriptor.digest);
            return Vec::new();
        }
        let path = descriptor.digest.blob_path();
        let manifest: Manifest = match self.layout.manifest_by_digest(&descriptor.digest, Some(&descriptor.media_type))
        {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Vec::new(),
            Err(error) => {
                self.complete = false;
                let found = std::error::Error::source(&error).map_or_else(|| error.chain(), ToString::to_string);
                // A wrong digest is found, and named better, where all files are hashed; this is for what passes there.
                if !found.starts_with("wrong digest") {
                    self.problems.push(Problem::new(&path, ProblemKind::Malformed).found(found));
                }
                return Vec::new();
            }
        };
        let mut manifests = Vec::new();
        for child in manifest.children() {
            if child.role == Role::Manifest {
                manifests.push(child.descriptor);
            } else {
                self.visit(&child.descriptor);
            }
        }
        manifests
    }

    /// Notes that the image needs this; `false` when it is not there.
    fn visit(&mut self, descriptor: &Descriptor) -> bool {
        let path = descriptor.digest.blob_path();
        let there = match self.layout.size_of(&path) {
            None if self.absent.contains(&descriptor.digest) => return false,
            None => {
                // Said as where files are checked, so that one missing file is one problem.
                let expected = format!("{} bytes", descriptor.size);
                self.problems.push(Problem::new(&path, ProblemKind::Missing).expected(expected));
                false
            }
            Some(size) if size != descriptor.size => {
                let problem =
                    Problem::new(&path, ProblemKind::WrongSize).expected(format!("{} bytes", descriptor.size));
                self.problems.push(problem.found(format!("{size} bytes")));
                true
            }
            Some(_) => true,
        };
        self.paths.insert(path);
        there
    }
}

/// Content that no image needs: declared, but smuggled in.
fn unreachable(bundle: &BundleJson, reach: &Reach, problems: &mut Vec<Problem>) {
    let needed: BTreeSet<&str> = reach.images.iter().flat_map(|(_, paths)| paths.iter().map(String::as_str)).collect();
    for file in bundle.files.iter().filter(|file| file.path.starts_with("blobs/")) {
        if !needed.contains(file.path.as_str()) {
            problems.push(Problem::new(&file.path, ProblemKind::Undeclared).found("no image of the lock needs it"));
        }
    }
    for file in bundle.files.iter().filter(|file| !file.path.starts_with("blobs/")) {
        if !matches!(file.path.as_str(), "oci-layout" | "index.json" | "manifest.json") {
            problems.push(Problem::new(&file.path, ProblemKind::Undeclared).found("it is no part of the format"));
        }
    }
}

/// `index.json` names exactly the images of the lock.
fn index_agrees(layout: &Layout, bundle: &BundleJson, problems: &mut Vec<Problem>) {
    let listed = match layout.index() {
        Ok(listed) => listed,
        // Missing and damaged are found where files are checked.
        Err(_) => {
            if layout.size_of(INDEX_JSON).is_some() {
                problems.push(Problem::new(INDEX_JSON, ProblemKind::Malformed).found("it is not an image index"));
            }
            return;
        }
    };
    let named = |d: &Descriptor, key: &str| d.annotations.get(key).map(|name| (name.clone(), d.digest));
    let mut expected: BTreeMap<String, Digest> = BTreeMap::new();
    for image in &bundle.lock.images {
        expected.insert(image.name(), image.digest);
        for attached in &image.attached {
            if let Some(tag) = &attached.tag {
                expected.insert(image.reference.repository.with_tag(tag.clone()).to_string(), attached.digest);
            }
        }
    }
    for key in [REF_NAME, IMAGE_NAME] {
        let mut seen: BTreeMap<&str, Digest> = BTreeMap::new();
        for descriptor in listed {
            let Some(name) = descriptor.annotations.get(key) else { continue };
            // Readers differ in which of the two they take.
            if seen.insert(name, descriptor.digest).is_some_and(|former| former != descriptor.digest) {
                let found = format!("{name} is named twice, with different digests ({key})");
                problems.push(Problem::new(INDEX_JSON, ProblemKind::Disagreement).found(found));
            }
        }
        let found: BTreeMap<String, Digest> = listed.iter().filter_map(|d| named(d, key)).collect();
        let differs = expected.iter().find(|(name, digest)| found.get(*name) != Some(digest));
        let extra = found.iter().find(|(name, _)| !expected.contains_key(*name));
        if let Some((name, digest)) = differs {
            let found = found.get(name).map_or_else(|| "nothing".to_owned(), Digest::to_string);
            let problem = Problem::new(INDEX_JSON, ProblemKind::Disagreement).expected(format!("{name} is {digest}"));
            problems.push(problem.found(format!("{found} ({key})")));
        }
        if let Some((name, digest)) = extra {
            let found = format!("{name} is {digest}, which the lock does not name ({key})");
            problems.push(Problem::new(INDEX_JSON, ProblemKind::Disagreement).found(found));
        }
    }
}
