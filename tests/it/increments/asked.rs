//! The requests of an export whose receipts cover most content, and that fewer requests never make the bundle less
//! correct.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fixture::Sides;
use crate::support::images::{self, Image};
use crate::support::sha256;

/// A single image, an index and a signed image, with names for export.
fn images() -> (Vec<Image>, [&'static str; 3]) {
    let signed = images::oci("team/signed", "v1", &["signed"]);
    let signature = images::cosign_signature(&signed);
    let images = vec![
        images::oci("team/app", "1", &["one"]),
        images::oci_index("team/multi", "1", "both platforms"),
        signed,
        signature,
    ];
    (images, ["team/app:1", "team/multi:1", "team/signed:v1"])
}

/// All images have arrived: `first.receipt`.
fn arrived() -> (Sides, Vec<Image>, [&'static str; 3]) {
    let (sides, (images, names)) = (Sides::new(), images());
    images.iter().for_each(|image| image.push(&sides.source));
    sides.export("first", &names, &[]);
    sides.deliver("first");
    (sides, images, names)
}

fn rewrite(sides: &Sides, from: &str, to: &str, change: impl FnOnce(&mut Value)) {
    let mut receipt = sides.read(from);
    change(&mut receipt);
    std::fs::write(sides.path(to), receipt.to_string()).expect("a receipt");
}

/// Reduces a receipt to the form from before receipts recorded manifests.
fn without_more(receipt: &mut Value) {
    receipt.as_object_mut().unwrap().remove("manifests").expect("manifests are kept");
    let images = receipt["images"].as_array_mut().unwrap();
    images.iter_mut().for_each(|image| drop(image.as_object_mut().unwrap().remove("platforms")));
}

#[test]
fn for_an_image_that_arrived_only_its_tag_and_referrers_are_queried() {
    let (sides, images, names) = arrived();
    let before = sides.source.requests().len();
    sides.export("second", &names, &["--since", "first.receipt"]);
    // A signature list is always carried, because the other side may have extended it.
    assert_eq!(sides.carried("second"), [images[3].digest()]);
    let asked = sides.source.requests().split_off(before);
    let reads = |part: &str| asked.iter().filter(|r| r.method == "GET" && r.path.contains(part)).count();
    assert_eq!((reads("/manifests/"), reads("/blobs/")), (0, 0), "{asked:#?}");
    // Registries count GET as a pull; HEAD is free.
    let tags = asked.iter().filter(|r| r.method == "HEAD" && r.path.contains("/manifests/")).count();
    assert_eq!(tags, images.len(), "three tags and that of the signature: {asked:#?}");
    assert_eq!(
        reads("/tags/list"),
        4,
        "the lists show new signatures; after two tags, another request shows whether more follow: {asked:#?}"
    );
    let (first, second) = (sides.json("first"), sides.json("second"));
    assert_eq!(second.lock.images, first.lock.images);
    assert_eq!(second.assumed.len() + 1, sides.carried("first").len(), "all but the signature list");
}

#[test]
fn a_receipt_with_manifests_gives_the_same_bundle_as_one_without() {
    let (sides, _, names) = arrived();
    rewrite(&sides, "first.receipt", "bare.receipt", without_more);
    images::oci("team/app", "2", &["one", "two"]).push(&sides.source);
    let names = [&names[..], &["team/app:2"]].concat();
    for (out, receipt) in [("rich", "first.receipt"), ("bare", "bare.receipt")] {
        sides.export_at(1_800_000_000, out, &names, &["--since", receipt]);
    }
    let bytes = |name: &str| std::fs::read(sides.path(name)).unwrap();
    assert!(bytes("rich.tar") == bytes("bare.tar"));
    // A bundle assumed to have arrived works as a base as well.
    let before = sides.source.requests().len();
    sides.export("on", &names, &["--since", "first.tar"]);
    let reads = sides.source.requests().split_off(before).into_iter().filter(|r| r.method == "GET");
    assert_eq!(reads.filter(|r| r.path.contains("/manifests/")).count(), 1, "the new image");
}

#[test]
fn an_increment_contains_moved_tags_and_new_signatures() {
    let (sides, images, names) = arrived();
    let moved = images::oci("team/app", "1", &["another one"]);
    let signature = images::cosign_signature(&images[1]);
    [&moved, &signature].iter().for_each(|image| image.push(&sides.source));
    sides.export("second", &names, &["--since", "first.receipt"]);
    let carried: BTreeSet<String> = sides.carried("second").into_iter().collect();
    for new in [sha256(&moved.blobs[0]), sha256(&moved.blobs[1]), moved.digest(), signature.digest()] {
        assert!(carried.contains(&new), "{new}: {carried:?}");
    }
    sides.deliver("second");
    assert_eq!(sides.target.digest("team/app", "1"), Some(moved.digest()));
    assert_eq!(sides.target.digest("team/multi", signature.tag.as_deref().unwrap()), Some(signature.digest()));
}

#[test]
fn platforms_from_a_forged_receipt_do_not_enter_the_lock_of_a_carried_image() {
    let (sides, images, names) = arrived();
    rewrite(&sides, "first.receipt", "forged.receipt", |receipt| {
        let app = receipt["images"].as_array_mut().unwrap().iter_mut().find(|image| image["platforms"].is_array());
        app.unwrap()["platforms"] = json!([{"os": "plan9", "architecture": "mips"}]);
        let layer = json!(sha256(&images[0].blobs[1]));
        receipt["confirmed"].as_array_mut().unwrap().retain(|digest| *digest != layer);
    });
    sides.export("second", &names, &["--since", "forged.receipt"]);
    assert_eq!(sides.json("second").lock.images, sides.json("first").lock.images);
    sides.deliver("second");
}

#[test]
fn a_forged_receipt_does_not_keep_an_image_from_being_exported_for_its_platform() {
    let (sides, _, _) = arrived();
    rewrite(&sides, "first.receipt", "forged.receipt", |receipt| {
        let images = receipt["images"].as_array_mut().unwrap().iter_mut();
        let single = images.filter(|image| image["platforms"].is_array());
        single.for_each(|image| image["platforms"] = json!([{"os": "plan9", "architecture": "mips"}]));
    });
    let options = ["--platform", "linux/amd64", "--since", "forged.receipt", "--since", "forged.receipt"];
    sides.export("second", &["team/app:1"], &options).reported(&["2 images no longer wanted"]);
    let platforms = &sides.json("second").lock.images[0].platforms;
    assert_eq!(platforms[0].to_string(), "linux/amd64");
    assert_eq!(sides.json("second").parents.len(), 1, "a receipt given twice counts once");
}

#[test]
fn a_receipt_with_a_manifest_of_the_wrong_digest_is_rejected() {
    let (sides, _, names) = arrived();
    let requests = sides.source.requests().len();
    for (name, change) in [("text", " "), ("digest", "0")] {
        rewrite(&sides, "first.receipt", "odd.receipt", |receipt| {
            let kept = &mut receipt["manifests"][0][name];
            *kept = json!(format!("{}{change}", kept.as_str().unwrap()));
        });
        sides.try_export("b", &names, &["--since", "odd.receipt"]).ended(2).reported(&["odd.receipt"]);
    }
    assert_eq!(sides.source.requests().len(), requests);
}
