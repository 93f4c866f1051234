//! Mirrors configured in `registries.conf`: the order of requests, mirrors that are down, lack the image, break off or
//! serve wrong content, and that no server gets another's credentials.

use std::sync::Arc;

use gapferry::base::error::{Kind, Result};
use gapferry::base::progress::{Event, Recorder};
use gapferry::content::{Cached, Need, Origin, Sink, Source};
use gapferry::credentials::{Credentials, Store};
use gapferry::oci::{Digest, Reference, Repository};
use gapferry::routes::Routes;
use gapferry::transport::registry::{Config, Registries, Served, TlsConfig};

use crate::registry::memory_source::{self, MemorySource, drain, noise, repository, tag};
use crate::registry::{config, watched};
use crate::support::faulty::{Answer, Fault, Proxy, Seen, Server, Stage};
use crate::support::images::{self, Image};
use crate::support::registry::{Options, Registry};

/// The name in references; only the routes know its location.
const NAME: &str = "registry.example";

fn routes(text: &str) -> Routes {
    Routes::parse(&[("registries.conf".into(), text.into())]).unwrap()
}

/// `NAME` at `location` behind these mirrors, each with its further settings.
fn table(location: &str, mirrors: &[(&str, &str)]) -> String {
    let mirror = |(host, more): &(&str, &str)| format!("[[registry.mirror]]\nlocation = '{host}'\n{more}\n");
    let mirrors: String = mirrors.iter().map(mirror).collect();
    format!("[[registry]]\nprefix = '{NAME}'\nlocation = '{location}'\n{mirrors}")
}

fn through(location: &str, mirrors: &[(&str, &str)]) -> (Registries, Arc<Recorder>) {
    watched(Config { routes: routes(&table(location, mirrors)), ..config() })
}

/// A registry with this image.
fn registry_with(image: &Image) -> Registry {
    let registry = Registry::start();
    image.push(&registry);
    registry
}

fn app() -> Image {
    images::oci("team/app", "1.0", &["one layer", "another layer"])
}

fn named() -> Repository {
    repository(NAME, "team/app")
}

fn digest(image: &Image) -> Digest {
    image.digest().parse().unwrap()
}

/// The number of manifests and blobs read there; requests of pushes do not count.
fn reads(registry: &Registry) -> usize {
    registry.requests().iter().filter(|asked| asked.method == "GET" && asked.path.contains("/team/")).count()
}

/// Pulls and verifies the whole image; returns the digests of its blobs.
async fn pull(registries: &Registries, reference: &Reference) -> Result<Vec<String>> {
    let manifest = registries.manifest(reference, Need::Required).await?.expect("the image exists");
    let mut blobs = Vec::new();
    for child in manifest.children() {
        let origin = Origin { source: registries, repository: &reference.repository };
        drain(origin.open(&child.descriptor).await?).await?;
        blobs.push(child.descriptor.digest.to_string());
    }
    Ok(blobs)
}

fn warnings(recorder: &Recorder) -> Vec<String> {
    let warning = |event| match event {
        Event::Warning(text) => Some(text),
        _ => None,
    };
    recorder.events().into_iter().filter_map(warning).collect()
}

/// `(location, manifests, blobs)`
fn served(registries: &Registries) -> Vec<(String, u64, u64)> {
    let message = |served: Served| (served.from.to_string(), served.manifest_count, served.blobs);
    registries.served().into_iter().map(message).collect()
}

#[tokio::test]
async fn the_first_mirror_serves_and_the_registry_is_not_asked() {
    let image = app();
    let (primary, first, second) = (registry_with(&image), registry_with(&image), registry_with(&image));
    let (registries, recorder) = through(primary.host(), &[(first.host(), ""), (second.host(), "")]);
    assert_eq!(pull(&registries, &tag(&named(), "1.0")).await.unwrap(), image.blob_digests()[..]);
    assert_eq!((reads(&primary), reads(&second)), (0, 0));
    let place = format!("{}/team/app", first.host());
    assert_eq!(served(&registries), [(place.clone(), 1, image.blob_digests().len() as u64)]);
    assert_eq!(registries.served_by(&named(), &digest(&image)).unwrap().to_string(), place);
    let bytes: u64 = image.blobs.iter().map(|blob| blob.len() as u64).sum();
    assert_eq!(registries.served()[0].bytes, bytes);
    assert!(warnings(&recorder).is_empty(), "{:?}", warnings(&recorder));
}

#[tokio::test]
async fn an_image_missing_at_the_mirror_comes_from_the_registry_with_a_notice() {
    let image = app();
    let (primary, mirror) = (registry_with(&image), Registry::start());
    let (registries, recorder) = through(primary.host(), &[(mirror.host(), "")]);
    pull(&registries, &tag(&named(), "1.0")).await.unwrap();
    assert_eq!(mirror.count("GET", "/blobs/", 404), 0, "blobs are read from the manifest's server");
    let message = warnings(&recorder);
    assert_eq!(message.len(), 1, "{message:?}");
    assert!(message[0].contains(mirror.host()) && message[0].contains(&format!("{NAME}/team/app:1.0")), "{message:?}");
    assert!(registries.manifest(&tag(&named(), "none"), Need::Required).await.unwrap().is_none());
    assert_eq!(warnings(&recorder).len(), 1, "content missing everywhere counts against no mirror");
}

#[tokio::test]
async fn unusable_mirrors_are_skipped_and_soon_not_tried_again() {
    let image = app();
    let primary = registry_with(&image);
    let down = Server::start(|_, _| Answer::new(200)).await.address.clone();
    let broken = Server::registry(|_, _| Answer::new(503)).await;
    let closed = Server::registry(|_, _| Answer::new(403)).await;
    let mirrors = [(down.as_str(), ""), (broken.address.as_str(), ""), (closed.address.as_str(), "")];
    let (registries, recorder) = through(primary.host(), &mirrors);
    pull(&registries, &tag(&named(), "1.0")).await.unwrap();
    let message = warnings(&recorder).join("\n");
    for (mirror, why) in [(down.as_str(), "refused"), (&broken.address, "503"), (&closed.address, "403")] {
        assert!(message.lines().any(|line| line.contains(mirror) && line.contains(why)), "{mirror}: {message}");
    }
    for _ in 0..6 {
        registries.manifest(&tag(&named(), "1.0"), Need::Required).await.unwrap();
    }
    let asked = broken.seen().len();
    assert!(asked <= 6, "three requests, each tried twice: {asked}");
    assert!(warnings(&recorder).iter().any(|text| text.contains("left out")), "{:?}", warnings(&recorder));
}

#[tokio::test]
async fn a_blob_that_a_mirror_breaks_off_is_finished_elsewhere() {
    let content = noise(900_000);
    let (primary, mirror) = (Registry::start(), Registry::start());
    let memory = MemorySource::default();
    let blob = memory.add(content.clone());
    for registry in [&primary, &mirror] {
        let repo = repository(registry.host(), "team/app");
        memory_source::push(&crate::registry::client(config()), &repo, &memory, &[&blob]).await.unwrap();
    }
    let (bad_line, good_line) = (Proxy::before(mirror.host()), Proxy::before(primary.host()));
    bad_line.when("GET", "/blobs/").always().fault(Fault::Reset(Stage::Body(300_000)));
    let (registries, _) = through(&good_line.address, &[(&bad_line.address, "")]);
    let origin = Origin { source: &registries, repository: &named() };
    assert!(drain(origin.open(&blob).await.unwrap()).await.unwrap() == content);
    let ranges: Vec<_> = good_line.seen().iter().map(|request| request.range()).collect();
    assert!(matches!(ranges[..], [Some(from)] if from > 0), "received bytes are not fetched twice: {ranges:?}");
    let shares: Vec<u64> = registries.served().iter().map(|served| served.bytes).collect();
    assert_eq!(shares.iter().sum::<u64>(), 900_000, "{shares:?}");
}

#[tokio::test]
async fn mirror_content_is_verified_and_a_wrong_digest_is_skipped() {
    let image = app();
    let (primary, mirror) = (registry_with(&image), registry_with(&image));
    let lying = Proxy::before(mirror.host());
    lying.when("GET", "/manifests/").always().fault(Fault::WrongDigest);
    let (registries, recorder) = through(primary.host(), &[(&lying.address, "")]);
    let reference = named().with_digest(digest(&image));
    let manifest = registries.manifest(&reference, Need::Required).await.unwrap().unwrap();
    assert_eq!(manifest.bytes().unwrap(), image.manifest[..]);
    assert!(warnings(&recorder)[0].contains(&lying.address), "{:?}", warnings(&recorder));

    let lying = Proxy::before(mirror.host());
    lying.when("GET", "/blobs/").always().fault(Fault::WrongDigest);
    let (registries, _) = through(primary.host(), &[(&lying.address, "")]);
    let error = pull(&registries, &tag(&named(), "1.0")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    // A reader that reports wrong bytes after the end gets the blob elsewhere.
    let (registries, recorder) = through(primary.host(), &[(&lying.address, "")]);
    let small = Cached::new(&registries, None);
    for blob in small.manifest(&tag(&named(), "1.0"), Need::Required).await.unwrap().unwrap().children() {
        small.small_blob(&named(), &blob.descriptor, 1 << 20).await.unwrap();
    }
    let message = warnings(&recorder);
    let named = |text: &&String| text.contains(&lying.address) && text.contains("wrong digest");
    assert_eq!(message.iter().filter(named).count(), image.blobs.len(), "{message:?}");
    // Discarded bytes count for no server.
    let (place, own) = (format!("{}/team/app", lying.address), format!("{}/team/app", primary.host()));
    let mut message = served(&registries);
    message.sort_by_key(|(from, ..)| *from == own);
    assert_eq!(message, [(place, 1, 0), (own.clone(), 0, image.blobs.len() as u64)]);
    let bytes = registries.served().into_iter().map(|served| (served.from.to_string() == own, served.bytes));
    assert!(bytes.clone().all(|(own, bytes)| own != (bytes == 0)), "{:?}", bytes.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_mirror_that_alters_every_blob_is_dropped_without_doubling_traffic() {
    let layers: Vec<String> = (0..12).map(|n| format!("layer {n}")).collect();
    let image = images::oci("team/app", "1.0", &layers.iter().map(String::as_str).collect::<Vec<_>>());
    let (primary, mirror) = (registry_with(&image), registry_with(&image));
    let lying = Proxy::before(mirror.host());
    lying.when("GET", "/blobs/").always().fault(Fault::WrongDigest);
    let (registries, recorder) = through(primary.host(), &[(&lying.address, "")]);
    let small = Cached::new(&registries, None);
    for blob in small.manifest(&tag(&named(), "1.0"), Need::Required).await.unwrap().unwrap().children() {
        small.small_blob(&named(), &blob.descriptor, 1 << 20).await.unwrap();
    }
    let asked = lying.seen().iter().filter(|request| request.is("GET", "/v2/team/app/blobs/")).count();
    assert_eq!(asked, 3, "{:?}", warnings(&recorder));
    let left_out = |text: &&String| text.contains("gave wrong bytes 3 times and is left out");
    assert_eq!(warnings(&recorder).iter().filter(left_out).count(), 1, "{:?}", warnings(&recorder));
}

/// Otherwise one brief failure of the registry loses content that its mirror serves wrongly.
#[tokio::test]
async fn after_a_mirror_the_registry_may_serve_wrong_bytes_once_too() {
    let image = app();
    let (primary, mirror) = (registry_with(&image), registry_with(&image));
    for part in ["/manifests/", "/blobs/"] {
        let (lying, unlucky) = (Proxy::before(mirror.host()), Proxy::before(primary.host()));
        lying.when("GET", part).always().fault(Fault::WrongDigest);
        unlucky.when("GET", part).fault(Fault::WrongDigest);
        let (registries, _) = through(&unlucky.address, &[(&lying.address, "")]);
        let reference = named().with_digest(digest(&image));
        let manifest = registries.manifest(&reference, Need::Required).await.unwrap().unwrap();
        assert_eq!(manifest.bytes().unwrap(), image.manifest[..]);
        let layer = &manifest.children()[1].descriptor;
        Cached::new(&registries, None).small_blob(&named(), layer, 1 << 20).await.unwrap();
        let asked = |proxy: &Proxy| {
            let reads = |request: &&Seen| request.method == "GET" && request.target.contains(part);
            proxy.seen().iter().filter(reads).count()
        };
        assert_eq!((asked(&lying), asked(&unlucky)), (1, 2), "{part}");
    }
}

/// A blob of 900,000 bytes at three registries, each behind its own proxy: the first mirror, the second one and the
/// registry itself. The first serves two thirds of it once and then goes down. The `lying` one also alters a byte of
/// its part.
async fn broken_off_and_finished(lying: usize) -> ([String; 3], Registries, Arc<Recorder>) {
    let (content, memory, registries) = (noise(900_000), MemorySource::default(), [(); 3].map(|()| Registry::start()));
    let blob = memory.add(content.clone());
    for registry in &registries {
        let repo = repository(registry.host(), "team/app");
        memory_source::push(&crate::registry::client(config()), &repo, &memory, &[&blob]).await.unwrap();
    }
    let far = registries.each_ref().map(|registry| Proxy::before(registry.host()));
    far[lying].when("GET", "/blobs/").always().fault(Fault::WrongDigest);
    let near = far.each_ref().map(|line| Proxy::before(&line.address));
    near[0].when("GET", "/blobs/").fault(Fault::Truncate(600_000));
    near[0].when("GET", "/blobs/").nth(2).always().fault(Fault::Status(503));
    let places = near.each_ref().map(|line| line.address.clone());
    let (reader, recorder) = through(&places[2], &[(&places[0], ""), (&places[1], "")]);
    let read = Cached::new(&reader, None).small_blob(&named(), &blob, 1 << 20).await.unwrap();
    assert!(read == content);
    (places, reader, recorder)
}

/// The number of useful bytes from each server.
fn merits(registries: &Registries) -> Vec<(String, u64)> {
    let served = registries.served().into_iter().filter(|served| served.bytes > 0);
    served.map(|served| (served.from.registry().to_owned(), served.bytes)).collect()
}

#[tokio::test]
async fn a_mirror_that_finishes_a_falsified_blob_is_not_blamed_and_serves_it_whole() {
    let (places, registries, recorder) = broken_off_and_finished(0).await;
    let message = warnings(&recorder);
    assert!(message.iter().any(|text| places[..2].iter().all(|place| text.contains(place))), "{message:?}");
    assert!(!message.iter().any(|text| text.contains("gave wrong bytes")), "the culprit is unknown: {message:?}");
    assert_eq!(merits(&registries), [(places[1].clone(), 900_000)]);
}

#[tokio::test]
async fn a_mirror_that_falsifies_the_end_is_blamed_and_the_honest_one_is_not() {
    let (places, registries, recorder) = broken_off_and_finished(1).await;
    let message = warnings(&recorder);
    let blamed: Vec<_> = message.iter().filter(|text| text.contains("gave wrong bytes")).collect();
    assert!(blamed.len() == 1 && blamed[0].contains(&places[1]) && !blamed[0].contains(&places[0]), "{message:?}");
    assert_eq!(merits(&registries), [(places[2].clone(), 900_000)]);
}

#[tokio::test]
async fn a_mirror_gets_only_the_requests_its_pull_setting_allows() {
    let image = app();
    let (primary, mirror) = (registry_with(&image), registry_with(&image));
    let by_tag = tag(&named(), "1.0");
    let by_digest = named().with_digest(digest(&image));
    let only = |what: &str| through(primary.host(), &[(mirror.host(), &format!("pull-from-mirror = '{what}-only'"))]).0;
    let place = format!("{}/team/app", mirror.host());
    let own = format!("{}/team/app", primary.host());

    pull(&only("tag"), &by_tag).await.unwrap();
    assert_eq!(reads(&primary), 0, "the blobs of a tag are read from the tag's server");
    let tags = only("tag");
    pull(&tags, &by_digest).await.unwrap();
    assert_eq!(served(&tags), [(own.clone(), 1, 3)]);

    let digests = only("digest");
    pull(&digests, &by_digest).await.unwrap();
    assert_eq!(served(&digests), [(place, 1, 3)]);
    let digests = only("digest");
    pull(&digests, &by_tag).await.unwrap();
    assert_eq!(served(&digests), [(own, 1, 3)], "a digest-only mirror is not asked to resolve a tag");
}

#[tokio::test]
async fn a_registrys_credentials_are_never_sent_to_its_mirror() {
    let basic = |request: &Seen, _| match request.header("authorization") {
        "" => Answer::new(401).with("WWW-Authenticate", "Basic realm=\"mirror\""),
        _ => Answer::new(404),
    };
    let mirror = Server::start(basic).await;
    let image = app();
    let primary = Registry::with(Options { credentials: Some(("me".into(), "secret".into())), ..Options::default() });
    image.push(&primary);
    let text = format!(
        "[[registry]]\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{}'\n",
        primary.host(),
        mirror.address
    );
    let repo = repository(primary.host(), "team/app");
    let mut given = Store::anonymous();
    // A command's --creds apply to all its registries, including a mirror that a reference names directly.
    for registry in [primary.host(), &mirror.address] {
        given.set(registry, Credentials::basic("me", "secret"));
    }
    let (registries, _) = watched(Config { credentials: given, routes: routes(&text), ..config() });
    pull(&registries, &tag(&repo, "1.0")).await.unwrap();
    assert!(!mirror.seen().is_empty());
    assert!(mirror.seen().iter().all(|request| request.header("authorization").is_empty()), "{:?}", mirror.seen());

    let file = tempfile::NamedTempFile::new().unwrap();
    let json = format!(r#"{{"auths":{{"{}":{{"auth":"dXM6b3du"}}}}}}"#, mirror.address);
    std::fs::write(file.path(), json).unwrap();
    let mut known = Store::load(Some(file.path()), &|_| None).unwrap();
    known.set(primary.host(), Credentials::basic("me", "secret"));
    let (registries, _) = watched(Config { credentials: known, routes: routes(&text), ..config() });
    pull(&registries, &tag(&repo, "1.0")).await.unwrap();
    assert!(mirror.seen().iter().any(|request| request.header("authorization") == "Basic dXM6b3du"));
}

#[tokio::test]
async fn credentials_do_not_follow_a_rewritten_location() {
    let image = app();
    let moved = registry_with(&image);
    let watching = Proxy::before(moved.host());
    watching.when("GET", "/v2/").fault(Fault::Unauthorized);
    let mut given = Store::anonymous();
    given.set(NAME, Credentials::basic("me", "secret"));
    let (registries, _) =
        watched(Config { credentials: given, routes: routes(&table(&watching.address, &[])), ..config() });
    let _ = pull(&registries, &tag(&named(), "1.0")).await;
    assert!(watching.seen().iter().all(|request| request.header("authorization").is_empty()), "{:?}", watching.seen());
}

#[tokio::test]
async fn a_blocked_registry_is_refused_without_a_request() {
    let registry = registry_with(&app());
    let text = format!("[[registry]]\nlocation = '{}'\nblocked = true\n", registry.host());
    let (registries, _) = watched(Config { routes: routes(&text), ..config() });
    let reference = tag(&repository(registry.host(), "team/app"), "1.0");
    for error in [
        registries.manifest(&reference, Need::Required).await.unwrap_err(),
        Sink::resolve(&registries, &reference).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains("registries.conf:1"), "{error}");
    }
    assert_eq!(reads(&registry), 0);
}

#[tokio::test]
async fn signatures_only_at_the_registry_are_found_and_its_outage_blocks_nothing() {
    let image = app();
    let (primary, mirror) = (registry_with(&image), registry_with(&image));
    let referrer = images::referrer(&image, "application/vnd.example.sbom", b"{}");
    referrer.push(&primary);
    images::referrers_tag(&image, std::slice::from_ref(&referrer)).push(&primary);
    let subject = digest(&image);
    let (registries, _) = through(primary.host(), &[(mirror.host(), "")]);
    let found = registries.referrers(&named(), &subject).await.unwrap().found;
    assert_eq!(found.iter().map(|d| d.digest.to_string()).collect::<Vec<_>>(), [referrer.digest()]);

    let down = Server::start(|_, _| Answer::new(200)).await.address.clone();
    let (registries, recorder) = through(&down, &[(mirror.host(), "")]);
    assert!(registries.referrers(&named(), &subject).await.unwrap().found.is_empty());
    assert!(warnings(&recorder).iter().any(|text| text.contains(&down)), "{:?}", warnings(&recorder));
}

#[tokio::test]
async fn tags_are_listed_at_the_registry_and_from_a_mirror_only_with_a_warning() {
    let image = app();
    let (primary, mirror) = (registry_with(&image), registry_with(&image));
    image.named("team/app", "2.0").push(&primary);
    let list = |mut tags: Vec<gapferry::oci::Tag>| {
        tags.sort();
        tags.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let (registries, recorder) = through(primary.host(), &[(mirror.host(), "")]);
    let found = registries.tags(&named(), Need::Required).await.unwrap();
    assert!(found.doubts.is_empty() && warnings(&recorder).is_empty());
    assert_eq!(list(found.tags), ["1.0", "2.0"]);

    let down = Server::start(|_, _| Answer::new(200)).await.address.clone();
    let (registries, _) = through(&down, &[(mirror.host(), "")]);
    let found = registries.tags(&named(), Need::Required).await.unwrap();
    assert_eq!(list(found.tags), ["1.0"]);
    assert!(found.doubts[0].contains("may be incomplete"), "{:?}", found.doubts);
}

#[tokio::test]
async fn a_mirror_with_an_untrusted_certificate_needs_insecure() {
    let image = app();
    let primary = registry_with(&image);
    let mirror = Registry::with(Options { tls: true, ..Options::default() });
    image.push(&mirror);
    let from = |registries: &Registries| served(registries).into_iter().map(|(from, ..)| from).collect::<String>();
    let (strict, _) = through(primary.host(), &[(mirror.host(), "")]);
    pull(&strict, &tag(&named(), "1.0")).await.unwrap();
    assert!(from(&strict).starts_with(primary.host()));
    let (lax, _) = through(primary.host(), &[(mirror.host(), "insecure = true")]);
    pull(&lax, &tag(&named(), "1.0")).await.unwrap();
    assert!(from(&lax).starts_with(mirror.host()));
    // The command line overrides the file.
    let tls = TlsConfig { verify: Some(true), ..TlsConfig::default() };
    let text = table(primary.host(), &[(mirror.host(), "insecure = true")]);
    let (message, _) = watched(Config { tls, routes: routes(&text), ..config() });
    pull(&message, &tag(&named(), "1.0")).await.unwrap();
    assert!(from(&message).starts_with(primary.host()));
}

#[tokio::test]
async fn a_push_goes_to_the_registry_and_not_to_its_mirror() {
    let (primary, mirror) = (Registry::start(), Registry::start());
    let text =
        format!("[[registry]]\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{}'\n", primary.host(), mirror.host());
    let (registries, _) = watched(Config { routes: routes(&text), ..config() });
    let (memory, repo) = (MemorySource::default(), repository(primary.host(), "team/app"));
    let blob = memory.add("content");
    memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap();
    assert!(registries.has_blob(&repo, &blob).await.unwrap());
    assert!(mirror.requests().is_empty());
}
