//! Imports into a registry that does not have what it claims to have: a tag that exists can be pulled all the same, or the run
//! fails and says why.

mod support;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use support::faulty::{Answer, Fault, Proxy, Seen, Server, Stage, exchange};
use support::images::{self, Image};
use support::registry::{Options, Registry};
use support::{gapferry, sha256, tempdir};

fn export(source: &Registry, images: &[&Image], directory: &Path) -> PathBuf {
    images.iter().for_each(|image| image.push(source));
    let out = directory.join("bundle.tar");
    let references = images.iter().map(|image| format!("{}/{}", source.host(), image.name()));
    gapferry().arg("export").args(references).arg("-o").arg(&out).assert().success();
    out
}

fn import(bundle: &Path, to: &str, options: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        gapferry().arg("import").arg(bundle).args(["--to", to]).args(options).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// `digest` as a blob that was asked for, not uploaded.
fn asks_for_blob(request: &Seen, digest: &str) -> bool {
    matches!(&*request.method, "HEAD" | "GET") && request.target.ends_with(&format!("/blobs/{digest}"))
}

/// Whether this request ends an upload of `digest`.
fn uploads(request: &Seen, digest: &str) -> bool {
    request.method == "PUT" && request.target.contains("/blobs/uploads/") && request.target.contains(&digest[7..])
}

fn uploads_of(server: &Server, digest: &str) -> usize {
    server.seen().iter().filter(|request| uploads(request, digest)).count()
}

fn claimed(content: &[u8], request: &Seen) -> Answer {
    let size = content.len();
    match request.header("range") {
        "" => Answer::new(200).body(content),
        _ => Answer::new(206)
            .with("Content-Range", format!("bytes {}-{}/{size}", size - 1, size - 1))
            .body(&content[size - 1..]),
    }
}

/// Before a real registry, whose cache claims these blobs until they are uploaded.
async fn stale_cache(registry: &Registry, blobs: Vec<Vec<u8>>) -> Server {
    let (host, uploaded) = (registry.host().to_owned(), Arc::new(Mutex::new(HashSet::new())));
    Server::start(move |request, _| {
        let mut uploaded = uploaded.lock().unwrap();
        for blob in &blobs {
            let digest = sha256(blob);
            if uploads(request, &digest) {
                uploaded.insert(digest);
            } else if asks_for_blob(request, &digest) && !uploaded.contains(&digest) {
                return claimed(blob, request);
            }
        }
        exchange(&host, request).unwrap()
    })
    .await
}

#[tokio::test]
async fn a_blob_that_the_target_claims_and_lacks_is_uploaded_once_for_all_images() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let (one, two) =
        (images::oci("team/app", "1", &["shared", "one"]), images::oci("team/app", "2", &["shared", "two"]));
    let bundle = export(&source, &[&one, &two], directory.path());
    images::oci("team/app", "0", &["older"]).push(&target);
    let shared = one.blobs[1].clone();
    let server = stale_cache(&target, vec![shared.clone()]).await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("claimed to have blob") && stderr.contains("2 images pushed"), "{stderr}");
    assert_eq!(uploads_of(&server, &sha256(&shared)), 1, "one upload serves both images");
    for image in [&one, &two] {
        assert_eq!(target.digest("team/app", image.tag.as_deref().unwrap()), Some(image.digest()));
    }
    assert_eq!(target.request("GET", &format!("/v2/team/app/blobs/{}", sha256(&shared))).send().body, shared);
}

#[tokio::test]
async fn a_mount_of_nothing_is_an_upload_in_the_end() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let (one, two) =
        (images::oci("team/one", "1", &["shared", "one"]), images::oci("team/two", "1", &["shared", "two"]));
    let bundle = export(&source, &[&one, &two], directory.path());
    let host = target.host().to_owned();
    let server = Server::start(move |request, _| match request.target.contains("mount=") {
        true => Answer::new(201),
        false => exchange(&host, request).unwrap(),
    });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    for image in [&one, &two] {
        assert_eq!(target.digest(&image.repository, "1"), Some(image.digest()));
    }
}

#[tokio::test]
async fn a_child_manifest_that_the_target_claims_and_lacks_is_put_again_with_what_it_lacks() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let index = images::oci_index("team/app", "1", "index");
    let bundle = export(&source, &[&index], directory.path());
    images::oci("team/app", "0", &["older"]).push(&target);
    let (child, host) = (index.children[0].clone(), target.host().to_owned());
    let put = Arc::new(Mutex::new(false));
    let server = Server::start(move |request, _| {
        let mut put = put.lock().unwrap();
        let is_child = request.target.ends_with(&format!("/manifests/{}", child.digest()));
        let claims = request.method == "HEAD" && is_child && !*put;
        *put |= is_child && request.method == "PUT";
        let config = &child.blobs[0];
        match () {
            () if claims => Answer::new(200)
                .with("Content-Type", &*child.media_type)
                .with("Docker-Content-Digest", child.digest())
                .body(child.manifest.clone()),
            // The same cache claims its config.
            () if asks_for_blob(request, &sha256(config)) && !*put => claimed(config, request),
            () => exchange(&host, request).unwrap(),
        }
    });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(target.digest("team/app", "1"), Some(index.digest()));
    assert_eq!(target.digest("team/app", &index.children[0].digest()), Some(index.children[0].digest()));
}

/// Before a real registry: answers 201 to manifests of `digests` and stores nothing, as distribution does while its cache
/// remembers what a garbage collection has deleted.
async fn swallows(registry: &Registry, digests: Vec<String>) -> Server {
    let host = registry.host().to_owned();
    Server::start(move |request, _| {
        let digest = sha256(&request.body);
        match request.method == "PUT" && request.target.contains("/manifests/") && digests.contains(&digest) {
            true => Answer::new(201).with("Docker-Content-Digest", digest),
            false => exchange(&host, request).unwrap(),
        }
    })
    .await
}

#[tokio::test]
async fn a_manifest_that_the_target_takes_and_does_not_store_fails_its_image_with_the_remedy() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let (index, single) = (images::oci_index("team/app", "1", "index"), images::oci("team/one", "1", &["one"]));
    let bundle = export(&source, &[&index, &single], directory.path());
    let child = index.children[0].digest();
    let server = swallows(&target, vec![child.clone(), single.digest()]).await;
    let (code, stderr) = import(&bundle, &server.address, &["--retries", "0"]);
    assert_eq!(code, Some(1), "{stderr}");
    for says in ["2 failed", &child, &single.digest(), "restart the registry"] {
        assert!(stderr.contains(says), "{says}: {stderr}");
    }
    assert_eq!(target.digest("team/app", "1"), None, "no tag of what cannot be pulled");
}

#[tokio::test]
async fn a_list_of_referrers_that_the_target_takes_and_does_not_store_is_noticed() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let image = images::oci("team/app", "1", &["content"]);
    let sbom = images::referrer(&image, "application/spdx+json", b"an SBOM");
    let list = images::referrers_tag(&image, std::slice::from_ref(&sbom));
    sbom.push(&source);
    list.push(&source);
    let bundle = export(&source, &[&image], directory.path());
    let (host, tag) = (target.host().to_owned(), list.tag.unwrap());
    let server = Server::start(move |request, _| match request.method == "PUT" && request.target.ends_with(&tag) {
        true => Answer::new(201),
        false => exchange(&host, request).unwrap(),
    });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &["--retries", "0"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("took the list and does not have it"), "{stderr}");
    assert_eq!(target.digest("team/app", "1"), None, "signatures come before the tag");
}

#[tokio::test]
async fn a_target_that_does_not_say_what_it_lacks_is_sent_all_of_the_image() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let image = images::oci("team/app", "1", &["one", "two"]);
    let bundle = export(&source, &[&image], directory.path());
    image.named("team/app", "0").push(&target);
    let (host, digests) = (target.host().to_owned(), image.blob_digests());
    let uploaded = Arc::new(Mutex::new(HashSet::new()));
    let server = Server::start(move |request, _| {
        let mut uploaded = uploaded.lock().unwrap();
        uploaded.extend(digests.iter().filter(|digest| uploads(request, digest)).cloned());
        match request.method == "PUT" && request.target.contains("/manifests/") && uploaded.len() < digests.len() {
            // As Harbor says it.
            true => Answer::new(404).body(r#"{"errors":[{"code":"NOT_FOUND","message":"blob not found"}]}"#),
            false => exchange(&host, request).unwrap(),
        }
    });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    for digest in image.blob_digests() {
        assert_eq!(uploads_of(&server, &digest), 1);
    }
    assert_eq!(target.digest("team/app", "1"), Some(image.digest()));
}

#[tokio::test]
async fn a_target_that_lacks_what_it_was_sent_again_is_called_damaged() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let image = images::oci("team/app", "1", &["one"]);
    let bundle = export(&source, &[&image], directory.path());
    image.named("team/app", "0").push(&target);
    let (host, layer) = (target.host().to_owned(), sha256(&image.blobs[1]));
    let told = format!(r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","detail":"{layer}"}}]}}"#);
    let server =
        Server::start(move |request, _| match request.method == "PUT" && request.target.contains("/manifests/") {
            true => Answer::new(400).body(&*told),
            false => exchange(&host, request).unwrap(),
        });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert_eq!(code, Some(1), "{stderr}");
    for says in ["holds a damaged or stale copy", &layer, "`gapferry check`", "restart the registry"] {
        assert!(stderr.contains(says), "{says}: {stderr}");
    }
    assert_eq!(uploads_of(&server, &layer), 1, "once, not again and again");
    assert_eq!(target.digest("team/app", "1"), None);
}

#[tokio::test]
async fn a_stream_that_has_passed_says_how_to_go_on_and_that_way_works() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let image = images::oci("team/app", "1", &["one"]);
    let bundle = export(&source, &[&image], directory.path());
    images::oci("team/app", "0", &["older"]).push(&target);
    let server = stale_cache(&target, vec![image.blobs[1].clone()]).await;
    let piped = |options: &[&str]| {
        let mut command = gapferry();
        command.args(["import", "-", "--to", &server.address]).args(options);
        command.write_stdin(std::fs::read(&bundle).unwrap()).output().unwrap()
    };
    let first = piped(&[]);
    let stderr = String::from_utf8_lossy(&first.stderr).into_owned();
    assert_eq!(first.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("have passed in the stream") && stderr.contains("with --reupload"), "{stderr}");
    assert!(piped(&["--reupload"]).status.success());
    assert_eq!(target.digest("team/app", "1"), Some(image.digest()));
}

#[test]
fn reupload_sends_everything_whatever_the_target_has() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let (one, two) = (images::oci("team/app", "1", &["one"]), images::oci_index("team/app", "2", "index"));
    let bundle = export(&source, &[&one, &two], directory.path());
    assert_eq!(import(&bundle, target.host(), &[]).0, Some(0));
    let (uploads, before) = (target.uploads(), target.requests().len());
    assert_eq!(import(&bundle, target.host(), &["--reupload"]).0, Some(0));
    assert_eq!(target.uploads(), 2 * uploads);
    let again = target.requests().split_off(before);
    assert!(!again.iter().any(|r| r.method == "HEAD" && r.path.contains("/blobs/")), "nothing is asked");
    for manifest in [one.digest(), two.digest()].into_iter().chain(two.children.iter().map(Image::digest)) {
        let put = again.iter().filter(|r| r.method == "PUT" && r.path.ends_with(&manifest)).count();
        assert_eq!(put, 1, "{manifest}: {again:?}");
    }
}

#[test]
fn reupload_is_not_for_a_bundle_that_comes_in_several_runs() {
    let (code, stderr) = import(Path::new("no.tar"), "127.0.0.1:1", &["--reupload", "--state", "no-state"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--reupload needs the whole bundle"), "{stderr}");
}

#[tokio::test]
async fn a_repository_that_has_to_be_created_first_is_said_to_be_one() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let (new, old) = (images::oci("team/new", "1", &["new"]), images::oci("team/old", "1", &["old"]));
    let bundle = export(&source, &[&new, &old], directory.path());
    let host = target.host().to_owned();
    let server = Server::start(move |request, _| match request.target.starts_with("/v2/team/new/") {
        true => Answer::new(404).body(
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name 'team/new' does not exist"}]}"#,
        ),
        false => exchange(&host, request).unwrap(),
    });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("'team/new' does not exist") && stderr.contains("create it there first"), "{stderr}");
    assert_eq!(target.digest("team/old", "1"), Some(old.digest()), "the other image is pushed");
}

#[test]
fn a_registry_that_refuses_foreign_layers_is_asked_once_and_the_setting_is_named() {
    let (source, directory) = (Registry::start(), tempdir());
    let image = images::with_foreign_layer("team/windows", "1");
    let bundle = export(&source, &[&image], directory.path());
    let target = Registry::with(Options { no_foreign_layers: true, ..Options::default() });
    let (code, stderr) = import(&bundle, target.host(), &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("refuses layer") && stderr.contains("validation.manifests.urls.allow"), "{stderr}");
    let puts = target.requests().iter().filter(|r| r.method == "PUT" && r.path.contains("/manifests/")).count();
    assert_eq!(puts, 1);
}

#[test]
fn a_registry_in_maintenance_is_named_once_for_all_images() {
    let (source, directory) = (Registry::start(), tempdir());
    let target = Registry::with(Options { read_only: true, ..Options::default() });
    let images = ["team/one", "team/two", "team/three"].map(|name| images::oci(name, "1", &[name]));
    let bundle = export(&source, &images.each_ref(), directory.path());
    let (code, stderr) = import(&bundle, target.host(), &[]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("takes no uploads") && stderr.contains("storage.maintenance.readonly"), "{stderr}");
    assert_eq!(stderr.matches("405 Method Not Allowed").count(), 1, "{stderr}");
}

/// The file of a blob in a registry's storage.
fn data_of(registry: &Registry, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    registry.storage().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
}

/// An image that shares its layers with one that the target has, so that they are relied on.
struct Shared {
    target: Registry,
    bundle: PathBuf,
    image: Image,
    _directory: tempfile::TempDir,
}

impl Shared {
    fn new() -> Shared {
        let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
        let image = images::oci("team/app", "1", &["one", "two"]);
        let bundle = export(&source, &[&image], directory.path());
        image.named("team/app", "0").push(&target);
        Shared { target, bundle, image, _directory: directory }
    }

    fn layer(&self) -> (String, Vec<u8>) {
        (sha256(&self.image.blobs[1]), self.image.blobs[1].clone())
    }

    fn is_pushed(&self) -> bool {
        self.target.digest("team/app", "1") == Some(self.image.digest())
    }
}

fn reads_of_blobs(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|request| request.method == "GET" && request.target.contains("/blobs/sha256:")).collect()
}

#[tokio::test]
async fn a_blob_that_head_claims_and_get_denies_is_uploaded_before_the_manifest_is_put() {
    let it = Shared::new();
    let ((digest, content), host) = (it.layer(), it.target.host().to_owned());
    std::fs::remove_file(data_of(&it.target, &digest)).unwrap();
    let server = Server::start(move |request, _| match request.method == "HEAD" && asks_for_blob(request, &digest) {
        true => claimed(&content, request),
        false => exchange(&host, request).unwrap(),
    });
    let server = server.await;
    let (code, stderr) = import(&it.bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("claims to have blob") && it.is_pushed(), "{stderr}");
    assert_eq!((uploads_of(&server, &it.layer().0), server.count("PUT", "/v2/team/app/manifests/")), (1, 1));
    for read in reads_of_blobs(&server.seen()) {
        assert!(read.header("range").starts_with("bytes="), "one byte of each: {read:?}");
    }
}

#[tokio::test]
async fn a_last_byte_that_is_announced_and_does_not_come_is_no_proof() {
    let it = Shared::new();
    let ((digest, content), host) = (it.layer(), it.target.host().to_owned());
    let uploaded = Mutex::new(false);
    // As distribution does whose cache knows the length of a file that was cut.
    let server = Server::start(move |request, _| {
        let mut uploaded = uploaded.lock().unwrap();
        *uploaded |= uploads(request, &digest);
        match request.method == "GET" && asks_for_blob(request, &digest) && !*uploaded {
            true => claimed(&content, request).but(Fault::Truncate(0)),
            false => exchange(&host, request).unwrap(),
        }
    });
    let server = server.await;
    let (code, stderr) = import(&it.bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("its last byte does not come"), "{stderr}");
    assert_eq!(uploads_of(&server, &it.layer().0), 1);
}

#[tokio::test]
async fn a_registry_that_knows_no_ranges_is_not_read_to_the_end() {
    let it = Shared::new();
    let ((digest, content), host) = (it.layer(), it.target.host().to_owned());
    let server = Server::start(move |request, _| match request.method == "GET" && asks_for_blob(request, &digest) {
        true => Answer::new(200).body(&*content).but(Fault::Stall(Stage::Body(0))),
        false => exchange(&host, request).unwrap(),
    });
    let server = server.await;
    let (code, stderr) = import(&it.bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(uploads_of(&server, &it.layer().0), 0, "its length is right");
    assert!(it.is_pushed());
}

#[test]
fn a_blob_is_proven_at_the_storage_that_the_registry_leads_to_without_credentials() {
    let it = Shared::new();
    let proxy = Proxy::with_tokens(it.target.host());
    proxy.when("GET", "/blobs/sha256").always().fault(Fault::Redirect(proxy.elsewhere().address.clone()));
    let (code, stderr) = import(&it.bundle, &proxy.address, &["--creds", "user:secret"]);
    assert_eq!(code, Some(0), "{stderr}");
    let seen = proxy.elsewhere().seen();
    assert_eq!(reads_of_blobs(&seen).len(), it.image.blobs.len());
    assert!(seen.iter().all(|request| request.header("authorization").is_empty()), "{seen:?}");
    // A storage that does not have it may answer 403, as S3 does.
    let (digest, other) = (it.layer().0, images::oci("team/app", "2", &["one", "three"]));
    let (source, directory) = (Registry::start(), tempdir());
    let bundle = export(&source, &[&other], directory.path());
    proxy.elsewhere().when("GET", &digest).fault(Fault::Status(403));
    let (code, stderr) = import(&bundle, &proxy.address, &["--creds", "user:secret"]);
    assert!(code == Some(0) && stderr.contains("claims to have blob"), "{stderr}");
}

#[test]
fn an_account_that_may_not_read_is_told_so_once_and_pushes() {
    for fault in [Fault::Status(403), Fault::Unauthorized] {
        let it = Shared::new();
        let proxy = Proxy::with_tokens(it.target.host());
        proxy.when("GET", "/blobs/sha256").always().fault(fault.clone());
        let (code, stderr) = import(&it.bundle, &proxy.address, &["--jobs", "1", "--creds", "robot:secret"]);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(stderr.matches("may not read from").count(), 1, "{stderr}");
        let blobs: HashSet<String> =
            reads_of_blobs(&proxy.seen()).into_iter().map(|read| read.target.clone()).collect();
        assert_eq!(blobs.len(), 1, "one question is enough: {fault:?}");
        assert!(it.is_pushed());
    }
}

#[test]
fn an_account_that_may_not_read_what_it_pushes_has_pushed_it_and_is_told_so_once() {
    let it = Shared::new();
    let proxy = Proxy::before(it.target.host());
    for method in ["GET", "HEAD"] {
        proxy.when(method, "/manifests/").always().fault(Fault::Status(403));
    }
    let (code, stderr) = import(&it.bundle, &proxy.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stderr.matches("may not read what it pushes").count(), 1, "{stderr}");
    assert!(it.is_pushed());
}

#[test]
fn a_storage_that_refuses_everything_is_no_proof_of_damage() {
    for status in [400, 403, 407] {
        let it = Shared::new();
        let proxy = Proxy::before(it.target.host());
        proxy.when("GET", "/blobs/sha256").always().fault(Fault::Redirect(proxy.elsewhere().address.clone()));
        proxy.elsewhere().when("*", "/blobs/").always().fault(Fault::Status(status));
        let (code, stderr) = import(&it.bundle, &proxy.address, &[]);
        assert_eq!(code, Some(0), "{status}: {stderr}");
        assert!(stderr.contains("its storage answers with") && it.is_pushed(), "{status}: {stderr}");
    }
}

#[test]
fn a_run_that_changes_nothing_reads_no_blob_and_a_new_tag_one_byte_of_each() {
    let it = Shared::new();
    let reads = || it.target.requests().iter().filter(|r| r.method == "GET" && r.path.contains("/blobs/")).count();
    assert_eq!(import(&it.bundle, it.target.host(), &[]).0, Some(0));
    assert_eq!(reads(), it.image.blobs.len(), "one for each blob that is relied on");
    let before = reads();
    let (code, stderr) = import(&it.bundle, it.target.host(), &[]);
    assert!(code == Some(0) && stderr.contains("1 present"), "{stderr}");
    assert_eq!(reads(), before);
}

#[test]
fn a_blob_without_any_byte_is_proven_too() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let layer = ("application/vnd.example.empty", Vec::new());
    let image = images::oci_raw("team/app", "1", b"{}", &[layer]);
    let bundle = export(&source, &[&image], directory.path());
    image.named("team/app", "0").push(&target);
    let (code, stderr) = import(&bundle, target.host(), &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains("claims"), "{stderr}");
    assert_eq!(target.digest("team/app", "1"), Some(image.digest()));
}

#[test]
fn a_file_that_a_registry_lost_is_brought_back_and_one_that_it_cut_is_reported_in_every_repository() {
    for left in [None, Some(0), Some(4)] {
        let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
        let images = ["team/app", "team/other"].map(|name| images::oci(name, "1", &["shared"]));
        let bundle = export(&source, &[&images[0], &images[1]], directory.path());
        images[0].named("team/app", "0").push(&target);
        let layer = sha256(&images[0].blobs[1]);
        let data = data_of(&target, &layer);
        match left {
            None => std::fs::remove_file(&data).unwrap(),
            Some(left) => std::fs::File::options().write(true).open(&data).unwrap().set_len(left).unwrap(),
        }
        let (code, stderr) = import(&bundle, target.host(), &[]);
        if left.is_none() {
            assert_eq!(code, Some(0), "{stderr}");
            assert_eq!(std::fs::read(&data).unwrap(), images[0].blobs[1]);
            continue;
        }
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("2 failed") && stderr.contains("keeps what it had"), "{stderr}");
        assert!(stderr.contains("`gapferry check`"), "{stderr}");
        for image in &images {
            assert_eq!(target.digest(&image.repository, "1"), None, "no tag of what cannot be pulled");
        }
        // The remedy that is named.
        std::fs::remove_file(&data).unwrap();
        assert_eq!(import(&bundle, target.host(), &[]).0, Some(0));
    }
}

#[test]
fn reupload_notices_a_file_that_the_registry_keeps_instead() {
    let it = Shared::new();
    let data = data_of(&it.target, &it.layer().0);
    std::fs::write(&data, b"cut").unwrap();
    let (code, stderr) = import(&it.bundle, it.target.host(), &["--reupload"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("holds a damaged copy") && stderr.contains("`gapferry check`"), "{stderr}");
    assert!(!it.is_pushed());
}

#[tokio::test]
async fn a_blob_is_mounted_only_from_where_it_can_be_read() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let images = ["team/app", "team/other"].map(|name| images::oci(name, "1", &["shared"]));
    let bundle = export(&source, &[&images[0], &images[1]], directory.path());
    // There as a whole, so nothing of it has to be pushed; the other image takes its blobs from there.
    images[0].push(&target);
    let (layer, host) = (sha256(&images[0].blobs[1]), target.host().to_owned());
    let uploaded = Mutex::new(false);
    let server = Server::start(move |request, _| {
        let mut uploaded = uploaded.lock().unwrap();
        *uploaded |= uploads(request, &layer);
        match request.method == "GET" && asks_for_blob(request, &layer) && !*uploaded {
            true => Answer::new(404),
            false => exchange(&host, request).unwrap(),
        }
    });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("team/app claims to have blob"), "{stderr}");
    assert_eq!(uploads_of(&server, &sha256(&images[0].blobs[1])), 1);
}

#[tokio::test]
async fn an_increment_whose_base_the_target_cannot_give_pushes_nothing() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let image = images::oci("team/app", "1", &["one"]);
    let bundle = export(&source, &[&image], directory.path());
    let receipt = directory.path().join("receipt.json");
    assert_eq!(import(&bundle, target.host(), &["--receipt", receipt.to_str().unwrap()]).0, Some(0));
    let next = images::oci("team/app", "2", &["one", "two"]);
    next.push(&source);
    let out = directory.path().join("next.tar");
    let reference = format!("{}/{}", source.host(), next.name());
    let lock = directory.path().join("lock");
    let mut command = gapferry();
    command.args(["export", &reference, "--since"]).arg(&receipt).arg("-o").arg(&out).arg("--lock").arg(&lock);
    command.assert().success();
    let ((digest, content), host) = ((sha256(&image.blobs[1]), image.blobs[1].clone()), target.host().to_owned());
    std::fs::remove_file(data_of(&target, &digest)).unwrap();
    let lost = digest.clone();
    let server = Server::start(move |request, _| match request.method == "HEAD" && asks_for_blob(request, &digest) {
        true => claimed(&content, request),
        false => exchange(&host, request).unwrap(),
    });
    let server = server.await;
    let (missing, repair) = (directory.path().join("missing.json"), directory.path().join("repair.tar"));
    let (code, stderr) = import(&out, &server.address, &["--missing", missing.to_str().unwrap()]);
    assert_eq!(code, Some(7), "{stderr}");
    assert!(stderr.contains("claims to have and cannot give") && stderr.contains("nothing was pushed"), "{stderr}");
    assert_eq!(server.count("PUT", "/"), 0);
    // What would help is written down, and helps.
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&missing).unwrap()).unwrap();
    let digests: Vec<&str> =
        written["blobs"].as_array().unwrap().iter().map(|blob| blob["digest"].as_str().unwrap()).collect();
    assert_eq!(digests, [&lost]);
    let mut command = gapferry();
    command.args(["export", "--repair"]).arg(&missing).arg("--locked").arg(&lock).arg("-o").arg(&repair);
    command.assert().success();
    let (code, stderr) = import(&out, target.host(), &["--repair", repair.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
}
