//! Pulls and pushes at a real registry.

use futures_util::StreamExt;
use gapferry::base::error::Kind;
use gapferry::content::{Lookup, Need, Sink, Source};
use gapferry::oci::{Digest, Tag};
use gapferry::transport::registry::Registries;

use crate::registry::memory_source::{self, MemorySource, image, noise, read, repository, tag};
use crate::registry::{client, config};
use crate::support::registry::Registry;

#[tokio::test]
async fn a_pulled_image_equals_the_pushed_one() {
    let server = Registry::start();
    let registries = client(config());
    let repo = repository(server.host(), "deep/er/app");
    let memory = MemorySource::default();
    let layers = [memory.add(noise(3_000_000)), memory.add("x"), memory.add("")];
    let config = memory.add(r#"{"os":"linux","architecture":"amd64"}"#);
    let manifest = image(&config, &layers, None);
    let reference = tag(&repo, "v1");

    assert_eq!(Sink::resolve(&registries, &reference).await.unwrap(), Lookup::Absent);
    assert!(!registries.has_blob(&repo, &layers[0]).await.unwrap());
    let blobs: Vec<_> = layers.iter().chain([&config]).collect();
    memory_source::push(&registries, &repo, &memory, &blobs).await.unwrap();
    memory_source::push(&registries, &repo, &memory, &blobs).await.unwrap();
    registries.put_manifest(&reference, &manifest).await.unwrap();

    let reader = client(crate::registry::config());
    let found = Source::resolve(&reader, &reference, Need::Required).await.unwrap().unwrap();
    assert_eq!((found.digest, found.size), (manifest.digest(), manifest.size()));
    assert_eq!(found.media_type, manifest.media_type());
    for reference in [reference, repo.with_digest(manifest.digest())] {
        assert_eq!(
            reader.manifest(&reference, Need::Required).await.unwrap().unwrap().bytes().unwrap(),
            manifest.bytes().unwrap()
        );
    }
    for blob in blobs {
        assert!(registries.has_blob(&repo, blob).await.unwrap());
        assert_eq!(Digest::sha256(&read(&reader, &repo, blob).await.unwrap()), blob.digest);
    }
}

#[tokio::test]
async fn a_blob_streams_from_registry_to_registry() {
    let (from, to) = (Registry::start(), Registry::start());
    let registries = client(gapferry::transport::registry::Config { per_host: 1, ..config() });
    let (there, here) = (repository(from.host(), "a"), repository(to.host(), "b"));
    let memory = MemorySource::default();
    let blob = memory.add(noise(2_000_000));
    memory_source::push(&registries, &there, &memory, &[&blob]).await.unwrap();
    // Also within one registry, where upload and download share the host's connection limit.
    for target in [&here, &repository(from.host(), "c")] {
        let origin = gapferry::content::Origin { source: &registries, repository: &there };
        registries.put_blob(target, &blob, &origin).await.unwrap();
        assert!(registries.has_blob(target, &blob).await.unwrap());
    }
}

#[tokio::test]
async fn a_blob_is_mounted_or_uploaded() {
    let server = Registry::start();
    let registries = client(config());
    let (first, second) = (repository(server.host(), "first"), repository(server.host(), "second"));
    let memory = MemorySource::default();
    let (here, nowhere) = (memory.add(noise(1000)), memory.add(noise(2000)));
    memory_source::push(&registries, &first, &memory, &[&here]).await.unwrap();
    assert!(registries.mount(&second, &here, &first).await.unwrap());
    assert!(registries.has_blob(&second, &here).await.unwrap());
    // Instead of mounting, the registry opens an upload session, which the upload uses.
    assert!(!registries.mount(&second, &nowhere, &first).await.unwrap());
    memory_source::push(&registries, &second, &memory, &[&nowhere]).await.unwrap();
    assert!(registries.has_blob(&second, &nowhere).await.unwrap());
}

#[tokio::test]
async fn an_upload_of_wrong_bytes_is_never_completed() {
    let server = Registry::start();
    let registries = client(config());
    let repo = repository(server.host(), "a");
    let memory = MemorySource::default();
    for (right, served) in [(&b"right"[..], &b"wrong"[..]), (b"longer", b"long"), (b"", b"not empty"), (b"1", b"")] {
        let blob = memory.add_wrong(right, served);
        let error = memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{error:?}");
        assert!(!registries.has_blob(&repo, &blob).await.unwrap());
    }
}

#[tokio::test]
async fn a_download_resumes_where_it_stopped() {
    let server = Registry::start();
    let registries = client(config());
    let repo = repository(server.host(), "a");
    let memory = MemorySource::default();
    let content = noise(300_000);
    let blob = memory.add(content.clone());
    memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap();
    for offset in [1, 123_456, 299_999, 300_000] {
        let body = registries.blob(&repo, &blob, offset).await.unwrap();
        assert_eq!(body.offset, offset);
        let pieces: Vec<_> = body.stream.map(|piece| piece.unwrap()).collect().await;
        assert!(pieces.concat() == content[offset as usize..], "from {offset}");
    }
}

#[tokio::test]
async fn all_tags_are_listed() {
    let server = Registry::start();
    let registries = client(config());
    let repo = repository(server.host(), "a");
    let names = push_tags(&registries, &repo, 12).await;
    let mut listed: Vec<String> =
        registries.tags(&repo, Need::Required).await.unwrap().tags.iter().map(Tag::to_string).collect();
    listed.sort();
    assert_eq!(listed, names);
    let missing = registries.tags(&repository(server.host(), "none"), Need::Required).await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    assert!(missing.to_string().contains(&format!("{}/none", server.host())), "{missing}");
}

async fn push_tags(registries: &Registries, repo: &gapferry::oci::Repository, count: u32) -> Vec<String> {
    let memory = MemorySource::default();
    let config = memory.add("{}");
    memory_source::push(registries, repo, &memory, &[&config]).await.unwrap();
    let manifest = image(&config, &[], None);
    let names: Vec<String> = (0..count).map(|n| format!("v{n:02}")).collect();
    for name in &names {
        registries.put_manifest(&tag(repo, name), &manifest).await.unwrap();
    }
    names
}

#[tokio::test]
async fn referrers_are_kept_under_the_fallback_tag_of_a_registry_without_the_api() {
    let server = Registry::start();
    let registries = client(config());
    let repo = repository(server.host(), "a");
    let memory = MemorySource::default();
    let config = memory.add("{}");
    let layers: Vec<_> = (0..5).map(|n| memory.add(format!("signature {n}"))).collect();
    let blobs: Vec<_> = layers.iter().chain([&config]).collect();
    memory_source::push(&registries, &repo, &memory, &blobs).await.unwrap();
    let subject = image(&config, &[], None);
    registries.put_manifest(&tag(&repo, "v1"), &subject).await.unwrap();
    assert_eq!(registries.referrers(&repo, &subject.digest()).await.unwrap().found, []);

    let signatures: Vec<_> =
        layers.iter().map(|layer| image(&config, std::slice::from_ref(layer), Some(&subject))).collect();
    let at_once = signatures.iter().map(|signature| {
        let (registries, reference) = (&registries, repo.with_digest(signature.digest()));
        async move { registries.put_manifest(&reference, signature).await }
    });
    for stored in futures_util::future::join_all(at_once).await {
        stored.unwrap();
    }
    registries.put_manifest(&repo.with_digest(signatures[0].digest()), &signatures[0]).await.unwrap();

    let listed = client(crate::registry::config()).referrers(&repo, &subject.digest()).await.unwrap().found;
    let mut found: Vec<_> = listed.iter().map(|descriptor| descriptor.digest).collect();
    let mut pushed: Vec<_> = signatures.iter().map(|signature| signature.digest()).collect();
    found.sort();
    pushed.sort();
    assert_eq!(found, pushed);
    assert!(listed.iter().all(|d| d.artifact_type() == Some("application/vnd.test.signature")));
    // For other clients, the list contains the manifests' annotations too.
    let list = server.manifest("a", gapferry::oci::Tag::referrers(&subject.digest()).as_str()).json();
    assert!(list["manifests"].as_array().unwrap().iter().all(|entry| entry["annotations"]["of"] == "test"), "{list}");
}

#[tokio::test]
async fn a_refused_manifest_is_reported_in_the_registrys_words() {
    let server = Registry::start();
    let registries = client(config());
    let repo = repository(server.host(), "a");
    let memory = MemorySource::default();
    let manifest = image(&memory.add("{}"), &[], None);
    let error = registries.put_manifest(&tag(&repo, "v1"), &manifest).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("BLOB_UNKNOWN"), "{error}");
    assert!(error.to_string().contains(&format!("{repo}:v1")), "{error}");
}

#[tokio::test]
async fn missing_content_is_absent_and_a_missing_registry_is_an_error() {
    let server = Registry::start();
    let registries = client(config());
    let repo = repository(server.host(), "a");
    assert!(registries.manifest(&tag(&repo, "none"), Need::Required).await.unwrap().is_none());
    let blob = MemorySource::default().add("nowhere");
    let error = registries.blob(&repo, &blob, 0).await.err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains(&blob.digest.to_string()), "{error}");

    let address = server.host().to_owned();
    drop(server);
    let quick = gapferry::transport::registry::Config { retries: 1, ..config() };
    let error = client(quick).manifest(&tag(&repository(&address, "a"), "v1"), Need::Required).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
    assert!(error.chain().contains("refused") && error.chain().contains(&address), "{error:?}");
}

#[tokio::test]
async fn no_unnecessary_request_is_made() {
    let server = Registry::start();
    let registries = client(config());
    let repo = repository(server.host(), "a");
    let memory = MemorySource::default();
    let (config, layer) = (memory.add("{}"), memory.add(noise(200_000)));
    memory_source::push(&registries, &repo, &memory, &[&layer, &config]).await.unwrap();
    registries.put_manifest(&tag(&repo, "v1"), &image(&config, std::slice::from_ref(&layer), None)).await.unwrap();
    Source::resolve(&registries, &tag(&repo, "v1"), Need::Required).await.unwrap();
    read(&registries, &repo, &layer).await.unwrap();
    let made: Vec<String> = server.requests().into_iter().map(|request| request.method).collect();
    assert_eq!(made, ["GET", "POST", "PUT", "GET", "POST", "PUT", "GET", "PUT", "HEAD", "GET"]);
}
