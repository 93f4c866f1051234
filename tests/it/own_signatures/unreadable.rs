//! Unreadable lists at the target are left alone and fail no image.

use serde_json::Value;

use super::TestSite;
use crate::support::cosign::{self, list};
use crate::support::faulty::{Answer, Server, exchange};
use crate::support::images;
use crate::support::registry::Registry;

/// Answers requests for these tags' manifests with `fault`, and passes the rest to the registry.
async fn unreadable(target: &Registry, tag: String, fault: &'static str) -> Server {
    let host = target.host().to_owned();
    let denied = || Answer::new(403).body(r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#);
    Server::start(move |request, _| {
        let is_look = matches!(&*request.method, "GET" | "HEAD") && request.target != "/v2/";
        let is_it = request.target.ends_with(&format!("/manifests/{tag}"));
        match fault {
            "only pushes" if is_look => denied(),
            "500" if is_look && is_it => Answer::new(500),
            "403" if is_look && is_it => denied(),
            "page" if is_look && is_it => {
                Answer::new(200).with("Content-Type", "text/html").body("<html>log in</html>")
            }
            _ => exchange(&host, request).unwrap(),
        }
    })
    .await
}

#[tokio::test]
async fn an_unreadable_signature_list_loses_its_signatures_but_no_image() {
    let site = TestSite::exported();
    let tag = cosign::tag(&site.app, "sig");
    for fault in ["500", "page"] {
        let target = Registry::start();
        let theirs = list(&site.app, "sig", std::slice::from_ref(&site.own));
        theirs.push(&target);
        let server = unreadable(&target, tag.clone(), fault).await;
        for done in ["1 image pushed", "1 present"] {
            let ran = site.import_to(&server.address, &["--retries", "0"]).ended(1);
            ran.reported(&["failed: companion", &*tag, "nor replaced without losing its content", done]);
            assert_eq!(target.digest("team/app", "1"), Some(site.app.digest()), "{fault}");
            assert_eq!(target.digest("team/app", &tag), Some(theirs.digest()), "{fault}");
        }
        site.import_to(&server.address, &["--retries", "0", "--on-existing", "skip"]).ended(0);
    }
}

#[tokio::test]
async fn an_unreadable_referrers_list_is_left_alone_and_loses_no_image() {
    let site = TestSite::exported();
    let [ours, theirs] =
        ["ours", "theirs"].map(|text| images::referrer(&site.app, "application/spdx+json", text.as_bytes()));
    let list = images::referrers_tag(&site.app, std::slice::from_ref(&ours));
    [&ours, &list].iter().for_each(|image| image.push(&site.source));
    site.export(&[]);
    let tag = list.tag.clone().unwrap();
    for fault in ["500", "403", "page", "only pushes", "another image"] {
        let target = Registry::start();
        let there = match fault {
            "another image" => images::oci("team/app", &tag, &["an image"]),
            _ => images::referrers_tag(&site.app, std::slice::from_ref(&theirs)),
        };
        [&site.app, &theirs, &there].iter().for_each(|image| image.push(&target));
        target.request("DELETE", &format!("/v2/team/app/manifests/{}", site.app.digest())).send().expect(202);
        let server = unreadable(&target, tag.clone(), fault).await;
        let says: &[&str] = match fault {
            "403" => &["1 list of referrers left unchanged: this account may not read"],
            "only pushes" => &["1 signature tag and 1 list of referrers left unchanged: this account may not read"],
            _ => &["failed: companion", &tag, "the list was left alone"],
        };
        for _ in 0..2 {
            let ran = site.import_to(&server.address, &["--retries", "0", "--receipt", "receipt.json"]).ended(1);
            let ran = ran.reported(says);
            assert_eq!(
                ran.stderr.lines().filter(|line| line.starts_with("failed:")).count(),
                usize::from(says.len() > 1)
            );
            assert_eq!(target.digest("team/app", "1"), Some(site.app.digest()), "{fault}: the image gets its tag");
            assert_eq!(target.digest("team/app", &tag), Some(there.digest()), "{fault}: nobody's entries are lost");
        }
        let receipt: Value = serde_json::from_slice(&std::fs::read(site.path().join("receipt.json")).unwrap()).unwrap();
        let companions = receipt["images"][0]["companions"].as_array().unwrap();
        let own = companions.iter().find(|own| own["digest"] == ours.digest()).unwrap();
        assert_eq!(own["outcome"], "failed", "{fault}: {receipt}");
        let confirmed = receipt["confirmed"].as_array().unwrap();
        assert!(!confirmed.contains(&own["digest"]), "{fault}: the next increment carries it again");
    }
}
