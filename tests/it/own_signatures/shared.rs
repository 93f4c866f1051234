//! Lists with several writers: two sources in one import, other programs during it, and Harbor, which keeps old
//! versions.

use std::sync::Mutex;

use super::TestSite;
use crate::support::cosign::{self, list, signature};
use crate::support::faulty::{Answer, Seen, Server, exchange};
use crate::support::gapferry;
use crate::support::images;
use crate::support::ran::Ran;
use crate::support::registry::Registry;

#[test]
fn signatures_of_one_image_from_two_sources_land_on_one_list() {
    let site = TestSite::exported();
    let elsewhere = Registry::start();
    [&site.app, &list(&site.app, "sig", std::slice::from_ref(&site.own))]
        .iter()
        .for_each(|image| image.push(&elsewhere));
    let lines = format!("{}/team/app:1 as=app:one\n{}/team/app:1 as=app:two\n", site.source.host(), elsewhere.host());
    std::fs::write(site.path().join("list"), lines).unwrap();
    let mut command = gapferry();
    command.current_dir(site.path()).args(["export", "-f", "list", "-o", "bundle.tar"]);
    Ran::of(&mut command).ended(0);
    for _ in 0..2 {
        site.import(&[]).ended(0);
        let there = site.target.manifest("app", &cosign::tag(&site.app, "sig")).expect(200).json();
        let layers = there["layers"].as_array().unwrap();
        assert!(
            layers.len() == 2 && [&site.vendor, &site.own].iter().all(|own| layers.contains(&own.descriptor)),
            "{there}"
        );
    }
}

/// Another import read the tag before this one wrote it, and writes later: no registry can prevent that. A third may
/// even do so after this import joined its list again and checked it.
#[tokio::test]
async fn a_list_overwritten_by_another_program_during_the_import_is_joined_again() {
    for writes in [1, 2] {
        let site = TestSite::exported();
        let tag = cosign::tag(&site.app, "sig");
        let theirs = list(&site.app, "sig", std::slice::from_ref(&site.own));
        theirs.blobs.iter().for_each(|blob| images::push_blob(&site.target, "team/app", blob));
        let mut late = Seen::new("PUT", format!("/v2/team/app/manifests/{tag}"));
        late.headers.insert("content-type".to_owned(), theirs.media_type.clone());
        late.headers.insert("content-length".to_owned(), theirs.manifest.len().to_string());
        late.body = theirs.manifest.clone();
        let (host, name, state) = (site.target.host().to_owned(), late.target.clone(), Mutex::new((0, 0)));
        let server = Server::start(move |request, _| {
            let write = || assert_eq!(exchange(&host, &late).unwrap().status, 201);
            let (written, read) = &mut *state.lock().unwrap();
            // The import has written its list by now.
            if *written == 0 && request.method == "PUT" && request.target == "/v2/team/app/manifests/1" {
                *written = 1;
                write();
            }
            let answer = exchange(&host, request).unwrap();
            if *written == 1 && request.method == "PUT" && request.target == name {
                *written = 2;
            }
            // The import joined the lists, read the result back and checked it: two HEADs and a GET.
            if *written == 2 && request.method != "PUT" && request.target == name {
                *read += 1;
                if writes == 2 && *read == 3 {
                    assert_eq!(request.method, "GET");
                    write();
                }
            }
            answer
        });
        let server = server.await;
        site.import_to(&server.address, &[]).ended(0);
        site.assert_there(&[&site.own, &site.vendor]);
    }
}

/// Harbor keeps the list from before the image was signed again, and names it among the referrers.
#[tokio::test]
async fn an_earlier_version_of_a_signature_list_causes_no_warning() {
    let site = TestSite::exported();
    let second = signature(&site.app, "the vendor's second key");
    let (before, stranger) =
        (list(&site.app, "sig", std::slice::from_ref(&site.vendor)), images::oci("team/app", "x", &["x"]));
    [&before, &stranger, &list(&site.app, "sig", &[site.vendor.clone(), second])]
        .iter()
        .for_each(|it| it.push(&site.source));
    for (listed, warns) in [(&before, false), (&stranger, true)] {
        let index = images::index_of("team/app", "", &[(listed, None)], None);
        let host = site.source.host().to_owned();
        let about_the_image = format!("/referrers/{}", site.app.digest());
        let server = Server::start(move |request, _| match request.target.contains(&about_the_image) {
            true => Answer::new(200).with("Content-Type", &*index.media_type).body(index.manifest.clone()),
            false => exchange(&host, request).unwrap(),
        });
        let server = server.await;
        let mut command = gapferry();
        let reference = format!("{}/team/app:1", server.address);
        let ran =
            Ran::of(command.current_dir(site.path()).args(["lock", &reference, "-o"]).arg(format!("lock-{warns}")))
                .ended(0);
        assert_eq!(ran.stderr.contains("does not name it"), warns, "{ran:?}");
    }
}
