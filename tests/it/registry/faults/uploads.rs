//! Uploads that are interrupted, cancelled, refused or lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gapferry::base::error::{Kind, Reason};
use gapferry::base::progress::Event;
use gapferry::content::Sink;
use gapferry::credentials::{Credentials, Store};
use gapferry::transport::registry::Config;

use super::repo;
use crate::registry::memory_source::{self, MemorySource, noise, repository};
use crate::registry::{client, config, watched};
use crate::support::faulty::{Answer, Fault, Server, Stage, last_byte};

#[tokio::test]
async fn a_cancelled_upload_restarts_from_post() {
    let server = Server::registry(|request, before| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", format!("/u/{before}")),
        "GET" => last_byte(request).unwrap(),
        _ if before < 4 => Answer::new(404).body(r#"{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}"#),
        _ => Answer::new(201),
    });
    let server = server.await;
    let memory = MemorySource::default();
    let blob = memory.add(noise(200_000));
    memory_source::push(&client(config()), &repo(&server), &memory, &[&blob]).await.unwrap();
    let order: Vec<String> = server.seen().into_iter().map(|request| request.method).collect();
    assert_eq!(order, ["POST", "PUT", "POST", "PUT", "POST", "PUT", "GET"]);
    assert_eq!(server.seen()[0].header("content-length"), "0");
}

#[tokio::test]
async fn a_refused_upload_is_reported_in_the_registrys_words_and_not_retried() {
    for (status, kind) in [(403, Kind::Refused), (413, Kind::Refused), (412, Kind::Refused), (405, Kind::Refused)] {
        let body = r#"{"errors":[{"code":"DENIED","message":"quota will exceed the configured upper limit"}]}"#;
        let server = Server::registry(move |_, _| Answer::new(status).body(body)).await;
        let memory = MemorySource::default();
        let blob = memory.add("x");
        let error = memory_source::push(&client(config()), &repo(&server), &memory, &[&blob]).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains("configured upper limit"), "{error}");
        assert_eq!(server.seen().len(), 1);
    }
}

/// Otherwise each layer would be tried for two minutes, and the advice would be to retry: only space helps. A server
/// error that mentions a full disk is retried once, because another replica may have space.
#[tokio::test]
async fn a_full_disk_at_the_registry_is_reported_soon() {
    // As distribution writes it, with the error of Go's `os`.
    let detail = r#"{"DriverName":"filesystem","Enclosed":{"Op":"mkdir","Path":"/var/lib/registry/docker","Err":28}}"#;
    let distribution = format!(r#"{{"errors":[{{"code":"UNKNOWN","message":"unknown error","detail":{detail}}}]}}"#);
    for (status, body, tries) in [(500, distribution.as_str(), 2), (507, "", 1)] {
        for full in ["POST", "PATCH", "PUT /u", "PUT /v2/", "mount"] {
            let full_disk = Answer::new(status).body(body);
            let server = Server::registry(move |request, _| {
                let (method, target) = (request.method.as_str(), request.target.as_str());
                let name = format!("{method} {target}");
                match method {
                    _ if name.starts_with(full) || full == "mount" && target.contains("mount=") => full_disk.clone(),
                    "POST" | "PATCH" => Answer::new(202).with("Location", "/u"),
                    "PUT" => Answer::new(201),
                    _ => Answer::new(404),
                }
            });
            let server = server.await;
            let (memory, large_blob) = (MemorySource::default(), if full == "PATCH" { 1 } else { u64::MAX });
            let (blob, other) = (memory.add("content"), repository(&server.address, "other"));
            let to = client(Config { large_blob, retry_budget: Some(Duration::from_secs(60)), ..config() });
            let pushed = async {
                match full {
                    "mount" => to.mount(&repo(&server), &blob, &other).await.map(drop),
                    "PUT /v2/" => {
                        let image = memory_source::image(&blob, &[], None);
                        to.put_manifest(&memory_source::tag(&repo(&server), "v1"), &image).await.map(drop)
                    }
                    _ => memory_source::push(&to, &repo(&server), &memory, &[&blob]).await,
                }
            };
            let error = pushed.await.unwrap_err();
            let found = (error.kind(), error.reason().cloned());
            assert_eq!(found, (Kind::Refused, Some(Reason::Full { left: 0 })), "{status} {full}: {error:?}");
            let (method, path) = full.split_once(' ').unwrap_or((full.replace("mount", "POST").leak(), "/"));
            assert_eq!(server.count(method, path), tries, "{status} {full}");
        }
    }
}

/// The storage of one project, or one of many, would otherwise close the whole registry.
#[tokio::test]
async fn a_full_disk_elsewhere_or_in_one_answer_does_not_end_all_uploads() {
    let full = || Answer::new(500).body("write /tmp/x: no space left on device");
    let elsewhere = Server::start(move |_, _| full()).await;
    for is_elsewhere in [true, false] {
        let to = if is_elsewhere { format!("http://{}/u", elsewhere.address) } else { "/u".to_owned() };
        let puts = Arc::new(AtomicUsize::new(0));
        let server = Server::registry(move |request, _| match request.method.as_str() {
            "POST" => Answer::new(202).with("Location", to.clone()),
            "PUT" if puts.fetch_add(1, Ordering::SeqCst) == 0 => full(),
            "PUT" => Answer::new(201),
            _ => last_byte(request).filter(|_| !is_elsewhere).unwrap_or(Answer::new(404)),
        });
        let (server, memory) = (server.await, MemorySource::default());
        let blob = memory.add("content");
        let pushed = memory_source::push(&client(config()), &repo(&server), &memory, &[&blob]).await;
        match is_elsewhere {
            true => assert_eq!(pushed.unwrap_err().reason(), None),
            false => pushed.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_failed_mount_leads_to_an_upload() {
    let answers = Arc::new(AtomicUsize::new(0));
    let statuses = [401, 403, 404, 405, 202];
    let turn = answers.clone();
    let server = Server::registry(move |request, _| match request.target.contains("mount=") {
        true => Answer::new(statuses[turn.fetch_add(1, Ordering::SeqCst)]).with("Location", "/expired"),
        false if request.target.starts_with("/expired") => Answer::new(404),
        false if request.method == "POST" => Answer::new(202).with("Location", "/u"),
        false => Answer::new(201),
    });
    let server = server.await;
    let registries = client(config());
    let memory = MemorySource::default();
    let blob = memory.add("content");
    for _ in statuses {
        let other = repository(&server.address, "other");
        assert!(!registries.mount(&repo(&server), &blob, &other).await.unwrap());
    }
    memory_source::push(&registries, &repo(&server), &memory, &[&blob]).await.unwrap();
    assert_eq!(server.count("PUT", "/expired"), 1);
    assert_eq!(server.count("PUT", "/u"), 1);
}

/// A mount only saves an upload; nothing depends on it.
#[tokio::test]
async fn a_mount_without_an_answer_is_not_retried() {
    let server = taking().await;
    server.when("POST", "mount=").always().fault(Fault::Reset(Stage::Request));
    let registries = client(config());
    let memory = MemorySource::default();
    let blobs = ["one", "two", "three"].map(|content| memory.add(content));
    let other = repository(&server.address, "other");
    for blob in &blobs {
        assert!(!registries.mount(&repo(&server), blob, &other).await.unwrap());
    }
    assert_eq!(server.count("POST", "/v2/a/b/blobs/uploads/?mount="), 1);
}

/// At a registry that accepts manifests unchecked, the image would lack its layers.
#[tokio::test]
async fn a_mount_that_does_not_link_the_blob_does_not_count() {
    for links in [false, true] {
        let server = Server::registry(move |request, _| match request.method.as_str() {
            "POST" if request.target.contains("mount=") => Answer::new(201),
            "POST" => Answer::new(202).with("Location", "/u"),
            "PUT" => Answer::new(201),
            _ if links => Answer::new(206).with("Content-Range", "bytes 2-2/3").body("e"),
            _ => Answer::new(404),
        });
        let server = server.await;
        let registries = client(config());
        let memory = MemorySource::default();
        let other = repository(&server.address, "other");
        for content in ["one", "two", "six", "ten", "ace"] {
            let mounted = registries.mount(&repo(&server), &memory.add(content), &other).await.unwrap();
            assert_eq!(mounted, links, "{content}");
        }
        // A registry that really links is checked once per repository; one that does not gets no further mounts.
        let (mounts, reads) =
            (server.count("POST", "/v2/a/b/blobs/uploads/?mount="), server.count("GET", "/v2/a/b/blobs/sha256"));
        assert_eq!((mounts, reads), if links { (5, 1) } else { (3, 3) });
    }
}

#[tokio::test]
async fn a_blob_of_another_size_at_the_target_counts_as_absent() {
    let server = Server::registry(|_, _| Answer::new(200).body("12345")).await;
    let (registries, events) = watched(config());
    assert!(!registries.has_blob(&repo(&server), &MemorySource::default().add("1234")).await.unwrap());
    assert!(registries.has_blob(&repo(&server), &MemorySource::default().add("12345")).await.unwrap());
    assert!(
        events
            .events()
            .iter()
            .any(|e| matches!(e, Event::Warning(text) if text.contains("5 bytes there instead of 4")))
    );
}

/// Accepts every upload, unless a rule says otherwise.
async fn taking() -> Server {
    Server::start(|request, _| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/u"),
        "PUT" => Answer::new(201),
        _ => Answer::new(200),
    })
    .await
}

#[tokio::test]
async fn a_refusal_sent_before_the_body_is_read_is_reported() {
    let server = taking().await;
    server.when("PUT", "/u").always().fault(Fault::Hasty(403));
    let memory = MemorySource::default();
    let blob = memory.add(noise(20_000_000));
    let error = memory_source::push(&client(config()), &repo(&server), &memory, &[&blob]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.chain().contains("by order of the test"), "{error:?}");
    assert_eq!(server.count("PUT", "/u"), 1);
}

#[tokio::test]
async fn a_registry_that_stops_taking_an_upload_is_given_up() {
    let server = taking().await;
    server.when("PUT", "/u").always().fault(Fault::Stall(Stage::RequestBody(1000)));
    let memory = MemorySource::default();
    let blob = memory.add(noise(20_000_000));
    let quick = Config { stall_timeout: Duration::from_millis(300), retries: 1, ..config() };
    let error = memory_source::push(&client(quick), &repo(&server), &memory, &[&blob]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Network, "{error:?}");
    assert!(error.chain().contains(&blob.digest.to_string()), "{error:?}");
    assert_eq!(server.count("PUT", "/u"), 2);
}

#[tokio::test]
async fn a_registry_that_trickles_an_upload_is_given_up() {
    for (large_blob, method) in [(u64::MAX, "PUT"), (1, "PATCH")] {
        let server = taking().await;
        server.when(method, "/u").always().fault(Fault::Drip(usize::MAX));
        let memory = MemorySource::default();
        let blob = memory.add(noise(20_000_000));
        let stall_timeout = Duration::from_millis(200);
        let quick = Config { stall_timeout, retries: 1, large_blob, ..config() };
        let error = memory_source::push(&client(quick), &repo(&server), &memory, &[&blob]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Network, "{error:?}");
        assert!(error.chain().contains("less than 32 KiB"), "{error:?}");
    }
}

/// Some registries take content only by PATCH, and some only in the closing PUT (see `sessions`).
#[tokio::test]
async fn a_registry_that_takes_no_content_by_put_gets_it_by_patch() {
    let server = Server::registry(|request, _| match (request.method.as_str(), request.body.is_empty()) {
        ("POST" | "PATCH", _) => Answer::new(202).with("Location", "/u"),
        ("PUT", false) => Answer::new(405),
        ("PUT", true) => Answer::new(201),
        _ => last_byte(request).unwrap_or(Answer::new(404)),
    });
    let server = server.await;
    let (registries, memory) = (client(config()), MemorySource::default());
    let blobs = [memory.add("one"), memory.add("two")];
    memory_source::push(&registries, &repo(&server), &memory, &[&blobs[0], &blobs[1]]).await.unwrap();
    let order: Vec<String> = server.seen().into_iter().map(|request| request.method).collect();
    assert_eq!(order, ["POST", "PUT", "PATCH", "PUT", "GET", "POST", "PATCH", "PUT", "GET"], "detected once");

    let server = Server::registry(|request, _| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/u"),
        _ => Answer::new(405),
    });
    let server = server.await;
    let blob = memory.add("three");
    let error = memory_source::push(&client(config()), &repo(&server), &memory, &[&blob]).await.unwrap_err();
    assert!(error.kind() == Kind::Refused && server.seen().len() < 10, "{error:?}");
}

/// Some gateways redirect content to the storage behind them, and some to another of their addresses.
#[tokio::test]
async fn a_redirected_upload_follows_without_credentials() {
    for (large_blob, method) in [(u64::MAX, "PUT"), (1, "PATCH")] {
        let other = Server::start(|_, _| Answer::new(201)).await;
        let to = format!("http://{}/bucket?signature=topsecret", other.address);
        let server = Server::registry(move |request, _| match request.method.as_str() {
            _ if request.header("authorization").is_empty() => {
                Answer::new(401).with("WWW-Authenticate", r#"Basic realm="r""#)
            }
            "POST" => Answer::new(202).with("Location", "/u?state=1"),
            "GET" => last_byte(request).unwrap(),
            _ if request.method != method => Answer::new(201),
            // Redirects once to another path of its own, then elsewhere.
            _ if !request.target.contains("moved") => Answer::new(308).with("Location", "/moved?state=2"),
            _ => Answer::new(307).with("Location", to.clone()),
        });
        let server = server.await;
        let mut credentials = Store::anonymous();
        credentials.set(&server.address, Credentials::basic("user", "topsecret"));
        let memory = MemorySource::default();
        let blob = memory.add(noise(50_000));
        let to = client(Config { large_blob, credentials, ..config() });
        memory_source::push(&to, &repo(&server), &memory, &[&blob]).await.unwrap();
        let sent = |server: &Server, target: &str| -> Vec<(usize, bool)> {
            let seen = server.seen().into_iter().filter(|seen| seen.method == method && seen.target == target);
            seen.map(|seen| (seen.body.len(), !seen.header("authorization").is_empty())).collect()
        };
        assert_eq!(sent(&server, "/moved?state=2"), [(50_000, true)], "{method}");
        assert_eq!(sent(&other, "/bucket?signature=topsecret"), [(50_000, false)], "{method}");
    }
}

#[tokio::test]
async fn an_upload_redirected_endlessly_or_refused_elsewhere_names_the_host() {
    let elsewhere = Server::start(|_, _| Answer::new(403)).await;
    for (to, says) in [(None, "redirects the upload"), (Some(elsewhere.address.clone()), "403 Forbidden (from http://")]
    {
        let server = Server::registry(|request, _| match request.method.as_str() {
            "POST" => Answer::new(202).with("Location", "/u"),
            _ => Answer::new(404),
        });
        let server = server.await;
        let to = to.unwrap_or_else(|| server.address.clone());
        server.when("PUT", "").always().fault(Fault::Redirect(to.clone()));
        let memory = MemorySource::default();
        let blob = memory.add("x");
        let error = memory_source::push(&client(config()), &repo(&server), &memory, &[&blob]).await.unwrap_err();
        assert!(error.chain().contains(says) && error.chain().contains(&to), "{error:?}");
    }
}

/// Reported as an outage of the registry, the problem would be sought in the wrong place.
#[tokio::test]
async fn an_upload_redirect_to_an_unresolvable_name_is_reported_with_the_name() {
    // Longer than a DNS label may be, so no name server is queried.
    let unknown = "x".repeat(70);
    let location = format!("http://{unknown}:5000/u?state=topsecret");
    let server = Server::registry(move |request, _| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", location.clone()),
        _ => Answer::new(404),
    });
    let server = server.await;
    let memory = MemorySource::default();
    let blob = memory.add("x");
    let (registries, _) = watched(Config { retry_budget: Some(Duration::from_secs(60)), ..config() });
    let error = memory_source::push(&registries, &repo(&server), &memory, &[&blob]).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Refused, Some(&Reason::UnknownUploadHost)), "{error:?}");
    let message = error.chain();
    assert!(!message.contains("topsecret"), "{message}");
    let expected = format!("{} sends uploads to {unknown}:5000, whose name cannot be resolved here", server.address);
    assert!(message.contains(&expected), "{message}");
    // A token server whose name does not resolve gets its own message.
    let challenge = format!("Bearer realm=\"http://{unknown}:5000/token\",service=\"r\"");
    let server = Server::start(move |_, _| Answer::new(401).with("WWW-Authenticate", challenge.clone())).await;
    let error = memory_source::push(&registries, &repo(&server), &memory, &[&blob]).await.unwrap_err();
    assert_eq!(error.reason(), None, "{error:?}");
}
