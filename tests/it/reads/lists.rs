//! Incomplete lists of tags.

use crate::limits::shop::Shop;
use crate::reads::{all_output, assert_code, gapferry, json, path};
use crate::support::faulty::{Answer, Server};
use crate::support::tempdir;

#[tokio::test]
async fn a_tag_list_with_an_invalid_entry_yields_the_others_and_exits_1() {
    let shop = Shop::with(&[("team/app:1", "one"), ("team/app:2", "two")]);
    let server = Server::registry(move |request, _| match request.target.contains("/tags/list") {
        true => Answer::new(200).body(r#"{"name":"team/app","tags":["1",null,"2"]}"#),
        false => shop.answer(request),
    });
    let server = server.await;
    let directory = tempdir();
    let lock = directory.path().join("lock");
    let all = format!("{}/team/app", server.address);
    let output = gapferry(&["lock", &all, "-o", path(&lock)]).await;
    assert_code(&output, 1);
    assert!(all_output(&output).contains("null is not a tag"), "{}", all_output(&output));
    assert_eq!(json(&lock)["images"].as_array().unwrap().len(), 2);
    let output = gapferry(&["lock", &all, "-o", path(&lock), "--log-format", "json"]).await;
    assert!(all_output(&output).contains(r#""incomplete":true"#), "{}", all_output(&output));
}

#[tokio::test]
async fn an_image_named_by_tag_and_its_signature_do_not_depend_on_the_tag_list() {
    let mut shop = Shop::with(&[("team/app:1", "one")]);
    let signature = shop.digest("team/app:1").replace(':', "-") + ".sig";
    shop.add(&format!("team/app:{signature}"), "signature");
    let lists: [fn() -> Answer; 4] = [
        || Answer::new(200).body(r#"{"name":"team/app","tags":["2"]}"#),
        || Answer::new(200).body(r#"{"name":"team/app","tags":["1",null]}"#),
        || Answer::new(200).body(r#"{"name":"team/app","tags":["1"]}"#).with("Link", "<http://[/x>; rel=next"),
        || Answer::new(403),
    ];
    for list in lists {
        let shop = shop.clone();
        let server = Server::registry(move |request, _| match request.target.contains("/tags/list") {
            true => list(),
            false => shop.answer(request),
        });
        let server = server.await;
        let directory = tempdir();
        let lock = directory.path().join("lock");
        let one = format!("{}/team/app:1", server.address);
        assert_code(&gapferry(&["lock", &one, "-o", path(&lock)]).await, 0);
        let attached = json(&lock)["images"][0]["attached"].clone();
        assert_eq!(attached[0]["tag"], signature.as_str(), "{attached}");
    }
}
