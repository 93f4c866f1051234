//! `index.json` as names: which tag of which repository means what. A value; files are the writer's business.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::naming::host_component;
use crate::oci::{Descriptor, Digest, Reference, Repository, Tag, has_at_most_values};
use crate::transport::layout::{IMAGE_NAME, REF_NAME};

/// The most values in an index that is read: 100,000 images of twenty each.
const MOST_VALUES: usize = 2_000_000;

/// What clients call Docker Hub when they ask a mirror.
const HUB_ALIASES: [&str; 2] = ["registry-1.docker.io", "index.docker.io"];

/// The content of `index.json`, and what is derived from it.
#[derive(Clone)]
pub struct Names {
    /// Everything in the index but its manifests, kept as it was.
    rest: Map<String, Value>,
    entries: Vec<Entry>,
    repositories: BTreeMap<Repository, BTreeMap<Tag, Descriptor>>,
    /// The repositories that answer to a spelling, by spelling.
    spellings: HashMap<String, BTreeSet<Repository>>,
}

/// One descriptor of the index.
#[derive(Clone)]
struct Entry {
    view: Descriptor,
    /// As it stands there: fields that nobody here knows are kept.
    raw: Value,
    repository: Option<Repository>,
    tag: Option<Tag>,
}

impl Names {
    /// `layout` is the layout's path: its last component names what has only a tag.
    ///
    /// # Errors
    /// Not an index.
    pub fn parse(index: &[u8], layout: &Path) -> Result<Names> {
        let fail = || format!("reading {}", layout.join("index.json").display());
        if !has_at_most_values(index, MOST_VALUES) {
            return Err(Error::damaged(format!("{}: it has more entries than any index", fail())));
        }
        let mut rest: Map<String, Value> =
            serde_json::from_slice(index).map_err(|e| Error::damaged(fail()).because(e))?;
        let Some(Value::Array(manifests)) = rest.remove("manifests") else {
            return Err(Error::damaged(format!("{}: it has no list of manifests", fail())));
        };
        let fallback = fallback_repository(layout);
        let entry = |raw: Value| {
            let view: Descriptor =
                serde_json::from_value(raw.clone()).map_err(|e| Error::damaged(fail()).because(e))?;
            let (repository, tag) = name_of(&view, fallback.as_ref());
            Ok(Entry { view, raw, repository, tag })
        };
        let entries = manifests.into_iter().map(entry).collect::<Result<Vec<Entry>>>()?;
        let mut names = Names { rest, entries, repositories: BTreeMap::new(), spellings: HashMap::new() };
        names.derive();
        Ok(names)
    }

    /// Gives companions the tags that the lock in `bundle_json` says; `index.json` has them without names, for the sake of
    /// programs that take everything with a name for an image. Other tags than those of companions are not believed.
    ///
    /// # Errors
    /// It is not a `bundle.json`.
    pub fn name_companions(&mut self, bundle_json: &[u8]) -> serde_json::Result<()> {
        let sealed: Sealed = serde_json::from_slice(bundle_json)?;
        let mut at: HashMap<Digest, usize> = HashMap::new();
        for (number, entry) in self.entries.iter().enumerate() {
            at.entry(entry.view.digest).or_insert(number);
        }
        for image in sealed.lock.images {
            for Companion { digest, subject, tag } in image.attached.unwrap_or_default() {
                let Some(tag) = tag.filter(|tag| tag.companion_subject() == Some(subject)) else { continue };
                let Some(found) = at.get(&digest).and_then(|at| self.entries.get(*at)) else { continue };
                self.entries.push(Entry::named(&found.view.clone(), &image.reference.repository, Some(&tag)));
            }
        }
        // With a name it needs no other entry.
        let named: HashSet<Digest> =
            self.entries.iter().filter(|entry| entry.tag.is_some()).map(|entry| entry.view.digest).collect();
        self.entries.retain(|entry| entry.repository.is_some() || !named.contains(&entry.view.digest));
        self.derive();
        Ok(())
    }

    /// The index of a layout without images.
    pub fn empty() -> Names {
        let rest = [("schemaVersion".to_owned(), json!(2))].into_iter().collect();
        Names { rest, entries: vec![], repositories: BTreeMap::new(), spellings: HashMap::new() }
    }

    /// The file's content.
    pub fn to_json(&self) -> Vec<u8> {
        let mut index = self.rest.clone();
        let manifests = self.entries.iter().map(|entry| entry.raw.clone()).collect();
        index.insert("manifests".to_owned(), Value::Array(manifests));
        format!("{:#}\n", Value::Object(index)).into_bytes()
    }

    fn derive(&mut self) {
        self.repositories.clear();
        self.spellings.clear();
        for entry in &self.entries {
            let Some(repository) = &entry.repository else { continue };
            let tags = self.repositories.entry(repository.clone()).or_default();
            if let Some(tag) = &entry.tag {
                // Of two entries with one name the first counts, as for whoever reads the layout otherwise.
                tags.entry(tag.clone()).or_insert_with(|| entry.view.clone());
            }
        }
        for repository in self.repositories.keys() {
            let scoped = format!("{}/{}", host_component(repository.registry()), repository.path());
            for spelling in [repository.to_string(), scoped, repository.path().to_owned()] {
                self.spellings.entry(spelling).or_default().insert(repository.clone());
            }
        }
    }

    /// Which repositories a spelling means; more than one where hosts are left out.
    fn meant(&self, name: &str) -> Vec<&Repository> {
        if let Some((known, _)) = name.parse().ok().and_then(|r: Repository| self.repositories.get_key_value(&r)) {
            return vec![known];
        }
        self.spellings.get(name).into_iter().flatten().collect()
    }

    /// The one repository that `name` means where the client says of which registry it is, as containerd does of a mirror
    /// (`?ns=`). `name` may begin with that registry.
    fn of_registry(&self, name: &str, registry: &str) -> Option<&Repository> {
        let registry = if HUB_ALIASES.contains(&registry) { "docker.io" } else { registry };
        let host = host_component(registry);
        let below = |host: &str| name.strip_prefix(host).and_then(|rest| rest.strip_prefix('/'));
        let paths = [Some(name), below(registry).or_else(|| below(&host))];
        // Compared by registry, not read as a name: `org` and `app` must not become docker.io's `org/app`.
        let known = |path: &str, same: &dyn Fn(&str) -> bool| {
            let mut all = self.spellings.get(path).into_iter().flatten();
            all.find(|known| known.path() == path && same(known.registry()))
        };
        let exact = |path: &str| known(path, &|own| own == registry);
        let spelled = |path: &str| known(path, &|own| host_component(own) == host);
        paths.into_iter().flatten().find_map(|path| exact(path).or_else(|| spelled(path)))
    }

    /// Whether a listed manifest counts as this repository's: it is listed there, or has no name, as referrers in bundles.
    pub fn lists(&self, name: &str, registry: Option<&str>, digest: &Digest) -> bool {
        let meant = self.named(name, registry);
        let counts = |entry: &Entry| entry.repository.as_ref().is_none_or(|own| meant.contains(&own));
        self.entries.iter().any(|entry| entry.view.digest == *digest && counts(entry))
    }

    fn named(&self, name: &str, registry: Option<&str>) -> Vec<&Repository> {
        match registry {
            Some(registry) => self.of_registry(name, registry).into_iter().collect(),
            None => self.meant(name),
        }
    }

    /// The tags under a spelling of a repository, of `registry` alone if one is given; `None` if there is no such repository.
    pub fn tags(&self, name: &str, registry: Option<&str>) -> Option<BTreeMap<Tag, Descriptor>> {
        let meant = self.named(name, registry);
        let mut tags: BTreeMap<Tag, Vec<&Descriptor>> = BTreeMap::new();
        for (tag, view) in meant.iter().filter_map(|repository| self.repositories.get(*repository)).flatten() {
            tags.entry(tag.clone()).or_default().push(view);
        }
        let agreed = |(tag, views): (Tag, Vec<&Descriptor>)| {
            let first = (*views.first()?).clone();
            views.iter().all(|view| view.digest == first.digest).then_some((tag, first))
        };
        (!meant.is_empty()).then(|| tags.into_iter().filter_map(agreed).collect())
    }

    /// Every repository once, under the shortest spelling that means it alone.
    pub fn catalog(&self) -> BTreeSet<String> {
        let shortest = |repository: &Repository| {
            let path = repository.path();
            let scoped = format!("{}/{path}", host_component(repository.registry()));
            if self.meant(path) == [repository] { path.to_owned() } else { scoped }
        };
        self.repositories.keys().map(shortest).collect()
    }

    /// What a pushed repository is recorded as: the one its spelling means, else as Docker reads it.
    pub fn recorded(&self, name: &str) -> Option<Repository> {
        match self.meant(name).as_slice() {
            [only] => Some((*only).clone()),
            _ => name.parse().ok(),
        }
    }

    /// What all other repositories have.
    pub fn without(&self, repository: &Repository) -> Names {
        let mut names = self.clone();
        names.entries.retain(|entry| entry.repository.as_ref().is_some_and(|own| own != repository));
        names.derive();
        names
    }

    /// The descriptors of the index.
    pub fn listed(&self) -> impl Iterator<Item = &Descriptor> {
        self.entries.iter().map(|entry| &entry.view)
    }

    /// The media type the index gives for a digest, if it lists it.
    pub fn media_type(&self, digest: &Digest) -> Option<String> {
        self.listed().find(|view| view.digest == *digest).map(|view| view.media_type.clone())
    }

    /// Lists a manifest under a tag; one that had the tag before stays, by its digest.
    pub fn put_tag(&mut self, repository: &Repository, tag: &Tag, view: &Descriptor) {
        self.remove_tag(repository, tag);
        let own = |entry: &Entry| entry.view.digest == view.digest && entry.tag.is_none();
        self.entries.retain(|entry| !(own(entry) && (entry.repository.as_ref() == Some(repository))));
        self.push(view, Some(repository), Some(tag));
    }

    /// Lists a manifest that has no tag: by its digest, or, if it speaks of another one, without a name.
    pub fn put_untagged(&mut self, repository: &Repository, view: &Descriptor, speaks_of_another: bool) {
        let here = |entry: &Entry| entry.repository.as_ref() == Some(repository) || entry.repository.is_none();
        if !self.entries.iter().any(|entry| entry.view.digest == view.digest && here(entry)) {
            self.push(view, Some(repository).filter(|_| !speaks_of_another), None);
        }
    }

    /// Children of an index are not listed themselves.
    pub fn unlist_children(&mut self, repository: &Repository, children: &[Digest]) {
        let child = |entry: &Entry| {
            entry.tag.is_none()
                && entry.repository.as_ref() == Some(repository)
                && children.contains(&entry.view.digest)
        };
        self.entries.retain(|entry| !child(entry));
        self.derive();
    }

    /// Takes a tag away; its manifest stays listed by digest. `false` if there is none.
    pub fn remove_tag(&mut self, repository: &Repository, tag: &Tag) -> bool {
        let named = |entry: &Entry| entry.repository.as_ref() == Some(repository) && entry.tag.as_ref() == Some(tag);
        let Some(old) = self.entries.iter().find(|entry| named(entry)).map(|entry| entry.view.clone()) else {
            return false;
        };
        self.entries.retain(|entry| !named(entry));
        self.put_untagged(repository, &old, false);
        self.derive();
        true
    }

    /// Takes a manifest out of a repository, all its tags with it. `false` if it was not listed there.
    pub fn remove_digest(&mut self, repository: &Repository, digest: &Digest) -> bool {
        let before = self.entries.len();
        let here = |entry: &Entry| entry.repository.as_ref().is_none_or(|own| own == repository);
        self.entries.retain(|entry| !(entry.view.digest == *digest && here(entry)));
        self.derive();
        self.entries.len() < before
    }

    fn push(&mut self, view: &Descriptor, repository: Option<&Repository>, tag: Option<&Tag>) {
        let entry = match repository {
            Some(repository) => Entry::named(view, repository, tag),
            None => Entry { view: without_annotations(view), raw: plain(view), repository: None, tag: None },
        };
        self.entries.push(entry);
        self.derive();
    }
}

impl Entry {
    /// Under its full name.
    fn named(view: &Descriptor, repository: &Repository, tag: Option<&Tag>) -> Entry {
        let name = match tag {
            Some(tag) => repository.with_tag(tag.clone()),
            None => repository.with_digest(view.digest),
        };
        let mut raw = plain(view);
        raw["annotations"] = json!({REF_NAME: name.to_string(), IMAGE_NAME: name.to_string()});
        Entry { view: without_annotations(view), raw, repository: Some(repository.clone()), tag: tag.cloned() }
    }
}

fn plain(view: &Descriptor) -> Value {
    let mut raw = json!({"mediaType": view.media_type, "digest": view.digest, "size": view.size});
    if let Some(artifact_type) = &view.artifact_type {
        raw["artifactType"] = json!(artifact_type);
    }
    raw
}

fn without_annotations(view: &Descriptor) -> Descriptor {
    Descriptor { annotations: BTreeMap::new(), ..view.clone() }
}

/// What of a `bundle.json` says which tags companions have.
#[derive(Deserialize)]
struct Sealed {
    lock: SealedLock,
}

#[derive(Deserialize)]
struct SealedLock {
    images: Vec<SealedImage>,
}

#[derive(Deserialize)]
struct SealedImage {
    reference: Reference,
    #[serde(default)]
    attached: Option<Vec<Companion>>,
}

#[derive(Deserialize)]
struct Companion {
    digest: Digest,
    subject: Digest,
    #[serde(default)]
    tag: Option<Tag>,
}

/// A full name in either annotation, else a bare tag; nothing for what has no name.
fn name_of(view: &Descriptor, fallback: Option<&Repository>) -> (Option<Repository>, Option<Tag>) {
    let annotation = |key: &str| view.annotations.get(key).filter(|text| !text.is_empty());
    let Some(text) = annotation(IMAGE_NAME).or_else(|| annotation(REF_NAME)) else { return (None, None) };
    let full = text.contains(['/', ':', '@']);
    if let Some(reference) = text.parse::<Reference>().ok().filter(|_| full) {
        let latest = || "latest".parse().ok().filter(|_| reference.digest.is_none());
        return (Some(reference.repository.clone()), reference.tag.clone().or_else(latest));
    }
    match text.parse() {
        Ok(tag) => (fallback.cloned(), Some(tag)),
        Err(_) => (None, None),
    }
}

/// The repository of entries that have only a tag: called as the layout is, `layout` where that is no name.
fn fallback_repository(layout: &Path) -> Option<Repository> {
    let absolute = layout.canonicalize().unwrap_or_else(|_| layout.to_owned());
    let name = absolute.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    [name.as_str(), "layout"].into_iter().find_map(|name| format!("docker.io/{name}").parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(named: &[(&str, &[u8])]) -> Names {
        let manifests: Vec<Value> = named
            .iter()
            .map(|(name, content)| {
                json!({"mediaType": "m", "digest": Digest::sha256(content), "size": content.len(), "x-kept": [1],
                    "annotations": {REF_NAME: name}})
            })
            .collect();
        let index = json!({"schemaVersion": 2, "annotations": {"of": "somebody"}, "manifests": manifests});
        Names::parse(index.to_string().as_bytes(), Path::new("/nowhere/Some-Layout.tar")).unwrap()
    }

    fn tags(names: &Names, repository: &str) -> Vec<String> {
        names.tags(repository, None).unwrap_or_default().into_keys().map(|tag| tag.to_string()).collect()
    }

    #[test]
    fn a_mirror_gives_only_what_the_named_registry_has() {
        let names = index(&[
            ("docker.io/org/same:1", b"a"),
            ("quay.io/org/same:1", b"b"),
            ("127.0.0.1:5000/org/same:1", b"c"),
            ("docker.io/library/web:1", b"d"),
        ]);
        let digest = |name: &str, registry: &str| {
            let tags = names.tags(name, Some(registry))?;
            tags.into_values().next().map(|view| view.digest)
        };
        for (name, registry, content) in [
            ("org/same", "docker.io", b"a"),
            ("org/same", "quay.io", b"b"),
            ("org/same", "127.0.0.1:5000", b"c"),
            ("quay.io/org/same", "quay.io", b"b"),
            ("127.0.0.1-5000/org/same", "127.0.0.1:5000", b"c"),
            ("library/web", "docker.io", b"d"),
        ] {
            assert_eq!(digest(name, registry), Some(Digest::sha256(content)), "{name} of {registry}");
        }
        for (name, registry) in
            [("library/web", "quay.io"), ("org/same", "evil.example"), ("org/same", "no registry"), ("org/same", "")]
        {
            assert_eq!(digest(name, registry), None, "{name} of {registry:?}");
        }
    }

    #[test]
    fn an_image_answers_to_its_full_name_and_to_the_short_ones() {
        let names = index(&[("docker.io/library/nginx:1", b"a"), ("127.0.0.1:5000/team/app:2", b"b"), ("3.0", b"c")]);
        for (spelling, tag) in [
            ("nginx", "1"),
            ("library/nginx", "1"),
            ("docker.io/library/nginx", "1"),
            ("team/app", "2"),
            ("127.0.0.1-5000/team/app", "2"),
            ("127.0.0.1:5000/team/app", "2"),
            ("some-layout", "3.0"),
        ] {
            assert_eq!(tags(&names, spelling), [tag], "{spelling}");
        }
        assert!(names.tags("app", None).is_none());
        let listed: Vec<String> = names.catalog().into_iter().collect();
        assert_eq!(listed, ["library/nginx", "library/some-layout", "team/app"]);
    }

    #[test]
    fn a_short_name_never_gives_the_image_of_another_host() {
        let names = index(&[
            ("docker.io/library/nginx:1", b"a"),
            ("quay.io/library/nginx:1", b"b"),
            ("quay.io/org/app:1", b"c"),
            ("ghcr.io/org/app:1", b"d"),
            ("ghcr.io/org/app:2", b"e"),
            ("ghcr.io/org/app:3", b"f"),
            ("quay.io/org/app:3", b"f"),
        ]);
        let digest = |name: &str| names.tags(name, None).unwrap().into_values().next().unwrap().digest;
        assert_eq!(digest("library/nginx"), Digest::sha256(b"a"));
        assert_eq!(digest("quay.io/library/nginx"), Digest::sha256(b"b"));
        assert_eq!(tags(&names, "org/app"), ["2", "3"], "1 differs between the hosts");
        assert_eq!(tags(&names, "quay.io/org/app"), ["1", "3"]);
        assert!(names.catalog().contains("quay.io/org/app") && !names.catalog().contains("org/app"));
    }

    #[test]
    fn a_name_that_is_no_name_keeps_nobody_from_the_others() {
        let hostile = ["../../etc/passwd:1", "a b", "/", "\n", "docker.io/A:1", "x@sha256:12", ""];
        let named: Vec<(&str, &[u8])> = hostile.iter().map(|name| (*name, name.as_bytes())).collect();
        let names = index(&[&named[..], &[("docker.io/library/nginx:1", b"a")]].concat());
        assert_eq!(names.catalog().into_iter().collect::<Vec<_>>(), ["library/nginx"]);
        for broken in
            ["", "[]", "{}", r#"{"manifests":{}}"#, r#"{"manifests":[1]}"#, r#"{"manifests":[{"digest":"x"}]}"#]
        {
            assert!(Names::parse(broken.as_bytes(), Path::new("x")).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_push_keeps_what_others_wrote_into_the_index() {
        let mut names = index(&[("docker.io/library/nginx:1", b"a")]);
        let repository = names.recorded("team/app").unwrap();
        assert_eq!(repository.to_string(), "docker.io/team/app");
        let view = |content: &[u8]| Descriptor::new("m", Digest::sha256(content), 1);
        names.put_tag(&repository, &"1".parse().unwrap(), &view(b"old"));
        names.put_tag(&repository, &"1".parse().unwrap(), &view(b"new"));
        let again = Names::parse(&names.to_json(), Path::new("x")).unwrap();
        assert_eq!(tags(&again, "team/app"), ["1"]);
        assert_eq!(again.tags("team/app", None).unwrap().into_values().next().unwrap().digest, Digest::sha256(b"new"));
        assert!(again.listed().any(|view| view.digest == Digest::sha256(b"old")), "untagged, not lost");
        let text = String::from_utf8(again.to_json()).unwrap();
        assert!(text.contains("x-kept") && text.contains("somebody"), "{text}");
        assert!(names.remove_digest(&repository, &Digest::sha256(b"new")));
        assert!(tags(&names, "team/app").is_empty());
    }
}
