//! Content that the target claims but lacks is sent again, once.

use super::*;

/// A server before a real registry with a cache that claims these blobs until they are uploaded.
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
async fn a_blob_falsely_claimed_by_the_target_is_uploaded_once_for_all_images() {
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
async fn a_mount_without_effect_ends_in_an_upload() {
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
async fn a_falsely_claimed_child_manifest_is_pushed_again_with_its_blobs() {
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
            // The same cache claims the child's config.
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

/// A server before a real registry that answers 201 to the manifests of `digests` and stores nothing, as distribution
/// does while its cache remembers garbage-collected content.
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
async fn a_manifest_accepted_but_not_stored_fails_its_image_with_a_remedy() {
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
    assert_eq!(target.digest("team/app", "1"), None, "an unpullable image gets no tag");
}

#[tokio::test]
async fn a_target_that_stores_nothing_is_reported_in_one_line_for_all_images() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let images = (0..8).map(|nth| images::oci(&format!("team/app{nth}"), "1", &[&format!("content {nth}")]));
    let images: Vec<Image> = images.collect();
    let bundle = export(&source, &images.iter().collect::<Vec<_>>(), directory.path());
    let server = swallows(&target, images.iter().map(Image::digest).collect()).await;
    let (code, stderr) = import(&bundle, &server.address, &["--retries", "0"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(stderr.matches("failed:").count(), 1, "{stderr}");
    assert!(stderr.contains("8 images (") && stderr.contains("accepted the manifest and does not have it"), "{stderr}");
}

/// A cache that outlived a garbage collection claims the blobs of many repositories.
#[tokio::test]
async fn blobs_missing_in_many_repositories_cause_at_most_two_warnings() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let images = (0..6).map(|nth| images::oci(&format!("team/app{nth}"), "1", &[&format!("content {nth}")]));
    let images: Vec<Image> = images.collect();
    let bundle = export(&source, &images.iter().collect::<Vec<_>>(), directory.path());
    (0..6).for_each(|nth| images::oci(&format!("team/app{nth}"), "0", &["older"]).push(&target));
    let server = stale_cache(&target, images.iter().map(|image| image.blobs[1].clone()).collect()).await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("claimed to have 6 blobs in 6 repositories"), "{stderr}");
    assert_eq!(stderr.matches("warning:").count(), 2, "{stderr}");
}

#[tokio::test]
async fn a_referrers_list_accepted_but_not_stored_is_detected() {
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
    assert!(stderr.contains("accepted the list and does not have it"), "{stderr}");
    assert_eq!(target.digest("team/app", "1"), Some(image.digest()), "the image does not need the list");
}

#[tokio::test]
async fn a_target_that_does_not_name_missing_blobs_gets_the_whole_image() {
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
            // Harbor's answer.
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
async fn a_target_that_loses_a_resent_blob_is_reported_as_damaged() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let image = images::oci("team/app", "1", &["one"]);
    let bundle = export(&source, &[&image], directory.path());
    image.named("team/app", "0").push(&target);
    let (host, layer) = (target.host().to_owned(), sha256(&image.blobs[1]));
    let text = format!(r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","detail":"{layer}"}}]}}"#);
    let server =
        Server::start(move |request, _| match request.method == "PUT" && request.target.contains("/manifests/") {
            true => Answer::new(400).body(&*text),
            false => exchange(&host, request).unwrap(),
        });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert_eq!(code, Some(1), "{stderr}");
    for says in ["has a damaged or stale copy", &layer, "`gapferry check`", "restart the registry"] {
        assert!(stderr.contains(says), "{says}: {stderr}");
    }
    assert_eq!(uploads_of(&server, &layer), 1, "once, not again and again");
    assert_eq!(target.digest("team/app", "1"), None);
}

#[tokio::test]
async fn a_consumed_stream_is_reported_with_a_remedy_that_works() {
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

/// Each refusal of a manifest costs tries of its own: one is enough to see that mounts here have no effect.
#[tokio::test]
async fn after_one_false_mount_all_blobs_are_checked_before_the_manifest_is_retried() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let layers = ["a", "b", "c", "d"];
    let images = ["team/one", "team/two"].map(|name| images::oci(name, "1", &layers));
    let bundle = export(&source, &[&images[0], &images[1]], directory.path());
    let host = target.host().to_owned();
    let server = Server::start(move |request, _| {
        if request.target.contains("mount=") {
            return Answer::new(201);
        }
        let mut answer = exchange(&host, request).unwrap();
        if answer.status == 400 && request.target.contains("/manifests/") {
            // One blob at a time.
            let report: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            answer = Answer::new(400).body(serde_json::json!({"errors": [report["errors"][0]]}).to_string());
        }
        answer
    });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    let puts =
        server.seen().into_iter().filter(|request| request.method == "PUT" && request.target.contains("/manifests/"));
    assert!(puts.count() <= 4, "one accepted; one refused, retried and accepted: {stderr}");
    for image in &images {
        assert_eq!(target.digest(&image.repository, "1"), Some(image.digest()));
    }
}

#[tokio::test]
async fn manifest_unknown_from_a_registry_causes_no_blob_upload() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let image = images::oci("team/app", "1", &["one"]);
    let bundle = export(&source, &[&image], directory.path());
    let host = target.host().to_owned();
    let text = format!(r#"{{"errors":[{{"code":"MANIFEST_UNKNOWN","detail":"{}"}}]}}"#, image.digest());
    let server =
        Server::start(move |request, _| match request.method == "PUT" && request.target.contains("/manifests/") {
            true => Answer::new(400).body(&*text),
            false => exchange(&host, request).unwrap(),
        });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert!(code == Some(1) && stderr.contains("MANIFEST_UNKNOWN"), "{stderr}");
    assert_eq!(server.count("PUT", "/v2/team/app/manifests/"), 2, "one retry and no more");
    for digest in image.blob_digests() {
        assert_eq!(uploads_of(&server, &digest), 1);
    }
}
