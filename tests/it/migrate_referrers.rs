//! Referrers travel with their image: signatures and SBOMs without a tag, which a registry or Harbor with a referrers
//! API stores only as revisions.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use gapferry::oci::Digest;

use crate::support::harbor::{Harbor, Project, Setup};
use crate::support::images::{self, Corpus, Image};
use crate::support::ran::Ran;
use crate::support::registry::{Options, Registry};
use crate::support::storage::{self, data, layer};
use crate::support::{files_below, gapferry, tempdir};

const SBOM: &str = "application/spdx+json";

/// An image of two platforms with all its referrers, and an older image.
struct Signed {
    app: Image,
    /// Referrers of the index, of one of its children, and of the first referrer.
    referrers: Vec<Image>,
    older: Image,
}

impl Signed {
    fn push(registry: &Registry) -> Signed {
        let app = images::oci_index("team/app", "v1", "signed");
        let sbom = images::referrer(&app, SBOM, b"what is in it");
        let of_child = images::referrer(&app.children[1], SBOM, b"what is in one of them");
        let signature = images::referrer(&sbom, "application/vnd.example.signature", b"signed");
        let older = images::oci("team/app", "", &["older"]);
        let signed = Signed { app, referrers: vec![sbom, of_child, signature], older };
        [&signed.app, &signed.older].into_iter().chain(&signed.referrers).for_each(|image| image.push(registry));
        signed
    }
}

fn migrate(storage: &Path, more: &[&str]) -> Ran {
    Ran::of(gapferry().arg("migrate").arg(storage).args(more))
}

fn push(source: &Registry, target: &Registry, more: &[&str]) -> Ran {
    migrate(&source.storage(), &[&["--to", target.host(), "--retries", "1"], more].concat())
}

fn has(registry: &Registry, image: &Image) -> bool {
    registry.digest(&image.repository, &image.digest()) == Some(image.digest())
}

/// The number of PUTs of a manifest, by digest or tag.
fn puts(registry: &Registry, image: &Image) -> usize {
    let names = [Some(image.digest()), image.tag.clone()];
    names.iter().flatten().map(|name| registry.count("PUT", &format!("/manifests/{name}"), 201)).sum()
}

/// The images of a bundle, each with the digests of its companions.
fn listed(bundle: &Path) -> Vec<(String, Vec<String>)> {
    let output = gapferry().arg("list").arg(bundle).arg("--json").output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let attached = |image: &serde_json::Value| {
        let attached = image["attached"].as_array().into_iter().flatten();
        attached.map(|attached| text(&attached["digest"])).collect()
    };
    let images = report["images"].as_array().unwrap().iter();
    images.map(|image| (text(&image["reference"]).replace("localhost/", ""), attached(image))).collect()
}

#[test]
fn referrers_travel_with_their_image_and_a_second_run_pushes_nothing() {
    let (source, target) = (Registry::start(), Registry::start());
    let signed = Signed::push(&source);
    let before = files_below(&source.storage());
    push(&source, &target, &[]).ended(0).reported(&["1 image pushed", "left behind: 1 manifest that no tag leads to"]);
    for image in signed.referrers.iter().chain([&signed.app]) {
        assert!(has(&target, image), "{}", image.name());
        assert_eq!(puts(&target, image), if image.tag.is_some() { 2 } else { 1 }, "{}", image.name());
    }
    assert!(!has(&target, &signed.older), "untagged images were not requested");
    // The target has no referrers API, so this tag lists them.
    let list = target.manifest("team/app", &signed.app.digest().replace(':', "-")).json();
    assert_eq!(list["manifests"][0]["digest"], signed.referrers[0].digest());
    let uploads = target.uploads();
    push(&source, &target, &[]).ended(0).reported(&["0 images pushed"]);
    assert_eq!(target.uploads(), uploads);
    assert!(files_below(&source.storage()) == before, "the storage is only read");
}

#[test]
fn harbor_gets_only_the_tags_of_the_storage() {
    let source = Registry::start();
    let signed = Signed::push(&source);
    let server = Harbor::start(Setup::default().with(Project::new("team")));
    let to = server.registry();
    migrate(&source.storage(), &["--to", &to, "--creds", "admin:Harbor12345"]).ended(0);
    assert!(server.tag("team/app", "v1").is_some());
    for referrer in &signed.referrers {
        assert!(server.manifest("team/app", &Digest::sha256(&referrer.manifest)).is_some(), "{}", referrer.name());
    }
    let by_tag = server.log().into_iter().filter(|put| put.method == "PUT" && put.path.contains("/manifests/"));
    let by_tag: Vec<String> = by_tag.map(|put| put.path).filter(|path| !path.contains("/manifests/sha256:")).collect();
    assert_eq!(by_tag, ["/v2/team/app/manifests/v1"]);
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn a_migrated_bundle_contains_referrers_and_imports_them() {
    let (source, target) = (Registry::start(), Registry::start());
    let signed = Signed::push(&source);
    let directory = tempdir();
    for name in ["bundle", "bundle.tar"] {
        let out = directory.path().join(name);
        storage::migrated(&source.storage(), "--to-bundle", &out, &[]);
        gapferry().arg("verify").arg(&out).assert().success();
        let images = listed(&out);
        assert_eq!(images.len(), 1, "{images:?}");
        let attached: BTreeSet<String> = images[0].1.iter().cloned().collect();
        assert_eq!(attached, signed.referrers.iter().map(Image::digest).collect());
        let again = storage::migrated(&source.storage(), "--to-bundle", &out, &[]);
        assert!(again.contains("unchanged"), "{again}");
    }
    gapferry().arg("import").arg(directory.path().join("bundle")).args(["--to", target.host()]).assert().success();
    assert!(signed.referrers.iter().all(|referrer| has(&target, referrer)));
}

#[test]
fn a_registry_finds_referrers_in_the_second_storage() {
    let source = Registry::start();
    let signed = Signed::push(&source);
    let directory = tempdir();
    let to = directory.path().join("storage");
    storage::migrated(&source.storage(), "--to-storage", &to, &[]);
    gapferry().arg("check").arg(&to).assert().success();
    let second = Registry::with(Options { storage: Some(to), ..Options::default() });
    assert!(signed.referrers.iter().all(|referrer| has(&second, referrer)));
    assert!(!has(&second, &signed.older));
}

#[test]
fn no_referrers_leaves_them_behind_and_counts_them() {
    let (source, target) = (Registry::start(), Registry::start());
    let signed = Signed::push(&source);
    push(&source, &target, &["--no-referrers"])
        .ended(0)
        .reported(&["left behind: 4 manifests", "signatures and SBOMs"]);
    assert!(has(&target, &signed.app) && !signed.referrers.iter().any(|referrer| has(&target, referrer)));
    let directory = tempdir();
    let [bundle, second] = ["bundle", "storage"].map(|name| directory.path().join(name));
    storage::migrated(&source.storage(), "--to-bundle", &bundle, &["--no-referrers"]);
    assert_eq!(listed(&bundle), [("team/app:v1".to_owned(), vec![])]);
    storage::migrated(&source.storage(), "--to-storage", &second, &["--no-referrers"]);
    assert!(!data(&second, &signed.referrers[0].digest()).exists());
    for options in [&["--list"][..], &["--to-dir", "somewhere"]] {
        migrate(&source.storage(), &[options, &["--no-referrers"]].concat()).ended(2);
    }
}

#[test]
fn an_image_with_a_damaged_signature_fails_alone_or_travels_without_it() {
    let (source, target) = (Registry::start(), Registry::start());
    let signed = Signed::push(&source);
    let well = images::oci("team/well", "v1", &["well"]);
    well.push(&source);
    let lost = layer(&signed.referrers[2]);
    fs::remove_file(data(&source.storage(), &lost)).unwrap();
    let hex = lost.replace("sha256:", "");
    let says = [&*format!("/{hex}/data: missing"), "affects team/app:v1", "--no-referrers", "1 image pushed, 1 failed"];
    push(&source, &target, &[]).ended(1).reported(&says);
    assert!(has(&target, &well) && !has(&target, &signed.app), "an image never arrives silently without its signature");
    push(&source, &target, &["--strict"]).ended(3);
    let directory = tempdir();
    for (option, name) in [("--to-bundle", "bundle"), ("--to-storage", "storage")] {
        let output = storage::migrate(&source.storage(), option, &directory.path().join(name), &[]);
        assert_eq!(output.status.code(), Some(1), "{option}");
    }
    assert_eq!(listed(&directory.path().join("bundle")), [("team/well:v1".to_owned(), vec![])]);
    migrate(&source.storage(), &["--list"]).ended(0);
    storage::migrated(&source.storage(), "--to-dir", &directory.path().join("images"), &[]);
    push(&source, &target, &["--no-referrers", "--strict"]).ended(0);
    assert!(has(&target, &signed.app));
}

#[test]
fn an_unreadable_revision_is_reported_because_it_may_be_a_signature() {
    let (source, target) = (Registry::start(), Registry::start());
    let signed = Signed::push(&source);
    fs::write(data(&source.storage(), &signed.referrers[1].digest()), "{}").unwrap();
    push(&source, &target, &[]).ended(0).reported(&["wrong digest", "1 image pushed"]);
    assert!(has(&target, &signed.referrers[0]));
    push(&source, &target, &["--strict"]).ended(3);
}

#[test]
fn a_tagged_signature_is_an_image_and_pushed_once() {
    let (source, target) = (Registry::start(), Registry::start());
    let corpus = Corpus::everything();
    corpus.push(&source);
    let signed = Signed::push(&source);
    let [tagged, spoken_of] = [1, 0].map(|at| signed.referrers[at].named("team/app", &format!("sbom-{at}")));
    [&tagged, &spoken_of].iter().for_each(|image| image.push(&source));
    push(&source, &target, &[]).ended(0);
    let repositories: BTreeSet<&str> = corpus.images.iter().map(|image| image.repository.as_str()).collect();
    for repository in repositories {
        assert_eq!(target.tags(repository), source.tags(repository));
        // Lists of referrers are rewritten.
        let lists = corpus.images.iter().filter(|image| image.is_referrers_list());
        let lists: BTreeSet<String> = lists.filter_map(|image| image.tag.clone()).collect();
        for tag in source.tags(repository).into_iter().filter(|tag| !lists.contains(tag)) {
            assert_eq!(target.digest(repository, &tag), source.digest(repository, &tag), "{repository}:{tag}");
        }
    }
    assert_eq!(target.digest("team/app", "sbom-1"), Some(tagged.digest()));
    assert_eq!(puts(&target, &tagged), 1);
    assert!(signed.referrers.iter().all(|referrer| has(&target, referrer)), "a referrer of an SBOM travels with it");
    let directory = tempdir();
    let out = directory.path().join("bundle");
    storage::migrated(&source.storage(), "--to-bundle", &out, &[]);
    let names: BTreeSet<String> = listed(&out).into_iter().map(|(name, _)| name).collect();
    let corpus = corpus.images.iter().filter(|image| image.tag.is_some() && !image.is_companion());
    assert_eq!(names, corpus.chain([&signed.app, &tagged, &spoken_of]).map(Image::name).collect());
}

#[test]
fn a_selected_image_brings_its_signature_tag_unless_excluded() {
    let source = Registry::start();
    let app = images::oci("team/app", "v1", &["app"]);
    let (signature, sbom) = (images::cosign_signature(&app), images::referrer(&app, SBOM, b"sbom"));
    let list = images::referrers_tag(&app, std::slice::from_ref(&sbom));
    let other = images::oci("team/app", "v2", &["other"]);
    [&app, &signature, &list, &other].iter().for_each(|image| image.push(&source));
    let tag = signature.tag.as_deref().unwrap();
    let directory = tempdir();
    for (at, (more, signature_goes)) in [(&[][..], true), (&["--exclude", "[.]sig$"], false)].into_iter().enumerate() {
        let target = Registry::start();
        let options = [&["--include", "^team/app:v1$"], more].concat();
        push(&source, &target, &options).ended(0).reported(&["1 image pushed"]);
        assert!(has(&target, &app) && has(&target, &sbom) && !has(&target, &other));
        assert_eq!(target.digest("team/app", tag).is_some(), signature_goes);
        let to = directory.path().join(at.to_string());
        storage::migrated(&source.storage(), "--to-storage", &to, &options);
        let second = Registry::with(Options { storage: Some(to), ..Options::default() });
        assert_eq!(second.tags("team/app").contains(&tag.to_owned()), signature_goes);
        assert!(has(&second, &sbom) && !has(&second, &other));
    }
}

#[test]
fn a_referrer_is_never_listed_as_an_image_beside_its_subject() {
    let source = Registry::start();
    let signed = Signed::push(&source);
    let directory = tempdir();
    let bundle = |name: &str, more: &[&str]| {
        let out = directory.path().join(name);
        storage::migrated(&source.storage(), "--to-bundle", &out, more);
        listed(&out)
    };
    let names = |images: &[(String, Vec<String>)]| images.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let images = bundle("untagged", &["--untagged"]);
    assert_eq!(names(&images), [signed.app.name(), signed.older.name()]);
    assert_eq!(images[0].1.len(), 3);
    let file = directory.path().join("images.txt");
    let lines = [signed.app.name(), format!("team/app@{}", signed.referrers[0].digest())];
    fs::write(&file, lines.join("\n")).unwrap();
    let images = bundle("listed", &["-f", file.to_str().unwrap()]);
    assert_eq!((names(&images), images[0].1.len()), (vec![signed.app.name()], 3));
    // Harbor 2.15 and later.
    let repository = source.storage().join("docker/registry/v2/repositories/team/app");
    fs::remove_dir_all(repository.join("_manifests/tags")).unwrap();
    let images = bundle("tagless", &["--untagged"]);
    let mut expected = [format!("team/app@{}", signed.app.digest()), signed.older.name()];
    expected.sort();
    assert_eq!(names(&images), expected);
    fs::write(&file, format!("team/app:v1 {}\n", signed.app.digest())).unwrap();
    let images = bundle("named", &["--tags-from", file.to_str().unwrap()]);
    assert_eq!((names(&images), images[0].1.len()), (vec![signed.app.name()], 3));
}

#[test]
fn referrers_follow_an_image_to_its_new_name() {
    let (source, target) = (Registry::start(), Registry::start());
    let signed = Signed::push(&source);
    let signature = images::cosign_signature(&signed.app);
    signature.push(&source);
    let directory = tempdir();
    let file = directory.path().join("images.txt");
    fs::write(&file, "team/app:v1 as=base/app:1\n").unwrap();
    push(&source, &target, &["-f", file.to_str().unwrap()]).ended(0);
    assert_eq!(target.digest("base/app", "1"), Some(signed.app.digest()));
    assert_eq!(target.digest("base/app", signature.tag.as_deref().unwrap()), Some(signature.digest()));
    for referrer in &signed.referrers {
        assert_eq!(target.digest("base/app", &referrer.digest()), Some(referrer.digest()));
    }
}

#[test]
fn companion_tags_are_images_only_if_named_or_their_subject_is_elsewhere() {
    let source = Registry::start();
    let app = images::oci("team/app", "v1", &["app"]);
    let (signature, sbom) = (images::cosign_signature(&app), images::referrer(&app, SBOM, b"sbom"));
    let list = images::referrers_tag(&app, std::slice::from_ref(&sbom));
    let elsewhere = signature.named("team/signatures", signature.tag.as_deref().unwrap());
    [&app, &signature, &list, &elsewhere].iter().for_each(|image| image.push(&source));
    let images = |out: &Path| listed(out).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let directory = tempdir();
    let bundle = directory.path().join("bundle");
    storage::migrated(&source.storage(), "--to-bundle", &bundle, &[]);
    assert_eq!(images(&bundle), [app.name(), elsewhere.name()], "an orphan is an image: nothing else would carry it");
    let target = Registry::start();
    push(&source, &target, &[]).ended(0).reported(&["2 images pushed", "2 tags of signatures"]);
    assert_eq!(target.digest("team/app", signature.tag.as_deref().unwrap()), Some(signature.digest()));
    assert!(has(&target, &sbom));
    let target = Registry::start();
    push(&source, &target, &["--no-referrers"]).ended(0).reported(&["they are left behind (--no-referrers)"]);
    assert_eq!(target.tags("team/app"), ["v1"]);
    // A registry on the new storage can find referrers only through their list.
    let second = directory.path().join("storage");
    storage::migrated(&source.storage(), "--to-storage", &second, &[]);
    let second = Registry::with(Options { storage: Some(second), ..Options::default() });
    assert_eq!(second.digest("team/app", list.tag.as_deref().unwrap()), Some(list.digest()));
    let named = directory.path().join("images.txt");
    fs::write(&named, format!("{}\n", signature.name())).unwrap();
    let bundle = directory.path().join("named");
    storage::migrated(&source.storage(), "--to-bundle", &bundle, &["-f", named.to_str().unwrap()]);
    assert_eq!(images(&bundle), [signature.name()]);
}

#[test]
fn signature_tags_are_not_counted_as_images() {
    let source = Registry::start();
    let app = images::oci("team/app", "v1", &["app"]);
    let signature = images::oci("team/app", "", &["signature"]);
    let tag = app.digest().replace(':', "-");
    app.push(&source);
    signature.named("team/app", &format!("{tag}.sig")).push(&source);
    // Its subject is elsewhere, so it travels as an image.
    signature.named("team/signatures", &format!("{tag}.sig")).push(&source);
    let printed = |arguments: &[&str]| {
        let output = gapferry().args(arguments).arg(source.storage()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (list, check) = (printed(&["migrate", "--list"]), printed(&["check"]));
    assert!(list.contains("2 images, 1 signature in 2 repositories"), "{list}");
    assert!(check.contains(": 2 images, 1 signature, "), "{check}");
}
