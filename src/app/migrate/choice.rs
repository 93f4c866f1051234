//! Selects images of a storage by patterns and by an allowlist.
//!
//! A storage does not contain the name of its registry, so the registry of an entry is not compared. An entry means the
//! repository whose path is exactly what is written. If none exists, it means the repository with the registry as the first
//! part of the path (as `--scoped` writes it), or without the registry. `nginx`, which is `docker.io/library/nginx` to
//! Docker, can also be `nginx`.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::app::local::Text;
use crate::base::error::{Error, Result};
use crate::oci::{Digest, Repository, Tag};
use crate::pipeline::allowlist::{Allowlist, InputProblem, Pattern, Rule, Select, refused};
use crate::pipeline::lock::Rename;
use crate::transport::storage::{Holding, Storage, StorageProblem, StorageProblemKind, Survey, Tagged};

use super::{signatures, tags};

/// Which images are wanted, and their names. The default is all images with a tag.
#[derive(Clone)]
pub struct ImageFilter {
    /// Only images on this list. An entry that is not in the storage counts as a failed image.
    pub list: Option<Allowlist>,
    /// Only images whose `REPOSITORY:TAG` matches one of these patterns. Empty for all.
    pub include: Vec<Pattern>,
    /// Without images whose `REPOSITORY:TAG` matches one of these patterns.
    pub exclude: Vec<Pattern>,
    /// Also manifests that no tag leads to.
    pub untagged: bool,
    /// The digests of tags: lines of `REPOSITORY:TAG DIGEST`, or the JSON of Harbor's API. They take precedence over the
    /// storage.
    pub tags: Option<Text>,
    /// Whether companions go with their images, where the destination allows it.
    pub referrers: bool,
}

impl Default for ImageFilter {
    fn default() -> ImageFilter {
        let (include, exclude) = (Vec::new(), Vec::new());
        ImageFilter { list: None, include, exclude, untagged: false, tags: None, referrers: true }
    }
}

impl ImageFilter {
    fn takes(&self, name: &str) -> bool {
        let has = |pattern: &Pattern| pattern.is_match(name);
        (self.include.is_empty() || self.include.iter().any(has)) && !self.excludes(name)
    }

    /// Whether the image is excluded, even as a companion.
    pub fn excludes(&self, name: &str) -> bool {
        self.exclude.iter().any(|pattern| pattern.is_match(name))
    }

    /// Whether all names are selected.
    pub fn is_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty() && self.list.is_none()
    }

    /// Adds the tags from the file to a storage whose repositories belong to `registry`.
    ///
    /// # Errors
    /// Lists all problems of the file.
    pub fn name(&self, storage: Storage, registry: &str) -> Result<Storage> {
        let Some(Text { name, bytes }) = &self.tags else { return Ok(storage) };
        let mut given = tags::parse(name, bytes, registry).map_err(|problems| refused("the tags", &problems))?;
        let needs_search = given.iter().any(|given| given.repository.is_none());
        let holdings = if needs_search { storage.survey()?.repositories } else { Vec::new() };
        let mut problems = Vec::new();
        for given in given.iter_mut().filter(|given| given.repository.is_none()) {
            match repository_of(&given.digest, &holdings) {
                Ok(found) => given.repository = Some(found.clone()),
                Err(text) => problems.push(InputProblem { at: given.at.clone(), text }),
            }
        }
        problems.extend(tags::ambiguities(&given));
        if !problems.is_empty() {
            return Err(refused("the tags", &problems));
        }
        let mut named = Vec::with_capacity(given.len());
        for tags::ListedTag { repository, tag, digest, is_accessory, .. } in given {
            let Some(repository) = repository else { continue };
            // A manifest with a subject is found through the subject and has no tag. A missing manifest is reported like
            // that of any tag.
            let has_subject =
                || matches!(storage.manifest_of(&repository, &digest), Ok(Some(m)) if m.subject().is_some());
            if is_accessory && has_subject() {
                continue;
            }
            named.push(Tagged { repository, tag: Some(tag), digest });
        }
        if self.referrers {
            named.extend(signatures::unnamed(&storage, &named)?);
        }
        Ok(storage.with_tags(named))
    }
}

/// Returns the only repository that has the manifest, or why it cannot be determined.
fn repository_of<'h>(digest: &Digest, holdings: &'h [Holding]) -> Result<&'h Repository, String> {
    let mut having = holdings.iter().filter(|holding| holding.has(digest)).map(|holding| &holding.repository);
    match (having.next(), having.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(format!("no repository_name, and no repository of the storage has {digest}")),
        (Some(one), Some(other)) => {
            let (one, other) = (one.path(), other.path());
            Err(format!("no repository_name, and {digest} is in {one} and {other}; use lines instead"))
        }
    }
}

/// An [`ImageFilter`] whose allowlist was read.
pub struct Choice<'a> {
    which: &'a ImageFilter,
    /// `None` without an allowlist: every image is selected.
    rules: Option<Vec<Rule>>,
    /// The rules for each repository, by its path.
    of: HashMap<String, Vec<usize>>,
    found: HashSet<usize>,
}

impl<'a> Choice<'a> {
    /// Reads the allowlist.
    ///
    /// # Errors
    /// Lists all problems of the allowlist.
    pub fn read(which: &'a ImageFilter) -> Result<Choice<'a>> {
        let rules = which.list.as_ref().map(rules_of).transpose()?;
        Ok(Choice { which, rules, of: HashMap::new(), found: HashSet::new() })
    }

    /// Finds the repository for each entry.
    pub fn match_rules<'r>(&mut self, repositories: impl Iterator<Item = &'r str>) {
        let known: HashSet<&str> = repositories.collect();
        for (at, rule) in self.rules.iter().flatten().enumerate() {
            if let Some(path) = meanings(rule).into_iter().find(|path| known.contains(path.as_str())) {
                self.of.entry(path).or_default().push(at);
            }
        }
    }

    /// Returns manifests that the allowlist names by digest and that no tag of `survey` leads to.
    pub fn pinned(&mut self, survey: &Survey) -> Vec<Tagged> {
        let tagged: HashSet<_> = survey.tags.iter().map(|found| (&found.repository, found.digest)).collect();
        let mut pinned = Vec::new();
        for holding in &survey.repositories {
            let rules = self.of.get(holding.repository.path()).into_iter().flatten();
            let selects = rules.filter_map(|at| Some(&self.rules.as_ref()?.get(*at)?.select));
            let digests: BTreeSet<Digest> = selects.filter_map(pin).filter(|digest| holding.has(digest)).collect();
            let images = digests.into_iter().filter(|digest| !tagged.contains(&(&holding.repository, *digest)));
            pinned.extend(images.map(|digest| Tagged { repository: holding.repository.clone(), tag: None, digest }));
        }
        pinned.retain(|image| self.takes(image));
        pinned
    }

    /// Whether the image is selected.
    pub fn takes(&mut self, image: &Tagged) -> bool {
        let path = image.repository.path();
        // An untagged image is selected by its digest, or if all untagged images are.
        let all = image.tag.is_some() || self.which.untagged;
        let fits = |rule: &Rule| (all || is_pin(&rule.select)) && covers(rule, image.tag.as_ref(), Some(&image.digest));
        let is_wanted = self.is_listed(path, fits) || self.rules.is_none() && all;
        is_wanted && self.which.takes(&image.name())
    }

    /// As [`Choice::takes`], for an image known only by its name, `repository:tag` or `repository@digest`.
    pub fn takes_name(&mut self, name: &str) -> bool {
        let listed = match (name.split_once('@'), name.rsplit_once(':')) {
            (Some((path, digest)), _) => {
                let digest: Option<Digest> = digest.parse().ok();
                self.is_listed(path, |rule| covers(rule, None, digest.as_ref()))
            }
            (None, Some((path, tag))) => {
                let tag: Option<Tag> = tag.parse().ok();
                self.is_listed(path, |rule| covers(rule, tag.as_ref(), None))
            }
            _ => false,
        };
        (listed || self.rules.is_none()) && self.which.takes(name)
    }

    fn is_listed(&mut self, path: &str, fits: impl Fn(&Rule) -> bool) -> bool {
        let Some(rules) = &self.rules else { return false };
        let fitting = self.of.get(path).into_iter().flatten().filter(|at| rules.get(**at).is_some_and(&fits));
        let fitting: Vec<usize> = fitting.copied().collect();
        self.found.extend(&fitting);
        !fitting.is_empty()
    }

    /// Whether the allowlist names the tag of the image in full.
    pub fn names(&self, image: &Tagged) -> bool {
        let of = self.of.get(image.repository.path()).into_iter().flatten();
        let mut rules = of.filter_map(|at| self.rules.as_ref()?.get(*at));
        image.tag.is_some()
            && rules.any(|rule| match &rule.select {
                Select::One(reference) => reference.tag == image.tag,
                Select::AllTags(_) | Select::TagsMatching { .. } | Select::TagsInRange { .. } => false,
            })
    }

    /// The name that the allowlist gives the image.
    pub fn rename(&self, image: &Tagged) -> Option<Rename> {
        let of = self.of.get(image.repository.path())?.iter().filter_map(|at| self.rules.as_ref()?.get(*at));
        of.filter(|rule| covers(rule, image.tag.as_ref(), Some(&image.digest))).find_map(|rule| rule.rename.clone())
    }

    /// Returns entries that match nothing in the storage, as problems of the file that contains them.
    pub fn missing(&self) -> Vec<StorageProblem> {
        let rules = self.rules.iter().flatten().enumerate().filter(|(at, _)| !self.found.contains(at));
        let problem = |rule: &Rule| {
            let what = format!("{} is not in the storage", rule.written);
            let problem = StorageProblem::new(rule.at.to_string(), StorageProblemKind::Missing, what);
            StorageProblem { images: vec![rule.written.as_str().into()], ..problem }
        };
        rules.map(|(_, rule)| problem(rule)).collect()
    }
}

fn rules_of(list: &Allowlist) -> Result<Vec<Rule>> {
    let with_platforms = list.rules.iter().filter(|rule| !rule.platforms.is_empty());
    let text = "platform= is not possible here: images of a storage are migrated unchanged";
    let problems: Vec<InputProblem> =
        with_platforms.map(|rule| InputProblem { at: rule.at.clone(), text: text.to_owned() }).collect();
    if list.rules.is_empty() {
        return Err(Error::input("the allowlist names no image"));
    }
    if problems.is_empty() { Ok(list.rules.clone()) } else { Err(refused("the allowlist", &problems)) }
}

/// The paths that an entry can mean, the likeliest first. See the module documentation.
fn meanings(rule: &Rule) -> Vec<String> {
    let name = rule.written.split('@').next().unwrap_or_default();
    let written = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => name,
    };
    let repository = rule.select.repository();
    let path = repository.path();
    let short = path.strip_prefix("library/").filter(|_| repository.registry() == "docker.io");
    let mut meanings = vec![written.to_owned(), format!("{}/{path}", repository.registry()), path.to_owned()];
    meanings.extend(short.map(str::to_owned));
    meanings
}

/// The digest of an entry without a tag.
fn pin(select: &Select) -> Option<Digest> {
    match select {
        Select::One(reference) if reference.tag.is_none() => reference.digest,
        _ => None,
    }
}

fn is_pin(select: &Select) -> bool {
    pin(select).is_some()
}

/// Whether `rule` covers an image of its repository. Without a digest, a pinned digest is not compared.
fn covers(rule: &Rule, tag: Option<&Tag>, digest: Option<&Digest>) -> bool {
    let repository = rule.select.repository();
    match (tag, digest) {
        (Some(tag), Some(digest)) => rule.select.covers(&repository.with_tag(tag.clone()), digest),
        (None, Some(digest)) => rule.select.covers(&repository.with_digest(*digest), digest),
        (Some(tag), None) => rule.select.matches(tag),
        (None, None) => false,
    }
}
