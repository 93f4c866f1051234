//! Reading the contents of a layout: images, lists, referrers, ranges.

use gapferry::base::progress::Event;
use serde_json::json;

use super::{code, docker, layout_of};
use crate::support::embedded::Embedded;
use crate::support::http::Answer;
use crate::support::images::{self, Corpus, Image, push_blob};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, sha256, skopeo, tempdir};

#[test]
fn skopeo_reads_every_kind_of_image_with_its_digest_from_a_directory_and_from_a_tar() {
    let work = tempdir();
    let (directory, tar) = (work.path().join("layout"), work.path().join("layout.tar"));
    let corpus = Corpus::everything();
    layout_of(&directory, &corpus.images);
    let mut archive = tar::Builder::new(std::fs::File::create(&tar).unwrap());
    for (name, bytes) in files_below(&directory) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap();
    for served in [&directory, &tar] {
        let server = Embedded::serve(served);
        for image in corpus.images.iter().filter(|image| image.tag.is_some()) {
            assert_eq!(skopeo::digest(&docker(&server, &image.name())), image.digest(), "{}", image.name());
        }
        let copy = tempdir();
        for reference in ["library/index:1.0", "docker.io/library/list:1.0", "a/b/c/d:x"] {
            let target = copy.path().join(reference.replace(['/', ':'], "-"));
            skopeo::copy(&docker(&server, reference), &format!("dir:{}", target.display()));
        }
        assert_eq!(skopeo::list_tags(&docker(&server, "library/oci")), ["1.0", "same"]);
        skopeo::run(&["inspect", "--tls-verify=false", &docker(&server, "library/docker:1.0")]);
        assert_eq!(server.events(), []);
        assert!(server.references().contains(&"team/odd-sizes:1".to_owned()));
    }
}

#[test]
fn what_skopeo_pushes_into_a_directory_can_be_read_back_as_registry_and_as_layout() {
    let (registry, work) = (Registry::start(), tempdir());
    let (index, schema2) = (images::oci_index("x/index", "1", "i"), images::docker("x/docker", "1", &["d"]));
    index.push(&registry);
    schema2.push(&registry);
    let server = Embedded::writable(work.path());
    for image in [&index, &schema2] {
        skopeo::copy(&format!("docker://{}/{}", registry.host(), image.name()), &docker(&server, &image.name()));
        assert_eq!(skopeo::digest(&docker(&server, &image.name())), image.digest());
    }
    // Debian's skopeo 1.9 accepts only OCI types in a layout.
    let layout = format!("oci:{}:docker.io/{}", work.path().display(), index.name());
    assert_eq!(skopeo::digest(&layout), index.digest());
    drop(server);
    let index_json = std::fs::read_to_string(work.path().join("index.json")).unwrap();
    assert_eq!(index_json.matches("\"digest\"").count(), 2, "children are not listed: {index_json}");
    assert!(!work.path().join(".uploads").exists());
    // Copied back into a real registry, from the read-only server.
    let server = Embedded::serve(work.path());
    skopeo::copy(&docker(&server, "x/index:1"), &format!("docker://{}/back:1", registry.host()));
    assert_eq!(registry.digest("back", "1"), Some(index.digest()));
}

#[test]
fn an_image_is_found_by_its_full_name_and_by_dockers_short_name() {
    let work = tempdir();
    let (hub, quay) = (images::oci("x", "1", &["hub"]), images::oci("x", "1", &["quay"]));
    layout_of(work.path(), &[hub.named("library/nginx", "1"), quay.named("quay.io/library/nginx", "1")]);
    let server = Embedded::serve(work.path());
    for (name, image) in
        [("nginx", &hub), ("library/nginx", &hub), ("docker.io/library/nginx", &hub), ("quay.io/library/nginx", &quay)]
    {
        assert_eq!(skopeo::digest(&docker(&server, &format!("{name}:1"))), image.digest(), "{name}");
    }
    assert_eq!(server.references(), ["library/nginx:1", "quay.io/library/nginx:1"]);
}

#[test]
fn a_skopeo_layout_with_bare_tags_is_served_under_its_own_name() {
    let (registry, work) = (Registry::start(), tempdir());
    let image = images::oci("x", "1", &["x"]);
    image.push(&registry);
    let layout = work.path().join("My-App");
    let source = format!("docker://{}/x:1", registry.host());
    skopeo::copy(&source, &format!("oci:{}:v7", layout.display()));
    let server = Embedded::serve(&layout);
    assert_eq!(skopeo::digest(&docker(&server, "my-app:v7")), image.digest());
}

#[test]
fn head_gives_the_headers_of_get_without_a_body() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    layout_of(work.path(), std::slice::from_ref(&image));
    let server = Embedded::serve(work.path());
    for path in [
        "/v2/".to_owned(),
        "/v2/team/app/manifests/1".to_owned(),
        format!("/v2/team/app/manifests/{}", image.digest()),
        format!("/v2/team/app/blobs/{}", sha256(&image.blobs[1])),
        "/v2/team/app/tags/list".to_owned(),
        "/v2/team/app/manifests/none".to_owned(),
    ] {
        let (got, head) = (server.get(&path), server.request("HEAD", &path).send());
        assert_eq!(head.status, got.status, "{path}");
        assert!(head.body.is_empty());
        for name in ["content-type", "content-length", "docker-content-digest", "docker-distribution-api-version"] {
            assert_eq!(head.header(name), got.header(name), "{name} of {path}");
        }
        assert_eq!(got.header("content-length"), Some(got.body.len().to_string().as_str()), "{path}");
    }
    let manifest = server.get("/v2/team/app/manifests/1");
    assert_eq!(manifest.header("content-type"), Some(image.media_type.as_str()));
    assert_eq!(manifest.header("docker-content-digest"), Some(image.digest().as_str()));
    assert_eq!(manifest.body, image.manifest);
}

#[test]
fn a_broken_download_resumes() {
    let work = tempdir();
    let blob: Vec<u8> = (0..2_000_000_u32).flat_map(|i| i.to_le_bytes()).collect();
    let image = images::oci_raw("a", "1", b"{}", &[("application/vnd.example.large", blob.clone())]);
    layout_of(work.path(), &[image]);
    let server = Embedded::serve(work.path());
    let path = format!("/v2/a/blobs/{}", sha256(&blob));
    assert_eq!(server.get(&path).expect(200).body, blob);
    let ask = |range: &str| server.request("GET", &path).header("Range", range).send();
    let part = ask("bytes=7000000-").expect(206);
    assert_eq!(part.header("content-range"), Some("bytes 7000000-7999999/8000000"));
    assert_eq!(part.body, blob[7_000_000..]);
    assert_eq!(ask("bytes=5-8").expect(206).body, blob[5..9]);
    assert_eq!(ask("bytes=-3").expect(206).body, blob[7_999_997..]);
    let behind = ask("bytes=8000000-").expect(416);
    assert_eq!(behind.header("content-range"), Some("bytes */8000000"));
}

#[test]
fn pages_of_a_long_list_miss_and_repeat_nothing() {
    let work = tempdir();
    let image = images::oci("a", "1", &["x"]);
    let named: Vec<Image> = (0..7).map(|i| image.named("team/app", &format!("v{i}"))).collect();
    let others: Vec<Image> = (0..4).map(|i| image.named(&format!("repo{i}/x"), "1")).collect();
    layout_of(work.path(), &[named, others].concat());
    let server = Embedded::serve(work.path());
    let pages = |first: &str, key: &str| {
        let (mut next, mut all, mut count) = (Some(first.to_owned()), Vec::new(), 0);
        while let Some(path) = next {
            let answer = server.get(&path).expect(200);
            let items = answer.json()[key].as_array().unwrap().clone();
            all.extend(items.iter().map(|item| item.as_str().unwrap().to_owned()));
            let link = answer.header("link").map(|link| link.split(['<', '>']).nth(1).unwrap().to_owned());
            (next, count) = (link, count + 1);
        }
        (all, count)
    };
    let (tags, count) = pages("/v2/team/app/tags/list?n=3", "tags");
    assert_eq!((tags.len(), count), (7, 3));
    assert_eq!(tags, ["v0", "v1", "v2", "v3", "v4", "v5", "v6"]);
    let (repositories, count) = pages("/v2/_catalog?n=2", "repositories");
    assert_eq!(repositories, ["repo0/x", "repo1/x", "repo2/x", "repo3/x", "team/app"]);
    assert_eq!(count, 3);
    assert_eq!(server.get("/v2/team/app/tags/list").json()["tags"].as_array().unwrap().len(), 7);
    assert_eq!(server.get("/v2/team/app/tags/list?n=0").json()["tags"], json!([]));
    assert_eq!(code(&server.get("/v2/team/app/tags/list?n=x").expect(400)), "PAGINATION_NUMBER_INVALID");
    assert_eq!(code(&server.get("/v2/none/tags/list").expect(404)), "NAME_UNKNOWN");
}

#[test]
fn referrers_are_listed_and_filtered() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    let sbom = images::referrer(&image, "application/spdx+json", b"sbom");
    let signature = images::referrer(&image, "application/vnd.example.signature", b"signature");
    let about_sbom = images::referrer(&sbom, "application/vnd.example.signature", b"signature of the sbom");
    let server = Embedded::writable(work.path());
    // A referrer may be pushed before its subject.
    let path = format!("/v2/team/app/manifests/{}", sbom.digest());
    sbom.blobs.iter().for_each(|blob| push_blob(&server, "team/app", blob));
    let put = server.request("PUT", &path).header("Content-Type", &sbom.media_type).body(sbom.manifest.clone());
    assert_eq!(put.send().expect(201).header("oci-subject"), Some(image.digest().as_str()));
    [&image, &signature, &about_sbom].into_iter().for_each(|image| image.push(&server));
    let check = |server: &Embedded| {
        let list = |query: &str| server.get(&format!("/v2/team/app/referrers/{}{query}", image.digest())).expect(200);
        let all = list("");
        assert_eq!(all.header("content-type"), Some("application/vnd.oci.image.index.v1+json"));
        assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
        let filtered = list("?artifactType=application/spdx%2Bjson");
        assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
        assert_eq!(filtered.json()["manifests"].as_array().unwrap().len(), 1);
        let entry = filtered.json()["manifests"][0].clone();
        assert_eq!(entry["digest"], sbom.digest());
        assert_eq!(entry["artifactType"], "application/spdx+json");
        assert_eq!(entry["annotations"]["org.example.of"], image.name());
        let none = server.get(&format!("/v2/team/app/referrers/{}", sha256(b"nobody"))).expect(200);
        assert_eq!(none.json()["manifests"], json!([]));
        assert_eq!(code(&server.get("/v2/team/app/referrers/sha256:12").expect(400)), "DIGEST_INVALID");
    };
    check(&server);
    drop(server);
    check(&Embedded::serve(work.path()));
}

#[test]
fn a_damaged_manifest_is_not_served() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    layout_of(work.path(), std::slice::from_ref(&image));
    let path = work.path().join("blobs/sha256").join(image.digest().trim_start_matches("sha256:"));
    let damaged = String::from_utf8(image.manifest.clone()).unwrap().replace("\"size\"", "\"sizE\"");
    std::fs::write(&path, damaged).unwrap();
    let server = Embedded::serve(work.path());
    assert!(server.get("/v2/team/app/manifests/1").expect(500).text().contains("wrong digest"));
    assert!(matches!(&server.events()[..], [Event::Warning(text)] if text.contains("wrong digest")));
}

/// A list that omits a damaged signature would make the image look unsigned. Other images keep their signatures.
#[test]
fn an_unreadable_referrer_fails_only_its_subjects_list() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    let [good, bad] =
        [b"good", b"evil"].map(|text| images::referrer(&image, "application/vnd.example.signature", text));
    let other = images::oci("team/app", "2", &["y"]);
    let signature = images::referrer(&other, "application/vnd.example.signature", b"other");
    layout_of(work.path(), &[image.clone(), good.clone(), bad.clone(), other.clone(), signature]);
    let path = |image: &Image| work.path().join("blobs/sha256").join(image.digest().trim_start_matches("sha256:"));
    std::fs::write(path(&bad), "damaged").unwrap();
    for server in [Embedded::serve(work.path()), Embedded::writable(work.path())] {
        let list = |image: &Image| server.get(&format!("/v2/team/app/referrers/{}", image.digest()));
        for _ in 0..2 {
            let refused = list(&image).expect(500);
            assert_eq!(code(&refused), "MANIFEST_INVALID");
            assert!(refused.text().contains(&bad.digest()), "{}", refused.text());
            let whole = list(&other).expect(200);
            assert_eq!(whole.json()["manifests"].as_array().unwrap().len(), 1);
            assert_eq!(whole.header("warning"), None);
        }
        // The operator gets one warning.
        assert!(matches!(&server.events()[..], [Event::Warning(text)] if text.contains("wrong digest")));
    }
    let server = Embedded::writable(work.path());
    let list = |image: &Image| server.get(&format!("/v2/team/app/referrers/{}", image.digest()));
    list(&image).expect(500);
    // A repaired referrer is listed without a restart.
    std::fs::write(path(&bad), &bad.manifest).unwrap();
    assert_eq!(list(&image).expect(200).json()["manifests"].as_array().unwrap().len(), 2);
    // The same for a referrer that was present when the server started.
    std::fs::remove_file(path(&good)).unwrap();
    for _ in 0..3 {
        let refused = list(&image).expect(500).text();
        assert!(refused.contains(&good.digest()) && refused.contains("missing"), "{refused}");
    }
    let message = server.events();
    assert!(matches!(&message[..], [_, Event::Warning(text)] if text.contains(&good.digest())), "{message:?}");
    let deleted = server.request("DELETE", &format!("/v2/team/app/manifests/{}", good.digest())).send();
    assert_eq!(deleted.status, 202, "{}", deleted.text());
    assert_eq!(list(&image).expect(200).json()["manifests"].as_array().unwrap().len(), 1);
}

/// The index of other programs' layouts does not record a manifest's subject.
#[test]
fn a_manifest_with_an_unknown_subject_causes_a_warning() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    let referrer = images::referrer(&image, "application/vnd.example.signature", b"signature").named("team/app", "s");
    let other = images::oci("team/app", "2", &["y"]);
    layout_of(work.path(), &[image.clone(), referrer.clone(), other.clone()]);
    let path = work.path().join("blobs/sha256").join(referrer.digest().trim_start_matches("sha256:"));
    let list = |server: &Embedded, image: &Image| server.get(&format!("/v2/team/app/referrers/{}", image.digest()));
    let is_warned = |answer: &Answer| answer.header("warning").is_some_and(|text| text.contains(&referrer.digest()));
    // The rest of the damaged manifest still names its subject.
    let damaged = String::from_utf8(referrer.manifest.clone()).unwrap().replace("\"size\"", "\"sizE\"");
    std::fs::write(&path, damaged).unwrap();
    let server = Embedded::serve(work.path());
    list(&server, &image).expect(500);
    assert!(is_warned(&list(&server, &other).expect(200)));
    std::fs::remove_file(&path).unwrap();
    let server = Embedded::serve(work.path());
    for image in [&image, &other] {
        assert!(is_warned(&list(&server, image).expect(200)));
    }
}

#[test]
fn an_image_with_a_lost_signature_does_not_look_unsigned() {
    let work = tempdir();
    let layout = work.path().join("layout");
    let image = images::oci("team/app", "1", &["x"]);
    let signature = images::referrer(&image, "application/vnd.example.signature", b"signature");
    layout_of(&layout, &[image.clone(), signature.clone()]);
    std::fs::remove_file(layout.join("blobs/sha256").join(signature.digest().trim_start_matches("sha256:"))).unwrap();
    let server = Embedded::serve(&layout);
    let (reference, lock) = (format!("{}/team/app:1", server.host()), work.path().join("lock"));
    let mut run = gapferry();
    run.args(["lock", &reference, "--retries", "1", "-o"]).arg(&lock);
    Ran::of(&mut run).ended(0).reported(&["could not be looked up", &signature.digest(), "--require-referrers"]);
    let refused = Ran::of(run.arg("--require-referrers"));
    assert!(matches!(refused.code, Some(3..=5)), "{refused:#?}");
}

#[test]
fn referrers_of_an_untagged_subject_are_found_in_their_own_repository() {
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let image = images::oci("team/app", "", &["x"]);
    let signature = images::referrer(&image, "application/vnd.example.signature", b"signature");
    let other = images::oci("team/other", "", &["x"]);
    [&image, &signature, &other].into_iter().for_each(|image| image.push(&server));
    let count = |server: &Embedded, name: &str| {
        let answer = server.get(&format!("/v2/{name}/referrers/{}", image.digest())).expect(200);
        answer.json()["manifests"].as_array().unwrap().len()
    };
    assert_eq!(image.digest(), other.digest());
    assert_eq!((count(&server, "team/app"), count(&server, "team/other")), (1, 0));
    drop(server);
    // Programs that load layouts create an image for every name, so the referrer has none.
    let index = std::fs::read_to_string(work.path().join("index.json")).unwrap();
    assert!(!index.contains(&format!("team/app@{}", signature.digest())), "{index}");
    let server = Embedded::serve(work.path());
    assert_eq!((count(&server, "team/app"), count(&server, "team/other")), (1, 0));
}
