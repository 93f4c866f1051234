//! A registry under load: few simultaneous uploads into one project, and patience when it denies content it just
//! accepted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use gapferry::base::error::Kind;
use gapferry::content::{Lookup, Sink};
use gapferry::oci::{Algorithm, Descriptor, Digest, Manifest, media_type};
use gapferry::routes::Routes;
use gapferry::transport::registry::{Config, Registries};

use crate::registry::memory_source::{self, MemorySource, image, noise, repository, tag};
use crate::registry::{client, config};
use crate::support::faulty::{Answer, Fault, Seen, Server, Sessions, Stage, last_byte};

/// Accepts blobs and serves each of them once; other requests go to `other`, with the number of earlier ones.
async fn taking(other: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Server {
    let (asked, unread) = (AtomicUsize::new(0), Mutex::new(0));
    Server::registry(move |request, _| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/u"),
        "PUT" if request.target.starts_with("/u") => {
            *unread.lock().unwrap() += 1;
            Answer::new(201)
        }
        "GET" if request.byte().is_some() && *unread.lock().unwrap() > 0 => {
            *unread.lock().unwrap() -= 1;
            last_byte(request).unwrap()
        }
        _ => other(request, asked.fetch_add(1, Ordering::SeqCst)),
    })
    .await
}

/// The requests of six simultaneous pushes into one project.
async fn asked_by_six_pushes(server: &Server, registries: &Registries) -> Vec<String> {
    registries.limit_uploads_per_project(&server.address, 1);
    let memory = MemorySource::default();
    let blobs: Vec<Descriptor> = (1..7).map(|n| memory.add(noise(n * 1000))).collect();
    let pushes = blobs.iter().enumerate().map(|(n, blob)| {
        let (memory, repo) = (&memory, repository(&server.address, &format!("project/app{n}")));
        async move { memory_source::push(registries, &repo, memory, &[blob]).await }
    });
    assert!(join_all(pushes).await.into_iter().all(|pushed| pushed.is_ok()));
    let (reads, asked): (Vec<Seen>, Vec<Seen>) =
        server.seen().into_iter().partition(|request| request.byte().is_some());
    assert_eq!(reads.len(), 6, "each blob is read once, while the next one is uploaded");
    asked.into_iter().map(|request| request.method).collect()
}

#[tokio::test]
async fn uploads_into_one_project_take_turns() {
    let server = taking(|_, _| Answer::new(404)).await;
    let asked = asked_by_six_pushes(&server, &client(config())).await;
    assert_eq!(asked, ["POST", "PUT"].repeat(6));
}

/// A project limited to one operation at a time, on a server where the first matching request stalls.
async fn project_with_one_that_stands(method: &str, part: &str, stage: Stage) -> (Arc<Server>, Registries) {
    let server = Arc::new(taking(|_, _| Answer::new(201)).await);
    server.when(method, part).fault(Fault::Stall(stage));
    let registries = client(config());
    registries.limit_uploads_per_project(&server.address, 1);
    (server, registries)
}

async fn stands(server: &Arc<Server>) -> bool {
    let server = server.clone();
    tokio::task::spawn_blocking(move || server.wait(Duration::from_secs(30), |now| now.stalls == 1)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_does_not_wait_for_a_large_upload_into_its_project() {
    let (server, registries) = project_with_one_that_stands("PUT", "/u", Stage::RequestBody(1000)).await;
    let (busy, repo) = (registries.clone(), repository(&server.address, "project/large"));
    let upload = tokio::spawn(async move {
        let memory = MemorySource::default();
        memory_source::push(&busy, &repo, &memory, &[&memory.add(noise(900_000))]).await
    });
    assert!(stands(&server).await, "the upload is under way");
    let [to, from] = ["project/to", "project/from"].map(|path| repository(&server.address, path));
    registries.mount(&to, &MemorySource::default().add("content"), &from).await.unwrap();
    let asked: Vec<String> = server.seen().into_iter().map(|request| request.target).collect();
    assert!(asked.len() == 3 && asked[2].contains("mount="), "{asked:?}");
    server.release();
    upload.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_into_one_project_take_turns_and_delay_no_upload() {
    let (server, registries) = project_with_one_that_stands("POST", "mount=", Stage::Request).await;
    let (memory, repo) = (MemorySource::default(), |n: usize| repository(&server.address, &format!("project/app{n}")));
    let blob = memory.add("content");
    let mounts = (1..7).map(|n| {
        let (registries, blob, to, from) = (registries.clone(), blob.clone(), repo(n), repo(0));
        tokio::spawn(async move { registries.mount(&to, &blob, &from).await })
    });
    let mounts: Vec<_> = mounts.collect();
    assert!(stands(&server).await, "a mount is under way");
    memory_source::push(&registries, &repo(0), &memory, &[&blob]).await.unwrap();
    let mounting = |server: &Server| server.seen().iter().filter(|asked| asked.target.contains("mount=")).count();
    assert_eq!(mounting(&server), 1);
    server.release();
    for mounted in join_all(mounts).await {
        mounted.unwrap().unwrap();
    }
    assert_eq!(mounting(&server), 6, "a mount without an answer is not retried: its blob is uploaded");
}

/// If Harbor gets several mounts of one blob at once, it charges the project's quota for each of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_mounted_into_a_project_once_at_a_time_without_delaying_others() {
    let (server, registries) = project_with_one_that_stands("POST", "mount=", Stage::Request).await;
    registries.limit_uploads_per_project(&server.address, 4);
    let (memory, repo) = (MemorySource::default(), |n: usize| repository(&server.address, &format!("project/app{n}")));
    let (blob, other) = (memory.add("content"), memory.add("other"));
    let mounts = (1..4).map(|n| {
        let (registries, blob, to, from) = (registries.clone(), blob.clone(), repo(n), repo(0));
        tokio::spawn(async move { registries.mount(&to, &blob, &from).await })
    });
    let mounts: Vec<_> = mounts.collect();
    assert!(stands(&server).await, "a mount is under way");
    registries.mount(&repo(1), &other, &repo(0)).await.unwrap();
    let of_blob = |asked: &&Seen| asked.target.contains(&format!("mount={}", blob.digest));
    assert_eq!(server.seen().iter().filter(of_blob).count(), 1);
    server.release();
    for mounted in join_all(mounts).await {
        mounted.unwrap().unwrap();
    }
}

#[tokio::test]
async fn uploads_take_turns_even_if_registries_conf_covers_part_of_the_registry() {
    for tls_verify in [None, Some(false)] {
        let server = taking(|_, _| Answer::new(404)).await;
        let text = format!("[[registry]]\nlocation = '{}/project'\ninsecure = true\n", server.address);
        let routes = Routes::parse(&[("registries.conf".into(), text.into())]).unwrap();
        let mut config = Config { routes, ..config() };
        config.tls.verify = tls_verify;
        let asked = asked_by_six_pushes(&server, &client(config)).await;
        assert_eq!(asked, ["POST", "PUT"].repeat(6));
    }
}

#[tokio::test]
async fn projects_do_not_wait_for_each_other() {
    // Each POST is answered only once the other project's POST has arrived.
    let (arrived, changed) = (Mutex::new(0), Condvar::new());
    let server = Server::registry(move |request, _| {
        if request.method == "POST" {
            let mut arrived = arrived.lock().unwrap();
            *arrived += 1;
            changed.notify_all();
            let (_arrived, waited) =
                changed.wait_timeout_while(arrived, Duration::from_secs(30), |arrived| *arrived < 2).unwrap();
            return Answer::new(if waited.timed_out() { 403 } else { 202 }).with("Location", "/u");
        }
        Answer::new(201)
    })
    .await;
    let registries = client(config());
    registries.limit_uploads_per_project(&server.address, 1);
    let (memory, registries) = (&MemorySource::default(), &registries);
    let blob = &memory.add("content");
    let pushes = ["one/app", "two/app"].map(|path| {
        let repo = repository(&server.address, path);
        async move { memory_source::push(registries, &repo, memory, &[blob]).await }
    });
    for pushed in join_all(pushes).await {
        pushed.unwrap();
    }
}

#[tokio::test]
async fn a_manifest_refused_for_a_just_uploaded_blob_is_retried() {
    let memory = MemorySource::default();
    let blob = memory.add("{}");
    let denials = [
        (404, r#"{"errors":[{"code":"NOT_FOUND","message":"blob not found"}]}"#.to_owned()),
        (400, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#.to_owned()),
        (400, format!(r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","detail":{{"digest":"{}"}}}}]}}"#, blob.digest)),
    ];
    for (status, message) in denials {
        let server = taking(move |_, before| match before {
            0 | 1 => Answer::new(status).body(message.clone()),
            _ => Answer::new(201),
        });
        let server = server.await;
        let repo = repository(&server.address, "a/b");
        let registries = client(config());
        let manifest = image(&blob, &[], None);
        // Content that this run did not push is simply missing.
        let error = registries.put_manifest(&tag(&repo, "v1"), &manifest).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Refused | Kind::NotFound), "{error:?}");
        memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap();
        registries.put_manifest(&tag(&repo, "v1"), &manifest).await.unwrap();
        assert_eq!(server.count("PUT", "/v2/a/b/manifests/v1"), 3);
    }
}

#[tokio::test]
async fn a_manifest_refused_for_another_blob_fails_at_once() {
    let missing = Digest::sha256(b"never uploaded");
    let message = format!(r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","detail":"{missing}"}}]}}"#);
    let server = taking(move |_, _| Answer::new(400).body(message.clone())).await;
    let (registries, memory) = (client(config()), MemorySource::default());
    let (repo, blob) = (repository(&server.address, "a/b"), memory.add("{}"));
    memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap();
    let error = registries.put_manifest(&tag(&repo, "v1"), &image(&blob, &[], None)).await.unwrap_err();
    assert!(error.to_string().contains(&missing.to_string()), "{error}");
    assert_eq!(server.count("PUT", "/v2/a/b/manifests/"), 1);
}

#[tokio::test]
async fn just_uploaded_content_reported_missing_is_looked_up_again() {
    let looked_for = AtomicUsize::new(0);
    let server = taking(move |request, _| match request.method.as_str() {
        "PUT" => Answer::new(201),
        _ if request.target.contains("/blobs/") && looked_for.fetch_add(1, Ordering::SeqCst) == 5 => {
            Answer::new(200).body("{}")
        }
        _ => Answer::new(404),
    });
    let server = server.await;
    let (registries, memory) = (client(config()), MemorySource::default());
    let (repo, blob) = (repository(&server.address, "a/b"), memory.add("{}"));
    assert!(!registries.has_blob(&repo, &blob).await.unwrap());
    assert_eq!(server.count("HEAD", "/v2/a/b/blobs/"), 1, "one HEAD is enough for an absent blob");
    memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap();
    assert!(registries.has_blob(&repo, &blob).await.unwrap());
    // Each lookup uses HEAD and GET.
    assert_eq!(server.count("HEAD", "/v2/a/b/blobs/"), 3);
    registries.put_manifest(&tag(&repo, "v1"), &image(&blob, &[], None)).await.unwrap();
    // After five tries, the answer is believed.
    assert_eq!(Sink::resolve(&registries, &tag(&repo, "v1")).await.unwrap(), Lookup::Absent);
    assert_eq!(server.count("HEAD", "/v2/a/b/manifests/v1"), 5);
}

#[tokio::test]
async fn a_manifest_stored_by_sha512_counts_as_arrived() {
    let asked = AtomicUsize::new(0);
    let server = taking(move |request, _| match request.method.as_str() {
        "HEAD" if asked.fetch_add(1, Ordering::SeqCst) == 0 => Answer::new(404),
        "PUT" => Answer::new(201),
        "GET" => Answer::new(404),
        _ => Answer::new(200).with("Content-Type", media_type::OCI_INDEX).body("{}"),
    });
    let server = server.await;
    let body = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX);
    let digest = Digest::of(Algorithm::Sha512, body.as_bytes());
    let manifest = Manifest::parse(body.into(), None, Some(&digest)).unwrap();
    let (registries, reference) = (client(config()), repository(&server.address, "a/b").with_digest(digest));
    registries.put_manifest(&reference, &manifest).await.unwrap();
    let found = Sink::resolve(&registries, &reference).await.unwrap();
    assert!(found.means(&digest), "{found:?}");
    assert_eq!(server.count("HEAD", "/v2/a/b/manifests/"), 2);
}

#[tokio::test]
async fn a_blob_whose_mount_ends_in_an_outage_is_uploaded() {
    let server = Server::registry(|request, _| match request.method.as_str() {
        "POST" if request.target.contains("mount=") => Answer::new(500),
        "POST" => Answer::new(202).with("Location", "/u"),
        _ => Answer::new(201),
    });
    let server = server.await;
    let (registries, memory) = (client(config()), MemorySource::default());
    let (repo, blob) = (repository(&server.address, "a/b"), memory.add("content"));
    assert!(!registries.mount(&repo, &blob, &repository(&server.address, "a/c")).await.unwrap());
    memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap();
    assert_eq!(server.count("PUT", "/u"), 1);
}

#[tokio::test]
async fn an_upload_uses_the_session_opened_by_a_failed_mount() {
    for (large_blob, methods) in [(1, &["POST", "PATCH", "PUT", "GET"][..]), (u64::MAX, &["POST", "PUT", "GET"])] {
        let server = Sessions::start();
        let registries = client(gapferry::transport::registry::Config { large_blob, ..config() });
        let (memory, repo) = (MemorySource::default(), repository(&server.address, "a/b"));
        let blob = memory.add(noise(10_000));
        assert!(!registries.mount(&repo, &blob, &repository(&server.address, "a/c")).await.unwrap());
        memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap();
        assert!(server.blob(&blob.digest).unwrap() == noise(10_000));
        let made: Vec<String> = server.asked().into_iter().map(|(method, _)| method).collect();
        assert_eq!(made, methods);
    }
}

/// Left open, the session would stay in the registry's storage for days.
#[tokio::test]
async fn an_unused_upload_session_is_cancelled_at_the_end() {
    let server = Sessions::start();
    let registries = client(config());
    let (memory, repo) = (MemorySource::default(), repository(&server.address, "a/b"));
    let blobs = [memory.add("taken"), memory.add("left")];
    for blob in &blobs {
        assert!(!registries.mount(&repo, blob, &repository(&server.address, "a/c")).await.unwrap());
    }
    memory_source::push(&registries, &repo, &memory, &[&blobs[0]]).await.unwrap();
    registries.finish().await;
    registries.finish().await;
    let made: Vec<String> = server.asked().into_iter().map(|(method, _)| method).collect();
    assert_eq!(made.iter().filter(|method| *method == "DELETE").count(), 1, "{made:?}");
}
