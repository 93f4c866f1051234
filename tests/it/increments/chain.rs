//! A chain of bundles, each building on what has arrived.

use std::collections::BTreeSet;

use super::fixture::Sides;
use crate::support::images::{self, Image};
use crate::support::{gapferry, skopeo};

fn app(tag: &str) -> Image {
    images::oci("team/app", tag, &[&images::noise(1, 200_000), &format!("layer of {tag}")])
}

#[test]
fn an_increment_holds_only_new_content_and_the_target_ends_complete() {
    let sides = Sides::new();
    let index = images::oci_index("team/multi", "1", "both platforms");
    let signed = images::oci("team/signed", "v1", &["signed"]);
    let signature = images::cosign_signature(&signed);
    [&app("1"), &index, &signed, &signature].iter().for_each(|image| image.push(&sides.source));
    let before = ["team/app:1", "team/multi:1", "team/signed:v1"];
    sides.export("first", &before, &[]);
    sides.deliver("first");

    let next = app("2");
    next.push(&sides.source);
    let now = ["team/app:1", "team/app:2", "team/multi:1", "team/signed:v1"];
    sides.export("second", &now, &["--since", "first.receipt"]).reported(&["builds on a receipt of"]);
    // The base layer has arrived. A signature list is always carried, because the other side may have extended it.
    let new = [&next.blobs[0], &next.blobs[2], &next.manifest, &signature.manifest];
    let new: BTreeSet<String> = new.map(|blob| crate::support::sha256(blob)).into();
    assert_eq!(sides.carried("second").into_iter().collect::<BTreeSet<_>>(), new);
    assert_eq!(sides.json("second").lock.images.len(), 4);

    let verified = gapferry().arg("verify").arg("--full").arg(sides.path("second.tar")).assert().success();
    let text = String::from_utf8_lossy(&verified.get_output().stdout).into_owned();
    assert!(text.contains("builds on a receipt of") && text.contains("at the target"), "{text}");

    let uploads = sides.target.uploads();
    sides.deliver("second").reported(&["1 image pushed, 3 present"]);
    assert_eq!(sides.target.uploads() - uploads, 2, "config and layer");
    for image in [app("1"), next, index, signed] {
        assert_eq!(sides.target.digest(&image.repository, image.tag.as_deref().unwrap()), Some(image.digest()));
    }
    let copy = sides.path("copy");
    skopeo::copy_with(
        &format!("docker://{}/team/app:2", sides.target.host()),
        &format!("dir:{}", copy.display()),
        &["--preserve-digests"],
    );
    // An increment's receipt confirms every image, not only those it brought.
    assert_eq!(sides.read("second.receipt")["images"].as_array().unwrap().len(), 4);
}

#[test]
fn a_chain_of_five_increments_with_one_lost_ends_complete() {
    let sides = Sides::new();
    let mut names: Vec<String> = Vec::new();
    let mut receipt = None;
    for step in 1..=5_u32 {
        let image = app(&step.to_string());
        image.push(&sides.source);
        names.push(image.name());
        let (name, names) = (format!("b{step}"), names.iter().map(String::as_str).collect::<Vec<_>>());
        let since = receipt.clone().map(|receipt| ["--since".to_owned(), receipt]);
        let options: Vec<&str> = since.iter().flatten().map(String::as_str).collect();
        sides.export(&name, &names, &options);
        if step != 3 {
            sides.deliver(&name);
            receipt = Some(format!("{name}.receipt"));
        }
        if step == 4 {
            // The next increment also carries the content of the lost one: two images, each with a layer, a config and
            // a manifest.
            assert_eq!(sides.carried(&name).len(), 6);
        }
    }
    for step in 1..=5_u32 {
        let tag = step.to_string();
        assert_eq!(sides.target.digest("team/app", &tag), Some(app(&tag).digest()));
    }
    assert_eq!(sides.carried("b5").len(), 3);
}

#[test]
fn a_chain_based_on_bundles_warns_and_fails_safely_when_one_is_lost() {
    let sides = Sides::new();
    let mut names: Vec<String> = Vec::new();
    for step in 1..=3_u32 {
        let image = app(&step.to_string());
        image.push(&sides.source);
        names.push(image.name());
        let (name, names) = (format!("b{step}"), names.iter().map(String::as_str).collect::<Vec<_>>());
        let former = format!("b{}.tar", step - 1);
        let options: &[&str] = if step == 1 { &[] } else { &["--since", &former] };
        let message = sides.export(&name, &names, options);
        if step > 1 {
            message.reported(&["assuming that"]);
        }
    }
    sides.deliver("b1");
    let tags = sides.target.tags("team/app");
    let requests = sides.target.requests().len();
    sides.import("b3", &["--missing", "missing.json"]).ended(7).reported(&[
        "nothing was pushed",
        "lacks 3 blobs",
        "The bundle builds on",
        "hint: on the connected side, export again",
    ]);
    let wrote = |r: &&crate::support::registry::Logged| !matches!(&*r.method, "GET" | "HEAD");
    assert_eq!(sides.target.requests().iter().skip(requests).filter(wrote).count(), 0, "nothing is half-imported");
    assert_eq!(sides.target.tags("team/app"), tags);
    // Exactly the content of the lost one.
    let missing: BTreeSet<String> = sides.read("missing.json")["blobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|blob| blob["digest"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(missing, sides.carried("b2").into_iter().collect());
    // The lost bundle turns up after all.
    sides.deliver("b2");
    sides.import("b3", &["--missing", "missing.json"]).ended(0);
    assert_eq!(sides.read("missing.json")["blobs"].as_array().unwrap().len(), 0);
    assert_eq!(sides.target.digest("team/app", "3"), Some(app("3").digest()));
}
