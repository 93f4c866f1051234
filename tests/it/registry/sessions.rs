//! Interrupted large uploads resume where the registry keeps partial content, and restart where it does not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gapferry::base::error::{Kind, Reason};
use gapferry::content::Sink;
use gapferry::credentials::{Credentials, Store};
use gapferry::oci::Descriptor;
use gapferry::transport::registry::Config;

use crate::registry::memory_source::{self, MemorySource, noise, repository};
use crate::registry::{client, config};
use crate::support::embedded::Embedded;
use crate::support::faulty::{Answer, Fault, Form, Host, Proxy, Server, Sessions, Stage, last_byte};
use crate::support::harbor::{Harbor, Project, Setup};
use crate::support::registry::Registry;
use crate::support::tempdir;

const SIZE: usize = 2_000_000;

fn large() -> Config {
    Config { large_blob: 100_000, ..config() }
}

async fn push(host: &Host, content: Vec<u8>, config: Config) -> gapferry::Result<Descriptor> {
    let memory = MemorySource::default();
    let blob = memory.add(content);
    memory_source::push(&client(config), &repository(&host.address, "a/b"), &memory, &[&blob]).await?;
    Ok(blob)
}

fn methods(server: &Sessions) -> Vec<String> {
    server.asked().into_iter().map(|(method, _)| method).collect()
}

#[tokio::test]
async fn a_large_blob_is_one_patch_and_an_empty_put_and_a_small_one_a_single_put() {
    let server = Sessions::start();
    let blob = push(&server, noise(SIZE), large()).await.unwrap();
    assert!(server.blob(&blob.digest).unwrap() == noise(SIZE));
    let asked: Vec<_> = server.asked().into_iter().map(|(method, length)| format!("{method} {length}")).collect();
    assert_eq!(asked, ["POST 0", "PATCH 2000000", "PUT 0", "GET 0"]);
    let seen = server.seen();
    // Harbor counts an upload's size by the announced lengths of its requests.
    assert_eq!(seen[1].header("content-length"), "2000000");
    assert_eq!(seen[1].header("content-range"), "", "a stream has no Content-Range");
    assert_eq!(seen[2].header("content-length"), "0");

    let server = Sessions::start();
    push(&server, noise(99_999), large()).await.unwrap();
    assert_eq!(methods(&server), ["POST", "PUT", "GET"]);
}

#[tokio::test]
async fn a_broken_upload_resumes_where_the_registry_got_to() {
    let server = Sessions::start();
    server.when("PATCH", "").fault(Fault::Reset(Stage::RequestBody(700_000)));
    let blob = push(&server, noise(SIZE), large()).await.unwrap();
    assert!(server.blob(&blob.digest).unwrap() == noise(SIZE));
    let asked: Vec<_> = server.asked().into_iter().map(|(method, length)| format!("{method} {length}")).collect();
    assert_eq!(asked, ["POST 0", "PATCH 700000", "GET 0", "PATCH 1300000", "PUT 0", "GET 0"]);
    assert_eq!(server.seen()[3].header("content-range"), "700000-1999999");
}

/// The refusal is temporary and not about PATCH: received content is not sent again, and later uploads still use PATCH.
#[tokio::test]
async fn an_upload_interrupted_by_read_only_mode_resumes_in_its_session() {
    let (patches, began) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let server = Server::registry(move |request, _| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", format!("/u{}", began.fetch_add(1, Ordering::SeqCst))),
        "GET" if request.byte().is_some() => last_byte(request).unwrap(),
        "GET" => Answer::new(204).with("Location", "/u0").with("Range", "0-699999"),
        "PATCH" if patches.fetch_add(1, Ordering::SeqCst) == 0 => {
            let text = "The system is in read only mode. Any modification is prohibited.";
            Answer::new(403).body(format!(r#"{{"errors":[{{"code":"DENIED","message":"{text}"}}]}}"#))
        }
        "PATCH" => Answer::new(202),
        "PUT" => Answer::new(201),
        _ => Answer::new(404),
    });
    let server = server.await;
    let registries = client(large());
    let (memory, repo) = (MemorySource::default(), repository(&server.address, "a/b"));
    let blobs = [memory.add(noise(SIZE)), memory.add(noise(SIZE + 1))];
    for blob in &blobs {
        memory_source::push(&registries, &repo, &memory, &[blob]).await.unwrap();
    }
    let seen = server.seen();
    let patches: Vec<_> = seen.iter().filter(|request| request.method == "PATCH").collect();
    let from: Vec<&str> = patches.iter().map(|request| request.header("content-range")).collect();
    assert_eq!(from, ["", "700000-1999999", ""], "the second blob goes in pieces as well");
    assert_eq!((server.count("POST", "/v2/"), server.count("PUT", "/u")), (2, 2));
}

#[tokio::test]
async fn breaks_with_enough_progress_between_them_use_up_no_tries() {
    let server = Sessions::start();
    server.when("PATCH", "").times(4).fault(Fault::Reset(Stage::RequestBody(1_500_000)));
    let impatient = Config { retries: 1, ..large() };
    let blob = push(&server, noise(7_000_000), impatient.clone()).await.unwrap();
    assert!(server.blob(&blob.digest).unwrap() == noise(7_000_000));
    assert_eq!(server.count("POST", "/v2/a/b/blobs/uploads/"), 1);
    // A registry that accepts almost nothing each time is given up.
    let server = Sessions::start();
    server.when("PATCH", "").always().fault(Fault::Reset(Stage::RequestBody(1000)));
    let error = push(&server, noise(SIZE), impatient).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Network, "{error:?}");
    assert_eq!(server.count("PATCH", "/"), 2);
}

#[tokio::test]
async fn a_token_that_expires_anywhere_in_an_upload_does_not_restart_it() {
    let server = Sessions::with_tokens();
    server.when("PATCH", "").fault(Fault::ExpireTokens);
    server.when("PATCH", "").nth(2).fault(Fault::Reset(Stage::RequestBody(700_000)));
    server.when("GET", "/blobs/").fault(Fault::ExpireTokens);
    server.when("PUT", "").fault(Fault::ExpireTokens);
    let blob = push(&server, noise(SIZE), large()).await.unwrap();
    assert!(server.blob(&blob.digest).unwrap() == noise(SIZE));
    // Each request is repeated with the new token; content the registry has is not sent again.
    assert_eq!(methods(&server), ["POST", "PATCH", "PATCH", "GET", "GET", "PATCH", "PUT", "PUT", "GET"]);
    assert_eq!(server.asked().iter().filter(|(_, length)| *length == 1_300_000).count(), 1);
}

#[tokio::test]
async fn a_lost_answer_to_the_closing_request_does_not_lose_the_upload() {
    let server = Sessions::start();
    server.when("PUT", "").fault(Fault::Reset(Stage::BeforeAnswer));
    let blob = push(&server, noise(SIZE), large()).await.unwrap();
    assert!(server.blob(&blob.digest).is_some());
    assert_eq!(methods(&server), ["POST", "PATCH", "PUT", "GET", "HEAD", "GET"]);

    let server = Sessions::start();
    server.when("PUT", "").fault(Fault::Status(503));
    push(&server, noise(SIZE), large()).await.unwrap();
    assert_eq!(methods(&server), ["POST", "PATCH", "PUT", "GET", "PUT", "GET"]);
}

#[tokio::test]
async fn after_416_the_registry_is_asked_for_its_offset() {
    let server = Sessions::start();
    // The registry has everything and rejects the offset of the request.
    server.when("PUT", "").fault(Fault::Status(416));
    push(&server, noise(SIZE), large()).await.unwrap();
    assert_eq!(methods(&server), ["POST", "PATCH", "PUT", "GET", "PUT", "GET"]);
    // The registry received nothing, so a new upload costs no more than resuming.
    let server = Sessions::start();
    server.when("PATCH", "").fault(Fault::Status(416));
    push(&server, noise(SIZE), large()).await.unwrap();
    assert_eq!(methods(&server), ["POST", "PATCH", "GET", "POST", "PATCH", "PUT", "GET"]);
}

#[tokio::test]
async fn an_upload_found_cancelled_starts_again() {
    let server = Sessions::start();
    server.when("PATCH", "").fault(Fault::Reset(Stage::RequestBody(700_000)));
    server.when("GET", "/blobs/").fault(Fault::Cancelled);
    let blob = push(&server, noise(SIZE), large()).await.unwrap();
    assert!(server.blob(&blob.digest).is_some());
    assert_eq!(methods(&server), ["POST", "PATCH", "GET", "POST", "PATCH", "PUT", "GET"]);
}

#[tokio::test]
async fn an_outage_during_the_offset_query_does_not_lose_the_upload() {
    let server = Sessions::start();
    server.when("PATCH", "").fault(Fault::Reset(Stage::RequestBody(700_000)));
    server.when("GET", "/blobs/").times(2).fault(Fault::Status(502));
    push(&server, noise(SIZE), large()).await.unwrap();
    assert_eq!(methods(&server), ["POST", "PATCH", "GET", "GET", "GET", "PATCH", "PUT", "GET"]);
}

#[tokio::test]
async fn every_form_of_location_is_followed() {
    for form in [Form::Relative, Form::Absolute, Form::Changing] {
        let server = Sessions::start();
        server.when("PATCH", "").fault(Fault::Reset(Stage::RequestBody(700_000)));
        server.when("*", "/blobs/uploads/").always().fault(Fault::Location(form));
        let blob = push(&server, noise(SIZE), large()).await.unwrap();
        assert!(server.blob(&blob.digest).unwrap() == noise(SIZE), "{form:?}");
        assert_eq!(methods(&server), ["POST", "PATCH", "GET", "PATCH", "PUT", "GET"], "{form:?}");
    }
}

#[tokio::test]
async fn a_wrongly_joined_blob_is_sent_once_more_in_one_piece() {
    let server = Sessions::start();
    server.when("PATCH", "").fault(Fault::Reset(Stage::RequestBody(700_000)));
    server.when("PATCH", "").nth(2).fault(Fault::WrongDigest);
    let blob = push(&server, noise(SIZE), large()).await.unwrap();
    assert!(server.blob(&blob.digest).unwrap() == noise(SIZE));
    assert_eq!(server.count("POST", "/"), 2);
}

#[tokio::test]
async fn a_blob_that_arrived_with_a_wrong_digest_is_sent_only_once_more() {
    for (size, method) in [(SIZE, "PATCH"), (1000, "PUT")] {
        let server = Sessions::start();
        server.when(method, "").fault(Fault::WrongDigest);
        let blob = push(&server, noise(size), large()).await.unwrap();
        assert!(server.blob(&blob.digest).unwrap() == noise(size));
        assert_eq!(server.count("POST", "/"), 2);
        let server = Sessions::start();
        server.when("*", "/blobs/uploads/1").always().fault(Fault::WrongDigest);
        server.when("*", "/blobs/uploads/2").always().fault(Fault::WrongDigest);
        let error = push(&server, noise(size), large()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error:?}");
        assert!(error.chain().contains("DIGEST_INVALID"), "{error:?}");
        assert_eq!(server.count("POST", "/"), 2);
    }
}

/// A registry behind a gateway that refuses request bodies longer than `limit`, and the content it received.
async fn behind_a_gateway(limit: usize) -> (Server, Arc<Mutex<Vec<u8>>>) {
    let stored = Arc::new(Mutex::new(Vec::new()));
    let store = stored.clone();
    let server = Server::registry(move |request, _| {
        let mut stored = store.lock().unwrap();
        match request.method.as_str() {
            "HEAD" | "GET" => return last_byte(request).unwrap_or(Answer::new(404)),
            _ if request.body.len() > limit => return Answer::new(413).body("<html>too large</html>"),
            "POST" => stored.clear(),
            _ => {
                let first =
                    request.header("content-range").split_once('-').map_or(0, |(first, _)| first.parse().unwrap());
                assert!(first == stored.len() || request.body.is_empty());
                stored.extend_from_slice(&request.body);
            }
        }
        let status = if request.method == "PUT" { 201 } else { 202 };
        Answer::new(status).with("Location", "/u").with("Range", format!("0-{}", stored.len().saturating_sub(1)))
    });
    (server.await, stored)
}

#[tokio::test]
async fn a_gateway_with_a_body_limit_gets_small_enough_chunks() {
    const MIB: usize = 1024 * 1024;
    let content = noise(5 * MIB + 17);
    for large_blob in [MIB as u64, u64::MAX] {
        let (server, stored) = behind_a_gateway(MIB + MIB / 2).await;
        let registries = client(Config { large_blob, ..config() });
        let memory = MemorySource::default();
        let blobs = [memory.add(content.clone()), memory.add(noise(5 * MIB))];
        let repo = repository(&server.address, "a/b");
        memory_source::push(&registries, &repo, &memory, &[&blobs[0]]).await.unwrap();
        assert!(*stored.lock().unwrap() == content);
        let refused = |server: &Server| server.seen().iter().filter(|request| request.body.len() > MIB * 3 / 2).count();
        assert_eq!(refused(&server), 2);
        memory_source::push(&registries, &repo, &memory, &[&blobs[1]]).await.unwrap();
        assert!(*stored.lock().unwrap() == noise(5 * MIB));
        assert_eq!(refused(&server), 2, "the limit is remembered for other blobs");
    }
    let (server, _) = behind_a_gateway(1000).await;
    let error = push(&server, content, config()).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Refused, Some(&Reason::BodyLimit)), "{error:?}");
    assert!(server.seen().len() < 10);
}

/// A registry that accepts uploads, but answers PATCH like this.
async fn refusing_patch(status: u16, body: &'static str) -> Server {
    Server::registry(move |request, _| match request.method.as_str() {
        "HEAD" | "GET" => last_byte(request).unwrap_or(Answer::new(404)),
        "PATCH" => Answer::new(status).body(body),
        "POST" => Answer::new(202).with("Location", "/u"),
        "PUT" => Answer::new(201),
        _ => Answer::new(204),
    })
    .await
}

/// A registry's denial in its own words is about the blob, however it is sent; a gateway that refuses PATCH has no such
/// words.
#[tokio::test]
async fn a_denial_in_a_registrys_own_words_is_final() {
    const QUOTA: &str = r#"{"errors":[{"code":"DENIED","message":"adding 19.1 MiB of storage resource, which when updated to current usage of 386.0 KiB will exceed the configured upper limit of 2.9 MiB."}]}"#;
    let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    let busy = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"daily limit"}]}"#;
    let large = noise(5 * 1024 * 1024);
    for (status, body) in [(403, denied), (403, busy), (413, QUOTA), (403, QUOTA)] {
        let server = refusing_patch(status, body).await;
        let config = Config { large_blob: 100_000, ..config() };
        let error = push(&server, large.clone(), config).await.unwrap_err();
        assert_eq!(matches!(error.reason(), Some(Reason::Quota { .. })), body == QUOTA, "{error:?}");
        let order: Vec<String> = server.seen().into_iter().map(|request| request.method).collect();
        assert_eq!(order, ["POST", "PATCH", "DELETE"], "{status} {body}");
    }
    for body in ["<html>403 Forbidden</html>", r#"{"errors":[{"code":"UNSUPPORTED"}]}"#, ""] {
        let server = refusing_patch(403, body).await;
        push(&server, large.clone(), Config { large_blob: 100_000, ..config() }).await.unwrap();
        assert!(server.seen().iter().any(|request| request.method == "PUT"), "{body}");
    }
}

#[tokio::test]
async fn no_chunk_is_smaller_than_the_registrys_minimum() {
    const MIB: usize = 1024 * 1024;
    let server = Server::registry(move |request, _| match request.method.as_str() {
        "HEAD" | "GET" => Answer::new(404),
        _ if request.body.len() > MIB => Answer::new(413).body("<html>too large</html>"),
        "POST" => Answer::new(202).with("Location", "/u").with("OCI-Chunk-Min-Length", format!("{}", 2 * MIB)),
        _ => Answer::new(202).with("Location", "/u"),
    })
    .await;
    let error = push(&server, noise(5 * MIB), config()).await.unwrap_err();
    assert_eq!(error.reason(), Some(&Reason::BodyLimit), "{error:?}");
    let sent: Vec<usize> =
        server.seen().iter().map(|request| request.body.len()).filter(|length| *length > 0).collect();
    assert!(sent.iter().all(|length| *length >= 2 * MIB) && sent.contains(&(2 * MIB)), "{sent:?}");
}

#[tokio::test]
async fn a_blob_stored_despite_error_answers_counts_as_uploaded() {
    for (size, status) in [(SIZE, 500), (SIZE, 503), (1000, 500), (1000, 504)] {
        let server = Sessions::start();
        server.when("PUT", "").always().fault(Fault::AfterAll(status));
        let blob = push(&server, noise(size), large()).await.unwrap();
        assert!(server.blob(&blob.digest).unwrap() == noise(size));
        assert_eq!(server.count("POST", "/"), 1, "{size} {status}");
    }
}

#[tokio::test]
async fn a_registry_that_loses_patched_content_gets_the_blob_in_one_request() {
    let server = Sessions::start();
    server.when("PUT", "").fault(Fault::Cancelled);
    let blob = push(&server, noise(SIZE), large()).await.unwrap();
    assert!(server.blob(&blob.digest).unwrap() == noise(SIZE));
    assert_eq!(
        methods(&server),
        ["POST", "PATCH", "PUT", "HEAD", "GET", "POST", "PUT", "GET"],
        "GET confirms HEAD's 404"
    );
}

#[tokio::test]
async fn an_upload_with_an_unknown_offset_starts_again() {
    let server = Sessions::start();
    server.when("PATCH", "").fault(Fault::Reset(Stage::RequestBody(700_000)));
    server.when("GET", "/uploads/").always().fault(Fault::Status(500));
    let blob = push(&server, noise(SIZE), large()).await.unwrap();
    assert!(server.blob(&blob.digest).unwrap() == noise(SIZE));
    assert_eq!(server.count("POST", "/"), 2);
}

#[tokio::test]
async fn a_success_other_than_created_counts_only_if_the_blob_exists() {
    for status in [200, 202] {
        let server = Sessions::start();
        server.when("PUT", "").fault(Fault::Status(status));
        let blob = push(&server, noise(SIZE), large()).await.unwrap();
        assert!(server.blob(&blob.digest).unwrap() == noise(SIZE), "{status}");
        let server = Sessions::start();
        server.when("PUT", "").fault(Fault::Status(status));
        let small = push(&server, noise(1000), config()).await.unwrap();
        assert!(server.blob(&small.digest).unwrap() == noise(1000), "{status}, small");
    }
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_a_large_upload_is_reported() {
    let server = Sessions::start();
    server.when("PATCH", "").always().fault(Fault::Hasty(413));
    let error = push(&server, noise(20_000_000), large()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.chain().contains(": 413 "), "{error:?}");
    let methods = methods(&server);
    assert_eq!(
        methods.first().zip(methods.last()),
        Some((&"POST".into(), &"DELETE".into())),
        "no open session is left"
    );
    assert_eq!(methods.iter().filter(|method| *method == "PATCH").count(), 6, "smaller and smaller, down to 1 MiB");
}

#[tokio::test]
async fn a_registry_without_patch_gets_large_blobs_in_one_request() {
    let server = Sessions::start();
    server.when("PATCH", "").always().fault(Fault::Status(405));
    let (registries, memory) = (client(large()), MemorySource::default());
    let blobs = [memory.add(noise(SIZE)), memory.add(noise(SIZE + 1))];
    let repo = repository(&server.address, "a/b");
    memory_source::push(&registries, &repo, &memory, &[&blobs[0], &blobs[1]]).await.unwrap();
    assert!(blobs.iter().all(|blob| server.blob(&blob.digest).is_some()));
    assert_eq!(methods(&server), ["POST", "PATCH", "PUT", "GET", "POST", "PUT", "GET"]);
}

#[tokio::test]
async fn a_registry_that_refuses_patch_gets_the_blob_in_one_request() {
    for status in [400, 403, 404, 411, 415, 416, 501] {
        let server = Sessions::start();
        server.when("PATCH", "").always().fault(Fault::Status(status));
        let (registries, memory) = (client(large()), MemorySource::default());
        let blobs = [memory.add(noise(SIZE)), memory.add(noise(SIZE + 1))];
        let repo = repository(&server.address, "a/b");
        memory_source::push(&registries, &repo, &memory, &[&blobs[0], &blobs[1]]).await.unwrap();
        assert!(blobs.iter().all(|blob| server.blob(&blob.digest).is_some()), "{status}");
        let patches = server.count("PATCH", "/");
        assert!(patches <= 2, "{status}: detected once, not for each blob: {patches}");
    }
}

/// ECR after a break: it accepts content but keeps reporting the earlier Range.
#[tokio::test]
async fn an_upload_whose_range_stays_stale_is_sent_again_in_one_request() {
    const HAD: usize = 700_000;
    let server = Server::start(|request, before| {
        let upload = Answer::new(202).with("Location", format!("/u/{before}"));
        match request.method.as_str() {
            "POST" => upload,
            "PATCH" | "GET" if request.target.starts_with("/u") => upload.with("Range", format!("0-{}", HAD - 1)),
            "PUT" => Answer::new(201),
            "HEAD" => Answer::new(404),
            _ => last_byte(request).unwrap_or(Answer::new(200)),
        }
    });
    let server = server.await;
    server.when("PATCH", "").fault(Fault::Reset(Stage::RequestBody(HAD)));
    let memory = MemorySource::default();
    let blob = memory.add(noise(SIZE));
    memory_source::push(&client(large()), &repository(&server.address, "a/b"), &memory, &[&blob]).await.unwrap();
    assert_eq!(server.count("PATCH", "/u"), 2, "one that breaks, and one that makes no progress");
    let last = server.seen().into_iter().rfind(|request| request.method == "PUT").unwrap();
    assert!(last.body == noise(SIZE), "the whole blob in one request");
}

#[tokio::test]
async fn a_large_blob_with_wrong_bytes_is_never_closed() {
    let server = Sessions::start();
    let memory = MemorySource::default();
    let wrong: &'static [u8] = vec![1; SIZE].leak();
    let blob = memory.add_wrong(&noise(SIZE), wrong);
    let error =
        memory_source::push(&client(large()), &repository(&server.address, "a"), &memory, &[&blob]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged, "{error:?}");
    assert_eq!(server.count("PUT", "/"), 0);
}

#[tokio::test]
async fn harbor_counts_a_large_blob_once_against_the_quota() {
    let harbor = Harbor::start(Setup::default().with(Project::new("base")));
    let (address, memory) = (harbor.registry(), MemorySource::default());
    let mut credentials = Store::anonymous();
    credentials.set(&address, Credentials::basic("admin", "Harbor12345"));
    let blob = memory.add(noise(SIZE));
    let registries = client(Config { credentials, ..large() });
    memory_source::push(&registries, &repository(&address, "base/app"), &memory, &[&blob]).await.unwrap();
    assert!(harbor.has_blob("base/app", &blob.digest));
    // Content in the closing request after a PATCH would be a violation.
    assert_eq!(harbor.violations(), Vec::<String>::new());
    assert!(harbor.pushes().iter().any(|push| push.method == "PATCH"));
}

#[tokio::test]
async fn distribution_2_8_restarts_a_broken_upload_and_gapferry_serve_resumes_it() {
    let registry = Registry::start();
    let directory = tempdir();
    let own = Embedded::writable(directory.path());
    for (host, sessions) in [(registry.host(), 2), (own.host(), 1)] {
        let proxy = Proxy::before(host);
        proxy.when("PATCH", "").fault(Fault::Reset(Stage::RequestBody(700_000)));
        let blob = push(&proxy, noise(SIZE), large()).await.unwrap();
        assert_eq!(proxy.count("POST", "/"), sessions, "{host}");
        let registries = client(config());
        let read = memory_source::read(&registries, &repository(host, "a/b"), &blob).await.unwrap();
        assert!(read == noise(SIZE));
        assert!(registries.has_blob(&repository(host, "a/b"), &blob).await.unwrap());
    }
}
