//! Existing content at the target is verified before anything relies on it.

use super::*;

/// The file of a blob in a registry's storage.
fn data_of(registry: &Registry, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    registry.storage().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
}

/// An image that shares its layers with one at the target, so that the import relies on them.
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
async fn a_blob_that_head_finds_and_get_does_not_is_uploaded_before_the_manifest() {
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
async fn a_last_byte_that_is_announced_but_not_sent_proves_nothing() {
    let it = Shared::new();
    let ((digest, content), host) = (it.layer(), it.target.host().to_owned());
    let uploaded = Mutex::new(false);
    // distribution answers like this when its cache knows the length of a file that was truncated.
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
    assert!(stderr.contains("its last byte does not arrive"), "{stderr}");
    assert_eq!(uploads_of(&server, &it.layer().0), 1);
}

#[tokio::test]
async fn a_blob_is_not_read_whole_from_a_registry_without_ranges() {
    let it = Shared::new();
    let ((digest, content), host) = (it.layer(), it.target.host().to_owned());
    let server = Server::start(move |request, _| match request.method == "GET" && asks_for_blob(request, &digest) {
        true => Answer::new(200).body(&*content).but(Fault::Stall(Stage::Body(0))),
        false => exchange(&host, request).unwrap(),
    });
    let server = server.await;
    let (code, stderr) = import(&it.bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(uploads_of(&server, &it.layer().0), 0, "the file has the right length");
    assert!(it.is_pushed());
}

#[test]
fn a_blob_is_verified_at_redirected_storage_without_credentials() {
    let it = Shared::new();
    let proxy = Proxy::with_tokens(it.target.host());
    proxy.when("GET", "/blobs/sha256").always().fault(Fault::Redirect(proxy.elsewhere().address.clone()));
    let (code, stderr) = import(&it.bundle, &proxy.address, &["--creds", "user:secret"]);
    assert_eq!(code, Some(0), "{stderr}");
    let seen = proxy.elsewhere().seen();
    assert_eq!(reads_of_blobs(&seen).len(), it.image.blobs.len());
    assert!(seen.iter().all(|request| request.header("authorization").is_empty()), "{seen:?}");
    // Storage that lacks the blob may answer 403, as S3 does.
    let (digest, other) = (it.layer().0, images::oci("team/app", "2", &["one", "three"]));
    let (source, directory) = (Registry::start(), tempdir());
    let bundle = export(&source, &[&other], directory.path());
    proxy.elsewhere().when("GET", &digest).fault(Fault::Status(403));
    let (code, stderr) = import(&bundle, &proxy.address, &["--creds", "user:secret"]);
    assert!(code == Some(0) && stderr.contains("claims to have blob"), "{stderr}");
}

#[test]
fn an_account_without_read_rights_is_reported_once_and_can_push() {
    for fault in [Fault::Status(403), Fault::Unauthorized] {
        let it = Shared::new();
        let proxy = Proxy::with_tokens(it.target.host());
        proxy.when("GET", "/blobs/sha256").always().fault(fault.clone());
        let (code, stderr) = import(&it.bundle, &proxy.address, &["--jobs", "1", "--creds", "robot:secret"]);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(stderr.matches("may not read from").count(), 1, "{stderr}");
        let blobs: HashSet<String> =
            reads_of_blobs(&proxy.seen()).into_iter().map(|read| read.target.clone()).collect();
        assert_eq!(blobs.len(), 1, "one request is enough: {fault:?}");
        assert!(it.is_pushed());
    }
}

#[test]
fn a_push_by_an_account_without_read_rights_succeeds_with_one_warning() {
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
fn storage_that_refuses_everything_is_not_evidence_of_damage() {
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
fn an_unchanged_import_reads_no_blob_and_a_new_tag_one_byte_of_each() {
    let it = Shared::new();
    let reads = || it.target.requests().iter().filter(|r| r.method == "GET" && r.path.contains("/blobs/")).count();
    assert_eq!(import(&it.bundle, it.target.host(), &[]).0, Some(0));
    assert_eq!(reads(), it.image.blobs.len(), "one for each blob the import relies on");
    let before = reads();
    let (code, stderr) = import(&it.bundle, it.target.host(), &[]);
    assert!(code == Some(0) && stderr.contains("1 present"), "{stderr}");
    assert_eq!(reads(), before);
}

#[test]
fn an_empty_blob_is_verified_too() {
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
fn a_lost_file_is_restored_and_a_truncated_one_reported_in_every_repository() {
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
        assert!(stderr.contains("2 failed") && stderr.contains("still has the old content"), "{stderr}");
        assert!(stderr.contains("`gapferry check`"), "{stderr}");
        for image in &images {
            assert_eq!(target.digest(&image.repository, "1"), None, "an unpullable image gets no tag");
        }
        // Follows the remedy in the message.
        std::fs::remove_file(&data).unwrap();
        assert_eq!(import(&bundle, target.host(), &[]).0, Some(0));
    }
}

#[test]
fn reupload_detects_a_registry_that_keeps_its_old_file() {
    let it = Shared::new();
    let data = data_of(&it.target, &it.layer().0);
    std::fs::write(&data, b"cut").unwrap();
    let (code, stderr) = import(&it.bundle, it.target.host(), &["--reupload"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("still has the old content") && stderr.contains("`gapferry check`"), "{stderr}");
    assert!(!it.is_pushed());
}

#[tokio::test]
async fn a_blob_is_mounted_only_from_a_repository_where_it_can_be_read() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let images = ["team/app", "team/other"].map(|name| images::oci(name, "1", &["shared"]));
    let bundle = export(&source, &[&images[0], &images[1]], directory.path());
    // The first image is complete at the target, so nothing of it has to be pushed; the other takes its blobs from
    // there.
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
async fn an_increment_whose_base_is_unreadable_at_the_target_pushes_nothing() {
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
    assert!(stderr.contains("claims to have and cannot return") && stderr.contains("nothing was pushed"), "{stderr}");
    assert_eq!(server.count("PUT", "/"), 0);
    // The missing content is written down, and the resulting repair works.
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

#[tokio::test]
async fn garbage_collected_blobs_are_reported_in_one_warning() {
    let it = Shared::new();
    let host = it.target.host().to_owned();
    let (layers, contents) = (it.image.blobs[1..].to_vec(), it.image.blobs[1..].to_vec());
    layers.iter().for_each(|layer| std::fs::remove_file(data_of(&it.target, &sha256(layer))).unwrap());
    let server = Server::start(move |request, _| {
        let claims = |layer: &&Vec<u8>| request.method == "HEAD" && asks_for_blob(request, &sha256(layer));
        match contents.iter().find(claims) {
            Some(layer) => claimed(layer, request),
            None => exchange(&host, request).unwrap(),
        }
    });
    let server = server.await;
    let (code, stderr) = import(&it.bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stderr.matches("warning:").count(), 1, "{stderr}");
    assert!(layers.iter().all(|layer| stderr.contains(&sha256(layer))) && it.is_pushed(), "{stderr}");
}

/// A cache may answer HEAD for a tag whose image was garbage-collected.
#[tokio::test]
async fn a_tag_that_only_head_finds_is_pushed_again_if_blobs_are_missing() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let image = images::oci("team/app", "1", &["one"]);
    let signature = cosign::list(&image, "sig", &[cosign::signature(&image, "vendor")]);
    signature.push(&source);
    let bundle = export(&source, &[&image], directory.path());
    // Adds another tag, so that the repository is not new.
    images::oci("team/app", "other", &["other"]).push(&target);
    let (host, claimed) = (target.host().to_owned(), [image.clone(), signature.clone()]);
    let server = Server::start(move |request, _| {
        let name = request.target.rsplit_once("/manifests/").filter(|_| request.method == "HEAD").map(|(_, name)| name);
        let is_named = |image: &&Image| name == image.tag.as_deref() || name == Some(&*image.digest());
        match claimed.iter().find(is_named) {
            Some(image) => Answer::new(200)
                .with("Docker-Content-Digest", image.digest())
                .with("Content-Type", &*image.media_type)
                .with("Content-Length", image.manifest.len().to_string()),
            None => exchange(&host, request).unwrap(),
        }
    });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    for pushed in [&image, &signature] {
        assert_eq!(target.digest("team/app", pushed.tag.as_deref().unwrap()), Some(pushed.digest()), "{stderr}");
    }
}

/// distribution answers 201 and keeps its existing file, even if no repository links it. A file truncated by a full
/// disk would become an image that cannot be pulled.
#[test]
fn a_damaged_unlinked_file_is_detected_when_its_blob_is_uploaded() {
    for left in ["", "cut"] {
        let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
        let images = ["team/app", "team/other"].map(|name| images::oci(name, "1", &["shared"]));
        let bundle = export(&source, &[&images[0], &images[1]], directory.path());
        let data = data_of(&target, &sha256(&images[0].blobs[1]));
        std::fs::create_dir_all(data.parent().unwrap()).unwrap();
        std::fs::write(&data, left).unwrap();
        let (code, stderr) = import(&bundle, target.host(), &[]);
        assert_eq!(code, Some(1), "{left:?}: {stderr}");
        assert!(stderr.contains("2 failed") && stderr.contains("still has the old content"), "{left:?}: {stderr}");
        assert!(stderr.contains("`gapferry check`"), "{left:?}: {stderr}");
        for image in &images {
            assert_eq!(target.digest(&image.repository, "1"), None, "an unpullable image gets no tag");
        }
        // Follows the remedy in the message.
        std::fs::remove_file(&data).unwrap();
        assert_eq!(import(&bundle, target.host(), &[]).0, Some(0));
    }
}

#[tokio::test]
async fn after_a_false_claim_uploads_to_that_target_are_verified_too() {
    let it = Shared::new();
    let (source, directory) = (Registry::start(), tempdir());
    let image = images::oci("team/app", "1", &["one", "two", "three"]);
    let bundle = export(&source, &[&image], directory.path());
    let cut = data_of(&it.target, &sha256(&image.blobs[3]));
    std::fs::create_dir_all(cut.parent().unwrap()).unwrap();
    std::fs::write(&cut, b"cut").unwrap();
    let ((digest, content), host) = (it.layer(), it.target.host().to_owned());
    let third = image.blobs[3].clone();
    std::fs::remove_file(data_of(&it.target, &digest)).unwrap();
    let server = Server::start(move |request, _| match request.method == "HEAD" && asks_for_blob(request, &digest) {
        true => claimed(&content, request),
        // The registry announces the byte and closes the connection.
        false => exchange(&host, request).unwrap_or_else(|_| claimed(&third, request).but(Fault::Truncate(0))),
    });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &["--retries", "1"]);
    assert!(code == Some(1) && stderr.contains("still has the old content"), "{stderr}");
    assert!(!it.is_pushed(), "an unpullable image gets no tag");
}
