//! The real client pushing to Harbor: what it must do right, and how it reports Harbor's refusals.

use bytes::Bytes;
use gapferry::base::error::Kind;
use gapferry::content::{Need, Sink, Source};
use gapferry::oci::{Manifest, Reference, media_type};
use gapferry::transport::registry::Registries;

use super::{ADMIN, CI, Creds, ROBOT, client, three_projects};
use crate::registry::memory_source::{MemorySource, image, noise, push, repository, tag};
use crate::support::harbor::{Harbor as Server, Project, Right, Setup};

/// Pushes an image of one config and one layer.
async fn push_image(to: &Registries, reference: &Reference) -> gapferry::Result<Manifest> {
    let memory = MemorySource::default();
    let (config, layer) = (memory.add("{}"), memory.add(noise(200_000)));
    let manifest = image(&config, std::slice::from_ref(&layer), None);
    push(to, &reference.repository, &memory, &[&config, &layer]).await?;
    to.put_manifest(reference, &manifest).await?;
    Ok(manifest)
}

#[tokio::test]
async fn an_image_arrives_complete_and_the_quota_is_correct() {
    for absolute_locations in [false, true] {
        for creds in [ADMIN, CI, ROBOT] {
            let server = Server::start(Setup { absolute_locations, ..three_projects() });
            let client = client(&server, creds);
            let reference = tag(&repository(&server.registry(), "base/deep/a"), "v1");
            let manifest = push_image(&client, &reference).await.unwrap();
            assert_eq!(server.tag("base/deep/a", "v1"), Some(manifest.digest()));
            let read = Source::manifest(&client, &reference, Need::Required).await.unwrap().unwrap();
            assert_eq!(read.bytes().unwrap(), manifest.bytes().unwrap());
            assert_eq!((server.uploads(), server.violations()), (2, vec![]));
        }
    }
}

#[tokio::test]
async fn a_blob_is_mounted_only_from_a_readable_project() {
    let server = Server::start(three_projects());
    let host = server.registry();
    for path in ["apps/a", "closed/a"] {
        push_image(&client(&server, ADMIN), &tag(&repository(&host, path), "v1")).await.unwrap();
    }
    let ci = client(&server, CI);
    let layer = MemorySource::default().add(noise(200_000));
    let mount =
        async |from: &str| ci.mount(&repository(&host, "base/b"), &layer, &repository(&host, from)).await.unwrap();
    assert!(mount("apps/a").await);
    assert!(!mount("closed/a").await, "a refused mount leads to an upload and is not a failure");
    assert!(!mount("nowhere/a").await);
    // After those refusals the client keeps its other rights.
    push_image(&ci, &tag(&repository(&host, "base/c"), "v1")).await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_reported_in_harbors_own_words() {
    let setup = three_projects()
        .with(Project::new("small").quota(1000).member("ci", Right::Push))
        .with(Project::new("hub").proxy_cache().member("ci", Right::Push));
    let server = Server::start(setup);
    let cases: [(Creds, &str, Kind, &str); 5] = [
        (CI, "nowhere/a", Kind::Unauthorized, "project nowhere not found"),
        (CI, "apps/a", Kind::Unauthorized, "unauthorized to access repository: apps/a"),
        ("ci:Wr0ng-pw", "base/a", Kind::Unauthorized, "unauthorized"),
        (CI, "small/a", Kind::Refused, "will exceed the configured upper limit"),
        (CI, "hub/a", Kind::Refused, "can not push artifact to a proxy project"),
    ];
    for (creds, path, kind, says) in cases {
        let reference = tag(&repository(&server.registry(), path), "v1");
        let error = push_image(&client(&server, creds), &reference).await.unwrap_err();
        assert!(error.kind() == kind && error.chain().contains(says), "{path}: {error:?}");
    }
    server.set_read_only(true);
    let reference = tag(&repository(&server.registry(), "base/a"), "v1");
    let error = push_image(&client(&server, CI), &reference).await.unwrap_err();
    assert!(error.kind() == Kind::Refused && error.chain().contains("read only mode"), "{error:?}");
}

#[tokio::test]
async fn referrers_are_found_again_in_every_harbor_version() {
    for version in [(2, 7), (2, 8), (2, 9), (2, 15)] {
        let server = Server::start(Setup { version, ..three_projects() });
        let ci = client(&server, CI);
        let repository = repository(&server.registry(), "base/a");
        let unknown = gapferry::oci::Digest::sha256(b"never pushed");
        assert_eq!(ci.referrers(&repository, &unknown).await.unwrap().found, [], "{version:?}");
        let subject = push_image(&ci, &tag(&repository, "v1")).await.unwrap();
        let memory = MemorySource::default();
        let config = memory.add("{}");
        let signature = image(&config, &[], Some(&subject));
        ci.put_manifest(&repository.with_digest(signature.digest()), &signature).await.unwrap();
        // A later run, which knows nothing about this registry yet.
        let found = client(&server, CI).referrers(&repository, &subject.digest()).await.unwrap().found;
        let digests: Vec<_> = found.iter().map(|descriptor| descriptor.digest).collect();
        assert_eq!(digests, [signature.digest()], "{version:?}");
    }
}

#[tokio::test]
async fn a_sparse_index_is_refused_and_named() {
    let server = Server::start(three_projects());
    let absent = gapferry::oci::Digest::sha256(b"absent");
    let json = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [{"mediaType": media_type::OCI_MANIFEST, "digest": absent, "size": 1}]});
    let index = Manifest::parse(Bytes::from(json.to_string()), None, None).unwrap();
    let reference = tag(&repository(&server.registry(), "base/a"), "v1");
    let error = client(&server, CI).put_manifest(&reference, &index).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.chain().contains("MANIFEST_BLOB_UNKNOWN") && error.chain().contains("base/a:v1"), "{error:?}");
}
