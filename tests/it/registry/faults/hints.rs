//! HEAD is a hint, and a denial may mean “absent”: the result must not depend on which requests a registry or gateway
//! supports.

use gapferry::base::error::Kind;
use gapferry::base::progress::Event;
use gapferry::content::{Lookup, Need, Sink, Source};
use gapferry::oci::{Descriptor, Digest, Manifest, Reference, Tag, media_type};

use gapferry::transport::registry::Denials;
use serde_json::json;

use super::{INDEX, manifest, repo};
use crate::registry::memory_source::{read, tag};
use crate::registry::{client, config, watched};
use crate::support::faulty::{Answer, Fault, Seen, Server, Stage, ranged};

fn index() -> Digest {
    Digest::sha256(INDEX.as_bytes())
}

async fn both_find(server: &Server, case: &str) {
    let reference = tag(&repo(server), "v1");
    let found =
        Source::resolve(&client(config()), &reference, Need::Required).await.unwrap_or_else(|e| panic!("{case}: {e}"));
    assert_eq!(found.map(|found| found.digest), Some(index()), "{case}");
    let found = Sink::resolve(&client(config()), &reference).await.unwrap_or_else(|e| panic!("{case}: {e}"));
    assert!(found.means(&index()), "{case}: {found:?}");
    assert_eq!(server.seen().len(), 4, "{case}: one HEAD and one GET each, without any wait");
}

#[tokio::test]
async fn a_manifest_that_get_finds_exists_whatever_head_says() {
    for status in [400, 401, 403, 404, 405, 406, 500, 501, 502, 503] {
        let server = Server::registry(move |request, _| match request.method.as_str() {
            "HEAD" => Answer::new(status),
            _ => manifest(),
        });
        both_find(&server.await, &format!("HEAD {status}")).await;
    }
    let server = Server::registry(|request, _| match request.method.as_str() {
        "HEAD" => manifest().but(Fault::Reset(Stage::Request)),
        _ => manifest(),
    });
    both_find(&server.await, "HEAD reset").await;
}

#[tokio::test]
async fn a_broken_or_nonsensical_head_answer_does_not_hide_a_manifest() {
    type Head = fn(&Seen) -> Answer;
    let heads: [(&str, Head); 5] = [
        ("a redirect loop", |request| Answer::new(307).with("Location", request.target.clone())),
        ("redirects without end", |request| Answer::new(302).with("Location", format!("{}x", request.target))),
        ("a redirect to no URL", |_| Answer::new(307).with("Location", "http://[")),
        ("a redirect away from HTTP", |_| Answer::new(307).with("Location", "ftp://h/x")),
        ("a length of nothing", |_| manifest().with("Docker-Content-Digest", index().to_string()).body("")),
    ];
    for (case, head) in heads {
        let server = Server::registry(move |request, _| match request.method.as_str() {
            "HEAD" => head(request),
            _ => manifest(),
        });
        let (server, registries) = (server.await, client(config()));
        let reference = tag(&repo(&server), "v1");
        let found =
            Source::resolve(&registries, &reference, Need::Required).await.unwrap_or_else(|e| panic!("{case}: {e:?}"));
        assert_eq!(found.map(|found| (found.digest, found.size)), Some((index(), INDEX.len() as u64)), "{case}");
        assert!(Sink::resolve(&registries, &reference).await.unwrap().means(&index()), "{case}");
    }
}

/// A cache in front of the registry may return the headers of another answer. The bytes are verified by their digest.
#[tokio::test]
async fn the_requested_digest_overrides_the_one_in_a_header() {
    let stale = || manifest().with("Docker-Content-Digest", Digest::sha256(b"of another answer").to_string());
    let server = Server::registry(move |_, _| stale()).await;
    let (registries, reference) = (client(config()), repo(&server).with_digest(index()));
    assert_eq!(
        Source::resolve(&registries, &reference, Need::Required).await.unwrap().map(|found| found.digest),
        Some(index())
    );
    assert!(Sink::resolve(&registries, &reference).await.unwrap().means(&index()));
    assert!(registries.manifest(&reference, Need::Required).await.unwrap().is_some());
    let other = repo(&server).with_digest(Digest::sha256(b"of bytes that never come"));
    assert_eq!(registries.manifest(&other, Need::Required).await.unwrap_err().kind(), Kind::Damaged);
}

#[tokio::test]
async fn a_signed_url_valid_only_for_get_hides_no_manifest_or_blob() {
    let storage = Server::start(|request, _| match (request.method.as_str(), request.header("range")) {
        ("HEAD", _) => Answer::new(403).body("<Error>SignatureDoesNotMatch</Error>"),
        (_, "bytes=5-5") => Answer::new(206).with("Content-Range", "bytes 5-5/6").body("t"),
        _ => manifest(),
    });
    let storage = storage.await;
    let signed = format!("http://{}/x?sig=1", storage.address);
    let server = Server::registry(move |_, _| Answer::new(307).with("Location", signed.clone())).await;
    let reference = tag(&repo(&server), "v1");
    assert!(Source::resolve(&client(config()), &reference, Need::Required).await.unwrap().is_some());
    assert!(Sink::resolve(&client(config()), &reference).await.unwrap().means(&index()));
    let blob = |size| Descriptor::new("x", Digest::sha256(b"a blob"), size);
    assert!(client(config()).has_blob(&repo(&server), &blob(6)).await.unwrap());
    assert!(!client(config()).has_blob(&repo(&server), &blob(7)).await.unwrap());
}

/// Otherwise a rerun at such a registry would send everything again.
#[tokio::test]
async fn a_blob_that_get_finds_exists_whatever_head_says() {
    let heads: [fn() -> Answer; 4] = [
        || Answer::new(404),
        || Answer::new(410),
        || Answer::new(200).body("<html>a page</html>"),
        || Answer::new(200).with("Content-Length", "0"),
    ];
    for (case, head) in heads.into_iter().enumerate() {
        let server = Server::registry(move |request, _| match request.method.as_str() {
            "HEAD" => head(),
            _ => Answer::new(206).with("Content-Range", "bytes 5-5/6").body("b"),
        });
        let (server, registries) = (server.await, client(config()));
        for content in [b"blob a", b"blob b", b"blob c"] {
            let blob = Descriptor::new("x", Digest::sha256(content), 6);
            assert!(registries.has_blob(&repo(&server), &blob).await.unwrap(), "HEAD {case}");
        }
    }
    let server = Server::registry(|_, _| Answer::new(404)).await;
    let registries = client(config());
    for content in [b"blob a", b"blob b", b"blob c"] {
        let blob = Descriptor::new("x", Digest::sha256(content), 6);
        assert!(!registries.has_blob(&repo(&server), &blob).await.unwrap());
    }
    assert_eq!(
        (server.count("HEAD", "/v2/a/b/blobs/"), server.count("GET", "/v2/a/b/blobs/")),
        (3, 1),
        "GET agrees once"
    );
}

/// A cache in front of the registry keeps the HEAD answer from before the push.
#[tokio::test]
async fn a_pushed_manifest_is_read_back_by_get_if_head_disagrees() {
    let stale: [fn() -> Answer; 2] = [
        || Answer::new(404),
        || {
            let digest = Digest::sha256(b"what was there before").to_string();
            Answer::new(200).with("Content-Type", media_type::OCI_INDEX).with("Docker-Content-Digest", digest)
        },
    ];
    for stale in stale {
        let put = std::sync::atomic::AtomicBool::new(false);
        let server = Server::registry(move |request, _| match request.method.as_str() {
            "HEAD" => stale(),
            "PUT" => {
                put.store(true, std::sync::atomic::Ordering::SeqCst);
                Answer::new(201)
            }
            _ if put.load(std::sync::atomic::Ordering::SeqCst) => manifest(),
            _ => Answer::new(404),
        });
        let (server, registries) = (server.await, client(config()));
        let reference = tag(&repo(&server), "v1");
        let _ = Sink::resolve(&registries, &reference).await.unwrap();
        let index = Manifest::parse(INDEX.into(), Some(media_type::OCI_INDEX), None).unwrap();
        registries.put_manifest(&reference, &index).await.unwrap();
        assert!(Sink::resolve(&registries, &reference).await.unwrap().means(&self::index()));
    }
}

/// Some registries answer 403 for what they do not have.
#[tokio::test]
async fn a_foreign_layer_denied_by_the_registry_is_read_from_its_urls() {
    let elsewhere = Server::start(|request, _| ranged(request, b"layer")).await;
    let url = format!("http://{}/layer", elsewhere.address);
    let layer = json!({"mediaType": "x", "digest": Digest::sha256(b"layer"), "size": 5, "urls": [url]});
    let layer: Descriptor = serde_json::from_value(layer).unwrap();
    for status in [401, 403, 404, 410] {
        let server = Server::registry(move |_, _| Answer::new(status)).await;
        assert!(read(&client(config()), &repo(&server), &layer).await.unwrap() == b"layer"[..], "{status}");
    }
}

#[tokio::test]
async fn a_blob_whose_existence_cannot_be_checked_is_uploaded() {
    for status in [400, 401, 403, 405] {
        let server = Server::registry(move |_, _| Answer::new(status)).await;
        let blob = Descriptor::new("x", Digest::sha256(b"a blob"), 6);
        assert!(!client(config()).has_blob(&repo(&server), &blob).await.unwrap(), "{status}");
    }
}

fn many(server: &Server) -> Vec<Reference> {
    (0..10).map(|number| tag(&repo(server), &format!("v{number}"))).collect()
}

/// Otherwise `--on-existing fail` would overwrite tags, and the isolated side's signatures would be lost.
#[tokio::test]
async fn a_targets_head_404_is_trusted_once_head_has_found_something() {
    // (whether HEAD finds existing tags, GETs for ten tags of which the first exists, and for ten in a second run over
    // them)
    for (head_finds, gets) in [(true, 0), (false, 10)] {
        let server =
            Server::registry(move |request, _| match (request.method.as_str(), request.target.ends_with("/v0")) {
                ("HEAD", true) if head_finds => manifest().with("Docker-Content-Digest", index().to_string()),
                ("GET", true) => manifest(),
                _ => Answer::new(404),
            });
        let server = server.await;
        let registries = client(config());
        for (number, reference) in many(&server).iter().enumerate() {
            let found = Sink::resolve(&registries, reference).await.unwrap();
            assert_eq!((found.means(&index()), found.is_absent()), (number == 0, number != 0), "{reference}");
        }
        assert_eq!(server.count("HEAD", "/v2/a/b/manifests/"), 10);
        assert_eq!(server.count("GET", "/v2/a/b/manifests/"), gets, "HEAD finds existing tags: {head_finds}");
    }
    // A GET that finds nothing does not confirm a HEAD that finds nothing.
    let server = Server::registry(|request, _| match (request.method.as_str(), request.target.ends_with("/v9")) {
        ("GET", true) => manifest(),
        _ => Answer::new(404),
    });
    let server = server.await;
    let registries = client(config());
    for (number, reference) in many(&server).iter().enumerate() {
        let found = Sink::resolve(&registries, reference).await.unwrap();
        assert_eq!(found.means(&index()), number == 9, "{reference}");
    }
}

/// A registry that denies missing content, and answers `uploads` to an upload request.
async fn denying(status: u16, uploads: u16) -> Server {
    Server::registry(move |request: &Seen, _| match request.method.as_str() {
        "POST" => Answer::new(uploads).with("Location", "/v2/a/b/blobs/uploads/1"),
        "DELETE" => Answer::new(204),
        _ => Answer::new(status),
    })
    .await
}

#[tokio::test]
async fn a_denied_signature_tag_counts_as_absent_only_if_the_tag_list_lacks_it() {
    let [listed, unlisted] = ["listed", "unlisted"].map(|name| Tag::cosign(&Digest::sha256(name.as_bytes()), "sig"));
    for tags_status in [200, 403] {
        let there = listed.clone();
        let server = Server::registry(move |request: &Seen, _| match request.method.as_str() {
            "POST" => Answer::new(202).with("Location", "/v2/a/b/blobs/uploads/1"),
            "DELETE" => Answer::new(204),
            _ if request.target.contains("/tags/list") && tags_status == 200 => {
                Answer::new(200).body(format!(r#"{{"name":"a/b","tags":["{there}"]}}"#))
            }
            _ => Answer::new(403),
        });
        let (server, registries) = (server.await, client(config()));
        let look_up = async |tag: &Tag| Sink::resolve(&registries, &repo(&server).with_tag(tag.clone())).await.unwrap();
        let isolated_sides = look_up(&listed).await;
        assert!(
            matches!(isolated_sides, Lookup::Blocked(_)),
            "the isolated side's list must not count as absent: {isolated_sides:?}"
        );
        assert_eq!(look_up(&unlisted).await.is_absent(), tags_status == 200, "tags/list: {tags_status}");
    }
    // A repository that does not exist has no list.
    let server = Server::registry(|request: &Seen, _| match request.method.as_str() {
        "POST" => Answer::new(202).with("Location", "/v2/a/b/blobs/uploads/1"),
        "DELETE" => Answer::new(204),
        _ if request.target.contains("/tags/list") => Answer::new(404),
        _ => Answer::new(403),
    });
    let server = server.await;
    assert!(Sink::resolve(&client(config()), &repo(&server).with_tag(listed)).await.unwrap().is_absent());
}

#[tokio::test]
async fn content_a_target_denies_counts_as_absent_where_it_accepts_uploads() {
    for status in [401, 403, 400, 405, 500] {
        let server = denying(status, 202).await;
        let (registries, events) = watched(config());
        for reference in many(&server) {
            assert_eq!(Sink::resolve(&registries, &reference).await.unwrap(), Lookup::Absent, "{status}");
        }
        assert_eq!(server.count("POST", "/v2/"), 1, "the upload probe is sent once");
        let warnings: Vec<Event> = events.events().into_iter().filter(|e| matches!(e, Event::Warning(_))).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");

        // A client that must not replace a tag has to know whether the tag exists.
        let registries = client(config());
        registries.take_denials(Denials::Errors);
        assert!(Sink::resolve(&registries, &many(&server)[0]).await.is_err(), "{status}");

        let server = denying(status, status).await;
        let error = Sink::resolve(&client(config()), &many(&server)[0]).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Unauthorized | Kind::Refused | Kind::Network), "{error:?}");

        // A read-only check starts no upload.
        let server = denying(status, 202).await;
        let registries = client(config());
        registries.take_denials(Denials::Absent);
        assert_eq!(Sink::resolve(&registries, &many(&server)[0]).await.unwrap(), Lookup::Absent, "{status}");
        assert_eq!(server.count("POST", "/"), 0, "a dry run changes nothing");
    }
}
